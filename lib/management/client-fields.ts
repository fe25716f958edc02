import { BOUNDS, type Bounds, checkBounded } from '../core/keys/bounds.ts'
import { checkPrefix } from '../core/keys/key-format.ts'
import { checkPermissions, type Permissions } from '../core/keys/permissions.ts'
import { compileRateLimits } from '../core/limits/compile-limits.ts'
import type { CompiledLimit, RateLimit } from '../core/limits/rate-limit.ts'
import { deepFreeze } from '../internal/deep-freeze.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkArray, checkBoolean, checkInteger } from '../internal/options.ts'
import { checkOwnMembers, ownMember } from './own-member.ts'

/**
 * What an actor who is not an admin may set on a key, and up to which ceiling. Setting a field to false refuses it, whatever its
 * value. A value that the key already has never exceeds its ceiling; a changed value must keep to it. Everybody may set `name`.
 * Nobody may change `owner` and `createdBy`.
 */
export interface ClientFields {
  /**
   * Which permissions a key may have. `true` adds nothing to the actor's `grantable`; permissions are an additional ceiling. A change
   * of permissions must keep only the added ones within the ceiling. Loosening or rotating a key needs all of its permissions to be
   * within.
   *
   * @default true
   */
  permissions?: boolean | Permissions
  /**
   * Ceilings for rate limits. For each one, the key must have a limit of the same name, kind and window, with at most the same limit
   * and burst. The key may have further limits. `null` is accepted too: the key then has the default limits of the service, even if
   * they are looser than the ceilings.
   *
   * @default false
   */
  rateLimits?: false | readonly RateLimit[]
  /**
   * The largest quota. Every key then has a quota; a new key that names none gets `{ remaining: maxRemaining }`. An actor who may
   * set a quota may set it again once it is used up: it protects owners from their own mistakes.
   *
   * @default false
   */
  quota?: false | QuotaCeiling
  /**
   * When the key expires. `maxMs` is the longest lifetime of a key: actors can neither clear nor exceed it, and a new key without
   * `expiresAt` gets it. It counts from the creation of the key, so repeated changes cannot extend it. A key that already lasts
   * longer may be shortened to `maxMs` from now. For a successor, the time starts again.
   *
   * @default true
   */
  expiresAt?: boolean | DurationCeiling
  /**
   * How long a key may be idle before it expires. `maxMs` is the longest such time: actors can neither clear nor exceed it, and a new
   * key without `idleExpiryMs` gets it.
   *
   * @default true
   */
  idleExpiryMs?: boolean | DurationCeiling
  /** @default true */
  allowedIps?: boolean
  /** @default true */
  metadata?: boolean
  /**
   * The prefixes to choose from for a new key. A new key without `prefix` gets the one of the service.
   *
   * @default false
   */
  prefix?: false | readonly string[]
}

export interface QuotaCeiling {
  /** The largest `remaining` that may be set. */
  readonly maxRemaining: number
  /**
   * The largest `amount` of a refill.
   *
   * @default none: a quota that is refilled is refused
   */
  readonly maxRefillAmount?: number
  /**
   * The least time between two refills, in milliseconds; `per: 'day'` counts as 24 hours, `per: 'month'` as 28 days.
   *
   * @default 86_400_000 (24 hours)
   */
  readonly minRefillMs?: number
}

export interface DurationCeiling {
  /** The longest that may be set, in milliseconds. */
  readonly maxMs: number
}

/** {@link ClientFields} with its defaults. */
export interface ResolvedClientFields {
  readonly permissions: boolean | Permissions
  readonly rateLimits: false | readonly CompiledLimit[]
  readonly quota:
    | false
    | { readonly maxRemaining: number; readonly maxRefillAmount: number; readonly minRefillMs: number }
  readonly expiresAt: boolean | DurationCeiling
  readonly idleExpiryMs: boolean | DurationCeiling
  readonly allowedIps: boolean
  readonly metadata: boolean
  readonly prefix: false | readonly string[]
}

export const DAY_MS = 86_400_000
const MAX_LIFE_MS = 100 * 366 * DAY_MS

/** Checks the client fields and adds the defaults. @throws TypeError naming the option. */
export function resolveClientFields(value: unknown = {}): ResolvedClientFields {
  const given = checkOwnMembers('clientFields', value, Object.keys(CHECKS))
  const resolved: Record<string, unknown> = {}
  for (const [field, check] of Object.entries(CHECKS)) resolved[field] = check(ownMember(given, field))
  // CHECKS has every field: otherwise it would not compile.
  return deepFreeze(resolved) as unknown as ResolvedClientFields
}

const CHECKS: { readonly [field in keyof ResolvedClientFields]: (value: unknown) => unknown } = {
  permissions: (value = true) =>
    typeof value === 'boolean' ? value : checkPermissions('clientFields.permissions', value),
  rateLimits: (value = false) => value !== false && checkLimits('clientFields.rateLimits', value),
  quota: (value = false) => value !== false && checkQuotaCeiling('clientFields.quota', value),
  expiresAt: (value = true) =>
    typeof value === 'boolean'
      ? value
      : checkDuration('clientFields.expiresAt', value, { min: 1_000, max: MAX_LIFE_MS }),
  idleExpiryMs: (value = true) =>
    typeof value === 'boolean'
      ? value
      : checkDuration('clientFields.idleExpiryMs', value, BOUNDS.idleExpiryMs),
  allowedIps: (value = true) => checkBoolean('clientFields.allowedIps', value),
  metadata: (value = true) => checkBoolean('clientFields.metadata', value),
  prefix: (value = false) => value !== false && checkPrefixes('clientFields.prefix', value),
}

function checkLimits(name: string, value: unknown): readonly CompiledLimit[] {
  const ceilings = compileRateLimits(name, value)
  // With an empty list, an actor could give a key no limits at all.
  if (ceilings.length === 0) throw new OptionError(name, 'name at least one limit, or be false')
  return ceilings
}

function checkQuotaCeiling(name: string, value: unknown) {
  const given = checkOwnMembers(name, value, ['maxRemaining', 'maxRefillAmount', 'minRefillMs'])
  const maxRemaining = ownMember(given, 'maxRemaining')
  const amount = ownMember(given, 'maxRefillAmount')
  const every = ownMember(given, 'minRefillMs')
  return {
    maxRemaining: checkBounded(`${name}.maxRemaining`, maxRemaining, BOUNDS.remaining),
    maxRefillAmount:
      amount === undefined ? 0 : checkInteger(`${name}.maxRefillAmount`, amount, 0, BOUNDS.refillAmount.max),
    minRefillMs:
      every === undefined ? DAY_MS : checkBounded(`${name}.minRefillMs`, every, BOUNDS.refillEveryMs),
  }
}

function checkDuration(name: string, value: unknown, bounds: Bounds): DurationCeiling {
  const given = checkOwnMembers(name, value, ['maxMs'])
  return { maxMs: checkBounded(`${name}.maxMs`, ownMember(given, 'maxMs'), bounds) }
}

function checkPrefixes(name: string, value: unknown): readonly string[] {
  const prefixes = checkArray(name, value, 100)
  if (prefixes.length === 0) throw new OptionError(name, 'name at least one prefix, or be false')
  return prefixes.map((prefix, i) => checkPrefix(`${name}[${i}]`, prefix))
}
