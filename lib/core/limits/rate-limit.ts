import { OptionError } from '../../internal/option-error.ts'
import { checkArray, checkObject, checkOneOf, fail, isPlainObject } from '../../internal/options.ts'
import { BOUNDS, checkBounded } from '../keys/bounds.ts'
import { CALENDAR_UNITS, type CalendarUnit, checkTimeZone, periodAt } from './calendar.ts'

/**
 * One limit on how often a key may be used. A key may have several; a call either fits all of them or spends nothing.
 *
 * - `windowMs` alone: a fixed window that opens with the first call after the previous one ended.
 * - `windowMs` and `burst`: a token bucket that holds `burst` calls and refills at `limit` per `windowMs`. In any
 *   stretch of `windowMs` it admits at most `burst + limit` calls.
 * - `per`: a calendar day or month in `timeZone`.
 * - `concurrent`: how many calls may be under way at once. A call takes a place and gives it back when it ends.
 */
export type RateLimit = {
  /** The name in the `RateLimit` fields and in refusals. Unique within a key: 1 to 32 letters, digits, `_` and `-`. */
  readonly name: string
  /**
   * `'named'`: the limit counts only calls whose `cost` names it, as `cost: { tokens: 500 }` names `tokens`. All other
   * calls neither count on it nor are refused by it.
   *
   * @default every call counts
   */
  readonly only?: 'named'
} & (
  | {
      /** How many units are allowed, a positive integer. A call costs one unit unless the route says otherwise. */
      readonly limit: number
      /** The length of the window in milliseconds, at most 10 years. */
      readonly windowMs: number
      /** How many calls may come at once, a positive integer. It makes the limit a token bucket. */
      readonly burst?: number
      readonly per?: never
      readonly timeZone?: never
      readonly concurrent?: never
      readonly maxHeldMs?: never
    }
  | {
      /** How many units are allowed, a positive integer. A call costs one unit unless the route says otherwise. */
      readonly limit: number
      /** The calendar period. */
      readonly per: CalendarUnit
      /**
       * The time zone whose midnight begins the period: an IANA name or an offset.
       *
       * @default 'UTC'
       */
      readonly timeZone?: string
      readonly windowMs?: never
      readonly burst?: never
      readonly concurrent?: never
      readonly maxHeldMs?: never
    }
  | {
      /**
       * How many calls may be under way at once, an integer from 1 to 10,000. The middlewares give a place back when the
       * response ends; after `keys.verify`, call `keys.release`.
       */
      readonly concurrent: number
      /**
       * How long a place stays taken if its process dies and nobody gives it back, in milliseconds: 1 second to 1 hour.
       * A longer response keeps its place: its process renews it.
       *
       * @default 60_000
       */
      readonly maxHeldMs?: number
      readonly limit?: never
      readonly windowMs?: never
      readonly burst?: never
      readonly per?: never
      readonly timeZone?: never
    }
)

/** The state of a limit, or of the quota, after a verification. */
export interface LimitState {
  readonly type: 'rate_limit' | 'quota' | 'concurrent'
  /** The limit's name; `quota` for the quota. */
  readonly name: string
  /** Calls per window, or at once. For a quota, the refill's amount, or null if it has no refill. */
  readonly limit: number | null
  /** Whole calls left; for a limit of type `concurrent`, free places. */
  readonly remaining: number
  /** The length of the window or calendar period in milliseconds; null for a quota and for `concurrent`. */
  readonly windowMs: number | null
  /** Milliseconds until `remaining` grows: the window's end, a bucket's next call, a quota's refill. Null if it is full, and for `concurrent`. */
  readonly resetMs: number | null
  /** Whether this limit refused the call. */
  readonly exceeded: boolean
}

/** A limit as the limiters use it: checked once, with everything computed that does not depend on the moment. */
export interface CompiledLimit {
  readonly name: string
  readonly kind: 'window' | 'bucket' | 'calendar' | 'concurrent'
  /** Whether only calls count whose cost names the limit. */
  readonly isNamed: boolean
  /** Whether it counts the calls of all keys of an owner together. */
  readonly isOwners: boolean
  readonly limit: number
  /** The window's length in milliseconds; for a calendar period 0, since it varies. */
  readonly windowMs: number
  /** The most that can be used at once: `burst` for a bucket, `limit` otherwise. */
  readonly capacity: number
  /** How long a place of a `concurrent` limit stays taken unless it is renewed, in milliseconds; otherwise 0. */
  readonly maxHeldMs: number
  readonly per: CalendarUnit
  readonly timeZone: string
  /** A change of this restarts the count: the name, the kind and the window, but not the number. */
  readonly shape: string
}

