import { type ApiKey, createApiKeys, memoryRateLimiter } from 'latchkey'
import { expect } from 'vitest'
import { openStore } from './open-store.ts'
import { type Program, startProgram } from './program.ts'
import type { Random } from './random.ts'
import type { DatabaseServer } from './server-process.ts'
import type { JournalLine, StoreWorkerSettings } from './store-worker.ts'

export interface CrashOptions {
  /** Where the keys are, as `openStore` takes it. */
  readonly url: string
  readonly rounds: number
  /** At most so many changes of each process pass before a crash. */
  readonly changes: number
  readonly random: Random
}

const PROCESSES = 2
const LANES = 4

/** Kills processes in the middle of their work, again and again, and answers what they had printed. */
export async function crashProcesses(options: CrashOptions): Promise<JournalLine[][]> {
  const journals: JournalLine[][] = []
  for (let round = 0; round < options.rounds; round += 1) {
    const workers = startWorkers(options)
    try {
      await changesOfAll(workers, options)
    } finally {
      await Promise.all(workers.map((worker) => worker.kill()))
    }
    journals.push(...workers.map((worker) => worker.journal()))
  }
  return journals
}

/** Kills the server in the middle of their work, again and again, and answers what the processes have printed. */
export async function crashServer(
  server: Pick<DatabaseServer, 'kill' | 'restart'>,
  options: CrashOptions,
): Promise<JournalLine[][]> {
  const workers = startWorkers(options)
  try {
    for (let round = 0; round < options.rounds; round += 1) {
      await changesOfAll(workers, options)
      await server.kill()
      await Promise.all(workers.map((worker) => worker.failed()))
      await server.restart()
    }
    // They go on by themselves.
    await changesOfAll(workers, options)
  } finally {
    await Promise.all(workers.map((worker) => worker.kill()))
  }
  return workers.map((worker) => worker.journal())
}

function startWorkers({ url, random }: CrashOptions): JournalWorker[] {
  return Array.from({ length: PROCESSES }, () =>
    startWorker({ url, seed: random.below(1_000_000), lanes: LANES }),
  )
}

async function changesOfAll(
  workers: readonly JournalWorker[],
  { changes, random }: CrashOptions,
): Promise<void> {
  await Promise.all(workers.map((worker) => worker.changed(1 + random.below(changes))))
}

/** A process that issues, rotates and revokes keys until it is killed. */
interface JournalWorker {
  /** Resolves once so many more changes have resolved. */
  changed(count: number): Promise<void>
  /** Resolves once one more has failed. */
  failed(): Promise<void>
  /** What it has printed. */
  journal(): JournalLine[]
  kill(): Promise<void>
}

function startWorker(settings: StoreWorkerSettings): JournalWorker {
  const program = startProgram(['test/support/store-worker.ts', JSON.stringify(settings)])
  return {
    changed: (count) => waitForMore(program, '{"did":', count),
    failed: () => waitForMore(program, '{"failed":', 1),
    journal: () => readLines(program.stdout),
    async kill() {
      program.signal('SIGKILL')
      await program.ended()
    },
  }
}

async function waitForMore(program: Program, beginning: string, count: number): Promise<void> {
  const countIn = (output: string) => output.split(beginning).length - 1
  const until = countIn(program.stdout) + count
  await program.waitFor({ test: (output) => countIn(output) >= until })
}

/** The last line may have been cut off. */
function readLines(output: string): JournalLine[] {
  return output
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as JournalLine)
}

export interface Audit {
  issued: number
  rotated: number
  revoked: number
  /** Changes that began, and of which nobody was told how they ended. */
  unknown: number
  /** Successors that no key was exchanged for: their rotation was cut off between its two writes. */
  orphans: number
}

/**
 * Requires of the store all that was promised whoever made these journals: what has resolved is there, what has not is
 * there whole or not at all.
 */
export async function auditJournals(url: string, journals: readonly JournalLine[][]): Promise<Audit> {
  const { store, close } = openStore(url)
  const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'acme_test' })
  try {
    const lines = journals.flat()
    const records = new Map<string, ApiKey>()
    // A record that is not whole fails the listing.
    for (let cursor: string | undefined; ; ) {
      const page = await keys.list({ limit: 1_000, ...(cursor !== undefined && { cursor }) })
      for (const apiKey of page.apiKeys) records.set(apiKey.id, apiKey)
      cursor = page.nextCursor
      if (cursor === undefined) break
    }

    const handedOut = lines.flatMap((line) => ('key' in line ? [line] : []))
    const revoked = new Set(
      lines.flatMap((line) => ('did' in line && line.did === 'revoke' ? [line.id] : [])),
    )
    const maybeRevoked = new Set(
      lines.flatMap((line) => ('begins' in line && line.begins === 'revoke' ? [line.id] : [])),
    )
    const wrong: unknown[] = []
    for (const { id, key } of handedOut) {
      const result = await keys.verify(key)
      const state = result.ok ? 'works' : 'reason' in result ? result.reason : result.code
      const allowed = revoked.has(id) ? ['revoked'] : maybeRevoked.has(id) ? ['works', 'revoked'] : ['works']
      if (!allowed.includes(state)) wrong.push({ id, state, allowed })
    }
    for (const line of lines) {
      if (!('did' in line) || line.did !== 'rotate') continue
      const [predecessor, successor] = [records.get(line.from), records.get(line.id)]
      if (predecessor?.rotatedTo !== line.id || successor?.rotatedFrom !== line.from) {
        wrong.push({ line: { ...line, key: undefined }, predecessor, successor })
      }
    }
    const orphans: ApiKey[] = []
    for (const apiKey of records.values()) {
      const { id, rotatedTo, rotatedFrom, lineageId } = apiKey
      const successor = rotatedTo === null ? undefined : records.get(rotatedTo)
      if (rotatedTo !== null && (successor?.rotatedFrom !== id || successor.lineageId !== lineageId)) {
        wrong.push({ apiKey, successor })
      }
      const predecessor = rotatedFrom === null ? undefined : records.get(rotatedFrom)
      if (rotatedFrom !== null && !predecessor) wrong.push({ apiKey, predecessor })
      if (predecessor && predecessor.rotatedTo !== id) orphans.push(apiKey)
    }
    expect(wrong).toEqual([])

    const count = (did: string) => lines.filter((line) => 'did' in line && line.did === did).length
    const [issued, rotated] = [count('issue'), count('rotate')]
    const begun = lines.filter((line) => 'begins' in line).length
    const unknown = begun - issued - rotated - revoked.size
    expect(orphans.length).toBeLessThanOrEqual(unknown)
    expect(records.size).toBeGreaterThanOrEqual(issued + rotated)
    expect(records.size).toBeLessThanOrEqual(issued + rotated + unknown)
    return { issued, rotated, revoked: revoked.size, unknown, orphans: orphans.length }
  } finally {
    await keys.close()
    await close()
  }
}
