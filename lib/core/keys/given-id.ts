import type { RecordCache } from '../verify/record-cache.ts'
import { newKeyId } from './key-format.ts'
import type { KeyRecord } from './record.ts'

/**
 * What a key begins with whose id was given. A key that was purged may have had the same id, and nothing of that one is
 * inherited: rate limits, quota and what the limiter knows of versions belong to a lineage, so this one gets its own. Its version
 * is higher than any that the purged key has had, so that no process takes it for an old state of that key: versions rise by
 * one with a change, and milliseconds faster. Where the clock was set back, what this process remembers still holds.
 */
export function beginWithGivenId(
  id: string,
  at: Date,
  cache: RecordCache,
): Pick<KeyRecord, 'lineageId' | 'version'> {
  return { lineageId: newKeyId(), version: Math.max(1, at.getTime(), cache.minVersionOf(id) + 1) }
}
