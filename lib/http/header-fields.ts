import type { LimitState } from '../core/rate-limit.ts'

/**
 * A challenge as RFC 9110 §11.6.1 has it, the realm as a quoted-string. Bare where no credential was sent, as
 * RFC 6750 §3 puts it; `error` says no more than that the key is not valid.
 *
 * ```http
 * WWW-Authenticate: Api-Key realm="Users", error="invalid_key"
 * ```
 */
export function challenge(scheme: string, realm: string, error?: 'invalid_key'): string {
  return `${scheme} realm="${escapeQuoted(realm)}"${error ? `, error="${error}"` : ''}`
}

/**
 * The `RateLimit` field of draft-ietf-httpapi-ratelimit-headers-10: what is left, and the seconds until there is more.
 *
 * ```http
 * RateLimit: "minute";r=99;t=42, "quota";r=12
 * ```
 */
export function rateLimitField(limits: readonly LimitState[]): string {
  let field = ''
  for (const { name, remaining, resetMs } of limits) {
    if (field !== '') field += ', '
    field += `"${name}";r=${remaining}`
    if (resetMs !== null) field += `;t=${Math.ceil(resetMs / 1000)}`
  }
  return field
}

/**
 * The `RateLimit-Policy` field of the same draft: the limit, and its window in seconds. A quota that nothing refills
 * has no policy.
 *
 * ```http
 * RateLimit-Policy: "minute";q=100;w=60
 * ```
 */
export function rateLimitPolicyField(limits: readonly LimitState[]): string {
  let field = ''
  for (const { name, limit, windowMs } of limits) {
    if (limit === null) continue
    if (field !== '') field += ', '
    field += `"${name}";q=${limit}`
    if (windowMs !== null) field += `;w=${Math.max(1, Math.round(windowMs / 1000))}`
  }
  return field
}

/** Sets the two fields for these limits on a response; none where there are no limits. */
export function setRateLimitFields(
  res: { setHeader(name: string, value: string): unknown },
  limits: readonly LimitState[],
): void {
  if (limits.length === 0) return
  res.setHeader('RateLimit', rateLimitField(limits))
  const policy = rateLimitPolicyField(limits)
  if (policy !== '') res.setHeader('RateLimit-Policy', policy)
}

/** The two fields for these limits, for an error that carries them. */
export function rateLimitFields(limits: readonly LimitState[]): Record<string, string> {
  if (limits.length === 0) return {}
  const policy = rateLimitPolicyField(limits)
  return { RateLimit: rateLimitField(limits), ...(policy !== '' && { 'RateLimit-Policy': policy }) }
}

/** `Retry-After` in seconds (RFC 9110 §10.2.3), never too early and at least 1; none where waiting does not help. */
export function retryAfterField(retryAfterMs: number | null): Record<string, string> {
  return retryAfterMs === null ? {} : { 'Retry-After': String(Math.max(1, Math.ceil(retryAfterMs / 1000))) }
}

/** What a quoted-string may hold (RFC 9110 §5.6.4): a line break here would be a header of the sender's choice. */
export function isQuotable(text: string): boolean {
  return /^[\t\x20-\x7e]*$/.test(text)
}

function escapeQuoted(text: string): string {
  return text.replace(/["\\]/g, '\\$&')
}
