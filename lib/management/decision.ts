import type { ErrorCode } from '../errors.ts'

/** Why something is not done: a code, the field that it is about, and what would be accepted there. */
export interface Refusal {
  readonly ok: false
  readonly code: Extract<
    ErrorCode,
    | 'not_found'
    | 'not_permitted'
    | 'permissions_exceeded'
    | 'field_not_allowed'
    | 'ceiling_exceeded'
    | 'invalid_request'
  >
  /** The member of the change, such as `permissions` or `rateLimits[0].limit`. */
  readonly field?: string
  /** For people: what could stand there. */
  readonly accepted?: string
}

export function refuse(code: Refusal['code'], field?: string, accepted?: string): Refusal {
  return {
    ok: false,
    code,
    ...(field !== undefined && { field }),
    ...(accepted !== undefined && { accepted }),
  }
}
