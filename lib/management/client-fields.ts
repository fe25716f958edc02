import { BOUNDS, type Bounds, checkBounded } from '../core/keys/bounds.ts'
import { checkPrefix } from '../core/keys/key-format.ts'
import { checkPermissions, type Permissions } from '../core/keys/permissions.ts'
import { type CompiledLimit, compileRateLimits, type RateLimit } from '../core/limits/rate-limit.ts'
import { deepFreeze } from '../internal/deep-freeze.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkArray, checkBoolean, checkInteger } from '../internal/options.ts'
import { checkOwnMembers, ownMember } from './own-member.ts'

/**
 * What an actor that is no admin may set on a key, and how far. A field that is false is refused by its name, whatever its
 * value. A value that the key has already is never beyond its ceiling; one that changes has to keep to it. `name` may always be set;
 * nobody changes `owner` and `createdBy`.
 */
export interface ClientFields {
  /**
   * Which permissions: `true` leaves it at what the actor may grant, permissions are a ceiling besides. Of a change of permissions
   * only what it adds has to lie within; of a key that is made freer, or whose secret is handed out, all that it has.
   *
   * @default true
   */
  permissions?: boolean | Permissions
  /**
   * Ceilings, by the name of the limit: each has to be there, of the same kind and window, with at most its number and
   * burst. Further limits may be added. `null` is right as well: the key then has the default of the service, be it looser than the ceilings.
   *
   * @default false
   */
  rateLimits?: false | readonly RateLimit[]
  /**
   * The largest quota: a key then has one, and left out at its issue it is `{ remaining: maxRemaining }`. Who may set a quota may
   * set it again when it is used up: it guards owners from themselves.
   *
   * @default false
   */
  quota?: false | QuotaCeiling
  /**
   * When the key expires: `maxMs` is the longest that a key may last. It can be neither cleared nor exceeded, and
   * left out at its issue it is the longest. It counts from the creation of the key, so that changing it again and again prolongs nothing; a key that
   * lasts longer already may be shortened to `maxMs` from now. A successor counts anew.
   *
   * @default true
   */
  expiresAt?: boolean | DurationCeiling
  /**
   * After how much idleness the key expires: `maxMs` works as that of `expiresAt`.
   *
   * @default true
   */
  idleExpiryMs?: boolean | DurationCeiling
  /** @default true */
  allowedIps?: boolean
  /** @default true */
  metadata?: boolean
  /**
   * The prefixes to choose from, at issue; left out it is that of the service.
   *
   * @default false
   */
  prefix?: false | readonly string[]
}

export interface QuotaCeiling {
  /** The most that may remain. */
  readonly maxRemaining: number
  /**
   * The most that a refill may fill up to.
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

/** {@link ClientFields} with every field decided. */
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

/** Checks the policy of fields, and fills in what is not given. @throws TypeError naming the option. */
export function resolveClientFields(value: unknown = {}): ResolvedClientFields {
  const given = checkOwnMembers('clientFields', value, Object.keys(CHECKS))
  const resolved: Record<string, unknown> = {}
  for (const [field, check] of Object.entries(CHECKS)) resolved[field] = check(ownMember(given, field))
  // CHECKS names every field, or it would not compile.
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
  // Without a ceiling a key could be given no limits at all.
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
