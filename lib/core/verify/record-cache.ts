import { LRUCache } from 'lru-cache'
import { deepFreeze } from '../../internal/deep-freeze.ts'
import type { Clock } from '../clock.ts'
import type { Digester, PreparedDigest } from '../digests/digest.ts'
import type { DependencyRunner } from '../faults.ts'
import { type AddressCheck, compileAllowedIps } from '../keys/allowed-ips.ts'
import { isImported } from '../keys/imported-format.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { type ApiKey, type KeyRecord, type Owner, toApiKey } from '../keys/record.ts'
import { compileRateLimits } from '../limits/compile-limits.ts'
import type { QuotaRecord } from '../limits/quota.ts'
import type { CompiledLimit, RateLimit } from '../limits/rate-limit.ts'
import { type LimitsOfOwner, ownerText, type ServiceLimits } from '../limits/service-limits.ts'

/** A record as verification needs it: everything that does not depend on the request is computed once. */
export interface CachedKey {
  readonly apiKey: ApiKey
  readonly lookup: string
  /** The digest as it is stored. */
  readonly digestText: string
  readonly digest: PreparedDigest
  /** Whether what matches the digest is this key, a native one, to its last character. */
  readonly isWholeKeyDigest: boolean
  readonly limits: readonly CompiledLimit[]
  /** Whether a limit of the key and one of its owner have the same name. Both hold, and one of them is shown. */
  readonly hasNamesakes: boolean
  /** Identifies the owner if the key has limits of its owner. */
  readonly owner: string | undefined
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
  /** The limits of the service. */
  readonly limits: ServiceLimits
}

export interface LoadedKey {
  readonly cached: CachedKey | null
  /** Whether the read began with this call, rather than earlier. */
  readonly fresh: boolean
}

/** What may find the record of a key: one lookup for a native key; for an imported one, a lookup from each matching format. */
export type Lookup = string | readonly string[]

/** A read that others may join. */
interface Loading {
  readonly startedAt: number
  /** How many records had appeared when it began. */
  readonly appearances: number
  readonly work: Promise<CachedKey | null>
}

/**
 * Holds records for a short, hard-bounded time. Only verification reads it; management always reads the store.
 */
export class RecordCache {
  /** Called with every change that this process makes or hears of, and without a key when it may have missed some. */
  onChange: (changed?: { readonly keyId: string; readonly version: number }) => void = () => {}
  private readonly held: LRUCache<string, CachedKey>
  /** The lookups of held records by the ids of their keys, where these differ. */
  private readonly heldAs = new Map<string, string>()
  private readonly unknown: LRUCache<string, number>
  private readonly minVersions: LRUCache<string, number>
  private readonly loading = new Map<string, Loading>()
  private readonly loadingFresh = new Map<string, Promise<CachedKey | null>>()
  private clearings = 0
  private appearances = 0

  constructor(
    private readonly store: KeyStore,
    private readonly digester: Digester,
    private readonly options: RecordCacheOptions,
    private readonly clock: Clock,
    private readonly guard: DependencyRunner,
  ) {
    this.held = new LRUCache({
      max: options.maxEntries,
      dispose: ({ apiKey }) => void this.heldAs.delete(apiKey.id),
    })
    this.unknown = new LRUCache({ max: options.negativeMaxEntries })
    this.minVersions = new LRUCache({ max: options.maxEntries })
  }

  /** The record, if it is held and young enough; null if it is known not to exist; undefined if unknown. */
  peek(lookup: Lookup, now = this.clock.now()): CachedKey | null | undefined {
    if (typeof lookup === 'string') return this.peekOne(lookup, now)
    let isUnknown = true
    for (const one of lookup) {
      const cached = this.peekOne(one, now)
      if (cached) return cached
      isUnknown &&= cached === null
    }
    return isUnknown ? null : undefined
  }

  /** The last record read, whatever its age. Use it only to decide whether this process knows a key. */
  peekStale(lookup: Lookup): CachedKey | undefined {
    if (typeof lookup === 'string') return this.held.peek(lookup)
    return lookup.map((one) => this.held.peek(one)).find((cached) => cached !== undefined)
  }

  /** Whether this very key was verified here; its record may have aged. */
  proves(lookup: Lookup, key: string): boolean {
    const held = this.peekStale(lookup)
    return held?.digest.isCheap() === true && held.digest.matches(key) === true
  }

