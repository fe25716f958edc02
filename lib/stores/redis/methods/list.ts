import type { KeyFilter, ListPage } from '../../../core/keys/key-store.ts'
import type { KeyRecord } from '../../../core/keys/record.ts'
import { matchesFilter } from '../../key-filter.ts'
import type { Listing } from '../indexes.ts'
import { rangeStart, readIndexMember, stampTime } from '../layout.ts'
import type { Found } from '../lookups.ts'
import { readIndexes } from '../read-indexes.ts'
import { LEAVE_LINEAGE } from '../scripts.ts'
import type { RedisStoreParts } from './parts.ts'

const MAX_CHUNK = 500
const MIN_CHUNK = 50
/** The fewest entries to read from each of several indexes. */
const MIN_SHARE = 10

export async function list(
  parts: RedisStoreParts,
  filter: KeyFilter,
  { limit, after, order }: ListPage,
): Promise<KeyRecord[]> {
  const keys = parts.indexes.indexesFor(filter)
  const found: Found[] = []
  let from: string | null = rangeStart(after, order)
  // If one of several owners has most of the keys, read more of each.
  let factor = 1
  // If most entries do not match, for example because the oldest keys are all revoked, read more at a time.
  for (let least = MIN_CHUNK; found.length < limit && from !== null; least *= 2) {
    const size = Math.min(MAX_CHUNK, Math.max(least, limit - found.length))
    const share = factor * Math.max(MIN_SHARE, Math.ceil((2 * size) / keys.length))
    const range = { from, order, size, each: Math.min(size, share) }
    const { entries, next } = await readIndexes(parts.calls, keys, range)
    if (entries.length < size) factor *= 2
    found.push(...(await readMatching(parts, entries, filter)))
    from = next
  }
  return parts.lookups.toRecords(found.slice(0, limit))
}

/** The records of these entries that match the filter. Removes entries that should not be there. */
async function readMatching(
  parts: RedisStoreParts,
  entries: readonly Listing[],
  filter: KeyFilter,
): Promise<Found[]> {
  const listed = await readListed(parts, entries, filter)
  const strays = entries.filter((_entry, i) => !listed[i])
  await sweep(parts, filter, strays)
  const { indexes, layout } = parts
  const creatorIndex = filter.createdBy === undefined ? null : layout.indexes.createdBy(filter.createdBy)
  // An interrupted `forget` left such an entry. Nothing ever sets `createdBy` again.
  await indexes.remove(
    entries.filter(({ key }, i) => key === creatorIndex && listed[i]?.stored.record.createdBy === null),
  )
  return listed.flatMap((one) => (one && matchesFilter(one.stored.record, filter) ? [one] : []))
}

/** The record of each entry; null if there is none, or if another entry lists it. */
async function readListed(
  { indexes, lookups }: RedisStoreParts,
  entries: readonly Listing[],
  filter: KeyFilter,
): Promise<(Found | null)[]> {
  const places = entries.map(({ member }) => readIndexMember(member))
  const wanted = new Set(places.flatMap((place) => (place ? [place.lookup] : [])))
  const found = await lookups.byLookups([...wanted])
  return places.map((place) => {
    const one = place && found.get(place.lookup)
    if (!one) return null
    const { stamp, nameStamp } = one.stored
    return place.stamp === (indexes.isByName(filter) ? nameStamp : stamp) ? one : null
  })
}

/** Removes entries without a record that are older than any insertion in progress. */
async function sweep(
  { calls, layout, indexes, strayMs }: RedisStoreParts,
  { lineageId }: KeyFilter,
  strays: readonly Listing[],
): Promise<void> {
  if (strays.length === 0) return
  const now = await calls.now()
  const old = strays.filter(({ member }) => {
    const place = readIndexMember(member)
    return place && stampTime(place.stamp) < now - strayMs
  })
  if (old.length === 0) return
  const members = old.map(({ member }) => member)
  if (lineageId === undefined) await indexes.remove(old)
  else await calls.run(LEAVE_LINEAGE, [layout.indexes.lineage(lineageId), layout.quota(lineageId)], members)
}
