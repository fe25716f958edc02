import { periodAt } from '../../core/limits/calendar.ts'
import { limitState, type Meter, readMeter, toldMeter } from '../../core/limits/meter.ts'
import { placeState } from '../../core/limits/places.ts'
import type { CompiledLimit, LimitState } from '../../core/limits/rate-limit.ts'
import {
  costAt,
  isLook,
  type LimitAnswer,
  type LimitRequest,
  neededAt,
  type SettleAnswer,
  type SettleRequest,
  type WantedPlaces,
} from '../../core/limits/rate-limiter.ts'
import { admittedAnswer, refusedAnswer } from '../limit-answers.ts'
import type { Question, ScriptArguments } from './call.ts'
import type { Denials } from './denials.ts'
import { CHECK } from './scripts/check.ts'
import { CHECK_PLACES, CHECK_SHARED } from './scripts/check-shared.ts'
import { CODE } from './scripts/parts.ts'
import { RELEASE, RENEW } from './scripts/places.ts'
import { RAISE } from './scripts/raise.ts'
import { SETTLE } from './scripts/settle.ts'

/** What the answer to a check needs besides the reply. */
export interface CheckParts {
  readonly denials: Denials
  /** The answer if Redis gives none. */
  recover(request: LimitRequest, error: unknown): LimitAnswer
}

/** Checks the version and all limits of a key, which all cost the same. */
export function createCheck({ denials, recover }: CheckParts): Question<LimitRequest, LimitAnswer> {
  return {
    script: CHECK,
    argumentsOf({ keyId, version, fresh, cost, limits, retainMs }, [key], deadline, serverTime) {
      const facts = `${deadline} ${cost} ${version} ${fresh ? 1 : 0} ${retainMs}`
      const { window, each } = prepare(limits)
      if (window !== null && cost > 0) return [key, `${facts} ${window} v${keyId}`]
      const args: ScriptArguments = [key, facts, `v${keyId}`]
      for (const limit of each) args.push(limit.field, numbersOf(limit, serverTime))
      return args
    },
    read: (request, reply) => readCheck(denials, request, reply),
    recover,
  }
}

/** The same for limits that differ in what they cost, or some of which are the owner's. */
export function createSharedCheck({ denials, recover }: CheckParts): Question<LimitRequest, LimitAnswer> {
  return {
    script: CHECK_SHARED,
    argumentsOf: (request, keys, deadline, serverTime) => [
      ...keys,
      sharedFacts(request, deadline),
      ...sharedArguments(request, serverTime),
    ],
    read: (request, reply) => readCheck(denials, request, reply),
    recover,
  }
}

/** The same for a call that also takes places. */
export function createPlacesCheck({ denials, recover }: CheckParts): Question<LimitRequest, LimitAnswer> {
  return {
    script: CHECK_PLACES,
    argumentsOf(request, keys, deadline, serverTime) {
      const { id, limits } = request.places ?? NO_PLACES
      const facts = `${sharedFacts(request, deadline)} ${keys.length - limits.length} ${id}`
      const args = [...keys, facts, ...sharedArguments(request, serverTime)]
      for (const { limit, maxHeldMs } of limits) args.push(`${limit} ${maxHeldMs}`)
      return args
    },
    read: (request, reply) => readCheck(denials, request, reply),
    recover,
  }
}

const NO_PLACES: WantedPlaces = { id: '', limits: [] }

function sharedFacts(request: LimitRequest, deadline: number): string {
  const { version, fresh, limits, retainMs } = request
  const look = isLook(request) ? 1 : 0
  return `${deadline} ${look} ${version} ${fresh ? 1 : 0} ${retainMs} ${prepare(limits).own}`
}

function sharedArguments(request: LimitRequest, serverTime: number): ScriptArguments {
  const args: ScriptArguments = [`v${request.keyId}`]
  for (const [i, limit] of prepare(request.limits).each.entries()) {
    args.push(limit.field, `${numbersOf(limit, serverTime)} ${costAt(request, i)}`)
  }
  return args
}

function readCheck(denials: Denials, request: LimitRequest, reply: readonly unknown[]): LimitAnswer {
  const code = Number(reply[0])
  const now = Number(reply[1])
  const { limits, places } = request
  if (code === CODE.admitted && limits.length === 1 && reply.length === 4 && !isLook(request)) {
    return admittedToOne(limits[0] as CompiledLimit, Number(reply[2]), Number(reply[3]), now)
  }
  const isStale = code === CODE.stale
  const count = limits.length + (places?.limits.length ?? 0)
  if (reply.length !== 2 + (isStale ? 0 : 2 * count)) {
    throw new TypeError('Unexpected reply from Redis')
  }
  if (isStale) return { outcome: 'stale' }
  const meters = readMeters(limits, reply, now)
  const isRefused = code !== CODE.admitted
  const states = places && readPlaces(places.limits, reply, 2 + 2 * limits.length, isRefused)
  if (!isRefused) return admittedAnswer(limits, meters, isLook(request) ? null : now, now, states)
  const readings = limits.map((limit, i) => readMeter(limit, meters[i], neededAt(request, i), now))
  // A place may come free at any moment, so nobody remembers that there was none.
  if (readings.some(({ fits }) => !fits)) denials.remember(request, meters, now)
  return refusedAnswer(limits, readings, now, states)
}

