import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import { checkInteger, checkShownText, fail } from '../../internal/options.ts'
import { isSameData } from '../../internal/plain-data.ts'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { mayBeId } from '../keys/key-id.ts'
import type { KeyChange, KeyFilter, KeyPosition, KeyStore } from '../keys/key-store.ts'
import { type ApiKey, type KeyRecord, keyStatus, toApiKey } from '../keys/record.ts'
import { startQuota } from '../limits/quota.ts'
import type { QuotaLeases } from '../limits/quota-leases.ts'
import { isTold } from './insert-confirmed.ts'
import type { ChangeOptions, UpdateOptions } from './key-management.ts'
import type { PublishChange } from './publish-change.ts'

export interface ChangeParts {
  readonly store: KeyStore
  readonly quotaLeases: QuotaLeases
  readonly formats: ImportedFormats
  readonly publish: PublishChange
  readonly clock: Clock
  readonly guard: DependencyRunner
  emit(event: ApiKeyEvent): void
}

/** The change of a key, and the event that reports it. */
export interface DecidedChange {
  readonly change: Omit<KeyChange, 'updatedAt'>
  readonly event:
    | { readonly type: 'key.updated'; readonly changed: readonly string[] }
    | { readonly type: 'key.enabled' | 'key.disabled' | 'key.revoked' }
    | null
}

/** A change that the store has, but that other processes may not know yet. */
interface CommittedChange {
  readonly before: KeyRecord
  readonly record: KeyRecord
  /** Whether there was anything to change. */
  readonly isChanged: boolean
  readonly event: DecidedChange['event']
  readonly at: Date
  readonly by: string | null
}

const MAX_ATTEMPTS = 20
const PAGE = 500

/**
 * Finds, changes and shows keys. Every verb uses it. Every change is decided on the current record, swapped in,
 * published everywhere, and then reported.
 */
export class KeyChanges {
  constructor(private readonly parts: ChangeParts) {}

  /**
   * Changes all of these keys that are not revoked, and publishes the changes page by page; returns how many. It
   * publishes revoked keys too: the process that revoked them may have crashed before it could. Keys that are `done`
   * are left alone, and each becomes so.
   */
  async changeAll(
    filter: KeyFilter,
    options: ChangeOptions,
    decide: (at: Date) => DecidedChange,
    done = new Set<string>(),
  ): Promise<number> {
    let count = 0
    for await (const page of this.pages(filter)) {
      const records = page.filter(({ id }) => !done.has(id))
      const revoked = records.filter(({ revokedAt }) => revokedAt)
      const committed: CommittedChange[] = []
      try {
        for (const { id, revokedAt } of records) {
          done.add(id)
          if (revokedAt) continue
          const one = await this.commitIfThere(id, options, (record, at) =>
            record.revokedAt ? null : decide(at),
          )
          if (one) committed.push(one)
        }
      } finally {
        // What was committed before a fault is made known all the same.
        await this.parts.publish([...revoked, ...committed.map(({ record }) => record)])
      }
      for (const one of committed) this.announce(one)
      count += committed.filter(({ isChanged }) => isChanged).length
    }
    return count
  }

  /** Null if the key is gone: one that was purged since it was listed had ended already. */
  private async commitIfThere(
    id: string,
    options: ChangeOptions,
    decide: (record: KeyRecord, at: Date, by: string | null) => DecidedChange | null,
  ): Promise<CommittedChange | null> {
    try {
      return await this.commit(id, options, decide)
    } catch (error) {
      if (isLatchkeyError(error) && error.code === 'not_found') return null
      throw error
    }
  }

  /** Commits a change, makes it known, and tells of it. */
  async change(
    id: string,
    options: UpdateOptions,
    decide: (record: KeyRecord, at: Date, by: string | null) => DecidedChange | null,
  ): Promise<ApiKey> {
    if (!this.checkId(id)) throw notFound()
    const committed = await this.commit(id, options, decide)
    await this.parts.publish([committed.record])
    return this.announce(committed)
  }

  private announce({ before, record, event, at, by }: CommittedChange): ApiKey {
    // What this process holds of a quota that was replaced is still shown as it was.
    const views = { before: this.view(before, at), apiKey: this.view(record, at) }
    if (record.quota && record.quota !== before.quota)
      this.parts.quotaLeases.wasSet(record.lineageId, record.quota)
    if (event) this.parts.emit({ ...event, at, keyId: record.id, owner: record.owner, by, ...views })
    return views.apiKey
  }

