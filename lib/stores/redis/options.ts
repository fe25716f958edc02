import { checkInteger, checkObject } from '../../internal/options.ts'
import { checkKeyPrefix } from '../../redis/options.ts'

export interface RedisStoreOptions {
  /**
   * What the names of keys in Redis begin with: 1 to 100 characters, no braces.
   *
   * @default 'latchkey:store'
   */
  keyPrefix?: string
  /**
   * How many replicas must have a change before it resolves. With fewer, the change fails with `unavailable` although
   * the primary has made it; 0 waits for none, and a failover may then lose what has just been changed. By default one
   * of those that are connected: a primary without replicas waits for nobody.
   *
   * @default one, where there are any
   */
  replicas?: number
  /**
   * How long to wait for them, in milliseconds. Meanwhile nothing else that was sent on the same connection is
   * answered, so let this be less than the `timeoutMs` of `createApiKeys`.
   *
   * @default 1_000
   */
  waitMs?: number
}

export type RedisStoreSettings = ReturnType<typeof resolveRedisStoreOptions>

/** The options with their defaults. @throws TypeError naming the option. */
export function resolveRedisStoreOptions(options: RedisStoreOptions) {
  checkObject('options', options, ['keyPrefix', 'replicas', 'waitMs'])
  const { keyPrefix = 'latchkey:store', replicas, waitMs = 1_000 } = options
  return Object.freeze({
    keyPrefix: checkKeyPrefix(keyPrefix),
    /** Null is one, where there are any. */
    replicas: replicas === undefined ? null : checkInteger('replicas', replicas, 0, 100),
    waitMs: checkInteger('waitMs', waitMs, 1, 60_000),
  })
}
