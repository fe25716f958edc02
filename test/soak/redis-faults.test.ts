import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import { type ApiKeyEvent, createApiKeys, memoryStore } from 'latchkey'
import {
  type NodeRedisClient,
  type RedisClient,
  type RedisRateLimiterOptions,
  redisRateLimiter,
} from 'latchkey/redis'
import { createClient } from 'redis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { isLong, times } from '../support/long-run.ts'
import { connecting } from '../support/node-redis.ts'
import { startCluster, startRedis } from '../support/redis-server.ts'
import { type Answered, startLoad } from '../support/steady-load.ts'
import { NAME } from '../support/test-keys.ts'

const DEADLINE_MS = 100
const SLACK_MS = 20
/** From when the server can be reached again until every request is counted by it. */
const RECOVERY_MS = 6_000

/** An application under load over this client, with its default settings. */
async function setUp(
  client: (RedisClient | NodeRedisClient) & { on(event: 'error', listener: () => void): unknown },
  options: RedisRateLimiterOptions = {},
) {
  client.on('error', () => {})
  const events: ApiKeyEvent[] = []
  const rateLimiter = redisRateLimiter(client, { keyPrefix: randomUUID(), ...options })
  const keys = createApiKeys({
    store: memoryStore(),
    rateLimiter,
    prefix: 'acme',
    rateLimits: [
      { name: 'minute', limit: 1_000_000, windowMs: 60_000 },
      { name: 'burst', limit: 1_000_000, windowMs: 60_000, burst: 100_000 },
    ],
    onEvent: (event) => void events.push(event),
  })
  const { key, apiKey } = await keys.issue(NAME)
  await keys.verify(key)
  const load = await startLoad(keys, key)
  onTestFinished(async () => {
    await load.stop()
    await keys.close()
  })
  await load.answered(100)
  load.take()

  /** Resolves once the server has counted every call of a second; requires that to begin in time. */
  async function recovered(): Promise<void> {
    const startedAt = performance.now()
    let since = startedAt
    while (performance.now() - since < 1_000) {
      if (!(await isCounted())) since = performance.now()
      expect(since - startedAt).toBeLessThan(RECOVERY_MS)
      await setTimeout(10)
    }
  }

  /** What this process counted for itself cannot be given back. */
  async function isCounted(): Promise<boolean> {
    const result = await keys.verify(key).catch(() => null)
    return result?.ok === true && keys.refund(result).catch(() => false)
  }

  return { load, events, recovered, keys, key, apiKey }
}

function expectInTime(answered: readonly Answered[], statuses: readonly number[]): void {
  expect(statuses).toEqual(expect.arrayContaining(answered.map(({ status }) => status)))
  const late = answered.filter(({ tookMs, busyMs }) => tookMs > DEADLINE_MS + SLACK_MS + busyMs)
  expect(late).toEqual([])
}

const POLICIES: readonly (readonly ['local' | 'open' | 'closed', readonly number[]])[] = [
  ['local', [200]],
  ['open', [200]],
  ['closed', [200, 503]],
]

const CLIENTS = {
  ioredis: (port: number) => new Redis(port),
  'node-redis': (port: number) => connecting(createClient({ socket: { port } })),
}

// In a slice, the default and the strict one.
const CASES = POLICIES.filter(([policy]) => isLong || policy !== 'open').flatMap(([policy, statuses]) =>
  Object.entries(CLIENTS).map(([name, connect]) => [policy, name, connect, statuses] as const),
)

describe.each(CASES)(
  'a server under load, with the policy %s and %s',
  (onUnavailable, _name, connect, statuses) => {
    it('is paused, resumed, killed, restarted and loses its scripts', async () => {
      const server = await startRedis({ binary: inject('redisBinary') })
      const client = connect(server.port)
      const admin = new Redis(server.port)
      admin.on('error', () => {})
      onTestFinished(async () => {
        for (const one of [client, admin]) one.disconnect()
        await server.stop()
      })
      if ('connected' in client) await client.connected
      const { load, recovered, events } = await setUp(client, { onUnavailable })

      server.pause()
      await setTimeout(3_000)
      server.resume()
      await recovered()
      expect(events.map(({ type }) => type)).toContain('limiter.suspended')
      const answered = load.take()
      expectInTime(answered, statuses)
      expect(new Set(answered.map(({ status }) => status))).toEqual(new Set(statuses))

      for (let i = 0; i < times({ soak: 50, long: 200 }); i++) {
        await admin.script('FLUSH')
        await setTimeout(5)
      }
      expectInTime(load.take(), [200])

      await server.kill()
      await setTimeout(times({ soak: 2_000, long: 8_000 }))
      await server.restart()
      await recovered()
      expectInTime(load.take(), statuses)

      await server.restart()
      await recovered()
      expectInTime(load.take(), statuses)
    })
  },
)

describe('a Cluster under load', () => {
  it('loses the primary of the key, and its replica takes over', async () => {
    const cluster = await startCluster({ binary: inject('redisBinary'), replicas: 1 })
    const client = new Cluster(cluster.nodes.map(({ host, port }) => ({ host, port })))
    onTestFinished(async () => {
      client.disconnect()
      await cluster.stop()
    })
    const { load, recovered, keys, key, apiKey } = await setUp(client)
    const [host] = client.slots[await slotOf(client, apiKey.lineageId)] ?? []
    const primary = cluster.nodes.find((node) => `${node.host}:${node.port}` === host)
    expect(primary?.role).toBe('primary')
    await primary?.server.kill()
    const other = cluster.nodes.find((node) => node !== primary && node.role === 'primary')
    const witness = new Redis(other?.port ?? 0)
    onTestFinished(() => witness.disconnect())
    await expect.poll(() => witness.cluster('INFO'), { timeout: 20_000 }).toContain('cluster_state:fail')
    await expect.poll(() => witness.cluster('INFO'), { timeout: 20_000 }).toContain('cluster_state:ok')
    await recovered()
    expectInTime(load.take(), [200])
    await keys.revoke(apiKey.id)
    expect(await keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
  })
})

async function slotOf(client: Cluster, lineageId: string): Promise<number> {
  return Number(await client.cluster('KEYSLOT', `{${lineageId}}`))
}
