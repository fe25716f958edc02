import { randomInt, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { createApiKeys, type KeyStore, memoryRateLimiter } from 'latchkey'
import { redisStore } from 'latchkey/redis'
import { migrate } from 'latchkey/sql'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { temporaryFolder } from '../support/cleaner.ts'
import { isLong, times } from '../support/long-run.ts'
import type { Death, QuotaEvent, QuotaWorkerSettings, QuotaWorkerTasks } from '../support/quota-worker.ts'
import { createRandom, type Random } from '../support/random.ts'
import { DATABASES } from '../support/sql-databases.ts'
import { startTaskProcess, type TaskProcess } from '../support/task-process.ts'
import { NAME } from '../support/test-keys.ts'

const SEED = Number(process.env.QUOTA_SEED ?? randomInt(2 ** 31))
const RUNS = Number(process.env.QUOTA_RUNS ?? 1)
const UNITS = times({ soak: 4_000, long: 10_000 })
const PROCESSES = 4
const LANES = 8
const LEASE_MS = 2_000
/** What a machine under load takes beyond the time of a lease. */
const SLACK_MS = 3_000

interface Shared {
  readonly url: string
  readonly keyPrefix: string
  readonly store: KeyStore
  close(): Promise<void>
}

/** In a slice, one of each kind. */
const isOfSlice = ([name]: readonly [string, ...unknown[]]) =>
  isLong || name === 'PostgreSQL' || name === 'Redis'

const STORES: readonly (readonly [string, () => Promise<Shared>])[] = [
  ...DATABASES.map(([name, create]) => [name, () => openDatabase(create)] as const),
  ['Redis', openRedis],
]

describe.each(STORES.filter(isOfSlice))(
  'processes that are killed while they spend a quota in %s',
  (_name, open) => {
    const runs = Array.from({ length: RUNS }, (_, i) => SEED + i)

    it.each(runs)(
      'spend no unit twice, lose no more than they held, and refuse nobody for long (QUOTA_SEED=%i)',
      async (seed) => {
        const shared = await open()
        onTestFinished(() => shared.close())
        const keys = createApiKeys({
          store: shared.store,
          rateLimiter: memoryRateLimiter(),
          prefix: 'acme_test',
        })
        const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: UNITS } })
        const { journals, crashes } = await spendAll(shared, key, createRandom(seed))
        const remaining = (await shared.store.find({ id: apiKey.id }))?.quota?.remaining ?? Number.NaN
        await keys.close()

        const admitted = countOf(journals, 'admitted')
        expect(crashes).toBeGreaterThan(5)
        expect(admitted).toBeGreaterThan(UNITS / 2)
        expect(admitted + remaining).toBeLessThanOrEqual(UNITS)
        const killed = journals.filter(({ isKilled }) => isKilled)
        expect(killed).toHaveLength(crashes)
        const bound = killed.reduce((total, journal) => total + lossOf(journal.lines), 0)
        expect(UNITS - admitted - remaining).toBeLessThanOrEqual(bound)
        expect(refusedTooLong(journals)).toEqual([])
      },
    )
  },
)

