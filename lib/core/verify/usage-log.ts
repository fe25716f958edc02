import { isLatchkeyError } from '../../errors.ts'
import type { Clock } from '../clock.ts'
import { tellUsageLag } from '../diagnostics/channels.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import { readAddress } from '../keys/client-address.ts'
import type { KeyStore, UsageDelta } from '../keys/key-store.ts'
import { Turns } from '../turns.ts'
import type { CachedKey } from './record-cache.ts'

const BATCH = 500
/** A bit less than the whole, so that for a key in steady use only its uses trigger writes, not the timer as well. */
const SHARE_BEFORE_SOON = 0.9

export type UsedKey = Pick<CachedKey, 'apiKey' | 'writtenUseAtMs'>

export interface UsageLogOptions {
  readonly flushMs: number
  readonly maxEntries: number
  /** Whether to store the addresses of clients. */
  readonly addresses: boolean
}

interface Use {
  count: number
  lastUsedAt: number
  lastUsedIp: string | null
}

type Outcome = 'written' | 'refused' | 'failed' | 'late'

/** A batch whose write timed out: the store may still write it. */
interface LateBatch {
  readonly uses: ReadonlyMap<string, Use>
  /** Resolves when the store has answered after all. */
  readonly settled: Promise<void>
}

/**
 * Gathers uses in memory and writes them in batches, every `flushMs` at most. Uses of a failed write wait for the next
 * one. At most `maxEntries` keys are remembered; uses of further keys are dropped and reported. Nothing is written while
 * an earlier write is late: a database that wakes up does everything it was sent, and would count twice.
 *
 * A process may be frozen or killed after it has answered, and never see its timer. So the first use of a key is
 * written at once, and for a key with `idleExpiryMs` every use that is most of `flushMs` later than the last written
 * one. The uses that a lost process takes with it are then at most that much later than the written ones, and idle
 * expiry allows for that.
 */
export class UsageLog {
  private readonly soonAfterMs: number
  private uses = new Map<string, Use>()
  private writing: Map<string, Use> | null = null
  private late: LateBatch | null = null
  private cancelTimer: (() => void) | null = null
  private readonly turns = new Turns(() => this.writeAll())
  /** When the oldest use came that is gathered and not written. */
  private waitingSince = Infinity
  private dropped = 0
  private isFailing = false
  private isFlushingSoon = false
  private isClosed = false

  constructor(
    private readonly store: KeyStore,
    private readonly clock: Clock,
    private readonly options: UsageLogOptions,
    private readonly guard: DependencyRunner,
    private readonly emit: (event: ApiKeyEvent) => void,
  ) {
    this.soonAfterMs = options.flushMs * SHARE_BEFORE_SOON
  }

  /** Notes a use, and counts it unless it was only a look (`count` 0). Writes it soon if it keeps the key from expiring idle. */
  record(key: UsedKey, count: 0 | 1, at: number, ip: string | undefined): void {
    const isKept = this.add(key.apiKey.id, count, at, this.options.addresses ? (ip ?? null) : null)
    if (at < this.waitingSince) this.waitingSince = at
    this.startTimer()
    // A store that fails is not asked again with every use.
    if (!isKept || this.isFailing || !this.isDue(key, at)) return
    key.writtenUseAtMs = at
    this.flushSoon()
  }

  private isDue({ apiKey, writtenUseAtMs }: UsedKey, at: number): boolean {
    if (writtenUseAtMs === null) return true
    return apiKey.idleExpiryMs !== null && at - writtenUseAtMs >= this.soonAfterMs
  }

  /** In this turn of the event loop: a process may have no other. Uses of the same moment go together. */
  private flushSoon(): void {
    if (this.isFlushingSoon) return
    this.isFlushingSoon = true
    // Not queueMicrotask: its first use in a process loads a module, which takes milliseconds.
    void Promise.resolve().then(() => {
      this.isFlushingSoon = false
      return this.flush()
    })
  }

  private startTimer(): void {
    this.cancelTimer ??= this.clock.setTimer(() => this.onTimer(), this.options.flushMs, { background: true })
  }

  /** False if it was dropped, because too many keys are waiting. */
  private add(keyId: string, count: number, at: number, ip: string | null): boolean {
    const use = this.uses.get(keyId)
    if (use) {
      use.count += count
      if (at < use.lastUsedAt) return true
      use.lastUsedAt = at
      use.lastUsedIp = ip ?? use.lastUsedIp
      return true
    }
    if (this.uses.size >= this.options.maxEntries) {
      this.dropped += count
      return false
    }
    this.uses.set(keyId, { count, lastUsedAt: at, lastUsedIp: ip })
    return true
  }

  /** The last use that this process saw and has not written yet. */
  lastUse(keyId: string): number | undefined {
    return (this.uses.get(keyId) ?? this.writing?.get(keyId) ?? this.late?.uses.get(keyId))?.lastUsedAt
  }

