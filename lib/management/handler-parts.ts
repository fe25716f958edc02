import type { ApiKeys } from '../core/api-keys.ts'
import type { Policy } from './policy.ts'
import type { RequestLimits } from './request-limit.ts'

/** What the handlers need. */
export interface HandlerParts {
  readonly keys: ApiKeys
  readonly policy: Policy
  readonly limits: RequestLimits
  now(): number
}
