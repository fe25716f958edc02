import { comparePositions, type KeyStore, type UsageDelta } from '../../core/keys/key-store.ts'
import type { KeyRecord } from '../../core/keys/record.ts'
import { isLatchkeyError } from '../../errors.ts'
import { compareKeys, type Outcome, renewKey } from './renew-key.ts'
import { TargetWalk } from './target-walk.ts'

/** What became of the copied keys. */
export interface CopyCounts extends Record<Outcome, number> {
  /** Keys that were not there yet. */
  copied: number
  /** Keys that only the target has, among those that a complete source has passed. */
  extra: number
}

export interface CopyOptions {
  /**
   * Whether all keys of a store are copied, in order. Then older keys are brought up to date instead of being left alone, and keys that
   * only the target has are noticed.
   */
  readonly isWholeStore: boolean
  /** Hears of keys that could not be copied as they are, and of those that only the target has. */
  onProblem(id: string, what: Exclude<Outcome, 'same' | 'renewed'> | 'extra'): void
  onProgress(done: number): void
}

/**
 * Copies keys into a store, page by page. It reads along what is there, so that it can be repeated at any time: keys that are there
 * are passed over. Pages in order of creation are quickest, but any order does.
 */
export class KeyCopy {
  readonly counts: CopyCounts = { copied: 0, same: 0, renewed: 0, older: 0, newer: 0, different: 0, extra: 0 }
  private readonly walk: TargetWalk
  private usage: UsageDelta[] = []
  private done = 0

  constructor(
    private readonly target: KeyStore,
    private readonly options: CopyOptions,
  ) {
    this.walk = new TargetWalk(target)
  }

  /** Copies a page, all of its new keys in one step. */
  async add(page: readonly KeyRecord[]): Promise<void> {
    if (page.length === 0) return
    const stored = await this.readAlong(page)
    const fresh: KeyRecord[] = []
    for (const record of page) {
      const twin = stored.get(record.id)
      stored.delete(record.id)
      if (twin) this.note(record.id, await this.meet(twin, record))
      else fresh.push(record)
    }
    if (this.options.isWholeStore) for (const id of stored.keys()) this.note(id, 'extra')
    await this.insert(fresh)
    await this.writeUsage()
    this.done += page.length
    this.options.onProgress(this.done)
  }

  /** Looks at what the target has beyond the last page. */
  async finish(): Promise<void> {
    for (const { id } of await this.walk.upTo()) this.note(id, 'extra')
  }

  private async readAlong(page: readonly KeyRecord[]): Promise<Map<string, KeyRecord>> {
    const inOrder = [...page].sort(comparePositions)
    if (!this.options.isWholeStore) this.walk.from(inOrder[0] as KeyRecord)
    return new Map((await this.walk.upTo(inOrder.at(-1))).map((record) => [record.id, record]))
  }

  private meet(stored: KeyRecord, record: KeyRecord): Promise<Outcome> | Outcome {
    return this.options.isWholeStore
      ? renewKey(this.target, stored, record, this.usage)
      : compareKeys(stored, record)
  }

  private async insert(records: readonly KeyRecord[]): Promise<void> {
    if (records.length === 0) return
    try {
      await this.target.insert(records)
      this.counts.copied += records.length
    } catch (error) {
      if (!isLatchkeyError(error) || error.code !== 'duplicate_key') throw error
      // Somebody else has stored one of them meanwhile, or another key has its lookup.
      for (const record of records) await this.insertOne(record)
    }
  }

  private async insertOne(record: KeyRecord): Promise<void> {
    const twin =
      (await this.target.find({ id: record.id })) ?? (await this.target.find({ lookups: [record.lookup] }))
    if (twin) {
      this.note(record.id, await this.meet(twin, record))
      return
    }
    await this.target.insert([record])
    this.counts.copied += 1
  }

  private async writeUsage(): Promise<void> {
    const usage = this.usage
    this.usage = []
    if (usage.length > 0) await this.target.recordUsage?.(usage)
  }

  private note(id: string, what: Outcome | 'extra'): void {
    this.counts[what] += 1
    if (what !== 'same' && what !== 'renewed') this.options.onProblem(id, what)
  }
}
