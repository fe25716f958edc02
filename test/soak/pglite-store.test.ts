import assert from 'node:assert/strict'
import { inspect } from 'node:util'
import { PGlite } from '@electric-sql/pglite'
import { migrate, postgresStore, type SqlStore } from 'latchkey/sql'
import { storeConformance } from 'latchkey/testing'
import { afterAll, beforeAll, beforeEach, describe, expect, it, test } from 'vitest'
import { TRUNCATE_ALL } from '../support/empty-tables.ts'
import { at, lease, quota, record } from '../support/key-records.ts'

const SECRET = 'attack at dawn'

let database: PGlite
let store: SqlStore
beforeAll(async () => {
  // With conversions of its own, which must not matter.
  const changed = Object.fromEntries([16, 20, 25].map((type) => [type, () => 'changed']))
  database = await PGlite.create({ parsers: changed, serializers: changed })
  store = postgresStore(database)
  await migrate(store)
})
afterAll(() => database?.close())
beforeEach(async () => {
  await database.exec(TRUNCATE_ALL)
})

storeConformance({ test, assert }, () => store)

describe('a store in PGlite', () => {
  it('is up to date after one migration', async () => {
    expect(await migrate(store)).toEqual({ applied: [] })
  })

  it('lets the application and the store take turns', async () => {
    await store.insert([record({ id: 'a', quota: quota(50) })])
    const transfer = () =>
      database.transaction(async (transaction) => {
        await transaction.exec('create temporary table if not exists notes (id int)')
        await transaction.query('insert into notes values (1)')
        throw new Error('rolled back')
      })
    const [granted] = await Promise.all([
      Promise.all(Array.from({ length: 10 }, () => lease(store, 'a', 5))),
      Promise.allSettled(Array.from({ length: 10 }, transfer)),
    ])
    expect(granted.reduce<number>((sum, units) => sum + (units ?? 0), 0)).toBe(50)
    expect(await store.find({ id: 'a' })).toMatchObject({ quota: { remaining: 0, allotted: 50 } })
  })

  it('takes no revocation along when the application rolls back a transaction that it left open', async () => {
    await store.insert([record({ id: 'a' })])
    await database.exec('begin; select 1')
    await store.update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
    await database.exec('rollback')
    expect(await store.find({ id: 'a' })).toMatchObject({ revokedAt: at(1) })
  })

  it('keeps parameters out of every error', async () => {
    await store.insert([record({ id: SECRET, digest: SECRET })])
    const closed = await PGlite.create()
    const failures = await Promise.allSettled([
      store.insert([record({ id: 'other', lookup: SECRET })]),
      postgresStore(database, { table: 'missing' }).find({ lookups: [SECRET] }),
      closed.close().then(() => postgresStore(closed).find({ lookups: [SECRET] })),
    ])
    expect(failures).toMatchObject([
      { reason: { code: 'duplicate_key' } },
      { reason: { code: 'not_migrated' } },
      { reason: { message: 'PGlite is closed' } },
    ])
    expect(inspect(failures, { depth: 9, showHidden: true })).not.toContain(SECRET)
  })
})
