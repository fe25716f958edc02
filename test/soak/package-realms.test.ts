import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { readCodeBlocks } from '../support/markdown.ts'
import { type Consumer, type PackedPackage, packPackage } from '../support/packed-package.ts'
import { withoutImports } from '../support/run-block.ts'

/** Runners that give each test file a realm of its own: other classes than those of Node's modules. */

const root = fileURLToPath(new URL('../../', import.meta.url))
const readme = readFileSync(`${root}README.md`, 'utf8')
const quickStart = readCodeBlocks(readme).find(({ language }) => language === 'ts')?.text ?? ''
const PACKAGES = ['express', 'libsql', 'bcrypt']

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

/** What an application tests; `load` answers a module by its name. */
const TESTS = `
  test('is a realm of its own', () => {
    expect(structuredClone(new Date(0)) instanceof Date).toBe(false)
    expect(Object.getPrototypeOf(structuredClone({}))).not.toBe(Object.prototype)
  })

  test('the quick start', async () => {
    let server
    let printed
    const console = { log: (text) => (printed = text) }
    ${withoutImports(quickStart).replace('app.listen(3000)', 'server = app.listen(0)')}
    const url = 'http://127.0.0.1:' + server.address().port + '/projects'
    try {
      const good = await fetch(url, { headers: { 'X-Api-Key': printed } })
      const bad = await fetch(url)
      expect([good.status, await good.json()]).toEqual([
        200,
        { owner: { type: 'user', id: 'u_1' }, projects: ['loom'] },
      ])
      expect([bad.status, (await bad.json()).code]).toEqual([401, 'missing_key'])
    } finally {
      await new Promise((resolve) => server.close(resolve))
    }
  })

  const NAME = { owner: { type: 'user', id: 'u_1' }, name: 'CI' }
  const flow = async (store, options) => {
    const { createApiKeys, memoryRateLimiter } = await load('latchkey')
    const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'acme', ...options })
    const settings = { permissions: { projects: ['read'] }, metadata: { team: ['blue'] }, allowedIps: ['192.0.2.1'] }
    const expiresAt = new Date(Date.now() + 60_000)
    const { key, apiKey } = await keys.issue({ ...NAME, ...structuredClone({ ...settings, expiresAt }) })
    expect(apiKey).toMatchObject({ ...settings, expiresAt })
    expect(await keys.verify(key, { ip: '192.0.2.1' })).toMatchObject({ ok: true })
    await keys.update(apiKey.id, { expiresAt, metadata: {} })
    await keys.revoke(apiKey.id)
    expect(await keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
    return apiKey
  }

  test('keys in memory, whose members are of this realm', async () => {
    const { memoryStore } = await load('latchkey')
    const apiKey = await flow(memoryStore(), { peppers: [{ id: 'p', secret: new Uint8Array(32) }] })
    expect(apiKey.createdAt instanceof Date).toBe(true)
    expect(apiKey.permissions).toStrictEqual({ projects: ['read'] })
  })

  test('keys in SQLite, by a driver that is loaded when it is needed', async () => {
    const { migrate, sqliteStore } = await load('latchkey/sql')
    const store = sqliteStore(':memory:')
    await migrate(store)
    await flow(store)
    await store.close()
  })

  test('bcrypt, which is loaded when it is needed', async () => {
    const { memoryStore } = await load('latchkey')
    await flow(memoryStore(), { digest: { scheme: 'bcrypt', cost: 4 } })
  })

  test('errors', async () => {
    const { createApiKeys, isLatchkeyError, memoryRateLimiter, memoryStore } = await load('latchkey')
    const store = { ...memoryStore(), find: () => structuredClone(test) }
    const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'acme', onEvent() {} })
    const { key } = await keys.issue(NAME)
    const error = await keys.verify(key).catch((reason) => reason)
    expect([isLatchkeyError(error), error instanceof Error, error.code]).toEqual([true, true, 'unavailable'])
    await expect(keys.issue({ ...NAME, expiresAt: structuredClone(new Date(NaN)) })).rejects.toThrow(TypeError)
  })

  /** A store that copies what it is given, and what it answers, in ways that leave this realm. */
  const cloning = (inner, [inwards, outwards]) =>
    Object.fromEntries(
      Object.entries(inner).map(([name, method]) => [
        name,
        async (...args) => outwards(await method(...args.map(inwards))),
      ]),
    )

  const v8 = await load('node:v8')
  const clone = (value) => structuredClone(value)
  const serialize = (value) => v8.deserialize(v8.serialize(value))
  const { memoryStore } = await load('latchkey')
  const { storeConformance } = await load('latchkey/testing')
  const assert = (await load('node:assert/strict')).default
  storeConformance({ test, assert }, () => cloning(memoryStore(), [clone, serialize]))
`

/** CommonJS declares its tests at once, so nothing in them may wait. */
const IN_COMMONJS = `
  const loaded = (name) => {
    const module = require(name)
    return module.__esModule ? module : { ...module, default: module }
  }
  const load = async (name) => loaded(name)
  ${TESTS.replace(/^ {2}(const .*)await load\(/gm, '  $1loaded(').replace('(await load(', '(loaded(')}`

const IN_MODULES = `
  import { expect, test } from 'vitest'
  const load = (name) => import(name)
  ${TESTS}`

async function expectToPass(consumer: Consumer, ...args: string[]): Promise<void> {
  const { status, stdout, stderr } = await consumer.run(...args)
  const output = stripVTControlCharacters(stdout + stderr)
  expect(status, output).toBe(0)
  // The kit has dozens of cases.
  const [, passed] = /Tests:? +(\d+) passed/.exec(output) ?? []
  expect(Number(passed), output).toBeGreaterThan(60)
}

describe.each(['jest29', 'jest30'] as const)('under %s with its defaults', (jest) => {
  it('passes what an application tests, and the kit of stores', async () => {
    const consumer = packed.createConsumer(PACKAGES, [jest])
    consumer.write('package.json', '{}')
    consumer.write('app.test.js', IN_COMMONJS)
    await expectToPass(consumer, `node_modules/${jest}/bin/jest.js`, '--cacheDirectory', 'cache')
  })
})

describe("under vitest's vmThreads", () => {
  it('passes what an application tests, and the kit of stores', async () => {
    const consumer = packed.createConsumer([...PACKAGES, 'vitest'])
    consumer.write('package.json', '{ "type": "module" }')
    consumer.write('app.test.js', IN_MODULES)
    // Otherwise Express itself does not load there: one of its packages has a module for `require()`.
    const flag = '--execArgv=--no-experimental-require-module'
    await expectToPass(consumer, 'node_modules/vitest/vitest.mjs', 'run', '--pool', 'vmThreads', flag)
  })
})
