import type { Awaitable } from '../internal/awaitable.ts'
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkIntegerOfGroup,
  checkIntegerOrFalse,
  checkMethods,
  checkObject,
  checkOneOf,
  checkText,
  fail,
  isPlainObject,
} from '../internal/options.ts'
import { type Clock, systemClock } from './clock.ts'
import type { DigestScheme, Pepper } from './digests/digest.ts'
import type { ApiKeyListener } from './events.ts'
import { type ExpiryRemindersOptions, resolveReminders } from './expiry/reminder-options.ts'
import type { Invalidation } from './invalidation.ts'
import { compileFormats, type KeyFormat } from './keys/imported-format.ts'
import { checkPrefix } from './keys/key-format.ts'
import type { KeyStore } from './keys/key-store.ts'
import type { Permissions } from './keys/permissions.ts'
import type { Owner } from './keys/record.ts'
import type { RateLimiter } from './limits/rate-limiter.ts'
import {
  compileLimits,
  type OwnersRateLimits,
  type RateLimitPlans,
  type ServiceRateLimit,
} from './limits/service-limits.ts'
import type { AdmittedCall } from './usage/admitted-call.ts'
import { checkFailedAttempts, type FailedAttemptsOptions } from './verify/failed-attempts.ts'

export interface ApiKeysOptions {
  /** Where keys are stored: a SQL store, `redisStore(redis)`, `memoryStore()`, or your own adapter. */
  store: KeyStore
  /** Counts what keys spend: `redisRateLimiter(redis)` for several processes, `memoryRateLimiter()` for one. */
  rateLimiter: RateLimiter
  /**
   * How soon other processes notice that a key was changed or revoked.
   *
   * - `'exact'`: at the key's next use, because every verification asks the limiter for the latest version of the key.
   *   With a shared limiter that is one call, the same one that counts.
   * - `'bounded'`: within `cache.maxAgeMs` for keys without limits and quota. These are verified without asking the
   *   limiter. `invalidation` usually makes it sooner.
   *
   * @default 'exact'
   */
  revocation?: 'exact' | 'bounded'
  /**
   * Tells other processes of changes by message: `redisInvalidation(redis)`. Use it with `memoryRateLimiter()` or
   * `revocation: 'bounded'`; otherwise every verification asks the limiter anyway. With it, `onEnd` tells open connections of
   * changes at once.
   */
  invalidation?: Invalidation
  /**
   * Blocks addresses that keep sending invalid keys: 429 `too_many_failures`. The limiter counts them. A blocked
   * address can still use keys that this process verified recently. Nothing is counted against a key.
   *
   * @default false
   */
  failedAttempts?: boolean | FailedAttemptsOptions
  /**
   * What new keys begin with, such as `acme_live`: 1 to 32 letters, digits and `_`. Keys issued under an earlier prefix
   * keep working.
   */
  prefix: string
  /**
   * How to make digests of new keys. Existing digests name their own scheme.
   *
   * @default 'hmac-sha256' where `peppers` are given, otherwise 'sha256'
   */
  digest?: DigestScheme
  /** Secrets for digests. New digests use the first; the others still verify old ones. */
  peppers?: readonly Pepper[]
  /**
   * The formats of imported keys: `[betterAuthFormat()]`. Several cost no more store reads than one. Choose formats
   * whose shapes differ: if two formats recognise a key, the first one that finds a record decides.
   *
   * @default []
   */
  formats?: readonly KeyFormat[]
  /**
   * Rewrites a digest of an older scheme or pepper after a successful verification. Turn it on only when every running
   * process knows the current scheme and pepper.
   *
   * @default false
   */
  upgradeDigests?: boolean
  /**
   * The rate limits of keys without their own, and of owners (`scope: 'owner'`): a list for all, or plans, or a function
   * of the owner. Plans and functions are asked when the record of a key is read, and the answer is kept as long as the
   * record: `invalidateOwner` ends it at once. If they fail, requests get a 503.
   *
   * @default []
   */
  rateLimits?: readonly ServiceRateLimit[] | RateLimitPlans | OwnersRateLimits
  /**
   * How long, and how many, records stay in memory between verifications. With `false` every verification asks the
   * store, also for unknown ids.
   */
  cache?:
    | false
    | {
        /** The most records to hold. @default 10_000 */
        maxEntries?: number
        /**
         * How old a held record may be, in milliseconds, counted from when the store was asked for it.
         *
         * @default 5_000
         */
        maxAgeMs?: number
        /** The most unknown key ids to remember. @default 1_000 */
        negativeMaxEntries?: number
        /** How long to remember an unknown id, in milliseconds. `false` remembers none. @default 5_000 */
        negativeMaxAgeMs?: number | false
      }
  /**
   * Returns whether an owner's keys may be used at all. Verification calls it and remembers the result for
   * `ownerMaxAgeMs`. If it fails, verification fails with `unavailable`.
   */
  isOwnerActive?: (owner: Owner) => Awaitable<boolean>
  /**
   * Returns what an owner may do now; null restricts nothing. A key may then do only what both it and its owner are
   * permitted. `*` works on both sides, but both must name actions of `api-keys`. `verify`, guards and `req.apiKey` use
   * the combined permissions; `get` and `list` show the key's own. It runs after `isOwnerActive` has returned true, and
   * both answers are remembered together. If it fails, or returns anything but permissions or null, verification fails
   * with `unavailable`.
   *
   * @example
   * ownerPermissions: async (owner) => permissionsOfRole(await users.roleOf(owner.id))
   */
  ownerPermissions?: (owner: Owner) => Awaitable<Permissions | null>
  /**
   * How long to remember the answers of `isOwnerActive` and `ownerPermissions`, in milliseconds. `invalidateOwner`
   * discards them at once. `false` remembers none: every verification asks again.
   *
   * @default 5_000
   */
  ownerMaxAgeMs?: number | false
  /**
   * The most units of a quota that this process leases from the store beyond what calls need right now. A lease also
   * takes at most a sixteenth of what is left, and at most twice what was used of the previous lease, so rarely used
   * keys lease little. A crash loses at most one lease per key. With 0 the process leases nothing in advance, and every
   * call writes to the store.
   *
   * @default 1_000
   */
  quotaBlockSize?: number
  /**
   * How long this process holds leased units, in milliseconds, from 100 to 600,000. It then returns unspent units to
   * the store. While other processes lease what is left, a call may be refused for that long; `Retry-After` says so.
   * Longer leases need fewer writes.
   *
   * @default 5_000
   */
  quotaLeaseMs?: number
  /** How to gather uses before writing them to the store. */
  usage?: {
    /**
     * How long to gather uses before a write, in milliseconds, at most 30,000. Two kinds of use are written at once:
     * the first use of a key, and one that keeps a key from expiring idle.
     *
     * @default 10_000
     */
    flushMs?: number
    /** The most keys with uses waiting to be written. Uses of further keys are dropped and reported. @default 100_000 */
    maxEntries?: number
    /**
     * Whether to store the client address of a key's last use, as `lastUsedIp`. With `false` no client address is
     * stored, and the next use of a key clears one stored earlier. Events still name the address of a refused request,
     * and `failedAttempts` keeps addresses in the limiter until its window ends.
     *
     * @default true
     */
    addresses?: boolean
    /**
     * How many days to keep what is counted for `keys.usage()` and `keys.unusedPermissions()`, at most 3,650. With 0
     * nothing is counted for them. Counting needs a store with `addUsage`; every store of Latchkey has it.
     *
     * @default 90
     */
    keepDays?: number
  }
  /**
   * Called for every admitted call that costs something, before `verify` returns: to meter in a system of your own. It must not
   * wait; what it throws or rejects with becomes a `fault` event. Settlements and refunds do not call it.
   */
  onAdmitted?: (call: AdmittedCall) => unknown
  /**
   * When to report keys that expire soon, as `key.expiring` events: each key once for each time, by one of the processes that share a
   * store. Only active keys are reported. A new `expiresAt` counts anew. `false` reports none.
   *
   * A look reads all active keys that end within the longest of these times, 200 at once. It needs `onEvent` and a store with `agree`;
   * without them there are no reminders.
   *
   * @default reminders 14, 7 and 1 days before the end
   */
  expiryReminders?: ExpiryRemindersOptions | false
  /**
   * How long the store, the limiter, or `isOwnerActive` and `ownerPermissions` together may take before it counts as a
   * fault, in milliseconds.
   *
   * @default 5_000
   */
  timeoutMs?: number
  /**
   * Receives every change, refusal and fault. Without it, faults become process warnings, `LATCHKEY_FAULT`, at most one
   * a minute for each failing part.
   */
  onEvent?: ApiKeyListener
  /**
   * The source of time, for tests.
   *
   * @default the machine's clock
   */
  clock?: Clock
}

