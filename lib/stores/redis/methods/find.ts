import type { KeyStore } from '../../../core/keys/key-store.ts'
import type { KeyRecord } from '../../../core/keys/record.ts'
import type { RedisLookups } from '../lookups.ts'

export async function find(
  lookups: RedisLookups,
  by: Parameters<KeyStore['find']>[0],
): Promise<KeyRecord | null> {
  const wanted = 'id' in by ? [lookups.byId(by.id)] : by.lookups.map((lookup) => lookups.byLookup(lookup))
  const found = (await Promise.all(wanted)).find((one) => one !== null)
  return found ? ((await lookups.toRecords([found]))[0] as KeyRecord) : null
}