  /** Reads, decides, compares and swaps, until it succeeds or has lost too many races. */
  private async commit(
    id: string,
    options: UpdateOptions,
    decide: (record: KeyRecord, at: Date, by: string | null) => DecidedChange | null,
  ): Promise<CommittedChange> {
    const by = checkBy(options)
    const expectedVersion = checkExpectedVersion(options)
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const record = await this.parts.store.find({ id })
      if (!record) throw notFound()
      refuseOtherVersion(record, expectedVersion)
      const at = new Date(this.parts.clock.now())
      const decided = decide(record, at, by)
      // Nothing to do; but whoever raised the version may have ended before it made that known.
      if (!decided) return { before: record, record, isChanged: false, event: null, at, by }
      const committed: KeyChange = { ...decided.change, updatedAt: at }
      const outcome = await this.updateSurely(record, committed)
      if (outcome === 'missing') throw notFound()
      if (outcome === 'conflict') continue
      const { event } = decided
      return { before: record, record: afterChange(record, committed), isChanged: true, event, at, by }
    }
    throw conflict('Other callers keep changing the key')
  }

  /**
   * The store's compare-and-swap. If its reply is lost, a second look may show that the change was made; it is then
   * reported like any other.
   */
  async updateSurely(record: KeyRecord, change: KeyChange): ReturnType<KeyStore['update']> {
    try {
      return await this.parts.store.update(record.id, record.version, change)
    } catch (error) {
      if (isTold(error)) throw error
      const now = await this.parts.store.find({ id: record.id }).catch(() => null)
      if (now && isAfter(now, record, change)) return 'updated'
      throw error
    }
  }

  async findExisting(id: string): Promise<KeyRecord> {
    const record = await this.findById(id)
    if (!record) throw notFound()
    return record
  }

  async findById(id: string): Promise<KeyRecord | null> {
    return this.checkId(id) ? this.parts.store.find({ id }) : null
  }

  /** Whether a text that a caller gave may be an id. @throws TypeError */
  private checkId(id: string): boolean {
    if (typeof id !== 'string') fail('id', 'a string', id)
    return mayBeId(id, this.parts.formats)
  }

  /** The public view at a moment, with the units counted that this process holds. */
  view(record: KeyRecord, at = new Date(this.parts.clock.now())): ApiKey {
    const { quota, lineageId } = record
    return toApiKey(
      record,
      keyStatus(record, at),
      quota ? this.parts.quotaLeases.heldOf(lineageId, quota) : 0,
    )
  }

  async *pages(filter: KeyFilter, limit = PAGE): AsyncGenerator<KeyRecord[]> {
    let after: KeyPosition | undefined
    for (;;) {
      const records = await this.parts.store.list(filter, { limit, ...(after && { after }) })
      const last = records.at(-1)
      if (!last) return
      yield records
      if (records.length < limit) return
      after = { createdAt: last.createdAt, id: last.id }
    }
  }
}

/** Whether `now` is `record` after `change`, not after another call's change. */
function isAfter(now: KeyRecord, record: KeyRecord, { quota: _quota, ...change }: KeyChange): boolean {
  if (now.version !== record.version + 1) return false
  return Object.entries(change).every(([member, value]) => isSameData(now[member as keyof KeyRecord], value))
}

/** The record as the store has it after the change. */
export function afterChange(record: KeyRecord, { quota, ...change }: KeyChange): KeyRecord {
  const nextQuota =
    quota === undefined ? record.quota : quota && startQuota(quota, record.quota, change.updatedAt)
  return { ...record, ...change, quota: nextQuota, version: record.version + 1 }
}

export function checkBy(options: ChangeOptions): string | null {
  return options.by === undefined ? null : checkShownText('by', options.by, 255)
}

export function checkExpectedVersion({ expectedVersion }: UpdateOptions): number | null {
  if (expectedVersion === undefined) return null
  return checkInteger('expectedVersion', expectedVersion, 1, Number.MAX_SAFE_INTEGER)
}

export function refuseOtherVersion({ version }: KeyRecord, expectedVersion: number | null): void {
  if (expectedVersion === null || version === expectedVersion) return
  throw otherVersion()
}

/** The same code as a failed `If-Match` over HTTP. */
export function otherVersion(): LatchkeyError {
  return new LatchkeyError('precondition_failed', 'The key no longer has the expected version')
}

export function notFound(): LatchkeyError {
  return new LatchkeyError('not_found')
}

export function conflict(message: string): LatchkeyError {
  return new LatchkeyError('conflict', message)
}
