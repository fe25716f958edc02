import { type PermissionRequirement, resolveRequirement } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import { requirementOf } from '../core/keys/requirement-of-request.ts'
import { type Cost, checkCost } from '../core/limits/cost.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import {
  AUTHENTICATOR_OPTIONS,
  type Authenticator,
  type AuthenticatorOptions,
  createAuthenticator,
} from '../http/authenticate-request.ts'
import { type Authentication, applyOutcome } from '../http/authentication.ts'
import { expressAddressOf } from '../http/express-address.ts'
import { keepFailureFields, keepFailureUncached } from '../http/failed-response.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { partsOf, type RequestParts, responseOf } from '../http/raw-request.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import {
  checkBoolean,
  checkFunction,
  checkObject,
  checkOneOf,
  fail,
  isObject,
  nearest,
} from '../internal/options.ts'
import { answerLate } from './answer-late.ts'
import { checkSessionOptions } from './check-session-options.ts'
import { type Actions, type PassportRequest, StrategyBase } from './strategy-base.ts'
import { succeedWithoutSession } from './succeed-without-session.ts'

/** Ends a verify callback. An error is a fault (503); no user means an invalid key (401). */
export type VerifyDone = (error: unknown, user?: unknown, info?: unknown) => void

/** Finds the user of a verified key, in the style of Passport's strategies. */
export type VerifyFunction = (apiKey: ApiKey, done: VerifyDone) => unknown

/** The same, with the request first: for `passReqToCallback: true`. */
export type VerifyFunctionWithRequest = {
  // A method's parameters may be narrower, so that the request can have the type that the framework gives it.
  bivariant(req: object, apiKey: ApiKey, done: VerifyDone): unknown
}['bivariant']

export interface ApiKeyStrategyOptions<User = unknown> extends AuthenticatorOptions<User> {
  /** Verifies the keys: the result of `createApiKeys`. */
  keys: ApiKeyVerifier
  /**
   * Hands the request to the verify callback as its first argument.
   *
   * @default false
   */
  passReqToCallback?: boolean
  /**
   * What happens on a refusal with 400, 401 or 403. `'error'` passes an error with status, code and headers to the
   * error handlers; `apiKeyErrorHandler()` answers it with a problem body. `'fail'` is Passport's own behaviour: it
   * tries the next strategy of an array such as `['apikey', 'jwt']`, or answers with a plain body. 429 and 503 are
   * always errors.
   *
   * @default 'error'
   */
  refuseWith?: 'fail' | 'error'
}

/** Tells what a request costs. */
export type CostOfRequest = {
  // A method's parameters may be narrower, so that the request can have the type that the framework gives it.
  bivariant(req: object): Awaitable<Cost>
}['bivariant']

/** Tells which permissions a request needs. */
export type PermissionsOfRequest = {
  bivariant(req: object): PermissionRequirement
}['bivariant']

/** What one route requires, in `passport.authenticate('apikey', { … })`. */
export interface ApiKeyRouteOptions {
  /**
   * The permissions that the key needs. An object requires everything it names; an array, any one of its entries. Or a
   * function of the request that returns one of these at once:
   * ``(req) => ({ [`project:${req.params.id}`]: ['read'] })``. It is called once the key is known to be good, before anything
   * is spent. If it throws, or returns a promise or nothing to require, the request gets a 503; if it names what no key can
   * hold, a 403.
   */
  permissions?: PermissionRequirement | PermissionsOfRequest
  /**
   * What a request to this route costs: a number of units of the quota and of every limit without `only: 'named'`, units by the name of
   * a limit, as `{ tokens: 500 }`, or a function that returns one of these. It is called once the key is known to be
   * good. If it fails, takes longer than `timeoutMs` of `createApiKeys`, or returns anything else, the request gets a 503.
   *
   * @default 1
   */
  cost?: Cost | CostOfRequest
}

/** The options of `passport.authenticate('apikey', …)`: those of the route, and those of Passport that go with a key. */
export interface ApiKeyAuthenticateOptions extends ApiKeyRouteOptions {
  assignProperty?: string | undefined
  authInfo?: boolean | undefined
  failureRedirect?: string | undefined
  failWithError?: boolean | undefined
  keepSessionInfo?: boolean | undefined
  passReqToCallback?: boolean | undefined
  pauseStream?: boolean | undefined
  prompt?: string | undefined
  scope?: string | string[] | undefined
  session?: boolean | undefined
  state?: string | undefined
  successRedirect?: string | undefined
  userProperty?: string | undefined
}

