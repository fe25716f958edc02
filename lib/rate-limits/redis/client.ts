/**
 * As much of an ioredis client, 5 or 6, as the limiter uses: `new Redis()`, one behind Sentinel, or `new Cluster()`.
 *
 * The limiter does not send over this connection but over one of its own, made with `duplicate()`: ioredis sends again
 * what was under way when a connection was lost, and a call would be charged twice. It ends when this one ends. With
 * `autoResendUnfulfilledCommands: false` (not for a Cluster) the client is used as it is. One without `duplicate()` is
 * too, and must then send nothing twice by itself.
 */
export interface RedisClient {
  eval(script: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  evalsha(sha: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  /** A connection of its own by the same settings. */
  duplicate?(): RedisClient
  /** Ends the connection, and makes another where `reconnect` is true. */
  disconnect?(reconnect?: boolean): void
  on?(event: 'end' | 'error', listener: () => void): unknown
  readonly status?: string
  readonly options?: {
    readonly autoResendUnfulfilledCommands?: boolean | undefined
    readonly lazyConnect?: boolean | undefined
    /** Of a Cluster: those of its nodes. */
    readonly redisOptions?: object | undefined
  }
  readonly isCluster?: boolean
  /** Of a Cluster: the nodes of each slot, the primary first. */
  readonly slots?: readonly (readonly string[])[]
}
