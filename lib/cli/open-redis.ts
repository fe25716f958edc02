import type { RedisPublisher } from '../invalidation/client.ts'
import type { RedisClient } from '../rate-limits/redis/client.ts'
import type { NodeRedisClient } from '../redis/node-redis-client.ts'
import type { RedisStoreClient } from '../stores/redis/client.ts'
import type { Address } from './addresses.ts'
import { CliError } from './cli-error.ts'
import { firstLine } from './describe-error.ts'
import { EXIT } from './exit-codes.ts'
import type { CliIo } from './io.ts'
import { loadDriver } from './load-driver.ts'

/** A connection to Redis, by the package that the application has. */
export interface OpenRedis {
  readonly shown: string
  readonly client: RedisClient & RedisStoreClient & RedisPublisher
  /** Sends any command. @throws CliError if Redis cannot be reached. */
  command(...words: string[]): Promise<unknown>
  close(): void
}

const CONNECT_MS = 5_000
const COMMAND_MS = 10_000

/** @throws CliError */
export async function openRedis(io: CliIo, address: Address): Promise<OpenRedis> {
  const { name, module } = loadDriver<never>(io, 'an address of Redis', ['ioredis', 'redis'])
  return name === 'ioredis' ? openIoredis(module, address) : openNodeRedis(module, address)
}

interface Ioredis {
  Redis: new (
    url: string,
    options: object,
  ) => OpenRedis['client'] & {
    call(...words: string[]): Promise<unknown>
    on(event: string, listener: (error: unknown) => void): void
    disconnect(): void
  }
}

function openIoredis({ Redis }: Ioredis, { target, shown }: Address): OpenRedis {
  let lastError: unknown
  const client = new Redis(target, {
    // Only what needs Redis connects to it.
    lazyConnect: true,
    connectTimeout: CONNECT_MS,
    // One that accepts connections and says nothing is as good as none.
    commandTimeout: COMMAND_MS,
    maxRetriesPerRequest: 1,
    retryStrategy: (times: number) => (times > 2 ? null : 100),
  })
  client.on('error', (error: unknown) => {
    lastError = error
  })
  return {
    shown,
    client,
    command: (...words) =>
      client.call(...words).catch((error: unknown) => {
        throw unreachable(shown, lastError ?? error)
      }),
    close: () => client.disconnect(),
  }
}

interface NodeRedis {
  createClient(options: object): NodeRedisClient & {
    connect(): Promise<unknown>
    destroy(): void
    sendCommand(words: string[]): Promise<unknown>
    on(event: string, listener: (error: unknown) => void): void
  }
}

async function openNodeRedis({ createClient }: NodeRedis, { target, shown }: Address): Promise<OpenRedis> {
  const client = createClient({
    url: target,
    socket: { connectTimeout: CONNECT_MS, reconnectStrategy: false },
  })
  client.on('error', () => {})
  await client.connect().catch((error: unknown) => {
    throw unreachable(shown, error)
  })
  return {
    shown,
    // The limiter, the store and the publisher each recognise a client of node-redis.
    client: client as never,
    command: (...words) =>
      client.sendCommand(words).catch((error: unknown) => {
        throw unreachable(shown, error)
      }),
    close: () => client.destroy(),
  }
}

function unreachable(shown: string, error: unknown): CliError {
  return new CliError(`Redis cannot be used: ${firstLine(error)} (${shown})`, EXIT.unavailable)
}
