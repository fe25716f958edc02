import type {
  Forgetting,
  KeyChange,
  KeyFilter,
  KeyStore,
  ListPage,
  Proposal,
  QuotaSwapResult,
  UsageDelta,
} from '../../core/keys/key-store.ts'
import { type KeyRecord, keyStatus } from '../../core/keys/record.ts'
import type { QuotaRecord } from '../../core/limits/quota.ts'
import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import { randomBase62 } from '../../internal/base62.ts'
import { checkMethods } from '../../internal/options.ts'
import { copyData } from '../../internal/plain-data.ts'
import { matchesFilter } from '../key-filter.ts'
import { createRedisBatches, type Entry, OPEN_MS } from './batches.ts'
import { createRedisCalls } from './calls.ts'
import type { RedisStoreClient } from './client.ts'
import { createRedisIndexes, type IndexedRecord, type Listing } from './indexes.ts'
import { behind, createRedisLayout, createStamp, readIndexMember, stampTime } from './layout.ts'
import { createRedisLookups, type Found } from './lookups.ts'
import { type RedisStoreOptions, resolveRedisStoreOptions } from './options.ts'
import { createRedisQuotas } from './quotas.ts'
import { readIndexes } from './read-indexes.ts'
import { fromPointer, type StoredRecord, toFields, toIntentText, toJson } from './record.ts'
import { AGREE, LEAVE_LINEAGE, READ, REMOVE, REMOVE_POINTER, REPLACE_DIGEST, UPDATE, USE } from './scripts.ts'

/** A store in Redis. It has every optional method except `count`: to count keys, Latchkey lists them. */
export type RedisStore = Required<Omit<KeyStore, 'count'>>

/**
 * Creates a store in Redis 6.2 or later: one server, a server behind Sentinel, or a Cluster.
 *
 * Configure Redis as a database, not as a cache. Set `appendonly yes`; add `appendfsync always` if a crash of the machine must not
 * lose even one second. Set `maxmemory-policy noeviction`: an evicted entry is a key that stops working, or a lost revocation.
 *
 * A change resolves once the primary has it and, if there are replicas, one of them has it too (see `replicas`). Usage counts do not
 * wait. Replication is still asynchronous, and a failover can lose or undo:
 *
 * - a change that has not resolved, or that failed, for example because too few replicas confirmed it;
 * - a resolved change, if Redis promotes a replica that did not confirm it. With `replicas: 1`, that can be any other replica. With
 *   `replicas` set to the number of replicas, this cannot happen, but no change succeeds while one of them is down;
 * - writes that a disconnected primary accepts until it notices. Set `min-replicas-to-write`;
 * - the most recent usage counts.
 *
 * After a lost revocation the key works again: revoke it once more.
 *
 * @throws TypeError when an option is wrong or unknown, naming it. Its methods reject with a `LatchkeyError`: `duplicate_key`;
 * `malformed_record` for values under its keys that are not its own; `read_only` for a replica; `unavailable` for everything else.
 * @example
 * const redis = new Redis()
 * const keys = createApiKeys({ store: redisStore(redis), rateLimiter: redisRateLimiter(redis), prefix: 'acme_live' })
 */
export function redisStore(client: RedisStoreClient, options: RedisStoreOptions = {}): RedisStore {
  return createRedisStore(client, options, { openMs: OPEN_MS, strayMs: 3_600_000 })
}

export interface RedisStoreTimes {
  /** How long an insertion blocks others after its writer has gone silent. */
  readonly openMs: number
  /** The age from which an index entry without a record counts as left over, not as an insertion in progress. */
  readonly strayMs: number
}

const MAX_CHUNK = 500
const MIN_CHUNK = 50
/** The fewest entries to read from each of several indexes. */
const MIN_SHARE = 10
const MAX_PURGES_AT_ONCE = 50
const MAX_ATTEMPTS = 100

