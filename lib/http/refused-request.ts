import { type ErrorCode, LatchkeyError } from '../errors.ts'

/** Creates the error for a refused request: a code, the field at fault, and what the field accepts. */
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
