import { hash } from 'node:crypto'
import { checkShape, type ImportFormat } from '../core/keys/imported-format.ts'
import type { ImportedKey } from '../core/keys/imported-key.ts'
import type { Permissions } from '../core/keys/permissions.ts'
import type { Owner } from '../core/keys/record.ts'
import type { Quota } from '../core/limits/quota.ts'
import type { RateLimit } from '../core/limits/rate-limit.ts'
import { checkBoolean, checkFunction, checkObject } from '../internal/options.ts'
import { readDate, readFlag, readInteger, readJsonObject, readName, readText } from './read-column.ts'

/** A row of better-auth's table `apikey`, of release 1.3 and later, as any driver returns it. */
export interface BetterAuthRow {
  id: string
  /** The SHA-256 of the key in base64url; with `disableKeyHashing` the key itself. */
  key: string
  name?: string | null
  start?: string | null
  prefix?: string | null
  /** Who owns the key. */
  referenceId?: string | null
  /** Who owns the key, before release 1.5. */
  userId?: string | null
  configId?: string | null
  refillInterval?: unknown
  refillAmount?: unknown
  lastRefillAt?: unknown
  enabled?: unknown
  rateLimitEnabled?: unknown
  rateLimitTimeWindow?: unknown
  rateLimitMax?: unknown
  requestCount?: unknown
  remaining?: unknown
  lastRequest?: unknown
  expiresAt?: unknown
  createdAt?: unknown
  updatedAt?: unknown
  permissions?: unknown
  metadata?: unknown
}

export interface BetterAuthFormatOptions {
  /**
   * Returns the owner of a row's key. better-auth does not store whether that is a user or an organisation.
   *
   * @default the user whose id is `referenceId` or, in older tables, `userId`
   */
  owner?: (row: BetterAuthRow) => Owner
  /**
   * Whether the table was written with `disableKeyHashing`, so that `key` is the text of the key.
   *
   * @default false
   */
  disableKeyHashing?: boolean
  /**
   * Matches a whole key. Set it if `customKeyGenerator` or `defaultPrefix` makes other keys than the default.
   *
   * @default 16 to 255 letters, digits, `_` and `-`
   */
  shape?: RegExp
  /**
   * Whether each key keeps the limit of its row; `false` gives all of them the `rateLimits` of `createApiKeys`.
   * better-auth's own default, which most rows hold, is 10 requests a day.
   *
   * @default true
   */
  keepRateLimits?: boolean
}

/** 64 letters by default, after any prefix. */
const KEY = /^[A-Za-z0-9_-]{16,255}$/
const DIGEST = /^[A-Za-z0-9_-]{43}$/

/**
 * Imports the keys of better-auth's API-key plugin. They keep their id, prefix, name, owner, permissions, metadata,
 * state, expiry, rate limit and remaining requests. A refill is due one interval after the import.
 *
 * Source: `packages/api-key/src` of better-auth 1.7.
 */
export function betterAuthFormat(options: BetterAuthFormatOptions = {}): ImportFormat<BetterAuthRow> {
  checkObject('options', options, ['owner', 'disableKeyHashing', 'shape', 'keepRateLimits'])
  const { owner = ownerOf, disableKeyHashing = false, shape = KEY, keepRateLimits = true } = options
  checkShape('shape', shape)

  checkFunction('owner', owner)
  checkBoolean('disableKeyHashing', disableKeyHashing)
  checkBoolean('keepRateLimits', keepRateLimits)

  function read(row: BetterAuthRow): ImportedKey {
    const key = readName('key', row.key)
    if (!disableKeyHashing && !DIGEST.test(key)) {
      throw new TypeError('the column "key" is not a digest: was the table written with "disableKeyHashing"?')
    }
    const start = readText('start', row.start)
    return {
      format: 'better-auth',
      ...(disableKeyHashing ? { key } : { lookup: key, digest: { hash: 'sha256', value: key } }),
      ...idOf(row.id),
      owner: owner(row),
      name: readText('name', row.name) ?? start ?? 'better-auth key',
      prefix: readText('prefix', row.prefix) ?? '',
      hint: start ?? '',
      enabled: readFlag('enabled', row.enabled, true),
      // Checked like those of any other key.
      permissions: (readJsonObject('permissions', row.permissions) ?? {}) as Permissions,
      metadata: readJsonObject('metadata', row.metadata) ?? {},
      rateLimits: keepRateLimits ? rateLimitsOf(row) : null,
      quota: quotaOf(row),
      expiresAt: readDate('expiresAt', row.expiresAt),
      ...timesOf(row),
    }
  }

  return {
    name: 'better-auth',
    lookup: (key) => (shape.test(key) ? hash('sha256', key, 'base64url') : null),
    read,
  }
}

function ownerOf({ referenceId, userId }: BetterAuthRow): Owner {
  return { type: 'user', id: readName('referenceId', referenceId ?? userId) }
}

function idOf(value: unknown): { id?: string } {
  const id = readName('id', value)
  // A serial number may be the id of a key from elsewhere as well.
  return id.length >= 16 ? { id } : {}
}

function rateLimitsOf(row: BetterAuthRow): RateLimit[] | null {
  if (!readFlag('rateLimitEnabled', row.rateLimitEnabled, true)) return []
  const limit = readInteger('rateLimitMax', row.rateLimitMax)
  const windowMs = readInteger('rateLimitTimeWindow', row.rateLimitTimeWindow)
  return limit === null || windowMs === null ? null : [{ name: 'default', limit, windowMs }]
}

/** In better-auth, a key without `remaining` is unlimited, whatever its refill. */
function quotaOf(row: BetterAuthRow): Quota | null {
  const remaining = readInteger('remaining', row.remaining)
  if (remaining === null) return null
  const amount = readInteger('refillAmount', row.refillAmount)
  const everyMs = readInteger('refillInterval', row.refillInterval)
  return { remaining, refill: amount === null || everyMs === null ? null : { amount, everyMs } }
}

function timesOf(row: BetterAuthRow): Pick<ImportedKey, 'createdAt' | 'updatedAt' | 'lastUsedAt'> {
  const createdAt = readDate('createdAt', row.createdAt)
  const updatedAt = readDate('updatedAt', row.updatedAt)
  return {
    ...(createdAt && { createdAt }),
    ...(updatedAt && { updatedAt }),
    lastUsedAt: readDate('lastRequest', row.lastRequest),
  }
}
