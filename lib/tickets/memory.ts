import { LRUCache } from 'lru-cache'
import { type Clock, systemClock } from '../core/clock.ts'
import type { TicketStore } from '../core/tickets/ticket-store.ts'
import { checkFunction, checkInteger, checkObject } from '../internal/options.ts'

export interface MemoryTicketStoreOptions {
  /** The most tickets to keep. Beyond it, the oldest is dropped and can no longer be redeemed. @default 10_000 */
  maxEntries?: number
  /**
   * The time by which tickets expire.
   *
   * @default the machine's clock
   */
  clock?: Pick<Clock, 'now'>
}

/**
 * Keeps tickets in the memory of one process. Only that process can redeem them: use `redisTicketStore` where several answer requests.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const tickets = createTickets({ store: memoryTicketStore() })
 */
export function memoryTicketStore(options: MemoryTicketStoreOptions = {}): TicketStore {
  checkObject('options', options, ['maxEntries', 'clock'])
  const { maxEntries = 10_000, clock = systemClock } = options
  checkFunction('clock.now', clock?.now)
  const max = checkInteger('maxEntries', maxEntries, 1, 10_000_000)
  const kept = new LRUCache<string, { readonly sealed: string; readonly expiresAt: number }>({ max })
  return {
    put(id, sealed, ttlMs) {
      kept.set(id, { sealed, expiresAt: clock.now() + ttlMs })
    },
    take(id) {
      const entry = kept.get(id)
      kept.delete(id)
      return entry !== undefined && clock.now() < entry.expiresAt ? entry.sealed : null
    },
  }
}
