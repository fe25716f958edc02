import { writeFileSync } from 'node:fs'
import { inspect } from 'node:util'
import type { KeyRecord, KeyStore } from 'latchkey'
import {
  migrate,
  mysqlStore,
  type PostgresClient,
  postgresStore,
  type SqlStore,
  sqliteStore,
} from 'latchkey/sql'
import Libsql from 'libsql'
import mysql from 'mysql2'
import mysqlPromise from 'mysql2/promise'
import { Pool } from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest'
import { at, lease, leased, quota, record } from '../support/key-records.ts'
import {
  createMariadb,
  createPostgres,
  createSqlite,
  DATABASES,
  type TestDatabase,
} from '../support/sql-databases.ts'

const SECRET = 'attack at dawn'
const longAgo = new Date(0)

/** One call of every method. */
const CALLS: readonly (readonly [string, (store: SqlStore) => Promise<unknown>])[] = [
  ['insert', (store) => store.insert([record({ id: SECRET, quota: quota(1) })])],
  ['find by id', (store) => store.find({ id: SECRET })],
  ['find by lookup', (store) => store.find({ lookups: [SECRET] })],
  ['update', (store) => store.update(SECRET, 1, { name: SECRET, updatedAt: longAgo })],
  ['replaceDigest', (store) => store.replaceDigest(SECRET, SECRET, SECRET)],
  ['list', (store) => store.list({ name: SECRET }, { limit: 1 })],
  ['purge', (store) => store.purge([SECRET], longAgo)],
  [
    'recordUsage',
    (store) => store.recordUsage([{ id: SECRET, count: 1, lastUsedAt: longAgo, lastUsedIp: SECRET }]),
  ],
  ['swapQuota', (store) => store.swapQuota(SECRET, quota(1), leased(quota(1), 1))],
  [
    'swapQuotas',
    (store) => store.swapQuotas([{ lineageId: SECRET, expected: quota(1), next: leased(quota(1), 1) }]),
  ],
]

async function failureOf(call: Promise<unknown>): Promise<Error> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(Error)
  expect(inspect(error, { depth: 9 })).not.toContain(SECRET)
  return error as Error
}

