import { Redis } from 'ioredis'

const DEFAULT_URL = 'redis://127.0.0.1:6379'

/**
 * Connects to the Redis that `REDIS_URL` names, or to the one on this machine.
 *
 * @throws Error saying what to do, if no Redis answers.
 */
export async function connectRedis(): Promise<Redis> {
  const redis = new Redis(process.env.REDIS_URL || DEFAULT_URL, {
    lazyConnect: true,
    connectTimeout: 2_000,
    // Without Redis, a call fails soon with a 503, rather than wait.
    maxRetriesPerRequest: 1,
  })
  // Without a listener ioredis prints every failed attempt to connect. The calls that fail are events of `keys`.
  let reason = ''
  redis.on('error', (error) => {
    reason = error.message
  })
  try {
    await redis.connect()
    return redis
  } catch (error) {
    redis.disconnect()
    const { path, host, port } = redis.options
    throw new Error(
      `This example needs a Redis, and none answers at ${path ?? `${host}:${port}`}: ${reason || error}\n` +
        'Start one there, or name another: ' +
        'REDIS_URL=redis://host:6379 node --import tsx examples/redis/start.ts',
    )
  }
}
