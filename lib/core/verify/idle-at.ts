import type { CachedKey } from './record-cache.ts'
import type { UsageLog } from './usage-log.ts'

/** What is known of uses. */
export interface KnownUses {
  readonly usage: UsageLog | null
  /** How long a use in another process may go unnoticed here: a key is not idle before that has passed too. */
  readonly idleSlackMs: number
}

/** When a key expires without use; Infinity if it does not. */
export function idleAtOf({ apiKey, lastActiveAtMs }: CachedKey, { usage, idleSlackMs }: KnownUses): number {
  if (apiKey.idleExpiryMs === null) return Infinity
  return Math.max(lastActiveAtMs, usage?.lastUse(apiKey.id) ?? 0) + apiKey.idleExpiryMs + idleSlackMs
}
