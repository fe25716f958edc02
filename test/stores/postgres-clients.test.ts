import { inspect } from 'node:util'
import { drizzle } from 'drizzle-orm/postgres-js'
import {
  migrate,
  type PostgresJsClient,
  type PostgresJsStatements,
  postgresStore,
  type SqlStore,
} from 'latchkey/sql'
import { Client } from 'pg'
import postgres, { type Options, type Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { TRUNCATE_ALL } from '../support/empty-tables.ts'
import { at, lease, leased, quota, record } from '../support/key-records.ts'
import { createPostgres, type TestDatabase } from '../support/sql-databases.ts'

const SECRET = 'attack at dawn'

let database: TestDatabase
const clients: Sql[] = []
beforeAll(async () => {
  database = await createPostgres()
  await migrate(database.open())
})
afterAll(() => database?.remove())
beforeEach(() => database.query(TRUNCATE_ALL))
afterEach(async () => {
  for (const client of clients.splice(0)) await client.end({ timeout: 1 })
})

function connect(options: Options<Record<string, never>> = {}): Sql {
  const client = postgres(database.url, { max: 1, onnotice: () => {}, ...options })
  clients.push(client)
  return client
}

describe('a store over postgres.js', () => {
  it('creates its tables, once', async () => {
    const [one, other] = [connect({ max: 2 }), connect({ max: 2 })].map((client) =>
      postgresStore(client, { table: 'own_keys' }),
    ) as [SqlStore, SqlStore]
    const results = await Promise.all([migrate(one), migrate(other)])
    expect(results.flatMap(({ applied }) => applied)).toHaveLength(4)
    await one.insert([record({ id: 'a' })])
    expect(await other.find({ id: 'a' })).toEqual(record({ id: 'a' }))
  })

  const full = record({
    id: 'Zoë \\\' "',
    name: 'null',
    enabled: false,
    quota: quota(5, 1_000),
    expiresAt: new Date(Date.UTC(9999, 11, 31, 23, 59, 59, 999)),
    usageCount: Number.MAX_SAFE_INTEGER,
    rateLimits: [],
    metadata: { text: 'nul \0, half \ud83d, "quoted" \\' },
  })
  it.each<[string, Options<Record<string, never>>]>([
    ['names of columns', { transform: postgres.camel }],
    ['values', { transform: { value: { from: () => 'changed' } } }],
    [
      'types',
      {
        types: {
          text: { to: 25, from: [25], parse: () => 'parsed', serialize: () => 'serialized' },
          bigint: { to: 20, from: [20], parse: () => 1n, serialize: () => '1' },
          bool: { to: 16, from: [16], parse: () => 'parsed', serialize: () => 'true' },
        } as never,
      },
    ],
    ['no types', { fetch_types: false, prepare: false }],
    ['a time zone', { connection: { TimeZone: 'Asia/Kathmandu' } }],
    ['an isolation level', { connection: { default_transaction_isolation: 'serializable' } }],
  ])('changes nothing, whatever the client transforms: %s', async (_what, options) => {
    const store = postgresStore(connect(options))
    await store.insert([full])
    expect(await store.find({ id: full.id })).toEqual(full)
    expect(await store.count({ status: { is: 'disabled', at: at(0) } })).toBe(1)
    expect(await store.list({ status: { is: 'disabled', at: at(0) } }, { limit: 5 })).toEqual([full])
    const next = leased(quota(5, 1_000), 2)
    expect(await store.swapQuota(full.id, quota(5, 1_000), next)).toEqual({ swapped: true })
    await store.recordUsage([{ id: full.id, count: 0, lastUsedAt: at(5), lastUsedIp: '::1' }])
    expect(await store.find({ id: full.id })).toMatchObject({ quota: next, lastUsedAt: at(5) })
  })

  it('refuses a client that turns rows into something else', async () => {
    const store = postgresStore(connect({ transform: { row: { from: () => 'a row' } } }))
    await database.open().insert([full])
    await expect(store.find({ id: full.id })).rejects.toMatchObject({ code: 'wrong_dialect' })
    await expect(store.find({ id: full.id })).rejects.toThrow('must not transform rows')
  })

  it('keeps parameters out of every error, even where the client debugs', async () => {
    const store = postgresStore(connect({ debug: () => {} }))
    await store.insert([record({ id: SECRET, digest: SECRET })])
    const failures = Promise.allSettled([
      store.insert([record({ id: 'other', lookup: SECRET })]),
      postgresStore(connect({ debug: () => {} }), { table: 'missing' }).find({ lookups: [SECRET] }),
      postgresStore(connect({ debug: () => {}, port: 1 })).find({ lookups: [SECRET] }),
      store.find({ id: SECRET }),
    ])
    // The last one, if it has not been answered.
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'postgres.js'`,
    )
    const outcomes = await failures
    expect(outcomes.slice(0, 3).map(({ status }) => status)).toEqual(Array(3).fill('rejected'))
    for (const outcome of outcomes.filter(({ status }) => status === 'rejected'))
      expect(inspect(outcome, { depth: 9, showHidden: true })).not.toContain(SECRET)
  })

  it('tells errors apart as over a pool of pg', async () => {
    const store = postgresStore(connect())
    await store.insert([record({ id: 'a' })])
    await expect(store.insert([record({ id: 'a' })])).rejects.toMatchObject({ code: 'duplicate_key' })
    await expect(postgresStore(connect(), { table: 'missing' }).find({ id: 'a' })).rejects.toMatchObject({
      code: 'not_migrated',
    })
    const reader = postgresStore(connect({ connection: { default_transaction_read_only: true } }))
    expect(await reader.find({ id: 'a' })).toEqual(record({ id: 'a' }))
    await expect(reader.insert([record({ id: 'b' })])).rejects.toMatchObject({ code: 'read_only' })
    await expect(postgresStore(connect({ port: 1 })).find({ id: 'a' })).rejects.toMatchObject({
      code: 'ECONNREFUSED',
    })
  })

  it('lets one of two stores win each swap', async () => {
    const stores = [connect({ max: 5 }), connect({ max: 5 })].map((client) => postgresStore(client))
    await (stores[0] as SqlStore).insert([record({ id: 'a', quota: quota(201) })])
    const granted = await Promise.all(
      Array.from({ length: 50 }, (_, i) => lease(stores[i % 2] as SqlStore, 'a', 7)),
    )
    expect(granted.reduce<number>((sum, units) => sum + (units ?? 0), 0)).toBe(201)
  })
})

describe('a connection of postgres.js that was released with a transaction open', () => {
  it('shows no key as it was before it was revoked', async () => {
    const client = connect()
    const store = postgresStore(client)
    await store.insert([record({ id: 'a' })])
    const careless = await client.reserve()
    await careless`begin isolation level repeatable read`
    await careless`select * from latchkey_keys`
    careless.release()
    await database.open().update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
    await expect(store.find({ id: 'a' })).rejects.toThrow()
    expect(await store.find({ id: 'a' })).toMatchObject({ revokedAt: at(1) })
  })

  it('takes no revocation along when it is rolled back', async () => {
    const client = connect()
    const store = postgresStore(client)
    await store.insert([record({ id: 'a' })])
    const careless = await client.reserve()
    await careless`begin`
    await careless`select 1`
    careless.release()
    const revoke = () => store.update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
    await revoke().catch(revoke)
    await client`rollback`
    expect(await database.open().find({ id: 'a' })).toMatchObject({ revokedAt: at(1) })
  })
})

describe('a connection of postgres.js that the server ends', () => {
  /** Ends the connection of a client when the store waits for a lock. */
  async function endWhileWaiting(call: (store: SqlStore) => Promise<unknown>) {
    const client = connect({ max: 1, backoff: () => 0 })
    const store = postgresStore(client)
    const [row] = await client<{ pid: number }[]>`select pg_backend_pid() as pid`
    const locker = connect()
    const outcome = await locker.begin(async (transaction) => {
      await transaction`select * from latchkey_keys for update`
      const called = Promise.allSettled([call(store)])
      await waitForLock(transaction, Number(row?.pid))
      await database.query(`select pg_terminate_backend(${row?.pid})`)
      return called
    })
    return { client, store, outcome: outcome[0] }
  }

  async function waitForLock(sql: postgres.ISql, pid: number): Promise<void> {
    for (;;) {
      const [row] = await sql`select wait_event_type as waits from pg_stat_activity where pid = ${pid}`
      if (row?.waits === 'Lock') return
    }
  }

  it('fails one call, writes nothing, and answers nobody else', async () => {
    await database.open().insert([record({ id: 'a' }), record({ id: 'b' })])
    const { client, store, outcome } = await endWhileWaiting((store) =>
      store.update('a', 1, { name: 'changed', updatedAt: at(1) }),
    )
    expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'CONNECTION_CLOSED' } })
    // The client gives the server's last words to the next query.
    await client`select 0`.catch(() => {})
    for (let i = 1; i <= 5; i += 1) expect(await client`select ${i}::int as i`).toMatchObject([{ i }])
    expect(await store.find({ id: 'b' })).toEqual(record({ id: 'b' }))
    expect(await store.find({ id: 'a' })).toEqual(record({ id: 'a' }))
    expect(await store.update('a', 1, { name: 'changed', updatedAt: at(1) })).toBe('updated')
  })
})

describe('a commit of postgres.js', () => {
  const swap = (store: SqlStore) => store.swapQuota('a', quota(5), leased(quota(5), 2))
  const lost = Object.assign(new Error('lost'), { code: 'CONNECTION_CLOSED' })

  /** A client whose `begin` is another one. */
  function withBegin(client: Sql, begin: PostgresJsClient['begin']): SqlStore {
    const { options, typed } = client
    return postgresStore({ begin, options, typed, unsafe: (...given) => client.unsafe(...given) })
  }

  beforeEach(() => database.open().insert([record({ id: 'a', quota: quota(5) })]))
  const kept = () => database.open().find({ id: 'a' })

  it('keeps everything, even if a PgBouncer makes postgres.js roll back in its place', async () => {
    const client = connect()
    const store = withBegin(client, (work) =>
      client.begin(async (transaction) => {
        await work(transaction)
        // What becomes of a commit that is sent again after the prepared statement was not known.
        await transaction`rollback`
      }),
    )
    expect(await swap(store)).toEqual({ swapped: true })
    await store.recordUsage([{ id: 'a', count: 1, lastUsedAt: at(1), lastUsedIp: null }])
    expect(await kept()).toMatchObject({ quota: leased(quota(5), 2), usageCount: 1 })
  })

  it('is known to be made if the connection closes after its reply', async () => {
    const client = connect()
    const store = withBegin(client, (work) => client.begin(work).then(() => Promise.reject(lost)))
    expect(await swap(store)).toEqual({ swapped: true })
  })

  it('is no swap that was refused if its reply is lost', async () => {
    const client = connect()
    const store = withBegin(client, (work) => {
      const closed = new Promise((_, reject) => {
        const losing = (transaction: PostgresJsStatements): PostgresJsStatements => ({
          typed: transaction.typed,
          unsafe: (query, parameters) => ({
            async raw() {
              const rows = await transaction.unsafe(query, parameters).raw()
              if (query !== 'commit and chain') return rows
              setTimeout(reject, 0, lost)
              throw lost
            },
          }),
        })
        client.begin((transaction) => work(losing(transaction))).catch(() => {})
      })
      return closed
    })
    await expect(swap(store)).rejects.toThrow('lost')
    expect(await kept()).toMatchObject({ quota: leased(quota(5), 2) })
  })

  it('fails if the transaction was rolled back before', async () => {
    const client = connect()
    const store = withBegin(client, (work) =>
      client.begin(async (transaction) => {
        const aborting: PostgresJsStatements = {
          typed: transaction.typed,
          unsafe: (query, parameters) => ({
            async raw() {
              if (query === 'commit and chain') await transaction`select 1 / 0`.catch(() => {})
              return transaction.unsafe(query, parameters).raw()
            },
          }),
        }
        await work(aborting)
      }),
    )
    await expect(swap(store)).rejects.toThrow('the transaction was rolled back')
    expect(await kept()).toMatchObject({ quota: quota(5) })
  })
})

describe('what is no pool', () => {
  it.each([
    ['a Drizzle database', /is a Drizzle database: pass its \$client/, () => drizzle(connect())],
    ['a single client of pg', /is one client of pg: pass a Pool/, () => new Client()],
    ['a Prisma client', /is a Prisma client: pass the pool of its adapter/, () => ({ $connect() {} })],
    ['a transaction of PGlite', /"pool" must have a method "connect"/, () => ({ query() {}, rollback() {} })],
  ])('is refused: %s', (_what, message, make) => {
    expect(() => postgresStore(make() as never)).toThrow(TypeError)
    expect(() => postgresStore(make() as never)).toThrow(message)
  })

  it('is the client of Drizzle itself', async () => {
    const store = postgresStore(drizzle(connect()).$client)
    await store.insert([record({ id: 'a' })])
    expect(await store.find({ id: 'a' })).toEqual(record({ id: 'a' }))
  })
})