  private onTimer(): void {
    this.cancelTimer = null
    void this.flush()
  }

  private stopTimer(): void {
    this.cancelTimer?.()
    this.cancelTimer = null
  }

  /** Writes what was gathered before the call; false if some of it could not be written and waits for the next time. */
  flush(): Promise<boolean> {
    return this.turns.take()
  }

  private async writeAll(): Promise<boolean> {
    this.reportDropped()
    this.isFailing = !(
      (this.late === null || (await this.isSettled(this.late))) &&
      (await this.writeBatches())
    )
    if (this.uses.size > 0 && !this.isClosed) this.startTimer()
    return !this.isFailing
  }

  private async writeBatches(): Promise<boolean> {
    const taken = this.uses
    const since = this.waitingSince
    this.uses = new Map()
    this.waitingSince = Infinity
    this.stopTimer()
    this.writing = taken
    const waiting = inBatches(taken)
    let isWritten = true
    for (let batch = waiting.shift(); batch; batch = waiting.shift()) {
      // Where one batch has failed the next would too, and a silent store would be waited for each time.
      const outcome: Outcome = isWritten ? await this.write(batch) : 'failed'
      if (outcome === 'failed') this.keep(batch)
      else if (outcome === 'refused') waiting.unshift(...this.apart(batch))
      isWritten &&= outcome === 'written' || outcome === 'refused'
    }
    this.writing = null
    // What was kept has waited since then.
    if (!isWritten) this.waitingSince = Math.min(this.waitingSince, since)
    tellUsageLag('last_use', isWritten, since, this.clock.now())
    return isWritten
  }

  private async isSettled({ settled }: LateBatch): Promise<boolean> {
    try {
      await this.guard.run('usage', () => settled, [], 'recordUsage')
      return true
    } catch {
      return false
    }
  }

  /** Splits a batch that the store cannot keep: otherwise one address would hold up all the others for ever. */
  private apart(batch: ReadonlyMap<string, Use>): ReadonlyMap<string, Use>[] {
    const entries = [...batch]
    if (entries.length > 1) {
      const half = Math.ceil(entries.length / 2)
      return [new Map(entries.slice(0, half)), new Map(entries.slice(half))]
    }
    const withAddress = entries.filter(([, { lastUsedIp }]) => lastUsedIp !== null)
    if (withAddress.length > 0) {
      return withAddress.map(([id, use]) => new Map([[id, { ...use, lastUsedIp: null }]]))
    }
    this.guard.toError('usage', new Error('the store cannot keep the uses of a key'))
    return []
  }

  private async write(batch: ReadonlyMap<string, Use>): Promise<Outcome> {
    const deltas: UsageDelta[] = [...batch].map(([id, use]) => ({
      ...use,
      id,
      lastUsedAt: new Date(use.lastUsedAt),
      lastUsedIp: readAddress(use.lastUsedIp)?.text ?? null,
    }))
    const work = (async () => this.store.recordUsage?.(deltas))()
    let outcome: Outcome = 'late'
    const settled = work.then(
      () => {
        outcome = 'written'
      },
      (error: unknown) => {
        outcome = isLatchkeyError(error) && error.code === 'unsupported' ? 'refused' : 'failed'
      },
    )
    try {
      await this.guard.run('usage', () => work, ['unsupported'], 'recordUsage')
    } catch {
      // The fault is reported where it happened.
    }
    if (outcome === 'late')
      this.late = { uses: batch, settled: settled.then(() => this.afterLate(batch, outcome)) }
    return outcome
  }

  private afterLate(batch: ReadonlyMap<string, Use>, outcome: Outcome): void {
    this.late = null
    if (outcome === 'written') return
    this.keep(batch)
    if (!this.isClosed) this.startTimer()
  }

  /** Counts add, so what was not written can go with a later batch. */
  private keep(batch: ReadonlyMap<string, Use>): void {
    for (const [id, { count, lastUsedAt, lastUsedIp }] of batch) this.add(id, count, lastUsedAt, lastUsedIp)
  }

  private reportDropped(): void {
    if (this.dropped === 0) return
    const error = new Error(
      `${this.dropped} uses were not counted: more than ${this.options.maxEntries} keys were waiting`,
    )
    this.emit({ type: 'fault', at: new Date(this.clock.now()), operation: 'usage', error })
    this.dropped = 0
  }

  /** Flushes and stops the timer. */
  async close(): Promise<void> {
    this.isClosed = true
    await this.flush()
    this.stopTimer()
  }
}

function inBatches(uses: ReadonlyMap<string, Use>): ReadonlyMap<string, Use>[] {
  const entries = [...uses]
  return Array.from(
    { length: Math.ceil(entries.length / BATCH) },
    (_, i) => new Map(entries.slice(i * BATCH, (i + 1) * BATCH)),
  )
}
