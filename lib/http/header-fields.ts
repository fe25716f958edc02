import type { LimitState } from '../core/limits/rate-limit.ts'
import { checkOneOf } from '../internal/options.ts'

/** A revision of draft-ietf-httpapi-ratelimit-headers: each writes the same limits in its own syntax. */
export type RateLimitSyntax = 'draft-11' | 'draft-10' | 'draft-7' | 'draft-6'

/** Accepts header fields, such as a response. */
interface FieldTarget {
  setHeader(name: string, value: string): unknown
}

/**
 * A challenge for each scheme (RFC 9110 §11.6.1), with the realm as a quoted-string. Bare if no credential was sent
 * (RFC 6750 §3). Otherwise `error` says that the key is not valid, in the words of the scheme (RFC 6750 §3.1).
 *
 * ```http
 * WWW-Authenticate: Api-Key realm="Users", error="invalid_key", Bearer realm="Users", error="invalid_token"
 * ```
 */
export function challenge(schemes: readonly string[], realm: string, error?: 'invalid_key'): string {
  return schemes
    .map((scheme) => {
      const code = scheme === 'Bearer' ? 'invalid_token' : error
      return `${scheme} realm="${escapeQuoted(realm)}"${error ? `, error="${code}"` : ''}`
    })
    .join(', ')
}

/** `WWW-Authenticate` of a 401: `bare` if no key was sent, `invalid` for an invalid one. */
export interface Challenges {
  readonly bare: string
  readonly invalid: string
}

export function createChallenges(schemes: readonly string[], realm: string): Challenges {
  return Object.freeze({
    bare: challenge(schemes, realm),
    invalid: challenge(schemes, realm, 'invalid_key'),
  })
}

/** Sets the `RateLimit` fields for these limits; none if there are no limits or `syntax` is false. */
export function setRateLimitFields(
  target: FieldTarget,
  limits: readonly LimitState[],
  syntax: RateLimitSyntax | false,
): void {
  if (syntax === false || limits.length === 0) return
  const hasNames = isNewestDraft(syntax)
  if (hasNames) target.setHeader('RateLimit', rateLimitField(limits))
  else setNearestLimit(target, limits, syntax)
  const policy = hasNames ? policyField(limits) : windowsField(limits)
  if (policy !== '') target.setHeader('RateLimit-Policy', policy)
}

/** The same fields, for an error that carries them. */
export function rateLimitFields(
  limits: readonly LimitState[],
  syntax: RateLimitSyntax | false,
): Record<string, string> {
  const fields: Record<string, string> = {}
  const setHeader = (name: string, value: string) => {
    fields[name] = value
  }
  setRateLimitFields({ setHeader }, limits, syntax)
  return fields
}

/** Whether this is the draft that shows every limit by its name, and has a problem type for those that refuse. */
export function isNewestDraft(syntax: RateLimitSyntax | false): syntax is 'draft-11' | 'draft-10' {
  return syntax === 'draft-11' || syntax === 'draft-10'
}

/** Requires a syntax of the `RateLimit` fields, or false. @throws TypeError */
export function checkRateLimitHeaders(value: unknown): void {
  checkOneOf('rateLimitHeaders', value, ['draft-11', 'draft-10', 'draft-7', 'draft-6', false])
}

/** `Retry-After` in seconds (RFC 9110 §10.2.3), never too early and at least 1; none if waiting does not help. */
export function retryAfterField(retryAfterMs: number | null): Record<string, string> {
  return retryAfterMs === null ? {} : { 'Retry-After': String(Math.max(1, Math.ceil(retryAfterMs / 1000))) }
}

/** Whether a quoted-string may hold this text (RFC 9110 §5.6.4). A line break would let the sender add a header. */
export function isQuotable(text: string): boolean {
  return /^[\t\x20-\x7e]*$/.test(text)
}

