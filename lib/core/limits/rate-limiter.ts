import type { Awaitable } from '../../internal/awaitable.ts'
import type { CostChange } from './meter.ts'
import type { PlacesRequest } from './places.ts'
import type { CompiledLimit, LimitState } from './rate-limit.ts'

/** One request to a limiter. A single call decides the version and every limit. */
export interface LimitRequest {
  readonly lineageId: string
  readonly keyId: string
  /** The version of the record that the caller used for its decision. */
  readonly version: number
  /** Whether the record was read after this verification began. Only such a record may set a version. */
  readonly fresh: boolean
  /** How many units to spend of every limit; 0 only looks. */
  readonly cost: number
  /**
   * How many units to spend of each of `limits`, in place of `cost`. A limit that costs 0 must still have room for one
   * unit.
   */
  readonly costs?: readonly number[] | undefined
  /** Limits of the owner, if any, come last. */
  readonly limits: readonly CompiledLimit[]
  /** Identifies the owner of a key that has limits of its owner, even if this call counts on none of them. */
  readonly owner?: string | undefined
  /** Whether only the shared counts are an answer: without them, the limiter rejects rather than follow its policy. */
  readonly isExact?: boolean
  /** Limits of kind `concurrent`, in which an admitted call takes a place; a call that only looks takes none. */
  readonly places?: WantedPlaces | undefined
  /** The kept version must live at least this long after the call, in milliseconds. */
  readonly retainMs: number
}

/** The places that a call wants: in all of these limits, or in none. */
export interface WantedPlaces {
  /** Names the places of this call. Nobody else knows it. */
  readonly id: string
  /** Limits of the owner, if any, come last. */
  readonly limits: readonly CompiledLimit[]
}

/**
 * The answer to a call. The states are those of `limits` and then of `places`, in their order: after the call if it was admitted,
 * and before it if not. Places whose time is over may count as taken until a call needs one, except for a call that only looks.
 */
export type LimitAnswer =
  /** Everything passed; the cost is spent on every limit. */
  | {
      readonly outcome: 'admitted'
      readonly limits: readonly LimitState[]
      /** When it was spent, by the limiter's clock, for a refund; null if there is nothing to refund. */
      readonly chargedAt: number | null
      /** Whether it is unknown if the places are taken where all processes count them. */
      readonly isUnsure?: boolean
      /** Whether only this process counts the places, until it renews them. */
      readonly isLocal?: boolean
    }
  /**
   * A limit refused; nothing is spent, and no place is taken. `retryAfterMs` is how long until the cost fits all rate limits, and
   * null if it never does. It is at least 1,000 if a place was missing, since nobody knows when one comes free.
   */
  | {
      readonly outcome: 'limited'
      readonly limits: readonly LimitState[]
      readonly retryAfterMs: number | null
      /** Whether its places may be taken all the same, and have to be given back. */
      readonly isUnsure?: boolean
    }
  /** The record is older than a change, or may be; nothing is spent. Read it again, fresh. */
  | { readonly outcome: 'stale' }

const OUTCOMES = new Set(['admitted', 'limited', 'stale'])

/** Checks a limiter's answer: a broken part must not become an admission. @throws TypeError */
export function checkLimitAnswer(answer: LimitAnswer): LimitAnswer {
  if (OUTCOMES.has(answer?.outcome) && (answer.outcome === 'stale' || Array.isArray(answer.limits)))
    return answer
  throw new TypeError('the rate limiter returned an unexpected value')
}

/** How many units a call costs each limit in turn, whether it is admitted or not. */
export function costAt({ cost, costs }: Pick<LimitRequest, 'cost' | 'costs'>, i: number): number {
  return costs ? (costs[i] ?? 0) : cost
}

/** How many units must be free in each limit in turn: at least one, unless the call only looks. */
export function neededAt({ cost, costs }: Pick<LimitRequest, 'cost' | 'costs'>, i: number): number {
  return costs ? Math.max(1, costs[i] ?? 0) : cost
}

/** Whether a call spends nothing and cannot be refused. */
export function isLook({ cost, costs }: Pick<LimitRequest, 'cost' | 'costs'>): boolean {
  return cost === 0 && !costs
}

/** The version of a key after a change. */
export interface VersionMark {
  readonly lineageId: string
  readonly keyId: string
  readonly version: number
  /** Identifies the owner of the key: another process may count it with its owner's. */
  readonly owner?: string | undefined
}