describe.each(DATABASES)('%s', (name, create) => {
  let database: TestDatabase
  let store: SqlStore
  beforeEach(async () => {
    database = await create()
    store = database.open()
  })
  afterEach(() => database.remove())

  it.each(CALLS)('says to migrate where the tables are missing: %s', async (_call, run) => {
    const error = await failureOf(run(store))
    expect(error).toMatchObject({ code: 'not_migrated', status: 503 })
    expect(error.message).toMatch(/run migrate\(store\), or apply the published SQL/)
    await migrate(store)
    await expect(run(store)).resolves.not.toThrow()
  })

  it('says to migrate where a column is missing', async () => {
    await migrate(store)
    await database.query('alter table latchkey_keys rename column hint to old_hint')
    for (const [, run] of CALLS.slice(0, 2)) {
      expect(await failureOf(run(store))).toMatchObject({ code: 'not_migrated' })
    }
  })

  it.each([
    ['metadata', `'{"broken'`],
    ['metadata', `'[]'`],
    ['permissions', `'${SECRET}'`],
    ['rate_limits', `'{}'`],
    ['allowed_ips', `'1'`],
    ['created_at_ms', '9000000000000000'],
    ['version', '9007199254740993'],
  ])('names the column that cannot be read, and not what is in it: %s', async (column, value) => {
    await migrate(store)
    await store.insert([record({ id: 'a' }), record({ id: 'b' })])
    await database.query(`update latchkey_keys set ${column} = ${value} where id = 'a'`)
    for (const read of [
      () => store.find({ id: 'a' }),
      () => store.find({ lookups: ['a'] }),
      () => store.list({}, { limit: 9 }),
    ]) {
      const error = await failureOf(read())
      expect(error).toMatchObject({ code: 'malformed_record', status: 503 })
      expect(error.message).toContain(`"${column}"`)
    }
    expect(await store.find({ id: 'b' })).toEqual(record({ id: 'b' }))
  })

  it('names the column of a quota that cannot be read, and hands out nothing of it', async () => {
    await migrate(store)
    await store.insert([record({ id: 'a', quota: quota(5) })])
    await database.query(`update latchkey_keys_quotas set refill = '[1]'`)
    for (const read of [() => store.find({ id: 'a' }), () => store.swapQuota('a', quota(9), quota(9))]) {
      const error = await failureOf(read())
      expect(error).toMatchObject({ code: 'malformed_record' })
      expect(error.message).toContain('"refill"')
    }
    await database.query(`update latchkey_keys_quotas set refill = null`)
    expect(await store.swapQuota('a', quota(9), quota(9))).toEqual({ swapped: false, current: quota(5) })
  })

  it('keeps what is in a row out of the error for a duplicate', async () => {
    await migrate(store)
    await store.insert([record({ id: SECRET })])
    const error = await failureOf(store.insert([record({ id: 'other', lookup: SECRET })]))
    expect(error).toMatchObject({ code: 'duplicate_key', status: 409 })
  })

  const UNSTORABLE = ['nul \0', 'half \ud83d', '\udd11 half']
  it.each(UNSTORABLE)('refuses a text that a database would change: %j', async (text) => {
    await migrate(store)
    const given: Partial<KeyRecord>[] = [
      { name: text },
      { lookup: text },
      { digest: text },
      { owner: { type: 'user', id: text } },
      { createdBy: text },
    ]
    for (const members of given) {
      const error = await failureOf(store.insert([record({ id: 'a', ...members })]))
      expect(error).toMatchObject({ code: 'unsupported' })
      expect(error.message).toMatch(/"(?:name|lookup|digest|ownerId|createdBy)" holds a NUL or half/)
    }
    await store.insert([record({ id: 'a' })])
    const change = { name: text, updatedAt: at(1) }
    expect(await failureOf(store.update('a', 1, change))).toMatchObject({ code: 'unsupported' })
    expect(await failureOf(store.replaceDigest('a', '$sha256$a', text))).toMatchObject({
      code: 'unsupported',
    })
    expect(await store.list({}, { limit: 2 })).toEqual([record({ id: 'a' })])
  })

  it.each(UNSTORABLE)('knows no key by a text that cannot be there: %j', async (text) => {
    await migrate(store)
    await store.insert([record({ id: 'a' })])
    expect(await store.find({ id: text })).toBeNull()
    expect(await store.find({ lookups: [text] })).toBeNull()
    expect(await store.find({ lookups: [text, 'a'] })).toEqual(record({ id: 'a' }))
    expect(await store.update(text, 1, { updatedAt: at(1) })).toBe('missing')
    expect(await store.replaceDigest(text, 'x', 'y')).toBe(false)
    for (const filter of [
      { name: text },
      { createdBy: text },
      { lineageId: text },
      { owners: [{ type: text, id: 'x' }] },
      { owners: [record({ id: 'a' }).owner], name: text },
    ])
      expect(await store.list(filter, { limit: 1 })).toEqual([])
    const owners = [{ type: text, id: 'x' }, record({ id: 'a' }).owner, { type: 'x', id: text }]
    expect(await store.list({ owners }, { limit: 1 })).toEqual([record({ id: 'a' })])
    expect(await store.purge([text], at(1))).toBe(0)
    expect(await store.swapQuota(text, quota(1), quota(1))).toEqual({ swapped: false, current: null })
    const use = { count: 1, lastUsedAt: at(1), lastUsedIp: null }
    await store.recordUsage([
      { id: text, ...use },
      { id: 'a', ...use },
    ])
    expect(await store.find({ id: 'a' })).toMatchObject({ usageCount: 1 })
  })

  it('tells texts apart that a collation would take for one', async () => {
    await migrate(store)
    const ids = ['a', 'A', 'a ', 'á', 'a\u0301', 'ａ', '\u{10000}', '\uffff', 'ß', 'ss']
    await store.insert(ids.map((id) => record({ id, name: id, owner: { type: 'user', id } })))
    for (const id of ids) {
      expect(await store.find({ id })).toMatchObject({ id })
      expect(await store.find({ lookups: [id] })).toMatchObject({ id })
      expect(await store.list({ name: id }, { limit: 9 })).toHaveLength(1)
      expect(await store.list({ owners: [{ type: 'user', id }] }, { limit: 9 })).toHaveLength(1)
    }
    const byCodePoint = [...ids].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    const listed = await store.list({}, { limit: 99 })
    expect(listed.map(({ id }) => id)).toEqual(byCodePoint)
  })

  it('keeps the longest of everything', async () => {
    await migrate(store)
    const full = record({
      id: 'i'.repeat(255),
      lookup: '\u{1F511}'.repeat(700),
      digest: 'd'.repeat(1_000),
      lineageId: 'l'.repeat(255),
      name: 'ö'.repeat(255),
      owner: { type: 't'.repeat(64), id: '\u{1F3E2}'.repeat(255) },
      createdBy: 'c'.repeat(255),
      metadata: { text: 'x'.repeat(131_000) },
      revokedReason: 'r'.repeat(1_000),
    })
    // The index of PostgreSQL is the narrower one: 2,704 bytes.
    const kept = name === 'PostgreSQL' ? { ...full, lookup: 'k'.repeat(2_600) } : full
    await store.insert([kept])
    expect(await store.find({ lookups: [kept.lookup] })).toEqual(kept)
  })

  it('answers when it is asked more than its connections can answer at once', async () => {
    await migrate(store)
    await store.insert([record({ id: 'a', quota: quota(100) })])
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, i) => (i % 2 ? store.find({ id: 'a' }) : lease(store, 'a', 1))),
    )
    expect(answers).not.toContain(null)
  })
})

