import { readAddress } from './client-address.ts'
import type { Clock } from './clock.ts'
import type { ApiKeyEvent } from './events.ts'
import type { FaultGuard } from './faults.ts'
import type { KeyStore, UsageDelta } from './key-store.ts'

const BATCH = 500

export interface UsageLog {
  /** Notes a use, and counts it unless it was only a look (`count` 0). */
  record(keyId: string, count: 0 | 1, at: number, ip: string | undefined): void
  /** The last use that this process saw and has not written yet. */
  lastUse(keyId: string): number | undefined
  /** Writes what was gathered; resolves when it is written, or has failed and is kept for the next time. */
  flush(): Promise<void>
  /** Flushes and stops the timer. */
  close(): Promise<void>
}

interface Use {
  count: number
  lastUsedAt: number
  lastUsedIp: string | null
}

type Outcome = 'written' | 'failed' | 'late'

/** A batch that the store was silent about for too long: it may still be written. */
interface LateBatch {
  readonly uses: ReadonlyMap<string, Use>
  /** Resolves when the store has answered after all. */
  readonly settled: Promise<void>
}

/**
 * Gathers uses in memory and writes them in batches, every `flushMs` at most. What a failed write held is kept
 * for the next one; at most `maxKeys` keys are remembered, and beyond that new ones are dropped and reported.
 * Nothing is written while a write is late: a database that wakes up does all that it was told, and would count twice.
 */
export function createUsageLog(
  store: KeyStore,
  clock: Clock,
  options: { flushMs: number; maxKeys: number },
  guard: FaultGuard,
  emit: (event: ApiKeyEvent) => void,
): UsageLog {
  let uses = new Map<string, Use>()
  let writing: Map<string, Use> | null = null
  let late: LateBatch | null = null
  let cancelTimer: (() => void) | null = null
  let running: Promise<void> | null = null
  let dropped = 0
  let isClosed = false

  function record(keyId: string, count: 0 | 1, at: number, ip: string | undefined): void {
    add(keyId, count, at, ip ?? null)
    startTimer()
  }

  function startTimer(): void {
    cancelTimer ??= clock.setTimer(onTimer, options.flushMs, { background: true })
  }

  function add(keyId: string, count: number, at: number, ip: string | null): void {
    const use = uses.get(keyId)
    if (!use) {
      if (uses.size >= options.maxKeys) dropped += count
      else uses.set(keyId, { count, lastUsedAt: at, lastUsedIp: ip })
      return
    }
    use.count += count
    if (at < use.lastUsedAt) return
    use.lastUsedAt = at
    use.lastUsedIp = ip ?? use.lastUsedIp
  }

  function lastUse(keyId: string): number | undefined {
    return (uses.get(keyId) ?? writing?.get(keyId) ?? late?.uses.get(keyId))?.lastUsedAt
  }

  function onTimer(): void {
    cancelTimer = null
    void flush().then(() => {
      if (uses.size > 0) startTimer()
    })
  }

  function flush(): Promise<void> {
    running ??= writeAll().finally(() => {
      running = null
    })
    return running
  }

  async function writeAll(): Promise<void> {
    reportDropped()
    if (late && !(await isSettled(late))) return
    const taken = uses
    uses = new Map()
    writing = taken
    const entries = [...taken]
    let hasFailed = false
    for (let from = 0; from < entries.length; from += BATCH) {
      const batch = new Map(entries.slice(from, from + BATCH))
      // Where one batch has failed the next would too, and a silent store would be waited for each time.
      const outcome: Outcome = hasFailed ? 'failed' : await write(batch)
      if (outcome === 'failed') keep(batch)
      hasFailed ||= outcome !== 'written'
    }
    writing = null
  }

  async function isSettled({ settled }: LateBatch): Promise<boolean> {
    try {
      await guard.run('usage', () => settled)
      return true
    } catch {
      return false
    }
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
      () => {
        outcome = 'failed'
      },
    )
    try {
      await guard.run('usage', () => work)
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
      `${dropped} uses were not counted: more than ${options.maxKeys} keys were waiting`,
    )
    emit({ type: 'fault', at: new Date(clock.now()), operation: 'usage', error })
    dropped = 0
  }

  async function close(): Promise<void> {
    isClosed = true
    await running
    await flush()
    cancelTimer?.()
    cancelTimer = null
  }

  return { record, lastUse, flush, close }
}
