import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { memoryStore } from 'latchkey'
import { migrate, migrationSql, type SqlDialect, type SqlStore } from 'latchkey/sql'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { at, lease, quota, record } from '../support/key-records.ts'
import { DATABASES, type TestDatabase } from '../support/sql-databases.ts'
import { runSqlWorkers } from '../support/sql-workers.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

const STEPS = ['1-create-tables', '2-index-statuses', '3-create-agreements', '4-create-usage']
const DIALECTS: Record<string, SqlDialect> = { SQLite: 'sqlite', PostgreSQL: 'postgres', MariaDB: 'mariadb' }

describe.each(DATABASES)('migrate on %s', (name, create) => {
  let database: TestDatabase
  beforeEach(async () => {
    database = await create()
  })
  afterEach(() => database.remove())

  it('says what it applied, and the second time that there was nothing to do', async () => {
    const store = database.open()
    expect(await migrate(store)).toEqual({ applied: STEPS })
    await store.insert([record({ id: 'a' })])
    expect(await migrate(store)).toEqual({ applied: [] })
    expect(await migrate(database.open())).toEqual({ applied: [] })
    expect(await store.find({ id: 'a' })).toEqual(record({ id: 'a' }))
  })

  it('finishes what was broken off half way', async () => {
    const [first = ''] = migrationSql(DIALECTS[name] as SqlDialect)
      .split(';\n')
      .slice(1)
    await database.query(first)
    expect(await migrate(database.open())).toEqual({ applied: STEPS })
  })

  it('leaves alone what a later release has added', async () => {
    const store = database.open()
    await migrate(store)
    await database.query('alter table latchkey_keys add column of_tomorrow text')
    await database.query(`insert into latchkey_keys_migrations values ('9-of-tomorrow', 1)`)
    expect(await migrate(store)).toEqual({ applied: [] })
    await store.insert([record({ id: 'a' })])
    expect(await store.find({ id: 'a' })).toEqual(record({ id: 'a' }))
  })

  it('lets one of many do it that start at once', async () => {
    const results = await Promise.all(Array.from({ length: 8 }, () => migrate(database.open())))
    expect(results.flatMap(({ applied }) => applied)).toEqual(STEPS)
  })

  it('lets one of two processes do it that start at once', async () => {
    const reports = await runSqlWorkers(2, name, database)
    expect(reports.flatMap(({ applied }) => applied)).toEqual(STEPS)
    const store: SqlStore = database.open()
    await store.insert([record({ id: 'a' })])
    expect(await store.find({ id: 'a' })).not.toBeNull()
  })

  it('keeps stores of one database apart by the name of their table', async () => {
    const [one, other] = [database.open(), database.open({ table: 'Other_keys' })]
    await migrate(one)
    await expect(other.find({ id: 'a' })).rejects.toMatchObject({ code: 'not_migrated' })
    expect(await migrate(other)).toEqual({ applied: STEPS })
    await one.insert([record({ id: 'a' })])
    expect(await other.find({ id: 'a' })).toBeNull()
    expect(await database.query('select * from latchkey_keys_migrations')).toHaveLength(STEPS.length)
  })

  it('keeps its tables in the schema that it is given, and says so where there is none', async () => {
    if (name === 'SQLite') {
      expect(() => database.open({ schema: 'auth' })).toThrow(/no option "schema"/)
      return
    }
    const schema = `auth_${new URL(database.url).pathname.slice(-12)}`
    const store = database.open({ schema })
    const missing = {
      code: 'not_migrated',
      message: expect.stringMatching(/no such schema or database .*create it/),
    }
    await expect(migrate(store)).rejects.toMatchObject(missing)
    await database.query(`create schema ${schema}`)
    try {
      expect(await migrate(store)).toEqual({ applied: STEPS })
      await store.insert([record({ id: 'a', quota: quota(5) })])
      await store.recordUsage([{ id: 'a', count: 1, lastUsedAt: at(1), lastUsedIp: null }])
      await store.update('a', 1, { quota: { remaining: 9 }, revokedAt: at(1), updatedAt: at(1) })
      expect(await lease(store, 'a', 2)).toBe(2)
      expect(await store.list({ status: { is: 'revoked', at: at(1) } }, { limit: 1 })).toMatchObject([
        { id: 'a', usageCount: 1, quota: { remaining: 7 } },
      ])
      expect(await store.purge(['a'], at(1))).toBe(1)
      await expect(database.open().find({ id: 'a' })).rejects.toMatchObject({ code: 'not_migrated' })
    } finally {
      await database.query(`drop schema ${schema}${name === 'PostgreSQL' ? ' cascade' : ''}`)
    }
  })

  it('makes the longest name that is taken, and the shortest', async () => {
    for (const table of ['t'.repeat(48), 'T', '_']) {
      const store = database.open({ table })
      await migrate(store)
      await store.insert([record({ id: 'a' })])
      expect(await store.list({}, { limit: 2 })).toEqual([record({ id: 'a' })])
    }
  })

  it('makes the tables that the published SQL makes', async () => {
    const published = await create()
    try {
      await migrate(database.open())
      for (const statement of migrationSql(DIALECTS[name] as SqlDialect).split(';\n')) {
        if (statement.trim() !== '') await published.query(statement)
      }
      expect(await migrate(published.open())).toEqual({ applied: [] })
      const [applied, by] = [await describeTables(database, name), await describeTables(published, name)]
      expect(applied).toEqual(by)
      expect(JSON.stringify(applied)).toContain('next_refill_at_ms')
      const times = `select applied_at_ms as at from latchkey_keys_migrations`
      const [own, theirs] = [await database.query(times), await published.query(times)].map((rows) =>
        Number(rows[0]?.at),
      )
      expect(Math.abs((own as number) - (theirs as number))).toBeLessThan(60_000)
    } finally {
      await published.remove()
    }
  })
})

