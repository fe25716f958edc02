export {
  type RedisInvalidationOptions,
  type RedisPublisher,
  type RedisSubscriber,
  redisInvalidation,
} from './invalidation/redis.ts'
export {
  type RedisRateLimiterOptions,
  redisRateLimiter,
  type UnavailablePolicy,
} from './rate-limits/redis.ts'
export type { RedisClient } from './rate-limits/redis-client.ts'
