export {
  type RedisInvalidationOptions,
  type RedisPublisher,
  type RedisSubscriber,
  redisInvalidation,
} from './invalidation/redis.ts'
export type { RedisClient } from './rate-limits/redis/client.ts'
export type { RedisRateLimiterOptions, UnavailablePolicy } from './rate-limits/redis/options.ts'
export { redisRateLimiter } from './rate-limits/redis/redis-rate-limiter.ts'
export type { RedisStoreClient } from './stores/redis/client.ts'
export type { RedisStoreOptions } from './stores/redis/options.ts'
export { type RedisStore, redisStore } from './stores/redis/redis-store.ts'