/**
 * What a limiter keeps for one limit: how much is used, since when, and under which shape. It does not depend on the
 * limit's number or the reader's burst. So processes with different numbers, or a number that changes back and forth,
 * neither lose nor grant usage. Only a bucket's rate matters: it drains at the rate of the process that charges it
 * next.
 */
export interface Meter {
  readonly shape: string
  /** Units used. A fraction only in a bucket, which leaks; there it may be more than a smaller burst allows. */
  readonly used: number
  /** When the window or period began, or the bucket was last charged; milliseconds since the epoch. */
  readonly since: number
  /**
   * When it has ended: the end of the window or period, or when the bucket is empty at the rate of whoever charged it. It
   * counts until then and not after; only then may it be dropped.
   */
  readonly until: number
}

export interface MeterReading {
  readonly fits: boolean
  /** The meter as of now, before the cost. */
  readonly meter: Meter
  /** Milliseconds until the cost would fit; 0 where it fits, null where it never will. */
  readonly retryAfterMs: number | null
}

const MEMBERS = ['name', 'limit', 'only', 'windowMs', 'burst', 'per', 'timeZone', 'concurrent', 'maxHeldMs']
const DEFAULT_MAX_HELD_MS = 60_000
const MAX_WINDOW_MS = BOUNDS.windowMs.max
/** Longer than anything runs; a bucket may be so wide that it never empties. */
export const MAX_LIFETIME_MS = 10 * MAX_WINDOW_MS
/**
 * How much more than its burst a bucket may hold, as a share of the burst and never a whole call. Leaks are fractions,
 * and their sums are rounded.
 */
export const BUCKET_SLACK = 1e-12
export const MAX_BUCKET_SLACK = 0.5
/** The allowed names of limits, except `quota`. */
export const LIMIT_NAME = /^[A-Za-z0-9_-]{1,32}$/

/** How many meters of a lineage may run at once. Limits beyond that read as used up. */
export const MAX_METERS = 256

/** Reads a meter at `now` and decides whether `cost` fits. Pure: charging is {@link chargeMeter}. */
export function readMeter(
  limit: CompiledLimit,
  kept: Meter | undefined,
  cost: number,
  now: number,
): MeterReading {
  const meter = currentMeter(limit, kept, now)
  if (cost === 0 || meter.used + cost <= roomOf(limit)) return { fits: true, meter, retryAfterMs: 0 }
  return { fits: false, meter, retryAfterMs: cost > limit.capacity ? null : waitFor(limit, meter, cost, now) }
}

/** A meter that was read, after `cost` was spent. */
export function chargeMeter(limit: CompiledLimit, meter: Meter, cost: number): Meter {
  return withUsed(limit, meter, meter.used + cost)
}

/** How a limit reads at `now` where there is no room to count it. */
export function usedUpMeter(limit: CompiledLimit, now: number): Meter {
  return withUsed(limit, currentMeter(limit, undefined, now), limit.capacity)
}

/** Rebuilds a meter that was read at `now` from these two values. */
export function toldMeter(limit: CompiledLimit, used: number, since: number, now: number): Meter {
  return { shape: limit.shape, used, since, until: endOf(limit, used, since, now) }
}

/** A change of what a call has cost. */
export interface MeterChange {
  /** More than 0: charged now, beyond the limit if need be. Less than 0: given back. */
  readonly units: number
  /** When the units that are given back were charged. */
  readonly chargedAt: number
}

/** What changes have done. */
export interface SettledMeter {
  /** Null if they change nothing. */
  readonly meter: Meter | null
  /** How many units each of them has charged or given back. */
  readonly made: readonly number[]
}

/** Makes changes, in their order. */
export function settleMeter(
  limit: CompiledLimit,
  kept: Meter | undefined,
  changes: readonly MeterChange[],
  now: number,
): SettledMeter {
  const made: number[] = []
  let changed: Meter | null = null
  for (const { units, chargedAt } of changes) {
    const before: Meter | undefined = changed ?? kept
    const meter = currentMeter(limit, before, now)
    const back = units > 0 ? 0 : unitsBack(limit, before, -units, chargedAt, now)
    if (units > 0) changed = overcharge(limit, meter, units)
    else if (back > 0) changed = withUsed(limit, meter, Math.max(0, meter.used - back))
    made.push(units > 0 ? units : back)
  }
  return { meter: changed, made }
}

/** A debt has no limit, but a meter does: beyond it, numbers are not exact, and no limiter would read them. */
function overcharge(limit: CompiledLimit, meter: Meter, units: number): Meter {
  return withUsed(limit, meter, Math.min(meter.used + units, Number.MAX_SAFE_INTEGER))
}

/**
 * How much of what was spent at `chargedAt` still counts, and so can be given back. For a bucket it assumes the most that can have
 * leaked since, so a return never admits more than the limit.
 */