function readPlaces(
  limits: readonly CompiledLimit[],
  reply: readonly unknown[],
  from: number,
  isRefused: boolean,
): readonly LimitState[] {
  return limits.map((limit, i) => {
    const taken = Number(reply[from + 2 * i])
    return placeState(limit, taken, isRefused && taken >= limit.limit)
  })
}

function readMeters(limits: readonly CompiledLimit[], reply: readonly unknown[], now: number): Meter[] {
  const meters: Meter[] = []
  let next = 2
  for (const limit of limits) {
    meters.push(toldMeter(limit, Number(reply[next]), Number(reply[next + 1]), now))
    next += 2
  }
  return meters
}

/** The common answer, without a list of meters in between. */
function admittedToOne(limit: CompiledLimit, used: number, since: number, now: number): LimitAnswer {
  return {
    outcome: 'admitted',
    limits: [limitState(limit, toldMeter(limit, used, since, now), false, now)],
    chargedAt: now,
  }
}

/** Raises versions of a lineage, given as arguments of the script. */
export const RAISING: Question<ScriptArguments, void> = {
  script: RAISE,
  argumentsOf: (args, keys) => [...keys, ...args],
  read() {},
}

/** Changes what a call has cost: a call that counted on its own limits, or also on those of its owner. */
export const SETTLING: Question<SettleRequest, SettleAnswer> = {
  script: SETTLE,
  argumentsOf({ id, limits, changes }, keys, deadline, serverTime) {
    const { each, own } = prepare(limits)
    const args: ScriptArguments = [...keys, `${deadline} ${own} ${id}`]
    for (const [i, limit] of each.entries()) {
      let text = numbersOf(limit, serverTime)
      for (const { units, chargedAt } of changes[i] ?? []) text += ` ${chargedAt} ${units}`
      args.push(limit.field, text)
    }
    return args
  },
  read({ limits, changes }, reply) {
    const now = Number(reply[1])
    const first = 2 + 2 * limits.length
    if (reply.length !== first + 1 + changes.flat().length) throw new TypeError('Unexpected reply from Redis')
    const meters = readMeters(limits, reply, now)
    const states = limits.map((limit, i) => limitState(limit, meters[i] as Meter, false, now))
    let next = first + 1
    const made = changes.map((some) => some.map(() => Number(reply[next++])))
    return { limits: states, made, settledAt: Number(reply[first]) }
  },
}

/** Gives places back; nothing is asked in time, since it may be done at any. */
export const RELEASING: Question<string, void> = {
  script: RELEASE,
  argumentsOf: (id, keys) => [...keys, id],
  read() {},
}

/** Places of one limit to keep. */
export interface Renewal {
  readonly maxHeldMs: number
  readonly ids: readonly string[]
}

/** Keeps places; returns which of them had come free. */
export const RENEWING: Question<Renewal, readonly string[]> = {
  script: RENEW,
  argumentsOf: ({ maxHeldMs, ids }, keys, deadline) => [...keys, `${deadline} ${maxHeldMs}`, ...ids],
  read({ ids }, reply) {
    if (reply.length !== 2 + ids.length) throw new TypeError('Unexpected reply from Redis')
    return ids.filter((_id, i) => Number(reply[2 + i]) === 0)
  },
}

/** Three numbers of a limit that depend on its kind, as the scripts read them. */
function numbersOf({ numbers, calendar }: PreparedLimit, serverTime: number): string {
  if (!calendar) return numbers
  const { startsAt, endsAt } = periodAt(calendar.per, calendar.timeZone, serverTime)
  return `${calendar.capacity} ${startsAt} ${endsAt}`
}

/** The parts that do not change from call to call. */
interface PreparedLimit {
  readonly field: string
  readonly numbers: string
  /** The limit itself, if its numbers depend on the time. */
  readonly calendar: CompiledLimit | null
}

interface PreparedLimits {
  readonly each: readonly PreparedLimit[]
  /** How many belong to the key and not to its owner. */
  readonly own: number
  /** The capacity and field of the only limit, if that is a window. */
  readonly window: string | null
}

const prepared = new WeakMap<readonly CompiledLimit[], PreparedLimits>()

function prepare(limits: readonly CompiledLimit[]): PreparedLimits {
  let known = prepared.get(limits)
  if (!known) {
    const each = limits.map(prepareLimit)
    const only = limits.length === 1 && limits[0]?.kind === 'window' ? limits[0] : null
    const own = limits.filter(({ isOwners }) => !isOwners).length
    known = { each, own, window: only && `${only.capacity} ${each[0]?.field}` }
    prepared.set(limits, known)
  }
  return known
}

function prepareLimit(limit: CompiledLimit): PreparedLimit {
  const { kind, shape, capacity, windowMs } = limit
  if (kind === 'calendar') return { field: `xc${shape}`, numbers: '', calendar: limit }
  if (kind === 'window') return { field: `xw${shape}`, numbers: `${capacity} ${windowMs} 0`, calendar: null }
  return { field: `xb${shape}`, numbers: `${capacity} ${limit.limit} ${windowMs}`, calendar: null }
}
