import { randomUUID } from 'node:crypto'
import type { EventEmitter } from 'node:events'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { Cluster as Cluster5, Redis as Redis5 } from 'ioredis5'
import {
  type ApiKeyEvent,
  createApiKeys,
  type InvalidationListener,
  type KeyVersion,
  memoryRateLimiter,
  memoryStore,
} from 'latchkey'
import { type NodeRedisClient, type RedisPublisher, redisInvalidation } from 'latchkey/redis'
import { createClient, createCluster } from 'redis'
import { createClient as createClient5, createCluster as createCluster5 } from 'redis5'
import { expect, inject, onTestFinished, vi } from 'vitest'
import { issueKey } from './issue-key.ts'
import { soakOnly } from './long-run.ts'
import { type Connectable, clusterOptions, connecting } from './node-redis.ts'
import { type RedisServer, startRedis } from './redis-server.ts'
import { NAME } from './test-keys.ts'

export const REVOKED = { ok: false, code: 'invalid_key', reason: 'revoked' }
export const CHANGE = [{ keyId: 'k', version: 2 }]
/** How long anything may take that happens promptly. */
export const SOON = { timeout: 2_000, interval: 10 }
export const AFTER_SILENCE = { timeout: 6_000, interval: 10 }

/** A client as an application has it, disconnected when the test ends. */
export function clientOf<T extends Redis | Redis5 | Cluster | Cluster5>(client: T): T {
  // Connections are lost here on purpose; the client would print each loss that nobody listens for.
  ;(client as EventEmitter).on('error', () => {})
  onTestFinished(() => client.disconnect())
  return client
}

/** The same for a client of node-redis. */
export function nodeClientOf<T extends NodeRedisClient & Connectable>(client: T): T {
  const connected = connecting(client)
  onTestFinished(() => connected.disconnect())
  return connected
}

type Client = RedisPublisher | NodeRedisClient

const urlAndName = (name: string) => ({ url: inject('redisUrl'), name })
const nodesAndName = (name: string) => ({ ...clusterOptions(inject('clusterNodes')), defaults: { name } })

/** Every kind of client that is supported, on the services that all tests share. */
export const CLIENTS: Record<string, (connectionName?: string) => Client> = {
  'ioredis 6': (connectionName = 'test') => clientOf(new Redis(inject('redisUrl'), { connectionName })),
  'ioredis 5': (connectionName = 'test') => clientOf(new Redis5(inject('redisUrl'), { connectionName })),
  'a Cluster of ioredis 6': (connectionName = 'test') =>
    clientOf(new Cluster(inject('clusterNodes'), { redisOptions: { connectionName } })),
  'a Cluster of ioredis 5': (connectionName = 'test') =>
    clientOf(new Cluster5(inject('clusterNodes'), { redisOptions: { connectionName } })),
  'node-redis 6': (name = 'test') => nodeClientOf(createClient(urlAndName(name))),
  'a Cluster of node-redis 6': (name = 'test') => nodeClientOf(createCluster(nodesAndName(name))),
  ...soakOnly<Record<string, (connectionName?: string) => Client>>({
    'node-redis 5': (name = 'test') => nodeClientOf(createClient5(urlAndName(name))),
    'node-redis 6 over RESP2': (name = 'test') =>
      nodeClientOf(createClient({ ...urlAndName(name), RESP: 2 })),
    'a Cluster of node-redis 5': (name = 'test') => nodeClientOf(createCluster5(nodesAndName(name))),
  }),
}

export const REDISES: [string, new (url: string, options: RedisOptions) => Redis | Redis5][] = [
  ['ioredis 6', Redis],
  ['ioredis 5', Redis5],
]

export const newChannel = () => `test:${randomUUID()}`

export async function ownRedis(): Promise<RedisServer> {
  const server = await startRedis({ binary: inject('redisBinary') })
  onTestFinished(() => server.stop())
  return server
}

/** Listens until the test ends, with what was heard. */
export function listenOn(client: Client, channel = newChannel()) {
  const invalidation = redisInvalidation(client, { channel })
  const changed = vi.fn<InvalidationListener['changed']>()
  const missed = vi.fn<InvalidationListener['missed']>()
  let isConnected = false
  const stop = invalidation.listen({
    missed,
    changed(keys) {
      if (keys[0]?.keyId === 'connecting') isConnected = true
      else changed(keys)
    },
  })
  onTestFinished(() => void stop())

  /** Resolves once what is published arrives. */
  async function connected(limits = SOON): Promise<void> {
    isConnected = false
    await vi.waitFor(async () => {
      await invalidation.publish([{ keyId: 'connecting', version: 1 }])
      expect(isConnected).toBe(true)
    }, limits)
  }

  /** Tells of a change and resolves when it was heard. */
  async function hear(keys: readonly KeyVersion[]): Promise<void> {
    await invalidation.publish(keys)
    await vi.waitFor(() => expect(changed).toHaveBeenCalledWith(keys), SOON)
  }

  return { invalidation, channel, changed, missed, stop, connected, hear }
}

/** The client, and the connection that is made of it to listen on. */
export function withSubscriber(inner: Redis | Redis5) {
  let subscriber: Redis | Redis5 | undefined
  const client: RedisPublisher = {
    publish: (...message) => inner.publish(...message),
    duplicate(...options) {
      subscriber = inner.duplicate(...options)
      return subscriber
    },
  }
  return { client, subscriber: () => subscriber as Redis }
}

/** The services that all tests share. */
export function sharedUrls(): string[] {
  return [inject('redisUrl'), ...inject('clusterNodes').map(({ host, port }) => `redis://${host}:${port}`)]
}

/** Resolves once so many listen to the channel, wherever they do. */
export async function untilHeard(channel: string, listeners: number, urls = sharedUrls()): Promise<void> {
  const clients = urls.map((url) => clientOf(new Redis(url)))
  await vi.waitFor(async () => {
    const counts = await Promise.all(clients.map((client) => client.pubsub('NUMSUB', channel)))
    expect(counts.reduce((sum, [, count]) => sum + Number(count), 0)).toBe(listeners)
  }, AFTER_SILENCE)
}

/**
 * Resolves once each of so many who listen has beaten twice, right after a beat: the beginning, when some may be
 * missing, is over then.
 */
export async function untilSteady(channel: string, listeners: number, urls = sharedUrls()): Promise<void> {
  const beats = new Map<string, Set<string>>()
  const isSteady = () => beats.size === listeners && [...beats.values()].every(({ size }) => size >= 2)
  await new Promise<void>((resolve, reject) => {
    for (const url of urls) {
      const onlooker = clientOf(new Redis(url))
      onlooker.on('pmessage', (_pattern, from, beat) => {
        beats.set(from, (beats.get(from) ?? new Set()).add(beat))
        if (isSteady()) resolve()
      })
      onlooker.psubscribe(`${channel}:*`).catch(reject)
    }
  })
}

/** Two processes that have the store and messages in common, and would otherwise hear of changes after a minute. */
export async function startTwo(newClient: () => Client) {
  const channel = newChannel()
  const store = memoryStore()
  const events: ApiKeyEvent[] = []
  const start = () => {
    const keys = createApiKeys({
      store,
      rateLimiter: memoryRateLimiter(),
      invalidation: redisInvalidation(newClient(), { channel }),
      prefix: 'acme_test',
      cache: { maxAgeMs: 60_000 },
      onEvent: (event) => void events.push(event),
    })
    onTestFinished(() => keys.close())
    return keys
  }
  const [here, there] = [start(), start()]
  const issued = await issueKey(here, NAME)
  return { store, here, there, events, channel, ...issued }
}
