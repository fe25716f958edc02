import type { Clock } from '../core/clock.ts'
import type { InvalidationListener, KeyVersion } from '../core/invalidation.ts'
import { isQueueing } from '../redis/renew-connection.ts'
import type { RedisPublisher, RedisSubscriber } from './client.ts'
import { readMessage } from './messages.ts'

const HEARTBEAT_MS = 1_000
/** How long without a heartbeat until messages count as missed. */
const SILENCE_MS = 3_000

export interface SubscriptionParts {
  readonly client: RedisPublisher
  /** The channel for changes. */
  readonly channel: string
  /** This listener's own channel: heartbeats travel the same way as changes. */
  readonly heartbeat: string
  readonly clock: Clock
  send(channel: string, message: string): Promise<void>
}

/** The connection of one listener. It tells the listener of changes, and of the times when it may have missed some. */
export class Subscription {
  readonly subscriber: RedisSubscriber
  readonly #parts: SubscriptionParts
  readonly #listener: InvalidationListener
  #heardAt: number
  #beats = 0
  #beatsHeard = 0
  #isSilent = false
  #isStopped = false
  #isSubscribed = false
  #isRefused = false
  #isReady = false
  #cancelBeat = () => {}

  constructor(parts: SubscriptionParts, listener: InvalidationListener) {
    const { client, clock } = parts
    this.#parts = parts
    this.#listener = listener
    this.#heardAt = clock.now()
    // A Cluster client subscribes again by itself. For others, `#subscribe` does it, to know when it takes effect.
    this.subscriber = client.isCluster ? client.duplicate() : duplicateQuietly(client)
  }

  start(): void {
    const { subscriber } = this
    subscriber.on('message', (channel, message) => this.#receive(channel, message))
    subscriber.on('ready', () => {
      this.#isReady = true
      void this.#subscribe()
    })
    // Without a listener, an error would end the process. If it leads to silence, that is reported.
    subscriber.on('error', () => {})
    void this.#subscribe()
    this.#beat()
  }

  stop(): void {
    this.#isStopped = true
    this.#cancelBeat()
    this.subscriber.disconnect()
  }

  async #subscribe(): Promise<void> {
    const { channel, heartbeat } = this.#parts
    this.#isSubscribed = true
    try {
      await this.subscriber.subscribe(channel, heartbeat)
      // Earlier messages are lost.
      this.#missed()
      this.#isRefused = false
    } catch (error) {
      // The next connection tries again, or the next beat.
      this.#isSubscribed = false
      // A client without a queue refuses until it is connected. If it never connects, the silence is reported.
      if (!this.#isReady || this.#isRefused || this.#isStopped) return
      this.#isRefused = true
      this.#listener.missed(error)
    }
  }

  #receive(from: string, message: string): void {
    const { channel, heartbeat, clock } = this.#parts
    if (this.#isStopped) return
    this.#heardAt = clock.now()
    if (from === channel) tell(message, this.#listener)
    else if (from === heartbeat) {
      // If a heartbeat is missing, a change may be too. A Cluster moves a subscription silently.
      if (this.#isSilent || Number(message) > this.#beatsHeard + 1) this.#missed()
      this.#beatsHeard = Number(message)
    }
  }

  #missed(): void {
    if (this.#isStopped) return
    this.#isSilent = false
    this.#listener.missed()
  }

  /** Sends a heartbeat, and checks that earlier ones came back. */
  #beat(): void {
    const { client, heartbeat, clock, send } = this.#parts
    this.#cancelBeat = clock.setTimer(() => this.#beat(), HEARTBEAT_MS, { background: true })
    if (!isQueueing(client)) {
      this.#beats += 1
      send(heartbeat, String(this.#beats)).catch(() => {})
    }
    if (!this.#isSubscribed) void this.#subscribe()
    if (this.#isSilent || clock.now() - this.#heardAt < SILENCE_MS) return
    this.#isSilent = true
    this.#listener.missed(
      new Error(`received nothing on the invalidation channel for ${SILENCE_MS} milliseconds`),
    )
  }
}

/** A connection that does not resubscribe by itself: nothing could catch the errors of ioredis 5 there. */
function duplicateQuietly(client: RedisPublisher): RedisSubscriber {
  return (client as { duplicate(override: object): RedisSubscriber }).duplicate({ autoResubscribe: false })
}

/** Tells the listener what a message says. An unexpected message may stand in for a lost one, so it counts as missed. */
function tell(message: string, listener: InvalidationListener): void {
  let keys: KeyVersion[]
  try {
    keys = readMessage(message)
  } catch (error) {
    listener.missed(error)
    return
  }
  listener.changed(keys)
}
