import { type ErrorCode, isLatchkeyError, type LatchkeyError } from '../errors.ts'
import { refusal } from '../http/refused-request.ts'
import type { Refusal } from './decision.ts'

export { invalidRequest, refusal } from '../http/refused-request.ts'

/** Creates the error for a refusal by the policy. */
export function refusalOf({ code, field, accepted }: Refusal): LatchkeyError {
  return refusal(code, { ...(field !== undefined && { field }), ...(accepted !== undefined && { accepted }) })
}

export function hasCode(error: unknown, code: ErrorCode): boolean {
  return isLatchkeyError(error) && error.code === code
}
