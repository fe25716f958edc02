import type { KeyPosition, KeyRecord } from 'latchkey'
import { migrate, postgresStore, type SqlStore, sqliteStore } from 'latchkey/sql'
import Libsql from 'libsql'
import { Pool } from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { at, lease, leased, quota, record } from '../support/key-records.ts'
import { createPostgres, createSqlite, DATABASES, type TestDatabase } from '../support/sql-databases.ts'

describe.each(DATABASES)('stores that share a database: %s', (_name, create) => {
  let database: TestDatabase
  let stores: SqlStore[]
  beforeAll(async () => {
    database = await create()
    stores = [database.open(), database.open()]
    await migrate(storeOf(0))
  })
  afterAll(() => database?.remove())
  beforeEach(async () => {
    await database.query('delete from latchkey_keys_quotas')
    await database.query('delete from latchkey_keys')
  })

  const storeOf = (i: number) => stores[i % 2] as SqlStore
  const find = (id: string) => storeOf(1).find({ id })
  const atOnce = <T>(count: number, run: (store: SqlStore, i: number) => Promise<T>) =>
    Promise.all(Array.from({ length: count }, (_, i) => run(storeOf(i), i)))

  it('let one of 20 changes win for each version, with the quota that it sets', async () => {
    await storeOf(0).insert([record({ id: 'a', quota: quota(5) })])
    for (let version = 1; version <= 5; version += 1) {
      const outcomes = await atOnce(20, (store, i) =>
        store.update('a', version, { name: `${i}`, quota: { remaining: i }, updatedAt: at(version) }),
      )
      expect(outcomes.filter((outcome) => outcome === 'updated')).toHaveLength(1)
      expect(outcomes.filter((outcome) => outcome === 'conflict')).toHaveLength(19)
      const winner = outcomes.indexOf('updated')
      expect(await find('a')).toMatchObject({ name: `${winner}`, quota: { remaining: winner } })
    }
    expect(await find('a')).toMatchObject({ version: 6 })
  })

  it('give every setting of one quota an epoch of its own, whichever key it goes through', async () => {
    const keys = Array.from({ length: 10 }, (_, i) => record({ id: `k${i}`, lineageId: 'l' }))
    await storeOf(0).insert(keys)
    const outcomes = await atOnce(10, (store, i) =>
      store.update(`k${i}`, 1, { quota: { remaining: i }, updatedAt: at(0) }),
    )
    expect(new Set(outcomes)).toEqual(new Set(['updated']))
    expect((await find('k0'))?.quota?.epoch).toBe(at(0).getTime() + 9)
  })

  it('hand out a quota to 50 at once without a unit too many', async () => {
    await storeOf(0).insert([record({ id: 'a', quota: quota(201) })])
    const granted = await atOnce(50, (store) => lease(store, 'a', 7))
    expect(granted.reduce<number>((sum, units) => sum + (units ?? 0), 0)).toBe(201)
    expect(granted.filter((units) => units === 7)).toHaveLength(28)
  })

  it('count every use, in whatever order batches name their keys', async () => {
    const ids = Array.from({ length: 300 }, (_, i) => `k${i}`)
    await storeOf(0).insert(ids.map((id) => record({ id })))
    await atOnce(20, (store, i) => {
      const use = (id: string) => ({ id, count: 1, lastUsedAt: at(i), lastUsedIp: `192.0.2.${i}` })
      const batch = ids.map(use)
      return store.recordUsage(i % 2 ? batch : batch.toReversed())
    })
    for (const found of await storeOf(0).list({}, { limit: 300 }))
      expect(found).toMatchObject({
        usageCount: 20,
        lastUsedAt: at(19),
        lastUsedIp: '192.0.2.19',
        version: 1,
      })
  })

  it('lose neither a use nor a new digest nor a change to one another', async () => {
    await storeOf(0).insert([record({ id: 'a', quota: quota(1_000) })])
    const outcomes = await atOnce(42, (store, i): Promise<unknown> => {
      if (i === 0) return store.update('a', 1, { name: 'new', updatedAt: at(1) })
      if (i === 1) return store.replaceDigest('a', '$sha256$a', '$sha256$b')
      if (i % 2) return lease(store, 'a', 10)
      return store.recordUsage([{ id: 'a', count: 2, lastUsedAt: at(i), lastUsedIp: null }])
    })
    expect(outcomes.slice(0, 2)).toEqual(['updated', true])
    expect(await find('a')).toMatchObject({
      name: 'new',
      version: 2,
      digest: '$sha256$b',
      usageCount: 40,
      lastUsedAt: at(40),
      quota: { remaining: 800, allotted: 200 },
    })
  })

  it('add all or none of batches that overlap', async () => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => {
        // Each has records of its own, and one that all have, at different places.
        const own = Array.from({ length: 10 }, (_, j) => record({ id: `${i}-${j}`, quota: quota(1) }))
        return storeOf(i).insert(own.toSpliced(i % 10, 0, record({ id: 'shared', quota: quota(1) })))
      }),
    )
    const winner = outcomes.findIndex(({ status }) => status === 'fulfilled')
    const errors = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason.code] : []))
    expect(errors).toEqual(Array(19).fill('duplicate_key'))
    const left = await storeOf(0).list({}, { limit: 99 })
    expect(left).toHaveLength(11)
    expect(left.filter(({ id }) => id.startsWith(`${winner}-`))).toHaveLength(10)
    expect(await database.query('select lineage_id from latchkey_keys_quotas')).toHaveLength(11)
  })

  it('never take the quota from a successor, whenever the key before it is purged', async () => {
    for (let round = 0; round < 20; round += 1) {
      const ended = { revokedAt: at(0), lineageId: 'l', quota: quota(9) }
      await storeOf(0).insert([record({ id: 'old', ...ended })])
      const [, ...purged] = await atOnce(
        5,
        (store, i): Promise<unknown> =>
          i === 0 ? store.insert([record({ id: 'new', ...ended })]) : store.purge(['old'], at(1)),
      )
      expect(purged.toSorted()).toEqual([0, 0, 0, 1])
      expect(await storeOf(1).swapQuota('l', quota(9), leased(quota(9), 1))).toEqual({ swapped: true })
      expect(await storeOf(0).purge(['new'], at(1))).toBe(1)
      expect(await database.query('select * from latchkey_keys_quotas')).toEqual([])
    }
  })

  it('show every key once, page by page, while others are inserted', async () => {
    const ids = Array.from({ length: 200 }, (_, i) => `k${String(i).padStart(3, '0')}`)
    await storeOf(0).insert(ids.map((id, i) => record({ id, createdAt: at(i >> 3) })))
    let isDone = false
    let inserted = 0
    const insertOthers = async () => {
      while (!isDone) {
        const others = [-1, 12, 99].map((ms) => record({ id: `x${inserted++}`, createdAt: at(ms) }))
        await storeOf(1).insert(others)
      }
    }
    const inserting = insertOthers()
    const seen: KeyRecord[] = []
    let after: KeyPosition | undefined
    do {
      const page = await storeOf(0).list({}, { limit: 7, ...(after && { after }) })
      seen.push(...page)
      after = page.at(-1)
      // Those behind everything go on and on.
    } while (after && after.createdAt < at(90))
    isDone = true
    await inserting
    expect(inserted).toBeGreaterThan(0)
    expect(new Set(seen.map(({ id }) => id)).size).toBe(seen.length)
    expect(seen.map(({ id }) => id).filter((id) => id.startsWith('k'))).toEqual(ids)
  })
})

