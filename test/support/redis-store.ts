import { randomUUID } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import { Cluster as Cluster5, Redis as Redis5 } from 'ioredis5'
import { afterAll, inject } from 'vitest'
import type { RedisStoreClient } from '../../lib/stores/redis-client.ts'

const clients: { disconnect(): void }[] = []
afterAll(() => {
  for (const client of clients) client.disconnect()
})

/** The clients that the store takes, each connected when it is first needed and closed after the tests of the file. */
export const CLIENTS: readonly (readonly [string, () => Redis | Cluster | Redis5 | Cluster5])[] = [
  ['one server, by ioredis 6', once(() => new Redis(inject('redisUrl')))],
  ['one server, by ioredis 5', once(() => new Redis5(inject('redisUrl')))],
  ['a Cluster, by ioredis 6', once(() => new Cluster(inject('clusterNodes')))],
  ['a Cluster, by ioredis 5', once(() => new Cluster5(inject('clusterNodes')))],
]

/** Those of ioredis 6. */
export const [[, standalone], , [, cluster]] = CLIENTS as unknown as [
  [string, () => Redis],
  unknown,
  [string, () => Cluster],
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
    client ??= opened(connect())
    return client
  }
}

function opened<T extends { disconnect(): void }>(client: T): T {
  clients.push(client)
  return client
}
