import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { type ApiKeysOptions, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { redisInvalidation, redisRateLimiter, redisStore } from 'latchkey/redis'
import { createClient } from 'redis'
import { createClient as createClient5 } from 'redis5'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { startHeldProxy } from '../support/held-proxy.ts'
import { soakOnly } from '../support/long-run.ts'
import { connecting } from '../support/node-redis.ts'
import { startRedis } from '../support/redis-server.ts'
import { NAME } from '../support/test-keys.ts'

const SOON = { timeout: 10_000 }

type Client = Redis | ReturnType<typeof createClient> | ReturnType<typeof createClient5>

const CLIENTS: Record<string, (port: number) => Client & { disconnect(): void }> = {
  ioredis: (port) => new Redis(port),
  ...soakOnly<Record<string, (port: number) => Client & { disconnect(): void }>>({
    'node-redis 6': (port) => connecting(createClient({ socket: { port } })),
    'node-redis 5': (port) => connecting(createClient5({ socket: { port } })),
  }),
}

/**
 * A primary and its replica behind one address, as behind a service of Kubernetes. After `failOver`, whoever connects gets the
 * other one, and whoever is connected stays where it is: on a replica that takes no writes.
 */
async function oneAddress(newClient: (port: number) => Client & { disconnect(): void }) {
  const binary = inject('redisBinary')
  const args = ['--repl-diskless-sync-delay', '0']
  const [first, second] = await Promise.all([startRedis({ binary, args }), startRedis({ binary, args })])
  const [a, b] = [new Redis(first.port), new Redis(second.port)]
  const proxy = await startHeldProxy(first.port)
  onTestFinished(async () => {
    proxy.stop()
    for (const client of [a, b]) client.disconnect()
    await Promise.all([first.stop(), second.stop()])
  })
  await b.replicaof('127.0.0.1', first.port)
  await expect.poll(() => b.info('replication'), { timeout: 15_000 }).toContain('master_link_status:up')

  return {
    connect: () => {
      const client = newClient(proxy.port)
      client.on('error', () => {})
      onTestFinished(() => client.disconnect())
      return client
    },
    connectDirectly: () => new Redis(second.port),
    async failOver() {
      // What was written before is there.
      await expect.poll(() => b.dbsize()).toBe(await a.dbsize())
      proxy.turnTo(second.port)
      await b.replicaof('NO', 'ONE')
      await a.replicaof('127.0.0.1', second.port)
      await expect.poll(() => a.info('replication'), { timeout: 15_000 }).toContain('master_link_status:up')
    },
  }
}

function keysWith(options: Partial<ApiKeysOptions>) {
  const keys = createApiKeys({
    store: memoryStore(),
    rateLimiter: memoryRateLimiter(),
    prefix: 'acme',
    rateLimits: [{ name: 'hour', limit: 1_000, windowMs: 3_600_000 }],
    ...options,
  })
  onTestFinished(() => keys.close())
  return keys
}

describe.each(Object.entries(CLIENTS))('a failover behind one address, with %s', (_name, newClient) => {
  it('is noticed by the limiter, which then counts on the new primary', async () => {
    const { connect, failOver } = await oneAddress(newClient)
    const rateLimiter = redisRateLimiter(connect(), { onUnavailable: 'closed', keyPrefix: randomUUID() })
    const keys = keysWith({ rateLimiter })
    const { key } = await keys.issue(NAME)
    await expect.poll(() => keys.verify(key).catch(() => null)).toMatchObject({ ok: true })
    await failOver()
    await expect.poll(() => keys.verify(key).catch(() => null), SOON).toMatchObject({ ok: true })
    // One that cannot have come from a process of its own.
    const result = await keys.verify(key)
    expect(result.ok && (await keys.refund(result))).toBe(true)
  })

  it('is noticed by the store, which then issues and changes keys', async () => {
    const { connect, connectDirectly, failOver } = await oneAddress(newClient)
    const keys = keysWith({ store: redisStore(connect(), { replicas: 0 }) })
    const { apiKey } = await keys.issue(NAME)
    await failOver()
    const issued = () => keys.issue(NAME).catch(() => null)
    await expect.poll(issued, SOON).toMatchObject({ key: expect.any(String) })
    await keys.revoke(apiKey.id)
    const direct = connectDirectly()
    onTestFinished(() => direct.disconnect())
    expect(await keysWith({ store: redisStore(direct, { replicas: 0 }) }).get(apiKey.id)).toMatchObject({
      revokedAt: expect.any(Date),
    })
  })

  it('is noticed by the invalidation, whose messages then reach those on the new primary, and theirs reach it', async () => {
    const { connect, connectDirectly, failOver } = await oneAddress(newClient)
    const direct = connectDirectly()
    onTestFinished(() => direct.disconnect())
    const heard = { here: new Set<string>(), there: new Set<string>() }
    const here = redisInvalidation(connect())
    const stopHere = here.listen({ changed: ([one]) => heard.here.add(one?.keyId ?? ''), missed() {} })
    onTestFinished(() => void stopHere())
    await failOver()
    const there = redisInvalidation(direct)
    const stopThere = there.listen({ changed: ([one]) => heard.there.add(one?.keyId ?? ''), missed() {} })
    onTestFinished(() => void stopThere())
    const tell = async () => {
      await Promise.allSettled([here.publish([{ keyId: 'from here', version: 1 }])])
      await there.publish([{ keyId: 'from there', version: 1 }])
      return heard
    }
    await expect.poll(tell, SOON).toEqual({
      here: new Set(['from here', 'from there']),
      there: new Set(['from here', 'from there']),
    })
  })
})
