import { createApiKeys, type KeyStore, memoryRateLimiter } from 'latchkey'
import { migrate, mysqlStore, postgresStore, type SqlStore } from 'latchkey/sql'
import { createPool } from 'mysql2/promise'
import { Pool } from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { at, quota, record } from '../support/key-records.ts'
import { createMariadb, createPostgres, type TestDatabase } from '../support/sql-databases.ts'
import { ALICE } from '../support/test-keys.ts'

/** A store whose database cannot hold every text. */
interface Narrow {
  readonly store: SqlStore
  /** Removes all keys. */
  empty(): Promise<unknown>
  close(): Promise<void>
}

/** A database with another encoding than UTF-8. */
async function inPostgres(encoding: string): Promise<Narrow> {
  const name = `latchkey_${encoding.toLowerCase()}_${process.pid}`
  const server = new Pool({ connectionString: inject('postgresUrl'), max: 1 })
  await server.query(
    `create database ${name} encoding '${encoding}' template template0 lc_collate 'C' lc_ctype 'C'`,
  )
  const url = Object.assign(new URL(inject('postgresUrl')), { pathname: `/${name}` })
  const pool = new Pool({ connectionString: url.href })
  const store = postgresStore(pool)
  await migrate(store)
  return {
    store,
    empty: () => pool.query('delete from latchkey_keys'),
    async close() {
      await pool.end()
      await server.query(`drop database ${name}`)
      await server.end()
    },
  }
}

/** Tables whose texts somebody has made narrower than `migrate` does. */
async function inMariadb(charset: string): Promise<Narrow> {
  const database: TestDatabase = await createMariadb()
  const pool = createPool({ uri: database.url })
  const store = mysqlStore(pool)
  await migrate(store)
  for (const table of ['latchkey_keys', 'latchkey_keys_quotas'])
    await database.query(`alter table ${table} convert to character set ${charset} collate ${charset}_bin`)
  return {
    store,
    empty: () => database.query('delete from latchkey_keys'),
    async close() {
      await pool.end()
      await database.remove()
    },
  }
}

const KEY = '\u{1f511}'

