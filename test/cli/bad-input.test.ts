import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { findFreePort } from '../support/free-port.ts'
import { brokenOutput, type CliFolder, type CliOptions, cliFolder, runCli } from '../support/run-cli.ts'

const PASSWORD = 'hunter2-secret'
const ROOT = process.cwd()

let cli: CliFolder

beforeAll(async () => {
  cli = await cliFolder()
})

/** Everything but one line on standard error and a code is wrong. */
function expectOneLine(
  { code, stdout, stderr }: { code: number; stdout: string; stderr: string },
  expected: number,
) {
  expect({ code, stdout, lines: stderr.split('\n').length - 1 }, stderr).toEqual({
    code: expected,
    stdout: '',
    lines: 1,
  })
  expect(stderr).toMatch(/^latchkey: /)
  expect(stderr).not.toMatch(/\n\s+at |node:internal/)
}

describe('a wrong word', () => {
  it.each([
    [[], /name a command: latchkey --help/],
    [['isue'], /unknown command 'isue' \(Did you mean issue\?\)/],
    [['list', '--ownr', 'user:u_1'], /unknown option '--ownr' \(Did you mean --owner\?\)/],
    [['list', '--owner'], /option '--owner <type:id>' argument missing/],
    [['show'], /missing required argument 'id'/],
    [['show', 'a', 'b'], /too many arguments/],
    [['rotate', 'a', '--grace', 'soon'], /--grace takes a duration such as/],
    [['issue', '--owner', 'user:u', '--name', 'CI', '--expires', '2027-02-30'], /--expires takes 2027-01-31/],
    [['list', '--config', 'nowhere.json'], /there is no file nowhere\.json/],
    [['list', '--store', 'new'], /no store of this name \(it has no "stores"\)/],
    [['list', '--store', 'env:NOWHERE'], /the environment variable NOWHERE is not set/],
  ])('ends with 2 and one line: %j', async (words, expected) => {
    const ended = await cli.run(words)
    expectOneLine(ended, 2)
    expect(ended.stderr).toMatch(expected)
  })

  it('is not repeated where it is a key or a password', async () => {
    const { key } = await cli.json(['issue', '--owner', 'user:u_1', '--name', 'CI'])
    const url = `postgres://app:${PASSWORD}@db/app`
    for (const words of [
      ['show', key],
      ['list', `--name=${key}`],
      [key],
      [`--${key}`],
      ['list', '--store', url],
      [url],
    ]) {
      const ended = await cli.run(words)
      expectOneLine(ended, 2)
      expect(ended.stderr).not.toContain(key.slice(22))
      expect(ended.stderr).not.toContain(PASSWORD)
      expect(ended.stderr).toMatch(/on the command line, where others can see it/)
    }
  })

  it('cannot change the terminal', async () => {
    const { stderr } = await cli.run(['\u001b[31mred'])
    expect(stderr).not.toContain('\u001b')
  })
})

