import { checkArray, checkObject, fail } from '../internal/options.ts'
import { BOUNDS, checkBounded } from './bounds.ts'
import { type CalendarUnit, checkTimeZone, periodAt } from './calendar.ts'

/**
 * One limit on how often a key may be used. A key may have several; a call passes all of them or is charged to none.
 *
 * - `windowMs` alone: a fixed window that opens with the first call after the previous one ended.
 * - `windowMs` and `burst`: a token bucket that holds `burst` calls and refills at `limit` per `windowMs`. In any
 *   stretch of `windowMs` it admits at most `burst + limit` calls.
 * - `per`: a calendar day or month in `timeZone`.
 */
export type RateLimit = {
  /** Appears in the `RateLimit` fields and in refusals. Unique within a key: 1 to 32 letters, digits, `_` and `-`. */
  readonly name: string
  /** How many calls are allowed, a positive integer. */
  readonly limit: number
} & (
  | {
      /** The length of the window in milliseconds, at most 10 years. */
      readonly windowMs: number
      /** How many calls may come at once, a positive integer. Makes the limit a token bucket. */
      readonly burst?: number
      readonly per?: never
      readonly timeZone?: never
    }
  | {
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
    }
)

/** How a limit, or the quota, stands after a verification. */
export interface LimitState {
  readonly type: 'rate_limit' | 'quota'
  /** The limit's name; `quota` for the quota. */
  readonly name: string
  /** Calls per window; for a quota the refill's amount, or null where nothing refills it. */
  readonly limit: number | null
  /** Whole calls left. */
  readonly remaining: number
  /** The length of the window or calendar period in milliseconds; null for a quota. */
  readonly windowMs: number | null
  /** Milliseconds until `remaining` grows: the window's end, a bucket's next call, a quota's refill. Null if it is full. */
  readonly resetMs: number | null
  /** Whether this limit refused the call. */
  readonly exceeded: boolean
}

/** A limit as the limiters use it: checked once, with everything computed that does not depend on the moment. */
export interface CompiledLimit {
  readonly name: string
  readonly kind: 'window' | 'bucket' | 'calendar'
  readonly limit: number
  /** The window's length in milliseconds; for a calendar period 0, since it varies. */
  readonly windowMs: number
  /** The most that can be used at once: `burst` for a bucket, `limit` otherwise. */
  readonly capacity: number
  readonly per: CalendarUnit
  readonly timeZone: string
  /** What, when it changes, restarts the count: the name, the kind and the window, not the number. */
  readonly shape: string
}

/** What a limiter keeps for one limit: how much is used, since when, and under which shape it was counted. */
export interface Meter {
  readonly shape: string
  /** Units used. A fraction only in a bucket, which leaks. */
  readonly used: number
  /** When the window or period began, or the bucket was last read; milliseconds since the epoch. */
  readonly since: number
}

export interface MeterReading {
  readonly fits: boolean
  /** The meter as of now, before the cost. */
  readonly meter: Meter
  /** Milliseconds until the cost would fit; 0 where it fits, null where it never will. */
  readonly retryAfterMs: number | null
}

const DAY_MS = 86_400_000
const MAX_WINDOW_MS = BOUNDS.windowMs.max
/** Longer than anything runs; a bucket may be so wide that it never empties. */
const MAX_LIFETIME_MS = 10 * MAX_WINDOW_MS
/** What a limit may be called, but `quota`. */
export const LIMIT_NAME = /^[A-Za-z0-9_-]{1,32}$/

/** Reads a meter at `now` and decides whether `cost` fits. Pure: charging is {@link chargeMeter}. */
export function readMeter(
  limit: CompiledLimit,
  kept: Meter | undefined,
  cost: number,
  now: number,
): MeterReading {
  const meter = currentMeter(limit, kept, now)
  if (cost === 0 || meter.used + cost <= limit.capacity) return { fits: true, meter, retryAfterMs: 0 }
  return { fits: false, meter, retryAfterMs: cost > limit.capacity ? null : waitFor(limit, meter, cost, now) }
}

/** The meter after `cost` was spent. */
export function chargeMeter(meter: Meter, cost: number): Meter {
  return { shape: meter.shape, used: meter.used + cost, since: meter.since }
}

/**
 * The meter after what was spent at `chargedAt` is given back, as far as it still counts; null where it does not. Of a
 * bucket it takes for leaked all that can have leaked since, so that giving back never admits more than the limit.
 */
export function refundMeter(
  limit: CompiledLimit,
  kept: Meter | undefined,
  cost: number,
  chargedAt: number,
  now: number,
): Meter | null {
  if (!kept) return null
  const meter = currentMeter(limit, kept, now)
  const leaked = limit.kind === 'bucket' ? (Math.max(0, now - chargedAt) * limit.limit) / limit.windowMs : 0
  const isOver = limit.kind !== 'bucket' && (meter.since !== kept.since || chargedAt < kept.since)
  const back = isOver ? 0 : Math.max(0, cost - leaked)
  return back === 0 ? null : { ...meter, used: Math.max(0, meter.used - back) }
}

/** How a limit stands, from its meter as of now. */
export function limitState(limit: CompiledLimit, meter: Meter, exceeded: boolean, now: number): LimitState {
  return {
    type: 'rate_limit',
    name: limit.name,
    limit: limit.limit,
    remaining: Math.max(0, Math.floor(limit.capacity - meter.used)),
    windowMs: limit.kind === 'calendar' ? periodLength(limit, now) : limit.windowMs,
    resetMs: resetMs(limit, meter, now),
    exceeded,
  }
}

