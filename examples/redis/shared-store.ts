import type { Redis } from 'ioredis'
import {
  isSameQuota,
  type KeyFilter,
  type KeyPosition,
  type KeyRecord,
  type KeyStore,
  keyStatus,
  LatchkeyError,
  type QuotaRecord,
  startQuota,
} from 'latchkey'
import { hashTransactions } from './hash-transactions.ts'

/**
 * A store that processes share, and an example of a custom store: one hash in Redis holds everything. It is only a demonstration:
 * `list` reads every key, and Redis keeps data on disk only with `appendonly yes`.
 */
export function sharedStore(redis: Redis, hash = 'latchkey-example:keys'): KeyStore {
  const transact = hashTransactions<Kinds>(redis, hash, parse)

  return {
    insert: (records) =>
      transact(async ({ get, set }) => {
        for (const { quota, ...record } of records) {
          const { id, lookup, lineageId } = record
          if ((await get('key', id)) || (await get('lookup', lookup)))
            throw new LatchkeyError('duplicate_key')
          const { keyIds, ...lineage } = (await get('lineage', lineageId)) ?? NO_LINEAGE
          set('key', id, record)
          set('lookup', lookup, id)
          set('lineage', lineageId, { ...lineage, keyIds: [...keyIds, id], quota: lineage.quota ?? quota })
        }
      }),

    // Every answer includes every write that has resolved, as long as no replica is asked.
    find: (by) =>
      transact(async ({ get }) => {
        for (const name of 'id' in by ? [by.id] : by.lookups) {
          const id = 'id' in by ? name : await get('lookup', name)
          const record = id === null ? null : await get('key', id)
          if (record) return withQuota(record, await get('lineage', record.lineageId))
        }
        return null
      }),

    update: (id, expectedVersion, { quota, ...change }) =>
      transact(async ({ get, set }) => {
        const record = await get('key', id)
        if (!record) return 'missing'
        if (record.version !== expectedVersion) return 'conflict'
        const revokedAt = record.revokedAt ?? change.revokedAt ?? null
        set('key', id, { ...record, ...change, revokedAt, version: expectedVersion + 1 })
        const lineage = (await get('lineage', record.lineageId)) ?? NO_LINEAGE
        if (quota === null) set('lineage', record.lineageId, { ...lineage, isUnlimited: true })
        else if (quota) {
          const started = startQuota(quota, lineage.quota, change.updatedAt)
          set('lineage', record.lineageId, { ...lineage, quota: started, isUnlimited: false })
        }
        return 'updated'
      }),

    replaceDigest: (id, expected, next) =>
      transact(async ({ get, set }) => {
        const record = await get('key', id)
        if (record?.digest !== expected) return false
        set('key', id, { ...record, digest: next })
        return true
      }),

    async list(filter, { limit, after, order }) {
      const inOrder = order === 'newest' ? (a: KeyPosition, b: KeyPosition) => compare(b, a) : compare
      const all = await redis.hgetall(hash)
      const fields = Object.keys(all).filter((field) => field.startsWith('key:'))
      return fields
        .map((field) => {
          const record = parse.key(all[field] as string)
          const lineage = all[`lineage:${record.lineageId}`]
          return withQuota(record, lineage === undefined ? null : parse.lineage(lineage))
        })
        .filter((record) => matches(record, filter) && (!after || inOrder(record, after) > 0))
        .sort(inOrder)
        .slice(0, limit)
    },

    async purge(ids, at) {
      const removals = [...new Set(ids)].map((id) =>
        transact(async ({ get, set }) => {
          const record = await get('key', id)
          if (!record || !['revoked', 'expired'].includes(keyStatus(record, at))) return 0
          const lineage = (await get('lineage', record.lineageId)) ?? NO_LINEAGE
          const keyIds = lineage.keyIds.filter((other) => other !== id)
          set('key', id, null)
          set('lookup', record.lookup, null)
          set('lineage', record.lineageId, keyIds.length === 0 ? null : { ...lineage, keyIds })
          return 1
        }),
      )
      return (await Promise.all(removals)).reduce<number>((sum, removed) => sum + removed, 0)
    },

    forget: (id, expectedVersion, forgetting) =>
      transact(async ({ get, set }) => {
        const record = await get('key', id)
        if (!record) return 'missing'
        if (record.version !== expectedVersion) return 'conflict'
        set('key', id, { ...record, ...forgetting, version: expectedVersion + 1 })
        return 'updated'
      }),

    async recordUsage(batch) {
      const records = batch.map(({ id, count, lastUsedAt, lastUsedIp }) =>
        transact(async ({ get, set }) => {
          const record = await get('key', id)
          if (!record) return
          const isLater = !record.lastUsedAt || lastUsedAt > record.lastUsedAt
          const latest = isLater ? { lastUsedAt, lastUsedIp } : {}
          set('key', id, { ...record, usageCount: record.usageCount + count, ...latest })
        }),
      )
      await Promise.all(records)
    },

    swapQuota: (lineageId, expected, next) =>
      transact(async ({ get, set }) => {
        const lineage = await get('lineage', lineageId)
        const current = lineage?.isUnlimited ? null : (lineage?.quota ?? null)
        if (!lineage || !current || !isSameQuota(current, expected)) return { swapped: false, current }
        set('lineage', lineageId, { ...lineage, quota: next })
        return { swapped: true }
      }),

    agree: (name, proposal) =>
      transact(async ({ get, set }) => {
        const kept = await get('agreement', name)
        if (!proposal || (kept !== null && !proposal.replace && kept !== proposal.expected)) return kept
        set('agreement', name, proposal.value)
        return proposal.value
      }),
  }
}

