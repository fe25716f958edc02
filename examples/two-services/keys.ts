import { Redis } from 'ioredis'
import { type ApiKeyListener, type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { migrate, postgresStore } from 'latchkey/sql'
import { Pool } from 'pg'

export interface OpenedKeys {
  readonly keys: ApiKeys
  close(): Promise<void>
}

/** Keys in PostgreSQL, and their use counted in Redis, where the environment names both; otherwise all of it in memory. */
export async function openKeys(
  { DATABASE_URL, REDIS_URL }: NodeJS.ProcessEnv,
  onEvent: ApiKeyListener,
): Promise<OpenedKeys> {
  if (!DATABASE_URL !== !REDIS_URL)
    throw new Error('DATABASE_URL and REDIS_URL must both be given, or neither')
  const common = { prefix: 'demo', onEvent }
  if (!DATABASE_URL || !REDIS_URL) {
    const keys = createApiKeys({ ...common, store: memoryStore(), rateLimiter: memoryRateLimiter() })
    return { keys, close: () => keys.close() }
  }
  const pool = new Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 2_000 })
  // Connections that nobody uses are lost with the server. The calls that fail are events of `keys`.
  pool.on('error', () => {})
  const redis = new Redis(REDIS_URL, { connectTimeout: 2_000, maxRetriesPerRequest: 1 })
  redis.on('error', () => {})
  const store = postgresStore(pool)
  const keys = createApiKeys({
    ...common,
    store,
    rateLimiter: redisRateLimiter(redis, { keyPrefix: 'latchkey-two-services' }),
  })
  const close = async () => {
    await keys.close()
    await pool.end()
    redis.disconnect()
  }
  try {
    // A real application does it when it is deployed, as a user who may; its processes need not be able to.
    await migrate(store)
  } catch (error) {
    await close()
    throw new Error('PostgreSQL, which DATABASE_URL names, cannot be used', { cause: error })
  }
  return { keys, close }
}