function unitsBack(
  limit: CompiledLimit,
  kept: Meter | undefined,
  cost: number,
  chargedAt: number,
  now: number,
): number {
  if (!isRunning(limit, kept, now)) return 0
  const leaked = limit.kind === 'bucket' ? (Math.max(0, now - chargedAt) * limit.limit) / limit.windowMs : 0
  const { since } = currentMeter(limit, kept, now)
  const isOver = limit.kind !== 'bucket' && (since !== kept.since || chargedAt < kept.since)
  return isOver ? 0 : Math.max(0, cost - leaked)
}

/** How a limit stands, from its meter as of now. */
export function limitState(limit: CompiledLimit, meter: Meter, exceeded: boolean, now: number): LimitState {
  return {
    type: 'rate_limit',
    name: limit.name,
    limit: limit.limit,
    remaining: Math.min(limit.capacity, Math.max(0, Math.floor(roomOf(limit) - meter.used))),
    windowMs: limit.kind === 'calendar' ? periodLength(limit, now) : limit.windowMs,
    resetMs: resetMs(limit, meter, now),
    exceeded,
  }
}

/** Checks limits of a key and prepares them. @throws TypeError naming the member. */
export function compileRateLimits(name: string, value: unknown): readonly CompiledLimit[] {
  return compileAll(name, value, (path, limit) => compileRateLimit(path, limit))
}

/** The same for limits of the service, some of which may be the owner's: those come last. */
export function compileServiceLimits(name: string, value: unknown): readonly CompiledLimit[] {
  const limits = compileAll(name, value, (path, given) => {
    const { scope = 'key', ...limit } = checkObject(path, given, [...MEMBERS, 'scope'])
    const isOwners = checkOneOf(`${path}.scope`, scope, ['key', 'owner']) === 'owner'
    return Object.freeze({ ...compileRateLimit(path, limit), isOwners })
  })
  const owners = limits.filter(({ isOwners }) => isOwners)
  if (owners.length === 0) return limits
  return Object.freeze([...limits.filter(({ isOwners }) => !isOwners), ...owners])
}

function compileAll(
  name: string,
  value: unknown,
  compile: (path: string, limit: unknown) => CompiledLimit,
): readonly CompiledLimit[] {
  const limits = checkArray(name, value, BOUNDS.rateLimits.max).map((limit, i) =>
    compile(`${name}[${i}]`, limit),
  )
  const names = new Set<string>()
  for (const [i, limit] of limits.entries()) {
    if (names.has(limit.name))
      throw new OptionError(`${name}[${i}].name`, 'be unique among the limits of a key')
    names.add(limit.name)
  }
  return Object.freeze(limits)
}

function compileRateLimit(path: string, value: unknown): CompiledLimit {
  if (isPlainObject(value) && value.scope !== undefined) {
    throw new OptionError(`${path}.scope`, 'be used only in "rateLimits" of createApiKeys')
  }
  const given = checkObject(path, value, MEMBERS)
  const { name } = given
  if (typeof name !== 'string' || !LIMIT_NAME.test(name)) {
    fail(`${path}.name`, '1 to 32 letters, digits, "_" and "-"', name)
  }
  if (name === 'quota') throw new OptionError(`${path}.name`, 'not be "quota", which names the quota')
  if (given.only !== undefined) checkOneOf(`${path}.only`, given.only, ['named'])
  if (given.concurrent !== undefined) return compileConcurrent(path, name, given)
  if (given.maxHeldMs !== undefined)
    throw new OptionError(
      `${path}.maxHeldMs`,
      'be used only with "concurrent"',
      `"${path}.maxHeldMs" is allowed only with "concurrent"`,
    )
  const limit = checkBounded(`${path}.limit`, given.limit, BOUNDS.limit)
  if (given.per !== undefined) return compileCalendar(path, name, limit, given)
  if (given.timeZone !== undefined)
    throw new OptionError(
      `${path}.timeZone`,
      'be used only with "per"',
      `"${path}.timeZone" is allowed only with "per"`,
    )
  const windowMs = checkBounded(`${path}.windowMs`, given.windowMs, BOUNDS.windowMs)
  const bucket = given.burst !== undefined
  const capacity = bucket ? checkBounded(`${path}.burst`, given.burst, BOUNDS.burst) : limit
  const kind = bucket ? 'bucket' : 'window'
  return Object.freeze({
    name,
    kind,
    isNamed: given.only === 'named',
    isOwners: false,
    limit,
    windowMs,
    capacity,
    maxHeldMs: 0,
    per: 'day',
    timeZone: 'UTC',
    shape: `${name} ${kind} ${windowMs}`,
  })
}