/** The outcome, once the user is known. */
interface Settled {
  readonly outcome: Authentication
  readonly info?: unknown
}

/**
 * A Passport strategy, named `apikey`, that authenticates requests by API key.
 *
 * It never creates, changes or ends a login session and sets no cookie, with or without `session: false`. A route
 * option that would make Passport do so, such as `failureMessage` or `failureFlash`, is an error. If a request presents
 * a key, the key decides: an invalid key is refused, and Latchkey's guards keep refusing the request even if a later
 * strategy succeeds.
 *
 * @throws TypeError when an option is wrong or unknown, or both `resolveUser` and a verify callback are given.
 * @example
 * passport.use(new ApiKeyStrategy({ keys, resolveUser: (apiKey) => users.find(apiKey.owner.id) }))
 * app.get('/projects', passport.authenticate('apikey', { permissions: { projects: ['read'] } }), list)
 */
export class ApiKeyStrategy<User = unknown> extends StrategyBase {
  override readonly name: string = 'apikey'
  private readonly authenticator: Authenticator
  private readonly verify: VerifyFunction | VerifyFunctionWithRequest | undefined
  private readonly passReqToCallback: boolean
  private readonly refuseWith: 'fail' | 'error'

  // Overloads, since the parameters of a callback get no type from a union of two functions.
  constructor(
    options: ApiKeyStrategyOptions<User> & { passReqToCallback: true },
    verify: VerifyFunctionWithRequest,
  )
  constructor(options: ApiKeyStrategyOptions<User>, verify?: VerifyFunction)
  constructor(options: ApiKeyStrategyOptions<User>, verify?: VerifyFunction | VerifyFunctionWithRequest) {
    super()
    // Nest appends a callback to what a class hands to `super`, be it nothing.
    if (!isObject(options)) fail('options', 'an object with "keys", what createApiKeys() returned', options)
    if (typeof (options as Partial<ApiKeyVerifier>).verify === 'function') {
      throw new TypeError('"keys" is an option: use new ApiKeyStrategy({ keys })')
    }
    checkObject('options', options, [...AUTHENTICATOR_OPTIONS, 'keys', 'passReqToCallback', 'refuseWith'])
    const { keys, passReqToCallback = false, refuseWith = 'error' } = options
    if (verify !== undefined) checkFunction('verify', verify)
    if (verify && options.resolveUser) {
      throw new TypeError('"resolveUser" and a verify callback cannot be combined: give one of them')
    }
    checkOneOf('refuseWith', refuseWith, ['fail', 'error'])
    this.authenticator = createAuthenticator(keys, options)
    this.verify = verify
    this.passReqToCallback = checkBoolean('passReqToCallback', passReqToCallback)
    this.refuseWith = refuseWith
  }

  /** Called by Passport. */
  authenticate(req: PassportRequest, options: ApiKeyRouteOptions & { assignProperty?: string } = {}): void {
    // Passport adds these to a copy of the strategy for each request; its types do not say so.
    const { success, fail, error } = this as unknown as Actions
    const parts = partsOf(req)
    const answer = ({ outcome, info }: Settled) => {
      if (options.assignProperty === undefined) applyOutcome(parts, this.authenticator.keys, outcome)
      if (outcome.ok) {
        const res = responseOf(req)
        const { rateLimitHeaders } = this.authenticator
        if (res && !res.headersSent) setRateLimitFields(res, outcome.limits, rateLimitHeaders)
        succeedWithoutSession(req, options, () => success(outcome.user, info))
      } else this.refuse(req, outcome, { fail, error })
    }
    let settled: Settled | PromiseLike<Settled>
    try {
      settled = this.run(req, parts, options)
    } catch (mistake) {
      error(mistake)
      return
    }
    if (!isPromiseLike(settled)) {
      answer(settled)
      return
    }
    settled.then(
      (value) => setImmediate(answerLate, req, () => answer(value)),
      (mistake) => setImmediate(answerLate, req, () => error(mistake)),
    )
  }

