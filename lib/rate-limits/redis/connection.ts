import { type Clock, monotonicClock } from '../../core/clock.ts'
import { createRenewal } from '../../redis/renew-connection.ts'
import type { RedisClient } from './client.ts'

/** The connection that calls use. */
export interface RedisConnection {
  /** The client to send with. */
  current(): RedisClient
  /** Notes the error of a failed call. */
  failed(error: unknown): void
}

const connections = new WeakMap<RedisClient, RedisConnection>()

/**
 * A connection that sends nothing twice. After a reconnection, ioredis resends unanswered commands. The server may have run them
 * already, and would charge a call twice. So this makes a connection with the client's settings that does not resend. All limiters on a
 * client share it, and it ends with the client. A client that does not resend, or has no `duplicate()`, is used itself.
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
    // After the application has ended its client, open no other connection.
    if (!duplicate || client.status === 'end') return client
    const made = duplicate()
    // Failed calls report the error. Without a listener, the client would print it.
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

/** ioredis emits no `end` if a client is ended while it waits to reconnect: without this, its connection would retry forever. */
function isClosing(client: RedisClient): boolean {
  return (client as { manuallyClosing?: unknown }).manuallyClosing === true
}

function sendsAgain({ isCluster, options }: RedisClient): boolean {
  return isCluster === true || options?.autoResendUnfulfilledCommands !== false
}

/** Returns how to make the connection; null if the client has no `duplicate()`. */
function duplicateOf(client: RedisClient): (() => RedisClient) | null {
  if (typeof client.duplicate !== 'function') return null
  if (!client.isCluster) {
    const { duplicate } = client as { duplicate(override: object): RedisClient }
    return () => duplicate.call(client, { autoResendUnfulfilledCommands: false })
  }
  const { duplicate } = client as { duplicate(nodes: readonly [], override: object): RedisClient }
  const redisOptions = { ...client.options?.redisOptions, autoResendUnfulfilledCommands: false }
  // If a node is gone, the Cluster client itself resends, unless this is 0.
  return () => duplicate.call(client, [], { redisOptions, retryDelayOnFailover: 0 })
}
