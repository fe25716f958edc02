import { OptionError } from '../../internal/option-error.ts'
import { checkObject, checkOneOf } from '../../internal/options.ts'
import { BOUNDS, checkBounded } from '../keys/bounds.ts'
import { CALENDAR_UNITS, type CalendarUnit, checkTimeZone, periodAt } from './calendar.ts'

/**
 * When a quota is refilled, and to what. A refill raises what remains to `amount`. It takes nothing away, except units
 * that processes have leased and not spent (see `quotaBlockSize`).
 */
export type QuotaRefill = {
  /** The least that remains after a refill; a positive integer. */
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
       * The time zone whose midnight starts a period.
       *
       * @default 'UTC'
       */
      readonly timeZone?: string
      readonly everyMs?: never
    }
)

/** How many calls a key has left in total, whatever their rate. It belongs to the lineage, so rotation carries it over. */
export interface Quota {
  /** Calls left, a non-negative integer. */
  readonly remaining: number
  /** @default null (never refilled) */
  readonly refill?: QuotaRefill | null
}

/**
 * A quota as a store keeps it, one for each lineage.
 *
 * A process leases units: it moves them from `remaining` to `allotted`, spends them in memory, and moves unspent ones
 * back to `remaining`. `allotted` never falls, so no state occurs twice within an epoch. Setting or refilling the quota
 * begins a new epoch, which voids leases of the old one.
 */
export interface QuotaRecord {
  /** Units that no process has leased. */
  readonly remaining: number
  /** Rises whenever the quota is set, or a refill adds units. */
  readonly epoch: number
  /** Units leased in this epoch so far, including returned ones. */
  readonly allotted: number
  readonly refill: QuotaRefill | null
  /** When the next refill is due. */
  readonly nextRefillAt: Date | null
}

/** The units that a process holds, and what it wants to hold. */
export interface QuotaWish {
  /** The epoch of the units that the process holds. */
  readonly epoch: number
  /** Units that the process has leased and not spent. */
  readonly held: number
  /** What the calls that wait for units cost, in the order in which they came. */
  readonly costs: readonly number[]
  /** The most units to hold beyond what those calls cost. */
  readonly maxExtra: number
}

/** What a process and the store exchange. */
export interface QuotaExchange {
  /** What the store is to hold afterwards; the very `quota` that was given where there is nothing to exchange. */
  readonly next: QuotaRecord
  /** The units that the process holds once the exchange is made. */
  readonly granted: number
  /** Those of its units that the process may spend whether or not the exchange is made. */
  readonly kept: number
  /** Those of its units that go back to the store. */
  readonly returned: number
}

/**
 * Returns the record of a `quota` that is set at `at`, after `previous`. The epoch is at least the time, so it rises
 * even if the previous quota was removed in between.
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

/** A lease takes at most one part in so many of what is left, so that other processes find units too. */
const SHARE = 16

/**
 * Decides what a process and the store exchange at `at`: a refill that is due is made, the process offers the units it
 * holds, and leases what the waiting calls cost and something beyond. Calls that cost more than is there are passed over.
 * Pure: `swapQuota` of the store then replaces `quota` by `next`, if it still is the same.
 */
export function decideExchange(
  quota: QuotaRecord,
  { epoch, held, costs, maxExtra }: QuotaWish,
  at: Date,
): QuotaExchange {
  const offered = epoch === quota.epoch ? held : 0
  const due = refillIfDue(quota, offered, at)
  const own = due.epoch === quota.epoch ? offered : 0
  const available = due.remaining + own
  let needed = 0
  for (const cost of costs) if (needed + cost <= available) needed += cost
  const unchanged = { next: quota, granted: offered, kept: offered, returned: 0 }
  if (needed === 0 && costs.length > 0) return unchanged
  let granted = needed + Math.min(maxExtra, Math.floor((available - needed) / SHARE))
  // Others tell by the state of the store whether anybody still leases units: a renewed lease has to change it.
  if (granted === own && granted > needed) granted -= 1
  // Neither a refill that nobody waits for nor the time of the next one is worth a write of its own.
  if (granted === own && (due.epoch === quota.epoch || offered === 0)) return unchanged
  const leased = granted - own
  const next = {
    ...due,
    remaining: due.remaining - leased,
    allotted: due.allotted + Math.max(0, leased),
  }
  return { next, granted, kept: Math.min(own, granted), returned: Math.max(0, -leased) }
}

