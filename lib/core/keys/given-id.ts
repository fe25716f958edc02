import type { RecordCache } from '../verify/record-cache.ts'
import { newKeyId } from './key-format.ts'
import type { KeyRecord } from './record.ts'

/**
 * The first version and the lineage of a key with a given id. A purged key may have had the same id, and this key must
 * inherit nothing from it. Rate limits, quota and the limiter's versions belong to a lineage, so this key gets its own.
 * Its version is higher than any version of the purged key, so no process takes it for an old state of that key:
 * versions rise by one per change, and milliseconds rise faster. If the clock was set back, what this process remembers
 * still holds.
 */
export function beginWithGivenId(
  id: string,
  at: Date,
  cache: RecordCache,
): Pick<KeyRecord, 'lineageId' | 'version'> {
  return { lineageId: newKeyId(), version: Math.max(1, at.getTime(), cache.minVersionOf(id) + 1) }
}
