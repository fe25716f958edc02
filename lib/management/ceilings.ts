import { isWithin, missingPermissions, type Permissions } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { Quota, QuotaRefill } from '../core/limits/quota.ts'
import { type CompiledLimit, compileRateLimits, type RateLimit } from '../core/limits/rate-limit.ts'
import { isSameData } from '../internal/plain-data.ts'
import { DAY_MS, type DurationCeiling, type ResolvedClientFields } from './client-fields.ts'
import { type Refusal, refuse } from './decision.ts'

/** A value that may be set, perhaps one that was filled in; undefined sets nothing. */
export interface Accepted<T> {
  readonly ok: true
  readonly value: T | undefined
}

/** By what a value is measured. */
export interface Measure {
  /** The key as it is; null where a new one is made. */
  readonly key: ApiKey | null
  readonly now: number
}

/** Permissions: what they add to those of the key has to lie within every ceiling. */
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

/** Rate limits: each ceiling there, of the same shape, and no higher. Null has the default of the service. */
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

/** The first ceiling that these limits do not keep to, if there is one. */
export function exceededLimit(
  limits: readonly CompiledLimit[],
  ceilings: readonly CompiledLimit[],
): CompiledLimit | null {
  return ceilings.find((ceiling) => !limits.some((limit) => keepsTo(limit, ceiling))) ?? null
}

/** A quota: neither left out of a new key nor taken off one. */
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
    return refuse('ceiling_exceeded', 'quota.refill', `a refill every ${minRefillMs} ms at most`)
  }
  return accept(value)
}

/** When a key expires. A new one that says nothing has all the time there is. */
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

/** When the successor of `old` expires: left out, when `old` would have or as late as there is time. */
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

/** After how much idleness a key expires. */
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
 * The latest end that may be set. A key that is there lasts no longer than a new one of its age would; where it does already, it
 * may end sooner, and within the time that a new one has.
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

/** A limit of another kind or window bounds something else, whatever its number. */
function keepsTo(limit: CompiledLimit, ceiling: CompiledLimit): boolean {
  return limit.shape === ceiling.shape && limit.limit <= ceiling.limit && limit.capacity <= ceiling.capacity
}

function describeLimit({ name, kind, limit, windowMs, capacity, per, timeZone }: CompiledLimit): string {
  const period =
    kind === 'calendar' ? `"per": "${per}", "timeZone": "${timeZone}"` : `"windowMs": ${windowMs}`
  const burst = kind === 'bucket' ? `, "burst": ${capacity}` : ''
  return `{ "name": "${name}", "limit": ${limit}, ${period}${burst} }`
}

function refillMs(refill: QuotaRefill): number {
  if (refill.everyMs !== undefined) return refill.everyMs
  return refill.per === 'day' ? DAY_MS : 28 * DAY_MS
}
