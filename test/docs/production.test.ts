import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import express from 'express'
import { Redis } from 'ioredis'
import { type ApiKeysOptions, createApiKeys, type KeyRecord, memoryRateLimiter, memoryStore } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { migrate, sqliteStore } from 'latchkey/sql'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { readPublicTypes } from '../support/compiler.ts'
import { codeIn, readCodeBlocks, readTable } from '../support/markdown.ts'
import { serve } from '../support/raw-http.ts'
import { startRedis } from '../support/redis-server.ts'
import { runBlock } from '../support/run-block.ts'
import { NAME } from '../support/test-keys.ts'

const page = readFileSync(new URL('../../docs/production.md', import.meta.url), 'utf8')
const blocks = readCodeBlocks(page)

function codeOf(heading: string, language = 'ts'): string {
  const [block] = blocks.filter((found) => found.heading === heading && found.language === language)
  if (!block) throw new Error(`no ${language} under "${heading}"`)
  return block.text
}

it('names events and operations that there are, in the table of alerts', () => {
  const types = readPublicTypes('latchkey')
  const known = [
    ...types.literals('ApiKeyEvent', 'type'),
    ...types.literals('ErrorCode'),
    ...types.literals('InvalidReason'),
    'operation',
    'by',
  ]
  const operations = ['store', 'digest', 'rate_limiter', 'usage']
  const named = readTable(page, 'event').flatMap(([event = '']) => codeIn(event))
  expect(named.length).toBeGreaterThan(10)
  expect(named.filter((name) => ![...known, ...operations].includes(name))).toEqual([])
  const source = readFileSync(new URL('../../lib/core/events.ts', import.meta.url), 'utf8')
  expect(operations.filter((name) => !source.includes(`| '${name}'`))).toEqual([])
})

describe('the health check', () => {
  it('follows the store', async () => {
    const store = memoryStore()
    const keys = createApiKeys({
      store,
      rateLimiter: memoryRateLimiter(),
      prefix: 'acme',
      onEvent: () => {},
    })
    const app = express()
    await runBlock(codeOf('Health check'), { app, keys })
    const ask = await serve(app)
    expect((await ask('/ready')).status).toBe(200)
    vi.spyOn(store, 'list').mockRejectedValue(new Error('away'))
    expect((await ask('/ready')).status).toBe(503)
  })
})

describe('the rotation of a pepper', () => {
  const secrets = { '2025': randomBytes(32), '2026': randomBytes(32) }
  const pepper = (id: '2025' | '2026') => ({ id, secret: secrets[id] })

  async function setUp() {
    const folder = mkdtempSync(join(tmpdir(), 'latchkey-docs-'))
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
    const file = join(folder, 'keys.db')
    const store = sqliteStore(file)
    await migrate(store)
    onTestFinished(() => store.close())
    const start = (peppers: ApiKeysOptions['peppers'], options: Partial<ApiKeysOptions> = {}) => {
      const rateLimiter = memoryRateLimiter()
      return createApiKeys({
        store,
        rateLimiter,
        prefix: 'acme',
        peppers: peppers ?? [],
        onEvent: () => {},
        ...options,
      })
    }
    const left = async () => {
      const counts = await start([pepper('2026')]).countByDigest()
      return counts.find((one) => one.pepper === '2025')?.count ?? 0
    }
    return { start, left }
  }

  it('counts the keys that need the old one until each was used', async () => {
    const { start, left } = await setUp()
    const { key } = await start([pepper('2025'), pepper('2026')]).issue(NAME)
    const second = start([pepper('2026'), pepper('2025')])
    await second.issue(NAME)
    expect((await second.verify(key)).ok).toBe(true)
    expect(await left()).toBe(1)
    const third = start([pepper('2026'), pepper('2025')], { upgradeDigests: true })
    await third.verify(key)
    await third.close()
    expect(await left()).toBe(0)
    expect((await start([pepper('2026')]).verify(key)).ok).toBe(true)
  })

  it('refuses a key that still needs one which was removed, as 503', async () => {
    const { start } = await setUp()
    const { key } = await start([pepper('2025')]).issue(NAME)
    await expect(start([pepper('2026')]).verify(key)).rejects.toMatchObject({ code: 'unavailable' })
  })
})

describe('a store that is restored from a backup', () => {
  async function setUp() {
    const { port } = await startRedis({ binary: inject('redisBinary') })
    const redis = new Redis(port)
    redis.on('error', () => {})
    onTestFinished(() => redis.disconnect())
    await redis.ping()
    const start = (records: readonly KeyRecord[] = []) => {
      const store = memoryStore()
      const ready = records.length > 0 ? store.insert(records) : Promise.resolve()
      const rateLimiter = redisRateLimiter(redis, { timeoutMs: 10_000, onUnavailable: 'closed' })
      return { store, ready, keys: createApiKeys({ store, rateLimiter, prefix: 'acme', onEvent: () => {} }) }
    }
    const before = start()
    const changed = await before.keys.issue(NAME)
    const revoked = await before.keys.issue(NAME)
    const backup: KeyRecord[] = []
    for (const { apiKey } of [changed, revoked]) {
      backup.push((await before.store.find({ id: apiKey.id })) as KeyRecord)
    }
    await before.keys.update(changed.apiKey.id, { name: 'later' })
    await before.keys.update(changed.apiKey.id, { name: 'later still' })
    await before.keys.revoke(revoked.apiKey.id)
    const { keys, ready } = start(backup)
    await ready
    return { redis, keys, changed, revoked }
  }

  it('keeps changed keys out until their versions are removed', async () => {
    const { redis, keys, changed, revoked } = await setUp()
    const outdated = {
      code: 'unavailable',
      cause: { message: expect.stringContaining('a record older than its latest change') },
    }
    await expect(keys.verify(changed.key)).rejects.toMatchObject(outdated)
    await expect(keys.verify(revoked.key)).rejects.toMatchObject(outdated)
    await keys.revoke(revoked.apiKey.id)
    expect(await keys.verify(revoked.key)).toMatchObject({ code: 'invalid_key', reason: 'revoked' })

    await runBlock(codeOf('Back up and restore'), { redis })
    expect(await redis.dbsize()).toBe(0)
    expect((await keys.verify(changed.key)).ok).toBe(true)
    expect(await keys.verify(revoked.key)).toMatchObject({ code: 'invalid_key', reason: 'revoked' })
  })

  it('lets in one key whose version alone is removed', async () => {
    const { redis, keys, changed } = await setUp()
    await expect(keys.verify(changed.key)).rejects.toMatchObject({ code: 'unavailable' })
    const command = codeOf('Back up and restore', 'sh')
    const [, name = '', field = ''] = /^redis-cli HDEL '(.+)' (\S+)\n$/.exec(command) ?? []
    const { id, lineageId } = changed.apiKey
    expect(await redis.hdel(name.replace('<lineageId>', lineageId), field.replace('<id>', id))).toBe(1)
    expect((await keys.verify(changed.key)).ok).toBe(true)
  })
})
