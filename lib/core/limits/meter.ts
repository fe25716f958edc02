import { BOUNDS } from '../keys/bounds.ts'
import { periodAt } from './calendar.ts'
import type { CompiledLimit, LimitState } from './rate-limit.ts'

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

const MAX_WINDOW_MS = BOUNDS.windowMs.max
/** Longer than anything runs; a bucket may be so wide that it never empties. */
export const MAX_LIFETIME_MS = 10 * MAX_WINDOW_MS
/**
 * How much more than its burst a bucket may hold, as a share of the burst and never a whole call. Leaks are fractions,
 * and their sums are rounded.
 */
export const BUCKET_SLACK = 1e-12
export const MAX_BUCKET_SLACK = 0.5

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
export interface CostChange {
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
  changes: readonly CostChange[],
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
  return leakMs(limit, meter.used + cost - roomOf(limit))
}

function resetMs(limit: CompiledLimit, meter: Meter, now: number): number | null {
  if (meter.used <= 0) return null
  if (limit.kind !== 'bucket') return Math.max(1, meter.until - now)
  // As above: what is only a rounding away from the next whole call has reached it.
  const used = meter.used - (roomOf(limit) - limit.capacity)
  if (used <= 0) return null
  // More than the burst has to leak before a call remains.
  const nextUsed = Math.min(Math.ceil(used), limit.capacity) - 1
  return leakMs(limit, used - nextUsed)
}

/** How long it takes until so much has leaked. No meter lives longer than the most. */
function leakMs({ limit, windowMs }: CompiledLimit, units: number): number {
  return Math.max(1, Math.min(Math.ceil((units * windowMs) / limit), MAX_LIFETIME_MS))
}

function periodLength(limit: CompiledLimit, now: number): number {
  const { startsAt, endsAt } = periodAt(limit.per, limit.timeZone, now)
  return endsAt - startsAt
}