function compileConcurrent(path: string, name: string, given: Record<string, unknown>): CompiledLimit {
  refuseOthers(path, given, ['limit', 'windowMs', 'burst', 'per', 'timeZone'], 'concurrent')
  const limit = checkBounded(`${path}.concurrent`, given.concurrent, BOUNDS.concurrent)
  const { maxHeldMs = DEFAULT_MAX_HELD_MS } = given
  return Object.freeze({
    name,
    kind: 'concurrent',
    isNamed: given.only === 'named',
    isOwners: false,
    limit,
    windowMs: 0,
    capacity: limit,
    maxHeldMs: checkBounded(`${path}.maxHeldMs`, maxHeldMs, BOUNDS.maxHeldMs),
    per: 'day',
    timeZone: 'UTC',
    shape: `${name} concurrent`,
  })
}

/** Requires that none of `others` is given beside `member`. */
function refuseOthers(
  path: string,
  given: Record<string, unknown>,
  others: readonly string[],
  member: string,
): void {
  for (const other of others) {
    if (given[other] === undefined) continue
    const problem = `"${path}.${other}" cannot be combined with "${member}"`
    throw new OptionError(`${path}.${other}`, `not be combined with "${member}"`, problem)
  }
}

function compileCalendar(
  path: string,
  name: string,
  limit: number,
  given: Record<string, unknown>,
): CompiledLimit {
  const per = checkOneOf(`${path}.per`, given.per, CALENDAR_UNITS)
  refuseOthers(path, given, ['windowMs', 'burst'], 'per')
  const timeZone = checkTimeZone(`${path}.timeZone`, given.timeZone ?? 'UTC')
  return Object.freeze({
    name,
    kind: 'calendar',
    isNamed: given.only === 'named',
    isOwners: false,
    limit,
    windowMs: 0,
    capacity: limit,
    maxHeldMs: 0,
    per,
    timeZone,
    shape: `${name} ${per} ${timeZone}`,
  })
}

function currentMeter(limit: CompiledLimit, kept: Meter | undefined, now: number): Meter {
  const running = isRunning(limit, kept, now) ? kept : undefined
  if (limit.kind === 'bucket') return toldMeter(limit, running ? leak(limit, running, now) : 0, now, now)
  const opensAt = limit.kind === 'window' ? now : periodAt(limit.per, limit.timeZone, now).startsAt
  if (!running) return toldMeter(limit, 0, opensAt, now)
  // A clock that was set back must not stretch a window beyond its length.
  return running.since > opensAt ? toldMeter(limit, running.used, opensAt, now) : running
}

function isRunning(limit: CompiledLimit, kept: Meter | undefined, now: number): kept is Meter {
  return kept?.shape === limit.shape && kept.until > now
}

/** What is left in a bucket. More than its burst stays what it is: another reader's may be larger. */
function leak(limit: CompiledLimit, meter: Meter, now: number): number {
  return Math.max(0, meter.used - (Math.max(0, now - meter.since) * limit.limit) / limit.windowMs)
}

function withUsed(limit: CompiledLimit, { shape, since, until }: Meter, used: number): Meter {
  return { shape, used, since, until: limit.kind === 'bucket' ? emptyAt(limit, used, since) : until }
}

function endOf(limit: CompiledLimit, used: number, since: number, now: number): number {
  if (limit.kind === 'bucket') return emptyAt(limit, used, since)
  if (limit.kind === 'window') return since + limit.windowMs
  return periodAt(limit.per, limit.timeZone, now).endsAt
}

/** When a bucket is empty. */
function emptyAt(limit: CompiledLimit, used: number, since: number): number {
  return since + Math.min(Math.ceil((used * limit.windowMs) / limit.limit), MAX_LIFETIME_MS)
}

/** The most that may be used under a limit. */
function roomOf({ kind, capacity }: CompiledLimit): number {
  return kind === 'bucket' ? capacity + Math.min(capacity * BUCKET_SLACK, MAX_BUCKET_SLACK) : capacity
}

function waitFor(limit: CompiledLimit, meter: Meter, cost: number, now: number): number {
  if (limit.kind !== 'bucket') return Math.max(1, meter.until - now)
  return Math.max(1, Math.ceil(((meter.used + cost - roomOf(limit)) * limit.windowMs) / limit.limit))
}

function resetMs(limit: CompiledLimit, meter: Meter, now: number): number | null {
  if (meter.used <= 0) return null
  if (limit.kind !== 'bucket') return Math.max(1, meter.until - now)
  // As above: what is only a rounding away from the next whole call has reached it.
  const used = meter.used - (roomOf(limit) - limit.capacity)
  if (used <= 0) return null
  const toNextUnit = used - (Math.ceil(used) - 1)
  return Math.max(1, Math.ceil((toNextUnit * limit.windowMs) / limit.limit))
}

function periodLength(limit: CompiledLimit, now: number): number {
  const { startsAt, endsAt } = periodAt(limit.per, limit.timeZone, now)
  return endsAt - startsAt
}
