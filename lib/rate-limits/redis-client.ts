/** As much of an ioredis client, 5 or 6, as the limiter uses: `new Redis()`, one behind Sentinel, or `new Cluster()`. */
export interface RedisClient {
  eval(script: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  evalsha(sha: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  readonly isCluster?: boolean
  /** Of a Cluster: the nodes of each slot, the primary first. */
  readonly slots?: readonly (readonly string[])[]
}
