import type { KeyFilter } from '../../core/keys/key-store.ts'
import type { KeyRecord } from '../../core/keys/record.ts'
import type { RedisCalls } from './calls.ts'
import { indexMember, type RedisLayout } from './layout.ts'
import { ADD_TO_INDEXES, LEAVE_LINEAGE, REMOVE_FROM_INDEXES } from './scripts.ts'

/** A place in an index. */
export interface Listing {
  readonly key: string
  readonly member: string
}

/** A record and the stamps under which the indexes have it. */
export interface IndexedRecord {
  readonly record: KeyRecord
  readonly stamp: string
  readonly nameStamp: string
}

export interface RedisIndexes {
  /** Everywhere a record is listed. */
  listingsOf(indexed: IndexedRecord): readonly Listing[]
  nameListing(indexed: IndexedRecord): Listing
  /** Null where nobody is known to have issued it. */
  creatorListing(indexed: IndexedRecord): Listing | null
  add(listings: readonly Listing[]): Promise<void>
  remove(listings: readonly Listing[]): Promise<void>
  /** Removes a record from all of them; the quota of its lineage goes with the last record that is listed there. */
  removeRecords(indexed: readonly IndexedRecord[]): Promise<void>
  /** The indexes that together hold every record for which the filter can hold, once, and few others. */
  indexesFor(filter: KeyFilter): readonly string[]
  /** Whether that is the index of names, whose entries have stamps of their own: names change. */
  isByName(filter: KeyFilter): boolean
}

export function createRedisIndexes(calls: RedisCalls, { indexes, quota }: RedisLayout): RedisIndexes {
  const keyOf = ({ key }: Listing) => key

  function listingsOf(indexed: IndexedRecord): Listing[] {
    return [...listingsBesideLineage(indexed), lineageListing(indexed)]
  }

  function listingsBesideLineage(indexed: IndexedRecord): Listing[] {
    const { record, stamp } = indexed
    const member = indexMember(record, record.lookup, stamp)
    const keys = [indexes.all, indexes.owner(record.owner)]
    const byCreator = creatorListing(indexed)
    return [...keys.map((key) => ({ key, member })), ...(byCreator ? [byCreator] : []), nameListing(indexed)]
  }

  function creatorListing({ record, stamp }: IndexedRecord): Listing | null {
    if (record.createdBy === null) return null
    return { key: indexes.createdBy(record.createdBy), member: indexMember(record, record.lookup, stamp) }
  }

  function nameListing({ record, nameStamp }: IndexedRecord): Listing {
    return { key: indexes.name(record.name), member: indexMember(record, record.lookup, nameStamp) }
  }

  function lineageListing({ record, stamp }: IndexedRecord): Listing {
    return { key: indexes.lineage(record.lineageId), member: indexMember(record, record.lookup, stamp) }
  }

  async function add(listings: readonly Listing[]): Promise<void> {
    await Promise.all(
      calls.byPlace(listings, keyOf).map((place) => calls.run(ADD_TO_INDEXES, ...split(place))),
    )
  }

  async function remove(listings: readonly Listing[]): Promise<void> {
    await Promise.all(
      calls.byPlace(listings, keyOf).map((place) => calls.run(REMOVE_FROM_INDEXES, ...split(place))),
    )
  }

  async function removeRecords(indexed: readonly IndexedRecord[]): Promise<void> {
    await remove(indexed.flatMap(listingsBesideLineage))
    await Promise.all(
      indexed.map((one) => {
        const { key, member } = lineageListing(one)
        return calls.run(LEAVE_LINEAGE, [key, quota(one.record.lineageId)], [member])
      }),
    )
  }

  function indexesFor({ lineageId, owners, createdBy, name }: KeyFilter): readonly string[] {
    if (lineageId !== undefined) return [indexes.lineage(lineageId)]
    if (owners) return owners.map(indexes.owner)
    if (createdBy !== undefined) return [indexes.createdBy(createdBy)]
    return [name === undefined ? indexes.all : indexes.name(name)]
  }

  function isByName({ lineageId, owners, createdBy, name }: KeyFilter): boolean {
    return lineageId === undefined && !owners && createdBy === undefined && name !== undefined
  }

  return { listingsOf, nameListing, creatorListing, add, remove, removeRecords, indexesFor, isByName }
}

function split(listings: readonly Listing[]): [string[], string[]] {
  return [listings.map(({ key }) => key), listings.map(({ member }) => member)]
}
