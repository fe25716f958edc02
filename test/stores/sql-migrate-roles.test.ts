import { createApiKeys, memoryRateLimiter } from 'latchkey'
import { migrate, mysqlStore, postgresStore, type SqlStore, sqliteStore } from 'latchkey/sql'
import { createPool } from 'mysql2/promise'
import { Pool } from 'pg'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createMariadb, createPostgres, createSqlite, type TestDatabase } from '../support/sql-databases.ts'
import { ALICE } from '../support/test-keys.ts'

const STEPS = ['1-create-tables', '2-index-statuses']
const TABLES = ['latchkey_keys', 'latchkey_keys_quotas', 'latchkey_keys_migrations']

/** A database beside which an application runs that may not change its schema. */
interface World {
  readonly database: TestDatabase
  /** Lets the application use the tables that there are: those that change, and those that are read alone. */
  grant(): Promise<void>
  /** A store of the application, and what is done before each connection that it takes. */
  open(beforeConnection?: () => Promise<void>): SqlStore
  close(): Promise<void>
  /** What `migrate` says where it may not do what is to be done. */
  readonly refusal: { readonly code: string; readonly message: unknown }
}

const DENIED =
  /and this role may not change that \(\w+\): run migrate\(store\) as a role .*, or apply the published SQL$/

async function onPostgres(): Promise<World> {
  const database = await createPostgres()
  const role = `app_${new URL(database.url).pathname.slice(-12)}`
  await database.query(`create role ${role} login`)
  const url = Object.assign(new URL(database.url), { username: role, password: '' })
  const pool = new Pool({ connectionString: url.href })
  const [changed, read] = [TABLES.slice(0, 2).join(', '), TABLES[2]]
  return {
    database,
    async grant() {
      await database.query(`grant select, insert, update, delete on ${changed} to ${role}`)
      await database.query(`grant select on ${read} to ${role}`)
    },
    open: (beforeConnection = async () => {}) =>
      postgresStore({
        async connect() {
          await beforeConnection()
          return pool.connect()
        },
      }),
    async close() {
      await pool.end()
      await database.query(`drop owned by ${role}`)
      await database.query(`drop role ${role}`)
      await database.remove()
    },
    refusal: { code: 'not_migrated', message: expect.stringMatching(DENIED) },
  }
}

async function onMariadb(): Promise<World> {
  const database = await createMariadb()
  const role = `app_${new URL(database.url).pathname.slice(-12)}`
  await database.query(`create user ${role}`)
  const url = Object.assign(new URL(database.url), { username: role, password: '' })
  const pool = createPool({ uri: url.href })
  // Without any right on a database nobody can connect to it.
  await database.query('create table of_the_application (id int)')
  await database.query(`grant select on of_the_application to ${role}`)
  return {
    database,
    async grant() {
      for (const table of TABLES.slice(0, 2))
        await database.query(`grant select, insert, update, delete on ${table} to ${role}`)
      await database.query(`grant select on ${TABLES[2]} to ${role}`)
    },
    open: (beforeConnection = async () => {}) =>
      mysqlStore({
        getConnection(callback) {
          void beforeConnection().then(() => pool.pool.getConnection(callback))
        },
      }),
    async close() {
      await pool.end()
      await database.query(`drop user ${role}`)
      await database.remove()
    },
    refusal: { code: 'not_migrated', message: expect.stringMatching(DENIED) },
  }
}

async function onSqlite(): Promise<World> {
  const database = await createSqlite()
  const stores: SqlStore[] = []
  return {
    database,
    async grant() {},
    open() {
      const store = sqliteStore(`file:${database.url}?mode=ro`)
      stores.push(store)
      return store
    },
    async close() {
      for (const store of stores) await store.close()
      await database.remove()
    },
    refusal: {
      code: 'read_only',
      message: expect.stringMatching(/takes no writes here: run migrate\(store\) as a role .*, or apply/),
    },
  }
}

describe.each([
  ['PostgreSQL', onPostgres],
  ['MariaDB', onMariadb],
  ['SQLite', onSqlite],
])('migrate on %s as a role that may not change the schema', (name, create) => {
  let world: World
  beforeEach(async () => {
    world = await create()
  })
  afterEach(() => world.close())

  it('finds nothing to do where the tables are up to date', async () => {
    await migrate(world.database.open())
    await world.grant()
    expect(await migrate(world.open())).toEqual({ applied: [] })
    const results = await Promise.all(Array.from({ length: 8 }, () => migrate(world.open())))
    expect(results.flatMap(({ applied }) => applied)).toEqual([])
  })

  it('runs what is needed afterwards', async () => {
    await migrate(world.database.open())
    await world.grant()
    const store = world.open()
    await migrate(store)
    const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'acme' })
    if (name === 'SQLite') {
      expect((await keys.list()).apiKeys).toEqual([])
    } else {
      const { key } = await keys.issue({ owner: ALICE, name: 'CI' })
      expect(await keys.verify(key)).toMatchObject({ ok: true })
    }
    await keys.close()
  })

  it('says what to do where there are no tables', async () => {
    // There has to be a file that can be opened.
    if (name === 'SQLite') await world.database.query('create table of_the_application (id int)')
    const error = await migrate(world.open()).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ ...world.refusal, status: 503 })
    expect((error as Error).message).toContain('"latchkey_keys_migrations"')
  })

  it('names what is missing where that is a step of a later release', async () => {
    await migrate(world.database.open())
    await world.grant()
    await world.database.query(`delete from latchkey_keys_migrations where name = '${STEPS[1]}'`)
    const error = await migrate(world.open()).catch((reason: unknown) => reason)
    // MariaDB has nothing to create in this step: only that it is done cannot be written down.
    expect(error).toMatchObject({ ...world.refusal, status: 503 })
    expect((error as Error).message).toContain(`lacks ${STEPS[1]}`)
    expect(await migrate(world.database.open())).toEqual({ applied: [STEPS[1]] })
    expect(await migrate(world.open())).toEqual({ applied: [] })
  })
})

describe.each([
  ['PostgreSQL', onPostgres],
  ['MariaDB', onMariadb],
])('migrate on %s beside another process', (_name, create) => {
  it('is content with what that one has done by the time it finds that it may not', async () => {
    const world = await create()
    try {
      let connections = 0
      const store = world.open(async () => {
        connections += 1
        if (connections !== 2) return
        await migrate(world.database.open())
        await world.grant()
      })
      expect(await migrate(store)).toEqual({ applied: [] })
      expect(connections).toBe(3)
    } finally {
      await world.close()
    }
  })
})