describe('a database that takes no writes', () => {
  const WRITES = CALLS.filter(([call]) => !/^(?:find|list)/.test(call))

  it.each(WRITES)('is read_only in PostgreSQL: %s', async (_call, run) => {
    const database = await createPostgres()
    const pool = new Pool({ connectionString: database.url, options: '-c default_transaction_read_only=on' })
    try {
      await migrate(database.open())
      await database
        .open()
        .insert([record({ id: SECRET, digest: SECRET, quota: quota(1), revokedAt: at(0) })])
      const store = postgresStore(pool)
      expect(await failureOf(run(store))).toMatchObject({ code: 'read_only', status: 503 })
      expect(await store.find({ id: SECRET })).not.toBeNull()
      expect(await migrate(store)).toEqual({ applied: [] })
    } finally {
      await pool.end()
      await database.remove()
    }
  })

  it.each(WRITES)('is read_only in SQLite: %s', async (_call, run) => {
    const database = await createSqlite()
    try {
      await migrate(database.open())
      await database
        .open()
        .insert([record({ id: SECRET, digest: SECRET, quota: quota(1), revokedAt: at(0) })])
      const store = sqliteStore(`file:${database.url}?mode=ro`)
      expect(await failureOf(run(store))).toMatchObject({ code: 'read_only', status: 503 })
      expect(await store.find({ id: SECRET })).not.toBeNull()
      await store.close()
    } finally {
      await database.remove()
    }
  })
})

