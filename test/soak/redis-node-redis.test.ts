import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { createApiKeys } from 'latchkey'
import { redisInvalidation, redisRateLimiter, redisStore } from 'latchkey/redis'
import { storeConformance } from 'latchkey/testing'
import { createClient, createCluster, createSentinel } from 'redis'
import {
  createClient as createClient5,
  createCluster as createCluster5,
  createSentinel as createSentinel5,
} from 'redis5'
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished, test } from 'vitest'
import { record } from '../support/key-records.ts'
import { longOnly } from '../support/long-run.ts'
import { clusterOptions, connecting } from '../support/node-redis.ts'
import { startProgram } from '../support/program.ts'
import { startSentinel } from '../support/redis-sentinel.ts'
import { type RedisServer, startCluster, startRedis } from '../support/redis-server.ts'
import { NAME } from '../support/test-keys.ts'

describe.each(
  Object.entries({
    'node-redis 5': () => connecting(createClient5({ url: inject('redisUrl') })),
    'a Cluster of node-redis 6': () => connecting(createCluster(clusterOptions(inject('clusterNodes')))),
    ...longOnly({
      'node-redis 6': () => connecting(createClient({ url: inject('redisUrl') })),
      'node-redis 6 over RESP2': () => connecting(createClient({ url: inject('redisUrl'), RESP: 2 })),
      'a Cluster of node-redis 5': () => connecting(createCluster5(clusterOptions(inject('clusterNodes')))),
    }),
  }),
)('a store by %s', (_name, connect) => {
  const client = connect()
  beforeAll(() => client.connected)
  afterAll(() => client.disconnect())
  storeConformance({ test, assert }, () => redisStore(client, { keyPrefix: randomUUID() }))
})

describe.each(
  Object.entries({
    'node-redis 6': (port: number) => connecting(createSentinel(sentinelOptions(port))),
    'node-redis 5': (port: number) => connecting(createSentinel5(sentinelOptions(port))),
  }),
)('behind Sentinel, by %s', (_name, connect) => {
  it('limiter, store and invalidation go on with the next primary, and what was confirmed is there', async () => {
    const { primary, sentinel } = await startSentinelPair()
    const client = connect(sentinel.port)
    onTestFinished(() => client.disconnect())
    await client.connected
    const heard = new Set<string>()
    const start = () => {
      const keys = createApiKeys({
        store: redisStore(client),
        rateLimiter: redisRateLimiter(client, { onUnavailable: 'closed' }),
        prefix: 'acme',
        rateLimits: [{ name: 'hour', limit: 1_000, windowMs: 3_600_000 }],
        onEvent() {},
      })
      onTestFinished(() => keys.close())
      return keys
    }
    const keys = start()
    const invalidation = redisInvalidation(client)
    const stop = invalidation.listen({ changed: ([one]) => heard.add(one?.keyId ?? ''), missed() {} })
    onTestFinished(() => void stop())
    const { key, apiKey } = await keys.issue(NAME)
    const revoked = await keys.issue(NAME)
    await keys.revoke(revoked.apiKey.id)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await primary.kill()
    await expect
      .poll(() => keys.verify(key).catch(() => null), { timeout: 30_000 })
      .toMatchObject({ ok: true })
    const counted = await keys.verify(key)
    expect(counted.ok && (await keys.refund(counted))).toBe(true)
    expect(await keys.verify(revoked.key)).toMatchObject({ ok: false, reason: 'revoked' })
    await keys.update(apiKey.id, { name: 'after' })
    expect(await start().get(apiKey.id)).toMatchObject({ name: 'after' })
    const tell = async () => {
      await Promise.allSettled([invalidation.publish([{ keyId: 'after', version: 1 }])])
      return heard.has('after')
    }
    await expect.poll(tell, { timeout: 30_000 }).toBe(true)
  })
})

function sentinelOptions(port: number) {
  return { name: 'main', sentinelRootNodes: [{ host: '127.0.0.1', port }] }
}

async function startSentinelPair() {
  const binary = inject('redisBinary')
  const primary = await startRedis({ binary })
  const args = ['--replicaof', '127.0.0.1', String(primary.port), '--repl-diskless-sync-delay', '0']
  const replica = await startRedis({ binary, args })
  const sentinel = await startSentinel(binary, primary.port)
  onTestFinished(async () => {
    sentinel.stop()
    await Promise.all([primary.stop(), replica.stop()])
  })
  await expect
    .poll(() => repliesOf(replica, 'INFO replication'), { timeout: 15_000 })
    .toContain('link_status:up')
  return { primary, sentinel }
}

async function repliesOf(server: RedisServer, command: string): Promise<string> {
  const client = createClient({ url: server.url })
  await client.connect()
  const reply = await client.sendCommand(command.split(' '))
  client.destroy()
  return String(reply)
}

async function ownCluster() {
  const cluster = await startCluster({ binary: inject('redisBinary'), replicas: 1 })
  const client = connecting(createCluster(clusterOptions(cluster.nodes)))
  onTestFinished(async () => {
    client.disconnect()
    await cluster.stop()
  })
  await client.connected
  return { cluster, client }
}

