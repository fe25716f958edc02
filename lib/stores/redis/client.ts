/** As much of an ioredis client, 5 or 6, as the store uses: `new Redis()`, one behind Sentinel, or `new Cluster()`. */
export interface RedisStoreClient {
  eval(script: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  evalsha(sha: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  /** Sends commands together on one connection: WAIT counts what its own connection has written. */
  pipeline(commands: string[][]): { exec(): Promise<readonly (readonly [unknown, unknown])[] | null> }
  /** Ends the connection and makes another: where a server has become a replica, and takes no writes. */
  disconnect?(reconnect?: boolean): void
  readonly isCluster?: boolean
  /** Of a Cluster: the nodes of each slot, the primary first. */
  readonly slots?: readonly (readonly string[])[]
}