  /** @throws TypeError when the route's options are wrong */
  private run(
    req: PassportRequest,
    parts: RequestParts,
    options: ApiKeyRouteOptions,
  ): Settled | PromiseLike<Settled> {
    const { permissions, cost } = resolveRoute(options)
    const asked = {
      permissions: typeof permissions === 'function' ? requirementOf(() => permissions(req)) : permissions,
      cost: typeof cost === 'function' ? () => cost(req) : cost,
    }
    const ip = expressAddressOf(req) ?? req.socket?.remoteAddress
    const outcome = this.authenticator.authenticate(parts, asked, ip)
    if (!isPromiseLike(outcome))
      return outcome.ok && this.verify ? this.askVerify(req, outcome, ip) : { outcome }
    return outcome.then((found) =>
      found.ok && this.verify ? this.askVerify(req, found, ip) : { outcome: found },
    )
  }

  /** Runs the application's verify callback and takes its first answer. */
  private askVerify(
    req: unknown,
    outcome: Authentication & { ok: true },
    ip: string | undefined,
  ): Promise<Settled> {
    const { refuse } = this.authenticator
    const { apiKey } = outcome
    return new Promise((resolve) => {
      const fault = (cause: unknown) => resolve({ outcome: refuse.fault('resolve_user', cause) })
      const done: VerifyDone = (error, user, info) => {
        if (error) fault(error)
        else if (user === undefined || user === null || user === false)
          resolve({ outcome: refuse.user(apiKey, ip) })
        else resolve({ outcome: { ...outcome, user }, info })
      }
      try {
        const verify = this.verify as (...args: unknown[]) => unknown
        const returned = this.passReqToCallback ? verify(req, apiKey, done) : verify(apiKey, done)
        // Frameworks wrap callbacks in async functions: what they resolve with says nothing, a rejection does.
        if (isPromiseLike(returned)) returned.then(undefined, fault)
      } catch (thrown) {
        fault(thrown)
      }
    })
  }

  private refuse(
    req: object,
    { error, challenge }: Authentication & { ok: false },
    actions: Omit<Actions, 'success'>,
  ): void {
    const { status } = error
    if (this.refuseWith === 'error' || status === 429 || status === 503) {
      // Passport hands strategies no response, and who renders the error may not know of its header fields.
      keepFailureFields(responseOf(req), error)
      actions.error(error)
    } else {
      keepFailureUncached(responseOf(req))
      // An explicit 401 would hide the status of a strategy after this one; it is the default anyway.
      actions.fail(challenge, status === 401 ? undefined : status)
    }
  }
}

/** Other options are Passport's, or those of another strategy. */
function refuseMisspelt(name: string): void {
  if (name === 'permissions' || name === 'cost') return
  const meant = nearest(name, ['permissions']) ?? (COST_MISSPELT.test(name) ? 'cost' : undefined)
  if (meant) throw new TypeError(`"options" has no option "${name}"; did you mean "${meant}"?`)
}

/** `costs`, `Cost`, `ccost`. With any edit, `host` and `port` of other strategies would be taken for it. */
const COST_MISSPELT = /^c+o+s+t+s?$/i

const routes = new WeakMap<object, ApiKeyRouteOptions>()

/**
 * What a route requires, checked and copied on first use.
 *
 * @throws TypeError naming the option. Passport shares a route's options among strategies, so unknown ones must pass;
 * but a misspelt `permissions` would require nothing and let every key pass.
 */
function resolveRoute(options: ApiKeyRouteOptions): ApiKeyRouteOptions {
  const known = routes.get(options)
  if (known) return known
  checkSessionOptions(options)
  for (const name of Object.keys(options)) refuseMisspelt(name)
  const { permissions, cost } = options
  const route: ApiKeyRouteOptions = {}
  if (typeof permissions === 'function') route.permissions = permissions
  else if (permissions !== undefined) route.permissions = resolveRequirement('permissions', permissions)
  if (typeof cost === 'function') route.cost = cost
  else if (cost !== undefined) route.cost = checkCost('cost', cost)
  routes.set(options, Object.freeze(route))
  return route
}
