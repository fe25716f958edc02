import type { ApiKeys } from '../core/api-keys.ts'
import type { Caller } from './authenticate-caller.ts'
import type { Policy } from './policy.ts'
import type { RequestLimits } from './request-limit.ts'

/** What the handlers need. */
export interface HandlerParts {
  readonly keys: ApiKeys
  readonly policy: Policy
  readonly limits: RequestLimits
  now(): number
}

/** A request with a valid shape, and its caller. */
export interface OperationRequest {
  readonly caller: Caller
  readonly params: { readonly id: string }
  readonly query: unknown
  readonly body: unknown
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

export interface Answered {
  readonly status?: 200 | 201
  readonly body: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export type Handler = (asked: OperationRequest) => Promise<Answered>
