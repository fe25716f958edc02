import { isLatchkeyError } from '../errors.ts'
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

type Outcome = 'written' | 'refused' | 'failed' | 'late'

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
    const waiting = inBatches(taken)
    let hasFailed = false
    for (let batch = waiting.shift(); batch; batch = waiting.shift()) {
      // Where one batch has failed the next would too, and a silent store would be waited for each time.
      const outcome: Outcome = hasFailed ? 'failed' : await write(batch)
      if (outcome === 'failed') keep(batch)
      else if (outcome === 'refused') waiting.unshift(...apart(batch))
      hasFailed ||= outcome === 'failed' || outcome === 'late'
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

  /** What is left to try of a batch that the store cannot keep: one address would hold up all the others, now and for ever. */
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

function inBatches(uses: ReadonlyMap<string, Use>): ReadonlyMap<string, Use>[] {
  const entries = [...uses]
  return Array.from(
    { length: Math.ceil(entries.length / BATCH) },
    (_, i) => new Map(entries.slice(i * BATCH, (i + 1) * BATCH)),
  )
}