type StoredRecord = Omit<KeyRecord, 'quota'>

/** What the keys of a lineage share. A removed quota stays for its epoch; `isUnlimited` marks it. */
interface Lineage {
  keyIds: string[]
  quota: QuotaRecord | null
  isUnlimited: boolean
}

const NO_LINEAGE: Lineage = { keyIds: [], quota: null, isUnlimited: false }

/** What is in the hash, by the word its field begins with: `key:<id>`, `lookup:<lookup>`, `lineage:<lineageId>`, `agreement:<name>`. */
interface Kinds {
  key: StoredRecord
  /** The id. */
  lookup: string
  lineage: Lineage
  agreement: string
}

const parse: { [K in keyof Kinds]: (text: string) => Kinds[K] } = {
  key: (text) =>
    reviveDates(JSON.parse(text), ['createdAt', 'updatedAt', 'expiresAt', 'lastUsedAt', 'revokedAt']),
  lookup: (text) => JSON.parse(text),
  agreement: (text) => JSON.parse(text),
  lineage(text) {
    const lineage: Lineage = JSON.parse(text)
    return { ...lineage, quota: lineage.quota && reviveDates(lineage.quota, ['nextRefillAt']) }
  },
}

/** By name, since metadata may hold text that looks like a date. */
function reviveDates<T extends object>(value: T, names: readonly (keyof T)[]): T {
  const dates = names.map((name) => [name, value[name] === null ? null : new Date(value[name] as string)])
  return { ...value, ...Object.fromEntries(dates) }
}

function withQuota(record: StoredRecord, lineage: Lineage | null): KeyRecord {
  return { ...record, quota: lineage && !lineage.isUnlimited ? lineage.quota : null }
}

function matches(record: KeyRecord, filter: KeyFilter): boolean {
  const { owners, createdBy, name, lineageId, status, endedBefore, expiresBefore } = filter
  const { type, id } = record.owner
  if (owners && !owners.some((owner) => owner.type === type && owner.id === id)) return false
  if (createdBy !== undefined && record.createdBy !== createdBy) return false
  if (name !== undefined && record.name !== name) return false
  if (lineageId !== undefined && record.lineageId !== lineageId) return false
  if (status && keyStatus(record, status.at) !== status.is) return false
  if (expiresBefore && !(record.expiresAt && record.expiresAt < expiresBefore)) return false
  return !endedBefore || hasEndedBefore(record, endedBefore)
}

function hasEndedBefore(record: KeyRecord, moment: Date): boolean {
  if (record.revokedAt && record.revokedAt < moment) return true
  const justBefore = new Date(moment.getTime() - 1)
  return keyStatus({ ...record, revokedAt: null }, justBefore) === 'expired'
}

function compare(a: KeyPosition, b: KeyPosition): number {
  // UTF-8 keeps the order of code points, which `<` does not.
  return a.createdAt.getTime() - b.createdAt.getTime() || Buffer.compare(Buffer.from(a.id), Buffer.from(b.id))
}
