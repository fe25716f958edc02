/**
 * A client of node-redis (the package `redis`) 5 or 6, from `createClient()`, `createCluster()` or `createSentinel()`. Here are only the
 * members that tell it from other clients.
 *
 * Your application connects and closes it. Latchkey only reconnects it if its server has become a replica. Until the client is connected,
 * and once it is closed, Latchkey's calls to Redis fail. Latchkey listens to its `error` events, because node-redis ends the process over an error without a listener. Add a listener of
 * your own to log them.
 */
export interface NodeRedisClient {
  readonly isOpen: boolean
  readonly isReady?: boolean
  connect(): Promise<unknown>
  sendCommand(...args: never[]): Promise<unknown>
  subscribe(...args: never[]): Promise<unknown>
  withTypeMapping(mapping: never): unknown
  on(event: string, listener: (...args: unknown[]) => void): unknown
}

export interface CommandOptions {
  readonly typeMapping: object
  /** Version 6 would make a timer for every command. */
  readonly timeout: undefined
  /** Removes a command that was not sent yet. */
  readonly abortSignal?: AbortSignal
}

export type MessageListener = (message: string, channel: string) => void

export interface Pipeline {
  addCommand(...args: unknown[]): Pipeline
  execAsPipeline(): Promise<unknown[]>
}

/** What `createClient()` returns. */
export interface SingleClient extends Omit<NodeRedisClient, 'sendCommand' | 'subscribe'> {
  readonly isReady: boolean
  sendCommand(args: readonly string[], options: CommandOptions): Promise<unknown>
  subscribe(channels: readonly string[], listener: MessageListener): Promise<unknown>
  multi(): Pipeline
  duplicate(): SingleClient
  destroy(): void
}

/** What `createCluster()` returns. */
export interface ClusterClient extends Omit<NodeRedisClient, 'sendCommand' | 'subscribe'> {
  readonly slots: readonly ({ readonly master: ClusterNode } | undefined)[]
  sendCommand(
    firstKey: string | undefined,
    isReadonly: boolean,
    args: readonly string[],
    options: CommandOptions,
  ): Promise<unknown>
  multi(): Pipeline
}

interface ClusterNode {
  readonly address: string
  readonly client?: { readonly isReady: boolean }
}

/** What `createSentinel()` returns. */
export interface SentinelClient extends Omit<NodeRedisClient, 'sendCommand' | 'subscribe'> {
  /** Calls `run` with a connection to the primary, and again with another one if that is lost or turns out to be a replica. */
  _execute<T>(isReadonly: boolean, run: (connection: SingleClient) => Promise<T>): Promise<T>
}

/** A Cluster or a Sentinel client has a connection of its own for subscriptions. */
export interface SharedSubscriptions extends Omit<NodeRedisClient, 'sendCommand' | 'subscribe'> {
  subscribe(channels: readonly string[], listener: MessageListener): Promise<unknown>
  unsubscribe(channels: readonly string[], listener: MessageListener): Promise<unknown>
  off(event: string, listener: (...args: unknown[]) => void): unknown
}

export type NodeRedisKind = 'single' | 'cluster' | 'sentinel'

/** Whether it has connected. A Cluster client of version 5 says no more than that it has begun to. */
export function isConnected(client: Pick<NodeRedisClient, 'isOpen' | 'isReady'>): boolean {
  if (!client.isOpen || client.isReady === false) return false
  return kindOf(client) !== 'cluster' || (client as unknown as ClusterClient).slots[0] !== undefined
}

export function notConnected(): Error {
  return new Error('The node-redis client is not connected: call its connect() and wait for it')
}

export function kindOf(client: object): NodeRedisKind {
  if ('masters' in client) return 'cluster'
  return 'acquire' in client ? 'sentinel' : 'single'
}
