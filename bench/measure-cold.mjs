/**
 * `verify()` with nothing in memory, in stores of several sizes: `measure-cold.mjs <rounds> <seed> <sqlite|postgres>
 * <folder or URL> <sizes>`. Runs in a process of its own. It fills the stores by `importAll` from rows as better-auth's
 * table has them, and sends how fast that was, and one object per round with the latencies of each size.
 */
import { hash } from 'node:crypto'
import { join } from 'node:path'
import { betterAuthFormat, createApiKeys, memoryRateLimiter } from '../dist/index.mjs'
import { migrate, postgresStore, sqliteStore } from '../dist/sql.mjs'
import { createDatabase } from './postgres.mjs'
import { createRandom, quantile, shuffle } from './statistics.mjs'

const [, , rounds, seed, dialect, place, sizeList] = process.argv
const random = createRandom(Number(seed))
const sizes = sizeList.split(',').map(Number)
const format = betterAuthFormat()
const owner = 'u_0123456789abcdefghijklmnopqrst'
const firstCreatedAt = Date.parse('2026-01-01T00:00:00Z')
const callsPerTurn = 500
const warmupRounds = 2
/** The import of a store is timed by so many parts of it. */
const parts = 10

const stores = []
for (const size of sizes) stores.push(await (dialect === 'sqlite' ? openSqlite(size) : openPostgres(size)))
const imports = []
for (const store of stores) imports.push(await fill(store))
for (const { settle } of stores) await settle()

const measured = []
for (let round = -warmupRounds; round < Number(rounds); round += 1) {
  const figures = {}
  for (const store of shuffle(stores, random)) figures[store.size] = await runTurn(store)
  if (round >= 0) measured.push(figures)
}
for (const { close } of stores) await close()
process.send({ imports, measured }, () => process.disconnect())

/** Keys drawn at random, one after the other; none was seen by this instance before. */
async function runTurn({ store, size }) {
  const { counted, calls } = countCalls(store)
  const keys = createKeys(counted)
  const drawn = new Set()
  while (drawn.size < Math.min(callsPerTurn, size)) drawn.add(Math.floor(random() * size))
  const latencies = []
  for (const index of drawn) {
    const key = keyAt(size, index)
    const startedAt = performance.now()
    const result = await keys.verify(key)
    latencies.push((performance.now() - startedAt) * 1_000)
    if (!result.ok) throw new Error(`the key ${index} of ${size} was refused`)
  }
  const callsPerVerify = calls() / drawn.size
  await keys.close()
  return { p50Us: quantile(latencies, 0.5), p99Us: quantile(latencies, 0.99), callsPerVerify }
}

/** How many keys a second each part of the store was filled with. */
async function fill({ store, size }) {
  const keys = createKeys(store)
  const partsPerSecond = []
  let imported = 0
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  let partStartedAt = startedAt
  const onProgress = (progress) => {
    const now = performance.now()
    if (progress.imported - imported < size / parts) return
    partsPerSecond.push((progress.imported - imported) / ((now - partStartedAt) / 1_000))
    imported = progress.imported
    partStartedAt = now
    console.error(
      `${dialect}: ${imported.toLocaleString('en')} of ${size.toLocaleString('en')} keys imported`,
    )
  }
  const done = await keys.importAll(rows(size), { read: format.read, batchSize: 10_000, onProgress })
  const elapsedMs = performance.now() - startedAt
  const { user, system } = process.cpuUsage(cpuBefore)
  if (done.imported !== size) throw new Error(`${done.imported} of ${size} keys were imported`)
  await keys.close()
  return {
    size,
    keysPerSecond: size / (elapsedMs / 1_000),
    cpuUsPerKey: (user + system) / size,
    partsPerSecond,
  }
}

/** In the order of their ids, as a table is read by pages; when each was created has nothing to do with it. */
function* rows(size) {
  for (let index = 0; index < size; index += 1) {
    const key = keyAt(size, index)
    const at = new Date(firstCreatedAt + Number.parseInt(key.slice(0, 8), 16)).toISOString()
    yield {
      id: `key_${String(index).padStart(28, '0')}`,
      configId: 'default',
      name: `key ${index}`,
      start: key.slice(0, 6),
      referenceId: owner,
      prefix: null,
      key: hash('sha256', key, 'base64url'),
      refillInterval: null,
      refillAmount: null,
      lastRefillAt: null,
      enabled: 1,
      rateLimitEnabled: 1,
      rateLimitTimeWindow: 86_400_000,
      rateLimitMax: 1_000_000_000,
      requestCount: 0,
      remaining: null,
      lastRequest: null,
      expiresAt: null,
      createdAt: at,
      updatedAt: at,
      permissions: '{"projects":["read"]}',
      metadata: '{"plan":"pro"}',
    }
  }
}

/** As long as the keys of better-auth are. */
function keyAt(size, index) {
  return hash('sha256', `${seed} ${size} ${index}`, 'hex')
}

function createKeys(store) {
  return createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'bench', formats: [format] })
}

/** The same store, and how often it is asked for anything. */
function countCalls(store) {
  let calls = 0
  const counted = new Proxy(store, {
    get(target, member) {
      const value = target[member]
      if (typeof value !== 'function') return value
      return (...args) => {
        calls += 1
        return value.apply(target, args)
      }
    },
  })
  return { counted, calls: () => calls }
}

async function openSqlite(size) {
  const store = await sqliteStore(join(place, `${size}.sqlite`))
  await migrate(store)
  return { store, size, settle: async () => {}, close: () => store.close() }
}

async function openPostgres(size) {
  const pool = await createDatabase(place, `cold_${size}`)
  const store = postgresStore(pool)
  await migrate(store)
  // What the server would begin by itself some seconds after so many inserts, in the midst of what is measured.
  return { store, size, settle: () => pool.query('vacuum (analyze)'), close: () => pool.end() }
}
