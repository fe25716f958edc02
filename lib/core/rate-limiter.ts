import type { Awaitable } from '../internal/awaitable.ts'
import type { CompiledLimit, LimitState } from './rate-limit.ts'

/** What a verification asks of a limiter: one call decides the version, every limit and the quota. */
export interface LimitRequest {
  readonly lineageId: string
  readonly keyId: string
  /** The version of the record that the caller decided upon. */
  readonly version: number
  /** Whether the read of that record began after this verification did. Only such a record may set a version. */
  readonly fresh: boolean
  /** How many units to spend; 0 only looks. */
  readonly cost: number
  readonly limits: readonly CompiledLimit[]
  /** What the store has told of the quota; null where the key has none. */
  readonly quota: QuotaTold | null
  /** The kept version must live at least this long after the call, in milliseconds. */
  readonly retainMs: number
}

/** The highest state of a lineage's quota that the caller knows. */
export interface QuotaTold {
  readonly epoch: number
  /** Units the store has handed out in this epoch, to anybody. */
  readonly allotted: number
  /** Those of them that were handed out for this very call; 0 but in the first call after a reservation. */
  readonly granted: number
}

export type LimitAnswer =
  /** Everything passed; the cost is spent on every limit and on the quota. */
  | {
      readonly outcome: 'admitted'
      readonly limits: readonly LimitState[]
      readonly unspentQuota: number
      /** When it was spent, by the limiter's clock, for a refund; null where nothing can be given back. */
      readonly chargedAt: number | null
      /** The epoch of the quota that it was spent of; null where the key has none. */
      readonly chargedEpoch: number | null
    }
  /** A rate limit refused; nothing is spent. `retryAfterMs` is null if the cost can never pass. */
  | {
      readonly outcome: 'limited'
      readonly limits: readonly LimitState[]
      readonly unspentQuota: number
      readonly retryAfterMs: number | null
    }
  /** Every rate limit would pass, but fewer than `cost` units of quota are at hand; nothing is spent. */
  | {
      readonly outcome: 'short_of_quota'
      readonly limits: readonly LimitState[]
      readonly unspentQuota: number
    }
  /** The record is older than a change, or cannot be shown not to be; nothing is spent. Read it again, fresh. */
  | { readonly outcome: 'stale' }

const OUTCOMES = new Set(['admitted', 'limited', 'short_of_quota', 'stale'])

/** Requires what a limiter may answer: a broken part must not become an admission. @throws TypeError */
export function checkLimitAnswer(answer: LimitAnswer): LimitAnswer {
  if (OUTCOMES.has(answer?.outcome) && (answer.outcome === 'stale' || Array.isArray(answer.limits)))
    return answer
  throw new TypeError('the rate limiter returned something it must not')
}

/** A version that a change has reached. */
export interface VersionMark {
  readonly lineageId: string
  readonly keyId: string
  readonly version: number
}

/** What a verification has spent and is to be given back. */
export interface RefundRequest {
  readonly lineageId: string
  readonly cost: number
  /** The `chargedAt` of the admission. */
  readonly chargedAt: number
  readonly limits: readonly CompiledLimit[]
  /** The `chargedEpoch` of the admission. */
  readonly epoch: number | null
}

/** What a limiter tells of itself beside its answers. */
export type LimiterHappening =
  /** A part of it failed, and it went on by its policy. */
  | { readonly type: 'fault'; readonly error: unknown }
  /** It no longer asks a part that keeps failing, and goes on by its policy at once. */
  | { readonly type: 'suspended'; readonly error: unknown }
  /** That part answers again. */
  | { readonly type: 'resumed'; readonly afterMs: number }

/**
 * Counts what keys spend and knows their latest versions: the port behind `memoryRateLimiter()` and
 * `redisRateLimiter()`. An answer may come at once or as a promise; a rejection is a fault, never an admission.
 *
 * The kept version of a key only ever rises. A request with a lower one is stale. A request with a higher
 * one raises it. Where none is kept, a `fresh` request sets it and any other is stale.
 */
export interface RateLimiter {
  /**
   * Within how many milliseconds every call of `check` settles, come what may. Where a limiter says so, no
   * further timer watches it; where it does not, `timeoutMs` of `createApiKeys` does.
   */
  readonly timeoutMs?: number
  /**
   * What processes must have in common to count together, such as `keyPrefix "latchkey"`, 1 to 255 characters. Where those that share a
   * store have another, a fault is reported.
   */
  readonly sharedAs?: string
  /** Decides version, limits and quota and spends on all of them or on none, in one atomic step. */
  check(request: LimitRequest): Awaitable<LimitAnswer>
  /** Raises the kept versions to these, where they are lower. Keeps them for at least `retainMs`. */
  raiseVersions(marks: readonly VersionMark[], retainMs: number): Awaitable<void>
  /** The units of a lineage's quota that were handed to this limiter in `epoch` and are unspent. */
  unspentQuota(lineageId: string, epoch: number): Awaitable<number>
  /**
   * Gives back what an admission has spent: to a window or period that has not ended, to a bucket what has not leaked
   * since, to the quota unless it was set or refilled. Never more than was spent.
   */
  refund?(request: RefundRequest): Awaitable<void>
  /** Tells `listener` of what happens beside the answers, until the function it returns is called. */
  listen?(listener: (happening: LimiterHappening) => void): () => void
}
