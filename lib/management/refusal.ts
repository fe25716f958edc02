import { type ErrorCode, LatchkeyError } from '../errors.ts'
import type { Refusal } from './decision.ts'

/** The error that answers a request: a code, the field it is about, and what would be accepted there. */
export function refusal(
  code: ErrorCode,
  details: Readonly<Record<string, unknown>> = {},
  headers: Readonly<Record<string, string>> = {},
): LatchkeyError {
  return new LatchkeyError(code, undefined, { details, headers, stack: false })
}

export function invalidRequest(field: string, accepted: string): LatchkeyError {
  return refusal('invalid_request', { field, accepted })
}

/** The error that tells of a decision. */
export function refusalOf({ code, field, accepted }: Refusal): LatchkeyError {
  return refusal(code, { ...(field !== undefined && { field }), ...(accepted !== undefined && { accepted }) })
}
