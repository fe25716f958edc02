import type { KeyFilter } from 'latchkey'
import { migrate, type PostgresClient, type PostgresQuery, postgresStore, type SqlStore } from 'latchkey/sql'
import { Pool } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { at, quota, record } from '../support/key-records.ts'
import { createPostgres, type TestDatabase } from '../support/sql-databases.ts'

const KEYS = 1_000_000

/** Keys of 10,000 owners: some revoked, disabled, expiring, idle or with a quota, as they are in the field. */
const FILL = `
  insert into latchkey_keys
  select 'k' || n, 'l' || n, '$sha256$' || n, 'k' || n, 'name ' || n % 1000, 'acme', 'acme_' || n, 'user', 'u' || n % 10000,
    case when n % 3 = 0 then 'a' || n % 100 end, '{"projects":["read"]}', '{}', n % 97 <> 0, null, null,
    1768478400000 + n / 2, 1768478400000 + n / 2, case when n % 20 = 0 then 1768478400000 + n * 1000::bigint end,
    case when n % 50 = 0 then 86400000 end, n % 7, null, null, case when n % 101 = 0 then 1768478400000 + n end,
    null, null, null, null, 1
  from generate_series(1, ${KEYS}) as n;
  insert into latchkey_keys_quotas
  select 'k' || n, 100, 1768478400000, 0, null, null, false from generate_series(1, ${KEYS}, 10) as n;
  analyze`

describe('PostgreSQL with 1,000,000 keys', () => {
  let database: TestDatabase
  let pool: Pool
  let store: SqlStore
  let plans: { sql: string; plan: string }[] = []

  beforeAll(async () => {
    database = await createPostgres()
    pool = new Pool({ connectionString: database.url })
    // Each statement is explained with the values it is run with, before it is run.
    const explained = {
      async connect(): Promise<PostgresClient> {
        const client = await pool.connect()
        return {
          async query(query: PostgresQuery) {
            if (/^(?:select|insert|update|delete|with)/.test(query.text.trim())) {
              const { rows } = await client.query(`explain ${query.text}`, query.values)
              plans.push({ sql: query.text, plan: rows.map((row) => row['QUERY PLAN']).join('\n') })
            }
            return client.query(query as never)
          },
          release: (destroy) => client.release(destroy),
          on: (event, listener) => client.on(event, listener),
          off: (event, listener) => client.off(event, listener),
        }
      },
    }
    store = postgresStore(explained)
    await migrate(store)
    await database.query(FILL)
  }, 600_000)
  afterAll(async () => {
    await pool?.end()
    await database?.remove()
  })

  const owner = { type: 'user', id: 'u77' }
  const filters: [string, KeyFilter][] = [
    ['all', {}],
    ['an owner', { owner }],
    ['a creator', { createdBy: 'a33' }],
    ['a name', { name: 'name 5' }],
    ['a lineage', { lineageId: 'k777' }],
    ['active keys', { status: { is: 'active', at: at(0) } }],
    ['disabled keys', { status: { is: 'disabled', at: at(0) } }],
    ['expired keys', { status: { is: 'expired', at: at(50_000_000) } }],
    ['revoked keys', { status: { is: 'revoked', at: at(0) } }],
    ['keys that have ended', { endedBefore: at(50_000_000) }],
    ['active keys of an owner', { owner, status: { is: 'active', at: at(0) } }],
    ['ended keys of an owner', { owner, endedBefore: at(50_000_000) }],
    ['a name of an owner', { owner, name: 'name 77' }],
  ]
  const after = { createdAt: at(100_000), id: 'k200000' }
  const calls: [string, () => Promise<unknown>][] = [
    ['find by id', () => store.find({ id: 'k500' })],
    ['find by lookup', () => store.find({ lookups: ['l500'] })],
    ['find by several lookups', () => store.find({ lookups: ['x', 'y', 'l501'] })],
    ...filters.flatMap(([what, filter]): [string, () => Promise<unknown>][] => [
      [`list ${what}`, () => store.list(filter, { limit: 100 })],
      [`list ${what}, a later page`, () => store.list(filter, { limit: 100, after })],
    ]),
    ['insert', () => store.insert([1, 2, 3].map((n) => record({ id: `new ${n}`, quota: quota(1) })))],
    ['update', () => store.update('k1', 1, { name: 'new', updatedAt: at(0) })],
    ['update of a version that is gone', () => store.update('k1', 1, { name: 'new', updatedAt: at(0) })],
    ['update with a quota', () => store.update('k2', 1, { quota: { remaining: 5 }, updatedAt: at(0) })],
    ['update that removes a quota', () => store.update('k11', 1, { quota: null, updatedAt: at(0) })],
    ['replaceDigest', () => store.replaceDigest('k3', '$sha256$3', 'new')],
    [
      'recordUsage',
      () =>
        store.recordUsage(
          Array.from({ length: 500 }, (_, i) => ({
            id: `k${i * 1999 + 1}`,
            count: 1,
            lastUsedAt: at(i),
            lastUsedIp: null,
          })),
        ),
    ],
    ['reserveQuota', () => store.reserveQuota('k21', 1, at(0))],
    [
      'purge',
      () =>
        store.purge(
          Array.from({ length: 500 }, (_, i) => `k${(i + 1) * 101 * 10}`),
          at(0),
        ),
    ],
  ]

  it.each(calls)('reads no table from end to end: %s', async (_call, run) => {
    plans = []
    const answer = await run()
    expect(answer).not.toBeNull()
    expect(plans.length).toBeGreaterThan(0)
    for (const { sql, plan } of plans) expect(plan, sql).not.toContain('Seq Scan')
  })

  it('finds a key by one read of each index', async () => {
    plans = []
    await store.find({ lookups: ['l500'] })
    expect(plans).toHaveLength(1)
    const scans = plans[0]?.plan.match(/Index Scan using \w+/g)
    expect(scans).toEqual([
      'Index Scan using latchkey_keys_lookup',
      'Index Scan using latchkey_keys_quotas_pkey',
    ])
  })

  it('would show it here if a table was read from end to end', async () => {
    const rows = await database.query(`explain select * from latchkey_keys where hint = 'acme_5'`)
    expect(JSON.stringify(rows)).toContain('Seq Scan')
  })
})
