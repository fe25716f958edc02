import { randomUUID } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import { Cluster as Cluster5 } from 'ioredis5'
import type { RedisStoreClient } from 'latchkey/redis'
import { inject } from 'vitest'

const clients = new Set<{ disconnect(): void }>()

/** Closes what this file of tests has connected. */
export function disconnectAll() {
  for (const client of clients) client.disconnect()
  clients.clear()
}

export const standalone = once(() => new Redis(inject('redisUrl')))
export const cluster = once(() => new Cluster(inject('clusterNodes')))

/** What the store runs on, each with a client that connects when it is first needed and is closed in the end. */
export const SERVERS: readonly (readonly [string, () => Redis | Cluster])[] = [
  ['one server', standalone],
  ['a Cluster', cluster],
]

/** Each server by another of the clients that it takes. Those of node-redis have a test of their own. */
export const CLIENTS: readonly (readonly [string, () => RedisStoreClient])[] = [
  ['one server', standalone],
  ['a Cluster, by ioredis 5', once(() => new Cluster5(inject('clusterNodes')))],
]

export const newPrefix = () => `redis-store-test:${randomUUID()}`

/** The client, and how often something was sent. From the `failFrom`th on, nothing is, as after a crash. */
export function counted(client: RedisStoreClient, failFrom = Infinity) {
  let sent = 0
  const next = () => {
    sent += 1
    if (sent >= failFrom) throw new Error('the process has crashed')
  }
  return {
    get sent() {
      return sent
    },
    client: {
      get isCluster() {
        return client.isCluster === true
      },
      get slots() {
        return client.slots ?? []
      },
      eval: async (...args: Parameters<RedisStoreClient['eval']>) => {
        next()
        return client.eval(...args)
      },
      evalsha: async (...args: Parameters<RedisStoreClient['evalsha']>) => {
        next()
        return client.evalsha(...args)
      },
      pipeline: (commands: string[][]) => {
        next()
        return client.pipeline(commands)
      },
    } satisfies RedisStoreClient,
  }
}

/** The names of all keys that begin with the prefix. */
export async function keysOf(client: Redis | Cluster, prefix: string): Promise<string[]> {
  const servers = client instanceof Cluster ? client.nodes('master') : [client]
  return (await Promise.all(servers.map((server) => server.keys(`${prefix}:*`)))).flat().toSorted()
}

function once<T extends { disconnect(): void }>(connect: () => T): () => T {
  let client: T | undefined
  return () => {
    if (client && clients.has(client)) return client
    client = connect()
    clients.add(client)
    return client
  }
}
