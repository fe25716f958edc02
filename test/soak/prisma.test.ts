import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { SqlStore } from 'latchkey/sql'
import { storeConformance } from 'latchkey/testing'
import type { Pool } from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, it, test, vi } from 'vitest'
import { installPackages } from '../support/consumer-tools.ts'
import { describePostgresTables } from '../support/described-tables.ts'
import { TRUNCATE_ALL } from '../support/empty-tables.ts'
import { at, quota, record } from '../support/key-records.ts'
import { isLong } from '../support/long-run.ts'
import { readCodeBlocks } from '../support/markdown.ts'
import { createPostgres, type TestDatabase } from '../support/sql-databases.ts'

const example = fileURLToPath(new URL('../../examples/prisma/', import.meta.url))

const guide = readCodeBlocks(readFileSync(new URL('../../docs/orms.md', import.meta.url), 'utf8'))
/** How the guide connects. */
const shown = guide.find(({ text }) => text.includes('new PrismaPg(pool)'))?.text ?? ''

/** The parts of a generated client that are used here. */
interface PrismaClient {
  latchkeyKey: {
    findMany(options: object): Promise<Record<string, unknown>[]>
    findUnique(options: object): Promise<Record<string, unknown> | null>
  }
  latchkeyQuota: { findMany(): Promise<Record<string, unknown>[]> }
  user: { create(options: object): Promise<unknown>; findMany(options: object): Promise<unknown[]> }
  $transaction<T>(work: (transaction: PrismaClient) => Promise<T>, options?: object): Promise<T>
  $disconnect(): Promise<void>
}

let folder: string
let database: TestDatabase
let pool: Pool
let prisma: PrismaClient
let store: SqlStore

beforeAll(async () => {
  const packages = {
    prisma: '7.10.0',
    '@prisma/client': '7.10.0',
    '@prisma/adapter-pg': '7.10.0',
    pg: '8.23.1',
  }
  const tools = installPackages(packages)
  folder = mkdtempSync(join(tmpdir(), 'latchkey-prisma-'))
  cpSync(example, folder, { recursive: true })
  symlinkSync(tools, join(folder, 'node_modules'))
  database = await createPostgres()
  await database.query('create table users (id text primary key, email text not null unique)')
  runPrisma('generate')
  writeFileSync(join(folder, 'database.ts'), shown)
  vi.stubEnv('DATABASE_URL', database.url)
  ;({ pool, prisma, store } = await import(join(folder, 'database.ts')))
}, 300_000)
afterAll(async () => {
  await prisma?.$disconnect()
  await pool?.end()
  await database?.remove()
  rmSync(folder, { recursive: true, force: true })
})
beforeEach(() => database.query(`${TRUNCATE_ALL}, users`))

/** Without its schema engine, which is no package and which neither command uses. */
function runPrisma(command: 'generate' | 'validate'): string {
  return execFileSync(process.execPath, [join(folder, 'node_modules/prisma/build/index.js'), command], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      DATABASE_URL: database.url,
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      CHECKPOINT_DISABLE: '1',
    },
  })
}

describe('the schema for Prisma', () => {
  const schema = readFileSync(join(example, 'latchkey.prisma'), 'utf8')

  it('is valid', () => {
    expect(runPrisma('validate')).toContain('valid')
  })

  it('has the columns that migrate creates', async () => {
    const types: Record<string, string> = { String: 'text', BigInt: 'bigint', Boolean: 'boolean' }
    const declared = [...schema.matchAll(/^model \w+ \{\n(.*?)@@map\("(\w+)"\)/gms)].flatMap(
      ([, body = '', table]) =>
        [...body.matchAll(/^ {2}(\w+) +(\w+)(\??)(?:.*@map\("(\w+)"\))?/gm)].map(
          ([, field, type = '', mark, column]) => ({
            table_name: table,
            column_name: column ?? field,
            data_type: types[type],
            is_nullable: mark ? 'YES' : 'NO',
          }),
        ),
    )
    const { columns } = await describePostgresTables(database)
    const made = columns
      .filter(({ table_name: table }) => /^latchkey_keys(?:_quotas)?$/.test(table))
      .map(({ collation_name: _, ...column }) => column)
    expect(made.length).toBeGreaterThan(30)
    expect(new Set(declared)).toEqual(new Set(made))
  })

  it('names indexes as migrate does', async () => {
    const { indexes } = await describePostgresTables(database)
    const names = [...schema.matchAll(/map: "(\w+)"/g)].map(([, name]) => name)
    expect(names.length).toBeGreaterThan(5)
    for (const name of names)
      expect(indexes).toContainEqual({ indexdef: expect.stringContaining(`INDEX ${name} ON`) })
  })
})

describe('a pool that Prisma and the store share', () => {
  it('shows Prisma the keys of a user, with the right types', async () => {
    await prisma.user.create({ data: { id: 'u_1', email: 'zoe@example.com' } })
    await store.insert([
      record({ id: 'a', quota: quota(Number.MAX_SAFE_INTEGER) }),
      record({ id: 'b', owner: { type: 'user', id: 'U_1' }, revokedAt: at(1) }),
    ])
    const owner = { ownerType: 'user', ownerId: 'u_1' }
    const keys = await prisma.latchkeyKey.findMany({ where: { ...owner, revokedAtMs: null } })
    expect(keys).toMatchObject([
      { id: 'a', createdAtMs: BigInt(at(0).getTime()), version: 1n, enabled: true },
    ])
    expect(await prisma.latchkeyQuota.findMany()).toMatchObject([
      { remaining: BigInt(Number.MAX_SAFE_INTEGER) },
    ])
  })

  it('keeps transactions of the two apart', async () => {
    await store.insert([record({ id: 'a' })])
    const rolledBack = prisma.$transaction(async (transaction) => {
      await transaction.user.create({ data: { id: 'u_2', email: 'li@example.com' } })
      await store.update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
      throw new Error('rolled back')
    })
    await expect(rolledBack).rejects.toThrow('rolled back')
    expect(await store.find({ id: 'a' })).toMatchObject({ revokedAt: at(1) })
    expect(await prisma.user.findMany({})).toEqual([])
  })

  it('is clean after a transaction that Prisma gave up', async () => {
    await store.insert([record({ id: 'a' })])
    const slow = prisma.$transaction(
      async (transaction) => {
        await transaction.latchkeyKey.findUnique({ where: { id: 'a' } })
        await new Promise((resolve) => setTimeout(resolve, 300))
        await transaction.user.findMany({})
      },
      { timeout: 100, isolationLevel: 'RepeatableRead' },
    )
    await expect(slow).rejects.toThrow(/transaction/i)
    await database.open().update('a', 1, { revokedAt: at(1), updatedAt: at(1) })
    const found = await Promise.all(Array.from({ length: 8 }, () => store.find({ id: 'a' })))
    for (const key of found) expect(key).toMatchObject({ revokedAt: at(1) })
  })
})

// It is the store over a pool of `pg`, which `npm test` tries.
if (isLong) storeConformance({ test, assert }, () => store)
