import type { TestProject } from 'vitest/node'
import { findMariadb } from './mariadb-binary.ts'
import { startMariadb } from './mariadb-server.ts'
import { findPostgres } from './postgres-binaries.ts'
import { startPostgres } from './postgres-server.ts'
import { findRedisServer } from './redis-binary.ts'
import { startCluster, startRedis } from './redis-server.ts'

/** What tests may `inject`. */
export interface Services {
  /** The program, for a test that starts servers of its own. */
  redisBinary: string
  /** A Redis that every test file shares: use keys with a prefix of your own, and never flush it. */
  redisUrl: string
  /** The three primaries of a Cluster that is shared in the same way. */
  clusterNodes: { host: string; port: number }[]
  /** The folder of the programs, for a test that starts servers of its own. */
  postgresBinaries: string
  /** A PostgreSQL that every test file shares: create a database with a random name, and drop it. */
  postgresUrl: string
  /** The program, for a test that starts servers of its own. */
  mariadbBinary: string
  /** A MariaDB that is shared like the PostgreSQL. */
  mariadbUrl: string
}

declare module 'vitest' {
  export interface ProvidedContext extends Services {
    /** Why what would be injected is not there; `require-services.ts` throws it. Empty where all is well. */
    missingServices: Partial<Record<keyof Services, string>>
  }
}

interface Started {
  provided: Partial<Services>
  stop(): Promise<unknown>
}

/** One server, or several of a kind. */
interface Service {
  names: readonly (keyof Services)[]
  find(): Promise<string>
  start(found: string): Promise<Started>
}

const services: readonly Service[] = [
  {
    names: ['redisBinary', 'redisUrl', 'clusterNodes'],
    find: () => findRedisServer(),
    async start(binary) {
      const [redis, cluster] = await Promise.all([startRedis({ binary }), startCluster({ binary })])
      const clusterNodes = cluster.nodes.map(({ host, port }) => ({ host, port }))
      return {
        provided: { redisBinary: binary, redisUrl: redis.url, clusterNodes },
        stop: () => Promise.all([redis.stop(), cluster.stop()]),
      }
    },
  },
  {
    names: ['postgresBinaries', 'postgresUrl'],
    find: () => findPostgres(),
    async start(binaries) {
      const { url, stop } = await startPostgres({ binaries })
      return { provided: { postgresBinaries: binaries, postgresUrl: url }, stop }
    },
  },
  {
    names: ['mariadbBinary', 'mariadbUrl'],
    find: () => findMariadb(),
    async start(binary) {
      const { url, stop } = await startMariadb({ binary })
      return { provided: { mariadbBinary: binary, mariadbUrl: url }, stop }
    },
  },
]

/**
 * Starts what the tests share and returns how to end it. A service that fails is reported to the tests that use it
 * rather than thrown, since that would call off all the others as well.
 */
export default async function startServices({ provide }: TestProject): Promise<() => Promise<void>> {
  const starts = await Promise.allSettled(await searchThenStart())
  const missing: Partial<Record<keyof Services, string>> = {}
  for (const [i, start] of starts.entries()) {
    if (start.status === 'fulfilled') {
      for (const [name, value] of Object.entries(start.value.provided)) provide(name as keyof Services, value)
    } else {
      for (const name of services[i]?.names ?? []) missing[name] = (start.reason as Error).message
    }
  }
  provide('missingServices', missing)
  return async () => {
    await Promise.all(starts.map((start) => start.status === 'fulfilled' && start.value.stop()))
  }
}

/** Every search may install packages, which is done one at a time; what was found then starts beside the others. */
async function searchThenStart(): Promise<Promise<Started>[]> {
  const searches: Promise<string>[] = []
  for (const { find } of services) {
    const search = find()
    searches.push(search)
    await search.catch(() => {})
  }
  return services.map(async ({ start }, i) => start(await (searches[i] as Promise<string>)))
}
