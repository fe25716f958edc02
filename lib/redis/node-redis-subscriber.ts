import {
  isConnected,
  kindOf,
  type MessageListener,
  type NodeRedisClient,
  type SharedSubscriptions,
  type SingleClient,
} from './node-redis-client.ts'
import { renew } from './node-redis-senders.ts'

type Listener = (...args: never[]) => void

/** A connection that receives messages, in the shape of an ioredis client. */
export interface NodeRedisSubscriber {
  subscribe(...channels: string[]): Promise<unknown>
  on(event: string, listener: Listener): unknown
  disconnect(reconnect?: boolean): void
}

export function createSubscriber(client: NodeRedisClient): NodeRedisSubscriber {
  return kindOf(client) === 'single'
    ? duplicateToSubscribe(client as unknown as SingleClient)
    : subscribeThrough(client as unknown as SharedSubscriptions, kindOf(client))
}

/** After each reconnection, the duplicate subscribes again before it is ready. */
function duplicateToSubscribe(client: SingleClient): NodeRedisSubscriber {
  const duplicate = client.duplicate()
  const messages = createMessages()
  duplicate.on('error', () => {})
  // What fails is an `error` event too.
  duplicate.connect().catch(() => {})

  return {
    subscribe: (...channels) => duplicate.subscribe(channels, messages.receive),
    on: (event, listener) =>
      event === 'message' ? messages.listen(listener) : duplicate.on(event, listener as () => void),
    disconnect(reconnect = false) {
      if (reconnect) renew(duplicate)
      else if (duplicate.isOpen) duplicate.destroy()
    },
  }
}

/** These clients keep a connection for subscriptions, and move it when its server is gone. */
function subscribeThrough(client: SharedSubscriptions, kind: string): NodeRedisSubscriber {
  const connected = kind === 'cluster' ? 'connect' : 'ready'
  const messages = createMessages()
  let subscribed: readonly string[] = []
  let onConnected = () => {}

  return {
    subscribe(...channels) {
      subscribed = channels
      return client.subscribe(channels, messages.receive)
    },
    on(event, listener) {
      if (event === 'message') messages.listen(listener)
      if (event !== 'ready') return
      onConnected = listener as () => void
      client.on(connected, onConnected)
      if (isConnected(client)) queueMicrotask(onConnected)
    },
    disconnect(reconnect = false) {
      if (reconnect) return
      messages.end()
      client.off(connected, onConnected)
      // A closed client receives nothing anyway.
      if (subscribed.length > 0) client.unsubscribe(subscribed, messages.receive).catch(() => {})
    },
  }
}

function createMessages() {
  let tell: (channel: string, message: string) => void = () => {}
  const receive: MessageListener = (message, channel) => tell(channel, message)

  return {
    /** One function for all subscriptions: the client keeps a listener of a channel only once. */
    receive,
    listen(listener: Listener): void {
      tell = listener as typeof tell
    },
    end(): void {
      tell = () => {}
    },
  }
}