describe('a PostgreSQL whose connections end under load', () => {
  it('fails calls and not the process, undoes what was half done, and goes on', async () => {
    const database = await createPostgres()
    const pool = new Pool({ connectionString: database.url, application_name: 'victim' })
    pool.on('error', () => {})
    const store = postgresStore(pool)
    await migrate(store)
    const outcomes: string[] = []
    let attempts = 0
    const load = async () => {
      while (attempts < 400) {
        const i = attempts++
        const batch = [0, 1, 2].map((j) => record({ id: `${i}-${j}`, quota: quota(1) }))
        await store.insert(batch).then(
          () => outcomes.push('resolved'),
          (error) => {
            outcomes.push('failed')
            expect(error).toBeInstanceOf(Error)
          },
        )
        if (i % 100 === 50)
          await database.query(
            `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'victim'`,
          )
      }
    }
    await Promise.all(Array.from({ length: 10 }, load))
    expect(new Set(outcomes)).toEqual(new Set(['resolved', 'failed']))
    const counts = await database.query(
      `select count(*)::int as keys from latchkey_keys group by split_part(id, '-', 1)`,
    )
    expect(new Set(counts.map(({ keys }) => keys))).toEqual(new Set([3]))
    expect(counts.length).toBeGreaterThanOrEqual(outcomes.filter((outcome) => outcome === 'resolved').length)
    expect(pool.idleCount).toBe(pool.totalCount)
    await pool.end()
    await database.remove()
  })
})

describe('a SQLite database that the application hands in', () => {
  it('stays open, and keeps apart from transactions of the application', async () => {
    const files = await createSqlite()
    const handed = new Libsql(files.url)
    const store = sqliteStore(handed)
    await migrate(store)
    await store.insert([record({ id: 'a' })])
    handed.exec('create table theirs (n integer)')
    handed.exec('begin')
    handed.exec('insert into theirs values (1)')
    const revoked = store.update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
    await new Promise(setImmediate)
    handed.exec('rollback')
    expect(await revoked).toBe('updated')
    expect(await files.open().find({ id: 'a' })).toMatchObject({ revokedAt: at(1) })
    await store.close()
    await expect(store.find({ id: 'a' })).rejects.toThrow('closed')
    expect(handed.prepare('select * from theirs').all()).toEqual([])
    handed.close()
    await files.remove()
  })
})

describe('a SQLite file', () => {
  it('is in WAL mode, with every commit on the disk', async () => {
    const files = await createSqlite()
    await migrate(files.open())
    expect(await files.query('pragma journal_mode')).toMatchObject([{ journal_mode: 'wal' }])
    await files.remove()
  })
})