describe.each([
  ['LATIN1 in PostgreSQL', () => inPostgres('LATIN1')],
  ['EUC_JP in PostgreSQL', () => inPostgres('EUC_JP')],
  ['latin1 in MariaDB', () => inMariadb('latin1')],
  ['utf8mb3 in MariaDB', () => inMariadb('utf8mb3')],
])('a text that %s has no characters for', (_encoding, open) => {
  let narrow: Narrow
  let store: SqlStore
  beforeAll(async () => {
    narrow = await open()
    store = narrow.store
  })
  beforeEach(async () => {
    await narrow.empty()
    await store.insert([record({ id: 'a', quota: quota(5) })])
  })
  afterAll(() => narrow.close())

  it('is unsupported where it is to be kept, and nothing is written', async () => {
    const kept = await store.find({ id: 'a' })
    for (const members of [
      { name: KEY },
      { owner: { type: 'user', id: KEY } },
      { owner: { type: KEY, id: 'u' } },
      { createdBy: KEY },
      { metadata: { label: KEY } },
      { metadata: { [KEY]: 1 } },
    ]) {
      const batch = [record({ id: 'b' }), record({ id: 'c', ...members })]
      await expect(store.insert(batch)).rejects.toMatchObject({ code: 'unsupported', status: 501 })
    }
    for (const change of [
      { name: KEY },
      { metadata: { label: KEY } },
      { revokedAt: at(1), revokedReason: KEY },
    ]) {
      const updated = store.update('a', 1, { ...change, updatedAt: at(1) })
      await expect(updated).rejects.toMatchObject({ code: 'unsupported' })
    }
    expect(await store.list({}, { limit: 9 })).toEqual([kept])
  })

  it('names no key', async () => {
    expect(await store.find({ id: KEY })).toBeNull()
    for (const filter of [
      { name: KEY },
      { createdBy: KEY },
      { lineageId: KEY },
      { owners: [{ type: 'user', id: KEY }] },
      { owners: [{ type: KEY, id: 'u' }] },
      {
        owners: [
          { type: KEY, id: 'u' },
          { type: 'user', id: `${KEY} too` },
        ],
      },
      { owners: [ALICE, { type: 'user', id: 'u_1' }], name: KEY },
    ])
      expect(await store.list(filter, { limit: 9 })).toEqual([])
    const owners = [{ type: 'user', id: KEY }, { type: 'user', id: 'u_1' }, ALICE]
    expect(await store.list({ owners }, { limit: 9 })).toMatchObject([{ id: 'a' }])
    expect(await store.update(KEY, 1, { name: 'x', updatedAt: at(1) })).toBe('missing')
    expect(await store.update(KEY, 1, { quota: { remaining: 1 }, updatedAt: at(1) })).toBe('missing')
    expect(await store.replaceDigest(KEY, 'old', 'new')).toBe(false)
    await store.update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
    expect(await store.purge(['b', KEY, 'a', `${KEY} too`], at(1))).toBe(1)
  })

  it('is no fault of the store for `keys`: 501 where it is to be kept, nothing where it is looked for', async () => {
    const faults: unknown[] = []
    const onEvent = (event: { type: string }) => void (event.type === 'fault' && faults.push(event))
    const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'acme', onEvent })
    const strange = { type: 'user', id: KEY }
    const { apiKey } = await keys.issue({ owner: ALICE, name: 'CI' })
    for (const call of [
      () => keys.issue({ owner: ALICE, name: KEY }),
      () => keys.issue({ owner: strange, name: 'CI' }),
      () => keys.update(apiKey.id, { metadata: { label: KEY } }),
      () => keys.revoke(apiKey.id, { reason: KEY }),
    ])
      await expect(call()).rejects.toMatchObject({ code: 'unsupported', status: 501 })
    expect(await keys.get(KEY)).toBeNull()
    expect(await keys.list({ owner: strange })).toEqual({ apiKeys: [] })
    expect(await keys.list({ owners: [strange, ALICE] })).toMatchObject({ apiKeys: [{ id: apiKey.id }] })
    const cursor = Buffer.from(JSON.stringify([0, KEY])).toString('base64url')
    expect(await keys.list({ cursor, owner: ALICE })).toMatchObject({ apiKeys: expect.any(Array) })
    await expect(keys.revoke(KEY)).rejects.toMatchObject({ code: 'not_found' })
    expect(await keys.revokeOwner(strange)).toBe(0)
    expect(faults).toEqual([])
    await keys.close()
  })

  it('keeps no use of a key from being counted, be it an address', async () => {
    const clock = fakeClock()
    const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter({ clock }), prefix: 'acme', clock })
    const issued = await Promise.all(
      [KEY, '192.0.2.1', `${KEY} too`, '192.0.2.2'].map(async (ip) => ({
        ip,
        ...(await keys.issue({ owner: ALICE, name: 'CI' })),
      })),
    )
    for (const { key, ip } of issued) expect(await keys.verify(key, { ip })).toMatchObject({ ok: true })
    await keys.close()
    const read = await Promise.all(issued.map(({ apiKey }) => store.find({ id: apiKey.id })))
    expect(read.map((one) => [one?.usageCount, one?.lastUsedIp])).toEqual([
      [1, null],
      [1, '192.0.2.1'],
      [1, null],
      [1, '192.0.2.2'],
    ])
  })
})

describe('a text that is longer than a column of PostgreSQL, which somebody has bounded', () => {
  it('is unsupported', async () => {
    const database = await createPostgres()
    try {
      const store: KeyStore = database.open()
      await migrate(store as SqlStore)
      await database.query('alter table latchkey_keys alter column name type varchar(100)')
      const long = record({ id: 'a', name: 'n'.repeat(101) })
      await expect(store.insert([long])).rejects.toMatchObject({ code: 'unsupported' })
      await store.insert([{ ...long, name: 'n'.repeat(100) }])
      expect(await store.list({ name: long.name }, { limit: 1 })).toEqual([])
    } finally {
      await database.remove()
    }
  })
})
