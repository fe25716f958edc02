import { checkInteger, checkObject, fail } from '../internal/options.ts'
import { type CalendarUnit, checkTimeZone, periodAt } from './calendar.ts'

/**
 * When and to what a quota is filled up again. A refill raises what remains to `amount`; it takes nothing away of
 * what was granted beyond, but for what a limiter holds unspent, which is at most a block (`quotaBlockSize`).
 */
export type QuotaRefill = {
  /** What remains after a refill, at least; a positive integer. */
  readonly amount: number
} & (
  | {
      /** Milliseconds between refills, counted from when the quota was set; at least 1,000. */
      readonly everyMs: number
      readonly per?: never
      readonly timeZone?: never
    }
  | {
      /** Refill at the beginning of every calendar day or month. */
      readonly per: CalendarUnit
      /**
       * The time zone whose midnight counts.
       *
       * @default 'UTC'
       */
      readonly timeZone?: string
      readonly everyMs?: never
    }
)

/** How many calls a key has left in all, whatever the rate. Rotation carries it over: it belongs to the lineage. */
export interface Quota {
  /** Calls left, a non-negative integer. */
  readonly remaining: number
  /** @default null (never refilled) */
  readonly refill?: QuotaRefill | null
}

/**
 * A quota as a store keeps it, one for each lineage.
 *
 * Units travel: the store moves a block from `remaining` to `allotted`, a limiter spends what was allotted. Setting
 * or refilling the quota begins a new epoch, in which nothing is allotted yet, so that nothing written late
 * for an old epoch can change the new one.
 */
export interface QuotaRecord {
  /** Units not yet handed to a limiter. */
  readonly remaining: number
  /** Rises with every setting and every refill that adds units. */
  readonly epoch: number
  /** Units handed to limiters in this epoch, in all. */
  readonly allotted: number
  readonly refill: QuotaRefill | null
  /** When the next refill is due. */
  readonly nextRefillAt: Date | null
}

/** What a reservation did. */
export interface QuotaReservation {
  readonly epoch: number
  /** Units handed out in this epoch in all, this reservation included. */
  readonly allotted: number
  /** Units handed out by this reservation; 0 where nothing remained. */
  readonly granted: number
  /** Units still in the store. */
  readonly remaining: number
  readonly nextRefillAt: Date | null
}

const MAX_UNITS = 1_000_000_000_000
const MAX_EVERY_MS = 3_660 * 86_400_000

/**
 * The quota record that setting `quota` makes, at `at`, after `previous`. The epoch is at least the time, so
 * that it rises even where the previous quota was removed in between.
 */
export function startQuota(quota: Quota, previous: QuotaRecord | null, at: Date): QuotaRecord {
  const refill = quota.refill ?? null
  return {
    remaining: quota.remaining,
    epoch: Math.max((previous?.epoch ?? 0) + 1, at.getTime()),
    allotted: 0,
    refill,
    nextRefillAt: refill && nextRefill(refill, at.getTime(), at.getTime()),
  }
}

/**
 * Carries out a refill that is due at `at`, then moves up to `amount` units to the allotment. Pure: a store's
 * `reserveQuota` applies it to its row in one atomic step.
 */
export function decideReservation(
  quota: QuotaRecord,
  amount: number,
  at: Date,
): { readonly next: QuotaRecord; readonly reservation: QuotaReservation } {
  const due = refillIfDue(quota, at)
  const granted = Math.min(amount, due.remaining)
  const next = { ...due, remaining: due.remaining - granted, allotted: due.allotted + granted }
  const { epoch, allotted, remaining, nextRefillAt } = next
  return { next, reservation: { epoch, allotted, granted, remaining, nextRefillAt } }
}

/** Requires a quota. @throws TypeError naming the member. */
export function checkQuota(name: string, value: unknown): Quota {
  const given = checkObject(name, value, ['remaining', 'refill'])
  const remaining = checkInteger(`${name}.remaining`, given.remaining, 0, MAX_UNITS)
  if (given.refill === undefined || given.refill === null) return { remaining, refill: null }
  return { remaining, refill: checkRefill(`${name}.refill`, given.refill) }
}

function checkRefill(name: string, value: unknown): QuotaRefill {
  const given = checkObject(name, value, ['amount', 'everyMs', 'per', 'timeZone'])
  const amount = checkInteger(`${name}.amount`, given.amount, 1, MAX_UNITS)
  if (given.everyMs !== undefined) {
    if (given.per !== undefined)
      throw new TypeError(`"${name}" must have either "everyMs" or "per", not both`)
    if (given.timeZone !== undefined) throw new TypeError(`"${name}.timeZone" goes with "per" only`)
    return { amount, everyMs: checkInteger(`${name}.everyMs`, given.everyMs, 1_000, MAX_EVERY_MS) }
  }
  const { per } = given
  if (per !== 'day' && per !== 'month') fail(`${name}.per`, '"day" or "month" (or give "everyMs")', per)
  return { amount, per, timeZone: checkTimeZone(`${name}.timeZone`, given.timeZone ?? 'UTC') }
}

function refillIfDue(quota: QuotaRecord, at: Date): QuotaRecord {
  const { refill, nextRefillAt } = quota
  if (!refill || !nextRefillAt || at.getTime() < nextRefillAt.getTime()) return quota
  const next = nextRefill(refill, nextRefillAt.getTime(), at.getTime())
  // A new epoch takes back what limiters hold unspent: none begins where there is nothing to add.
  if (quota.remaining >= refill.amount) return { ...quota, nextRefillAt: next }
  return { remaining: refill.amount, epoch: quota.epoch + 1, allotted: 0, refill, nextRefillAt: next }
}

/** The first refill after `now`, in step with `from`. Several that were missed count as one. */
function nextRefill(refill: QuotaRefill, from: number, now: number): Date {
  if (refill.everyMs === undefined)
    return new Date(periodAt(refill.per, refill.timeZone ?? 'UTC', now).endsAt)
  const steps = Math.floor((now - from) / refill.everyMs) + 1
  return new Date(from + steps * refill.everyMs)
}
