import {
  comparisonOf,
  type Forgetting,
  type KeyChange,
  type KeyFilter,
  type KeyStore,
  type ListPage,
  type Proposal,
  type UsageDelta,
} from '../core/keys/key-store.ts'
import { type KeyRecord, keyStatus } from '../core/keys/record.ts'
import { isSameQuota, type QuotaRecord, startQuota } from '../core/limits/quota.ts'
import { LatchkeyError } from '../errors.ts'
import { copyData } from '../internal/plain-data.ts'
import { matchesFilter } from './key-filter.ts'

/**
 * Creates a store in the memory of the process, for tests and for trying things out. The keys are gone when the process ends.
 *
 * @example
 * const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
 */
export function memoryStore(): KeyStore {
  const records = new Map<string, KeyRecord>()
  const idsByLookup = new Map<string, string>()
  const quotas = new Map<string, QuotaRecord>()
  /** Lineages whose quota was removed; it stays in `quotas` for its epoch. */
  const unlimited = new Set<string>()
  const agreements = new Map<string, string>()

  return {
    async insert(batch: readonly KeyRecord[]) {
      const ids = new Set<string>()
      const lookups = new Set<string>()
      for (const { id, lookup } of batch) {
        if (records.has(id) || idsByLookup.has(lookup) || ids.has(id) || lookups.has(lookup)) {
          throw new LatchkeyError('duplicate_key')
        }
        ids.add(id)
        lookups.add(lookup)
      }
      for (const { quota, ...rest } of copyData(batch)) {
        records.set(rest.id, { ...rest, quota: null })
        idsByLookup.set(rest.lookup, rest.id)
        if (quota && !quotas.has(rest.lineageId)) quotas.set(rest.lineageId, quota)
      }
    },

    async find(by) {
      const ids = 'id' in by ? [by.id] : by.lookups.map((lookup) => idsByLookup.get(lookup))
      for (const id of ids) {
        const record = id === undefined ? undefined : records.get(id)
        if (record) return copyOut(record)
      }
      return null
    },

    async update(id: string, expectedVersion: number, change: KeyChange) {
      const record = records.get(id)
      if (!record) return 'missing'
      if (record.version !== expectedVersion) return 'conflict'
      const { quota, ...rest } = copyData(change)
      const revokedAt = record.revokedAt ?? rest.revokedAt ?? null
      records.set(id, { ...record, ...rest, revokedAt, version: expectedVersion + 1 })
      if (quota === null) unlimited.add(record.lineageId)
      else if (quota) {
        unlimited.delete(record.lineageId)
        quotas.set(record.lineageId, startQuota(quota, quotas.get(record.lineageId) ?? null, rest.updatedAt))
      }
      return 'updated'
    },

    async replaceDigest(id: string, expected: string, next: string) {
      const record = records.get(id)
      if (record?.digest !== expected) return false
      records.set(id, { ...record, digest: next })
      return true
    },

    async list(filter: KeyFilter, { limit, after, order }: ListPage) {
      const compare = comparisonOf(order)
      return [...records.values()]
        .filter((record) => matchesFilter(record, filter) && (!after || compare(record, after) > 0))
        .sort(compare)
        .slice(0, limit)
        .map(copyOut)
    },

    async count(filter: KeyFilter) {
      return [...records.values()].filter((record) => matchesFilter(record, filter)).length
    },

    async purge(ids: readonly string[], at: Date) {
      const purged = [...new Set(ids)]
        .map((id) => records.get(id))
        .filter((record) => record && ['revoked', 'expired'].includes(keyStatus(record, at))) as KeyRecord[]
      for (const { id, lookup } of purged) {
        records.delete(id)
        idsByLookup.delete(lookup)
      }
      const living = new Set([...records.values()].map((record) => record.lineageId))
      for (const { lineageId } of purged) {
        if (living.has(lineageId)) continue
        quotas.delete(lineageId)
        unlimited.delete(lineageId)
      }
      return purged.length
    },

    async forget(id: string, expectedVersion: number, forgetting: Forgetting) {
      const record = records.get(id)
      if (!record) return 'missing'
      if (record.version !== expectedVersion) return 'conflict'
      records.set(id, { ...record, ...copyData(forgetting), version: expectedVersion + 1 })
      return 'updated'
    },

    async recordUsage(batch: readonly UsageDelta[]) {
      for (const { id, count, lastUsedAt, lastUsedIp } of batch) {
        const record = records.get(id)
        if (!record) continue
        const isLater = !record.lastUsedAt || lastUsedAt > record.lastUsedAt
        records.set(id, {
          ...record,
          usageCount: record.usageCount + count,
          ...(isLater && { lastUsedAt: new Date(lastUsedAt), lastUsedIp }),
        })
      }
    },

    async swapQuota(lineageId: string, expected: QuotaRecord, next: QuotaRecord) {
      const current = quotaOf(lineageId)
      if (!current || !isSameQuota(current, expected)) {
        return { swapped: false as const, current: copyData(current) }
      }
      quotas.set(lineageId, copyData(next))
      return { swapped: true as const }
    },

    async agree(name: string, proposal: Proposal | null) {
      if (proposal && (proposal.replace || !agreements.has(name))) agreements.set(name, proposal.value)
      return agreements.get(name) ?? null
    },
  }

  function copyOut(record: KeyRecord): KeyRecord {
    return copyData({ ...record, quota: quotaOf(record.lineageId) })
  }

  function quotaOf(lineageId: string): QuotaRecord | null {
    return unlimited.has(lineageId) ? null : (quotas.get(lineageId) ?? null)
  }
}