  private peekOne(lookup: string, now: number): CachedKey | null | undefined {
    const cached = this.held.get(lookup)
    if (cached) {
      const age = now - cached.readAt
      // A clock that was set back makes nothing younger.
      const isYoung = age >= 0 && age < this.options.maxAgeMs
      if (isYoung && !this.isOutdated(cached.apiKey)) return cached
      // It stays for what the next read carries over from it.
      return undefined
    }
    const askedAt = this.unknown.get(lookup)
    if (askedAt === undefined) return undefined
    const age = now - askedAt
    if (age >= 0 && age < this.options.negativeMaxAgeMs) return null
    this.unknown.delete(lookup)
    return undefined
  }

  private isOutdated({ id, version }: Pick<KeyRecord, 'id' | 'version'>): boolean {
    return version < this.minVersionOf(id)
  }

  /** The version below which records of this id are refused here; 0 where none is known. */
  minVersionOf(keyId: string): number {
    return this.minVersions.get(keyId) ?? 0
  }

  /** The lookup of a key's record; null if there is no such key. It asks the store only where the record is not held. */
  async lookupOf(keyId: string): Promise<string | null> {
    const lookup = this.held.has(keyId) ? keyId : this.heldAs.get(keyId)
    return lookup ?? (await this.store.find({ id: keyId }))?.lookup ?? null
  }

  /** Reads the record, once for all waiting calls. */
  async load(lookup: Lookup): Promise<LoadedKey> {
    const id = idOf(lookup)
    const running = this.loading.get(id)
    // What it brings is as old as the read, which may be slow.
    if (
      running?.appearances === this.appearances &&
      this.clock.now() - running.startedAt < this.options.maxAgeMs
    ) {
      return { cached: await running.work, fresh: false }
    }
    const started = { startedAt: this.clock.now(), appearances: this.appearances, work: this.read(lookup) }
    this.loading.set(id, started)
    try {
      return { cached: await started.work, fresh: true }
    } finally {
      if (this.loading.get(id) === started) this.loading.delete(id)
    }
  }

  /** Reads the record again, without joining an earlier read; once for all calls of the same moment. */
  async loadFresh(lookup: Lookup): Promise<LoadedKey> {
    const id = idOf(lookup)
    let starting = this.loadingFresh.get(id)
    if (!starting) {
      // What asks before the read has begun may share it: many find out at once that they are behind.
      starting = Promise.resolve().then(() => {
        if (this.loadingFresh.get(id) === starting) this.loadingFresh.delete(id)
        return this.read(lookup)
      })
      this.loadingFresh.set(id, starting)
    }
    return { cached: await starting, fresh: true }
  }

  /** Reads the record and leaves the cache as it is: what verification does next does not depend on it. */
  look(lookup: Lookup): Promise<CachedKey | null> {
    return this.read(lookup, { isKept: false })
  }

  /**
   * `floor` is a version that a change had reached before the read began.
   */
  private async read(lookup: Lookup, { floor = 0, isKept = true } = {}): Promise<CachedKey | null> {
    const readAt = this.clock.now()
    const [cleared, appeared] = [this.clearings, this.appearances]
    const lookups = typeof lookup === 'string' ? [lookup] : lookup
    const record = await this.store.find({ lookups })
    if (!record) {
      if (!isKept) return null
      for (const one of lookups) {
        this.held.delete(one)
        if (cleared === this.clearings && appeared === this.appearances) this.unknown.set(one, readAt)
      }
      return null
    }
    if (record.version < floor) {
      const problem = 'the store returned a record older than a change it has confirmed'
      throw this.guard.toError('store', new Error(problem))
    }
    const ofOwner = this.options.limits.fixed ?? (await this.limitsOf(deepFreeze(record.owner)))
    // A change has overtaken the read.
    if (this.isOutdated(record)) return this.read(lookup, { floor: this.minVersionOf(record.id), isKept })
    const cached = this.prepare(record, ofOwner, readAt)
    const earlier = this.held.peek(record.lookup)
    // Another key may have had the lookup, or the id, and been purged.
    const isSameKey = earlier?.apiKey.id === record.id && earlier.apiKey.lineageId === record.lineageId
    if (isSameKey) cached.lastActiveAtMs = Math.max(cached.lastActiveAtMs, earlier.lastActiveAtMs)
    const isLatest = !isSameKey || earlier.apiKey.version <= record.version
    const isCurrent = isLatest && cleared === this.clearings && appeared === this.appearances
    if (isKept && isCurrent) this.hold(cached)
    return cached
  }

