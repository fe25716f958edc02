export {
  type RedisInvalidationOptions,
  type RedisPublisher,
  type RedisSubscriber,
  redisInvalidation,
} from './invalidation/redis.ts'
export { redisRateLimiter } from './rate-limits/redis.ts'
export type { RedisClient } from './rate-limits/redis-client.ts'
export type { RedisRateLimiterOptions, UnavailablePolicy } from './rate-limits/redis-options.ts'
