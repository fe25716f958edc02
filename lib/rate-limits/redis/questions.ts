import { randomUUID } from 'node:crypto'
import { periodAt } from '../../core/limits/calendar.ts'
import {
  type CompiledLimit,
  limitState,
  type Meter,
  readMeter,
  toldMeter,
} from '../../core/limits/rate-limit.ts'
import type { LimitAnswer, LimitRequest, RefundRequest } from '../../core/limits/rate-limiter.ts'
import { admittedAnswer, refusedAnswer } from '../limit-answers.ts'
import type { Question, ScriptArguments } from './call.ts'
import type { Denials } from './denials.ts'
import { CHECK, CODE, RAISE, REFUND } from './scripts.ts'

/** Checks the version and all limits of a key. */
export function createCheck(
  denials: Denials,
  recover: (request: LimitRequest, error: unknown) => LimitAnswer,
): Question<LimitRequest, LimitAnswer> {
  return {
    script: CHECK,
    argumentsOf({ keyId, version, fresh, cost, limits, retainMs }, key, deadline, serverTime) {
      const facts = `${deadline} ${cost} ${version} ${fresh ? 1 : 0} ${retainMs}`
      const { window, each } = prepare(limits)
      if (window !== null && cost > 0) return [key, `${facts} ${window} v${keyId}`]
      const args: ScriptArguments = [key, facts, `v${keyId}`]
      pushLimits(args, each, serverTime)
      return args
    },
    read: (request, reply) => readCheck(denials, request, reply),
    recover,
  }
}

function readCheck(denials: Denials, request: LimitRequest, reply: readonly unknown[]): LimitAnswer {
  const code = Number(reply[0])
  const now = Number(reply[1])
  const { limits, cost } = request
  if (code === CODE.admitted && limits.length === 1 && reply.length === 4 && cost > 0) {
    return admittedToOne(limits[0] as CompiledLimit, Number(reply[2]), Number(reply[3]), now)
  }
  const isStale = code === CODE.stale
  if (reply.length !== 2 + (isStale ? 0 : 2 * limits.length)) {
    throw new TypeError('Unexpected reply from Redis')
  }
  if (isStale) return { outcome: 'stale' }
  const meters: Meter[] = []
  let next = 2
  for (const limit of limits) {
    meters.push(toldMeter(limit, Number(reply[next]), Number(reply[next + 1]), now))
    next += 2
  }
  if (code === CODE.admitted) return admittedAnswer(limits, meters, cost > 0 ? now : null, now)
  denials.remember(request, meters, now)
  const readings = limits.map((limit, i) => readMeter(limit, meters[i], cost, now))
  return refusedAnswer(limits, readings, now)
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
  argumentsOf: (args, key) => [key, ...args],
  read() {},
}

export const REFUNDING: Question<RefundRequest, void> = {
  script: REFUND,
  argumentsOf({ cost, chargedAt, limits }, key, deadline, serverTime) {
    const args: ScriptArguments = [key, deadline, randomUUID(), cost, chargedAt]
    pushLimits(args, prepare(limits).each, serverTime)
    return args
  },
  read() {},
}

/** Each limit as the scripts read it: its field, and three numbers that depend on its kind. */
function pushLimits(args: ScriptArguments, limits: readonly PreparedLimit[], serverTime: number): void {
  for (const { field, numbers, calendar } of limits) {
    if (calendar) {
      const { startsAt, endsAt } = periodAt(calendar.per, calendar.timeZone, serverTime)
      args.push(field, `${calendar.capacity} ${startsAt} ${endsAt}`)
    } else args.push(field, numbers)
  }
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
  /** The capacity and field of the only limit, if that is a window. */
  readonly window: string | null
}

const prepared = new WeakMap<readonly CompiledLimit[], PreparedLimits>()

function prepare(limits: readonly CompiledLimit[]): PreparedLimits {
  let known = prepared.get(limits)
  if (!known) {
    const each = limits.map(prepareLimit)
    const only = limits.length === 1 && limits[0]?.kind === 'window' ? limits[0] : null
    known = { each, window: only && `${only.capacity} ${each[0]?.field}` }
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
