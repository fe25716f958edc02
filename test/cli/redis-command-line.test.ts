import { randomUUID } from 'node:crypto'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { type ApiKeys, createApiKeys, memoryRateLimiter } from 'latchkey'
import { redisInvalidation, redisRateLimiter } from 'latchkey/redis'
import { migrate, type SqlStore } from 'latchkey/sql'
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest'
import { temporaryFolder } from '../support/cleaner.ts'
import { findFreePort } from '../support/free-port.ts'
import { runCli } from '../support/run-cli.ts'
import { createMariadb, createPostgres, type TestDatabase } from '../support/sql-databases.ts'

const OWNER = { type: 'user', id: 'u_1' }
const ROOT = process.cwd()

let database: TestDatabase
let store: SqlStore
let folder: string

beforeAll(async () => {
  database = await createPostgres()
  store = database.open()
  await migrate(store)
  folder = temporaryFolder('latchkey-cli-redis')
})

afterAll(() => database.remove())

/** Runs the command with a configuration of its own, by the drivers of this repository unless told otherwise. */
async function run(words: readonly string[], config: object, cwd = ROOT) {
  const file = join(folder, `${randomUUID()}.json`)
  writeFileSync(file, JSON.stringify({ store: database.url, prefix: 'acme', ...config }), { mode: 0o600 })
  return runCli([...words, '--config', file], { cwd })
}

/** A server that counts in Redis and holds what it has read for a minute. */
function startServer(keyPrefix: string): ApiKeys {
  const redis = new Redis(inject('redisUrl'))
  const rateLimiter = redisRateLimiter(redis, { keyPrefix, timeoutMs: 5_000 })
  const server = createApiKeys({ store, rateLimiter, prefix: 'acme', cache: { maxAgeMs: 60_000 } })
  onTestFinished(async () => {
    await server.close()
    redis.disconnect()
  })
  return server
}

/** What servers agree on belongs to a database: each test begins anew. */
const forgetAgreements = () => database.query('delete from latchkey_keys_agreements')

describe('a revocation', () => {
  it('works without an answer of Redis: it waits until no server holds the key any more, and says so', async () => {
    await forgetAgreements()
    const { apiKey } = await startServer(`test:${randomUUID()}`).issue({ owner: OWNER, name: 'CI' })
    const redis = `redis://:hunter2-secret@127.0.0.1:${await findFreePort()}`
    const { code, stdout, stderr } = await run(['revoke', apiKey.id], { redis, cache: { maxAgeMs: 300 } })
    expect(code).toBe(0)
    expect(stdout).toMatch(
      /^Revoked \w{16}\. In effect now: Redis did not answer \(.+\), so the command waited; servers hold a key for up to 300 ms/,
    )
    expect(stdout + stderr).not.toContain('hunter2-secret')
    expect((await store.find({ id: apiKey.id }))?.revokedAt).not.toBeNull()
  })

  it('says so where servers count elsewhere', async () => {
    await forgetAgreements()
    const server = startServer(`test:${randomUUID()}`)
    const { key, apiKey } = await server.issue({ owner: OWNER, name: 'CI' })
    await server.verify(key)
    await server.flush()
    const redis = { address: inject('redisUrl'), keyPrefix: `test:${randomUUID()}` }
    const { code, stdout } = await run(['revoke', apiKey.id, '--json'], { redis })
    expect(code).toBe(0)
    const { effectiveAt } = JSON.parse(stdout)
    expect(Date.parse(effectiveAt)).toBeGreaterThan(Date.now() + 1_000)
    const { stdout: findings } = await run(['doctor', '--json'], { redis })
    expect(JSON.parse(findings).findings).toContainEqual(
      expect.objectContaining({
        check: 'limiter',
        result: 'problem',
        message: expect.stringContaining('counted apart'),
      }),
    )
  })

  it('is in effect everywhere when the command ends', async () => {
    await forgetAgreements()
    const keyPrefix = `test:${randomUUID()}`
    const server = startServer(keyPrefix)
    const redis = { address: inject('redisUrl'), keyPrefix }
    for (const words of [['revoke'], ['disable'], ['rotate', '--grace', '0s', '--quiet']]) {
      const { key, apiKey } = await server.issue({ owner: OWNER, name: 'CI' })
      expect(await server.verify(key)).toMatchObject({ ok: true })
      const { code, stdout } = await run([...words, apiKey.id], { redis })
      expect(await server.verify(key), words[0]).toMatchObject({ ok: false, code: 'invalid_key' })
      expect(code).toBe(0)
      if (words[0] === 'revoke') {
        expect(stdout).toBe(
          `Revoked ${apiKey.id}. In effect now, in every process that counts in this Redis.\n`,
        )
      }
    }
  })

  it('is published where a channel is named', async () => {
    await forgetAgreements()
    const redis = new Redis(inject('redisUrl'))
    const channel = `test:${randomUUID()}`
    const invalidation = redisInvalidation(redis, { channel })
    const server = createApiKeys({
      store,
      rateLimiter: memoryRateLimiter(),
      invalidation,
      prefix: 'acme',
      cache: { maxAgeMs: 60_000 },
    })
    onTestFinished(async () => {
      await server.close()
      redis.disconnect()
    })
    const { apiKey } = await server.issue({ owner: OWNER, name: 'CI' })
    const ended = new Promise((resolve) => server.onEnd(apiKey.id, resolve))
    await run(['revoke', apiKey.id], {
      redis: { address: inject('redisUrl'), channel, keyPrefix: `test:${randomUUID()}` },
    })
    expect(await ended).toBe('revoked')
  })
})

