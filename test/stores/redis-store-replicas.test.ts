import { Cluster, Redis } from 'ioredis'
import type { KeyStore } from 'latchkey'
import { type RedisStoreClient, redisStore } from 'latchkey/redis'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { at, lease, leased, quota, record } from '../support/key-records.ts'
import { type RedisCluster, type RedisServer, startCluster, startRedis } from '../support/redis-server.ts'
import { newPrefix } from '../support/redis-store.ts'

const change = { name: 'new', updatedAt: at(1) }

describe('one server and its replica', () => {
  let primary: RedisServer
  let replica: RedisServer
  let redis: Redis
  let toReplica: Redis

  beforeAll(async () => {
    ;[primary, replica] = await startPair()
    redis = new Redis(primary.url)
    toReplica = new Redis(replica.url)
    await isReplicated(redis)
  })
  afterAll(async () => {
    redis.disconnect()
    toReplica.disconnect()
    await Promise.all([primary.stop(), replica.stop()])
  })

  it('has every change on the replica when it resolves', async () => {
    const keyPrefix = newPrefix()
    const store = redisStore(redis, { keyPrefix })
    const onReplica = redisStore(toReplica, { keyPrefix })
    for (let i = 0; i < 30; i += 1) {
      const id = `k${i}`
      await store.insert([record({ id, lookup: `f:${id}`, quota: quota(5) })])
      expect(await onReplica.find({ id })).toMatchObject({ quota: { remaining: 5 } })
      expect(await onReplica.list({ lineageId: id }, { limit: 1 })).toHaveLength(1)
      await store.update(id, 1, { ...change, revokedAt: at(1), quota: { remaining: 9 } })
      expect(await onReplica.find({ id })).toMatchObject({ revokedAt: at(1), quota: { remaining: 9 } })
      expect(await lease(store, id, 4)).toBe(4)
      expect(await onReplica.find({ id })).toMatchObject({ quota: { remaining: 5 } })
      await store.replaceDigest(id, `$sha256$${id}`, 'next')
      expect(await onReplica.find({ id })).toMatchObject({ digest: 'next' })
      await store.purge([id], at(2))
      expect(await onReplica.find({ id })).toBeNull()
    }
  })

  it('fails a change that the replica does not confirm in time, and says that it is made', async () => {
    const keyPrefix = newPrefix()
    const store = redisStore(redis, { keyPrefix, waitMs: 50 })
    await store.insert([record({ id: 'a', quota: quota(5) })])
    replica.pause()
    try {
      const message = 'The change is made, but only 0 of 1 replicas have confirmed it within 50 ms'
      const unconfirmed = { code: 'unavailable', message }
      await expect(store.update('a', 1, change)).rejects.toMatchObject(unconfirmed)
      await expect(store.insert([record({ id: 'b' })])).rejects.toMatchObject(unconfirmed)
      await expect(store.swapQuota('a', quota(5), leased(quota(5), 1))).rejects.toMatchObject(unconfirmed)
      await expect(store.replaceDigest('a', '$sha256$a', 'next')).rejects.toMatchObject(unconfirmed)
      expect(await store.find({ id: 'a' })).toMatchObject({ name: 'new', version: 2 })
      expect(await store.update('a', 1, change)).toBe('conflict')
      const careless = redisStore(redis, { keyPrefix, replicas: 0 })
      expect(await careless.update('a', 2, change)).toBe('updated')
      await store.recordUsage([{ id: 'a', count: 1, lastUsedAt: at(1), lastUsedIp: null }])
    } finally {
      replica.resume()
    }
    expect(await store.update('a', 3, change)).toBe('updated')
  })

  it('fails a change that more replicas are to have than there are', async () => {
    const store = redisStore(redis, { keyPrefix: newPrefix(), replicas: 2, waitMs: 20 })
    const message = 'The change is made, but only 1 of 2 replicas have confirmed it within 20 ms'
    await expect(store.insert([record({ id: 'a' })])).rejects.toMatchObject({ code: 'unavailable', message })
  })

  it('says that a replica takes no writes', async () => {
    const store = redisStore(toReplica, { keyPrefix: newPrefix() })
    await expect(store.insert([record({ id: 'a' })])).rejects.toMatchObject({ code: 'read_only' })
    expect(await store.find({ id: 'a' })).toBeNull()
  })

  it('needs to be told of replicas where it may not ask, rather than take it that there are none', async () => {
    await redis.acl('SETUSER', 'limited', 'on', '>password', '~*', '+@all', '-info')
    const limited = new Redis(primary.url, {
      username: 'limited',
      password: 'password',
      enableReadyCheck: false,
    })
    try {
      const message = /set "replicas" to how many replicas must confirm a change/
      const keyPrefix = newPrefix()
      await expect(redisStore(limited, { keyPrefix }).insert([record({ id: 'a' })])).rejects.toThrow(message)
      await redisStore(limited, { keyPrefix, replicas: 1 }).insert([record({ id: 'b' })])
      expect(await redisStore(toReplica, { keyPrefix }).find({ id: 'b' })).not.toBeNull()
    } finally {
      limited.disconnect()
    }
  })

  it('fails a change during which another server takes over', async () => {
    const [other, itsReplica] = await startPair()
    const toOther = new Redis(other.url)
    try {
      await isReplicated(toOther)
      let toPrimary = Infinity
      const client = failingOver(() => {
        toPrimary -= 1
        return toPrimary < 0 ? toOther : redis
      })
      const during = redisStore(client, { keyPrefix: newPrefix() })
      await during.insert([record({ id: 'a' })])
      // The indexes and the record; not what asks whether replicas have them.
      toPrimary = 2
      const message = 'Another server has taken over and may not have the change'
      await expect(during.insert([record({ id: 'b' })])).rejects.toMatchObject({
        code: 'unavailable',
        message,
      })
      // What is begun after that is as safe as ever.
      await during.insert([record({ id: 'c' })])
    } finally {
      toOther.disconnect()
      await Promise.all([other.stop(), itsReplica.stop()])
    }
  })

  it('waits for nobody once its replica is gone', async () => {
    const store = redisStore(redis, { keyPrefix: newPrefix(), waitMs: 60_000 })
    await replica.kill()
    while ((await redis.info('replication')).includes('state=online')) {
      // The server notices within moments that the connection is closed.
    }
    await store.insert([record({ id: 'a' })])
  })
})