describe('help', () => {
  it('names every command, and goes to standard output', async () => {
    const { code, stdout, stderr } = await cli.run(['--help'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    for (const name of ['issue', 'list', 'doctor', 'secret-scanning', 'move'])
      expect(stdout).toMatch(new RegExp(`^  ${name} `, 'm'))
    expect((await cli.run(['rotate', '--help'])).stdout).toContain('--grace <duration>')
    expect((await cli.run(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\S*\n$/)
  })
})

describe('a store that cannot be used', () => {
  it('is told where none is named', async () => {
    const ended = await runCli(['list'], { cwd: cli.folder })
    expectOneLine(ended, 2)
    expect(ended.stderr).toMatch(/no store is configured: write latchkey\.config\.ts, or set LATCHKEY_STORE/)
  })

  it('is refused with what an address looks like, without repeating it', async () => {
    for (const address of [`oracle://app:${PASSWORD}@db`, PASSWORD, `postgres://app:${PASSWORD}@[`]) {
      const ended = await cli.run(['list'], { env: { LATCHKEY_STORE: address } })
      expectOneLine(ended, 2)
      expect(ended.stderr).not.toContain(PASSWORD)
    }
  })

  it('is no empty database where a file does not exist', async () => {
    const ended = await cli.run(['list'], { env: { LATCHKEY_STORE: 'sqlite:typo.db' } })
    expectOneLine(ended, 5)
    expect(ended.stderr).toMatch(/there is no database sqlite:typo\.db: latchkey migrate creates it/)
    expect(await cli.run(['list'], { env: { LATCHKEY_STORE: 'sqlite:typo.db' } })).toMatchObject({ code: 5 })
  })

  it('is unmigrated, or no database at all', async () => {
    writeFileSync(join(cli.folder, 'empty.db'), '')
    const empty = await cli.run(['list'], { env: { LATCHKEY_STORE: 'empty.db' } })
    expectOneLine(empty, 5)
    expect(empty.stderr).toMatch(/lacks tables or columns of this release/)
    writeFileSync(join(cli.folder, 'text.db'), 'this is not a database, however long it may be'.repeat(100))
    expectOneLine(await cli.run(['list'], { env: { LATCHKEY_STORE: 'text.db' } }), 5)
  })

  it('is unreachable: PostgreSQL, MySQL and Redis', async () => {
    const port = await findFreePort()
    for (const scheme of ['postgres', 'mysql', 'redis']) {
      const LATCHKEY_STORE = `${scheme}://app:${PASSWORD}@127.0.0.1:${port}/0`
      const ended = await runCli(['list'], { cwd: ROOT, env: { LATCHKEY_STORE } })
      expectOneLine(ended, 5)
      expect(ended.stderr).toContain('ECONNREFUSED')
      expect(ended.stderr).not.toContain(PASSWORD)
      const machine = await runCli(['list', '--json'], { cwd: ROOT, env: { LATCHKEY_STORE } })
      expect(JSON.parse(machine.stderr).error.code).toBe('unavailable')
      expect(machine.stderr).not.toContain(PASSWORD)
    }
  })

  it('needs a driver of the application', async () => {
    for (const [scheme, name] of [
      ['postgres', 'pg or postgres'],
      ['mysql', 'mysql2'],
      ['redis', 'ioredis or redis'],
    ]) {
      const ended = await cli.run(['list'], { env: { LATCHKEY_STORE: `${scheme}://localhost/0` } })
      expectOneLine(ended, 2)
      expect(ended.stderr).toContain(`needs the package ${name}, which is not installed in this folder`)
    }
  })
})

describe('the configuration', () => {
  const write = (name: string, text: string) => {
    const folder = join(cli.folder, `config-${Math.random()}`)
    mkdirSync(folder)
    for (const name of readdirSync(cli.folder).filter((one) => one.startsWith('keys.db'))) {
      copyFileSync(join(cli.folder, name), join(folder, name))
    }
    writeFileSync(join(folder, name), text)
    return (words: readonly string[], env = {}, more: Partial<CliOptions> = {}) =>
      runCli(words, { cwd: folder, env, ...more })
  }

  it.each([
    ['latchkey.config.json', '{ "store": "postgres://app:hunter2-secret@', /is not valid JSON/],
    ['latchkey.config.json', '[]', /must export a configuration by default/],
    ['latchkey.config.mjs', 'export default 7', /must export a configuration by default/],
    [
      'latchkey.config.mjs',
      'throw new Error("postgres://app:hunter2-secret@db")',
      /cannot be read: postgres:\/\/app:\*\*\*@db/,
    ],
    ['latchkey.config.mjs', 'export default () => { throw new Error("no vault") }', /failed: no vault/],
    ['latchkey.config.mjs', 'export default { redis: "redis://a", rateLimiter: {} }', /exclude each other/],
    [
      'latchkey.config.json',
      '{ "store": "sqlite:keys.db", "prefx": "acme" }',
      /no option "prefx"; did you mean "prefix"/,
    ],
    [
      'latchkey.config.json',
      '{ "store": { "address": "sqlite:keys.db", "table": "a b" } }',
      /store: "table" must be/,
    ],
    [
      'latchkey.config.json',
      '{ "store": { "address": "sqlite:keys.db", "tabel": "k" } }',
      /no option "tabel"; did you mean "table"/,
    ],
    ['latchkey.config.json', '{ "store": "sqlite:keys.db", "redis": { "adress": "redis://a" } }', /redis/],
    ['latchkey.config.json', '{ "store": "env:NOWHERE" }', /the environment variable NOWHERE is not set/],
    [
      'latchkey.config.json',
      '{ "store": "sqlite:keys.db", "peppers": [{ "id": "a", "secret": "short" }] }',
      /peppers\[0\]\.secret/,
    ],
    [
      'latchkey.config.json',
      `{ "store": "postgres://app:8/${PASSWORD}@db.example/app" }`,
      /has an "@" after its host/,
    ],
    [
      'latchkey.config.json',
      `{ "store": "sqlite:keys.db", "redis": "redis://app:8#${PASSWORD}@db.example/0" }`,
      /has an "@" after its host/,
    ],
    ['latchkey.config.json', '{ "store": 7 }', /"store" must be an address or a store/],
    ['latchkey.config.json', '{ "prefix": "acme" }', /has no "store", and LATCHKEY_STORE is not set/],
  ])('is refused with 2, and no password is shown: %s %s', async (name, text, expected) => {
    const ended = await write(name, text)(['list'])
    expectOneLine(ended, 2)
    expect(ended.stderr).toMatch(expected)
    expect(ended.stderr).not.toContain(PASSWORD)
  })

  it('is refused where there are two', async () => {
    const folder = join(cli.folder, 'two')
    mkdirSync(folder)
    for (const name of ['latchkey.config.json', 'latchkey.config.mjs'])
      writeFileSync(join(folder, name), '{}')
    const ended = await runCli(['list'], { cwd: folder })
    expectOneLine(ended, 2)
    expect(ended.stderr).toContain('latchkey.config.mjs and latchkey.config.json')
  })

  it.each([
    ['latchkey.config.json', '{ "store": "env:KEYS", "prefix": "acme" }'],
    [
      'latchkey.config.mjs',
      'export default async () => ({ store: process.env.KEYS ?? "sqlite:keys.db", prefix: "acme" })',
    ],
    ['latchkey.config.cjs', 'module.exports = { store: { address: "sqlite:keys.db" }, prefix: "acme" }'],
  ])('is read from %s', async (name, text) => {
    const { code, stderr } = await write(name, text)(['list'], { KEYS: 'sqlite:keys.db' })
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.any(String) })
  })

  it('takes the environment for what it leaves out', async () => {
    const run = write('latchkey.config.json', '{ "prefix": "other" }')
    const words = ['issue', '--owner', 'user:u_9', '--name', 'CI', '--quiet']
    const { stdout } = await run(words, { LATCHKEY_STORE: 'sqlite:keys.db', LATCHKEY_PREFIX: 'acme' })
    expect(stdout).toMatch(/^other_/)
  })

  it('takes the secret of a pepper from the environment', async () => {
    const peppers = '"peppers": [{ "id": "2026", "secret": "env:PEPPER" }]'
    const run = write('latchkey.config.json', `{ "store": "sqlite:keys.db", "prefix": "acme", ${peppers} }`)
    const issued = await run(['issue', '--owner', 'user:u_9', '--name', 'CI', '--quiet'], {
      PEPPER: 'p'.repeat(32),
    })
    expect(issued).toMatchObject({ code: 0, stderr: '' })
    const exported = await run(['export'], { PEPPER: 'p'.repeat(32) })
    expect(exported.stdout).toContain('$hmac-sha256$2026$')
  })

  it('may be the application’s own keys', async () => {
    const lib = new URL('../../lib/', import.meta.url).href
    const run = write(
      'latchkey.config.mjs',
      `import { createApiKeys, memoryRateLimiter } from '${lib}index.ts'
       import { sqliteStore } from '${lib}sql.ts'
       const store = sqliteStore(new URL('keys.db', import.meta.url).pathname)
       export default { keys: createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'own' }), close: () => store.close() }`,
    )
    const issued = await run(['issue', '--owner', 'user:own', '--name', 'CI', '--quiet'])
    expect(issued).toMatchObject({ code: 0, stdout: expect.stringMatching(/^own_/) })
  })

  it('may have a frozen store, which a check leaves as it is', async () => {
    const lib = new URL('../../lib/', import.meta.url).href
    const run = write(
      'latchkey.config.mjs',
      `import { sqliteStore } from '${lib}sql.ts'
       const store = sqliteStore(new URL('keys.db', import.meta.url).pathname)
       export default { store: Object.freeze({ ...store }), prefix: 'acme' }`,
    )
    const { stdout: key } = await run(['issue', '--owner', 'user:frozen', '--name', 'CI', '--quiet'])
    expect(await run(['verify'], {}, { stdin: key })).toMatchObject({ code: 0, stderr: '' })
  })

  it('names a new key that can neither be written nor revoked', async () => {
    const lib = new URL('../../lib/', import.meta.url).href
    const run = write(
      'latchkey.config.mjs',
      `import { sqliteStore } from '${lib}sql.ts'
       const store = sqliteStore(new URL('keys.db', import.meta.url).pathname)
       const update = () => Promise.reject(new Error('connection lost'))
       export default { store: { ...store, update }, prefix: 'acme', close: () => store.close() }`,
    )
    const words = ['issue', '--owner', 'user:lost', '--name', 'CI']
    const { code, stderr } = await run(words, {}, { stdout: brokenOutput('ENOSPC') })
    expect(code).toBe(1)
    expect(stderr).toMatch(/the new key (\w{16}) is lost and could not be revoked .*latchkey revoke \1"/)
  })

  it('does not mix an own ApiKeys with its options', async () => {
    const run = write(
      'latchkey.config.mjs',
      'const f = () => {}\nexport default { keys: { verify: f, issue: f, revoke: f }, prefix: "acme" }',
    )
    expect(await run(['list'])).toMatchObject({ code: 2, stderr: expect.stringContaining('"prefix"') })
    const alone = write(
      'latchkey.config.mjs',
      'const f = () => {}\nexport default { verify: f, issue: f, revoke: f }',
    )
    expect(await alone(['export', 'x.jsonl'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('add "store"'),
    })
  })
})
