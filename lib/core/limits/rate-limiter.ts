import type { Awaitable } from '../../internal/awaitable.ts'
import type { CompiledLimit, LimitState } from './rate-limit.ts'

/** What a verification asks of a limiter: one call decides the version and every limit. */
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
  /** The kept version must live at least this long after the call, in milliseconds. */
  readonly retainMs: number
}

export type LimitAnswer =
  /** Everything passed; the cost is spent on every limit. */
  | {
      readonly outcome: 'admitted'
      readonly limits: readonly LimitState[]
      /** When it was spent, by the limiter's clock, for a refund; null where nothing can be given back. */
      readonly chargedAt: number | null
    }
  /** A rate limit refused; nothing is spent. `retryAfterMs` is null if the cost can never pass. */
  | {
      readonly outcome: 'limited'
      readonly limits: readonly LimitState[]
      readonly retryAfterMs: number | null
    }
  /** The record is older than a change, or cannot be shown not to be; nothing is spent. Read it again, fresh. */
  | { readonly outcome: 'stale' }

const OUTCOMES = new Set(['admitted', 'limited', 'stale'])

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
}

/** What a limiter tells of itself beside its answers. */
export type LimiterEvent =
  /** A part of it failed, and it went on by its policy. */
  | { readonly type: 'fault'; readonly error: unknown }
  /** It no longer asks a part that keeps failing, and goes on by its policy at once. */
  | { readonly type: 'suspended'; readonly error: unknown }
  /** That part answers again. */
  | { readonly type: 'resumed'; readonly afterMs: number }

/**
 * Counts what keys spend and knows their latest versions. Use `memoryRateLimiter()` or `redisRateLimiter()`. Do not write your
 * own: its members may change in any release.
 *
 * An answer may come at once or as a promise; a rejection is a fault, never an admission.
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
  /** Decides version and limits and spends on all limits or on none, in one atomic step. */
  check(request: LimitRequest): Awaitable<LimitAnswer>
  /** Raises the kept versions to these, where they are lower. Keeps them for at least `retainMs`. */
  raiseVersions(marks: readonly VersionMark[], retainMs: number): Awaitable<void>
  /**
   * Gives back what an admission has spent: to a window or period that has not ended, to a bucket what has not leaked
   * since. Never more than was spent.
   */
  refund?(request: RefundRequest): Awaitable<void>
  /** Drops what this process holds of a lineage. Called for counts that may be lost, so that they stay within a bound. */
  forget?(lineageId: string): void
  /** Tells `listener` of what happens beside the answers, until the function it returns is called. */
  listen?(listener: (happening: LimiterEvent) => void): () => void
}
