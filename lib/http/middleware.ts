import { resolveRequirement } from '../core/keys/permissions.ts'
import { type Cost, checkCost } from '../core/limits/cost.ts'
import type { ApiKeyVerifier, VerifyOptions } from '../core/verify/key-verifier.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkBoolean, checkFunction, checkObject } from '../internal/options.ts'
import {
  AUTHENTICATOR_OPTIONS,
  type AuthenticatorOptions,
  createAuthenticator,
} from './authenticate-request.ts'
import type { Authentication } from './authentication.ts'
import { checkRefuseWith, type RefusalOptions } from './guards.ts'
import type { RateLimitSyntax } from './header-fields.ts'
import type { RequestParts } from './raw-request.ts'

/** What the middleware of every framework requires of requests, and how it refuses them. */
export interface MiddlewareOptions<User = unknown>
  extends AuthenticatorOptions<User>,
    RefusalOptions,
    Pick<VerifyOptions, 'permissions'> {
  /**
   * Whether to refuse a request without a key. With `false` it gets through unauthenticated; a request with an invalid
   * key is still refused.
   *
   * @default true
   */
  required?: boolean
}

/** What a request costs: fixed, or a function of the request. */
export type RequestCost<Request> = Cost | ((request: Request) => Awaitable<Cost>)

/** The options whose functions get the framework's own request. */
interface RequestOptions<Request> {
  ip?: (request: Request) => string | undefined
  cost?: RequestCost<Request>
}

/** The parts that each framework's middleware uses. */
export interface MiddlewareParts<Request> {
  readonly required: boolean
  readonly refuseWith: 'problem' | 'error'
  readonly rateLimitHeaders: RateLimitSyntax | false
  /**
   * Never throws or rejects, except with what `ip` of the options throws.
   *
   * @param ip the client's address, where the caller knows it
   */
  authenticate(request: Request, parts: RequestParts, ip?: string): Awaitable<Authentication>
}

/**
 * Checks the options of a middleware once.
 *
 * @param addressOf reads the client's address from the framework; the option `ip` replaces it
 * @throws TypeError naming the option.
 */
export function createMiddlewareParts<Request extends object>(
  keys: ApiKeyVerifier,
  options: MiddlewareOptions & RequestOptions<Request>,
  addressOf: (request: Request) => string | undefined,
): MiddlewareParts<Request> {
  checkObject('options', options, [
    ...AUTHENTICATOR_OPTIONS,
    'permissions',
    'cost',
    'required',
    'ip',
    'refuseWith',
  ])
  const { required = true, ip: readIp = addressOf, refuseWith = 'problem', cost } = options
  checkBoolean('required', required)
  checkFunction('ip', readIp)
  checkRefuseWith(refuseWith)
  const permissions =
    options.permissions === undefined ? undefined : resolveRequirement('permissions', options.permissions)
  const authenticator = createAuthenticator(keys, options)
  const costOf = typeof cost === 'function' ? cost : null
  const fixed = cost === undefined || typeof cost === 'function' ? undefined : checkCost('cost', cost)
  const asked = { permissions, cost: fixed, isOptional: !required }
  return {
    required,
    refuseWith,
    rateLimitHeaders: authenticator.rateLimitHeaders,
    authenticate: (request, parts, ip) => {
      const priced = costOf ? { ...asked, cost: () => costOf(request) } : asked
      return authenticator.authenticate(parts, priced, ip ?? readIp(request))
    },
  }
}
