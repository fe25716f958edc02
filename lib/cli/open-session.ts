import { type ApiKeys, createApiKeys } from '../core/api-keys.ts'
import type { ApiKeyEvent, ApiKeyListener } from '../core/events.ts'
import type { KeyStore } from '../core/keys/key-store.ts'
import type { RateLimiter } from '../core/limits/rate-limiter.ts'
import { checkObject } from '../internal/options.ts'
import { redisInvalidation } from '../invalidation/redis.ts'
import { memoryRateLimiter } from '../rate-limits/memory.ts'
import { redisRateLimiter } from '../rate-limits/redis/redis-rate-limiter.ts'
import { readRedisAddress } from './addresses.ts'
import { ChangeLog } from './change-log.ts'
import { usageError } from './cli-error.ts'
import type { RedisAddress } from './config.ts'
import type { CliIo } from './io.ts'
import { addressOf, type Configuration, isAddress, type OtherOptions, otherOptions } from './load-config.ts'
import { type OpenRedis, openRedis } from './open-redis.ts'
import { type OpenStore, openStore } from './open-store.ts'
import type { Output } from './output.ts'

/** `createApiKeys` on the store and Redis of the configuration. */
export interface Session {
  readonly keys: ApiKeys
  /** Null where the configuration has `keys` alone. */
  readonly store: OpenStore | null
  /** Null where the configuration names none. */
  readonly redis: OpenRedis | null
  /** Where limits are counted by all servers together; null where only each process counts, or nobody can say. */
  readonly sharedLimiter: RateLimiter | null
  /** The ids of the configured peppers; null where the application made `keys`. */
  readonly pepperIds: readonly string[] | null
  /** Whether `issue` knows which prefix keys begin with. */
  readonly hasPrefix: boolean
  readonly changes: ChangeLog
  close(): Promise<void>
}

/** How long Redis may take. Servers allow it less: here, the first call connects. */
const REDIS_MS = 3_000
/** For commands that make no keys. */
const NO_PREFIX = 'unset'

/** @throws CliError, or a TypeError naming a wrong option. */
export async function openSession(
  io: CliIo,
  output: Output,
  configuration: Configuration,
  storeName: string | undefined,
  isLook: boolean,
): Promise<Session> {
  const { keys } = configuration.given
  if (keys && storeName !== undefined)
    throw usageError('--store chooses no store where the configuration has "keys"')
  if (keys) return ownSession(keys)
  const store = await openStore(io, output, configuration, storeName)
  try {
    const redis = await openLimiterRedis(io, output, configuration)
    const options = otherOptions(configuration, io.env)
    return composeSession(configuration, options, store, redis, isLook)
  } catch (error) {
    await store.close()
    throw error
  }
}

/** The application's own `keys`, of whose parts nothing is known here. */
function ownSession(keys: ApiKeys): Session {
  return {
    keys,
    store: null,
    redis: null,
    sharedLimiter: null,
    pepperIds: null,
    hasPrefix: true,
    changes: new ChangeLog('unknown', 0),
    close: () => keys.close(),
  }
}

/** A Redis of the configuration, with its options. */
export interface LimiterRedis {
  readonly redis: OpenRedis
  readonly options: RedisAddress
}

export async function openLimiterRedis(
  io: CliIo,
  output: Output,
  { redis }: Configuration,
): Promise<LimiterRedis | null> {
  if (redis === undefined) return null
  const options = addressOf<RedisAddress>(redis)
  checkObject('redis', options, ['address', 'keyPrefix', 'channel'])
  if (!isAddress(options)) throw usageError('"redis" must be an address of Redis, or hold one')
  return { redis: await openRedis(io, readRedisAddress(options, io, output)), options }
}

function composeSession(
  configuration: Configuration,
  options: OtherOptions,
  store: OpenStore,
  limiterRedis: LimiterRedis | null,
  isLook: boolean,
): Session {
  const rateLimiter = limiterOf(configuration, limiterRedis)
  const isShared = rateLimiter.sharedAs !== undefined
  const changes = new ChangeLog(isShared ? 'at once' : 'later', maxAgeOf(options))
  const { channel } = limiterRedis?.options ?? {}
  const invalidation =
    channel === undefined ? undefined : redisInvalidation(limiterRedis?.redis.client as never, { channel })
  const keys = createApiKeys({
    ...options,
    store: isLook ? withoutUses(store.raw) : store.raw,
    rateLimiter,
    ...(invalidation && { invalidation }),
    prefix: configuration.prefix ?? NO_PREFIX,
    onEvent: tee(changes, options.onEvent),
    // Each reminder comes once. If a command took it, the servers would miss it.
    expiryReminders: false,
  })
  return {
    keys,
    store,
    redis: limiterRedis?.redis ?? null,
    sharedLimiter: isShared ? rateLimiter : null,
    pepperIds: (options.peppers ?? []).map(({ id }) => id),
    hasPrefix: configuration.prefix !== undefined,
    changes,
    async close() {
      await keys.close()
      limiterRedis?.redis.close()
      await store.close()
    },
  }
}

/** The store without what writes uses. */
function withoutUses(store: KeyStore): KeyStore {
  // Over an object of its own: a proxy of a frozen one must return its members as they are.
  return new Proxy({} as KeyStore, {
    get(_target, name) {
      if (USES.has(name)) return undefined
      const member: unknown = Reflect.get(store, name)
      // One that is an instance of a class may have private members.
      return typeof member === 'function' ? member.bind(store) : member
    },
    has: (_target, name) => !USES.has(name) && name in store,
  })
}

const USES: ReadonlySet<string | symbol> = new Set(['recordUsage', 'addUsage', 'readUsage', 'removeUsage'])

/** The limiter that servers use, by what the configuration says of it. */
export function limiterOf({ given }: Configuration, limiterRedis: LimiterRedis | null): RateLimiter {
  if (!limiterRedis) return given.rateLimiter ?? memoryRateLimiter()
  const { keyPrefix } = limiterRedis.options
  return redisRateLimiter(limiterRedis.redis.client, {
    timeoutMs: REDIS_MS,
    // A verification here is a question: without Redis, there is no answer to it.
    onUnavailable: 'closed',
    ...(keyPrefix !== undefined && { keyPrefix }),
  })
}

/** How long servers with these options may hold a record. */
export function maxAgeOf({ cache }: OtherOptions): number {
  if (cache === false) return 0
  return cache?.maxAgeMs ?? 5_000
}

/** The application's audit log hears of changes made here too. */
function tee(changes: ChangeLog, listener: ApiKeyListener | undefined): ApiKeyListener {
  return (event: ApiKeyEvent) => {
    changes.hear(event)
    return listener?.(event)
  }
}
