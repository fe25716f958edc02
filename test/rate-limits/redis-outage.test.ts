import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { type ApiKeyEvent, createApiKeys, memoryStore } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { startRedis } from '../support/redis-server.ts'
import { NAME } from '../support/test-keys.ts'

const TOKENS = { name: 'tokens', limit: 1_000, windowMs: 3_600_000, only: 'named' } as const

describe('a response under way while Redis is away', () => {
  async function setUp() {
    const server = await startRedis({ binary: inject('redisBinary') })
    onTestFinished(() => server.stop())
    const client = new Redis(server.port)
    client.on('error', () => {})
    onTestFinished(() => client.disconnect())
    const events: ApiKeyEvent[] = []
    const keys = createApiKeys({
      store: memoryStore(),
      rateLimiter: redisRateLimiter(client, { keyPrefix: randomUUID(), timeoutMs: 1_000 }),
      prefix: 'acme',
      rateLimits: [TOKENS],
      onEvent: (event) => void events.push(event),
    })
    const { key, apiKey } = await keys.issue(NAME)
    const result = await keys.verify(key, { cost: { tokens: 500 } })
    if (!result.ok) throw new Error(result.code)
    /** What is left once everything is settled. */
    const left = async () => {
      await expect
        .poll(
          () =>
            keys.flush().then(
              () => true,
              () => false,
            ),
          { timeout: 15_000 },
        )
        .toBe(true)
      return (await keys.limits(apiKey.id))?.[0]?.remaining
    }
    return { server, keys, result, key, left, events }
  }

  it('is settled once when a server that hung goes on', async () => {
    const { server, keys, result, left } = await setUp()
    server.pause()
    for (const tokens of [700, 620]) {
      await expect(keys.settle(result, { tokens })).rejects.toMatchObject({ code: 'unavailable' })
    }
    server.resume()
    expect(await left()).toBe(380)
    await keys.close()
  })

  it('is settled as far as it still counts when the server has lost everything', async () => {
    const { server, keys, result, left } = await setUp()
    await server.kill()
    await expect(keys.settle(result, { tokens: 700 })).rejects.toMatchObject({ code: 'unavailable' })
    await server.restart()
    // What was reserved is lost with the data; what came on top is charged.
    expect(await left()).toBe(800)
    await keys.close()
  })

  it('is not settled in Redis if this process counted it by itself', async () => {
    const { server, keys, key } = await setUp()
    await server.kill()
    const result = await keys.verify(key, { cost: { tokens: 300 } })
    if (!result.ok) throw new Error(result.code)
    await server.restart()
    expect(await keys.settle(result, { tokens: 900 })).toEqual([])
    expect(await keys.refund(result)).toBe(false)
    await keys.close()
  })
})
