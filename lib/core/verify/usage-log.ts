import { isLatchkeyError } from '../../errors.ts'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import { readAddress } from '../keys/client-address.ts'
import type { KeyStore, UsageDelta } from '../keys/key-store.ts'
import type { CachedKey } from './record-cache.ts'

const BATCH = 500
/** A bit less than the whole, so that for a key in steady use only its uses trigger writes, not the timer as well. */
const SHARE_BEFORE_SOON = 0.9

export interface UsageLog {
  /** Notes a use, and counts it unless it was only a look (`count` 0). Writes it soon if it keeps the key from expiring idle. */
  record(key: UsedKey, count: 0 | 1, at: number, ip: string | undefined): void
  /** The last use that this process saw and has not written yet. */
  lastUse(keyId: string): number | undefined
  /** Writes what was gathered before the call; false if some of it could not be written and waits for the next time. */
  flush(): Promise<boolean>
  /** Flushes and stops the timer. */
  close(): Promise<void>
}

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
export function createUsageLog(
  store: KeyStore,
  clock: Clock,
  options: UsageLogOptions,
  guard: DependencyRunner,
  emit: (event: ApiKeyEvent) => void,
): UsageLog {
  const soonAfterMs = options.flushMs * SHARE_BEFORE_SOON
  let uses = new Map<string, Use>()
  let writing: Map<string, Use> | null = null
  let late: LateBatch | null = null
  let cancelTimer: (() => void) | null = null
  let running: Promise<boolean> | null = null
  let following: Promise<boolean> | null = null
  let dropped = 0
  let isFailing = false
  let isFlushingSoon = false
  let isClosed = false

  function record(key: UsedKey, count: 0 | 1, at: number, ip: string | undefined): void {
    const isKept = add(key.apiKey.id, count, at, options.addresses ? (ip ?? null) : null)
    startTimer()
    // A store that fails is not asked again with every use.
    if (!isKept || isFailing || !isDue(key, at)) return
    key.writtenUseAtMs = at
    flushSoon()
  }

  function isDue({ apiKey, writtenUseAtMs }: UsedKey, at: number): boolean {
    if (writtenUseAtMs === null) return true
    return apiKey.idleExpiryMs !== null && at - writtenUseAtMs >= soonAfterMs
  }

  /** In this turn of the event loop: a process may have no other. Uses of the same moment go together. */
  function flushSoon(): void {
    if (isFlushingSoon) return
    isFlushingSoon = true
    queueMicrotask(() => {
      isFlushingSoon = false
      void flush()
    })
  }

  function startTimer(): void {
    cancelTimer ??= clock.setTimer(onTimer, options.flushMs, { background: true })
  }

  /** False if it was dropped, because too many keys are waiting. */
  function add(keyId: string, count: number, at: number, ip: string | null): boolean {
    const use = uses.get(keyId)
    if (use) {
      use.count += count
      if (at < use.lastUsedAt) return true
      use.lastUsedAt = at
      use.lastUsedIp = ip ?? use.lastUsedIp
      return true
    }
    if (uses.size >= options.maxEntries) {
      dropped += count
      return false
    }
    uses.set(keyId, { count, lastUsedAt: at, lastUsedIp: ip })
    return true
  }

  function lastUse(keyId: string): number | undefined {
    return (uses.get(keyId) ?? writing?.get(keyId) ?? late?.uses.get(keyId))?.lastUsedAt
  }

  function onTimer(): void {
    cancelTimer = null
    void flush()
  }

  function stopTimer(): void {
    cancelTimer?.()
    cancelTimer = null
  }

  /** A write under way has taken what it writes: what was gathered since goes with the next, once for all who ask. */
  function flush(): Promise<boolean> {
    if (!running) return start()
    following ??= running.then(() => {
      following = null
      return start()
    })
    return following
  }

  function start(): Promise<boolean> {
    running = writeAll().finally(() => {
      running = null
    })
    return running
  }

  async function writeAll(): Promise<boolean> {
    reportDropped()
    isFailing = !((late === null || (await isSettled(late))) && (await writeBatches()))
    if (uses.size > 0 && !isClosed) startTimer()
    return !isFailing
  }

  async function writeBatches(): Promise<boolean> {
    const taken = uses
    uses = new Map()
    stopTimer()
    writing = taken
    const waiting = inBatches(taken)
    let isWritten = true
    for (let batch = waiting.shift(); batch; batch = waiting.shift()) {
      // Where one batch has failed the next would too, and a silent store would be waited for each time.
      const outcome: Outcome = isWritten ? await write(batch) : 'failed'
      if (outcome === 'failed') keep(batch)
      else if (outcome === 'refused') waiting.unshift(...apart(batch))
      isWritten &&= outcome === 'written' || outcome === 'refused'
    }
    writing = null
    return isWritten
  }

  async function isSettled({ settled }: LateBatch): Promise<boolean> {
    try {
      await guard.run('usage', () => settled)
      return true
    } catch {
      return false
    }
  }

  /** Splits a batch that the store cannot keep: otherwise one address would hold up all the others for ever. */
  function apart(batch: ReadonlyMap<string, Use>): ReadonlyMap<string, Use>[] {
    const entries = [...batch]
    if (entries.length > 1) {
      const half = Math.ceil(entries.length / 2)
      return [new Map(entries.slice(0, half)), new Map(entries.slice(half))]
    }
    const withAddress = entries.filter(([, { lastUsedIp }]) => lastUsedIp !== null)
    if (withAddress.length > 0) {
      return withAddress.map(([id, use]) => new Map([[id, { ...use, lastUsedIp: null }]]))
    }
    guard.toError('usage', new Error('the store cannot keep the uses of a key'))
    return []
  }

  async function write(batch: ReadonlyMap<string, Use>): Promise<Outcome> {
    const deltas: UsageDelta[] = [...batch].map(([id, use]) => ({
      ...use,
      id,
      lastUsedAt: new Date(use.lastUsedAt),
      lastUsedIp: readAddress(use.lastUsedIp)?.text ?? null,
    }))
    const work = (async () => store.recordUsage?.(deltas))()
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
      await guard.run('usage', () => work, ['unsupported'])
    } catch {
      // The fault is reported where it happened.
    }
    if (outcome === 'late') late = { uses: batch, settled: settled.then(() => afterLate(batch, outcome)) }
    return outcome
  }

  function afterLate(batch: ReadonlyMap<string, Use>, outcome: Outcome): void {
    late = null
    if (outcome === 'written') return
    keep(batch)
    if (!isClosed) startTimer()
  }

  /** Counts add, so what was not written can go with a later batch. */
  function keep(batch: ReadonlyMap<string, Use>): void {
    for (const [id, { count, lastUsedAt, lastUsedIp }] of batch) add(id, count, lastUsedAt, lastUsedIp)
  }

  function reportDropped(): void {
    if (dropped === 0) return
    const error = new Error(
      `${dropped} uses were not counted: more than ${options.maxEntries} keys were waiting`,
    )
    emit({ type: 'fault', at: new Date(clock.now()), operation: 'usage', error })
    dropped = 0
  }

  async function close(): Promise<void> {
    isClosed = true
    await flush()
    stopTimer()
  }

  return { record, lastUse, flush, close }
}

function inBatches(uses: ReadonlyMap<string, Use>): ReadonlyMap<string, Use>[] {
  const entries = [...uses]
  return Array.from(
    { length: Math.ceil(entries.length / BATCH) },
    (_, i) => new Map(entries.slice(i * BATCH, (i + 1) * BATCH)),
  )
}
