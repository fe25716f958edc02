import type { KeyRecord } from '../../../core/keys/record.ts'
import type { QuotaRecord } from '../../../core/limits/quota.ts'
import { isLatchkeyError, LatchkeyError } from '../../../errors.ts'
import { copyData } from '../../../internal/plain-data.ts'
import type { Entry } from '../batches.ts'
import { fromPointer, toFields, toIntentText } from '../record.ts'
import { READ, REMOVE_POINTER } from '../scripts.ts'
import { listAgain, newStamp, type RedisStoreParts } from './parts.ts'

export async function insert(parts: RedisStoreParts, records: readonly KeyRecord[]): Promise<void> {
  const { calls, indexes, quotas, batches } = parts
  refuseTwins(records)
  if (records.length === 0) return
  // Serialise everything before sending anything: a value that cannot be serialised must not leave half an insertion.
  const copies = withSharedQuotas(copyData(records))
  const drafts = await Promise.all(copies.map((record) => draft(parts, record)))
  const listings = drafts.flatMap(({ indexed }) => indexes.listingsOf(indexed))
  const listedAt = performance.now()
  await indexes.add(listings)
  const entries = drafts.flatMap((one) => one.entries)
  const indexKeys = listings.map(({ key }) => key)
  try {
    await batches.write({ entries, confirmed: indexKeys, since: listedAt })
  } catch (error) {
    if (isLatchkeyError(error) && error.code === 'duplicate_key') {
      await indexes.removeRecords(drafts.map(({ indexed }) => indexed))
    }
    throw error
  }
  await listAgain(parts, listings, listedAt)
  await Promise.all(drafts.map(({ stored }) => quotas.apply(stored)))
  await calls.confirm([...entries.map(({ key }) => key), ...indexKeys], listedAt)
}

function refuseTwins(records: readonly KeyRecord[]): void {
  const ids = new Set(records.map(({ id }) => id))
  const lookups = new Set(records.map(({ lookup }) => lookup))
  if (ids.size < records.length || lookups.size < records.length) throw new LatchkeyError('duplicate_key')
}

/**
 * Gives all records of a lineage the quota of the first of them. The record that is used first sets it, and no record can be used
 * without it.
 */
function withSharedQuotas(records: readonly KeyRecord[]): KeyRecord[] {
  const quotas = new Map<string, QuotaRecord>()
  for (const { lineageId, quota } of records) {
    if (quota && !quotas.has(lineageId)) quotas.set(lineageId, quota)
  }
  return records.map((record) => ({ ...record, quota: quotas.get(record.lineageId) ?? null }))
}

/** Everything to write for a record: its hash and, if the id is not the lookup, a pointer from the id. */
async function draft({ calls, layout }: RedisStoreParts, record: KeyRecord) {
  const { id, lookup } = record
  const stamp = await newStamp(calls)
  const fields = toFields(record, stamp)
  const intent = record.quota && toIntentText({ version: record.version, join: record.quota })
  const entries: Entry[] = [
    {
      key: layout.record(lookup),
      rival: layout.pointer(lookup),
      kind: id === lookup ? 'n' : 'f',
      stamp,
      fields,
    },
  ]
  if (id !== lookup) {
    const leads = ['l', JSON.stringify(lookup)]
    entries.push({ key: layout.pointer(id), rival: layout.record(id), kind: 'p', stamp, fields: leads })
  }
  return { indexed: { record, stamp, nameStamp: stamp }, stored: { stamp, intent, record }, entries }
}

/** Removes a pointer to a record that is gone: an interrupted purge may have left it. Returns whether the key is free now. */
export async function freePointer(
  { calls, layout, lookups }: Pick<RedisStoreParts, 'calls' | 'layout' | 'lookups'>,
  key: string,
): Promise<boolean> {
  if (!layout.isPointer(key)) return false
  const [[read]] = (await calls.run(READ, [key, key, key], ['i'])) as [unknown[]]
  if (!Array.isArray(read) || read[0] !== 'pointer') return false
  const { lookup, stamp, batch } = fromPointer(read[1])
  const target = batch === null ? await lookups.byLookup(lookup) : null
  if (batch !== null || target?.stored.stamp === stamp) return false
  await calls.run(REMOVE_POINTER, [key], [stamp])
  return true
}
