import { type Clock, monotonicClock } from '../../core/clock.ts'
import { createRenewal } from '../../redis/renew-connection.ts'
import type { RedisClient } from './client.ts'

/** What calls are sent over. */
export interface RedisConnection {
  /** The client to send with. */
  current(): RedisClient
  /** Takes note of how a call has failed. */
  failed(error: unknown): void
}

const connections = new WeakMap<RedisClient, RedisConnection>()

/**
 * A connection that sends nothing twice: ioredis sends again, once it has connected anew, whatever was not answered, though
 * the server may have done it already, and a call would be charged twice. So one is made by the client's settings that does
 * not. Limiters on one client share it, and it ends with the client. A client that does not send again, or that cannot be
 * duplicated, is used as it is.
 */
export function connectionOf(client: RedisClient): RedisConnection {
  let connection = connections.get(client)
  if (!connection) {
    connection = createRedisConnection(client, monotonicClock)
    connections.set(client, connection)
  }
  return connection
}

function createRedisConnection(client: RedisClient, clock: Clock): RedisConnection {
  const duplicate = sendsAgain(client) ? duplicateOf(client) : null
  let own: RedisClient | null = null

  if (duplicate) {
    client.on?.('end', () => own?.disconnect?.())
    if (!client.options?.lazyConnect) current()
  }

  function current(): RedisClient {
    if (own) return own
    // Whoever has ended the client wants no other.
    if (!duplicate || client.status === 'end') return client
    const made = duplicate()
    // It is told of where a call fails of it; without a listener, the client would print it.
    made.on?.('error', () => {})
    made.on?.('end', () => {
      if (own === made) own = null
    })
    made.on?.('reconnecting', () => {
      if (isClosing(client)) made.disconnect?.()
    })
    own = made
    return made
  }

  return { current, failed: createRenewal(() => current().disconnect?.(true), clock.now) }
}

/** ioredis emits no `end` where a client is ended while it waits to reconnect: its connection would try for ever. */
function isClosing(client: RedisClient): boolean {
  return (client as { manuallyClosing?: unknown }).manuallyClosing === true
}

function sendsAgain({ isCluster, options }: RedisClient): boolean {
  return isCluster === true || options?.autoResendUnfulfilledCommands !== false
}

/** How to make the connection; null where the client cannot be duplicated. */
function duplicateOf(client: RedisClient): (() => RedisClient) | null {
  if (typeof client.duplicate !== 'function') return null
  if (!client.isCluster) {
    const { duplicate } = client as { duplicate(override: object): RedisClient }
    return () => duplicate.call(client, { autoResendUnfulfilledCommands: false })
  }
  const { duplicate } = client as { duplicate(nodes: readonly [], override: object): RedisClient }
  const redisOptions = { ...client.options?.redisOptions, autoResendUnfulfilledCommands: false }
  // It is the Cluster that sends again where a node has gone.
  return () => duplicate.call(client, [], { redisOptions, retryDelayOnFailover: 0 })
}