/** {@link redisStore} with its times as a parameter. */
export function createRedisStore(
  client: RedisStoreClient,
  options: RedisStoreOptions,
  { openMs, strayMs }: RedisStoreTimes,
): RedisStore {
  checkMethods('client', client, ['eval', 'evalsha', 'pipeline'])
  const settings = resolveRedisStoreOptions(options)
  const layout = createRedisLayout(settings.keyPrefix)
  const calls = createRedisCalls(client, settings)
  const indexes = createRedisIndexes(calls, layout)
  const quotas = createRedisQuotas(calls, layout)
  const batches = createRedisBatches({ calls, layout, openMs, free })
  const lookups = createRedisLookups(calls, layout, batches, quotas)

  async function insert(records: readonly KeyRecord[]): Promise<void> {
    refuseTwins(records)
    if (records.length === 0) return
    // Serialise everything before sending anything, so that a value that cannot be serialised fails in time.
    const copies = withSharedQuotas(copyData(records))
    const drafts = await Promise.all(copies.map((record) => draft(record)))
    const listings = drafts.flatMap(({ indexed }) => indexes.listingsOf(indexed))
    const listedAt = performance.now()
    await indexes.add(listings)
    const entries = drafts.flatMap((one) => one.entries)
    const indexKeys = listings.map(({ key }) => key)
    try {
      await batches.write(entries, indexKeys, listedAt)
    } catch (error) {
      if (isLatchkeyError(error) && error.code === 'duplicate_key') {
        await indexes.removeRecords(drafts.map(({ indexed }) => indexed))
      }
      throw error
    }
    await listAgain(listings, listedAt)
    await Promise.all(drafts.map(({ stored }) => quotas.apply(stored)))
    await calls.confirm([...entries.map(({ key }) => key), ...indexKeys], listedAt)
  }

  async function draft(record: KeyRecord) {
    const { id, lookup } = record
    const stamp = await newStamp()
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

  async function newStamp(): Promise<string> {
    return createStamp(await calls.now(), randomBase62(10))
  }

  /** Lists the entries once more if the insertion took so long that others may have swept them. */
  async function listAgain(listings: readonly Listing[], listedAt: number): Promise<void> {
    if (performance.now() - listedAt > strayMs / 60) await indexes.add(listings)
  }

  /** Removes a pointer that leads nowhere: an interrupted purge may have left it. */
  async function free(key: string): Promise<boolean> {
    if (!layout.isPointer(key)) return false
    const [[read]] = (await calls.run(READ, [key, key, key], ['i'])) as [unknown[]]
    if (!Array.isArray(read) || read[0] !== 'pointer') return false
    const { lookup, stamp, batch } = fromPointer(read[1])
    const target = batch === null ? await lookups.byLookup(lookup) : null
    if (batch !== null || target?.stored.stamp === stamp) return false
    await calls.run(REMOVE_POINTER, [key], [stamp])
    return true
  }

  async function find(by: Parameters<KeyStore['find']>[0]): Promise<KeyRecord | null> {
    const wanted = 'id' in by ? [lookups.byId(by.id)] : by.lookups.map((lookup) => lookups.byLookup(lookup))
    const found = (await Promise.all(wanted)).find((one) => one !== null)
    return found ? recordOf(found) : null
  }

  async function recordOf(found: Found): Promise<KeyRecord> {
    return (await lookups.toRecords([found]))[0] as KeyRecord
  }

  async function update(id: string, expectedVersion: number, given: KeyChange | Forgetting) {
    const { quota, ...rest }: KeyChange & Pick<Forgetting, 'createdBy' | 'lastUsedIp'> = copyData(given)
    const found = await lookups.byId(id)
    if (!found) return 'missing'
    const { stored } = found
    const { record, stamp } = stored
    if (record.version !== expectedVersion) return 'conflict'
    // First finish what an earlier change still has to do to the quota.
    await quotas.apply(stored, found.quota ?? undefined)
    const version = expectedVersion + 1
    const next = { ...record, ...rest, revokedAt: record.revokedAt ?? rest.revokedAt ?? null, version }
    const isRenamed = next.name !== record.name
    const nameStamp = isRenamed ? await newStamp() : stored.nameStamp
    const listing = indexes.nameListing({ record: next, stamp, nameStamp })
    const intent = quota === undefined ? null : toIntentText({ version, set: quota, at: rest.updatedAt })
    const key = layout.record(record.lookup)
    const forgotten = rest.lastUsedIp === null ? '1' : ''
    const change = [toJson(next), nameStamp, intent ?? '', forgotten]
    const args = [stamp, expectedVersion, version, randomBase62(10), ...change]

    const since = performance.now()
    if (isRenamed) await indexes.add([listing])
    const [outcome] = (await calls.run(UPDATE, [key], args)) as ['updated' | 'conflict' | 'missing']
    if (outcome !== 'updated') {
      // The client may have sent the command twice, and then it conflicts with itself. A later sweep removes what is left over.
      if (isRenamed && outcome === 'missing') await indexes.remove([listing])
      return outcome
    }
    await quotas.apply({ stamp, intent, record: next }, found.quota ?? undefined)
    if (isRenamed) {
      await listAgain([listing], since)
      await indexes.remove([indexes.nameListing(stored)])
    }
    const byCreator = next.createdBy === null ? indexes.creatorListing(stored) : null
    if (byCreator) await indexes.remove([byCreator])
    await calls.confirm(isRenamed ? [key, listing.key] : [key], since)
    return outcome
  }

  async function replaceDigest(id: string, expected: string, next: string): Promise<boolean> {
    const since = performance.now()
    const found = await lookups.byId(id)
    if (found?.stored.record.digest !== expected) return false
    const key = layout.record(found.stored.record.lookup)
    const args = [found.stored.stamp, JSON.stringify(expected), JSON.stringify(next)]
    const [isReplaced] = await calls.run(REPLACE_DIGEST, [key], args)
    if (Number(isReplaced) !== 1) return false
    await calls.confirm([key], since)
    return true
  }

  async function list(filter: KeyFilter, { limit, after, order }: ListPage) {
    const keys = indexes.indexesFor(filter)
    const creatorIndex = filter.createdBy === undefined ? null : layout.indexes.createdBy(filter.createdBy)
    const found: Found[] = []
    let from: string | null = behind(after, order)
    // If one of several owners has most of the keys, read more of each.
    let factor = 1
    // If most entries do not match, for example because the oldest keys are all revoked, read more at a time.
    for (let least = MIN_CHUNK; found.length < limit && from !== null; least *= 2) {
      const size = Math.min(MAX_CHUNK, Math.max(least, limit - found.length))
      const share = factor * Math.max(MIN_SHARE, Math.ceil((2 * size) / keys.length))
      const { entries, next } = await readIndexes(calls, keys, {
        from,
        order,
        size,
        each: Math.min(size, share),
      })
      if (entries.length < size) factor *= 2
      const listed = await readListed(entries, filter)
      const strays = entries.filter((_entry, i) => !listed[i])
      await sweep(filter, strays)
      // An interrupted `forget` left this entry. Nothing ever sets `createdBy` again.
      await indexes.remove(
        entries.filter(({ key }, i) => key === creatorIndex && listed[i]?.stored.record.createdBy === null),
      )
      found.push(...listed.flatMap((one) => (one && matchesFilter(one.stored.record, filter) ? [one] : [])))
      from = next
    }
    return lookups.toRecords(found.slice(0, limit))
  }

  /** The record of each entry; null if there is none, or if another entry lists it. */
  async function readListed(entries: readonly Listing[], filter: KeyFilter): Promise<(Found | null)[]> {
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
  async function sweep({ lineageId }: KeyFilter, strays: readonly Listing[]): Promise<void> {
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

  async function purge(ids: readonly string[], at: Date): Promise<number> {
    const since = performance.now()
    const asked = [...new Set(ids)]
    let count = 0
    for (let i = 0; i < asked.length; i += MAX_PURGES_AT_ONCE) {
      const some = asked.slice(i, i + MAX_PURGES_AT_ONCE)
      const removed = (await Promise.all(some.map((id) => remove(id, at)))).filter((one) => one !== null)
      count += removed.length
      await indexes.removeRecords(removed)
      await calls.confirm(
        removed.map(({ record }) => layout.record(record.lookup)),
        since,
      )
    }
    return count
  }

  /** Removes a record and its pointer; null if there is nothing to remove. */
  async function remove(id: string, at: Date): Promise<IndexedRecord | null> {
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

  async function recordUsage(batch: readonly UsageDelta[]): Promise<void> {
    const uses = batch.map(({ id, count, lastUsedAt, lastUsedIp }) => ({
      text: id,
      stamp: '',
      words: [count, lastUsedAt.getTime(), JSON.stringify(lastUsedIp)] as const,
    }))
    const further = await use(uses)
    await use(further)
  }

  /** Counts uses. Returns those whose id leads through a pointer to another key, to count there. */
  async function use(uses: readonly Use[]): Promise<Use[]> {
    const places = calls.byPlace(uses, ({ text }) => layout.record(text))
    const further = await Promise.all(
      places.map(async (place) => {
        const keys = place.flatMap(({ text }) => [layout.record(text), layout.pointer(text)])
        const args = place.flatMap(({ stamp, words }) => [stamp, ...words])
        const [pointers] = (await calls.run(USE, keys, args)) as [unknown[]]
        return place.flatMap((one, i) => {
          const pointer = pointers[i]
          if (!Array.isArray(pointer)) return []
          const { lookup, stamp } = fromPointer(['l', pointer[0], 's', pointer[1]])
          return [{ ...one, text: lookup, stamp }]
        })
      }),
    )
    return further.flat()
  }

  async function agree(name: string, proposal: Proposal | null): Promise<string | null> {
    const since = performance.now()
    const key = layout.agreement(name)
    const args = proposal ? [proposal.replace ? 'replace' : 'keep', proposal.value] : ['look', '']
    const [kept, written] = await calls.run(AGREE, [key], args)
    if (Number(written) === 1) await calls.confirm([key], since)
    return typeof kept === 'string' ? kept : null
  }

  return {
    insert,
    find,
    update,
    replaceDigest,
    list,
    purge,
    forget: update,
    recordUsage,
    swapQuota: async (lineageId, expected, next) =>
      (await quotas.swap([{ lineageId, expected, next }]))[0] as QuotaSwapResult,
    swapQuotas: quotas.swap,
    agree,
  }
}

/** A use to count, by id or, if the stamp is known, by lookup. */
interface Use {
  readonly text: string
  readonly stamp: string
  readonly words: readonly [count: number, lastUsedAt: number, lastUsedIp: string]
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

function refuseTwins(records: readonly KeyRecord[]): void {
  const ids = new Set(records.map(({ id }) => id))
  const lookups = new Set(records.map(({ lookup }) => lookup))
  if (ids.size < records.length || lookups.size < records.length) throw new LatchkeyError('duplicate_key')
}
