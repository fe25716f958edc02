import { randomBase62 } from '../../internal/base62.ts'
import type { Clock } from '../clock.ts'
import { tellUsageLag } from '../diagnostics/channels.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { PermissionRequirement } from '../keys/permissions.ts'
import type { KeyCost } from '../limits/cost.ts'
import { costAt } from '../limits/rate-limiter.ts'
import { Turns } from '../turns.ts'
import { type HeldPermissions, noteExercised } from './exercised-grants.ts'
import { COUNTED_SINCE, DAY_MS, HOUR_MS, type UsageBatch, type UsageCount } from './usage-counts.ts'

export interface UsageCounterOptions {
  readonly flushMs: number
  /** How many keys and hours may wait to be written. */
  readonly maxEntries: number
  /** How long counts are kept, in days. */
  readonly keepDays: number
}

/** A store that keeps counts. */
export type CountingStore = Required<Pick<KeyStore, 'addUsage' | 'readUsage' | 'removeUsage'>> &
  Pick<KeyStore, 'agree'>

/** What was counted of one key in one hour, and is not written yet. */
interface KeyHour {
  readonly keyId: string
  readonly hour: number
  admitted: number
  others: Map<string, number> | null
}

const KEYS_PER_BATCH = 500
/** How long a batch is sent again. Stores remember writers for longer. */
const MAX_RETRY_MS = DAY_MS
const MAX_PAUSE_MS = 300_000
/** How often a process removes counts that are too old. */
const TRIM_EVERY_MS = 6 * HOUR_MS

/**
 * Counts, for each key and hour, the calls, units and permissions used. It counts in memory, and writes every `flushMs` at most. A
 * batch that failed is sent again unchanged, and the store adds it once; what is counted meanwhile waits for it.
 */
export class UsageCounter {
  private counts = new Map<string, KeyHour>()
  /** Those of hours that have ended. */
  private ended: KeyHour[] = []
  private readonly writer = randomBase62(22)
  private number = 0
  private waiting: { readonly batch: UsageBatch; readonly madeAt: number; readonly since: number }[] = []
  /** When the oldest call came that is in no batch yet. */
  private since = Infinity
  private cancelTimer: (() => void) | null = null
  private readonly turns = new Turns(() => this.writeAll())
  private failures = 0
  private dropped = 0
  private trimAt: number
  private isSinceKnown = false
  private isClosed = false

  constructor(
    private readonly store: CountingStore,
    private readonly clock: Clock,
    private readonly options: UsageCounterOptions,
    private readonly guard: DependencyRunner,
    private readonly emit: (event: ApiKeyEvent) => void,
  ) {
    // Processes that start together do not all remove at once.
    this.trimAt = clock.now() + Math.random() * TRIM_EVERY_MS
  }

  /** Counts an admitted call: what it cost, and the permissions it needed. A call that costs 0 is no call, but uses permissions. */
  admitted(
    keyId: string,
    cost: KeyCost | null,
    hasQuota: boolean,
    held: HeldPermissions,
    required: PermissionRequirement | undefined,
    at: number,
  ): void {
    if (!cost && !required) return
    const key = this.at(keyId, at)
    if (!key) return
    if (cost) {
      key.admitted += 1
      for (let i = 0; i < cost.limits.length; i += 1) {
        const units = costAt(cost, i)
        if (units > 0) add(key, `units:${cost.limits[i]?.name}`, units)
      }
      if (hasQuota && cost.quota > 0) add(key, 'units:quota', cost.quota)
    }
    if (required) noteExercised(held, required, (counter) => add(key, counter, 1))
  }

  refused(keyId: string, reason: string, at: number): void {
    const key = this.at(keyId, at)
    if (key) add(key, `refused:${reason}`, 1)
  }

  /** Counts the permissions that a guard required later in a request. */
  exercised(keyId: string, held: HeldPermissions, required: PermissionRequirement, at: number): void {
    this.admitted(keyId, null, false, held, required, at)
  }

  /** Counts units that a call was charged later, or got back (negative). */
  settled(keyId: string, limit: string, units: number, at: number): void {
    if (units === 0) return
    const key = this.at(keyId, at)
    if (key) add(key, `units:${limit}`, units)
  }

  /** The counts of a key in the current hour; null if too many wait. */
  private at(keyId: string, now: number): KeyHour | null {
    const hour = Math.floor(now / HOUR_MS)
    const known = this.counts.get(keyId)
    // A clock that was set back counts on in the later hour.
    if (known && known.hour >= hour) return known
    if (this.counts.size + this.ended.length >= this.options.maxEntries) {
      this.dropped += 1
      return null
    }
    if (known) this.ended.push(known)
    const started: KeyHour = { keyId, hour, admitted: 0, others: null }
    this.counts.set(keyId, started)
    if (now < this.since) this.since = now
    this.startTimer()
    return started
  }

