/** The parts of an ioredis 5 or 6 client that the store uses: `new Redis()`, also behind Sentinel, or `new Cluster()`. */
export interface RedisStoreClient {
  eval(script: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  evalsha(sha: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  /** Sends commands together on one connection: WAIT covers only the writes of its own connection. */
  pipeline(commands: string[][]): { exec(): Promise<readonly (readonly [unknown, unknown])[] | null> }
  /** Reconnects. The store calls it when the server has become a replica and takes no writes. */
  disconnect?(reconnect?: boolean): void
  readonly isCluster?: boolean
  /** In a Cluster: the nodes of each slot, the primary first. */
  readonly slots?: readonly (readonly string[])[]
}
