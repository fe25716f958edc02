import type { ErrorCode } from '../errors.ts'

/** Why an action is refused: a code, the field at fault, and what the field accepts. */
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
  /** What `field` accepts, for people. */
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