describe('migrate', () => {
  it.each([[null], [{}], [memoryStore()]])('refuses what is no SQL store: %o', async (store) => {
    await expect(migrate(store as never)).rejects.toThrow(/"store" must be made by postgresStore/)
  })
})

describe('the published SQL', () => {
  // The build leads bundlers from this folder to the door of the same name.
  const files = readdirSync(`${root}sql`)
    .filter((file) => file !== 'package.json')
    .sort()

  it.each(['postgres', 'mysql', 'mariadb', 'sqlite'] as const)(
    'is what migrationSql answers for %s',
    (dialect) => {
      const texts = files
        .filter((file) => file.endsWith(`.${dialect}.sql`))
        .map((file) => readFileSync(`${root}sql/${file}`, 'utf8'))
      expect(texts.join('\n')).toBe(migrationSql(dialect))
      for (const step of STEPS) expect(files).toContain(`${step}.${dialect}.sql`)
    },
  )

  it('has a file for each dialect and nothing else', () => {
    expect(
      files.filter((file) => !/^\d+-[a-z-]+\.(?:postgres|mysql|mariadb|sqlite)\.sql$/.test(file)),
    ).toEqual([])
    expect(files.length % 4).toBe(0)
  })

  it('names the table and the schema that are asked for', () => {
    const text = migrationSql('postgres', { table: 'api_keys', schema: 'auth' })
    expect(text).toContain('create table if not exists "auth"."api_keys_quotas"')
    expect(text).not.toContain('latchkey')
  })

  it.each([[['oracle']], [['postgres', { table: 'a b' }]], [['sqlite', { schema: 'auth' }]]])(
    'refuses %j',
    (given) => {
      expect(() => migrationSql(...(given as Parameters<typeof migrationSql>))).toThrow(TypeError)
    },
  )
})

/** Columns and indexes, as the database itself describes them. */
async function describeTables(database: TestDatabase, name: string): Promise<unknown> {
  if (name === 'SQLite') return database.query('select name, sql from sqlite_schema order by name')
  if (name === 'MariaDB') {
    const tables = [
      'keys',
      'keys_quotas',
      'keys_agreements',
      'keys_usage',
      'keys_usage_writers',
      'keys_migrations',
    ].map((table) => `latchkey_${table}`)
    return Promise.all(tables.map((table) => database.query(`show create table ${table}`)))
  }
  const columns = `select table_name, column_name, data_type, is_nullable, collation_name
    from information_schema.columns where table_schema = 'public' order by 1, 2`
  return [
    await database.query(columns),
    await database.query(`select indexdef from pg_indexes where schemaname = 'public' order by 1`),
  ]
}
