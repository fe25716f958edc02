import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { Digester, PreparedDigest } from '../digests/digest.ts'
import type { DependencyRunner } from '../faults.ts'
import { type AddressCheck, compileAllowedIps } from '../keys/allowed-ips.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { type ApiKey, type KeyRecord, toApiKey } from '../keys/record.ts'
import type { QuotaRecord } from '../limits/quota.ts'
import { type CompiledLimit, compileRateLimits } from '../limits/rate-limit.ts'

/** A record as verification needs it: everything that does not depend on the request is computed once. */
export interface CachedKey {
  readonly apiKey: ApiKey
  readonly lookup: string
  /** The digest as it is stored. */
  readonly digestText: string
  readonly digest: PreparedDigest
  readonly limits: readonly CompiledLimit[]
  readonly isAllowedIp: AddressCheck | null
  /** When the read began. The record's age counts from here, so a slow answer does not look young. */
  readonly readAt: number
  /** Dates as numbers, so the application cannot change them through the dates of `apiKey`. */
  readonly expiresAtMs: number | null
  /** The latest use that is known of, or the creation. Moves on with every use. */
  lastActiveAtMs: number
  /** The latest use that is written, or about to be; null if there is none. */
  writtenUseAtMs: number | null
  /** Whether a digest upgrade was begun from this copy of the record: it is not tried twice. */
  isUpgrading?: boolean
  readonly isRevoked: boolean
  /** The lineage's quota as it was read with the record. */
  readonly quota: QuotaRecord | null
}

export interface RecordCacheOptions {
  readonly maxEntries: number
  readonly maxAgeMs: number
  readonly negativeMaxEntries: number
  readonly negativeMaxAgeMs: number
  readonly defaultLimits: readonly CompiledLimit[]
}

export interface LoadedKey {
  readonly cached: CachedKey | null
  /** Whether the read began with this call, rather than earlier. */
  readonly fresh: boolean
}

/** What may find the record of a key: one lookup for a native key; for an imported one, a lookup from each matching format. */
export type Lookup = string | readonly string[]

export interface RecordCache {
  /** The record, if it is held and young enough; null if it is known not to exist; undefined if unknown. */
  peek(lookup: Lookup): CachedKey | null | undefined
  /** The last record read, whatever its age. Use it only to decide whether this process knows a key. */
  peekStale(lookup: Lookup): CachedKey | undefined
  /** Reads the record, once for all waiting calls. */
  load(lookup: Lookup): Promise<LoadedKey>
  /** Reads the record again, without joining an earlier read; once for all calls of the same moment. */
  loadFresh(lookup: Lookup): Promise<LoadedKey>
  /** Refuses versions of this record below `version` from now on, loads under way included. */
  changed(keyId: string, version: number): void
  /** Takes over a digest that was rewritten under the current scheme in place of `expected`, so that it is not rewritten again. */
  digestReplaced(lookup: string, expected: string, digestText: string): void
  /** The version below which records of this id are refused here; 0 where none is known. */
  minVersionOf(keyId: string): number
  /** A record was added: forgets that it was missing, or another record, and discards reads of it that are under way. */
  forgetMissing(lookup: string): void
  /** Forgets every record, including those being read: changes may have been missed. */
  clear(): void
}

/** A read that others may join. */
interface Loading {
  readonly startedAt: number
  /** How many records had forgetMissing when it began. */
  readonly appearances: number
  readonly work: Promise<CachedKey | null>
}

/**
 * Holds records for a short, hard-bounded time. Only verification reads it; management always reads the store.
 */
