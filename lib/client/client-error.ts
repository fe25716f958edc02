import { type ErrorCode, titleOf } from '../errors.ts'
import { looksLikeName } from '../internal/key-text.ts'

/** What came of a call that did not go well. */
export interface ClientFailure {
  /** @default the title of the code */
  readonly message?: string
  /** The status of the response, where one came. */
  readonly responseStatus?: number
  /** Members of the problem body besides those that every one has. */
  readonly details?: Readonly<Record<string, unknown>>
  /** After how many milliseconds the service lets itself be asked again. */
  readonly retryAfterMs?: number
  /** What led to the failure. */
  readonly cause?: unknown
}

const BRAND = Symbol.for('latchkey.client-error')

/**
 * Why a call to the service failed. It has no `status` on purpose: a framework that finds one answers its own client with
 * it, and a 401 that the service gave this program is none for whoever asked this program.
 *
 * Recognise it with {@link isApiKeysClientError} rather than `instanceof`: the ESM and the CommonJS copy of the package
 * may both be loaded in one process.
 */
export class ApiKeysClientError extends Error {
  override readonly name = 'ApiKeysClientError'
  /**
   * What the service refused with. `unavailable` where it could not be reached, did not answer in time, or answered what is
   * no answer of this interface; nobody knows then whether a change was made.
   */
  readonly code: ErrorCode
  /** The status of the response; null where none came. */
  readonly responseStatus: number | null
  /** The member of the request that the refusal is about. */
  readonly field: string | undefined
  /** For people: what would be accepted there. */
  readonly accepted: string | undefined
  /** After how many milliseconds the service lets itself be asked again, where it said so. */
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

/** Whether `value` is an error of a client, whichever copy of the package made it. */
export function isApiKeysClientError(value: unknown): value is ApiKeysClientError {
  return typeof value === 'object' && value !== null && (value as Record<symbol, unknown>)[BRAND] === true
}

/** A service of an earlier release repeats whatever it was sent as a name, a key too. */
function isFieldName(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value.split(/[.[\]]+/).every((part) => /^\d*$/.test(part) || looksLikeName(part))
  )
}
