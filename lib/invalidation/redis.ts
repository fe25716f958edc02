import { randomUUID } from 'node:crypto'
import { type Clock, monotonicClock } from '../core/clock.ts'
import type { Invalidation, InvalidationListener, KeyVersion } from '../core/invalidation.ts'
import { checkFunction, checkInteger, checkMethods, checkObject, checkText } from '../internal/options.ts'
import { createRenewal, isQueueing } from '../redis/renew-connection.ts'

/** A connection that receives messages, as in ioredis. */
export interface RedisSubscriber {
  subscribe(...channels: string[]): Promise<unknown>
  on(event: 'message', listener: (channel: string, message: string) => void): unknown
  on(event: 'ready' | 'error' | 'close', listener: (error?: unknown) => void): unknown
  disconnect(reconnect?: boolean): void
}

/** The parts of an ioredis 5 or 6 client that are used to publish: `new Redis()`, also behind Sentinel, or `new Cluster()`. */
export interface RedisPublisher {
  publish(channel: string, message: string): Promise<unknown>
  /** With it, Latchkey notices when the server has become a replica, which would accept messages that no other process receives. */
  eval?(script: string, numberOfKeys: number, ...args: string[]): Promise<unknown>
  disconnect?(reconnect?: boolean): void
  /** Makes another connection with the same settings: a connection that receives messages can do little else. */
  duplicate(): RedisSubscriber
  readonly status?: string
  readonly isCluster?: boolean
}

export interface RedisInvalidationOptions {
  /**
   * The channel for messages about changes, 1 to 100 characters. Use the same one in all processes that share a store. Anyone who can
   * write to it can make keys unavailable, and no more.
   *
   * @default 'latchkey:changes'
   */
  channel?: string
}

const HEARTBEAT_MS = 1_000
/** How long without a heartbeat until messages count as missed. */
const SILENCE_MS = 3_000
/** Keys in one message. */
const BATCH = 500

/**
 * Publishes a message. DEL deletes nothing, but a replica refuses it as a write. A message published on a replica reaches no other
 * server, so a process left there by a failover would reach nobody.
 */
const PUBLISH = `redis.call('DEL', KEYS[1]) return redis.call('PUBLISH', ARGV[1], ARGV[2])`

