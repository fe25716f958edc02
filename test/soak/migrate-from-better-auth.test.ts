import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ApiKeys, createApiKeys, memoryRateLimiter, type RateLimit, type VerifyResult } from 'latchkey'
import { betterAuthFormat } from 'latchkey/import'
import { migrate, sqliteStore } from 'latchkey/sql'
import Database from 'libsql'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { startProgram } from '../support/program.ts'

// Child processes are slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const PROGRAM = 'examples/migrate-from-better-auth/migrate.ts'
const golden = new URL('../golden/better-auth/', import.meta.url)

interface Made {
  database: string
  title: string
  id: string
  key: string
  owner: { type: string; id: string }
  given: {
    name?: string
    prefix?: string
    permissions?: Record<string, string[]>
    metadata?: Record<string, unknown>
    remaining?: number | null
    refillAmount?: number
    refillInterval?: number
    rateLimitMax?: number
    rateLimitTimeWindow?: number
    rateLimitEnabled?: boolean
    configId?: string
  }
  used: number
  answer: { valid: boolean; code: string | null }
}

const made: Made[] = JSON.parse(readFileSync(new URL('keys.json', golden), 'utf8')).keys

const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

describe('its README', () => {
  const readme = readFileSync(
    new URL('../../examples/migrate-from-better-auth/README.md', import.meta.url),
    'utf8',
  )

  it('names files that exist', () => {
    const here = new URL('../../examples/migrate-from-better-auth/', import.meta.url)
    const targets = [...readme.matchAll(/\]\(([^)]+)\)/g)].map(([, path]) => path as string)
    expect(targets.length).toBeGreaterThan(3)
    expect(targets.filter((path) => !existsSync(new URL(path, here)))).toEqual([])
  })

  it('shows what is printed', async () => {
    const { stdout } = await run(placesFor('1.7.1.sqlite'))
    const [, shown = ''] = /^```\n(.+)\n```$/m.exec(readme) ?? []
    expect(stdout.split('\n')).toContain(shown)
  })
})

describe.each([
  { database: '1.7.1.sqlite', flags: [] },
  { database: '1.7.1-plain.sqlite', flags: ['--disable-key-hashing'] },
  { database: '1.4.6.sqlite', flags: [] },
])('the keys of $database', ({ database, flags }) => {
  const theirs = made.filter((key) => key.database === database)
  const places = placesFor(database)
  let first: Awaited<ReturnType<typeof run>>
  beforeAll(async () => {
    first = await run([...places, ...flags])
  })

  it('are answered as better-auth answers them, and are what they were', async () => {
    const { stdout, code } = first
    expect(code).toBe(0)
    expect(stdout).toContain(`${theirs.length} imported, 0 were there already, 0 could not be imported`)
    const keys = await openKeys(places)
    for (const key of theirs) {
      expect(await keys.get(key.id), key.title).toMatchObject(expectedOf(key))
      expect(outcomeOf(await keys.verify(key.key)), key.title).toBe(key.answer.code ?? 'valid')
    }
    expect((await keys.list({ limit: 1_000 })).apiKeys).toHaveLength(theirs.length)
  })

  it('are not admitted by anything but their text', async () => {
    const keys = await openKeys(places)
    for (const { key, title } of theirs) {
      for (const other of [key.slice(1), `${key}A`, key.toUpperCase(), swapLast(key)]) {
        if (other !== key) expect(outcomeOf(await keys.verify(other)), title).toBe('UNKNOWN')
      }
    }
  })

  it('are all there already the next time', async () => {
    const { stdout, code } = await run([...places, ...flags])
    expect(code).toBe(0)
    expect(stdout).toContain(`0 imported, ${theirs.length} were there already, 0 could not be imported`)
  })
})

