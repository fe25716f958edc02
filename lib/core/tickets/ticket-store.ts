import type { Awaitable } from '../../internal/awaitable.ts'

/**
 * Keeps one-time tickets until they are redeemed: the interface that `memoryTicketStore()` and `redisTicketStore()` implement. It sees
 * no ticket and no key: only the SHA-256 of a ticket, and a text that only the ticket opens.
 */
export interface TicketStore {
  /** Keeps `sealed` under `id`, for `ttlMs` milliseconds. */
  put(id: string, sealed: string, ttlMs: number): Awaitable<void>
  /** Removes what is kept under `id` and returns it; null if there is nothing. Of several calls at once, only one may get it. */
  take(id: string): Awaitable<string | null>
}