/**
 * Tells other processes about changes through Redis publish and subscribe, on its own connection. Every process receives its own
 * heartbeat once a second. It clears its cache whenever it may have missed a message: after a missing heartbeat, after three seconds
 * of silence, and after each reconnection. A Cluster moves the connection between nodes silently: there, only the age of the cache
 * bounds a loss between two heartbeats.
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
  client: RedisPublisher,
  options: RedisInvalidationOptions = {},
): Invalidation {
  return createRedisInvalidation(client, options, monotonicClock)
}

/** {@link redisInvalidation} with the clock as a parameter. */
export function createRedisInvalidation(
  client: RedisPublisher,
  options: RedisInvalidationOptions,
  clock: Clock,
): Invalidation {
  checkMethods('client', client, ['publish', 'duplicate'])
  checkObject('options', options, ['channel'])
  const { channel = 'latchkey:changes' } = options
  checkText('channel', channel, 100)
  /** A Redis key that does not exist. */
  const nothing = `${channel}:${randomUUID()}`
  let mayRunScripts = true
  const subscribers = new Set<RedisSubscriber>()
  const noteFailure = createRenewal(() => {
    for (const one of [client, ...subscribers]) one.disconnect?.(true)
  }, clock.now)

  async function publish(keys: readonly KeyVersion[]): Promise<void> {
    const messages: string[] = []
    for (let from = 0; from < keys.length; from += BATCH) {
      messages.push(
        JSON.stringify(keys.slice(from, from + BATCH).map(({ keyId, version }) => [keyId, version])),
      )
    }
    await Promise.all(messages.map((message) => say(channel, message)))
  }

  async function say(to: string, message: string): Promise<void> {
    if (!client.eval || !mayRunScripts) {
      await client.publish(to, message)
      return
    }
    try {
      await client.eval(PUBLISH, 1, nothing, to, message)
    } catch (error) {
      noteFailure(error)
      if (!isForbidden(error)) throw error
      mayRunScripts = false
      await client.publish(to, message)
    }
  }

  function listen(listener: InvalidationListener): () => void {
    checkFunction('listener.changed', listener?.changed)
    checkFunction('listener.missed', listener?.missed)
    // Subscribe again here, to know when it takes effect. A Cluster client does it by itself.
    const subscriber = client.isCluster ? client.duplicate() : duplicateQuietly(client)
    // This listener's own channel: its messages travel the same way as changes.
    const heartbeat = `${channel}:${randomUUID()}`
    let heardAt = clock.now()
    let beats = 0
    let beatsHeard = 0
    let isSilent = false
    let isStopped = false
    let isSubscribed = false
    let isRefused = false
    let isReady = false
    let cancelBeat = () => {}

    subscriber.on('message', (from, message) => {
      if (isStopped) return
      heardAt = clock.now()
      if (from === channel) hear(message, listener)
      else if (from === heartbeat) {
        // If a heartbeat is missing, a change may be too. A Cluster moves a subscription silently.
        if (isSilent || Number(message) > beatsHeard + 1) missed()
        beatsHeard = Number(message)
      }
    })
    subscriber.on('ready', () => {
      isReady = true
      void subscribe()
    })
    // An error that leads to silence is reported then. Without a listener, it would end the process.
    subscriber.on('error', () => {})
    subscribers.add(subscriber)
    void subscribe()
    beat()

    async function subscribe(): Promise<void> {
      isSubscribed = true
      try {
        await subscriber.subscribe(channel, heartbeat)
        // Earlier messages are lost.
        missed()
        isRefused = false
      } catch (error) {
        // The next connection tries again, or the next beat.
        isSubscribed = false
        // A client without a queue refuses until it is connected. If it never connects, the silence is reported.
        if (!isReady || isRefused || isStopped) return
        isRefused = true
        listener.missed(error)
      }
    }

    function missed(): void {
      if (isStopped) return
      isSilent = false
      listener.missed()
    }

    function beat(): void {
      cancelBeat = clock.setTimer(beat, HEARTBEAT_MS, { background: true })
      if (!isQueueing(client)) {
        beats += 1
        say(heartbeat, String(beats)).catch(() => {})
      }
      if (!isSubscribed) void subscribe()
      if (isSilent || clock.now() - heardAt < SILENCE_MS) return
      isSilent = true
      listener.missed(
        new Error(`received nothing on the invalidation channel for ${SILENCE_MS} milliseconds`),
      )
    }

    return function stop() {
      isStopped = true
      subscribers.delete(subscriber)
      cancelBeat()
      subscriber.disconnect()
    }
  }

  return { sharedAs: `channel "${channel}"`, publish, listen }
}

/** Whether Redis does not allow this user to run scripts. */
function isForbidden(error: unknown): boolean {
  return String((error as { message?: unknown } | null)?.message).startsWith('NOPERM')
}

/** A connection that does not resubscribe by itself: nothing could catch the errors of ioredis 5 there. */
function duplicateQuietly(client: RedisPublisher): RedisSubscriber {
  return (client as { duplicate(override: object): RedisSubscriber }).duplicate({ autoResubscribe: false })
}

/** Reads a message. An unexpected one may stand in for a lost one, so it counts as missed. */
function hear(message: string, listener: InvalidationListener): void {
  let keys: KeyVersion[]
  try {
    keys = readMessage(message)
  } catch (error) {
    listener.missed(error)
    return
  }
  listener.changed(keys)
}

function readMessage(message: string): KeyVersion[] {
  const list: unknown = JSON.parse(message)
  if (!Array.isArray(list)) throw new TypeError('unexpected message on the invalidation channel')
  return list.map((entry: unknown) => {
    const [keyId, version] = Array.isArray(entry) ? entry : []
    return {
      keyId: checkText('keyId', keyId, 255),
      version: checkInteger('version', version, 1, Number.MAX_SAFE_INTEGER),
    }
  })
}
