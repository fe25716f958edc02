import { randomUUID } from 'node:crypto'
import { type ApiKeyEvent, createApiKeys, memoryRateLimiter } from 'latchkey'
import { migrate, postgresStore, type SqlStore } from 'latchkey/sql'
import { Pool } from 'pg'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { createPostgres, DATABASES, type TestDatabase } from '../support/sql-databases.ts'
import { forgeKey, NAME } from '../support/test-keys.ts'

const DAY_MS = 86_400_000
const SECRET = 'the secret that every process has to have'
const INVALID = { ok: false, code: 'invalid_key', reason: 'wrong_secret' }

function start(store: SqlStore, secret = SECRET) {
  const events: ApiKeyEvent[] = []
  const keys = createApiKeys({
    store,
    rateLimiter: memoryRateLimiter(),
    prefix: 'acme',
    peppers: [{ id: '2026', secret }],
    onEvent: (event) => void events.push(event),
  })
  const faults = () => events.flatMap((event) => (event.type === 'fault' ? [event.error] : []))
  return { keys, faults }
}

describe.each(DATABASES)('agreements in %s', (_name, create) => {
  let database: TestDatabase
  beforeEach(async () => {
    database = await create()
    await migrate(database.open())
  })
  afterEach(() => database.remove())

  it('are those of all processes, also where they start at once', async () => {
    const stores = Array.from({ length: 4 }, () => database.open())
    const proposals = stores.flatMap((store, i) =>
      Array.from({ length: 5 }, (_, j) => store.agree('raced', { value: `${i} ${j}`, replace: false })),
    )
    expect(new Set(await Promise.all(proposals)).size).toBe(1)
  })

  it('are swapped by one of all processes, and then by none', async () => {
    const stores = Array.from({ length: 4 }, () => database.open())
    await stores[0]?.agree('swapped', { value: 'first', replace: false })
    const swaps = (expected: string, to: string) =>
      stores.flatMap((store, i) =>
        Array.from({ length: 5 }, (_, j) =>
          store.agree('swapped', { value: `${to} ${i} ${j}`, expected, replace: false }),
        ),
      )
    const kept = new Set(await Promise.all(swaps('first', 'second')))
    expect(kept.size).toBe(1)
    expect([...kept][0]).toMatch(/^second/)
    expect(new Set(await Promise.all(swaps('first', 'third')))).toEqual(kept)
  })

  it('let one of two processes remind of the keys that expire', async () => {
    const told: string[] = []
    const clock = fakeClock()
    const start = () =>
      createApiKeys({
        store: database.open(),
        rateLimiter: memoryRateLimiter(),
        prefix: 'acme',
        clock,
        expiryReminders: { everyMs: false },
        onEvent: (event) => void (event.type === 'key.expiring' && told.push(event.name)),
      })
    const processes = [start(), start(), start()]
    const expiresAt = new Date(clock.now() + 10 * DAY_MS)
    for (const name of ['a', 'b', 'c']) await processes[0]?.issue({ ...NAME, name, expiresAt })
    await clock.advance(4 * DAY_MS)
    const counts = await Promise.all(processes.map((keys) => keys.remindOfExpiry()))
    expect(counts.sort()).toEqual([0, 0, 3])
    expect(told.sort()).toEqual(['a', 'b', 'c'])
    await Promise.all(processes.map((keys) => keys.remindOfExpiry()))
    expect(told).toHaveLength(3)
  })

  it('whose table is not there yet keep nobody out', async () => {
    const store = database.open()
    await database.query('drop table latchkey_keys_agreements')
    const one = start(store)
    const { key } = await one.keys.issue(NAME)
    expect(await one.keys.verify(key)).toMatchObject({ ok: true })
    expect(await one.keys.verify(forgeKey(key, { secret: 'x'.repeat(43) }))).toMatchObject(INVALID)
    expect(one.faults()).toMatchObject([
      { code: 'not_migrated', message: expect.stringContaining('migrate') },
    ])
    await one.keys.close()
    // The table of migrations still has the name; the published statement may be run twice.
    await database.query("delete from latchkey_keys_migrations where name = '3-create-agreements'")
    await migrate(store)
    const right = start(store)
    expect(await right.keys.verify(key)).toMatchObject({ ok: true })
    await right.keys.close()
    const drifted = start(store, `${SECRET}\n`)
    await expect(drifted.keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    expect(drifted.faults()).toMatchObject([{ code: 'configuration_drift' }])
    await drifted.keys.close()
  })

  it('have names and values that no schema cuts off', async () => {
    const store = database.open()
    const long = '\u{1f511}'.repeat(255)
    expect(await store.agree(long, { value: long, replace: false })).toBe(long)
    expect(await store.agree(`${long.slice(2)}x`, null)).toBeNull()
    const tooLong = store.agree('name', { value: `${long}xx`, replace: false })
    if (_name === 'MariaDB') await expect(tooLong).rejects.toMatchObject({ code: 'unsupported' })
    else expect(await tooLong).toBe(`${long}xx`)
    await expect(store.agree('a\0', null)).rejects.toMatchObject({ code: 'unsupported' })
  })
})

describe('a role of PostgreSQL that was not given the table', () => {
  it('goes on without it, and is told what to grant', async () => {
    const database = await createPostgres()
    const role = `latchkey_${randomUUID().replaceAll('-', '')}`
    try {
      await migrate(database.open())
      await database.query(`create role ${role} login`)
      await database.query(
        `grant select, insert, update, delete on latchkey_keys, latchkey_keys_quotas to ${role}`,
      )
      const url = new URL(database.url)
      const pool = new Pool({ connectionString: url.href, max: 2 })
      pool.on('connect', (client) => void client.query(`set role ${role}`))
      const one = start(postgresStore(pool))
      const { key } = await one.keys.issue(NAME)
      expect(await one.keys.verify(key)).toMatchObject({ ok: true })
      expect(await one.keys.verify(forgeKey(key, { secret: 'x'.repeat(43) }))).toMatchObject(INVALID)
      const message = expect.stringMatching(/permission denied for table latchkey_keys_agreements.*grant/)
      expect(one.faults()).toMatchObject([{ code: 'not_migrated', message }])
      await one.keys.close()
      await pool.end()
    } finally {
      await database.query(`drop owned by ${role}`)
      await database.query(`drop role ${role}`)
      await database.remove()
    }
  })
})