function escapeQuoted(text: string): string {
  return text.replace(/["\\]/g, '\\$&')
}

/**
 * The `RateLimit` field of draft 11: for every limit, the remaining calls and the seconds until there are more.
 *
 * ```http
 * RateLimit: "minute";r=99;t=42, "quota";r=12
 * ```
 */
function rateLimitField(limits: readonly LimitState[]): string {
  let field = ''
  for (const { name, remaining, resetMs } of limits) {
    if (field !== '') field += ', '
    field += `"${name}";r=${remaining}`
    if (resetMs !== null) field += `;t=${Math.ceil(resetMs / 1000)}`
  }
  return field
}

/**
 * The one limit that drafts 07 and 06 have room for. Both require its number and the seconds until it resets, 0 where
 * it is full.
 *
 * ```http
 * RateLimit: limit=100, remaining=99, reset=42
 * ```
 * ```http
 * RateLimit-Limit: 100
 * RateLimit-Remaining: 99
 * RateLimit-Reset: 42
 * ```
 */
function setNearestLimit(
  target: FieldTarget,
  limits: readonly LimitState[],
  syntax: 'draft-7' | 'draft-6',
): void {
  const nearest = nearestToRefusing(limits)
  if (!nearest) return
  const { limit, remaining, resetMs } = nearest
  const reset = Math.ceil((resetMs ?? 0) / 1000)
  if (syntax === 'draft-7') {
    target.setHeader('RateLimit', `limit=${limit}, remaining=${remaining}, reset=${reset}`)
    return
  }
  target.setHeader('RateLimit-Limit', String(limit))
  target.setHeader('RateLimit-Remaining', String(remaining))
  target.setHeader('RateLimit-Reset', String(reset))
}

/**
 * The limit with the fewest calls left (draft 07 §4); of several, the one that resets last. A quota without a refill
 * has no number to show and is skipped, and so is a limit on requests under way, which never resets. If one of these
 * refuses the request, no limit is shown, since calls left in others do not help.
 */
function nearestToRefusing(limits: readonly LimitState[]): LimitState | null {
  let nearest: LimitState | null = null
  for (const state of limits) {
    const isShown = state.limit !== null && state.type !== 'concurrent'
    if (!isShown && state.exceeded) return null
    if (isShown && (!nearest || isNearer(state, nearest))) nearest = state
  }
  return nearest
}

function isNearer(one: LimitState, other: LimitState): boolean {
  if (one.remaining !== other.remaining) return one.remaining < other.remaining
  return (one.resetMs ?? 0) > (other.resetMs ?? 0)
}

/**
 * The `RateLimit-Policy` field of draft 11: the limit, and its window in seconds, or that it counts requests under way.
 * A quota without a refill has no policy.
 *
 * ```http
 * RateLimit-Policy: "minute";q=100;w=60
 * ```
 */
function policyField(limits: readonly LimitState[]): string {
  let field = ''
  for (let i = 0; i < limits.length; i++) {
    const policy = policyOf(limits[i] as LimitState, i)
    field = field === '' || policy === '' ? field + policy : `${field}, ${policy}`
  }
  return field
}

/** The text of a limit's policy, which is the same for most requests. */
interface WrittenPolicy extends Pick<LimitState, 'type' | 'name' | 'limit' | 'windowMs'> {
  readonly text: string
}

/** By the place of the limit among those of its key. */
const lastWritten: (WrittenPolicy | undefined)[] = []

function policyOf({ type, name, limit, windowMs }: LimitState, place: number): string {
  const last = lastWritten[place]
  if (last?.name === name && last.limit === limit && last.windowMs === windowMs && last.type === type) {
    return last.text
  }
  const window = windowMs === null ? '' : `;w=${windowSeconds(windowMs)}`
  const unit = type === 'concurrent' ? ';qu="concurrent-requests"' : ''
  const text = limit === null ? '' : `"${name}";q=${limit}${unit}${window}`
  lastWritten[place] = { type, name, limit, windowMs, text }
  return text
}

/**
 * The `RateLimit-Policy` field of drafts 07 and 06: numbers with their windows in seconds. A limit without a window is
 * left out, and no number may occur twice (draft 07 §3.5): the longest of its windows is the strictest.
 *
 * ```http
 * RateLimit-Policy: 100;w=60, 5000;w=86400
 * ```
 */
function windowsField(limits: readonly LimitState[]): string {
  const windows = new Map<number, number>()
  for (const { limit, windowMs } of limits) {
    if (limit === null || windowMs === null) continue
    windows.set(limit, Math.max(windows.get(limit) ?? 0, windowSeconds(windowMs)))
  }
  return [...windows].map(([limit, seconds]) => `${limit};w=${seconds}`).join(', ')
}

function windowSeconds(windowMs: number): number {
  return Math.max(1, Math.round(windowMs / 1000))
}
