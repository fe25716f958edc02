import { createClient, createCluster, createSentinel } from 'redis'
import { createClient as createClient5, createCluster as createCluster5 } from 'redis5'

/** A client of node-redis as an application has it: it connects by itself from then on. */
interface Connecting {
  readonly isOpen: boolean
  connect(): Promise<unknown>
  destroy(): unknown
  on(event: 'error', listener: () => void): unknown
}

/** How to end clients of ioredis and of node-redis alike. */
export interface Ended {
  disconnect(): void
}

/** Each way to make a client of node-redis, for one server and for a Cluster. */
export const NODE_REDIS = {
  'node-redis 6': (url: string) => connecting(createClient({ url })),
  'node-redis 6 with RESP2': (url: string) => connecting(createClient({ url, RESP: 2 })),
  'node-redis 5': (url: string) => connecting(createClient5({ url })),
}

export type ClusterNodes = readonly { readonly host: string; readonly port: number }[]

export const NODE_REDIS_CLUSTER = {
  'a Cluster of node-redis 6': (nodes: ClusterNodes) => connecting(createCluster(clusterOptions(nodes))),
  'a Cluster of node-redis 5': (nodes: ClusterNodes) => connecting(createCluster5(clusterOptions(nodes))),
}

/** A client behind a Sentinel that watches a primary under the name `main`. */
export function throughSentinel(port: number, addresses: Record<string, { host: string; port: number }> = {}) {
  const client = createSentinel({
    name: 'main',
    sentinelRootNodes: [{ host: '127.0.0.1', port }],
    nodeAddressMap: addresses,
  })
  return connecting(client)
}

function clusterOptions(nodes: ClusterNodes) {
  return { rootNodes: nodes.map(({ host, port }) => ({ socket: { host, port } })) }
}

/** Begins to connect, and adds the `disconnect` of ioredis, which may be called at any time. */
function connecting<T extends Connecting>(client: T): T & Ended {
  client.on('error', () => {})
  client.connect().catch(() => {})
  return Object.assign(client, {
    disconnect() {
      if (client.isOpen) void client.destroy()
    },
  })
}