describe('what is no pool of the right database', () => {
  const postgres = new Pool()
  const plain = mysql.createPool({})
  const promised = mysqlPromise.createPool({})
  const sqlite = new Libsql(':memory:')
  afterAll(async () => {
    await postgres.end()
    await promised.end()
    await plain.promise().end()
    sqlite.close()
  })

  it.each([
    ['postgresStore', /use mysqlStore/, () => postgresStore(plain as never)],
    ['postgresStore', /use mysqlStore/, () => postgresStore(promised as never)],
    ['postgresStore', /use sqliteStore/, () => postgresStore(sqlite as never)],
    ['mysqlStore', /use postgresStore/, () => mysqlStore(postgres as never)],
    ['mysqlStore', /use sqliteStore/, () => mysqlStore(sqlite as never)],
    ['sqliteStore', /use postgresStore/, () => sqliteStore(postgres as never)],
    ['sqliteStore', /use mysqlStore/, () => sqliteStore(plain as never)],
    ['sqliteStore', /use mysqlStore/, () => sqliteStore(promised as never)],
  ])('is refused by %s: %s', (_store, message, make) => {
    expect(make).toThrow(TypeError)
    expect(make).toThrow(message)
  })

  const mistakes: [() => unknown, RegExp][] = [
    [() => postgresStore('postgres://localhost' as never), /"pool" must have a method "connect"/],
    [() => postgresStore(undefined as never), /"pool" must have a method "connect"/],
    [() => mysqlStore({} as never), /"pool" must have a method "getConnection"/],
    [() => sqliteStore('' as never), /"fileOrDatabase" must be the name of a file, or a database/],
    [() => sqliteStore({ prepare() {} } as never), /"fileOrDatabase" must have a method "exec"/],
    [() => postgresStore(postgres, { tables: 'x' } as never), /no option "tables"; did you mean "table"/],
    [() => sqliteStore('keys.db', { schema: 'x' } as never), /no option "schema"/],
    ...['', 'a b', 'a"b', '1a', 'a-b', 'ä', 't'.repeat(49), 'sqlite_keys', 7].map(
      (table) =>
        [() => postgresStore(postgres, { table } as never), /"table" must be 1 to 48/] as [
          () => unknown,
          RegExp,
        ],
    ),
    [() => mysqlStore(plain, { schema: 'a.b' }), /"schema" must be 1 to 63/],
  ]
  it.each(mistakes)('is refused by %o', (make, message) => {
    expect(make).toThrow(TypeError)
    expect(make).toThrow(message)
  })
})

describe('another database than the pool says', () => {
  it('is wrong_dialect where a MariaDB answers a pool of PostgreSQL', async () => {
    const { hostname: host, port } = new URL(inject('mariadbUrl'))
    const pool = new Pool({ host, port: Number(port), user: 'root' })
    expect(await failureOf(postgresStore(pool).find({ id: 'a' }))).toMatchObject({ code: 'wrong_dialect' })
    await pool.end()
  })

  it('is wrong_dialect where the pool of one database wears the methods of another', async () => {
    const database = await createPostgres()
    const pool = new Pool({ connectionString: database.url })
    const disguised = {
      getConnection(callback: (error: null, connection: unknown) => void) {
        const run = (
          { sql, values }: { sql: string; values: unknown[] },
          done: (...answer: unknown[]) => void,
        ) => {
          pool.query(sql, values).then(
            ({ rows }) => done(null, rows),
            (error) => done(Object.assign(error, { errno: 1064, sqlState: error.code })),
          )
        }
        callback(null, { query: run, execute: run, release() {}, destroy() {} })
      },
    }
    expect(await failureOf(mysqlStore(disguised as never).find({ id: SECRET }))).toMatchObject({
      code: 'wrong_dialect',
    })
    await pool.end()
    await database.remove()
  })

  it('is wrong_dialect where a file holds something else', async () => {
    const database = await createSqlite()
    const file = `${database.url}.txt`
    writeFileSync(file, 'a list of things to do, longer than the header of a database '.repeat(100))
    expect(await failureOf(sqliteStore(file).find({ id: 'a' }))).toMatchObject({ code: 'wrong_dialect' })
    await database.remove()
  })
})

describe('what a server keeps too little of', () => {
  let database: TestDatabase
  beforeAll(async () => {
    database = await createMariadb()
    await migrate(database.open())
  })
  afterAll(() => database.remove())

  it.each([
    ['id', { id: 'i'.repeat(256) }],
    ['lookup', { lookup: 'k'.repeat(701) }],
    ['owner_id', { owner: { type: 'user', id: SECRET.repeat(20) } }],
    ['digest', { digest: 'd'.repeat(16_001) }],
  ])('is refused, even by a lenient MariaDB: %s', async (column, members) => {
    const pool = mysql.createPool(database.url)
    pool.on('connection', (connection) => connection.query(`set session sql_mode = ''`))
    const store = mysqlStore(pool)
    const error = await failureOf(store.insert([record({ id: 'a', ...members })]))
    expect(error).toMatchObject({ code: 'unsupported' })
    expect(error.message).toContain(`"${column}"`)
    expect(await store.list({}, { limit: 1 })).toEqual([])
    await pool.promise().end()
  })

  it.each([
    ['charset "utf8mb4"', { charset: 'latin1' }, ''],
    ['autocommit on', {}, 'set session autocommit = 0'],
  ])(
    'is refused where the connection would change or lose it: it must have %s',
    async (what, config, setup) => {
      const pool = mysql.createPool({ uri: database.url, ...config })
      if (setup) pool.on('connection', (connection) => connection.query(setup))
      const error = await failureOf(mysqlStore(pool).insert([record({ id: 'a' })]))
      expect(error).toMatchObject({ code: 'wrong_dialect', status: 503 })
      expect(error.message).toContain(what)
      await pool.promise().end()
    },
  )
})

