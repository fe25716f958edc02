import type { TestProject } from 'vitest/node'
import { findRedisServer } from './redis-binary.ts'
import { startCluster, startRedis } from './redis-server.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    /** Why there are no services; empty when there are. `require-services.ts` turns it into failures. */
    servicesFailure: string
    /** The program, for a test that starts servers of its own. */
    redisBinary: string
    /** A Redis that every test file shares: use keys with a prefix of your own, and never flush it. */
    redisUrl: string
    /** The three primaries of a Cluster that is shared in the same way. */
    clusterNodes: { host: string; port: number }[]
  }
}

/**
 * Starts what the tests of Redis share and returns how to end it. A failure is handed to those tests rather than
 * thrown, since that would call off the tests of the sources as well.
 */
export default async function startServices({
  provide,
}: TestProject): Promise<(() => Promise<void>) | undefined> {
  try {
    const binary = await findRedisServer()
    const [redis, cluster] = await Promise.all([startRedis({ binary }), startCluster({ binary })])
    provide('redisBinary', binary)
    provide('redisUrl', redis.url)
    provide(
      'clusterNodes',
      cluster.nodes.map(({ host, port }) => ({ host, port })),
    )
    provide('servicesFailure', '')
    return async () => void (await Promise.all([redis.stop(), cluster.stop()]))
  } catch (error) {
    provide('servicesFailure', (error as Error).message)
    return undefined
  }
}
