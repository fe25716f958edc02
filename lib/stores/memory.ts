import {
  comparisonOf,
  type Forgetting,
  type KeyChange,
  type KeyFilter,
  type KeyStore,
  type ListPage,
  type Proposal,
  type QuotaSwapResult,
  type UsageDelta,
} from '../core/keys/key-store.ts'
import { type KeyRecord, keyStatus } from '../core/keys/record.ts'
import { isSameQuota, type QuotaRecord, startQuota } from '../core/limits/quota.ts'
import {
  type HourlyCount,
  isPermissionCounter,
  type UsageBatch,
  type UsageRemoval,
  type UsageSelection,
  usageSubject,
} from '../core/usage/usage-counts.ts'
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
  const tables: Tables = {
    records: new Map(),
    idsByLookup: new Map(),
    quotas: new Map(),
    unlimited: new Set(),
    agreements: new Map(),
    usage: new Map(),
    usageWriters: new Map(),
  }
  return {
    insert: async (batch) => insert(tables, batch),
    find: async (by) => find(tables, by),
    update: async (id, expectedVersion, change) => update(tables, id, expectedVersion, change),
    replaceDigest: async (id, expected, next) => replaceDigest(tables, id, expected, next),
    list: async (filter, page) => list(tables, filter, page),
    count: async (filter) => matching(tables, filter).length,
    purge: async (ids, at) => purge(tables, ids, at),
    forget: async (id, expectedVersion, forgetting) => forget(tables, id, expectedVersion, forgetting),
    recordUsage: async (batch) => recordUsage(tables, batch),
    swapQuota: async (lineageId, expected, next) => swapQuota(tables, lineageId, expected, next),
    agree: async (name, proposal) => agree(tables, name, proposal),
    addUsage: async (batch) => addUsage(tables, batch),
    readUsage: async (selection) => readUsage(tables, selection),
    removeUsage: async (removal) => removeUsage(tables, removal),
  }
}

interface Tables {
  /** By id, without their quotas. */
  readonly records: Map<string, KeyRecord>
  readonly idsByLookup: Map<string, string>
  readonly quotas: Map<string, QuotaRecord>
  /** Lineages whose quota was removed; it stays in `quotas` for its epoch. */
  readonly unlimited: Set<string>
  readonly agreements: Map<string, string>
  /** For each key and owner, amounts by hour and counter. */
  readonly usage: Map<string, Map<number, Map<string, number>>>
  /** The number of the latest batch of each writer. */
  readonly usageWriters: Map<string, number>
}

function insert({ records, idsByLookup, quotas }: Tables, batch: readonly KeyRecord[]): void {
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
}

function find(tables: Tables, by: Parameters<KeyStore['find']>[0]): KeyRecord | null {
  const ids = 'id' in by ? [by.id] : by.lookups.map((lookup) => tables.idsByLookup.get(lookup))
  for (const id of ids) {
    const record = id === undefined ? undefined : tables.records.get(id)
    if (record) return copyOut(tables, record)
  }
  return null
}

function update(tables: Tables, id: string, expectedVersion: number, change: KeyChange) {
  const { records, quotas, unlimited } = tables
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
}

function replaceDigest({ records }: Tables, id: string, expected: string, next: string): boolean {
  const record = records.get(id)
  if (record?.digest !== expected) return false
  records.set(id, { ...record, digest: next })
  return true
}

function list(tables: Tables, filter: KeyFilter, { limit, after, order }: ListPage): KeyRecord[] {
  const compare = comparisonOf(order)
  return matching(tables, filter)
    .filter((record) => !after || compare(record, after) > 0)
    .sort(compare)
    .slice(0, limit)
    .map((record) => copyOut(tables, record))
}

function matching({ records }: Tables, filter: KeyFilter): KeyRecord[] {
  return [...records.values()].filter((record) => matchesFilter(record, filter))
}

