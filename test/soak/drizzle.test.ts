import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { drizzle } from 'drizzle-orm/node-postgres'
import { migrate, type SqlStore } from 'latchkey/sql'
import { storeConformance } from 'latchkey/testing'
import { Pool } from 'pg'
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest'
import { drizzleStore } from '../../examples/drizzle/drizzle-store.ts'
import { installPackages } from '../support/consumer-tools.ts'
import { describePostgresTables } from '../support/described-tables.ts'
import { TRUNCATE_ALL } from '../support/empty-tables.ts'
import { at, lease, quota, record } from '../support/key-records.ts'
import { readCodeBlocks } from '../support/markdown.ts'
import { createPostgres, type TestDatabase } from '../support/sql-databases.ts'

const SECRET = 'attack at dawn'
const example = fileURLToPath(new URL('../../examples/drizzle/', import.meta.url))
const guide = readCodeBlocks(readFileSync(new URL('../../docs/orms.md', import.meta.url), 'utf8'))
const shown = (part: string) => guide.find(({ text }) => text.includes(part))?.text ?? ''

let migrated: TestDatabase
let own: SqlStore
let pool: Pool
beforeAll(async () => {
  migrated = await createPostgres()
  own = migrated.open()
  await migrate(own)
  pool = new Pool({ connectionString: migrated.url, max: 10 })
})
afterAll(async () => {
  await pool?.end()
  await migrated?.remove()
})
const empty = () => migrated.query(TRUNCATE_ALL)

describe('the store over Drizzle', () => {
  storeConformance({ test, assert, without: ['addUsage'] }, async () => {
    await empty()
    return drizzleStore(drizzle(pool))
  })

  it('reads and writes what postgresStore does', async () => {
    await empty()
    const store = drizzleStore(drizzle(pool))
    const full = record({
      id: 'a',
      quota: quota(5, 1_000),
      expiresAt: new Date(Date.UTC(9999, 11, 31, 23, 59, 59, 999)),
      usageCount: Number.MAX_SAFE_INTEGER,
      rateLimits: [],
      metadata: { text: 'nul \0, half \ud83d' },
    })
    await store.insert([full])
    expect(await own.find({ id: 'a' })).toEqual(full)
    expect(await own.update('a', 1, { revokedAt: at(1), updatedAt: at(1) })).toBe('updated')
    expect(await store.find({ id: 'a' })).toMatchObject({ revokedAt: at(1), version: 2 })
    await store.insert([record({ id: 'b', quota: quota(50) })])
    const granted = await Promise.all(
      Array.from({ length: 20 }, (_, i) => lease(i % 2 ? own : store, 'b', 3)),
    )
    expect(granted.reduce<number>((sum, units) => sum + (units ?? 0), 0)).toBe(50)
  })

  it('keeps parameters out of its errors', async () => {
    await empty()
    const store = drizzleStore(drizzle(pool))
    await store.insert([record({ id: SECRET })])
    const broken = new Pool({ port: 1 })
    const failures = await Promise.allSettled([
      store.insert([record({ id: 'other', lookup: SECRET })]),
      store.find({ id: `${SECRET}\0` }),
      drizzleStore(drizzle(broken)).find({ lookups: [SECRET] }),
    ])
    expect(failures.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    expect(inspect(failures, { depth: 9, showHidden: true })).not.toContain(SECRET)
    await broken.end()
  })
})

describe('drizzle-kit', () => {
  let folder: string
  let database: TestDatabase
  beforeAll(async () => {
    const tools = installPackages({ 'drizzle-kit': '0.31.11', 'drizzle-orm': '0.45.4', pg: '8.23.1' })
    folder = mkdtempSync(join(tmpdir(), 'latchkey-drizzle-'))
    cpSync(example, folder, { recursive: true })
    symlinkSync(tools, join(folder, 'node_modules'))
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
    database = await createPostgres()
  }, 300_000)
  afterAll(async () => {
    rmSync(folder, { recursive: true, force: true })
    await database?.remove()
  })

  function run(config: string, ...args: string[]): string {
    writeFileSync(join(folder, 'drizzle.config.ts'), config)
    return execFileSync(process.execPath, [join(folder, 'node_modules/drizzle-kit/bin.cjs'), ...args], {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, DATABASE_URL: database.url },
    })
  }

  it('creates the tables that migrate does, and migrate then has nothing to change', async () => {
    run(shown('tablesFilter').replace('./schema.ts', './latchkey-tables.ts'), 'generate')
    const [file = ''] = readdirSync(join(folder, 'drizzle')).filter((name) => name.endsWith('.sql'))
    const statements = readFileSync(join(folder, 'drizzle', file), 'utf8').split('--> statement-breakpoint')
    for (const statement of statements) await database.query(statement)
    const made = await describePostgresTables(database)
    expect(made.columns.length).toBeGreaterThan(35)
    expect(made).toEqual(await describePostgresTables(migrated))
    const store = database.open()
    await migrate(store)
    expect(await describePostgresTables(database)).toEqual(made)
    const other = record({ id: 'a', owner: { type: 'user', id: 'other' }, quota: quota(1) })
    await store.insert([other])
    expect(await store.find({ id: 'a' })).toEqual(other)
  })

  it('leaves the tables alone, with the filter of the guide', async () => {
    const users = `export const users = pgTable('users', { id: text('id').primaryKey(), email: text('email').notNull() })`
    writeFileSync(
      join(folder, 'schema.ts'),
      `import { pgTable, text } from 'drizzle-orm/pg-core'\n${users}\n`,
    )
    const before = await describePostgresTables(database)
    const config = shown('tablesFilter')
    expect(run(config, 'push', '--force')).toContain('Changes applied')
    expect(await describePostgresTables(database)).toEqual(before)
    expect(await keysOfUsers()).toEqual([{ email: 'zoe@example.com', name: 'CI', expiresAt: at(5) }])
    // Without the filter it removes them, with every key.
    run(config.replace(/ *tablesFilter.*\n/, ''), 'push', '--force')
    expect((await describePostgresTables(database)).columns).toEqual([])
  })

  /** Runs the query of the guide. */
  async function keysOfUsers(): Promise<unknown> {
    await database.query(`insert into users values ('u_1', 'zoe@example.com'), ('U_1', 'other@example.com')`)
    await database
      .open()
      .insert([record({ id: 'joined', expiresAt: at(5) }), record({ id: 'revoked', revokedAt: at(1) })])
    writeFileSync(join(folder, 'keys-of-users.ts'), shown('keysOfUsers'))
    const module = await import(join(folder, 'keys-of-users.ts'))
    const client = new Pool({ connectionString: database.url, max: 1 })
    try {
      return await module.keysOfUsers(drizzle(client))
    } finally {
      await client.end()
    }
  }
})
