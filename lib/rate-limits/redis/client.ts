/**
 * The parts of an ioredis 5 or 6 client that the limiter uses: `new Redis()`, also behind Sentinel, or `new Cluster()`.
 *
 * The limiter uses its own connection, which it makes with `duplicate()`. After a lost connection, ioredis resends pending commands,
 * and Redis would charge a call twice. The limiter's connection ends when this client ends. The limiter uses the client itself if it
 * has `autoResendUnfulfilledCommands: false` (not for a Cluster) or no `duplicate()`. A client without `duplicate()` must not resend
 * commands.
 */
export interface RedisClient {
  eval(script: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  evalsha(sha: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  /** Makes another connection with the same settings. */
  duplicate?(): RedisClient
  /** Ends the connection, and makes another if `reconnect` is true. */
  disconnect?(reconnect?: boolean): void
  on?(event: 'end' | 'error' | 'reconnecting', listener: () => void): unknown
  readonly status?: string
  readonly options?: {
    readonly autoResendUnfulfilledCommands?: boolean | undefined
    readonly lazyConnect?: boolean | undefined
    /** In a Cluster: the options of its nodes. */
    readonly redisOptions?: object | undefined
  }
  readonly isCluster?: boolean
  /** In a Cluster: the nodes of each slot, the primary first. */
  readonly slots?: readonly (readonly string[])[]
}
