import { type ErrorCode, titleOf } from '../errors.ts'
import { looksLikeName } from '../internal/key-text.ts'

/** The details of a failed call. */
export interface ClientFailure {
  /** @default the title of the code */
  readonly message?: string
  /** The status of the response, if there was one. */
  readonly responseStatus?: number
  /** Members of the problem body, besides the standard ones. */
  readonly details?: Readonly<Record<string, unknown>>
  /** How long to wait before the next call, in milliseconds. */
  readonly retryAfterMs?: number
  /** The underlying error. */
  readonly cause?: unknown
}

const BRAND = Symbol.for('latchkey.client-error')

/**
 * A failed call to the service. It deliberately has no `status`: a framework would send it to its own client, but a 401 from the
 * service to this program is not a 401 from this program to its client.
 *
 * Recognise it with {@link isApiKeysClientError} rather than `instanceof`: the ESM and the CommonJS copy of the package
 * may both be loaded in one process.
 */
export class ApiKeysClientError extends Error {
  override readonly name = 'ApiKeysClientError'
  /**
   * The error code from the service. `unavailable` if the client could not reach it, if it did not respond in time, or if the
   * response did not come from this interface; then the service may or may not have made the change. `docs/errors.md` in the package
   * explains each code.
   */
  readonly code: ErrorCode
  /** The status of the response; null if there was none. */
  readonly responseStatus: number | null
  /** The member of the request that caused the error. */
  readonly field: string | undefined
  /** What `field` accepts, for people. */
  readonly accepted: string | undefined
  /** How long to wait before the next call, in milliseconds, if the service said so. */
  readonly retryAfterMs: number | undefined
  /** Further members of the problem body, such as `missing`, or the `apiKey` of `already_done`. */
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: ErrorCode, failure: ClientFailure = {}) {
    const { message = titleOf(code), responseStatus = null, details = {}, retryAfterMs } = failure
    const { accepted } = details
    const field = isFieldName(details.field) ? details.field : undefined
    super(
      field === undefined ? message : `${message} ("${field}")`,
      'cause' in failure ? { cause: failure.cause } : undefined,
    )
    this.code = code
    this.responseStatus = responseStatus
    this.field = field
    this.accepted = typeof accepted === 'string' ? accepted : undefined
    this.retryAfterMs = retryAfterMs
    const { field: _field, ...others } = details
    this.details = Object.freeze({ ...others, ...(field !== undefined && { field }) })
    Object.defineProperty(this, BRAND, { value: true })
  }
}

/** Whether `value` is an {@link ApiKeysClientError}, whichever copy of the package created it. */
export function isApiKeysClientError(value: unknown): value is ApiKeysClientError {
  return typeof value === 'object' && value !== null && (value as Record<symbol, unknown>)[BRAND] === true
}

/** A service with an earlier release repeats any name that it receives, even a key. */
function isFieldName(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value.split(/[.[\]]+/).every((part) => /^\d*$/.test(part) || looksLikeName(part))
  )
}
