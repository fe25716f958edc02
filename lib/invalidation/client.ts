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
