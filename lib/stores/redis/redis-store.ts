import type { KeyStore, QuotaSwapResult } from '../../core/keys/key-store.ts'
import { isNodeRedis } from '../../redis/accept-client.ts'
import { NodeRedisAdapter } from '../../redis/node-redis.ts'
import type { NodeRedisClient } from '../../redis/node-redis-client.ts'
import { createRedisBatches, OPEN_MS } from './batches.ts'
import { createRedisCalls } from './calls.ts'
import type { RedisStoreClient } from './client.ts'
import { createRedisIndexes } from './indexes.ts'
import { createRedisLayout } from './layout.ts'
import { createRedisLookups } from './lookups.ts'
import { agree } from './methods/agree.ts'
import { find } from './methods/find.ts'
import { freePointer, insert } from './methods/insert.ts'
import { list } from './methods/list.ts'
import type { RedisStoreParts } from './methods/parts.ts'
import { purge } from './methods/purge.ts'
import { recordUsage } from './methods/record-usage.ts'
import { replaceDigest, update } from './methods/update.ts'
import { addUsage, readUsage, removeUsage } from './methods/usage-counts.ts'
import { type RedisStoreOptions, resolveRedisStoreOptions } from './options.ts'
import { createRedisQuotas } from './quotas.ts'

/** A store in Redis. It has every optional method except `count`: to count keys, Latchkey lists them. */
export type RedisStore = Required<Omit<KeyStore, 'count'>>

/**
 * Creates a store in Redis 6.2 or later: one server, a server behind Sentinel, or a Cluster. `client` is one of ioredis 5 or 6, or of
 * node-redis 5 or 6. Connect a client of node-redis, and give the limiter another one.
 *
 * Configure Redis as a database, not as a cache. Set `appendonly yes`; add `appendfsync always` if a crash of the machine must not
 * lose even one second. Set `maxmemory-policy noeviction`: an evicted entry is a key that stops working, or a lost revocation.
 *
 * A change resolves once the primary has it and, if there are replicas, one of them has it too (see `replicas`). Usage counts do not
 * wait. Replication is still asynchronous, and a failover can lose or undo:
 *
 * - a change that has not resolved, or that failed, for example because too few replicas confirmed it;
 * - a resolved change, if Redis promotes a replica that did not confirm it. With `replicas: 1`, that can be any other replica. With
 *   `replicas` set to the number of replicas, this cannot happen, but no change succeeds while one of them is down;
 * - writes that a disconnected primary accepts until it notices. Set `min-replicas-to-write`;
 * - the most recent usage counts.
 *
 * After a lost revocation the key works again: revoke it once more.
 *
 * @throws TypeError when an option is wrong or unknown, naming it. Its methods reject with a `LatchkeyError`: `duplicate_key`;
 * `malformed_record` for values under its keys that are not its own; `read_only` for a replica; `unavailable` for everything else.
 * @example
 * const redis = new Redis()
 * const keys = createApiKeys({ store: redisStore(redis), rateLimiter: redisRateLimiter(redis), prefix: 'acme_live' })
 */
export function redisStore(
  client: RedisStoreClient | NodeRedisClient,
  options: RedisStoreOptions = {},
): RedisStore {
  return createRedisStore(client, options, { openMs: OPEN_MS, strayMs: 3_600_000 })
}

export interface RedisStoreTimes {
  /** How long an insertion blocks others after its writer has gone silent. */
  readonly openMs: number
  /** The age from which an index entry without a record counts as left over, not as an insertion in progress. */
  readonly strayMs: number
}

/** {@link redisStore} with its times as a parameter. */
export function createRedisStore(
  given: RedisStoreClient | NodeRedisClient,
  options: RedisStoreOptions,
  times: RedisStoreTimes,
): RedisStore {
  const client = isNodeRedis(given, ['eval', 'evalsha', 'pipeline']) ? new NodeRedisAdapter(given) : given
  const parts = createParts(client, options, times)
  const { quotas, lookups } = parts
  return {
    insert: (records) => insert(parts, records),
    find: (by) => find(lookups, by),
    update: (id, expectedVersion, change) => update(parts, id, expectedVersion, change),
    replaceDigest: (id, expected, next) => replaceDigest(parts, id, expected, next),
    list: (filter, page) => list(parts, filter, page),
    purge: (ids, at) => purge(parts, ids, at),
    forget: (id, expectedVersion, forgetting) => update(parts, id, expectedVersion, forgetting),
    recordUsage: (batch) => recordUsage(parts, batch),
    swapQuota: async (lineageId, expected, next) =>
      (await quotas.swap([{ lineageId, expected, next }]))[0] as QuotaSwapResult,
    swapQuotas: quotas.swap,
    agree: (name, proposal) => agree(parts, name, proposal),
    addUsage: (batch) => addUsage(parts, batch),
    readUsage: (selection) => readUsage(parts, selection),
    removeUsage: (removal) => removeUsage(parts, removal),
  }
}

function createParts(
  client: RedisStoreClient,
  options: RedisStoreOptions,
  { openMs, strayMs }: RedisStoreTimes,
): RedisStoreParts {
  const settings = resolveRedisStoreOptions(options)
  const layout = createRedisLayout(settings.keyPrefix)
  const calls = createRedisCalls(client, settings)
  const indexes = createRedisIndexes(calls, layout)
  const quotas = createRedisQuotas(calls, layout)
  const free = (key: string): Promise<boolean> => freePointer({ calls, layout, lookups }, key)
  const batches = createRedisBatches({ calls, layout, openMs, free })
  const lookups = createRedisLookups({ calls, layout, batches, quotas })
  return { calls, layout, indexes, quotas, batches, lookups, strayMs }
}