describe('a Cluster with replicas', () => {
  let servers: RedisCluster
  let cluster: Cluster
  let replicas: Redis[]

  beforeAll(async () => {
    servers = await startCluster({ binary: inject('redisBinary'), replicas: 1 })
    cluster = new Cluster(servers.nodes.map(({ host, port }) => ({ host, port })))
    replicas = servers.nodes
      .filter(({ role }) => role === 'replica')
      .map(({ host, port }) => new Redis({ host, port, readOnly: true }))
  })
  afterAll(async () => {
    cluster.disconnect()
    for (const replica of replicas) replica.disconnect()
    await servers.stop()
  })

  /** How many of the keys of the store are on any replica. */
  const replicated = async (keys: readonly string[]) => {
    const found = await Promise.all(replicas.map((replica) => replica.keys('*')))
    return keys.filter((key) => found.flat().includes(key)).length
  }

  it('has every part of a change on the replica of its node when it resolves', async () => {
    for (let i = 0; i < 10; i += 1) {
      const keyPrefix = newPrefix()
      const store: KeyStore = redisStore(cluster, { keyPrefix })
      const ids = ['a', 'b', 'c', 'd', 'e']
      await store.insert(ids.map((id) => record({ id, lookup: `f:${id}` })))
      const keys = ids.flatMap((id) => [
        `${keyPrefix}:k:{f:${id}}`,
        `${keyPrefix}:i:{${id}}`,
        `${keyPrefix}:l:{${id}}`,
      ])
      expect(await replicated(keys)).toBe(keys.length)
    }
  })

  it('fails a change whose own node has no replica that confirms it, and no other', async () => {
    const store = redisStore(cluster, { keyPrefix: newPrefix(), waitMs: 50 })
    const ids = Array.from({ length: 12 }, (_, i) => `k${i}`)
    await store.insert(ids.map((id) => record({ id })))
    const paused = servers.nodes.find(({ role }) => role === 'replica')
    paused?.server.pause()
    try {
      const outcomes = await Promise.allSettled(ids.map((id) => store.update(id, 1, { updatedAt: at(1) })))
      const statuses = outcomes.map(({ status }) => status)
      expect(new Set(statuses)).toEqual(new Set(['fulfilled', 'rejected']))
      for (const one of outcomes) {
        if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'unavailable' })
      }
      const batch = ids.map((id) => record({ id: `${id} of the batch` }))
      await expect(store.insert(batch)).rejects.toMatchObject({ code: 'unavailable' })
      for (const { id } of batch) expect(await store.find({ id })).toBeNull()
    } finally {
      paused?.server.resume()
    }
  })
})

async function startPair(): Promise<[RedisServer, RedisServer]> {
  const binary = inject('redisBinary')
  const primary = await startRedis({ binary, args: ['--repl-diskless-sync-delay', '0'] })
  const replica = await startRedis({ binary, args: ['--replicaof', '127.0.0.1', String(primary.port)] })
  return [primary, replica]
}

async function isReplicated(primary: Redis): Promise<void> {
  await primary.set('anything', '1')
  expect(await primary.wait(1, 10_000)).toBe(1)
}

/** A client that is connected now to one server and now to another. */
function failingOver(current: () => Redis): RedisStoreClient {
  return {
    eval: async (...args) => current().eval(...args),
    evalsha: async (...args) => current().evalsha(...args),
    pipeline: (commands) => current().pipeline(commands),
  }
}
