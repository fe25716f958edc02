export {
  type RedisInvalidationOptions,
  type RedisPublisher,
  type RedisSubscriber,
  redisInvalidation,
} from './invalidation/redis.ts'
export { redisRateLimiter } from './rate-limits/redis.ts'
export type { RedisClient } from './rate-limits/redis-client.ts'
export type { RedisRateLimiterOptions, UnavailablePolicy } from './rate-limits/redis-options.ts'
export { redisStore } from './stores/redis.ts'
export type { RedisStoreClient } from './stores/redis-client.ts'
export type { RedisStoreOptions } from './stores/redis-options.ts'
