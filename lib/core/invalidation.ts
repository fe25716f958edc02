import type { Awaitable } from '../internal/awaitable.ts'

/** A key, and its version after a change. */
export interface KeyVersion {
  readonly keyId: string
  readonly version: number
}

/** How a process hears of changes that others make. */
export interface InvalidationListener {
  /** These keys changed: stop using older versions. */
  changed(keys: readonly KeyVersion[]): void
  /** Messages may have been lost: drop every cached record. `error` says why, if known. */
  missed(error?: unknown): void
}

/**
 * Tells every process about changes: the interface that `redisInvalidation()` implements. It shortens how long a
 * process may use a record that another process has changed. A message may be lost, so the cache's age remains the
 * limit.
 */
export interface Invalidation {
  /** What processes must share to receive each other's messages; works like `sharedAs` of a `RateLimiter`. */
  readonly sharedAs?: string
  /** Tells the other processes. */
  publish(keys: readonly KeyVersion[]): Awaitable<void>
  /** Passes changes to `listener` until you call the function it returns. */
  listen(listener: InvalidationListener): () => Awaitable<void>
}
