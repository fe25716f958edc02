import type { ApiKeyVerifier } from '../core/key-verifier.ts'
import type { ApiKey } from '../core/record.ts'
import type { VerifiedKey } from '../core/verify-result.ts'
import type { ErrorCode } from '../errors.ts'

/** The truth about how a request was authenticated; `req.authMethod` and `getAuth` are views of it. */
export type AuthMark =
  | {
      readonly method: 'apikey'
      readonly user: unknown
      readonly apiKey: ApiKey
      readonly keys: ApiKeyVerifier
    }
  | { readonly method: 'session'; readonly user: unknown }
  | { readonly method: 'rejected'; readonly code: ErrorCode; readonly keys: ApiKeyVerifier }

/** A key that a request was admitted with. */
export interface Admission {
  readonly keys: ApiKeyVerifier
  readonly key: string
  readonly apiKey: ApiKey
  /** What `verify` has returned, by which its cost can be given back. */
  readonly verified: VerifiedKey
  readonly isCharged: boolean
  resolvedBy?: unknown
  user?: unknown
}

/** What is known of a request. */
export interface RequestState {
  /** Frozen. */
  mark?: AuthMark
  /** Whether something that verifies keys has looked for one here. */
  isRead?: boolean
  admissions?: readonly Admission[]
  /** Verifications under way; `work` settles when one is over, and never rejects. */
  pending?:
    | readonly {
        readonly keys: ApiKeyVerifier
        readonly key: string
        readonly work: PromiseLike<void>
      }[]
    | undefined
}

/**
 * Beside the requests, not on them: nothing that copies, lists or assigns a request's properties comes near it.
 * (It is also an order of magnitude cheaper: Express exchanges the prototype of every request, after which each
 * property added to it costs microseconds.) Under `Symbol.for`, so that both copies of the package share one map.
 */
const STATES = Symbol.for('latchkey.requests')

const states = sharedStates()

/** The state of a raw request, made when it is first asked for. */
export function stateOf(raw: object): RequestState {
  let state = states.get(raw)
  if (!state) {
    state = {}
    states.set(raw, state)
  }
  return state
}

function sharedStates(): WeakMap<object, RequestState> {
  const scope = globalThis as { [STATES]?: WeakMap<object, RequestState> }
  if (!scope[STATES]) Object.defineProperty(scope, STATES, { value: new WeakMap() })
  return scope[STATES] as WeakMap<object, RequestState>
}