/** How long a meter of this limit can matter, in milliseconds. */
export function lifetimeMs(limit: CompiledLimit): number {
  if (limit.kind === 'calendar') return (limit.per === 'day' ? 2 : 32) * DAY_MS
  const lifetime = Math.ceil((limit.windowMs * limit.capacity) / Math.min(limit.capacity, limit.limit))
  return Math.min(lifetime, MAX_LIFETIME_MS)
}

/** Checks limits and prepares them. @throws TypeError naming the member. */
export function compileRateLimits(name: string, value: unknown): readonly CompiledLimit[] {
  const limits = checkArray(name, value, BOUNDS.rateLimits.max).map((limit, i) =>
    compileRateLimit(`${name}[${i}]`, limit),
  )
  const names = new Set<string>()
  for (const [i, limit] of limits.entries()) {
    if (names.has(limit.name))
      throw new TypeError(`"${name}[${i}].name" must be unique among the limits of a key`)
    names.add(limit.name)
  }
  return Object.freeze(limits)
}

function compileRateLimit(path: string, value: unknown): CompiledLimit {
  const given = checkObject(path, value, ['name', 'limit', 'windowMs', 'burst', 'per', 'timeZone'])
  const { name } = given
  if (typeof name !== 'string' || !LIMIT_NAME.test(name)) {
    fail(`${path}.name`, '1 to 32 letters, digits, "_" and "-"', name)
  }
  if (name === 'quota') throw new TypeError(`"${path}.name" must not be "quota", which names the quota`)
  const limit = checkBounded(`${path}.limit`, given.limit, BOUNDS.limit)
  if (given.per !== undefined) return compileCalendar(path, name, limit, given)
  if (given.timeZone !== undefined) throw new TypeError(`"${path}.timeZone" goes with "per" only`)
  const windowMs = checkBounded(`${path}.windowMs`, given.windowMs, BOUNDS.windowMs)
  const bucket = given.burst !== undefined
  const capacity = bucket ? checkBounded(`${path}.burst`, given.burst, BOUNDS.burst) : limit
  const kind = bucket ? 'bucket' : 'window'
  return Object.freeze({
    name,
    kind,
    limit,
    windowMs,
    capacity,
    per: 'day',
    timeZone: 'UTC',
    shape: `${name} ${kind} ${windowMs}`,
  })
}

function compileCalendar(
  path: string,
  name: string,
  limit: number,
  given: Record<string, unknown>,
): CompiledLimit {
  const { per } = given
  if (per !== 'day' && per !== 'month') fail(`${path}.per`, '"day" or "month"', per)
  for (const other of ['windowMs', 'burst']) {
    if (given[other] !== undefined) throw new TypeError(`"${path}.${other}" cannot be combined with "per"`)
  }
  const timeZone = checkTimeZone(`${path}.timeZone`, given.timeZone ?? 'UTC')
  return Object.freeze({
    name,
    kind: 'calendar',
    limit,
    windowMs: 0,
    capacity: limit,
    per,
    timeZone,
    shape: `${name} ${per} ${timeZone}`,
  })
}

function currentMeter(limit: CompiledLimit, kept: Meter | undefined, now: number): Meter {
  const meter = kept?.shape === limit.shape ? kept : undefined
  if (limit.kind === 'bucket') return leak(limit, meter, now)
  const isWindow = limit.kind === 'window'
  const opensAt = isWindow ? now : periodAt(limit.per, limit.timeZone, now).startsAt
  const hasEnded = meter && (isWindow ? now - meter.since >= limit.windowMs : meter.since < opensAt)
  if (!meter || hasEnded) return { shape: limit.shape, used: 0, since: opensAt }
  // A clock that was set back must not stretch a window beyond its length.
  return meter.since > opensAt ? { ...meter, since: opensAt } : meter
}

function leak(limit: CompiledLimit, meter: Meter | undefined, now: number): Meter {
  if (!meter) return { shape: limit.shape, used: 0, since: now }
  const elapsed = Math.max(0, now - meter.since)
  const used = Math.max(0, Math.min(meter.used, limit.capacity) - (elapsed * limit.limit) / limit.windowMs)
  return { shape: limit.shape, used, since: now }
}

function waitFor(limit: CompiledLimit, meter: Meter, cost: number, now: number): number {
  if (limit.kind !== 'bucket') return Math.max(1, windowEnd(limit, meter, now) - now)
  return Math.max(1, Math.ceil(((meter.used + cost - limit.capacity) * limit.windowMs) / limit.limit))
}

function resetMs(limit: CompiledLimit, meter: Meter, now: number): number | null {
  if (meter.used <= 0) return null
  if (limit.kind !== 'bucket') return Math.max(1, windowEnd(limit, meter, now) - now)
  const toNextUnit = meter.used - (Math.ceil(meter.used) - 1)
  return Math.max(1, Math.ceil((toNextUnit * limit.windowMs) / limit.limit))
}

function windowEnd(limit: CompiledLimit, meter: Meter, now: number): number {
  if (limit.kind === 'window') return meter.since + limit.windowMs
  return periodAt(limit.per, limit.timeZone, now).endsAt
}

function periodLength(limit: CompiledLimit, now: number): number {
  const { startsAt, endsAt } = periodAt(limit.per, limit.timeZone, now)
  return endsAt - startsAt
}
