import { checkInteger, checkObject } from '../../internal/options.ts'
import { checkKeyPrefix } from '../../redis/options.ts'

export interface RedisStoreOptions {
  /**
   * The prefix of all key names in Redis: 1 to 100 characters, no braces.
   *
   * @default 'latchkey:store'
   */
  keyPrefix?: string
  /**
   * How many replicas must have a change before it resolves. If fewer confirm it, the change fails with `unavailable` although the
   * primary has made it. With 0, a change waits for no replica, and a failover may lose recent changes. By default, a change waits
   * for one replica; a primary without replicas waits for none.
   *
   * @default one, where there are any
   */
  replicas?: number
  /**
   * How long to wait for replicas, in milliseconds. Other commands on the same connection wait too, so use less than the `timeoutMs`
   * of `createApiKeys`.
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
    /** Null waits for one replica, if there are any. */
    replicas: replicas === undefined ? null : checkInteger('replicas', replicas, 0, 100),
    waitMs: checkInteger('waitMs', waitMs, 1, 60_000),
  })
}
