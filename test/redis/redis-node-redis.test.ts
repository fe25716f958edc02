import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { redisInvalidation, redisRateLimiter, redisStore } from 'latchkey/redis'
import { createClient, createClientPool, createCluster, createSentinel } from 'redis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import { record } from '../support/key-records.ts'
import { clusterOptions, connecting } from '../support/node-redis.ts'

const limits = compileRateLimits('rateLimits', [{ name: 'hour', limit: 100, windowMs: 3_600_000 }])
const CALL = { lineageId: 'l', keyId: 'k', version: 1, fresh: true, cost: 1, limits, retainMs: 10_000 }
const PARTS: [string, (client: never) => unknown][] = [
  ['redisRateLimiter', redisRateLimiter],
  ['redisStore', redisStore],
  ['redisInvalidation', redisInvalidation],
]

describe.each(PARTS)('%s', (_name, make) => {
  it.each<[string, () => unknown, string]>([
    ['a pool', () => createClientPool(), 'not a pool or a lease'],
    [
      'what legacy() returns',
      () => createClient().legacy(),
      'be the client itself, not what its legacy() returns',
    ],
    ['version 4', () => ({ isOpen: true, sendCommand() {} }), 'be of node-redis 5 or 6: this is version 4'],
    [
      'version 4 in its legacy mode',
      () => ({ isOpen: true, sendCommand() {}, eval() {}, evalsha() {}, publish() {}, duplicate() {} }),
      'this is version 4',
    ],
    [
      'the options of a client',
      () => ({ url: 'redis://localhost' }),
      'ioredis 5 or 6, or of node-redis 5 or 6',
    ],
  ])('refuses %s', (_what, client, message) => {
    expect(() => make(client() as never)).toThrow(TypeError)
    expect(() => make(client() as never)).toThrow(message)
  })

  it.each<[string, () => object]>([
    ['a client', () => createClient()],
    ['a Cluster', () => createCluster(clusterOptions([{ host: '127.0.0.1', port: 1 }]))],
    [
      'a Sentinel client',
      () => createSentinel({ name: 'main', sentinelRootNodes: [{ host: '127.0.0.1', port: 1 }] }),
    ],
  ])('takes %s that is not connected yet', (_what, client) => {
    expect(() => make(client() as never)).not.toThrow()
  })
})

describe('a client that is not connected', () => {
  const message = 'The node-redis client is not connected: call its connect() and wait for it'

  it('fails every call, before it connects and after it is closed', async () => {
    const client = createClient({ url: inject('redisUrl') })
    onTestFinished(() => client.destroy())
    const limiter = redisRateLimiter(client, {
      keyPrefix: randomUUID(),
      onUnavailable: 'closed',
      timeoutMs: 5_000,
    })
    const store = redisStore(client, { keyPrefix: randomUUID() })
    const fail = async () => {
      await expect(limiter.check(CALL)).rejects.toThrow(message)
      await expect(store.find({ id: 'k' })).rejects.toThrow(message)
      await expect(redisInvalidation(client).publish([{ keyId: 'k', version: 1 }])).rejects.toThrow(message)
    }
    await fail()
    await client.connect()
    expect(await limiter.check(CALL)).toMatchObject({ outcome: 'admitted' })
    await client.close()
    await fail()
    await client.connect()
    expect(await limiter.check(CALL)).toMatchObject({ limits: [{ remaining: 98 }] })
  })

  it('is not connected by Latchkey, so that the application can connect it', async () => {
    const client = createCluster(clusterOptions(inject('clusterNodes')))
    onTestFinished(() => client.destroy())
    const limiter = redisRateLimiter(client, {
      keyPrefix: randomUUID(),
      onUnavailable: 'closed',
      timeoutMs: 5_000,
    })
    await expect(limiter.check(CALL)).rejects.toThrow(message)
    await client.connect()
    expect(await limiter.check(CALL)).toMatchObject({ outcome: 'admitted' })
  })
})

describe('a Cluster client that somebody has stopped listening on', () => {
  it('keeps no subscription and no listener, and makes no subscription when it connects again', async () => {
    const client = connecting(createCluster(clusterOptions(inject('clusterNodes'))))
    onTestFinished(() => client.disconnect())
    await client.connected
    const channel = randomUUID()
    const admins = inject('clusterNodes').map(({ host, port }) => new Redis(port, host))
    onTestFinished(() => admins.forEach((admin) => void admin.disconnect()))
    const listeners = async () => {
      const counts = await Promise.all(admins.map((admin) => admin.pubsub('NUMSUB', channel)))
      return counts.reduce((sum, [, count]) => sum + Number(count), 0)
    }
    const before = client.listenerCount('connect')
    const stop = redisInvalidation(client, { channel }).listen({ changed() {}, missed() {} })
    await expect.poll(listeners).toBe(1)
    await stop()
    await expect.poll(listeners).toBe(0)
    expect(client.listenerCount('connect')).toBe(before)
    await client.close()
    await client.connect()
    expect(await listeners()).toBe(0)
  })
})

describe('keys that were written by one client', () => {
  it.each([
    ['plain', 'plain'],
    ['of many alphabets', 'ümläut ☃ 🗝'],
    ['of control characters', '\u0000\n\r{}'],
    ['long', 'a'.repeat(70_000)],
  ])('are read by the other: text that is %s', async (_what, text) => {
    const redis = new Redis(inject('redisUrl'))
    const client = connecting(createClient({ url: inject('redisUrl') }))
    onTestFinished(() => {
      redis.disconnect()
      client.disconnect()
    })
    const keyPrefix = randomUUID()
    const [one, other] = [redisStore(redis, { keyPrefix }), redisStore(client, { keyPrefix })]
    const kept = record({ id: 'k', name: text, owner: { type: 'user', id: text }, metadata: { text } })
    await one.insert([kept])
    expect(await other.find({ id: 'k' })).toMatchObject({ name: text, owner: { id: text } })
    await other.update('k', 1, { name: `${text}!`, updatedAt: new Date() })
    expect(await one.list({ owners: [{ type: 'user', id: text }] }, { limit: 5 })).toMatchObject([
      { name: `${text}!` },
    ])
    const used = { id: 'k', count: 2 ** 40, lastUsedAt: new Date(), lastUsedIp: '::1' }
    await other.recordUsage([used as never])
  })
})