  private startTimer(): void {
    if (this.isClosed) return
    const pauseMs = Math.min(
      this.options.flushMs * 2 ** this.failures,
      Math.max(MAX_PAUSE_MS, this.options.flushMs),
    )
    this.cancelTimer ??= this.clock.setTimer(() => this.onTimer(), pauseMs, { background: true })
  }

  private onTimer(): void {
    this.cancelTimer = null
    void this.flush()
  }

  /** Writes what was counted before the call; false if some of it could not be written, and waits. */
  flush(): Promise<boolean> {
    return this.turns.take()
  }

  private async writeAll(): Promise<boolean> {
    this.cancelTimer?.()
    this.cancelTimer = null
    const since = Math.min(this.waiting[0]?.since ?? Infinity, this.since)
    const isWritten = (await this.writeWaiting()) && this.prepare() && (await this.writeWaiting())
    tellUsageLag('counts', isWritten, since, this.clock.now())
    this.failures = isWritten ? 0 : this.failures + 1
    this.reportDropped()
    if (isWritten) await this.tidy()
    if (this.waiting.length + this.counts.size + this.ended.length > 0) this.startTimer()
    return isWritten
  }

  /** Makes batches of what was counted. Always true: it is a step of writing. */
  private prepare(): true {
    const keys = [...this.ended, ...this.counts.values()]
    this.ended = []
    this.counts = new Map()
    const [madeAt, since] = [this.clock.now(), this.since]
    this.since = Infinity
    const {
      writer,
      options: { keepDays },
    } = this
    for (let from = 0; from < keys.length; from += KEYS_PER_BATCH) {
      const counts = keys.slice(from, from + KEYS_PER_BATCH).flatMap(countsOf)
      if (counts.length === 0) continue
      this.number += 1
      this.waiting.push({ batch: { writer, number: this.number, keepDays, counts }, madeAt, since })
    }
    return true
  }

  private async writeWaiting(): Promise<boolean> {
    for (let next = this.waiting[0]; next; next = this.waiting[0]) {
      const { batch, madeAt } = next
      if (this.clock.now() - madeAt > MAX_RETRY_MS) this.dropped += batch.counts.length
      else if (!(await this.send(batch))) return false
      this.waiting.shift()
    }
    return true
  }

  /** False if it failed, which is reported. */
  private async send(batch: UsageBatch): Promise<boolean> {
    try {
      await this.guard.run('usage', () => this.store.addUsage(batch), [], 'addUsage')
      return true
    } catch {
      return false
    }
  }

  /** Notes since when calls are counted, and now and then removes what is too old. */
  private async tidy(): Promise<void> {
    const now = this.clock.now()
    if (!this.isSinceKnown && this.number > 0) this.isSinceKnown = await this.noteSince(now)
    if (now < this.trimAt) return
    this.trimAt = now + TRIM_EVERY_MS
    // Nobody waits for it: a large table takes longer than a flush may.
    void this.trim((Math.floor(now / DAY_MS) - this.options.keepDays) * 24)
  }

  /** False if the store could not take note. A fault is reported where it happens. */
  private async noteSince(now: number): Promise<boolean> {
    const value = new Date(Math.ceil(now / HOUR_MS) * HOUR_MS).toISOString()
    try {
      await this.store.agree?.(COUNTED_SINCE, { value, replace: false })
      return true
    } catch {
      return false
    }
  }

  /** Removes counts from before an hour, and notes that they are known no longer. If that fails, the next round tries again. */
  private async trim(beforeHour: number): Promise<void> {
    try {
      await this.store.removeUsage({ beforeHour })
      const value = new Date(beforeHour * HOUR_MS).toISOString()
      const noted = (await this.store.agree?.(COUNTED_SINCE, null)) ?? null
      if (noted === null || noted >= value) return
      await this.store.agree?.(COUNTED_SINCE, { value, replace: false, expected: noted })
    } catch {
      // A fault is reported where it happens.
    }
  }

  private reportDropped(): void {
    if (this.dropped === 0) return
    const error = new Error(`${this.dropped} counts of use were dropped: too many waited, or for too long`)
    this.emit({ type: 'fault', at: new Date(this.clock.now()), operation: 'usage', error })
    this.dropped = 0
  }

  /** Writes everything, and stops the timer. */
  async close(): Promise<void> {
    this.isClosed = true
    await this.flush()
    this.cancelTimer?.()
    this.cancelTimer = null
  }
}

function add(key: KeyHour, counter: string, amount: number): void {
  key.others ??= new Map()
  key.others.set(counter, (key.others.get(counter) ?? 0) + amount)
}

function countsOf({ keyId, hour, admitted, others }: KeyHour): UsageCount[] {
  const counts = [...(others ?? [])].map(([counter, amount]) => ({ keyId, hour, counter, amount }))
  if (admitted > 0) counts.push({ keyId, hour, counter: 'admitted', amount: admitted })
  return counts.filter(({ amount }) => amount !== 0 && Number.isSafeInteger(amount))
}
