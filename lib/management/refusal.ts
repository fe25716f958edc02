import { type ErrorCode, isLatchkeyError, LatchkeyError } from '../errors.ts'
import type { Refusal } from './decision.ts'

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

/** Creates the error for a refusal by the policy. */
export function refusalOf({ code, field, accepted }: Refusal): LatchkeyError {
  return refusal(code, { ...(field !== undefined && { field }), ...(accepted !== undefined && { accepted }) })
}

export function hasCode(error: unknown, code: ErrorCode): boolean {
  return isLatchkeyError(error) && error.code === code
}
