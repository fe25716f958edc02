import { type LatchkeyError, titleOf } from '../errors.ts'

/** A problem body of RFC 9457, `application/problem+json`. */
export interface Problem {
  /**
   * `urn:problem-type:latchkey:` and the code. It is not a URL: `docs/errors.md` in the package has a heading for each
   * code.
   *
   * Only `rate_limited` has another type by default, as draft 11 of the `RateLimit` fields says:
   * `https://iana.org/assignments/http-problem-types#quota-exceeded`. A draft may change, so programs read `code`.
   */
  readonly type: string
  readonly title: string
  readonly status: number
  /** What programs rely on: one plain word, which stays. */
  readonly code: string
  /** What to do about it, if there is something to say: for `missing_key`, where to send keys. */
  readonly detail?: unknown
  /** What the key lacks, resource by resource, for `insufficient_permissions`. */
  readonly missing?: unknown
  /** The names of the limits that refused, for `rate_limited` and `quota_exceeded`. */
  readonly exceeded?: unknown
  /**
   * The same names, for `rate_limited` with the type of draft 11: as they stand in `RateLimit-Policy`, without a quota
   * that has no policy.
   */
  readonly 'violated-policies'?: unknown
}

export const PROBLEM_TYPE = 'application/problem+json'

/**
 * The type of `rate_limited` where the `RateLimit` fields follow draft 11 (draft-ietf-httpapi-ratelimit-headers-11
 * §5.1). The draft calls every limit a quota; `quota_exceeded` of this package keeps its own type.
 */
export const QUOTA_EXCEEDED_TYPE = 'https://iana.org/assignments/http-problem-types#quota-exceeded'

/**
 * The body that answers a request with this error.
 *
 * ```http
 * HTTP/1.1 403 Forbidden
 * Content-Type: application/problem+json
 *
 * {"type":"urn:problem-type:latchkey:insufficient_permissions","title":"The API key lacks a permission",
 *  "status":403,"code":"insufficient_permissions","missing":{"projects":["write"]}}
 * ```
 */
export function toProblem(error: LatchkeyError): Problem {
  return {
    type: `urn:problem-type:latchkey:${error.code}`,
    title: titleOf(error.code),
    status: error.status,
    code: error.code,
    ...(error.expose && error.details),
  }
}

/** The header fields and the body that answer a request with this error. */
export function renderProblem(error: LatchkeyError): { headers: Record<string, string>; body: string } {
  const headers = { ...error.headers, 'Cache-Control': 'no-store', 'Content-Type': PROBLEM_TYPE }
  return { headers, body: JSON.stringify(toProblem(error)) }
}

/** Fields that describe the body of an answer that failed, not the problem body. */
export const STALE_FIELDS: readonly string[] = Object.freeze([
  'Content-Encoding',
  'Content-Language',
  'Content-Range',
  'Content-Disposition',
  'ETag',
  'Last-Modified',
])