/** How the cost of an admitted call changes. */
export interface SettleRequest {
  readonly lineageId: string
  /** As in the request that was admitted. */
  readonly owner?: string | undefined
  /**
   * Names this change. Latchkey sends it again if the answer is late: a limiter makes a change with the same name only once, for at least
   * a minute. Only a limiter that answers at once, without a promise, need not remember names.
   */
  readonly id: string
  readonly limits: readonly CompiledLimit[]
  /** For each of `limits`, in their order. */
  readonly changes: readonly (readonly CostChange[])[]
}

/** The answer to a {@link SettleRequest}. */
export interface SettleAnswer {
  /** How the limits stand now. */
  readonly limits: readonly LimitState[]
  /** For each change, how many units it has charged or given back. If it was made before, what it did then. */
  readonly made: readonly (readonly number[])[]
  /** When the changes were made, by the limiter's clock. */
  readonly settledAt: number
}

/** Checks a limiter's answer to a settlement. @throws TypeError */
export function checkSettleAnswer(answer: SettleAnswer, { limits, changes }: SettleRequest): SettleAnswer {
  const isAnswer = Array.isArray(answer?.limits) && answer.limits.length === limits.length
  const isMade = (all: readonly unknown[], i: number) =>
    answer.made?.[i]?.length === all.length && answer.made[i].every(Number.isFinite)
  if (isAnswer && changes.every(isMade) && Number.isFinite(answer.settledAt)) return answer
  throw new TypeError('the rate limiter returned an unexpected value')
}

/** What a limiter reports besides its answers. */
export type LimiterEvent =
  /** A part of it failed, and it followed its policy. */
  | { readonly type: 'fault'; readonly error: unknown }
  /** It stopped asking a part that keeps failing, and follows its policy at once. */
  | { readonly type: 'suspended'; readonly error: unknown }
  /** That part answers again. */
  | { readonly type: 'resumed'; readonly afterMs: number }

/**
 * Counts what keys spend and knows their latest versions. `memoryRateLimiter()` and `redisRateLimiter()` make one. If you write your
 * own, test it with `limiterConformance` of `latchkey/testing`. Until 1.0, a minor release may change these members; the changelog
 * says so.
 *
 * Answers come at once or as a promise. A rejection is a fault, never an admission.
 *
 * The kept version of a key only ever rises. A request with a lower one is stale. A request with a higher one raises
 * it. If none is kept, a `fresh` request sets it, and any other is stale.
 */
export interface RateLimiter {
  /**
   * Every call of `check` settles within this many milliseconds, whatever happens, and every call of `release` and
   * `renew` within a second or this many. If set, no other timer watches these calls.
   */
  readonly timeoutMs?: number
  /**
   * What processes must share to count together, such as `keyPrefix "latchkey"`, 1 to 255 characters. A fault is
   * reported if processes with the same store differ here.
   */
  readonly sharedAs?: string
  /**
   * Decides version and limits and spends on all limits or on none, in one atomic step. If it throws at once, it has taken no places; if
   * it rejects, it may have taken them.
   */
  check(request: LimitRequest): Awaitable<LimitAnswer>
  /** Raises lower kept versions to these. Keeps them for at least `retainMs`. */
  raiseVersions(marks: readonly VersionMark[], retainMs: number): Awaitable<void>
  /**
   * Changes what an admitted call has cost. More is charged to the current window or period, even beyond the limit. Less
   * is given back: to a window or period that has not ended, and to a bucket as far as it has not leaked since.
   */
  settle?(request: SettleRequest): Awaitable<SettleAnswer>
  /**
   * Gives places back, or does nothing if they are not taken. Required for limits of kind `concurrent`, and so is `renew`.
   */
  release?(request: PlacesRequest): Awaitable<void>
  /**
   * Keeps places for another `maxHeldMs`, and takes again those that came free meanwhile, even beyond the limit. Returns
   * how many of these calls had lost a place.
   */
  renew?(requests: readonly PlacesRequest[]): Awaitable<number>
  /** Drops what this process holds for a lineage. Latchkey calls it for counts that may be lost, to bound their number. */
  forget?(lineageId: string): void
  /** Passes events to `listener` until you call the function it returns. */
  listen?(listener: (happening: LimiterEvent) => void): () => void
}