describe('the program', () => {
  it('checks a key that is in the environment, and prints it nowhere', async () => {
    const key = named('a prefix')
    const { stdout, stderr, code } = await run(placesFor('1.7.1.sqlite'), { KEY: key.key })
    expect(code).toBe(0)
    expect(stdout).toContain(`KEY is "CI" of the user ${key.owner.id}`)
    expect(stdout + stderr).not.toContain(key.key)
  })

  it('says why a key is refused', async () => {
    const { stdout, code } = await run(placesFor('1.7.1.sqlite'), { KEY: named('disabled').key })
    expect(stdout).toContain('KEY is refused: disabled')
    expect(code).toBe(1)
  })

  it('leaves the old database as it is', async () => {
    const [source, target] = placesFor('1.7.1.sqlite')
    await run([source, target, '--follow'])
    expect(readFileSync(source)).toEqual(readFileSync(new URL('1.7.1.sqlite', golden)))
  })

  it('names a row that is no key, and imports the others', async () => {
    const [source, target] = placesFor('1.7.1.sqlite')
    change(source, 'update apikey set permissions = ? where id = ?', '{"projects":', named('permissions').id)
    const { stdout, stderr, code } = await run([source, target])
    expect(stderr).toMatch(/^row \d+: .*"permissions"/m)
    expect(stdout).toContain('19 imported, 0 were there already, 1 could not be imported')
    expect(code).toBe(1)
  })

  it('refuses a table of plain keys that it is not told of, and imports none of them', async () => {
    const { stdout, stderr, code } = await run(placesFor('1.7.1-plain.sqlite'))
    expect(code).toBe(1)
    expect(stdout).toContain('0 imported')
    for (const { key } of made) expect(stderr).not.toContain(key)
  })

  it('imports what was made since, and stops what better-auth has stopped since', async () => {
    const [source, target] = placesFor('1.7.1.sqlite')
    const late = named('a prefix')
    const row = read(source, late.id)
    change(source, 'delete from apikey where id = ?', late.id)
    await run([source, target])

    insert(source, row)
    change(source, 'update apikey set enabled = 0 where id = ?', named('used before').id)
    change(source, 'delete from apikey where id = ?', named('a quota').id)
    const { stdout } = await run([source, target, '--follow'])
    expect(stdout).toContain('1 imported, 18 were there already, 0 could not be imported')
    expect(stdout).toContain('1 revoked and 1 disabled')

    const keys = await openKeys([source, target])
    expect(outcomeOf(await keys.verify(late.key))).toBe('valid')
    expect(outcomeOf(await keys.verify(named('used before').key))).toBe('KEY_DISABLED')
    expect(outcomeOf(await keys.verify(named('a quota').key))).toBe('REVOKED')
    expect(outcomeOf(await keys.verify(named('permissions').key))).toBe('valid')
  })

  it('stops no key that was issued since', async () => {
    const [source, target] = placesFor('1.4.6.sqlite')
    await run([source, target])
    const keys = await openKeys([source, target])
    const { key } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'native' })
    await run([source, target, '--follow'])
    expect(outcomeOf(await keys.verify(key))).toBe('valid')
  })

  it.each([
    ['a file that is missing', 'nowhere.sqlite'],
    ['a database without the table', 'empty.sqlite'],
  ])('stops at %s, and makes no store', async (_case, name) => {
    const folder = newFolder()
    const [source, target] = [join(folder, name), join(folder, 'latchkey.sqlite')]
    if (name === 'empty.sqlite') change(source, 'create table other (id)')
    const { stderr, code } = await run([source, target])
    expect(code).toBe(1)
    expect(stderr).not.toContain('    at ')
    expect(stderr).toContain(name)
    expect([existsSync(source), existsSync(target)]).toEqual([name === 'empty.sqlite', false])
  })
})

/** What a key is after the import, by what it was made from. */
function expectedOf({ given, owner, used, answer }: Made) {
  const { remaining = null, refillAmount, refillInterval } = given
  const refill = refillAmount === undefined ? null : { amount: refillAmount, everyMs: refillInterval }
  const isUnlimited = given.rateLimitEnabled === false || given.configId === 'unlimited'
  const rateLimit: RateLimit = {
    name: 'default',
    limit: given.rateLimitMax ?? 10,
    windowMs: given.rateLimitTimeWindow ?? 86_400_000,
  }
  return {
    owner,
    ...(given.name !== undefined && { name: given.name }),
    prefix: given.prefix ?? '',
    permissions: given.permissions ?? {},
    metadata: given.metadata ?? {},
    enabled: answer.code !== 'KEY_DISABLED',
    quota: remaining === null ? null : { remaining: remaining - used, refill },
    rateLimits: isUnlimited ? [] : [rateLimit],
    lastUsedAt: used > 0 ? expect.any(Date) : null,
  }
}

/** The outcome in better-auth's words. */
function outcomeOf(result: VerifyResult): string {
  if (result.ok) return 'valid'
  if (result.code === 'quota_exceeded') return 'USAGE_EXCEEDED'
  if (result.code !== 'invalid_key') return result.code
  const codes: Record<string, string> = {
    disabled: 'KEY_DISABLED',
    expired: 'KEY_EXPIRED',
    revoked: 'REVOKED',
    unknown: 'UNKNOWN',
    malformed: 'UNKNOWN',
  }
  return codes[result.reason] ?? result.reason
}

async function run(args: string[], env: NodeJS.ProcessEnv = {}) {
  const program = startProgram([PROGRAM, ...args], env)
  const code = await program.ended()
  return { code, stdout: program.stdout, stderr: program.stderr }
}

/** The keys as an application has them after the import. */
async function openKeys([, target]: Places): Promise<ApiKeys> {
  const store = sqliteStore(target)
  await migrate(store)
  const keys = createApiKeys({
    store,
    rateLimiter: memoryRateLimiter(),
    prefix: 'acme_live',
    formats: [betterAuthFormat()],
  })
  onTestFinished(async () => {
    await keys.close()
    await store.close()
  })
  return keys
}

/** A database of better-auth, and the file that its keys are to go to. */
type Places = [source: string, target: string]

function placesFor(database: string): Places {
  const folder = newFolder()
  const source = join(folder, database)
  copyFileSync(new URL(database, golden), source)
  return [source, join(folder, 'latchkey.sqlite')]
}

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-migrate-'))
  folders.push(folder)
  return folder
}

function named(title: string): Made {
  return made.find((key) => key.database === '1.7.1.sqlite' && key.title === title) as Made
}

function swapLast(key: string): string {
  return key.slice(0, -1) + (key.endsWith('A') ? 'B' : 'A')
}

function change(file: string, sql: string, ...values: unknown[]): void {
  const database = new Database(file)
  database.prepare(sql).run(...values)
  database.close()
}

function read(file: string, id: string): Record<string, unknown> {
  const database = new Database(file)
  const [row] = database.prepare('select * from apikey where id = ?').all(id) as Record<string, unknown>[]
  database.close()
  return row as Record<string, unknown>
}

function insert(file: string, row: Record<string, unknown>): void {
  const columns = Object.keys(row)
  const marks = columns.map(() => '?')
  const sql = `insert into apikey (${columns.map((column) => `"${column}"`)}) values (${marks})`
  change(file, sql, ...Object.values(row))
}
