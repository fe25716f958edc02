import { randomUUID } from 'node:crypto'
import { type Clock, monotonicClock } from '../core/clock.ts'
import type { Invalidation, InvalidationListener, KeyVersion } from '../core/invalidation.ts'
import { checkFunction, checkInteger, checkMethods, checkObject, checkText } from '../internal/options.ts'
import { createRenewal, isQueueing } from '../redis/renew-connection.ts'

/** A connection that hears messages, as ioredis has it. */
export interface RedisSubscriber {
  subscribe(...channels: string[]): Promise<unknown>
  on(event: 'message', listener: (channel: string, message: string) => void): unknown
  on(event: 'ready' | 'error' | 'close', listener: (error?: unknown) => void): unknown
  disconnect(reconnect?: boolean): void
}

/** As much of an ioredis client, 5 or 6, as is used to tell others: `new Redis()`, one behind Sentinel, or `new Cluster()`. */
export interface RedisPublisher {
  publish(channel: string, message: string): Promise<unknown>
  /** With it, a server that has become a replica is noticed: it would take messages that nobody hears elsewhere. */
  eval?(script: string, numberOfKeys: number, ...args: string[]): Promise<unknown>
  disconnect?(reconnect?: boolean): void
  /** A connection of its own, by the same settings: one that hears messages can do little else. */
  duplicate(): RedisSubscriber
  readonly status?: string
  readonly isCluster?: boolean
}

export interface RedisInvalidationOptions {
  /**
   * The channel that changes are told on, 1 to 100 characters. Processes that share a store share it; whoever may write to
   * it can make keys unavailable, and no more.
   *
   * @default 'latchkey:changes'
   */
  channel?: string
}

const HEARTBEAT_MS = 1_000
/** How long none may be heard before messages count as missed. */
const SILENCE_MS = 3_000
/** Keys in one message. */
const BATCH = 500

/**
 * Publishes, and writes nothing: but a replica refuses the command that would. What is published on one goes to no other
 * server, so that a process which was left there by a failover would tell nobody.
 */
const PUBLISH = `redis.call('DEL', KEYS[1]) return redis.call('PUBLISH', ARGV[1], ARGV[2])`

/**
 * Tells processes of changes through Redis's publish and subscribe, on a connection of its own. Every process hears its own
 * heartbeat once a second; where a beat is missing, where none is heard for three seconds, and whenever the connection was
 * made anew, everything that is held in memory is dropped, since a message may have been missed. A Cluster moves the
 * connection from one node to another without a word: there, what is lost between two beats is bounded by the age of the
 * cache alone.
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

/** The same by a clock of the caller's. */
export function createRedisInvalidation(
  client: RedisPublisher,
  options: RedisInvalidationOptions,
  clock: Clock,
): Invalidation {
  checkMethods('client', client, ['publish', 'duplicate'])
  checkObject('options', options, ['channel'])
  const { channel = 'latchkey:changes' } = options
  checkText('channel', channel, 100)
  /** A key that nobody has. */
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
    // Subscribing again is done here, where it is known when it takes effect. A Cluster does it by itself.
    const subscriber = client.isCluster ? client.duplicate() : duplicateQuietly(client)
    // A channel of this listener's own: what comes back on it has gone the way that changes go.
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
        // Where one is missing, so may be a change. A Cluster moves a subscription without a word.
        if (isSilent || Number(message) > beatsHeard + 1) missed()
        beatsHeard = Number(message)
      }
    })
    subscriber.on('ready', () => {
      isReady = true
      void subscribe()
    })
    // Reported where it leads to silence; without a listener it would end the process.
    subscriber.on('error', () => {})
    subscribers.add(subscriber)
    void subscribe()
    beat()

    async function subscribe(): Promise<void> {
      isSubscribed = true
      try {
        await subscriber.subscribe(channel, heartbeat)
        // What was said until now is gone.
        missed()
        isRefused = false
      } catch (error) {
        // The next connection tries again, or the next beat.
        isSubscribed = false
        // A client that queues nothing refuses until it is connected; what never comes to that ends in silence.
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
      listener.missed(new Error(`nothing was heard on the channel of changes for ${SILENCE_MS} milliseconds`))
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

/** Whether this user of Redis may not run scripts. */
function isForbidden(error: unknown): boolean {
  return String((error as { message?: unknown } | null)?.message).startsWith('NOPERM')
}

/** A connection that does not subscribe again by itself: what ioredis 5 fails at there nobody could catch. */
function duplicateQuietly(client: RedisPublisher): RedisSubscriber {
  return (client as { duplicate(override: object): RedisSubscriber }).duplicate({ autoResubscribe: false })
}

/** Takes in a message. One that is not ours tells nothing, and may stand for one that was. */
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
  if (!Array.isArray(list)) throw new TypeError('a message on the channel of changes is not one of ours')
  return list.map((entry: unknown) => {
    const [keyId, version] = Array.isArray(entry) ? entry : []
    return {
      keyId: checkText('keyId', keyId, 255),
      version: checkInteger('version', version, 1, Number.MAX_SAFE_INTEGER),
    }
  })
}
