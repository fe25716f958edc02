import { isWithin, missingPermissions, type Permissions } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import { compileRateLimits } from '../core/limits/compile-limits.ts'
import type { Quota, QuotaRefill } from '../core/limits/quota.ts'
import type { CompiledLimit, RateLimit } from '../core/limits/rate-limit.ts'
import { isSameData } from '../internal/plain-data.ts'
import { DAY_MS, type DurationCeiling, type ResolvedClientFields } from './client-fields.ts'
import { type Refusal, refuse } from './decision.ts'

/** A permitted value, which may be a default; undefined sets nothing. */
export interface Accepted<T> {
  readonly ok: true
  readonly value: T | undefined
}

/** What a value is compared with. */
export interface Measure {
  /** The current key; null for a new one. */
  readonly key: ApiKey | null
  readonly now: number
}

/** Permissions: the added ones must be within every ceiling. */
export function boundPermissions(
  value: Permissions | undefined,
  current: Permissions,
  ceilings: readonly Permissions[],
): Accepted<Permissions> | Refusal {
  const added = value && missingPermissions(current, value)
  const exceeded = added && ceilings.find((ceiling) => !isWithin(added, ceiling))
  return exceeded ? refusePermissions(exceeded) : accept(value)
}

export function refusePermissions(ceiling: Permissions, purpose = ''): Refusal {
  const text = JSON.stringify(ceiling)
  const shown = text.length > MAX_SHOWN ? 'what you may grant' : text
  return refuse('permissions_exceeded', 'permissions', `permissions within ${shown}${purpose}`)
}

/** Rate limits: for each ceiling, a limit of the same shape that is no higher. Null means the default of the service. */
export function boundRateLimits(
  value: readonly RateLimit[] | null | undefined,
  ceilings: readonly CompiledLimit[],
  { key }: Measure,
): Accepted<readonly RateLimit[] | null> | Refusal {
  if (!value || isUnchanged(value, key?.rateLimits)) return accept(value)
  const exceeded = exceededLimit(compileRateLimits('rateLimits', value), ceilings)
  if (!exceeded) return accept(value)
  return refuse('ceiling_exceeded', 'rateLimits', `null, or limits with ${describeLimit(exceeded)} at most`)
}

/** The first ceiling that these limits exceed, if any. */
export function exceededLimit(
  limits: readonly CompiledLimit[],
  ceilings: readonly CompiledLimit[],
): CompiledLimit | null {
  return ceilings.find((ceiling) => !limits.some((limit) => keepsTo(limit, ceiling))) ?? null
}

/** Quota: a new key always gets one, and no actor can remove it. */
export function boundQuota(
  value: Quota | null | undefined,
  ceiling: Exclude<ResolvedClientFields['quota'], false>,
  { key }: Measure,
): Accepted<Quota | null> | Refusal {
  const { maxRemaining, maxRefillAmount, minRefillMs } = ceiling
  if (value === undefined) return accept(key ? undefined : { remaining: maxRemaining, refill: null })
  if (value === null) {
    return key && key.quota === null ? accept(value) : refuse('ceiling_exceeded', 'quota', 'a quota')
  }
  if (value.remaining > maxRemaining) {
    return refuse('ceiling_exceeded', 'quota.remaining', `at most ${maxRemaining}`)
  }
  const { refill } = value
  if (refill && refill.amount > maxRefillAmount) {
    const accepted = maxRefillAmount === 0 ? 'no refill' : `at most ${maxRefillAmount}`
    return refuse('ceiling_exceeded', 'quota.refill.amount', accepted)
  }
  if (refill && refillMs(refill) < minRefillMs) {
    return refuse('ceiling_exceeded', 'quota.refill', `a refill at most every ${minRefillMs} ms`)
  }
  return accept(value)
}