  private hold(cached: CachedKey): void {
    const { lookup, apiKey } = cached
    this.held.set(lookup, cached)
    if (lookup !== apiKey.id) this.heldAs.set(apiKey.id, lookup)
  }

  private limitsOf(owner: Owner): Promise<LimitsOfOwner> {
    return this.guard.run('owner_limits', () => this.options.limits.of(owner))
  }

  private prepare(record: KeyRecord, ofOwner: LimitsOfOwner, readAt: number): CachedKey {
    try {
      const { quota, expiresAt, createdAt, lastUsedAt } = record
      const limits = record.rateLimits ? withOwners(record.rateLimits, ofOwner) : ofOwner.all
      const digest = this.digester.prepare(record.digest)
      return {
        // It is shown once the key was found to be active, and never otherwise.
        apiKey: toApiKey(record, 'active'),
        lookup: record.lookup,
        digestText: record.digest,
        digest,
        isWholeKeyDigest: isWholeKeyDigest(record, digest),
        limits,
        hasNamesakes: record.rateLimits !== null && haveNamesakes(limits),
        owner: ofOwner.owners.length > 0 ? ownerText(record.owner) : undefined,
        isAllowedIp: record.allowedIps && compileAllowedIps(record.allowedIps),
        readAt,
        expiresAtMs: expiresAt?.getTime() ?? null,
        lastActiveAtMs: Math.max(createdAt.getTime(), lastUsedAt?.getTime() ?? 0),
        writtenUseAtMs: lastUsedAt?.getTime() ?? null,
        isRevoked: record.revokedAt !== null,
        quota,
      }
    } catch (error) {
      throw this.guard.toError('store', error)
    }
  }

  /** Refuses versions of this record below `version` from now on, loads under way included. */
  changed(keyId: string, version: number): void {
    this.minVersions.set(keyId, Math.max(version, this.minVersionOf(keyId)))
    // A floor may be forgotten where many keys are changed, and what is held must not outlive it.
    const lookup = this.heldAs.get(keyId) ?? keyId
    const cached = this.held.peek(lookup)
    if (cached && cached.apiKey.version < version) this.held.delete(lookup)
    this.onChange({ keyId, version })
  }

  /** A record was added: forgets that it was missing, or another record, and discards reads of it that are under way. */
  forgetMissing(lookup: string): void {
    this.appearances += 1
    this.unknown.delete(lookup)
    this.held.delete(lookup)
  }

  /** Forgets every record, including those being read: changes may have been missed. */
  clear(): void {
    this.clearings += 1
    this.held.clear()
    this.unknown.clear()
    this.loading.clear()
    this.loadingFresh.clear()
    this.onChange()
  }

  /** Takes over a digest that was rewritten under the current scheme in place of `expected`, so that it is not rewritten again. */
  digestReplaced(lookup: string, expected: string, digestText: string): void {
    const cached = this.held.peek(lookup)
    // By now, another key may have the lookup of one that was purged.
    if (cached?.digestText !== expected) return
    const digest = this.digester.prepare(digestText)
    this.hold({ ...cached, digestText, digest, isWholeKeyDigest: isWholeKeyDigest(cached, digest) })
  }
}

function isWholeKeyDigest(key: { readonly lookup: string }, digest: PreparedDigest): boolean {
  return digest.coverage === '' && digest.readsAtMost === Infinity && !isImported(key)
}

/** The limits of a key, and those of its owner, which always hold as well. */
function withOwners(own: readonly RateLimit[], { owners }: LimitsOfOwner): readonly CompiledLimit[] {
  const limits = compileRateLimits('rateLimits', own)
  return owners.length > 0 ? Object.freeze([...limits, ...owners]) : limits
}

function haveNamesakes(limits: readonly CompiledLimit[]): boolean {
  return new Set(limits.map(({ name }) => name)).size < limits.length
}

function idOf(lookup: Lookup): string {
  return typeof lookup === 'string' ? lookup : lookup.join(' ')
}
