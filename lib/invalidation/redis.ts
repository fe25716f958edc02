import { randomUUID } from 'node:crypto'
import { type Clock, monotonicClock } from '../core/clock.ts'
import type { Invalidation } from '../core/invalidation.ts'
import { checkFunction, checkObject, checkText } from '../internal/options.ts'
import { isNodeRedis } from '../redis/accept-client.ts'
import { NodeRedisAdapter } from '../redis/node-redis.ts'
import type { NodeRedisClient } from '../redis/node-redis-client.ts'
import { createSubscriber } from '../redis/node-redis-subscriber.ts'
import { createRenewal } from '../redis/renew-connection.ts'
import type { RedisPublisher, RedisSubscriber } from './client.ts'
import { writeMessages } from './messages.ts'
import { Subscription } from './subscription.ts'

export interface RedisInvalidationOptions {
  /**
   * The channel for messages about changes, 1 to 100 characters. Use the same one in all processes that share a store. Anyone who can
   * write to it can make keys unavailable, and no more.
   *
   * @default 'latchkey:changes'
   */
  channel?: string
}

/**
 * Tells other processes about changes through Redis publish and subscribe, on its own connection. Every process receives its own
 * heartbeat once a second. It clears its cache whenever it may have missed a message: after a missing heartbeat, after three seconds
 * of silence, and after each reconnection. A Cluster moves the connection between nodes silently: there, only the age of the cache
 * bounds a loss between two heartbeats.
 *
 * `client` is one of ioredis 5 or 6, or of node-redis 5 or 6.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const keys = createApiKeys({
 *   store,
 *   rateLimiter: memoryRateLimiter(),
 *   invalidation: redisInvalidation(new Redis()),
 *   prefix: 'acme_live',
 * })
 */
export function redisInvalidation(
  client: RedisPublisher | NodeRedisClient,
  options: RedisInvalidationOptions = {},
): Invalidation {
  return createRedisInvalidation(client, options, monotonicClock)
}

/** {@link redisInvalidation} with the clock as a parameter. */
export function createRedisInvalidation(
  given: RedisPublisher | NodeRedisClient,
  options: RedisInvalidationOptions,
  clock: Clock,
): Invalidation {
  const client = isNodeRedis(given, ['publish', 'duplicate']) ? createPublisher(given) : given
  checkObject('options', options, ['channel'])
  const { channel = 'latchkey:changes' } = options
  checkText('channel', channel, 100)
  const subscribers = new Set<RedisSubscriber>()
  const noteFailure = createRenewal(() => {
    for (const one of [client, ...subscribers]) one.disconnect?.(true)
  }, clock.now)
  const send = createSender(client, `${channel}:${randomUUID()}`, noteFailure)

  return {
    sharedAs: `channel "${channel}"`,

    async publish(keys) {
      await Promise.all(writeMessages(keys).map((message) => send(channel, message)))
    },

    listen(listener) {
      checkFunction('listener.changed', listener?.changed)
      checkFunction('listener.missed', listener?.missed)
      const heartbeat = `${channel}:${randomUUID()}`
      const subscription = new Subscription({ client, channel, heartbeat, clock, send }, listener)
      subscribers.add(subscription.subscriber)
      subscription.start()
      return () => {
        subscribers.delete(subscription.subscriber)
        subscription.stop()
      }
    },
  }
}

function createPublisher(client: NodeRedisClient): RedisPublisher {
  return Object.assign(new NodeRedisAdapter(client), { duplicate: () => createSubscriber(client) })
}

/**
 * Publishes a message. DEL deletes nothing, but a replica refuses it as a write. A message published on a replica reaches no other
 * server, so a process left there by a failover would reach nobody.
 */
const PUBLISH = `redis.call('DEL', KEYS[1]) return redis.call('PUBLISH', ARGV[1], ARGV[2])`

/** Sends messages, by a script if Redis allows it. `nothing` is a Redis key that does not exist. */
function createSender(client: RedisPublisher, nothing: string, noteFailure: (error: unknown) => void) {
  let mayRunScripts = true

  return async (channel: string, message: string): Promise<void> => {
    if (!client.eval || !mayRunScripts) {
      await client.publish(channel, message)
      return
    }
    try {
      await client.eval(PUBLISH, 1, nothing, channel, message)
    } catch (error) {
      noteFailure(error)
      if (!isForbidden(error)) throw error
      mayRunScripts = false
      await client.publish(channel, message)
    }
  }
}

/** Whether Redis does not allow this user to run scripts. */
function isForbidden(error: unknown): boolean {
  return String((error as { message?: unknown } | null)?.message).startsWith('NOPERM')
}