describe('in a Cluster, by node-redis 6', () => {
  it('limiter, store and invalidation go on when a primary is gone and its replica takes over', async () => {
    const { cluster, client } = await ownCluster()
    const keyPrefix = randomUUID()
    const limiter = redisRateLimiter(client, { keyPrefix, onUnavailable: 'closed', timeoutMs: 1_000 })
    const store = redisStore(client, { keyPrefix })
    const heard = new Set<string>()
    const invalidation = redisInvalidation(client)
    const stop = invalidation.listen({ changed: ([one]) => heard.add(one?.keyId ?? ''), missed() {} })
    onTestFinished(() => void stop())
    const ids = Array.from({ length: 30 }, (_, i) => `k${i}`)
    await store.insert(ids.map((id) => record({ id })))
    // It may throw at once.
    const check = async (lineageId: string) =>
      limiter.check({ lineageId, keyId: 'k', version: 1, fresh: true, cost: 1, limits: [], retainMs: 10_000 })
    await Promise.all(ids.map(check))
    await cluster.nodes[0]?.server.kill()
    const outcomes = async () => {
      const answers = await Promise.allSettled(ids.map(check))
      return answers.filter(({ status }) => status === 'fulfilled').length
    }
    await expect.poll(outcomes, { timeout: 40_000, interval: 500 }).toBe(ids.length)
    const found = () => Promise.all(ids.map((id) => store.find({ id }).catch(() => null)))
    await expect
      .poll(async () => (await found()).filter(Boolean).length, { timeout: 20_000 })
      .toBe(ids.length)
    const tell = async () => {
      await Promise.allSettled([invalidation.publish([{ keyId: 'after', version: 1 }])])
      return heard.has('after')
    }
    await expect.poll(tell, { timeout: 30_000 }).toBe(true)
  })

  it('a slot that moves is followed, by pipelines too', async () => {
    const { cluster, client } = await ownCluster()
    const store = redisStore(client, { keyPrefix: randomUUID() })
    const ids = Array.from({ length: 10 }, (_, i) => `k${i}`)
    await store.insert(ids.map((id) => record({ id })))
    // A failover that nobody is told of: each replica becomes the primary of its slots.
    for (const { server } of cluster.nodes.filter(({ role }) => role === 'replica')) {
      await repliesOf(server, 'CLUSTER FAILOVER TAKEOVER')
    }
    const rename = (id: string) => store.update(id, 1, { name: 'after', updatedAt: new Date() })
    const renamed = async () => {
      await Promise.allSettled(ids.map(rename))
      return (await Promise.all(ids.map((id) => store.find({ id }).catch(() => null)))).map(
        (one) => one?.name,
      )
    }
    await expect.poll(renamed, { timeout: 20_000 }).toEqual(ids.map(() => 'after'))
  })
})

describe('a server that is away', () => {
  it('leaves a bounded number of commands waiting, each for a bounded time', async () => {
    const server = await startRedis({ binary: inject('redisBinary') })
    onTestFinished(() => server.stop())
    const client = connecting(createClient({ url: server.url }))
    onTestFinished(() => client.disconnect())
    await client.connected
    const store = redisStore(client, { keyPrefix: randomUUID(), replicas: 0 })
    await store.insert([record({ id: 'before' })])
    await server.kill()
    await expect.poll(() => client.isReady).toBe(false)
    const startedAt = performance.now()
    const reads = Array.from({ length: 10_100 }, () => store.find({ id: 'before' }))
    const refused = await Promise.allSettled(reads.slice(-100))
    expect(performance.now() - startedAt).toBeLessThan(4_000)
    for (const one of refused) {
      expect(one).toMatchObject({
        status: 'rejected',
        reason: { message: expect.stringContaining('10000 commands are waiting for Redis already') },
      })
    }
    const waited = await Promise.allSettled(reads)
    expect(performance.now() - startedAt).toBeLessThan(20_000)
    expect(waited.every(({ status }) => status === 'rejected')).toBe(true)
    await server.restart()
    await expect.poll(() => store.find({ id: 'before' }).catch(() => 'away'), { timeout: 8_000 }).toBe(null)
  })

  it('ends no process whose application listens to no errors', async () => {
    const server = await startRedis({ binary: inject('redisBinary') })
    onTestFinished(() => server.stop())
    const program = startProgram(
      [
        '--input-type=module',
        '--eval',
        `import { createClient } from 'redis'
         import { createApiKeys, memoryStore } from './lib/index.ts'
         import { redisInvalidation, redisRateLimiter } from './lib/redis.ts'
         const client = createClient({ url: process.env.URL })
         const rateLimiter = redisRateLimiter(client)
         await client.connect()
         const invalidation = redisInvalidation(client)
         const keys = createApiKeys({ store: memoryStore(), rateLimiter, invalidation, prefix: 'acme', onEvent() {} })
         const { key } = await keys.issue({ owner: { type: 'user', id: 'u' }, name: 'n' })
         const lost = new Promise((resolve) => client.once('reconnecting', resolve))
         console.log('ready')
         await lost
         console.log('lost', (await keys.verify(key)).ok)
         await keys.close()
         await client.destroy()
         console.log('closed')`,
      ],
      { URL: server.url },
    )
    await program.waitFor(/ready/)
    await server.kill()
    await program.waitFor(/lost true\nclosed/)
    expect(await program.ended()).toBe(0)
    expect(program.stderr).toBe('')
  })
})