describe('settings of a driver', () => {
  const full = record({
    id: 'Zoë \\\' "',
    enabled: false,
    quota: quota(5, 1_000),
    expiresAt: new Date(Date.UTC(9999, 11, 31, 23, 59, 59, 999)),
    usageCount: Number.MAX_SAFE_INTEGER,
    rateLimits: [],
  })

  async function expectKept(store: KeyStore) {
    await store.insert([full])
    expect(await store.find({ id: full.id })).toEqual(full)
    expect(await store.list({ status: { is: 'disabled', at: at(0) } }, { limit: 5 })).toEqual([full])
    const next = leased(quota(5, 1_000), 2)
    expect(await store.swapQuota?.(full.id, quota(5, 1_000), next)).toEqual({ swapped: true })
    expect((await store.find({ id: full.id }))?.quota).toEqual(next)
  }

  it('are refused where they destroy numbers: binary results in PostgreSQL', async () => {
    const database = await createPostgres()
    await migrate(database.open())
    await database.open().insert([full])
    const pool = new Pool({ connectionString: database.url, ...({ binary: true } as object) })
    const error = await failureOf(postgresStore(pool).find({ id: full.id }))
    expect(error).toMatchObject({ code: 'wrong_dialect', status: 503 })
    expect(error.message).toContain('binary')
    await pool.end()
    await database.remove()
  })

  it.each([
    ['parsers of its own', { types: { getTypeParser: () => () => 'parsed' } }],
    [
      'a time zone, and every transaction serializable',
      { options: '-c timezone=Asia/Kathmandu -c default_transaction_isolation=serializable' },
    ],
  ])('change nothing in PostgreSQL: %s', async (_what, config) => {
    const database = await createPostgres()
    const pool = new Pool({ connectionString: database.url, ...(config as object) })
    const store = postgresStore(pool)
    await migrate(store)
    await expectKept(store)
    await pool.end()
    await database.remove()
  })

  it.each([
    [
      'numbers as strings',
      { supportBigNumbers: true, bigNumberStrings: true, dateStrings: true, timezone: '+05:45' },
    ],
    ['rows as arrays', { rowsAsArray: true }],
    ['rows by table', { nestTables: true }],
    ['named placeholders', { namedPlaceholders: true }],
    ['a parser of its own', { typeCast: () => 'parsed' }],
    ['changed rows counted only', { flags: ['-FOUND_ROWS'] }],
    ['backslashes as they are', { multipleStatements: true }],
  ])('change nothing in MariaDB: %s', async (what, config) => {
    const database = await createMariadb()
    const pool = mysql.createPool({ uri: database.url, ...(config as object) })
    if (what === 'backslashes as they are')
      pool.on('connection', (connection) =>
        connection.query(`set session sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'`),
      )
    const store = mysqlStore(pool)
    await migrate(store)
    await expectKept(store)
    expect(await store.find({ lookups: [`\\' or 1=1 -- `] })).toBeNull()
    await pool.promise().end()
    await database.remove()
  })
})

