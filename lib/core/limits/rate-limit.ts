import type { CalendarUnit } from './calendar.ts'

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
  /**
   * The name in the `RateLimit` fields and in refusals: 1 to 32 letters, digits, `_` and `-`. Unique among the limits of a
   * key and those of its owner.
   */
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
  /**
   * Milliseconds until `remaining` grows: the window's end, a bucket's next call, a quota's refill. Null if it is full, and for
   * `concurrent`.
   */
  readonly resetMs: number | null
  /** Whether this limit refused the call. */
  readonly exceeded: boolean
}

/** A limit as the limiters use it: checked once, with everything computed that does not depend on the moment. */
export interface CompiledLimit {
  readonly name: string
  readonly kind: 'window' | 'bucket' | 'calendar' | 'concurrent'
  /** Whether only calls count whose cost names the limit. Limiters count every limit of a request. */
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
  /**
   * What a limiter counts by, beside the key or the owner: the name, the kind and the window, but not the number. A change of it
   * restarts the count.
   */
  readonly shape: string
}

/** The allowed names of limits, except `quota`. */
export const LIMIT_NAME = /^[A-Za-z0-9_-]{1,32}$/
