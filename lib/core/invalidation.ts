import type { Awaitable } from '../internal/awaitable.ts'

/** A key, and the version that a change has given it. */
export interface KeyVersion {
  readonly keyId: string
  readonly version: number
}

/** What a process hears of changes that others make. */
export interface InvalidationListener {
  /** These keys were changed: older versions are no longer to be used. */
  changed(keys: readonly KeyVersion[]): void
  /** Changes may have gone unheard: nothing that is held can be relied on. `error` says why, where that is known. */
  missed(error?: unknown): void
}

/**
 * Tells every process of changes: the port behind `redisInvalidation()`. It shortens the time for which a process may use
 * a record that another has changed; the bound stays the age of the cache, since a message may be lost.
 */
export interface Invalidation {
  /** What processes must have in common to hear each other, as `sharedAs` of a `RateLimiter`. */
  readonly sharedAs?: string
  /** Tells the others. */
  publish(keys: readonly KeyVersion[]): Awaitable<void>
  /** Hears of changes until the function it returns is called. */
  listen(listener: InvalidationListener): () => Awaitable<void>
}