const DAY_MS = 86_400_000
const OPTIONS = [
  'store',
  'rateLimiter',
  'revocation',
  'invalidation',
  'failedAttempts',
  'prefix',
  'digest',
  'peppers',
  'formats',
  'upgradeDigests',
  'rateLimits',
  'cache',
  'isOwnerActive',
  'ownerPermissions',
  'ownerMaxAgeMs',
  'quotaBlockSize',
  'quotaLeaseMs',
  'usage',
  'onAdmitted',
  'expiryReminders',
  'timeoutMs',
  'onEvent',
  'clock',
]

function checkSharedAs(name: string, { sharedAs }: { readonly sharedAs?: string }): void {
  if (sharedAs !== undefined) checkText(`${name}.sharedAs`, sharedAs, 255)
}

/** The options with their defaults, checked. @throws TypeError naming the option. */
export function resolveOptions(options: ApiKeysOptions) {
  checkObject('options', options, OPTIONS)
  const { rateLimiter, clock = systemClock, onEvent, onAdmitted, usage = {} } = options
  checkMethods('rateLimiter', rateLimiter, ['check', 'raiseVersions'])
  checkFunction('clock.now', clock?.now)
  checkFunction('clock.setTimer', clock?.setTimer)
  const { revocation = 'exact', invalidation, failedAttempts = false } = options
  const { isOwnerActive, ownerPermissions, ownerMaxAgeMs = 5_000 } = options
  checkOneOf('revocation', revocation, ['exact', 'bounded'])
  if (invalidation !== undefined) checkMethods('invalidation', invalidation, ['publish', 'listen'])
  checkSharedAs('rateLimiter', rateLimiter)
  if (invalidation !== undefined) checkSharedAs('invalidation', invalidation)
  if (isOwnerActive !== undefined) checkFunction('isOwnerActive', isOwnerActive)
  if (ownerPermissions !== undefined) checkFunction('ownerPermissions', ownerPermissions)
  if (onEvent !== undefined) checkFunction('onEvent', onEvent)
  if (onAdmitted !== undefined) checkFunction('onAdmitted', onAdmitted)
  checkObject('usage', usage, ['flushMs', 'maxEntries', 'addresses', 'keepDays'], { maxKeys: 'maxEntries' })
  const integer = (name: string, value: unknown, fallback: number, min: number, max: number) =>
    value === undefined ? fallback : checkInteger(name, value, min, max)
  const cache = resolveCache(options.cache)
  const { maxEntries } = cache
  const limits = compileLimits('rateLimits', options.rateLimits ?? [])
  const timeoutMs = integer('timeoutMs', options.timeoutMs, 5_000, 1, DAY_MS)
  return Object.freeze({
    limiter: rateLimiter,
    isBounded: revocation === 'bounded',
    invalidation,
    failedAttempts: checkFailedAttempts(failedAttempts),
    clock,
    ownerHooks: { isOwnerActive, ownerPermissions },
    onEvent,
    onAdmitted,
    prefix: checkPrefix('prefix', options.prefix),
    formats: compileFormats('formats', options.formats ?? []),
    upgradeDigests:
      options.upgradeDigests === undefined ? false : checkBoolean('upgradeDigests', options.upgradeDigests),
    timeoutMs,
    reminders: resolveReminders(options.expiryReminders, { store: options.store, onEvent, timeoutMs }),
    quotaLeases: {
      blockSize: integer('quotaBlockSize', options.quotaBlockSize, 1_000, 0, 1_000_000_000),
      leaseMs: integer('quotaLeaseMs', options.quotaLeaseMs, 5_000, 100, 600_000),
      maxEntries,
    },
    owners: {
      maxAgeMs: checkIntegerOrFalse('ownerMaxAgeMs', ownerMaxAgeMs, DAY_MS) || 0,
      maxEntries,
    },
    usage: {
      flushMs: integer('usage.flushMs', usage.flushMs, 10_000, 1, 30_000),
      maxEntries: integer('usage.maxEntries', usage.maxEntries, 100_000, 1, 10_000_000),
      addresses: usage.addresses === undefined ? true : checkBoolean('usage.addresses', usage.addresses),
      keepDays: integer('usage.keepDays', usage.keepDays, 90, 0, 3_650),
    },
    cache: { ...cache, limits },
    limits,
  })
}

/** An age of 0 holds nothing. */
function resolveCache(given: ApiKeysOptions['cache'] = {}) {
  if (given !== false && !isPlainObject(given)) fail('cache', 'an object or false', given)
  const members = ['maxEntries', 'maxAgeMs', 'negativeMaxEntries', 'negativeMaxAgeMs']
  const cache: Exclude<ApiKeysOptions['cache'], false | undefined> = given || {}
  checkObject('cache', cache, members)
  const {
    maxEntries = 10_000,
    maxAgeMs = 5_000,
    negativeMaxEntries = 1_000,
    negativeMaxAgeMs = 5_000,
  } = cache
  return {
    maxEntries: checkInteger('cache.maxEntries', maxEntries, 1, 10_000_000),
    maxAgeMs: given === false ? 0 : checkIntegerOfGroup('cache', 'maxAgeMs', maxAgeMs, DAY_MS),
    negativeMaxEntries: checkInteger('cache.negativeMaxEntries', negativeMaxEntries, 1, 10_000_000),
    negativeMaxAgeMs:
      given === false ? 0 : checkIntegerOrFalse('cache.negativeMaxAgeMs', negativeMaxAgeMs, DAY_MS) || 0,
  }
}