export function createRecordCache(
  store: KeyStore,
  digester: Digester,
  options: RecordCacheOptions,
  clock: Clock,
  guard: DependencyRunner,
): RecordCache {
  const held = new LRUCache<string, CachedKey>({
    max: options.maxEntries,
    dispose: ({ apiKey }) => void heldAs.delete(apiKey.id),
  })
  /** The lookups of held records by the ids of their keys, where these differ. */
  const heldAs = new Map<string, string>()
  const unknown = new LRUCache<string, number>({ max: options.negativeMaxEntries })
  const minVersions = new LRUCache<string, number>({ max: options.maxEntries })
  const loading = new Map<string, Loading>()
  const loadingFresh = new Map<string, Promise<CachedKey | null>>()
  let clearings = 0
  let appearances = 0

  function peek(lookup: Lookup): CachedKey | null | undefined {
    if (typeof lookup === 'string') return peekOne(lookup)
    let isUnknown = true
    for (const one of lookup) {
      const cached = peekOne(one)
      if (cached) return cached
      isUnknown &&= cached === null
    }
    return isUnknown ? null : undefined
  }

  function peekStale(lookup: Lookup): CachedKey | undefined {
    if (typeof lookup === 'string') return held.peek(lookup)
    return lookup.map((one) => held.peek(one)).find((cached) => cached !== undefined)
  }

  function peekOne(lookup: string): CachedKey | null | undefined {
    const cached = held.get(lookup)
    if (cached) {
      const age = clock.now() - cached.readAt
      // A clock that was set back makes nothing younger.
      const isYoung = age >= 0 && age < options.maxAgeMs
      if (isYoung && !isOutdated(cached.apiKey)) return cached
      // It stays for what the next read carries over from it.
      return undefined
    }
    const askedAt = unknown.get(lookup)
    if (askedAt === undefined) return undefined
    const age = clock.now() - askedAt
    if (age >= 0 && age < options.negativeMaxAgeMs) return null
    unknown.delete(lookup)
    return undefined
  }

  function isOutdated({ id, version }: Pick<KeyRecord, 'id' | 'version'>): boolean {
    return version < minVersionOf(id)
  }

  function minVersionOf(keyId: string): number {
    return minVersions.get(keyId) ?? 0
  }

  async function load(lookup: Lookup): Promise<LoadedKey> {
    const id = idOf(lookup)
    const running = loading.get(id)
    // What it brings is as old as the read, which may be slow.
    if (running?.appearances === appearances && clock.now() - running.startedAt < options.maxAgeMs) {
      return { cached: await running.work, fresh: false }
    }
    const started = { startedAt: clock.now(), appearances, work: read(lookup) }
    loading.set(id, started)
    try {
      return { cached: await started.work, fresh: true }
    } finally {
      if (loading.get(id) === started) loading.delete(id)
    }
  }

  async function loadFresh(lookup: Lookup): Promise<LoadedKey> {
    const id = idOf(lookup)
    let starting = loadingFresh.get(id)
    if (!starting) {
      // What asks before the read has begun may share it: many find out at once that they are behind.
      starting = Promise.resolve().then(() => {
        if (loadingFresh.get(id) === starting) loadingFresh.delete(id)
        return read(lookup)
      })
      loadingFresh.set(id, starting)
    }
    return { cached: await starting, fresh: true }
  }

  /**
   * `floor` is a version that a change had reached before the read began.
   */
  async function read(lookup: Lookup, floor = 0): Promise<CachedKey | null> {
    const readAt = clock.now()
    const [cleared, forgetMissing] = [clearings, appearances]
    const lookups = typeof lookup === 'string' ? [lookup] : lookup
    const record = await store.find({ lookups })
    if (!record) {
      for (const one of lookups) {
        held.delete(one)
        if (cleared === clearings && forgetMissing === appearances) unknown.set(one, readAt)
      }
      return null
    }
    if (record.version < floor) {
      const problem = 'the store returned a record older than a change it has confirmed'
      throw guard.toError('store', new Error(problem))
    }
    // A change has overtaken the read.
    if (isOutdated(record)) return read(lookup, minVersionOf(record.id))
    const cached = prepare(record, readAt)
    const earlier = held.peek(record.lookup)
    // Another key may have had the lookup, or the id, and been purged.
    const isSameKey = earlier?.apiKey.id === record.id && earlier.apiKey.lineageId === record.lineageId
    if (isSameKey) cached.lastActiveAtMs = Math.max(cached.lastActiveAtMs, earlier.lastActiveAtMs)
    const isLatest = !isSameKey || earlier.apiKey.version <= record.version
    if (isLatest && cleared === clearings && forgetMissing === appearances) hold(cached)
    return cached
  }

  function hold(cached: CachedKey): void {
    const { lookup, apiKey } = cached
    held.set(lookup, cached)
    if (lookup !== apiKey.id) heldAs.set(apiKey.id, lookup)
  }

  function prepare(record: KeyRecord, readAt: number): CachedKey {
    try {
      const { quota, expiresAt, createdAt, lastUsedAt } = record
      return {
        // It is shown once the key was found to be active, and never otherwise.
        apiKey: toApiKey(record, 'active'),
        lookup: record.lookup,
        digestText: record.digest,
        digest: digester.prepare(record.digest),
        limits: record.rateLimits
          ? compileRateLimits('rateLimits', record.rateLimits)
          : options.defaultLimits,
        isAllowedIp: record.allowedIps && compileAllowedIps(record.allowedIps),
        readAt,
        expiresAtMs: expiresAt?.getTime() ?? null,
        lastActiveAtMs: Math.max(createdAt.getTime(), lastUsedAt?.getTime() ?? 0),
        writtenUseAtMs: lastUsedAt?.getTime() ?? null,
        isRevoked: record.revokedAt !== null,
        quota,
      }
    } catch (error) {
      throw guard.toError('store', error)
    }
  }

  function changed(keyId: string, version: number): void {
    minVersions.set(keyId, Math.max(version, minVersionOf(keyId)))
    // A floor may be forgotten where many keys are changed, and what is held must not outlive it.
    const lookup = heldAs.get(keyId) ?? keyId
    const cached = held.peek(lookup)
    if (cached && cached.apiKey.version < version) held.delete(lookup)
  }

  function forgetMissing(lookup: string): void {
    appearances += 1
    unknown.delete(lookup)
    held.delete(lookup)
  }

  function clear(): void {
    clearings += 1
    held.clear()
    unknown.clear()
    loading.clear()
    loadingFresh.clear()
  }

  function digestReplaced(lookup: string, expected: string, digestText: string): void {
    const cached = held.peek(lookup)
    // By now, another key may have the lookup of one that was purged.
    if (cached?.digestText === expected) hold({ ...cached, digestText, digest: digester.prepare(digestText) })
  }

  return {
    peek,
    peekStale,
    load,
    loadFresh,
    changed,
    digestReplaced,
    minVersionOf,
    forgetMissing,
    clear,
  }
}

function idOf(lookup: Lookup): string {
  return typeof lookup === 'string' ? lookup : lookup.join(' ')
}
