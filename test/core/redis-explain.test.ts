import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { type ApiKeysOptions, createApiKeys, memoryStore } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { recordingStore } from '../support/recording-store.ts'
import { forgeKey } from '../support/test-keys.ts'

const IP = '203.0.113.7'
const LIMITS = [
  { name: 'minute', limit: 5, windowMs: 60_000 },
  { name: 'bucket', limit: 60, windowMs: 3_600_000, burst: 3 },
  { name: 'team', limit: 9, windowMs: 60_000, scope: 'owner' },
  { name: 'parallel', concurrent: 2 },
] as const

/** Two processes on one Redis and one store. */
function startTwo(options: Partial<ApiKeysOptions> = {}) {
  const store = recordingStore(memoryStore())
  const keyPrefix = `test:${randomUUID()}`
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => void redis.disconnect())
  const start = () => {
    const client = new Redis(inject('redisUrl'))
    const keys = createApiKeys({
      store,
      rateLimiter: redisRateLimiter(client, { keyPrefix, timeoutMs: 5_000 }),
      prefix: 'acme_test',
      rateLimits: LIMITS,
      failedAttempts: { limit: 2 },
      ...options,
    })
    onTestFinished(async () => {
      await keys.close()
      client.disconnect()
    })
    return keys
  }
  /** Everything that Redis holds, but for the versions of keys and how long it keeps them. */
  const held = async () => {
    const found: Record<string, unknown> = {}
    for (const name of (await redis.keys(`${keyPrefix}*`)).sort()) {
      if ((await redis.type(name)) === 'zset') found[name] = await redis.zrange(name, '0', '-1')
      else {
        const fields = Object.entries(await redis.hgetall(name)).filter(([field]) => !field.startsWith('v'))
        found[name] = Object.fromEntries(fields)
      }
    }
    return found
  }
  return { here: start(), there: start(), store, held }
}

describe('explaining by Redis', () => {
  it('spends nothing there, counts no wrong key, and says what the next call of any process gets', async () => {
    const { here, there, store, held } = startTwo()
    const { key, apiKey } = await issueKey(here, { quota: { remaining: 50 } })
    await there.verify(key)
    await there.flush()
    await here.explain({ key }, { ip: IP })
    const before = { redis: await held(), record: await store.find({ id: apiKey.id }) }
    store.forgetCalls()
    for (let i = 0; i < 5; i++) {
      expect(await here.explain({ key }, { ip: IP, cost: 2 })).toMatchObject({
        outcome: 'admitted',
        limits: [
          { name: 'minute', remaining: 4 },
          { name: 'bucket', remaining: 2 },
          { name: 'team', remaining: 8 },
          { name: 'parallel', remaining: 1 },
          { name: 'quota', remaining: 49 },
        ],
      })
      expect(await here.explain({ key }, { cost: 3 })).toMatchObject({ outcome: 'rate_limited' })
      const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
      expect(await here.explain({ key: wrong }, { ip: IP })).toMatchObject({ reason: 'wrong_secret' })
    }
    await here.flush()
    expect(store.calls()).toBe(store.calls('find'))
    expect({ redis: await held(), record: await store.find({ id: apiKey.id }) }).toEqual(before)
    expect(await here.verify(key, { cost: 3 })).toMatchObject({ code: 'rate_limited' })
    expect(await here.verify(key, { ip: IP, cost: 2 })).toMatchObject({ ok: true })
    expect(await there.explain({ id: apiKey.id })).toMatchObject({
      outcome: 'rate_limited',
      limits: [
        {},
        { name: 'bucket', remaining: 0, exceeded: true },
        {},
        { name: 'parallel', remaining: 0, exceeded: true },
        {},
      ],
    })
    expect(await here.verify(key)).toMatchObject({ code: 'rate_limited' })
  })

  it('knows of changes by other processes at once', async () => {
    const { here, there } = startTwo()
    const { key, apiKey } = await issueKey(here)
    expect(await here.verify(key)).toMatchObject({ ok: true })
    await there.revoke(apiKey.id)
    expect(await here.explain({ key })).toMatchObject({ outcome: 'invalid_key', reason: 'revoked' })
    expect(await here.verify(key)).toMatchObject({ reason: 'revoked' })
  })

  it.each(['open', 'local', 'closed'] as const)(
    'follows the policy %s while Redis is away',
    async (onUnavailable) => {
      const client = new Redis({
        port: 1,
        lazyConnect: true,
        retryStrategy: () => null,
        maxRetriesPerRequest: 0,
      })
      client.on('error', () => {})
      onTestFinished(() => void client.disconnect())
      const keys = createApiKeys({
        store: memoryStore(),
        rateLimiter: redisRateLimiter(client, { onUnavailable, timeoutMs: 50 }),
        prefix: 'acme_test',
        rateLimits: LIMITS,
        onEvent: () => {},
      })
      onTestFinished(() => keys.close())
      const { key } = await issueKey(keys)
      const call = (cost: number) => [keys.explain({ key }, { cost }), keys.verify(key, { cost })] as const
      if (onUnavailable === 'closed') {
        for (const failing of call(1)) await expect(failing).rejects.toMatchObject({ code: 'unavailable' })
        return
      }
      const [explained, verified] = await Promise.all(call(9))
      const isOpen = onUnavailable === 'open'
      expect(explained).toMatchObject({ outcome: isOpen ? 'admitted' : 'rate_limited' })
      expect(verified).toMatchObject(isOpen ? { ok: true } : { code: 'rate_limited' })
    },
  )
})
