import { randomUUID } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import { type ApiKeyEvent, createApiKeys, memoryStore } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'

const LIMIT = 5
const SOON = { timeout: 2_000, interval: 10 }

const CLIENTS: [string, () => Redis | Cluster][] = [
  ['a Redis', () => new Redis(inject('redisUrl'))],
  ['a Cluster', () => new Cluster(inject('clusterNodes'))],
]

describe.each(CLIENTS)('processes that share %s', (_name, newClient) => {
  /** Two processes that count together and apart from everybody else's tests. */
  function startTwo() {
    const store = memoryStore()
    const keyPrefix = `test:${randomUUID()}`
    const start = () => {
      const client = newClient()
      const events: ApiKeyEvent[] = []
      const keys = createApiKeys({
        store,
        // Long enough for a connection to be made: while Redis is away, each process counts for itself.
        rateLimiter: redisRateLimiter(client, { keyPrefix, timeoutMs: 5_000 }),
        prefix: 'acme_test',
        failedAttempts: { limit: LIMIT },
        onEvent: (event) => void events.push(event),
      })
      onTestFinished(async () => {
        await keys.close()
        client.disconnect()
      })
      return { keys, blocked: () => events.filter(({ type }) => type === 'address.blocked') }
    }
    return [start(), start()] as const
  }

  it.each(['203.0.113.7', '2001:db8::1'])('count the invalid keys of an address together: %s', async (ip) => {
    const [here, there] = startTwo()
    const { key } = await issueKey(here.keys)
    // All but the first come while that one is being counted.
    for (let i = 0; i < LIMIT - 1; i++) await here.keys.verify('junk', { ip })
    await here.keys.close()
    expect(here.blocked()).toEqual([])
    await there.keys.verify('junk', { ip })
    await vi.waitFor(() => expect(there.blocked()).toHaveLength(1), SOON)
    expect(await there.keys.verify(key, { ip })).toMatchObject({ ok: false, code: 'too_many_failures' })
    expect(await there.keys.verify(key, { ip: '198.51.100.1' })).toMatchObject({ ok: true })
    expect(await there.keys.verify(key, { ip })).toMatchObject({ ok: true })
  })
})