describe('a connection that was given back with a transaction open', () => {
  it('of PostgreSQL takes no revocation along when it is rolled back', async () => {
    const database = await createPostgres()
    const pool = new Pool({ connectionString: database.url, max: 1 })
    try {
      const store = postgresStore(pool)
      await migrate(store)
      await store.insert([record({ id: 'a' })])
      const careless = await pool.connect()
      await careless.query('begin')
      await careless.query('select 1')
      careless.release()
      expect(await store.update('a', 1, { revokedAt: at(1), updatedAt: at(1) })).toBe('updated')
      await pool.query('rollback')
      expect(await database.open().find({ id: 'a' })).toMatchObject({ revokedAt: at(1) })
      // One that is broken is met once, and not given back to anybody.
      const broken = await pool.connect()
      await broken.query('begin')
      await broken.query('select nothing').catch(() => {})
      broken.release()
      const rename = () => store.update('a', 2, { name: 'new', updatedAt: at(2) })
      await expect(rename()).rejects.toThrow()
      expect(await rename()).toBe('updated')
    } finally {
      await pool.end()
      await database.remove()
    }
  })

  it('of MariaDB takes no revocation along when it is rolled back', async () => {
    const database = await createMariadb()
    const pool = mysqlPromise.createPool({ uri: database.url, connectionLimit: 1 })
    try {
      const store = mysqlStore(pool)
      await migrate(store)
      await store.insert([record({ id: 'a' })])
      const careless = await pool.getConnection()
      await careless.query('start transaction')
      await careless.query('select 1')
      careless.release()
      const revoke = () => store.update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
      await expect(revoke()).rejects.toThrow()
      expect(await revoke()).toBe('updated')
      expect(await database.open().find({ id: 'a' })).toMatchObject({ revokedAt: at(1) })
    } finally {
      await pool.end()
      await database.remove()
    }
  })
})

describe.each([
  ['PostgreSQL', createPostgres, openOnePostgres],
  ['MariaDB', createMariadb, openOneMariadb],
] as const)(
  'a connection of %s that was given back with a transaction open, which sees what there was when it began',
  (_name, create, openOne) => {
    let database: TestDatabase
    let one: OneConnection
    beforeEach(async () => {
      database = await create()
      one = openOne(database.url)
      await migrate(one.store)
      await one.store.insert([record({ id: 'a' })])
      await one.leaveOpen()
    })
    afterEach(async () => {
      await one.end()
      await database.remove()
    })

    it('answers no key as it was before it was revoked', async () => {
      await database.open().update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
      await expect(one.store.find({ id: 'a' })).rejects.toThrow()
      expect(await one.store.find({ id: 'a' })).toMatchObject({ revokedAt: at(1) })
    })

    it('lists no key as it was before it was revoked', async () => {
      await database.open().update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
      const list = () => one.store.list({ status: { is: 'active', at: at(2) } }, { limit: 1 })
      await expect(list()).rejects.toThrow()
      expect(await list()).toEqual([])
    })

    it('keeps no key locked that was used, so that it can be revoked', async () => {
      const use = () => one.store.recordUsage([{ id: 'a', count: 1, lastUsedAt: at(5), lastUsedIp: null }])
      await expect(use()).rejects.toThrow()
      expect(await database.open().update('a', 1, { revokedAt: at(6), updatedAt: at(6) })).toBe('updated')
      await use()
      expect(await one.store.find({ id: 'a' })).toMatchObject({ usageCount: 1, revokedAt: at(6) })
    })
  },
)

interface OneConnection {
  readonly store: SqlStore
  /** Has the only connection of the pool left in a transaction that has read. */
  leaveOpen(): Promise<void>
  end(): Promise<void>
}

function openOnePostgres(url: string): OneConnection {
  const pool = new Pool({ connectionString: url, max: 1 })
  return {
    store: postgresStore(pool),
    async leaveOpen() {
      const careless = await pool.connect()
      await careless.query('begin isolation level repeatable read')
      await careless.query('select * from latchkey_keys')
      careless.release()
    },
    end: () => pool.end(),
  }
}

function openOneMariadb(url: string): OneConnection {
  const pool = mysqlPromise.createPool({ uri: url, connectionLimit: 1 })
  return {
    store: mysqlStore(pool),
    async leaveOpen() {
      const careless = await pool.getConnection()
      await careless.query('start transaction')
      await careless.query('select * from latchkey_keys')
      careless.release()
    },
    end: () => pool.end(),
  }
}

