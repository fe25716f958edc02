import { isWithin, missingPermissions, type Permissions } from '../core/permissions.ts'
import type { Quota, QuotaRefill } from '../core/quota.ts'
import { type CompiledLimit, compileRateLimits, type RateLimit } from '../core/rate-limit.ts'
import type { ApiKey } from '../core/record.ts'
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
  /** The key that asks, where it is one. */
  readonly presented: ApiKey | null
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

export function refusePermissions(ceiling: Permissions): Refusal {
  const text = JSON.stringify(ceiling)
  const shown = text.length > MAX_SHOWN ? 'what you may grant' : text
  return refuse('permissions_exceeded', 'permissions', `permissions within ${shown}`)
}

/**
 * Rate limits: each ceiling there, of the same shape, and no higher. Null has the default of the service. A key that asks hands on
 * its own where nothing is said, and loosens none that are there.
 */
export function boundRateLimits(
  value: readonly RateLimit[] | null | undefined,
  ceilings: readonly CompiledLimit[],
  { key, presented }: Measure,
): Accepted<readonly RateLimit[] | null> | Refusal {
  if (presented && key && value !== undefined) return refuse('ceiling_exceeded', 'rateLimits', NOT_BY_KEY)
  const own = presented?.rateLimits?.length ? presented.rateLimits : null
  if (value === undefined) return accept(key ? undefined : (own ?? undefined))
  if (isUnchanged(value, key?.rateLimits) || (value === null && !own)) return accept(value)
  const exceeded =
    exceededLimit(value, own ? compileRateLimits('rateLimits', own) : []) ??
    (value && exceededLimit(value, ceilings))
  if (!exceeded) return accept(value)
  const orNull = own ? '' : 'null, or '
  return refuse('ceiling_exceeded', 'rateLimits', `${orNull}limits with ${describeLimit(exceeded)} at most`)
}

/** The first ceiling that these limits do not keep to; null, the default of the service, is not known to keep to any. */
function exceededLimit(
  value: readonly RateLimit[] | null,
  ceilings: readonly CompiledLimit[],
): CompiledLimit | null {
  const limits = value === null ? [] : compileRateLimits('rateLimits', value)
  return ceilings.find((ceiling) => !limits.some((limit) => keepsTo(limit, ceiling))) ?? null
}

/**
 * A key with a quota issues none: each new key would have a quota of its own, and might issue further ones, so that what is handed
 * out had no end.
 */
export function refuseIssueByQuota({ quota }: ApiKey): Refusal | null {
  return quota && refuse('ceiling_exceeded', 'quota', 'nothing: a key with a quota issues no keys')
}

/** A quota: neither left out of a new key nor taken off one. */
export function boundQuota(
  value: Quota | null | undefined,
  ceiling: Exclude<ResolvedClientFields['quota'], false>,
  { key, presented }: Measure,
): Accepted<Quota | null> | Refusal {
  if (presented && key && value !== undefined) return refuse('ceiling_exceeded', 'quota', NOT_BY_KEY)
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
  { key, presented }: Measure,
): Accepted<number | null> | Refusal {
  const longest = Math.min(longestMs(ceiling), presented?.idleExpiryMs ?? Infinity)
  if (longest === Infinity || (key && isUnchanged(value, key.idleExpiryMs))) return accept(value)
  if (value === undefined) return accept(key ? undefined : longest)
  if (value !== null && value <= longest) return accept(value)
  return refuse('ceiling_exceeded', 'idleExpiryMs', `at most ${longest}`)
}

/** From where a key may be used: only a key that asks is bound, to entries of its own list. */
export function boundAllowedIps(
  value: readonly string[] | null | undefined,
  { key, presented }: Measure,
): Accepted<readonly string[] | null> | Refusal {
  const own = presented?.allowedIps
  if (!own || (key && isUnchanged(value, key.allowedIps))) return accept(value)
  if (value === undefined) return accept(key ? undefined : own)
  if (isListWithin(value, own)) return accept(value)
  return refuse('ceiling_exceeded', 'allowedIps', 'entries of the list of the key that asks')
}

/** Whether a key is no more free than the key that asks, so that this one may be handed its successor. */
export function boundSuccessor(old: ApiKey, presented: ApiKey): Refusal | null {
  const { allowedIps, idleExpiryMs, rateLimits, quota } = presented
  if (allowedIps && !isListWithin(old.allowedIps, allowedIps)) {
    return refuse('ceiling_exceeded', 'allowedIps', 'a key that is allowed from no more addresses')
  }
  if (idleExpiryMs !== null && (old.idleExpiryMs === null || old.idleExpiryMs > idleExpiryMs)) {
    return refuse('ceiling_exceeded', 'idleExpiryMs', 'a key that expires of no more idleness')
  }
  if (rateLimits && exceededLimit(old.rateLimits, compileRateLimits('rateLimits', rateLimits))) {
    return refuse('ceiling_exceeded', 'rateLimits', 'a key with limits that are no higher')
  }
  // A lineage shares one quota, whoever spends it.
  if (quota && old.lineageId !== presented.lineageId) {
    return refuse('ceiling_exceeded', 'quota', 'a key that shares the quota of the key that asks')
  }
  return null
}

const MAX_SHOWN = 500
const NOT_BY_KEY = 'nothing: no key changes what bounds it or another one'

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
function latestExpiry(ceiling: boolean | DurationCeiling, { key, presented, now }: Measure): number {
  const longest = longestMs(ceiling)
  const fromCreation = key
    ? Math.max(key.createdAt.getTime() + longest, key.expiresAt?.getTime() ?? Infinity)
    : Infinity
  return Math.min(now + longest, fromCreation, presented?.expiresAt?.getTime() ?? Infinity)
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

function isListWithin(list: readonly string[] | null, ceiling: readonly string[]): boolean {
  // An empty list lets nobody in.
  return list?.every((entry) => ceiling.includes(entry)) ?? false
}
