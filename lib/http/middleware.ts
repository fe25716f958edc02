import { resolveRequirement } from '../core/keys/permissions.ts'
import { requirementOf } from '../core/keys/requirement-of-request.ts'
import { type Cost, checkCost } from '../core/limits/cost.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkBoolean, checkFunction, checkObject } from '../internal/options.ts'
import {
  AUTHENTICATOR_OPTIONS,
  type AuthenticatorOptions,
  type CheckOptions,
  createAuthenticator,
} from './authenticate-request.ts'
import type { Authentication } from './authentication.ts'
import { checkRefuseWith, type RefusalOptions } from './guards.ts'
import type { RateLimitSyntax } from './header-fields.ts'
import type { RequestParts } from './raw-request.ts'
import type { RequestPermissions } from './request-permissions.ts'

/** What the middleware of every framework requires of requests, and how it refuses them. */
export interface MiddlewareOptions<User = unknown> extends AuthenticatorOptions<User>, RefusalOptions {
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
interface RequestOptions<Request> extends RouteOptions<Request> {
  ip?: (request: Request) => string | undefined
}

/** What a route requires of a key. */
interface RouteOptions<Request> {
  permissions?: RequestPermissions<Request>
  cost?: RequestCost<Request>
  required?: boolean
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
  const { required = true, ip: readIp = addressOf, refuseWith = 'problem' } = options
  checkBoolean('required', required)
  checkFunction('ip', readIp)
  checkRefuseWith(refuseWith)
  const authenticator = createAuthenticator(keys, options)
  const askedOf = checksFor(options)
  return {
    required,
    refuseWith,
    rateLimitHeaders: authenticator.rateLimitHeaders,
    authenticate: (request, parts, ip) =>
      authenticator.authenticate(parts, askedOf(request), ip ?? readIp(request)),
  }
}

/** What each request is asked for, checked: the same for all, unless an option is a function of the request. @throws TypeError */
export function checksFor<Request>({
  permissions,
  cost,
  required = true,
}: RouteOptions<Request>): (request: Request) => CheckOptions {
  const fixed: CheckOptions = {
    permissions: isFixed(permissions) ? resolveRequirement('permissions', permissions) : undefined,
    cost: isFixed(cost) ? checkCost('cost', cost) : undefined,
    isOptional: !required,
  }
  if (typeof permissions !== 'function' && typeof cost !== 'function') return () => fixed
  return (request) => ({
    ...fixed,
    ...(typeof permissions === 'function' && { permissions: requirementOf(() => permissions(request)) }),
    ...(typeof cost === 'function' && { cost: () => cost(request) }),
  })
}

/** Whether an option is given, and not as a function of the request. */
function isFixed<Given>(value: Given): value is Exclude<Given, undefined | ((...given: never) => unknown)> {
  return value !== undefined && typeof value !== 'function'
}