/** When a key expires. By default, a new key gets the longest permitted time. */
export function boundExpiry(
  value: Date | null | undefined,
  ceiling: boolean | DurationCeiling,
  measure: Measure,
): Accepted<Date | null> | Refusal {
  const { key, now } = measure
  const latest = latestExpiry(ceiling, measure)
  if (latest === Infinity || (key && isUnchanged(value, key.expiresAt))) return accept(value)
  if (value === undefined && (key || latest > now)) return accept(key ? undefined : new Date(latest))
  if (value && value.getTime() <= latest) return accept(value)
  const accepted =
    latest > now ? `a time up to ${new Date(latest).toISOString()}` : 'nothing: no time is left'
  return refuse('ceiling_exceeded', 'expiresAt', accepted)
}

/** When the successor of `old` expires. By default, at the same time as `old`, or after the longest permitted time. */
export function boundSuccessorExpiry(
  value: Date | null | undefined,
  ceiling: boolean | DurationCeiling,
  old: ApiKey,
  measure: Omit<Measure, 'key'>,
): Accepted<Date | null> | Refusal {
  const asNew = { ...measure, key: null }
  const end = old.expiresAt?.getTime() ?? Infinity
  const isInherited = value === undefined && end <= latestExpiry(ceiling, asNew)
  return isInherited ? accept(undefined) : boundExpiry(value, ceiling, asNew)
}

/** How long a key may be idle before it expires. */
export function boundIdleExpiry(
  value: number | null | undefined,
  ceiling: boolean | DurationCeiling,
  { key }: Measure,
): Accepted<number | null> | Refusal {
  const longest = longestMs(ceiling)
  if (longest === Infinity || (key && isUnchanged(value, key.idleExpiryMs))) return accept(value)
  if (value === undefined) return accept(key ? undefined : longest)
  if (value !== null && value <= longest) return accept(value)
  return refuse('ceiling_exceeded', 'idleExpiryMs', `at most ${longest}`)
}

const MAX_SHOWN = 500

function accept<T>(value: T | undefined): Accepted<T> {
  return { ok: true, value }
}

function isUnchanged(value: unknown, current: unknown): boolean {
  return value !== undefined && isSameData(value, current)
}

/**
 * The latest permitted expiry. It counts from the creation of a key. A key that already lasts longer may get an earlier expiry, within
 * the time of a new key.
 */
function latestExpiry(ceiling: boolean | DurationCeiling, { key, now }: Measure): number {
  const longest = longestMs(ceiling)
  const fromCreation = key
    ? Math.max(key.createdAt.getTime() + longest, key.expiresAt?.getTime() ?? Infinity)
    : Infinity
  return Math.min(now + longest, fromCreation)
}

function longestMs(ceiling: boolean | DurationCeiling): number {
  return typeof ceiling === 'boolean' ? Infinity : ceiling.maxMs
}

/** A limit of another kind or window limits something else, whatever its number. */
function keepsTo(limit: CompiledLimit, ceiling: CompiledLimit): boolean {
  const countsAsMuch = !limit.isNamed || ceiling.isNamed
  const isNoHigher = limit.limit <= ceiling.limit && limit.capacity <= ceiling.capacity
  // Where a process stalls, places that came free too early let more in.
  const holdsAsLong = limit.maxHeldMs >= ceiling.maxHeldMs
  return limit.shape === ceiling.shape && countsAsMuch && isNoHigher && holdsAsLong
}

function describeLimit({
  name,
  kind,
  limit,
  isNamed,
  windowMs,
  capacity,
  maxHeldMs,
  per,
  timeZone,
}: CompiledLimit): string {
  const only = isNamed ? ', "only": "named"' : ''
  if (kind === 'concurrent') {
    return `{ "name": "${name}", "concurrent": ${limit}${only}, "maxHeldMs": ${maxHeldMs} }`
  }
  const period =
    kind === 'calendar' ? `"per": "${per}", "timeZone": "${timeZone}"` : `"windowMs": ${windowMs}`
  const burst = kind === 'bucket' ? `, "burst": ${capacity}` : ''
  return `{ "name": "${name}", "limit": ${limit}${only}, ${period}${burst} }`
}

function refillMs(refill: QuotaRefill): number {
  if (refill.everyMs !== undefined) return refill.everyMs
  return refill.per === 'day' ? DAY_MS : 28 * DAY_MS
}