/** Spends until no units will come any more. In each round one process is killed, and another takes its place. */
async function spendAll(shared: Shared, key: string, random: Random) {
  const folder = temporaryFolder('quota')
  const journals: { file: string; isKilled: boolean }[] = []
  const start = (): Living => {
    const journal = { file: join(folder, `${journals.length}`), isKilled: false }
    journals.push(journal)
    const { url, keyPrefix } = shared
    const settings: QuotaWorkerSettings = { url, keyPrefix, quotaLeaseMs: LEASE_MS, journal: journal.file }
    return { journal, worker: startTaskProcess<QuotaWorkerTasks>('quota-worker.ts', settings) }
  }
  const living = Array.from({ length: PROCESSES }, start)
  onTestFinished(async () => void (await Promise.all(living.map(({ worker }) => worker.kill()))))
  await Promise.all(living.map(({ worker }) => worker.run('start')))
  let crashes = 0
  while (!isSpent(journals.map(({ file }) => readLines(file)))) {
    const victim = random.below(PROCESSES)
    await Promise.all(
      living.map(async ({ worker, journal }, i) => {
        const calls = 50 + random.below(250)
        if (i !== victim) return worker.run('spend', { key, calls, lanes: LANES })
        const at = random.of(['call', 'swap begins', 'swap is sent', 'swap ends'] as const)
        const dies: Death = { at, times: 1 + random.below(at === 'call' ? calls : 3) }
        await worker.run('spend', { key, calls, lanes: LANES, dies }).catch(() => {})
        // It may have had no occasion.
        await worker.kill()
        journal.isKilled = true
        crashes += 1
      }),
    )
    const next = start()
    living[victim] = next
    await next.worker.run('start')
  }
  await Promise.all(living.map(({ worker }) => worker.run('close')))
  return { crashes, journals: journals.map(({ file, isKilled }) => ({ isKilled, lines: readLines(file) })) }
}

interface Living {
  readonly worker: TaskProcess<QuotaWorkerTasks>
  readonly journal: { isKilled: boolean }
}

interface Line {
  readonly event: QuotaEvent
  readonly units: number
  readonly at: number
}

interface Journal {
  readonly lines: readonly Line[]
  readonly isKilled: boolean
}

function readLines(file: string): Line[] {
  let text = ''
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    // Nothing has happened yet.
  }
  // The last line may have been cut off.
  const lines = text.split('\n').slice(0, -1)
  return lines.map((line) => {
    const [event, units, at] = line.split(' ')
    return {
      event: event as QuotaEvent,
      units: Number(units),
      at: Number(BigInt(at as string) / 1_000n) / 1_000,
    }
  })
}

function isSpent(journals: readonly (readonly Line[])[]): boolean {
  return journals.flat().some(({ event }) => event === 'spent')
}

function countOf(journals: readonly Journal[], event: QuotaEvent): number {
  return journals.flatMap(({ lines }) => lines).filter((line) => line.event === event).length
}

/** The most units that are gone with a process: its lease, or what it was asking for, and what its calls cost. */
function lossOf(lines: readonly Line[]): number {
  const lease = lines.findLast(({ event }) => event === 'lease')?.units ?? 0
  const begun = lines.filter(({ event }) => event === 'begins').length
  const ended = lines.filter(({ event }) => ['admitted', 'refused', 'spent'].includes(event)).length
  return lease + begun - ended
}

/** Who was refused for longer than a lease lasts though more units were left than processes may hold or have lost. */
function refusedTooLong(journals: readonly Journal[]): unknown[] {
  const admissions = journals.flatMap(({ lines }) => lines.filter(({ event }) => event === 'admitted'))
  const found: unknown[] = []
  for (const { lines } of journals) {
    let since: number | null = null
    for (const { event, at } of lines) {
      if (event === 'admitted') since = null
      if (event !== 'refused' && event !== 'spent') continue
      since ??= at
      if (event === 'refused' && at - since <= LEASE_MS + SLACK_MS) continue
      const until = event === 'spent' ? at : since + LEASE_MS + SLACK_MS
      const admitted = admissions.filter((line) => line.at <= until).length
      const elsewhere = journals.reduce(
        (total, journal) => total + lossOf(journal.lines.filter((line) => line.at <= until)),
        0,
      )
      const left = UNITS - admitted - elsewhere
      if (left > 0) found.push({ event, forMs: at - since, left })
      break
    }
  }
  return found
}

async function openDatabase(create: (typeof DATABASES)[number][1]): Promise<Shared> {
  const database = await create()
  const store = database.open()
  await migrate(store)
  return { url: database.url, keyPrefix: '', store, close: () => database.remove() }
}

async function openRedis(): Promise<Shared> {
  const redis = new Redis(inject('redisUrl'))
  const keyPrefix = `quota-${randomUUID()}`
  const store = redisStore(redis, { keyPrefix })
  return { url: inject('redisUrl'), keyPrefix, store, close: async () => redis.disconnect() }
}
