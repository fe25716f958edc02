import type { ApiKeys } from '../core/api-keys.ts'
import type { ApiKeysOptions } from '../core/api-keys-options.ts'
import type { KeyStore } from '../core/keys/key-store.ts'
import type { RateLimiter } from '../core/limits/rate-limiter.ts'

/** A database by its address, where the tables or keys have other names than usual. */
export interface StoreAddress {
  /**
   * `postgres://…`, `mysql://…`, `mariadb://…`, `redis://…`, `rediss://…` or `sqlite:keys.db`; or `env:NAME` for an address in an
   * environment variable.
   */
  address: string
  /**
   * The table of keys, in SQL.
   *
   * @default 'latchkey_keys'
   */
  table?: string
  /**
   * The schema of the tables, in PostgreSQL, MySQL and MariaDB.
   *
   * @default the one that the connection is in
   */
  schema?: string
  /**
   * The prefix of key names, in Redis.
   *
   * @default 'latchkey:store'
   */
  keyPrefix?: string
}

/** The Redis in which your servers count. */
export interface RedisAddress {
  /** `redis://…` or `rediss://…`; or `env:NAME`. */
  address: string
  /**
   * The `keyPrefix` of `redisRateLimiter` in your servers.
   *
   * @default 'latchkey'
   */
  keyPrefix?: string
  /**
   * The `channel` of `redisInvalidation` in your servers, if they use it. Changes are then published there too.
   *
   * @default none: nothing is published
   */
  channel?: string
}

/**
 * What the command `latchkey` works on: the options of `createApiKeys` that your servers have, with addresses in place of a store and
 * a limiter. The default export of `latchkey.config.ts`, or a function that returns it.
 */
export interface LatchkeyConfig extends Partial<Omit<ApiKeysOptions, 'store' | 'rateLimiter'>> {
  /**
   * Where the keys are: an address, or a store of `latchkey/sql`, `latchkey/redis` or your own.
   *
   * @default the address in the environment variable `LATCHKEY_STORE`
   */
  store?: string | StoreAddress | KeyStore
  /**
   * The Redis in which your servers count, so that changes take effect at once.
   *
   * @default the address in the environment variable `LATCHKEY_REDIS`, if it is set
   */
  redis?: string | RedisAddress
  /** The limiter itself, in place of `redis`. */
  rateLimiter?: RateLimiter
  /** Other stores by name, for `--store` and `move --to`. */
  stores?: Readonly<Record<string, string | StoreAddress | KeyStore>>
  /** Your application's `createApiKeys(…)`, in place of its options. Add `store` for the commands that copy or check a store. */
  keys?: ApiKeys
  /**
   * The `trust proxy` of your Express application, or the number of proxies in front of it. Only `doctor` reads it: it says if clients
   * could choose their address.
   */
  trustProxy?: boolean | number | string | readonly string[]
  /** Closes what the file has opened, such as a pool. The command calls it at its end. */
  close?: () => unknown
}

/**
 * Returns the configuration unchanged, with its type.
 *
 * @example
 * export default defineConfig({
 *   store: process.env.DATABASE_URL,
 *   redis: process.env.REDIS_URL,
 *   prefix: 'acme_live',
 * })
 */
export function defineConfig(
  config: LatchkeyConfig | (() => LatchkeyConfig | Promise<LatchkeyConfig>),
): LatchkeyConfig | (() => LatchkeyConfig | Promise<LatchkeyConfig>) {
  return config
}
