import type { Redis } from 'ioredis'
import { type ApiKeyListener, type ApiKeys, createApiKeys } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { sharedStore } from './shared-store.ts'

/** The keys of every process: what one issues, counts or revokes applies to all that use the same Redis. */
export function createSharedKeys(redis: Redis, onEvent?: ApiKeyListener): ApiKeys {
  return createApiKeys({
    store: sharedStore(redis),
    rateLimiter: redisRateLimiter(redis, { keyPrefix: 'latchkey-example' }),
    prefix: 'demo',
    rateLimits: [
      { name: 'minute', limit: 5, windowMs: 60_000 },
      { name: 'day', limit: 1_000, per: 'day' },
    ],
    ...(onEvent && { onEvent }),
  })
}
