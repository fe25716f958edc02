/**
 * Every code a {@link LatchkeyError} can carry. Codes are part of the contract: once released, a code keeps
 * its spelling, its meaning and its HTTP status.
 */
export type ErrorCode =
  // refusals of a request
  | 'missing_key'
  | 'multiple_credentials'
  | 'invalid_key'
  | 'address_not_allowed'
  | 'insufficient_permissions'
  | 'rate_limited'
  | 'quota_exceeded'
  | 'too_many_failures'
  | 'unavailable'
  | 'authentication_required'
  | 'session_required'
  | 'api_key_required'
  | 'auth_method_not_accepted'
  // refusals of an MCP server
  | 'operation_not_allowed'
  | 'session_not_found'
  // refusals of the management API
  | 'not_permitted'
  | 'permissions_exceeded'
  | 'field_not_allowed'
  | 'ceiling_exceeded'
  | 'too_many_keys'
  | 'already_done'
  | 'invalid_request'
  | 'body_too_large'
  | 'unsupported_media_type'
  | 'method_not_allowed'
  | 'too_many_requests'
  | 'cross_site'
  // failures of a call on `keys` or on a store
  | 'not_found'
  | 'invalid_cursor'
  | 'conflict'
  | 'precondition_failed'
  | 'duplicate_key'
  | 'unsupported'
  | 'invalid_import'
  // faults of a store or its use; a call that meets one fails with `unavailable` and this `cause`
  | 'not_migrated'
  | 'read_only'
  | 'wrong_dialect'
  | 'malformed_record'
  | 'unknown_digest'
  | 'configuration_drift'

interface CodeMeaning {
  readonly status: number
  readonly title: string
}

const MEANINGS: Readonly<Record<ErrorCode, CodeMeaning>> = Object.freeze({
  missing_key: { status: 401, title: 'An API key is required' },
  multiple_credentials: { status: 400, title: 'More than one API key was sent' },
  invalid_key: { status: 401, title: 'The API key is not valid' },
  address_not_allowed: { status: 403, title: 'The API key may not be used from this address' },
  insufficient_permissions: { status: 403, title: 'The API key lacks a permission' },
  rate_limited: { status: 429, title: 'The API key has exceeded a rate limit' },
  quota_exceeded: { status: 429, title: 'The API key has used up its quota' },
  too_many_failures: { status: 429, title: 'Too many invalid API keys from this address' },
  unavailable: { status: 503, title: 'API keys cannot be verified right now' },
  authentication_required: { status: 401, title: 'Authentication is required' },
  session_required: { status: 403, title: 'A login session is required' },
  api_key_required: { status: 403, title: 'An API key is required here' },
  auth_method_not_accepted: { status: 403, title: 'This authentication method is not accepted here' },
  operation_not_allowed: { status: 403, title: 'This operation is not allowed here' },
  session_not_found: { status: 404, title: 'There is no such session' },
  not_permitted: { status: 403, title: 'You are not allowed to do this with these API keys' },
  permissions_exceeded: { status: 403, title: 'You may not grant one of these permissions' },
  field_not_allowed: { status: 403, title: 'You may not set this field' },
  ceiling_exceeded: { status: 403, title: 'A value exceeds what is allowed' },
  too_many_keys: { status: 409, title: 'The owner already has the maximum number of API keys' },
  already_done: { status: 409, title: 'A request with this Idempotency-Key has already succeeded' },
  precondition_failed: { status: 412, title: 'The API key has changed since you read it' },
  invalid_request: { status: 400, title: 'The request is malformed' },
  body_too_large: { status: 413, title: 'The request body is too large' },
  unsupported_media_type: { status: 415, title: 'The request body must be JSON' },
  method_not_allowed: { status: 405, title: 'This method is not allowed here' },
  too_many_requests: { status: 429, title: 'Too many requests' },
  cross_site: { status: 403, title: 'The request comes from another site' },
  invalid_cursor: { status: 400, title: 'The cursor is invalid' },
  not_found: { status: 404, title: 'There is no such API key' },
  conflict: { status: 409, title: 'Someone else changed the API key at the same time' },
  duplicate_key: { status: 409, title: 'This API key already exists' },
  unsupported: { status: 501, title: 'The store does not support this' },
  invalid_import: { status: 400, title: 'This cannot be imported as an API key' },
  not_migrated: { status: 503, title: 'The database tables are missing or from another release' },
  read_only: { status: 503, title: 'The store is read-only' },
  wrong_dialect: { status: 503, title: 'The store does not fit this kind of database' },
  malformed_record: { status: 503, title: 'The store holds a malformed record' },
  unknown_digest: {
    status: 503,
    title: 'A stored digest uses an unknown scheme or pepper',
  },
  configuration_drift: {
    status: 503,
    title: 'This process is configured differently from others that share its store',
  },
})

export interface LatchkeyErrorOptions {
  /** The cause of the failure. No response shows it. */
  cause?: unknown
  /** Response header fields for the refusal, such as `WWW-Authenticate` or `Retry-After`. */
  headers?: Readonly<Record<string, string>>
  /** More members of the problem body, such as `missing`. A `type` replaces the usual one. */
  details?: Readonly<Record<string, unknown>>
  /** `false` omits the stack, for errors that answer a request rather than report a bug. */
  stack?: boolean
}

const BRAND = Symbol.for('latchkey.error')

/**
 * The one error class of this package. Express and Koa render its `status`, `expose` and `headers` as they are.
 *
 * Recognise it with {@link isLatchkeyError} rather than `instanceof`: one process may load both the ESM and the
 * CommonJS copy of the package.
 */
export class LatchkeyError extends Error {
  override readonly name = 'LatchkeyError'
  /** Tells programs what went wrong. `docs/errors.md` in the package explains each code, and what to do: `docs/errors.md#conflict`. */
  readonly code: ErrorCode
  /** The HTTP status that belongs to `code`. */
  readonly status: number
  /** The same as `status`, under the name that Nest and other frameworks read. */
  readonly statusCode: number
  /** Whether a client may see `message`: true below 500. */
  readonly expose: boolean
  /** Response header fields for the refusal. */
  readonly headers: Readonly<Record<string, string>>
  /** More members of the problem body. A `type` replaces the usual one, as for `rate_limited` in draft 11. */
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: ErrorCode, message?: string, options: LatchkeyErrorOptions = {}) {
    const meaning = MEANINGS[code]
    const limit = Error.stackTraceLimit
    if (options.stack === false) Error.stackTraceLimit = 0
    super(message ?? meaning.title, 'cause' in options ? { cause: options.cause } : undefined)
    if (options.stack === false) Error.stackTraceLimit = limit
    this.code = code
    this.status = meaning.status
    this.statusCode = meaning.status
    this.expose = meaning.status < 500
    this.headers = Object.freeze({ ...options.headers })
    this.details = Object.freeze({ ...options.details })
    Object.defineProperty(this, BRAND, { value: true })
  }
}

/** Whether `value` is an error of this package, from either copy. */
export function isLatchkeyError(value: unknown): value is LatchkeyError {
  return typeof value === 'object' && value !== null && (value as Record<symbol, unknown>)[BRAND] === true
}

/** Whether a value is an error code of this release. */
export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(MEANINGS, value)
}

/** The short, fixed sentence for a code, used as a problem body's `title`. */
export function titleOf(code: ErrorCode): string {
  return MEANINGS[code]?.title ?? code
}
