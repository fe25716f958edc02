import type { Owner } from 'latchkey'
import { migrate, mysqlStore, type SqlStore } from 'latchkey/sql'
import { createPool } from 'mysql2/promise'
import { describe, expect, it, onTestFinished } from 'vitest'
import { mysqlDialect, sqliteDialect } from '../../lib/stores/sql/dialect.ts'
import { createStatements } from '../../lib/stores/sql/statements.ts'
import { resolveTableNames } from '../../lib/stores/sql/table-names.ts'
import { at, record } from '../support/key-records.ts'
import { testListings } from '../support/listing-cases.ts'
import { withManyKeys } from '../support/many-keys.ts'
import { createMariadb, createSqlite } from '../support/sql-databases.ts'

// With a million of them: test/long/sql-explain.test.ts.
describe('listing 50,000 keys in PostgreSQL', () => testListings(withManyKeys(50_000)))

const ownersOf = (count: number): Owner[] =>
  Array.from({ length: count }, (_, i) => ({ type: 'user', id: `u_${i}` }))
const after = { createdAt: at(1_000), id: 'k1000' }

/** Keys of 50 owners, one of whom has nearly all there are. */
async function fill(store: SqlStore): Promise<void> {
  await migrate(store)
  await store.insert(
    Array.from({ length: 2_000 }, (_, i) =>
      record({
        id: `k${i}`,
        createdAt: at(i),
        owner: { type: 'user', id: `u_${i % 50 === 0 ? 1 + (i % 49) : 0}` },
      }),
    ),
  )
}

describe.each<['oldest' | 'newest', { order?: 'newest' }]>([
  ['oldest', {}],
  ['newest', { order: 'newest' }],
])('a listing of several owners, the %s first,', (_order, order) => {
  it('reads no more keys than a page of each may need in MariaDB', async () => {
    const database = await createMariadb()
    onTestFinished(() => database.remove())
    const pool = createPool({ uri: database.url, connectionLimit: 1 })
    onTestFinished(() => pool.end())
    const store = mysqlStore(pool)
    await fill(store)
    await pool.query('analyze table latchkey_keys')
    await pool.query('flush status')
    expect(await store.list({ owners: ownersOf(3) }, { limit: 21, after, ...order })).toHaveLength(21)
    const [rows] = await pool.query(`show session status like 'Handler_read%'`)
    const read = (rows as { Value: string }[]).reduce((sum, { Value }) => sum + Number(Value), 0)
    // From the index, from what each read and from all that together; then by id, with the quota.
    expect(read).toBeLessThan(5 * 3 * 32)
  })

  it('reads those of each from the index, in their order, in SQLite', async () => {
    const database = await createSqlite()
    onTestFinished(() => database.remove())
    await fill(database.open())
    const { list } = createStatements(sqliteDialect, resolveTableNames({}, []))
    const { sql, parameters } = list({ owners: ownersOf(3) }, { limit: 21, after, ...order })
    const values = parameters.map((value) => (typeof value === 'string' ? `'${value}'` : String(value)))
    const plan = await database.query(
      `explain query plan ${sql.replaceAll('?', () => values.shift() as string)}`,
    )
    const steps = plan.map(({ detail }) => String(detail))
    const byOwner = steps.filter((step) => step.includes('latchkey_keys_owner'))
    expect(byOwner).toHaveLength(3)
    for (const step of byOwner) expect(step).toMatch(/^SEARCH k .*\(owner_type=\? AND owner_id=\? AND /)
    expect(steps.filter((step) => /^SCAN (k|q)\b/.test(step))).toEqual([])
    expect(steps.filter((step) => step === 'MERGE (UNION ALL)')).toHaveLength(2)
  })
})

it('has few texts for MySQL, which keeps all that it has prepared', () => {
  const { list } = createStatements(mysqlDialect, resolveTableNames({}, []))
  const texts = new Set<string>()
  for (let count = 1; count <= 100; count += 1)
    for (const limit of [21, 25, 32]) texts.add(list({ owners: ownersOf(count) }, { limit, after }).sql)
  // 1, 2, 4, 8, 16, 32, 64 and 128 owners.
  expect(texts.size).toBe(8)
})
