import { isAddressListWithin } from '../core/keys/allowed-ips.ts'
import type { KeySettings } from '../core/keys/key-settings.ts'
import type { ApiKey } from '../core/keys/record.ts'
import { compileRateLimits } from '../core/limits/compile-limits.ts'
import type { Quota, QuotaRefill } from '../core/limits/quota.ts'
import type { CompiledLimit, RateLimit } from '../core/limits/rate-limit.ts'
import { isSameData } from '../internal/plain-data.ts'
import { exceededLimit } from './ceilings.ts'

/** An action on one existing key. */
export type KeyAction = 'read' | 'update' | 'enable' | 'disable' | 'rotate' | 'revoke'

/**
 * Returns the setting or the action that makes a key freer, or null. The actor must then be allowed to grant all permissions that the
 * key has afterwards, since a freer key is as good as a new one.
 *
 * A value that cannot be compared counts as freer: a limit with another name, kind or window, a block of addresses that no single
 * entry covers, a refill by another calendar.
 *
 * @param settings the settings that the action changes
 * @param defaults the rate limits of keys without their own; null if they depend on the owner: any change from or to them counts as freer
 */
export function findLoosening(
  action: KeyAction,
  key: ApiKey,
  settings: Partial<KeySettings>,
  defaults: readonly CompiledLimit[] | null,
): string | null {
  if (action !== 'update') return IS_LOOSENING[action] ? action : null
  const isFreer = (name: string) => {
    const loosens: Loosens | null = LOOSENS[name as keyof KeySettings]
    return loosens?.(settings, key, defaults) ?? false
  }
  return Object.keys(settings).find(isFreer) ?? null
}

const IS_LOOSENING: { readonly [action in Exclude<KeyAction, 'update'>]: boolean } = {
  read: false,
  // A key that works again is as good as a new one, and so is a key with a new secret.
  enable: true,
  rotate: true,
  disable: false,
  revoke: false,
}

type Loosens = (
  after: Partial<KeySettings>,
  before: ApiKey,
  defaults: readonly CompiledLimit[] | null,
) => boolean

const LOOSENS: { readonly [setting in keyof KeySettings]-?: Loosens | null } = {
  name: null,
  metadata: null,
  // The actor needs only the added permissions: they do not make the rest of the key freer.
  permissions: null,
  expiresAt: ({ expiresAt }, before) => isHigher(expiresAt?.getTime(), before.expiresAt?.getTime()),
  idleExpiryMs: ({ idleExpiryMs }, before) => isHigher(idleExpiryMs, before.idleExpiryMs),
  allowedIps: ({ allowedIps = null }, before) => !isAddressListWithin(allowedIps, before.allowedIps),
  rateLimits: ({ rateLimits = null }, before, defaults) => {
    const [next, now] = [inForce(rateLimits, defaults), inForce(before.rateLimits, defaults)]
    return next && now ? exceededLimit(next, now) !== null : next !== now
  },
  quota: ({ quota = null }, before) => isMoreQuota(quota, before.quota),
}

/** No number means no bound. */
function isHigher(after: number | null | undefined, before: number | null | undefined): boolean {
  return (after ?? Infinity) > (before ?? Infinity)
}

function inForce(
  limits: readonly RateLimit[] | null,
  defaults: readonly CompiledLimit[] | null,
): readonly CompiledLimit[] | null {
  return limits === null ? defaults : compileRateLimits('rateLimits', limits)
}

function isMoreQuota(after: Quota | null, before: Quota | null): boolean {
  if (before === null) return false
  if (after === null) return true
  return after.remaining > before.remaining || isMoreRefill(after.refill ?? null, before.refill ?? null)
}

function isMoreRefill(after: QuotaRefill | null, before: QuotaRefill | null): boolean {
  if (after === null || isSameData(after, before)) return false
  return before === null || after.amount > before.amount || comesSooner(after, before)
}

function comesSooner(after: QuotaRefill, before: QuotaRefill): boolean {
  if (after.everyMs !== undefined && before.everyMs !== undefined) return after.everyMs < before.everyMs
  const isSameZone = (after.timeZone ?? 'UTC') === (before.timeZone ?? 'UTC')
  const isRarer = after.per !== undefined && (after.per === before.per || before.per === 'day')
  return !(isSameZone && isRarer)
}
