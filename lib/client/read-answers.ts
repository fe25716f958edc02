import { type ApiKey, checkApiKey } from '../core/keys/record.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import type { ApiKeyPage, ErasedOwner, IssuedKey, RotatedKey } from '../core/manage/key-management.ts'
import type { UnusedPermissions } from '../core/usage/unused-permissions.ts'
import type { UsageReport, UsageTotals } from '../core/usage/usage-report.ts'
import type { ExplainedStep, Explanation } from '../core/verify/explanation.ts'
import { isValidDate } from '../internal/any-realm.ts'
import { isObject } from '../internal/options.ts'
import type { Verification, VerificationRefusal } from './verification.ts'

/**
 * Read the responses of the service: they turn date strings into `Date`s and refuse any other shape. The welcome page of a proxy must
 * not become a valid key.
 *
 * Every function throws an Error whose message names what is wrong and holds no value.
 */

const DATES = ['createdAt', 'updatedAt', 'expiresAt', 'lastUsedAt', 'revokedAt']

export function readApiKey(value: unknown): ApiKey {
  if (!isObject(value)) return checkApiKey(value)
  const copy = { ...value }
  for (const member of DATES) copy[member] = toDate(value[member])
  if (isObject(value.quota)) {
    copy.quota = { ...value.quota, nextRefillAt: toDate(value.quota.nextRefillAt) }
  }
  return checkApiKey(copy)
}

/** ISO 8601 with a zone. Engines parse other texts differently. */
const TIME = /^(?:\d{4}|[+-]\d{6})-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/

/** Leaves anything else as it is, for `checkApiKey` to refuse. */
function toDate(value: unknown): unknown {
  return typeof value === 'string' && TIME.test(value) ? new Date(value) : value
}

export function readPage(value: unknown): ApiKeyPage {
  const { apiKeys, nextCursor } = members(value)
  if (!Array.isArray(apiKeys)) throw malformed('apiKeys')
  const page = { apiKeys: apiKeys.map(readApiKey) }
  return nextCursor === undefined ? page : { ...page, nextCursor: text('nextCursor', nextCursor) }
}

export function readIssued(value: unknown): IssuedKey {
  const { key, apiKey } = members(value)
  return { key: text('key', key), apiKey: readApiKey(apiKey) }
}

export function readRotated(value: unknown): RotatedKey {
  const previous = readApiKey(members(value).previous)
  if (previous.expiresAt === null) throw malformed('previous.expiresAt')
  return { ...readIssued(value), previous: previous as RotatedKey['previous'] }
}

export function readRevoked(value: unknown): number {
  return readCount('revoked', members(value).revoked)
}

export function readErased(value: unknown): ErasedOwner {
  const { removed, forgotten } = members(value)
  return { removed: readCount('removed', removed), forgotten: readCount('forgotten', forgotten) }
}

function readCount(name: string, value: unknown): number {
  if (!Number.isSafeInteger(value)) throw malformed(name)
  return value as number
}

export function readDocument(value: unknown): Readonly<Record<string, unknown>> {
  return members(value)
}

export function readVerification(value: unknown): Verification {
  const { active, apiKey, limits, refused } = members(value)
  if (active === false) {
    if (refused === undefined) return { active }
    const { code, retryAfterMs } = members(refused)
    if (code !== 'too_many_failures') throw malformed('refused.code')
    return { active, refused: { code, retryAfterMs: duration('refused.retryAfterMs', retryAfterMs) } }
  }
  if (active !== true) throw malformed('active')
  const states = readStates(limits)
  if (refused === undefined) return { active, apiKey: readVerified(apiKey), limits: states }
  const shown = apiKey === undefined ? {} : { apiKey: readVerified(apiKey) }
  return { active, ...shown, limits: states, refused: readRefusal(refused) }
}

export function readLimits(value: unknown): readonly LimitState[] {
  return readStates(members(value).limits)
}

export function readUsage(value: unknown): UsageReport {
  const { startsAt, endsAt, by, timeZone, buckets, total } = members(value)
  if (by !== 'hour' && by !== 'day') throw malformed('by')
  if (!Array.isArray(buckets)) throw malformed('buckets')
  return {
    startsAt: readDate('startsAt', startsAt),
    endsAt: readDate('endsAt', endsAt),
    by,
    timeZone: text('timeZone', timeZone),
    buckets: buckets.map((bucket) => ({
      startsAt: readDate('buckets', members(bucket).startsAt),
      endsAt: readDate('buckets', members(bucket).endsAt),
      ...readTotals('buckets', bucket),
    })),
    total: readTotals('total', total),
  }
}

