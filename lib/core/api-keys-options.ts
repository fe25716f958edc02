import type { Awaitable } from '../internal/awaitable.ts'
import { OptionError } from '../internal/option-error.ts'
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkMethods,
  checkObject,
  checkText,
} from '../internal/options.ts'
import { type Clock, systemClock } from './clock.ts'
import type { DigestScheme, Pepper } from './digests/digest.ts'
import type { ApiKeyListener } from './events.ts'
import type { Invalidation } from './invalidation.ts'
import { compileFormats, type KeyFormat } from './keys/imported-format.ts'
import { checkPrefix } from './keys/key-format.ts'
import type { KeyStore } from './keys/key-store.ts'
import type { Permissions } from './keys/permissions.ts'
import type { Owner } from './keys/record.ts'
import { compileRateLimits, type RateLimit } from './limits/rate-limit.ts'
import type { RateLimiter } from './limits/rate-limiter.ts'
import { checkFailedAttempts, type FailedAttemptsOptions } from './verify/failed-attempts.ts'

export interface ApiKeysOptions {
  /** Where keys are kept: `memoryStore()`, or an adapter of your own. */
  store: KeyStore
  /** Who counts what keys spend: `redisRateLimiter(redis)` for several processes, `memoryRateLimiter()` for one. */
  rateLimiter: RateLimiter
  /**
   * How soon other processes notice that a key was changed or revoked.
   *
   * - `'exact'`: at its next use, since every verification asks the limiter for the latest version of the key. Where the
   *   limiter is one that processes share, that is one call, the same that counts.
   * - `'bounded'`: within `cache.maxAgeMs` for keys without limits and quota, which then are verified without asking the
   *   limiter; `invalidation` makes it sooner as a rule.
   *
   * @default 'exact'
   */
  revocation?: 'exact' | 'bounded'
  /**
   * Tells other processes of changes by message: `redisInvalidation(redis)`. Worth having with `memoryRateLimiter()` or
   * with `revocation: 'bounded'`; otherwise every verification asks anyway.
   */
  invalidation?: Invalidation
  /**
   * Blocks addresses that keep sending invalid keys, 429 `too_many_failures`. They are counted through the limiter; a
   * blocked address is only refused keys that were not verified here lately. Nothing is counted against a key.
   *
   * @default false
   */
  failedAttempts?: boolean | FailedAttemptsOptions
  /**
   * What new keys begin with, such as `acme_live`: 1 to 32 letters, digits and `_`. Keys issued under another
   * prefix keep working when it changes.
   */
  prefix: string
  /**
   * How digests of new keys are made; those that exist name their own scheme.
   *
   * @default 'hmac-sha256' where `peppers` are given, otherwise 'sha256'
   */
  digest?: DigestScheme
  /** Secrets that digests are made under. The first makes new digests, the others still verify old ones. */
  peppers?: readonly Pepper[]
  /**
   * How keys of other products are found, those that were imported: `[betterAuthFormat()]`. Several cost no more reads of
   * the store than one. Let their shapes differ: where two formats know a key, the first that finds a record decides.
   *
   * @default []
   */
  formats?: readonly KeyFormat[]
  /**
   * Rewrites a digest of an older scheme or pepper after a successful verification. Switch it on only when
   * every running process knows the current scheme and pepper.
   *
   * @default false
   */
  upgradeDigests?: boolean
  /**
   * The limits of keys that have none of their own.
   *
   * @default []
   */
  rateLimits?: readonly RateLimit[]
  /** How records are held in memory between verifications. */
  cache?: {
    /** How many records are held at most. @default 10_000 */
    maxEntries?: number
    /** How old a held record may be, in milliseconds, counted from when it was asked for. 0 holds none. @default 5_000 */
    maxAgeMs?: number
    /** How many ids of which no key exists are remembered at most. @default 1_000 */
    negativeMaxEntries?: number
    /** How long those are remembered, in milliseconds. @default 5_000 */
    negativeMaxAgeMs?: number
  }
  /**
   * Says whether an owner's keys may be used at all. It is asked during verification, and its answer is
   * remembered for `ownerMaxAgeMs`; if it fails, verification fails with `unavailable`.
   */
  isOwnerActive?: (owner: Owner) => Awaitable<boolean>
  /**
   * Says what an owner may do now; null restricts nothing. A key then may do what it is permitted and its owner may do
   * as well, with `*` understood on both sides; both have to name actions of `api-keys`. That is what `verify`, guards and
   * `req.apiKey` go by, while `get` and `list` show what the key itself is permitted. It is asked after `isOwnerActive` has
   * answered true, and both answers are remembered together; if it fails, or answers with anything but permissions or null,
   * verification fails with `unavailable`.
   *
   * @example
   * ownerPermissions: async (owner) => permissionsOfRole(await users.roleOf(owner.id))
   */
  ownerPermissions?: (owner: Owner) => Awaitable<Permissions | null>
  /**
   * How long the answers of `isOwnerActive` and `ownerPermissions` are remembered, in milliseconds. `invalidateOwner`
   * ends that at once.
   *
   * @default 5_000
   */
  ownerMaxAgeMs?: number
  /**
   * The most units of a quota that this process leases from the store beyond what calls need right now. A lease also takes
   * at most a sixteenth of what is left and twice what was used of the one before, so keys that are used little lease little.
   * A crash loses at most one lease for each key. With 0 nothing is leased ahead, and every call writes to the store.
   *
   * @default 1_000
   */
  quotaBlockSize?: number
  /**
   * How long this process holds units that it has leased, in milliseconds, from 100 to 600,000. What is not spent by then goes
   * back to the store. While other processes lease what is left, a call may be refused for that long; `Retry-After` says
   * so. Longer leases need fewer writes.
   *
   * @default 5_000
   */
  quotaLeaseMs?: number
  /** How uses are gathered before they are written to the store. */
  usage?: {
    /**
     * How long uses are gathered, in milliseconds, at most 30,000. The first use of a key does not wait for it, nor does one
     * that the idle expiry of a key rests on: these are written at once.
     *
     * @default 10_000
     */
    flushMs?: number
    /** How many keys may wait to be written; uses of further ones are dropped and reported. @default 100_000 */
    maxKeys?: number
    /**
     * Whether the address of the last use is kept with a key, as `lastUsedIp`. With `false` no address of a client is
     * stored: one that was kept before goes with the next use of its key. Events still name the address of a refused
     * request, and `failedAttempts` remembers addresses in the limiter until its window ends.
     *
     * @default true
     */
    addresses?: boolean
  }
  /**
   * How long the store, the limiter, or `isOwnerActive` and `ownerPermissions` together, may take before that counts as
   * a fault, in milliseconds.
   *
   * @default 5_000
   */
  timeoutMs?: number
  /**
   * Receives every change, refusal and fault. Without it, what fails is a warning of the process, `LATCHKEY_FAULT`, at most one a
   * minute for each part that fails.
   */
  onEvent?: ApiKeyListener
  /**
   * The time, for tests.
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
  const { rateLimiter, clock = systemClock, onEvent, cache = {}, usage = {} } = options
  checkMethods('rateLimiter', rateLimiter, ['check', 'raiseVersions'])
  checkFunction('clock.now', clock?.now)
  checkFunction('clock.setTimer', clock?.setTimer)
  const { revocation = 'exact', invalidation, failedAttempts = false } = options
  const { isOwnerActive, ownerPermissions } = options
  if (revocation !== 'exact' && revocation !== 'bounded') {
    throw new OptionError('revocation', 'be "exact" or "bounded"')
  }
  if (invalidation !== undefined) checkMethods('invalidation', invalidation, ['publish', 'listen'])
  checkSharedAs('rateLimiter', rateLimiter)
  if (invalidation !== undefined) checkSharedAs('invalidation', invalidation)
  if (isOwnerActive !== undefined) checkFunction('isOwnerActive', isOwnerActive)
  if (ownerPermissions !== undefined) checkFunction('ownerPermissions', ownerPermissions)
  if (onEvent !== undefined) checkFunction('onEvent', onEvent)
  checkObject('cache', cache, ['maxEntries', 'maxAgeMs', 'negativeMaxEntries', 'negativeMaxAgeMs'])
  checkObject('usage', usage, ['flushMs', 'maxKeys', 'addresses'])
  const integer = (name: string, value: unknown, fallback: number, min: number, max: number) =>
    value === undefined ? fallback : checkInteger(name, value, min, max)
  const maxEntries = integer('cache.maxEntries', cache.maxEntries, 10_000, 1, 10_000_000)
  return Object.freeze({
    limiter: rateLimiter,
    isBounded: revocation === 'bounded',
    invalidation,
    failedAttempts: checkFailedAttempts(failedAttempts),
    clock,
    ownerHooks: { isOwnerActive, ownerPermissions },
    onEvent,
    prefix: checkPrefix('prefix', options.prefix),
    formats: compileFormats('formats', options.formats ?? []),
    upgradeDigests:
      options.upgradeDigests === undefined ? false : checkBoolean('upgradeDigests', options.upgradeDigests),
    timeoutMs: integer('timeoutMs', options.timeoutMs, 5_000, 1, DAY_MS),
    quotaLeases: {
      blockSize: integer('quotaBlockSize', options.quotaBlockSize, 1_000, 0, 1_000_000_000),
      leaseMs: integer('quotaLeaseMs', options.quotaLeaseMs, 5_000, 100, 600_000),
      maxEntries,
    },
    owners: { maxAgeMs: integer('ownerMaxAgeMs', options.ownerMaxAgeMs, 5_000, 0, DAY_MS), maxEntries },
    usage: {
      flushMs: integer('usage.flushMs', usage.flushMs, 10_000, 1, 30_000),
      maxKeys: integer('usage.maxKeys', usage.maxKeys, 100_000, 1, 10_000_000),
      addresses: usage.addresses === undefined ? true : checkBoolean('usage.addresses', usage.addresses),
    },
    cache: {
      maxEntries,
      maxAgeMs: integer('cache.maxAgeMs', cache.maxAgeMs, 5_000, 0, DAY_MS),
      negativeMaxEntries: integer('cache.negativeMaxEntries', cache.negativeMaxEntries, 1_000, 1, 10_000_000),
      negativeMaxAgeMs: integer('cache.negativeMaxAgeMs', cache.negativeMaxAgeMs, 5_000, 0, DAY_MS),
      defaultLimits: compileRateLimits('rateLimits', options.rateLimits ?? []),
    },
  })
}
