import type { ApiKey } from '../core/keys/record.ts'
import type { Cost } from '../core/limits/cost.ts'
import type { RedeemedTicket } from '../core/tickets/sealed-ticket.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { VerifiedKey } from '../core/verify/verify-result.ts'
import type { ErrorCode } from '../errors.ts'
import type { Challenges, RateLimitSyntax } from './header-fields.ts'

/** How a request was authenticated. `req.authMethod` and `getAuth` read this. */
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
  /** The result of `verify`, for a settlement. */
  readonly verified: VerifiedKey
  /** What it was asked to cost. */
  readonly cost: Cost
  resolvedBy?: unknown
  user?: unknown
}

/** A text that looks like a key, in a place where no key is read. Its text is not kept. */
export interface MisplacedKey {
  /** Where keys are read instead, for the client. */
  readonly hint: string
  /** Emits an event, once. The code that refuses the request for a missing key calls it. */
  report(): void
}

/** The tickets that a request came with. */
export interface PresentedTicket {
  readonly texts: readonly string[]
  /** What came of it: a ticket is redeemed once, however many middlewares look at the request. */
  redeemed?: Promise<RedeemedTicket | null>
}

/** The header fields of a response that is yet to begin. */
export interface ResponseFields {
  readonly headersSent: boolean
  setHeader(name: string, value: string): unknown
}

/** What is known of a request. */
export interface RequestState {
  /** Frozen. */
  mark?: AuthMark
  /** The challenges of the middleware that looked for a key; undefined if none has. */
  challenges?: Challenges
  /** How that middleware shows limits. */
  rateLimitHeaders?: RateLimitSyntax | false
  /** The fields of the response, where the framework has no object of Node for it, or writes its own over those of one. */
  fields?: ResponseFields
  /** A text that begins like a key came where none is read. */
  misplaced?: MisplacedKey
  /** Set once a middleware that takes tickets has found one. */
  ticket?: PresentedTicket
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
 * Stored apart from the request's own properties, so nothing that copies, lists or assigns them comes near it. The
 * state hangs on an object that each Node stream has for itself, which costs next to nothing. A property on the request
 * costs microseconds, since Express exchanges the prototype of every request. A map of all requests doubles the garbage
 * collector's work.
 *
 * Under `Symbol.for`, so that both copies of the package find the same.
 */
const STATE = Symbol.for('latchkey.request')

/** For a request that is not a stream, or shares its stream with another object. */
const STATES = Symbol.for('latchkey.requests')

const states = sharedStates()

/** The state on a request's stream. It holds keys, which logging the request does not show. */
class KeptState implements RequestState {
  declare mark?: AuthMark
  declare challenges?: Challenges
  declare rateLimitHeaders?: RateLimitSyntax | false
  declare fields?: ResponseFields
  declare misplaced?: MisplacedKey
  declare ticket?: PresentedTicket
  declare admissions?: readonly Admission[]
  declare pending?: RequestState['pending']

  /** @param owner the request of this state: an object that inherits from a request, or wraps it, is another one */
  constructor(readonly owner: object) {}

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[Latchkey]'
  }
}

/** The state of a raw request, created on first use. */
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
