import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sqliteStore } from 'latchkey/sql'
import { beforeEach, describe, expect, it } from 'vitest'
import { judgeClock } from '../../lib/cli/doctor/check-clock.ts'
import { checkConfiguration } from '../../lib/cli/doctor/check-configuration.ts'
import { checkRedisServer } from '../../lib/cli/doctor/check-redis.ts'
import type { Finding } from '../../lib/cli/doctor/finding.ts'
import { record } from '../support/key-records.ts'
import { type CliFolder, cliFolder } from '../support/run-cli.ts'

let cli: CliFolder

beforeEach(async () => {
  cli = await cliFolder()
})

const configure = (config: object, mode = 0o600) => {
  const file = join(cli.folder, 'latchkey.config.json')
  writeFileSync(file, JSON.stringify({ store: 'sqlite:keys.db', prefix: 'acme', ...config }))
  chmodSync(file, mode)
}

async function diagnose(): Promise<{ code: number; found: Record<string, Finding> }> {
  const { code, stdout } = await cli.run(['doctor', '--json'])
  const { findings, healthy } = JSON.parse(stdout) as { findings: Finding[]; healthy: boolean }
  expect(healthy).toBe(code === 0)
  return { code, found: Object.fromEntries(findings.map((finding) => [finding.check, finding])) }
}

describe('doctor', () => {
  it('finds no problem where there is none', async () => {
    configure({ peppers: [{ id: 'a', secret: 'p'.repeat(32) }], trustProxy: 1 })
    const { code, found } = await diagnose()
    expect(code).toBe(0)
    expect(Object.values(found).filter(({ result }) => result === 'problem')).toEqual([])
    expect(found).toMatchObject({
      configuration: { result: 'ok' },
      proxy: { result: 'ok' },
      store: { result: 'ok' },
      tables: { result: 'ok' },
      peppers: { result: 'ok' },
      limiter: { result: 'warning' },
    })
    const { stdout } = await cli.run(['doctor'])
    expect(stdout).toMatch(/^CHECK {10}RESULT {3}FOUND\n/)
  })

  it('finds missing tables and files, and asks no further', async () => {
    configure({ store: 'sqlite:empty.db' })
    expect((await diagnose()).found.store).toMatchObject({
      result: 'problem',
      message: expect.stringContaining('there is no database'),
    })
    writeFileSync(join(cli.folder, 'empty.db'), '')
    const { code, found } = await diagnose()
    expect(code).toBe(1)
    expect(found.tables).toMatchObject({
      result: 'problem',
      message: expect.stringContaining('latchkey migrate'),
    })
    expect(found).not.toHaveProperty('limiter')
  })

  it('finds a migration that is missing, and does not make it', async () => {
    const { libsql } = await import('libsql').then((module) => ({ libsql: module.default }))
    const database = new libsql(join(cli.folder, 'keys.db'))
    database.exec(`delete from latchkey_keys_migrations where name = '4-create-usage'`)
    configure({})
    for (let i = 0; i < 2; i += 1) {
      const { found } = await diagnose()
      expect(found.tables).toMatchObject({
        result: 'problem',
        message: expect.stringContaining('4-create-usage is missing'),
      })
    }
    database.close()
  })

  it('finds another secret under the id of a pepper, and keys whose pepper is not configured', async () => {
    configure({ peppers: [{ id: 'a', secret: 'p'.repeat(32) }] })
    await cli.run(['issue', '--owner', 'user:u_1', '--name', 'CI'])
    configure({ peppers: [{ id: 'a', secret: 'q'.repeat(32) }] })
    expect((await diagnose()).found.peppers).toMatchObject({
      result: 'problem',
      message: expect.stringContaining('the secret of the pepper "a" differs'),
    })
    configure({})
    const { code, found } = await diagnose()
    expect({ code, peppers: found.peppers }).toMatchObject({
      code: 1,
      peppers: {
        result: 'problem',
        message: expect.stringContaining('the pepper "a", which this configuration lacks'),
      },
    })
    const issued = await cli.run(['issue', '--owner', 'user:u_1', '--name', 'CI', '--quiet'])
    expect(issued.stderr).toContain('warning: the latest key has a digest with the pepper "a"')
  })

  it('finds that servers count where this configuration does not', async () => {
    configure({})
    const store = sqliteStore(join(cli.folder, 'keys.db'))
    await store.agree('rateLimiter', { value: 'keyPrefix "ours"', replace: false })
    await store.close()
    expect((await diagnose()).found.limiter).toMatchObject({
      result: 'problem',
      message: expect.stringContaining(
        'servers share a limiter (keyPrefix "ours"), but this configuration names no Redis',
      ),
    })
  })

  it('finds that no use comes from where clients are', async () => {
    configure({})
    const store = sqliteStore(join(cli.folder, 'keys.db'))
    const used = (id: string, lastUsedIp: string) => record({ id, lastUsedIp })
    await store.insert([used('a', '10.0.0.1'), used('b', '10.0.0.1'), used('c', 'fd00::1')])
    expect((await diagnose()).found['client addresses']).toMatchObject({ result: 'warning' })
    await store.insert([used('d', '203.0.113.7')])
    expect((await diagnose()).found['client addresses']).toMatchObject({ result: 'ok' })
    await store.close()
  })

  it('finds a password that others on the machine may read', async () => {
    configure({ redis: 'redis://:hunter2-secret@127.0.0.1:1' }, 0o644)
    const { stdout } = await cli.run(['doctor', '--json'])
    expect(stdout).not.toContain('hunter2-secret')
    expect(stdout).toContain('others on this machine may read the passwords')
    configure({ redis: 'env:REDIS' }, 0o644)
    expect((await cli.run(['doctor', '--json'])).stdout).not.toContain('others on this machine')
  })
})