function readTotals(name: string, value: unknown): UsageTotals {
  const { admitted, refused, refusedBy, units } = members(value)
  return {
    admitted: readCount(name, admitted),
    refused: readCount(name, refused),
    refusedBy: readCounts(name, refusedBy),
    units: readCounts(name, units),
  }
}

function readCounts(name: string, value: unknown): Record<string, number> {
  if (!isObject(value)) throw malformed(name)
  return Object.fromEntries(Object.entries(value).map(([of, count]) => [of, readCount(name, count)]))
}

function readDate(name: string, value: unknown): Date {
  const date = toDate(value)
  if (!isValidDate(date)) throw malformed(name)
  return date
}

export function readUnusedPermissions(value: unknown): UnusedPermissions {
  const { used, unused, unwatched, since } = members(value)
  return {
    used: readPermissions('used', used),
    unused: readPermissions('unused', unused),
    unwatched: readPermissions('unwatched', unwatched),
    since: readDate('since', since),
  }
}

function readPermissions(name: string, value: unknown): Record<string, string[]> {
  if (!isObject(value) || !Object.values(value).every(isTexts)) throw malformed(name)
  return value as Record<string, string[]>
}

function readStates(limits: unknown): readonly LimitState[] {
  if (!Array.isArray(limits)) throw malformed('limits')
  return limits.map(readLimit)
}

/** A valid key is active. Services with an earlier release do not say so. */
function readVerified(value: unknown): ApiKey {
  return readApiKey(isObject(value) ? { status: 'active', ...value } : value)
}

function readRefusal(value: unknown): VerificationRefusal {
  const { code, missing, retryAfterMs, exceeded = [] } = members(value)
  switch (code) {
    case 'address_not_allowed':
      return { code }
    case 'insufficient_permissions':
      return { code, missing: readPermissions('refused.missing', missing) }
    case 'rate_limited':
    case 'quota_exceeded': {
      if (!isTexts(exceeded)) throw malformed('refused.exceeded')
      const wait = retryAfterMs === null ? null : duration('refused.retryAfterMs', retryAfterMs)
      return { code, retryAfterMs: wait, exceeded }
    }
    default:
      throw malformed('refused.code')
  }
}

export function readExplanation(value: unknown): Explanation {
  const { outcome, reason, retryAfterMs, apiKey, limits, steps } = members(value)
  if (!Array.isArray(steps)) throw malformed('steps')
  return {
    // A later service may know more outcomes and steps than this client. They are for people to read.
    outcome: text('outcome', outcome) as Explanation['outcome'],
    reason: reason === null ? null : (text('reason', reason) as Explanation['reason']),
    retryAfterMs: retryAfterMs === null ? null : duration('retryAfterMs', retryAfterMs),
    apiKey: apiKey === null ? null : readApiKey(apiKey),
    limits: readStates(limits),
    steps: steps.map(readStep),
  }
}

function readStep(value: unknown): ExplainedStep {
  const { step, outcome, message, read } = members(value)
  if (outcome !== 'passed' && outcome !== 'refused' && outcome !== 'skipped') throw malformed('steps')
  if (!isObject(read)) throw malformed('steps')
  const name = text('steps', step) as ExplainedStep['step']
  return { step: name, outcome, message: text('steps', message), read }
}

const LIMIT_NAME = /^[A-Za-z0-9_-]{1,32}$/

/** They become header fields of responses. */
function readLimit(value: unknown): LimitState {
  const { type, name, limit, remaining, windowMs, resetMs, exceeded } = members(value)
  const isRight =
    (type === 'rate_limit' || type === 'quota' || type === 'concurrent') &&
    typeof name === 'string' &&
    LIMIT_NAME.test(name) &&
    isAmountOrNull(limit) &&
    isAmount(remaining) &&
    isAmountOrNull(windowMs) &&
    isAmountOrNull(resetMs) &&
    typeof exceeded === 'boolean'
  if (!isRight) throw malformed('limits')
  return { type, name, limit, remaining, windowMs, resetMs, exceeded }
}

function isAmount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0
}

function isAmountOrNull(value: unknown): value is number | null {
  return value === null || isAmount(value)
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === 'string')
}

function members(value: unknown): Record<string, unknown> {
  if (!isObject(value)) throw new Error('the response of the service is not a JSON object')
  return value
}

function text(name: string, value: unknown): string {
  if (typeof value !== 'string' || value === '') throw malformed(name)
  return value
}

function duration(name: string, value: unknown): number {
  if (!isAmount(value)) throw malformed(name)
  return value
}

function malformed(name: string): Error {
  return new Error(`the response of the service has an invalid "${name}"`)
}
