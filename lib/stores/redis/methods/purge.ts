import { keyStatus } from '../../../core/keys/record.ts'
import { LatchkeyError } from '../../../errors.ts'
import type { IndexedRecord } from '../indexes.ts'
import type { StoredRecord } from '../record.ts'
import { REMOVE, REMOVE_POINTER } from '../scripts.ts'
import type { RedisStoreParts } from './parts.ts'
import { removeUsageOf } from './usage-counts.ts'

const MAX_PURGES_AT_ONCE = 50
const MAX_ATTEMPTS = 100

export async function purge(parts: RedisStoreParts, ids: readonly string[], at: Date): Promise<number> {
  const { calls, layout, indexes } = parts
  const since = performance.now()
  const asked = [...new Set(ids)]
  let count = 0
  for (let i = 0; i < asked.length; i += MAX_PURGES_AT_ONCE) {
    const some = asked.slice(i, i + MAX_PURGES_AT_ONCE)
    const removed = (await Promise.all(some.map((id) => remove(parts, id, at)))).filter((one) => one !== null)
    count += removed.length
    await indexes.removeRecords(removed)
    await Promise.all(removed.map(({ record: { id } }) => removeUsageOf(parts, { keyId: id })))
    await calls.confirm(
      removed.map(({ record }) => layout.record(record.lookup)),
      since,
    )
  }
  return count
}

/** Removes a record and its pointer; null if there is nothing to remove. */
async function remove(
  { calls, layout, lookups }: RedisStoreParts,
  id: string,
  at: Date,
): Promise<IndexedRecord | null> {
  for (let i = 0; i < MAX_ATTEMPTS; i += 1) {
    const stored: StoredRecord | undefined = (await lookups.byId(id))?.stored
    if (!stored || !['revoked', 'expired'].includes(keyStatus(stored.record, at))) return null
    const { record, stamp, lastUse } = stored
    const args = [stamp, record.version, lastUse]
    const [outcome] = await calls.run(REMOVE, [layout.record(record.lookup)], args)
    if (outcome === 'changed') continue
    if (outcome === 'missing') return null
    if (id !== record.lookup) await calls.run(REMOVE_POINTER, [layout.pointer(id)], [stamp])
    return stored
  }
  throw new LatchkeyError('unavailable', 'Other callers keep changing the key')
}