describe('with Redis', () => {
  it('shows how limits stand, spends what it is told to, and finds nothing wrong', async () => {
    await forgetAgreements()
    const keyPrefix = `test:${randomUUID()}`
    const config = {
      redis: { address: inject('redisUrl'), keyPrefix },
      rateLimits: [{ name: 'minute', limit: 9, windowMs: 60_000 }],
    }
    const { stdout } = await run(['issue', '--owner', 'user:u_2', '--name', 'CI', '--json'], config)
    const { key, apiKey } = JSON.parse(stdout)
    const verify = async (...words: string[]) => {
      const file = join(folder, `${randomUUID()}.json`)
      writeFileSync(file, JSON.stringify({ store: database.url, ...config }))
      return runCli(['verify', ...words, '--config', file], { stdin: key })
    }
    await verify('--charge', '4')
    expect((await verify()).stdout).toMatch(/LIMIT +LEFT +OF +MORE IN\nminute +5 +9 /)
    expect((await run(['show', apiKey.id], config)).stdout).toMatch(/minute +5 +9 /)
    const { findings } = JSON.parse((await run(['doctor', '--json'], config)).stdout)
    const results = Object.fromEntries(
      findings.map((one: { check: string; result: string }) => [one.check, one.result]),
    )
    expect(results).toMatchObject({
      store: 'ok',
      tables: 'ok',
      writes: 'ok',
      'clock of the store': 'ok',
      Redis: 'ok',
      'Redis version': 'ok',
      'maxmemory-policy': 'ok',
      'Redis role': 'ok',
      'clock of Redis': 'ok',
      limiter: 'ok',
    })
  })

  it('is told by doctor where Redis cannot be reached', async () => {
    const redis = `redis://:hunter2-secret@127.0.0.1:${await findFreePort()}`
    const { code, stdout } = await run(['doctor', '--json'], { redis })
    expect(code).toBe(1)
    expect(JSON.parse(stdout).findings).toContainEqual({
      check: 'Redis',
      result: 'problem',
      message: expect.stringMatching(
        /^Redis cannot be used: .*ECONNREFUSED.* \(redis:\/\/:\*\*\*@127\.0\.0\.1:\d+\)$/,
      ),
    })
  })
})

describe('keys between databases', () => {
  it('move from PostgreSQL to MariaDB and on to Redis, and stay what they are', async () => {
    const mariadb = await createMariadb()
    onTestFinished(() => mariadb.remove())
    const stores = {
      mariadb: mariadb.url,
      redis: { address: inject('redisUrl'), keyPrefix: `test:${randomUUID()}` },
    }
    for (let n = 0; n < 3; n += 1) {
      await run(
        ['issue', '--owner', 'user:u_3', '--name', `n${n}`, '--quota', '10/day', '--allow-ip', '::1'],
        {},
      )
    }
    const exportOf = async (name: string) => {
      const { stdout } = await run(['export', '--owner', 'user:u_3', '--store', name], {
        stores: { ...stores, here: database.url },
      })
      return stdout.split('\n').slice(1)
    }
    expect(await run(['migrate', '--store', 'mariadb'], { stores })).toMatchObject({ code: 0 })
    expect(await run(['move', '--to', 'mariadb'], { stores })).toMatchObject({ code: 0, stderr: '' })
    expect(await run(['move', '--to', 'redis', '--store', 'mariadb'], { stores })).toMatchObject({
      code: 0,
      stderr: '',
    })
    const [here, there, redis] = [await exportOf('here'), await exportOf('mariadb'), await exportOf('redis')]
    expect(here).toHaveLength(5)
    expect(there).toEqual(here)
    expect(redis.map((line) => line && JSON.parse(line))).toEqual(
      here.map((line) => line && JSON.parse(line)),
    )
    const { stdout } = await run(['doctor', '--json', '--store', 'redis'], { stores })
    expect(stdout).toContain('"check": "appendonly"')
  })
})

describe('the drivers of the application', () => {
  it('may be postgres.js and node-redis', async () => {
    await forgetAgreements()
    const cwd = temporaryFolder('latchkey-cli-drivers')
    mkdirSync(join(cwd, 'node_modules'))
    for (const name of ['postgres', 'redis'])
      symlinkSync(join(ROOT, 'node_modules', name), join(cwd, 'node_modules', name))
    const config = { redis: { address: inject('redisUrl'), keyPrefix: `test:${randomUUID()}` } }
    const { code, stdout, stderr } = await run(
      ['issue', '--owner', 'user:u_4', '--name', 'CI', '--json'],
      config,
      cwd,
    )
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const { apiKey } = JSON.parse(stdout)
    const revoked = await run(['revoke', apiKey.id], config, cwd)
    expect(revoked.stdout).toContain('In effect now')
    expect(await run(['doctor'], config, cwd)).toMatchObject({ code: 0 })
  })
})
