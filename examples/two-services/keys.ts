import { Redis } from 'ioredis'
import { type ApiKeyListener, type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { migrate, postgresStore } from 'latchkey/sql'
import { Pool } from 'pg'

export interface OpenedKeys {
  readonly keys: ApiKeys
  close(): Promise<void>
}

/** Keeps keys in PostgreSQL and counts their use in Redis, if the environment names both; otherwise everything is in memory. */
export async function openKeys(
  { DATABASE_URL, REDIS_URL }: NodeJS.ProcessEnv,
  onEvent: ApiKeyListener,
): Promise<OpenedKeys> {
  if (!DATABASE_URL !== !REDIS_URL) throw new Error('Set both DATABASE_URL and REDIS_URL, or neither')
  const common = { prefix: 'demo', onEvent }
  if (!DATABASE_URL || !REDIS_URL) {
    const keys = createApiKeys({ ...common, store: memoryStore(), rateLimiter: memoryRateLimiter() })
    return { keys, close: () => keys.close() }
  }
  const pool = new Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 2_000 })
  // Idle connections are lost with the server. Failed calls are events of `keys`.
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
    // A real application migrates during deployment, as a database user with the right to; its processes do not need that right.
    await migrate(store)
  } catch (error) {
    await close()
    throw new Error('Cannot use the PostgreSQL that DATABASE_URL names', { cause: error })
  }
  return { keys, close }
}