describe('a commit that was made, and whose reply is lost', () => {
  /** Whether the next one is. What is tried again after it goes well. */
  let isNextLost = false
  const isLost = (text: string) => {
    const isThis = text === 'commit' && isNextLost
    if (isThis) isNextLost = false
    return isThis
  }

  it.each(['08006', '57P01', '40003', undefined])(
    'is no swap that was refused, in PostgreSQL: %s',
    async (code) => {
      const database = await createPostgres()
      const inner = new Pool({ connectionString: database.url, max: 1 })
      const lost = Object.assign(new Error('lost'), code !== undefined && { code, severity: 'ERROR' })
      const pool = {
        async connect() {
          const client = await inner.connect()
          const query: PostgresClient['query'] = async (asked) => {
            const result = await client.query(asked)
            if (isLost(asked.text)) throw lost
            return result
          }
          return Object.assign(Object.create(client) as PostgresClient, { query })
        },
      }
      try {
        await expectUnknown(database.open(), postgresStore(pool))
      } finally {
        await inner.end()
        await database.remove()
      }
    },
  )

  it.each([
    ['the connection', { code: 'PROTOCOL_CONNECTION_LOST', fatal: true }],
    ['the server', { errno: 1053, sqlState: '08S01' }],
    ['the time', { errno: 1205, sqlState: 'HY000' }],
  ])('is no swap that was refused, in MariaDB: %s', async (_what, members) => {
    const database = await createMariadb()
    const pool = mysql.createPool({ uri: database.url, connectionLimit: 1 })
    pool.on('connection', (connection) => {
      const query = connection.query.bind(connection) as (options: unknown, done: unknown) => unknown
      const losing = (options: { sql: string }, done: (error: unknown, result: unknown) => void) =>
        query(options, (error: unknown, result: unknown) =>
          done(isLost(options.sql) ? Object.assign(new Error('lost'), members) : error, result),
        )
      Object.assign(connection, { query: losing })
    })
    try {
      await expectUnknown(database.open(), mysqlStore(pool))
    } finally {
      await pool.promise().end()
      await database.remove()
    }
  })

  async function expectUnknown(whole: SqlStore, losing: SqlStore): Promise<void> {
    await migrate(whole)
    await whole.insert(['a', 'b'].map((id) => record({ id, quota: quota(5) })))
    const swap = (lineageId: string) => ({ lineageId, expected: quota(5), next: leased(quota(5), 2) })
    isNextLost = true
    await expect(losing.swapQuota('a', quota(5), leased(quota(5), 2))).rejects.toThrow()
    isNextLost = true
    await expect(losing.swapQuotas(['a', 'b'].map(swap))).rejects.toThrow()
    expect(isNextLost).toBe(false)
    for (const id of ['a', 'b'])
      expect(await whole.find({ id })).toMatchObject({ quota: leased(quota(5), 2) })
  }
})

it('asks MySQL for few different statements, whatever is asked of the store', async () => {
  const database = await createMariadb()
  const texts = new Set<string>()
  const pool = mysql.createPool({ uri: database.url, connectionLimit: 1 })
  try {
    pool.on('connection', (connection) => {
      const execute = connection.execute.bind(connection) as (...args: unknown[]) => unknown
      const noted = (options: { sql: string }, ...rest: unknown[]) => {
        texts.add(options.sql)
        return execute(options, ...rest)
      }
      Object.assign(connection, { execute: noted })
    })
    const store = mysqlStore(pool)
    await migrate(store)
    await store.insert(Array.from({ length: 60 }, (_, i) => record({ id: `k${i}` })))
    texts.clear()
    for (let i = 1; i <= 60; i++) {
      const ids = Array.from({ length: i }, (_, n) => `k${n}`)
      expect(await store.list({ name: 'CI' }, { limit: i })).toHaveLength(i)
      expect(await store.find({ lookups: ids })).toMatchObject({ id: 'k0' })
      expect(await store.purge(ids, at(0))).toBe(0)
    }
    expect(texts.size).toBeLessThan(30)
  } finally {
    await new Promise((resolve) => pool.end(resolve))
    await database.remove()
  }
})
