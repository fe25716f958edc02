/**
 * `list()` of PostgreSQL stores of several sizes: `measure-list.mjs <rounds> <seed> <postgresUrl> <sizes>`. Runs in a process
 * of its own; sends how long each store took to fill, and one object per round with the p50 of each list in each size.
 */
import pg from 'pg'
import { createApiKeys, memoryRateLimiter } from '../dist/index.mjs'
import { migrate, postgresStore } from '../dist/sql.mjs'
import { createDatabase } from './postgres.mjs'
import { createRandom, quantile, shuffle } from './statistics.mjs'

const [, , rounds, seed, postgresUrl, sizeList] = process.argv
const random = createRandom(Number(seed))
const keysPerOwner = 100
const keysPerCreator = 200
const keysPerName = 50
const severalOwners = 10
const limit = 20
const callsPerTurn = 20
const warmupRounds = 2

/** What is asked for, drawn at random for each call. */
const filters = {
  all: () => ({}),
  owner: (size) => ({ owner: ownerOf(size) }),
  creator: (size) => ({ createdBy: `a${draw(size / keysPerCreator)}` }),
  name: (size) => ({ name: `name ${draw(size / keysPerName)}` }),
  active: () => ({ status: 'active' }),
  disabled: () => ({ status: 'disabled' }),
  expired: () => ({ status: 'expired' }),
  revoked: () => ({ status: 'revoked' }),
  'owner, active': (size) => ({ owner: ownerOf(size), status: 'active' }),
}
const lists = Object.entries(filters).flatMap(([name, filter]) => [
  { name, options: async (_keys, size) => filter(size) },
  {
    name: `${name}, later`,
    options: async (keys, size) => ({ ...filter(size), cursor: await somewhere(keys, size) }),
  },
])
lists.push({
  name: 'several owners',
  options: async (_keys, size) => ({ owners: ownersOf(size) }),
})

const stores = []
for (const size of sizeList.split(',').map(Number)) stores.push(await open(size))
const sent = countStatements()
const measured = []
for (let round = -warmupRounds; round < Number(rounds); round += 1) {
  const figures = {}
  for (const list of shuffle(lists, random)) {
    figures[list.name] = {}
    for (const store of shuffle(stores, random)) figures[list.name][store.size] = await runTurn(list, store)
  }
  if (round >= 0) measured.push(figures)
}
const [{ server_version: fullVersion }] = (await stores[0].pool.query('show server_version')).rows
for (const { keys, pool } of stores) {
  await keys.close()
  await pool.end()
}
const filled = stores.map(({ size, seconds }) => ({ size, seconds }))
const names = lists.map(({ name }) => name)
process.send({ version: fullVersion.split(' ')[0], filled, names, measured }, () => process.disconnect())

async function runTurn({ name, options }, { keys, size }) {
  const latencies = []
  let statements = 0
  let found = 0
  for (let call = 0; call < callsPerTurn; call += 1) {
    const asked = { ...(await options(keys, size)), limit }
    const sentBefore = sent()
    const startedAt = performance.now()
    const { apiKeys } = await keys.list(asked)
    latencies.push((performance.now() - startedAt) * 1_000)
    statements = Math.max(statements, sent() - sentBefore)
    found += apiKeys.length
  }
  if (found === 0) throw new Error(`the list "${name}" of ${size} keys is always empty`)
  return { p50Us: quantile(latencies, 0.5), statements, keysPerPage: found / callsPerTurn }
}

/** A cursor is a place in the one order of all keys, whatever was listed for it. */
async function somewhere(keys, size) {
  const { nextCursor } = await keys.list({ owner: ownerOf(size), limit: 1 + draw(keysPerOwner - 40) })
  return nextCursor
}

function ownerOf(size) {
  return { type: 'user', id: `u${draw(size / keysPerOwner)}` }
}

/** Neighbours, so that none is drawn twice: there may be no more. */
function ownersOf(size) {
  const first = draw(size / keysPerOwner)
  return Array.from({ length: severalOwners }, (_, i) => ({
    type: 'user',
    id: `u${(first + i) % (size / keysPerOwner)}`,
  }))
}

function draw(count) {
  return Math.floor(random() * count)
}

/** How many statements have left `pg` since. */
function countStatements() {
  const { query } = pg.Client.prototype
  let count = 0
  pg.Client.prototype.query = function (...args) {
    count += 1
    return query.apply(this, args)
  }
  return () => count
}

async function open(size) {
  const pool = await createDatabase(postgresUrl, `list_${size}`)
  const store = postgresStore(pool)
  await migrate(store)
  const startedAt = performance.now()
  await fill(pool, size)
  const seconds = (performance.now() - startedAt) / 1_000
  console.error(`${size.toLocaleString('en')} keys made in ${seconds.toFixed(0)} s`)
  const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'bench' })
  return { size, pool, keys, seconds }
}

/** Rows first and then the indexes, which is quicker. The oldest tenth of the keys were revoked, as they are in the field. */
async function fill(pool, size) {
  const { rows: indexes } = await pool.query(`
    select indexname, indexdef from pg_indexes where tablename = 'latchkey_keys' and indexname not like '%_pkey'`)
  for (const { indexname } of indexes) await pool.query(`drop index "${indexname}"`)
  await pool.query(`
    insert into latchkey_keys
    select id, id, '$sha256$' || id, id, 'name ' || n % ${size / keysPerName}, 'acme', 'acme_' || left(id, 4),
      'user', 'u' || n % ${size / keysPerOwner}, 'a' || n % ${size / keysPerCreator}, '{"projects":["read"]}', '{}',
      n % 31 <> 0, null, null, created, created,
      case when n % 20 = 3 then created + 3600000 when n % 20 in (7, 11, 13) then created + 315360000000 end,
      case when n % 20 = 17 then 31536000000 end, n % 7, case when n % 7 > 0 then created + 1000 end, null,
      case when n <= ${size / 10} or n % 33 = 0 then created + 5000 end, null, null, null, null, 1
    from (
      select n, left(md5(n::text), 16) as id, 1750000000000 + n * 30000::bigint as created
      from generate_series(1, ${size}) as n
    ) as numbered`)
  await pool.query(`
    insert into latchkey_keys_quotas
    select id, 100, 1750000000000, 0, null, null, false from latchkey_keys where usage_count = 0`)
  for (const { indexdef } of indexes) await pool.query(indexdef)
  await pool.query('vacuum (analyze)')
}
