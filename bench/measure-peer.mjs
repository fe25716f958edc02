/**
 * `verify()` beside `verifyApiKey` of better-auth, on one PostgreSQL: `measure-peer.mjs <rounds> <seed> <postgresUrl>
 * <redisUrl>`. Runs in a process of its own; sends what statements each subject sends to PostgreSQL, and one object per
 * round with the figures of each.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { apiKey } from '@better-auth/api-key'
import { betterAuth } from 'better-auth'
import { getMigrations } from 'better-auth/db/migration'
import pg from 'pg'
import { createApiKeys, memoryRateLimiter } from '../dist/index.mjs'
import { migrate, postgresStore } from '../dist/sql.mjs'
import { createDatabase } from './postgres.mjs'
import { createRandom, shuffle } from './statistics.mjs'
import { connectRedis, createRedisRateLimiter, oneLimit } from './targets.mjs'

const rounds = Number(process.argv[2])
const random = createRandom(Number(process.argv[3]))
const postgresUrl = process.argv[4]
const redis = await connectRedis(process.argv[5])
const keyCount = 1_000
/** As many as the other benchmarks keep connections. */
const concurrent = 16
const warmupRounds = 2

const writesOfUsage = new AsyncLocalStorage()
const subjects = [
  await createBetterAuth('better-auth'),
  await createBetterAuth('better-auth-again'),
  await createLatchkey('latchkey', memoryRateLimiter()),
  await createLatchkey('latchkey-redis', await createRedisRateLimiter(redis)),
]

const measured = []
for (let round = -warmupRounds; round < rounds; round += 1) {
  const figures = {}
  for (const subject of shuffle(subjects, random))
    figures[subject.name] = await runTurn(subject, subject.calls)
  if (round >= 0) measured.push(figures)
}
const statements = {}
for (const subject of subjects) statements[subject.name] = await countStatements(subject)
const [{ server_version: fullVersion }] = (await subjects[0].pool.query('show server_version')).rows
const [version] = fullVersion.split(' ')
for (const { pool } of subjects) await pool.end()
await redis.quit()
process.send({ version, statements, measured }, () => process.disconnect())

/** Verifies so many times, `concurrent` at any time, each key in its turn. */
async function runTurn(subject, calls) {
  let next = 0
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  await Promise.all(Array.from({ length: concurrent }, keepCalling))
  const elapsedMs = performance.now() - startedAt
  const { user, system } = process.cpuUsage(cpuBefore)
  return { cpuUsPerCall: (user + system) / calls, callsPerSecond: calls / (elapsedMs / 1000) }

  async function keepCalling() {
    while (next < calls) {
      const key = subject.keys[next % keyCount]
      next += 1
      if (!(await subject.verify(key))) throw new Error(`"${subject.name}" refused a good key`)
    }
  }
}

/** What each verification sends to PostgreSQL on the average, every key once; what usage adds later apart. */
async function countStatements(subject) {
  await runTurn(subject, keyCount) // what was read longer ago than the cache's age limit is read anew
  const sent = { reads: 0, writes: 0, others: 0, usage: 0 }
  const stop = listen(subject.pool, (text) => {
    if (writesOfUsage.getStore()) sent.usage += 1
    else if (/^\s*select/i.test(text)) sent.reads += 1
    else if (/^\s*(insert|update|delete|with)/i.test(text)) sent.writes += 1
    else sent.others += 1
  })
  await runTurn(subject, keyCount)
  await subject.close() // writes the usage that was gathered
  stop()
  return Object.fromEntries(Object.entries(sent).map(([kind, count]) => [`${kind}PerCall`, count / keyCount]))
}

/** Every statement of the pool, whoever holds the connection. */
function listen(pool, onStatement) {
  const { query } = pg.Client.prototype
  const clients = new WeakSet(pool._clients)
  pool.on('connect', (client) => clients.add(client))
  pg.Client.prototype.query = function (statement, ...rest) {
    if (clients.has(this)) onStatement(typeof statement === 'string' ? statement : statement.text)
    return query.call(this, statement, ...rest)
  }
  return () => {
    pg.Client.prototype.query = query
  }
}

/** With its defaults, but for the limit, which is never reached: it would admit ten a day. */
async function createBetterAuth(name) {
  const pool = await createDatabase(postgresUrl, name.replaceAll('-', '_'))
  const auth = betterAuth({
    baseURL: 'http://localhost:3000',
    secret: 'a secret of the benchmark, long enough to be taken for one',
    database: pool,
    emailAndPassword: { enabled: true },
    plugins: [apiKey({ rateLimit: { maxRequests: oneLimit[0].limit } })],
  })
  await (await getMigrations(auth.options)).runMigrations()
  const owner = { name: 'owner', email: 'owner@example.com', password: 'of no consequence' }
  const { user } = await auth.api.signUpEmail({ body: owner })
  const keys = []
  while (keys.length < keyCount) {
    keys.push((await auth.api.createApiKey({ body: { userId: user.id } })).key)
  }
  return {
    name,
    calls: 200,
    keys,
    pool,
    verify: async (key) => (await auth.api.verifyApiKey({ body: { key } })).valid,
    close: async () => {},
  }
}

async function createLatchkey(name, rateLimiter) {
  const pool = await createDatabase(postgresUrl, name.replaceAll('-', '_'))
  const store = postgresStore(pool)
  await migrate(store)
  const { recordUsage } = store
  store.recordUsage = (batch) => writesOfUsage.run(true, () => recordUsage.call(store, batch))
  const apiKeys = createApiKeys({ store, rateLimiter, prefix: 'bench', rateLimits: oneLimit })
  const owner = { type: 'user', id: 'u_1' }
  const keys = []
  while (keys.length < keyCount) keys.push((await apiKeys.issue({ owner, name: 'bench' })).key)
  return {
    name,
    calls: name === 'latchkey' ? 20_000 : 2_000,
    keys,
    pool,
    verify: async (key) => (await apiKeys.verify(key)).ok,
    close: () => apiKeys.close(),
  }
}
