import { randomInt, randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { createApiKeys, type KeyStore, memoryRateLimiter } from 'latchkey'
import { redisStore } from 'latchkey/redis'
import { migrate } from 'latchkey/sql'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { temporaryFolder } from '../support/cleaner.ts'
import { isLong, times } from '../support/long-run.ts'
import { createRandom } from '../support/random.ts'
import { DATABASES } from '../support/sql-databases.ts'
import { startTaskProcess } from '../support/task-process.ts'
import { NAME } from '../support/test-keys.ts'
import type { UsageWorkerSettings, UsageWorkerTasks } from '../support/usage-worker.ts'

const SEED = Number(process.env.USAGE_SEED ?? randomInt(2 ** 31))
const PROCESSES = 4
const CALLS = times({ soak: 10_000, long: 250_000 })
const FLUSH_EVERY = times({ soak: 500, long: 5_000 })
const KILLS = times({ soak: 4, long: 40 })

interface Shared {
  readonly url: string
  readonly keyPrefix: string
  readonly store: KeyStore
  close(): Promise<void>
}

const STORES: readonly (readonly [string, () => Promise<Shared>])[] = [
  ...DATABASES.map(([name, create]) => [name, () => openDatabase(create)] as const),
  ['Redis', openRedis],
]

/** In a slice, one of each kind. */
const isOfSlice = ([name]: readonly [string, ...unknown[]]) =>
  isLong || name === 'PostgreSQL' || name === 'Redis'

describe.each(STORES.filter(isOfSlice))('the use that processes count in %s', (_name, open) => {
  it(`adds up over ${PROCESSES} processes that end cleanly, ${PROCESSES * CALLS} calls`, async () => {
    const { world, texts, ids } = await setUp(open)
    const workers = Array.from({ length: PROCESSES }, world.start)
    await Promise.all(workers.map(({ process }) => process.run('start')))
    await Promise.all(
      workers.map(async ({ process }) => {
        await process.run('count', { keys: texts, calls: CALLS, flushEvery: FLUSH_EVERY })
        await process.run('close')
      }),
    )
    const reports = await Promise.all(ids.map((id) => world.keys.usage({ key: id })))
    const each = reports.map(({ total }) => total.admitted)
    expect(each).toEqual(ids.map(() => (PROCESSES * CALLS) / ids.length))
    expect((await world.keys.usage({ owner: NAME.owner })).total.admitted).toBe(PROCESSES * CALLS)
  })

  it(`counts nothing twice where processes are killed, and loses what was not written (USAGE_SEED=${SEED})`, async () => {
    const random = createRandom(SEED)
    const { world, texts } = await setUp(open)
    let [written, begun] = [0, 0]
    for (let i = 0; i < KILLS; i += 1) {
      const { process, journal } = world.start()
      await process.run('start')
      const counting = process.run('count', { keys: texts, calls: CALLS, flushEvery: 50 }).catch(() => {})
      await setTimeout(50 + random.below(250))
      await process.kill()
      await counting
      const noted = existsSync(journal) ? readFileSync(journal, 'utf8').trim().split('\n') : []
      written += latest(noted, 'written')
      begun += latest(noted, 'begun')
    }
    const stored = (await world.keys.usage({ owner: NAME.owner })).total.admitted
    expect(begun).toBeGreaterThan(0)
    expect(stored).toBeGreaterThanOrEqual(written)
    expect(stored).toBeLessThanOrEqual(begun)
  })
})

function latest(lines: readonly string[], what: string): number {
  const last = lines.findLast((line) => line.startsWith(what))
  return Number(last?.split(' ')[1] ?? 0)
}

async function setUp(open: () => Promise<Shared>) {
  const shared = await open()
  onTestFinished(() => shared.close())
  const folder = temporaryFolder('usage')
  const { url, keyPrefix, store } = shared
  const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'acme_test' })
  onTestFinished(() => keys.close())
  const issued = await Promise.all(Array.from({ length: 5 }, () => keys.issue(NAME)))
  let started = 0
  const start = () => {
    started += 1
    const journal = join(folder, `${started}`)
    const settings: UsageWorkerSettings = { url, keyPrefix, journal }
    const process = startTaskProcess<UsageWorkerTasks>('usage-worker.ts', settings)
    onTestFinished(() => process.kill())
    return { process, journal }
  }
  return {
    world: { keys, start },
    texts: issued.map(({ key }) => key),
    ids: issued.map(({ apiKey }) => apiKey.id),
  }
}

async function openDatabase(create: (typeof DATABASES)[number][1]): Promise<Shared> {
  const database = await create()
  const store = database.open()
  await migrate(store)
  return { url: database.url, keyPrefix: '', store, close: () => database.remove() }
}

async function openRedis(): Promise<Shared> {
  const url = inject('redisUrl')
  const keyPrefix = `usage-${randomUUID()}`
  const redis = new Redis(url)
  return {
    url,
    keyPrefix,
    store: redisStore(redis, { keyPrefix }),
    close: async () => void (await redis.quit()),
  }
}
