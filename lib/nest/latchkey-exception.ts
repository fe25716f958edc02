import { HttpException } from '@nestjs/common'
import type { ErrorCode, LatchkeyError } from '../errors.ts'
import { toProblem } from '../http/problem.ts'

/**
 * What the guard throws. Filters that know Nest's `HttpException` keep its status, and `isLatchkeyError` recognises it.
 * `getResponse()` is the problem body (RFC 9457).
 */
export class LatchkeyException extends HttpException {
  /** Tells programs what went wrong. `docs/errors.md` in the package explains each code. */
  readonly code: ErrorCode
  /** The HTTP status that belongs to `code`. */
  readonly statusCode: number
  /** Whether a client may see `message`: true below 500. */
  readonly expose: boolean
  /** Response header fields for the refusal. The guard sends them with every response that has this status. */
  readonly headers: Readonly<Record<string, string>>
  /** More members of the problem body. */
  readonly details: Readonly<Record<string, unknown>>

  constructor(error: LatchkeyError) {
    const limit = Error.stackTraceLimit
    // It answers a request and reports no bug.
    Error.stackTraceLimit = 0
    super(toProblem(error), error.status, error.cause === undefined ? {} : { cause: error.cause })
    Error.stackTraceLimit = limit
    this.message = error.message
    this.code = error.code
    this.statusCode = error.status
    this.expose = error.expose
    this.headers = error.headers
    this.details = error.details
    Object.defineProperty(this, BRAND, { value: true })
  }
}

/** As on `LatchkeyError`. */
const BRAND = Symbol.for('latchkey.error')
