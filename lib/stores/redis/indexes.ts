import type { KeyFilter } from '../../core/keys/key-store.ts'
import type { KeyRecord } from '../../core/keys/record.ts'
import type { RedisCalls } from './calls.ts'
import { indexMember, type RedisLayout } from './layout.ts'
import { ADD_TO_INDEXES, LEAVE_LINEAGE, REMOVE_FROM_INDEXES, type StoreScript } from './scripts.ts'

/** An entry in an index. */
export interface Listing {
  readonly key: string
  readonly member: string
}

/** A record, with the stamps in its index entries. */
export interface IndexedRecord {
  readonly record: KeyRecord
  readonly stamp: string
  readonly nameStamp: string
}

export interface RedisIndexes {
  /** All entries of a record. */
  listingsOf(indexed: IndexedRecord): readonly Listing[]
  nameListing(indexed: IndexedRecord): Listing
  /** Null if the record does not say who issued it. */
  creatorListing(indexed: IndexedRecord): Listing | null
  add(listings: readonly Listing[]): Promise<void>
  remove(listings: readonly Listing[]): Promise<void>
  /** Removes all entries of these records. With the last record of a lineage, its quota goes too. */
  removeRecords(indexed: readonly IndexedRecord[]): Promise<void>
  /** The indexes to read for a filter. Together they list every matching record once, and few others. */
  indexesFor(filter: KeyFilter): readonly string[]
  /** Whether that is the index of names. Its entries have their own stamps, since names change. */
  isByName(filter: KeyFilter): boolean
}

export function createRedisIndexes(calls: RedisCalls, layout: RedisLayout): RedisIndexes {
  const { indexes } = layout
  return {
    listingsOf: (indexed) => [...listingsBesideLineage(layout, indexed), lineageListing(layout, indexed)],
    nameListing: (indexed) => nameListing(layout, indexed),
    creatorListing: (indexed) => creatorListing(layout, indexed),
    add: (listings) => runOn(calls, ADD_TO_INDEXES, listings),
    remove: (listings) => runOn(calls, REMOVE_FROM_INDEXES, listings),
    removeRecords: (indexed) => removeRecords(calls, layout, indexed),

    indexesFor({ lineageId, owners, createdBy, name }) {
      if (lineageId !== undefined) return [indexes.lineage(lineageId)]
      if (owners) return owners.map(indexes.owner)
      if (createdBy !== undefined) return [indexes.createdBy(createdBy)]
      return [name === undefined ? indexes.all : indexes.name(name)]
    },

    isByName: ({ lineageId, owners, createdBy, name }) =>
      lineageId === undefined && !owners && createdBy === undefined && name !== undefined,
  }
}

function listingsBesideLineage(layout: RedisLayout, indexed: IndexedRecord): Listing[] {
  const { indexes } = layout
  const { record, stamp } = indexed
  const member = indexMember(record, record.lookup, stamp)
  const keys = [indexes.all, indexes.owner(record.owner)]
  const byCreator = creatorListing(layout, indexed)
  return [
    ...keys.map((key) => ({ key, member })),
    ...(byCreator ? [byCreator] : []),
    nameListing(layout, indexed),
  ]
}

function creatorListing({ indexes }: RedisLayout, { record, stamp }: IndexedRecord): Listing | null {
  if (record.createdBy === null) return null
  return { key: indexes.createdBy(record.createdBy), member: indexMember(record, record.lookup, stamp) }
}

function nameListing({ indexes }: RedisLayout, { record, nameStamp }: IndexedRecord): Listing {
  return { key: indexes.name(record.name), member: indexMember(record, record.lookup, nameStamp) }
}

function lineageListing({ indexes }: RedisLayout, { record, stamp }: IndexedRecord): Listing {
  return { key: indexes.lineage(record.lineageId), member: indexMember(record, record.lookup, stamp) }
}

async function runOn(calls: RedisCalls, script: StoreScript, listings: readonly Listing[]): Promise<void> {
  const places = calls.byPlace(listings, ({ key }) => key)
  await Promise.all(
    places.map((place) =>
      calls.run(
        script,
        place.map(({ key }) => key),
        place.map(({ member }) => member),
      ),
    ),
  )
}

async function removeRecords(
  calls: RedisCalls,
  layout: RedisLayout,
  indexed: readonly IndexedRecord[],
): Promise<void> {
  const besideLineage = indexed.flatMap((one) => listingsBesideLineage(layout, one))
  await runOn(calls, REMOVE_FROM_INDEXES, besideLineage)
  await Promise.all(
    indexed.map((one) => {
      const { key, member } = lineageListing(layout, one)
      return calls.run(LEAVE_LINEAGE, [key, layout.quota(one.record.lineageId)], [member])
    }),
  )
}
