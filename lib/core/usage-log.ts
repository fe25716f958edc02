import type { Clock } from './clock.ts'
import type { ApiKeyEvent } from './events.ts'
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

/**
 * Gathers uses in memory and writes them in batches, every `flushMs` at most. What a failed write held is kept
 * for the next one; at most `maxKeys` keys are remembered, and beyond that new ones are dropped and reported.
 */
export function createUsageLog(
  store: KeyStore,
  clock: Clock,
  options: { flushMs: number; maxKeys: number },
  emit: (event: ApiKeyEvent) => void,
): UsageLog {
  let uses = new Map<string, Use>()
  let writing: Map<string, Use> | null = null
  let cancelTimer: (() => void) | null = null
  let running: Promise<void> | null = null
  let dropped = 0

  function record(keyId: string, count: 0 | 1, at: number, ip: string | undefined): void {
    add(keyId, count, at, ip ?? null)
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
    return (uses.get(keyId) ?? writing?.get(keyId))?.lastUsedAt
  }

  function onTimer(): void {
    cancelTimer = null
    void flush().then(() => {
      if (uses.size > 0) cancelTimer ??= clock.setTimer(onTimer, options.flushMs, { background: true })
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
    const taken = uses
    uses = new Map()
    writing = taken
    const deltas = [...taken].map(([id, use]) => ({ id, ...use, lastUsedAt: new Date(use.lastUsedAt) }))
    let hasFailed = false
    for (let from = 0; from < deltas.length; from += BATCH) {
      const batch: UsageDelta[] = deltas.slice(from, from + BATCH)
      // Where one batch has failed the next would too, and a silent store would be waited for each time.
      hasFailed ||= !(await isWritten(batch))
      if (hasFailed) keep(batch)
    }
    writing = null
  }

  async function isWritten(batch: readonly UsageDelta[]): Promise<boolean> {
    try {
      await store.recordUsage?.(batch)
      return true
    } catch {
      // The fault is reported where it happened.
      return false
    }
  }

  /** Counts add, so what was not written can go with a later batch. */
  function keep(batch: readonly UsageDelta[]): void {
    for (const { id, count, lastUsedAt, lastUsedIp } of batch)
      add(id, count, lastUsedAt.getTime(), lastUsedIp)
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
    await running
    await flush()
    cancelTimer?.()
    cancelTimer = null
  }

  return { record, lastUse, flush, close }
}