describe('the check of proxies', () => {
  it.each([
    [true, 'problem'],
    ['0.0.0.0/0', 'problem'],
    [['10.0.0.0/8', '::/0'], 'problem'],
    ['loopback, 0.0.0.0/0', 'problem'],
    [undefined, 'unknown'],
    [false, 'ok'],
    [2, 'ok'],
    ['loopback', 'ok'],
    [['10.0.0.0/8'], 'ok'],
  ])('judges %j as %s', (trustProxy, result) => {
    const given = {
      file: null,
      isExposed: false,
      store: undefined,
      redis: undefined,
      prefix: 'acme',
      given: { trustProxy },
    }
    expect(checkConfiguration(given)[1]).toMatchObject({ check: 'proxy', result })
  })
})

describe('the check of Redis', () => {
  const good = {
    redis_version: '7.0.15',
    maxmemory_policy: 'noeviction',
    maxmemory: '0',
    role: 'master',
    aof_enabled: '1',
  }
  const resultOf = (use: 'store' | 'limiter', info: object) =>
    Object.fromEntries(
      checkRedisServer(use, { ...good, ...info }).map(({ check, result }) => [check, result]),
    )

  it('finds what loses keys or counts', () => {
    expect(new Set(Object.values(resultOf('store', {})))).toEqual(new Set(['ok']))
    expect(resultOf('limiter', { redis_version: '6.0.9' })['Redis version']).toBe('problem')
    expect(resultOf('limiter', { redis_version: '6.2.0' })['Redis version']).toBe('ok')
    expect(resultOf('limiter', { maxmemory_policy: 'allkeys-lru' })['maxmemory-policy']).toBe('warning')
    expect(
      resultOf('limiter', { maxmemory_policy: 'volatile-ttl', maxmemory: '1000' })['maxmemory-policy'],
    ).toBe('problem')
    expect(resultOf('store', { role: 'slave' })['Redis role']).toBe('problem')
    expect(resultOf('store', { aof_enabled: '0' }).appendonly).toBe('problem')
    expect(resultOf('limiter', { aof_enabled: '0' })).not.toHaveProperty('appendonly')
  })
})

describe('the check of clocks', () => {
  it.each([
    [0, 0, 'ok'],
    [900, 0, 'ok'],
    [-1_100, 0, 'warning'],
    [1_100, 200, 'ok'],
    [5_000, 0, 'problem'],
    [-5_100, 200, 'warning'],
  ])('judges %i ms, give or take %i, as %s', (offsetMs, uncertainMs, result) => {
    expect(judgeClock('Redis', offsetMs, uncertainMs).result).toBe(result)
  })
})
