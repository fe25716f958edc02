import { OptionError } from '../../internal/option-error.ts'
import { checkDate, checkShownText } from '../../internal/options.ts'
import { copyData } from '../../internal/plain-data.ts'
import { compileRateLimits } from '../limits/compile-limits.ts'
import { checkQuota, type Quota } from '../limits/quota.ts'
import type { RateLimit } from '../limits/rate-limit.ts'
import { checkAllowedIps } from './allowed-ips.ts'
import { BOUNDS, checkBounded } from './bounds.ts'
import { checkPermissions, type Permissions } from './permissions.ts'
import { checkMetadata, type Metadata } from './record.ts'

/** What you can set on a key, when you issue it and later. */
export interface KeySettings {
  /** A name for people, 1 to 255 characters. */
  name: string
  /**
   * What the key may do.
   *
   * @default {} (nothing that asks for a permission)
   */
  permissions?: Permissions
  /**
   * The key's own rate limits; `null` inherits the current default, `[]` means none.
   *
   * @default null
   */
  rateLimits?: readonly RateLimit[] | null
  /**
   * How many calls the key has in total. Needs a store with `swapQuota`.
   *
   * @default null (unlimited)
   */
  quota?: Quota | null
  /**
   * Addresses and CIDR blocks that may use the key, IPv4 and IPv6.
   *
   * @default null (from everywhere)
   */
  allowedIps?: readonly string[] | null
  /**
   * When the key expires. Must be in the future.
   *
   * @default null (never)
   */
  expiresAt?: Date | null
  /**
   * The key expires after this many milliseconds without use, at least 60,000. Since uses are written in batches, it
   * may live longer by up to `usage.flushMs` and `cache.maxAgeMs` together. Needs a store with `recordUsage`.
   *
   * @default null (it does not)
   */
  idleExpiryMs?: number | null
  /**
   * JSON that your application stores with the key; not for secrets.
   *
   * @default {}
   */
  metadata?: Metadata
}

/** The settings of a key that sets none. */
export const DEFAULT_SETTINGS = {
  permissions: {},
  rateLimits: null,
  allowedIps: null,
  expiresAt: null,
  idleExpiryMs: null,
  metadata: {},
  enabled: true,
} as const

const CHECKS: { readonly [member in keyof KeySettings]-?: (value: unknown, now: number) => unknown } = {
  name: (value) => checkShownText('name', value, BOUNDS.name.max),
  permissions: (value) => checkPermissions('permissions', value),
  rateLimits: orNull((value) => {
    compileRateLimits('rateLimits', value)
    return copyData(value)
  }),
  quota: orNull((value) => checkQuota('quota', value)),
  allowedIps: orNull((value) => checkAllowedIps('allowedIps', value)),
  expiresAt: orNull((value, now) => {
    const date = checkDate('expiresAt', value)
    if (date.getTime() <= now) throw new OptionError('expiresAt', 'be in the future')
    return new Date(date)
  }),
  idleExpiryMs: orNull((value) => checkBounded('idleExpiryMs', value, BOUNDS.idleExpiryMs)),
  metadata: (value) => checkMetadata('metadata', value),
}

/** Checks and copies the given settings; `undefined` counts as not given. @throws TypeError */
export function checkSettings(given: object, now: number): Partial<KeySettings> {
  const settings: Record<string, unknown> = {}
  for (const member of SETTINGS) {
    const value = (given as Record<string, unknown>)[member]
    if (value !== undefined) settings[member] = CHECKS[member](value, now)
  }
  return settings
}

/** The names of all settings. */
export const SETTINGS = Object.freeze(Object.keys(CHECKS) as (keyof KeySettings)[])

function orNull(check: (value: unknown, now: number) => unknown) {
  return (value: unknown, now: number) => (value === null ? null : check(value, now))
}