function purge(
  { records, idsByLookup, quotas, unlimited, usage }: Tables,
  ids: readonly string[],
  at: Date,
): number {
  const purged = [...new Set(ids)]
    .map((id) => records.get(id))
    .filter((record) => record && ['revoked', 'expired'].includes(keyStatus(record, at))) as KeyRecord[]
  for (const { id, lookup } of purged) {
    records.delete(id)
    idsByLookup.delete(lookup)
    usage.delete(usageSubject({ keyId: id }))
  }
  const living = new Set([...records.values()].map((record) => record.lineageId))
  for (const { lineageId } of purged) {
    if (living.has(lineageId)) continue
    quotas.delete(lineageId)
    unlimited.delete(lineageId)
  }
  return purged.length
}

function forget({ records }: Tables, id: string, expectedVersion: number, forgetting: Forgetting) {
  const record = records.get(id)
  if (!record) return 'missing'
  if (record.version !== expectedVersion) return 'conflict'
  records.set(id, { ...record, ...copyData(forgetting), version: expectedVersion + 1 })
  return 'updated'
}

function recordUsage({ records }: Tables, batch: readonly UsageDelta[]): void {
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
}

function swapQuota(
  tables: Tables,
  lineageId: string,
  expected: QuotaRecord,
  next: QuotaRecord,
): QuotaSwapResult {
  const current = quotaOf(tables, lineageId)
  if (!current || !isSameQuota(current, expected)) return { swapped: false, current: copyData(current) }
  tables.quotas.set(lineageId, copyData(next))
  return { swapped: true }
}

function agree({ agreements }: Tables, name: string, proposal: Proposal | null): string | null {
  const kept = agreements.get(name) ?? null
  if (!proposal || (kept !== null && !proposal.replace && kept !== proposal.expected)) return kept
  agreements.set(name, proposal.value)
  return proposal.value
}

function addUsage({ records, usage, usageWriters }: Tables, { writer, number, counts }: UsageBatch): void {
  if ((usageWriters.get(writer) ?? 0) >= number) return
  usageWriters.set(writer, number)
  for (const { keyId, hour, counter, amount } of counts) {
    const record = records.get(keyId)
    if (!record) continue
    addAmount(usage, usageSubject({ keyId }), hour, counter, amount)
    if (isPermissionCounter(counter)) continue
    addAmount(usage, usageSubject({ owner: record.owner }), hour, counter, amount)
  }
}

function addAmount(
  usage: Tables['usage'],
  subject: string,
  hour: number,
  counter: string,
  amount: number,
): void {
  const hours = usage.get(subject) ?? new Map<number, Map<string, number>>()
  const counters = hours.get(hour) ?? new Map<string, number>()
  usage.set(subject, hours.set(hour, counters.set(counter, (counters.get(counter) ?? 0) + amount)))
}

function readUsage({ usage }: Tables, { of, fromHour, toHour, kind }: UsageSelection): HourlyCount[] {
  return [...(usage.get(usageSubject(of)) ?? [])]
    .filter(([hour]) => hour >= fromHour && hour < toHour)
    .flatMap(([hour, counters]) => [...counters].map(([counter, amount]) => ({ hour, counter, amount })))
    .filter(
      ({ counter, amount }) => amount !== 0 && isPermissionCounter(counter) === (kind === 'permissions'),
    )
}

function removeUsage({ usage }: Tables, removal: UsageRemoval): void {
  if ('owner' in removal) {
    usage.delete(usageSubject(removal))
    return
  }
  for (const [subject, hours] of usage) {
    for (const hour of hours.keys()) if (hour < removal.beforeHour) hours.delete(hour)
    if (hours.size === 0) usage.delete(subject)
  }
}

function copyOut(tables: Tables, record: KeyRecord): KeyRecord {
  return copyData({ ...record, quota: quotaOf(tables, record.lineageId) })
}

function quotaOf({ unlimited, quotas }: Tables, lineageId: string): QuotaRecord | null {
  return unlimited.has(lineageId) ? null : (quotas.get(lineageId) ?? null)
}
