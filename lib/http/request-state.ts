import type { ApiKey } from '../core/keys/record.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { VerifiedKey } from '../core/verify/verify-result.ts'
import type { ErrorCode } from '../errors.ts'
import type { Challenges } from './header-fields.ts'

/** The truth about how a request was authenticated; `req.authMethod` and `getAuth` are views of it. */
export type AuthMark =
  | {
      readonly method: 'apikey'
      readonly user: unknown
      readonly apiKey: ApiKey
      readonly keys: ApiKeyVerifier
    }
  | { readonly method: 'session'; readonly user: unknown }
  /** By a key that the application's own code has accepted. */
  | { readonly method: 'other'; readonly user: unknown }
  | { readonly method: 'rejected'; readonly code: ErrorCode; readonly keys?: ApiKeyVerifier }

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

/** What looks like a key, in a place where no key is read. Nothing of it is kept. */
export interface MisplacedKey {
  /** Where keys are read instead, for the client. */
  readonly hint: string
  /** Makes an event of it, once: whoever refuses the request for want of a key calls it. */
  report(): void
}

/** What is known of a request. */
export interface RequestState {
  /** Frozen. */
  mark?: AuthMark
  /** How the middleware challenges that has looked for a key here; undefined where none has. */
  challenges?: Challenges
  /** Something that begins as keys do was sent where none is read. */
  misplaced?: MisplacedKey
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
 * Out of the way of requests: nothing that copies, lists or assigns a request's properties comes near it. It hangs on
 * what every stream of Node has to itself, where that is there, which costs next to nothing: on the request itself a
 * property costs microseconds, since Express exchanges the prototype of every request, and a map of all requests keeps
 * the collector of garbage busy for as long again as everything else that is done here.
 *
 * Under `Symbol.for`, so that both copies of the package find the same.
 */
const STATE = Symbol.for('latchkey.request')

/** Where a request is no stream, or another object stands for the same stream. */
const STATES = Symbol.for('latchkey.requests')

const states = sharedStates()

/** What hangs on a request's stream. It holds keys, which nobody sees who logs the request. */
class KeptState implements RequestState {
  declare mark?: AuthMark
  declare challenges?: Challenges
  declare misplaced?: MisplacedKey
  declare admissions?: readonly Admission[]
  declare pending?: RequestState['pending']

  /** @param owner whose state it is: an object that inherits from a request, or wraps it, is not that request */
  constructor(readonly owner: object) {}

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[Latchkey]'
  }
}

/** The state of a raw request, made when it is first asked for. */
export function stateOf(raw: object): RequestState {
  const { _readableState: stream } = raw as { _readableState?: { [STATE]?: KeptState } }
  if (typeof stream !== 'object' || stream === null) return stateBeside(raw)
  const kept = stream[STATE]
  if (kept !== undefined) return kept.owner === raw ? kept : stateBeside(raw)
  if (!Object.isExtensible(stream)) return stateBeside(raw)
  const state = new KeptState(raw)
  stream[STATE] = state
  return state
}

function stateBeside(raw: object): RequestState {
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