/** When `quota` is filled up next, as seen at `at`, in milliseconds since the epoch; null where nothing refills it. */
export function nextRefillMs(quota: QuotaRecord, at: Date): number | null {
  return refillIfDue(quota, 0, at).nextRefillAt?.getTime() ?? null
}

/**
 * Returns whether `quota` still equals `expected` in `epoch`, `allotted` and `remaining`. For a store's `swapQuota`
 * that compares in JavaScript rather than in its database.
 */
export function isSameQuota(quota: QuotaRecord, expected: QuotaRecord): boolean {
  const { epoch, allotted, remaining } = expected
  return quota.epoch === epoch && quota.allotted === allotted && quota.remaining === remaining
}

/** Whether `quota` is a later state of the store than `other`. */
export function isLaterQuota(quota: QuotaRecord, other: QuotaRecord): boolean {
  if (quota.epoch !== other.epoch) return quota.epoch > other.epoch
  // Leasing leaves the sum as it is and raises what was allotted; what comes back raises the sum.
  const [sum, otherSum] = [quota.allotted + quota.remaining, other.allotted + other.remaining]
  return sum === otherSum ? quota.allotted > other.allotted : sum > otherSum
}

/** Requires a quota. @throws TypeError naming the member. */
export function checkQuota(name: string, value: unknown): Quota {
  const given = checkObject(name, value, ['remaining', 'refill'])
  const remaining = checkBounded(`${name}.remaining`, given.remaining, BOUNDS.remaining)
  if (given.refill === undefined || given.refill === null) return { remaining, refill: null }
  return { remaining, refill: checkRefill(`${name}.refill`, given.refill) }
}

function checkRefill(name: string, value: unknown): QuotaRefill {
  const given = checkObject(name, value, ['amount', 'everyMs', 'per', 'timeZone'])
  const amount = checkBounded(`${name}.amount`, given.amount, BOUNDS.refillAmount)
  if (given.everyMs !== undefined) {
    if (given.per !== undefined) throw new OptionError(name, 'have either "everyMs" or "per", not both')
    if (given.timeZone !== undefined)
      throw new OptionError(
        `${name}.timeZone`,
        'be used only with "per"',
        `"${name}.timeZone" is allowed only with "per"`,
      )
    return { amount, everyMs: checkBounded(`${name}.everyMs`, given.everyMs, BOUNDS.refillEveryMs) }
  }
  const per = checkOneOf(`${name}.per`, given.per, CALENDAR_UNITS, ' (or give "everyMs")')
  return { amount, per, timeZone: checkTimeZone(`${name}.timeZone`, given.timeZone ?? 'UTC') }
}

/** The quota after a refill that is due at `at`, where whoever asks offers `offered` units. */
function refillIfDue(quota: QuotaRecord, offered: number, at: Date): QuotaRecord {
  const { refill, nextRefillAt } = quota
  if (!refill || !nextRefillAt || at.getTime() < nextRefillAt.getTime()) return quota
  const next = nextRefill(refill, nextRefillAt.getTime(), at.getTime())
  // A new epoch ends all leases: none begins where there is nothing to add.
  if (quota.remaining + offered >= refill.amount) return { ...quota, nextRefillAt: next }
  return { remaining: refill.amount, epoch: quota.epoch + 1, allotted: 0, refill, nextRefillAt: next }
}

/** The first refill after `now`, in step with `from`. Several that were missed count as one. */
function nextRefill(refill: QuotaRefill, from: number, now: number): Date {
  if (refill.everyMs === undefined)
    return new Date(periodAt(refill.per, refill.timeZone ?? 'UTC', now).endsAt)
  const steps = Math.floor((now - from) / refill.everyMs) + 1
  return new Date(from + steps * refill.everyMs)
}
