import { resolveRequirement } from '../core/keys/permissions.ts'
import { type ApiKeyVerifier, checkVerifyOptions, type VerifyOptions } from '../core/verify/key-verifier.ts'
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
    Pick<VerifyOptions, 'permissions' | 'cost'> {
  /**
   * Whether to refuse a request without a key. With `false` it gets through unauthenticated; a request with an invalid
   * key is still refused.
   *
   * @default true
   */
  required?: boolean
}

/** The parts that each framework's middleware uses. */
export interface MiddlewareParts<Request> {
  readonly required: boolean
  readonly refuseWith: 'problem' | 'error'
  readonly rateLimitHeaders: RateLimitSyntax | false
  /** Never throws or rejects, except with what `ip` of the options throws. */
  authenticate(request: Request, parts: RequestParts): Awaitable<Authentication>
}

/**
 * Checks the options of a middleware once.
 *
 * @param addressOf reads the client's address from the framework; the option `ip` replaces it
 * @throws TypeError naming the option.
 */
export function createMiddlewareParts<Request extends object>(
  keys: ApiKeyVerifier,
  options: MiddlewareOptions & { ip?: (request: Request) => string | undefined },
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
  checkVerifyOptions({ cost })
  const permissions =
    options.permissions === undefined ? undefined : resolveRequirement('permissions', options.permissions)
  const authenticator = createAuthenticator(keys, options)
  const asked = { permissions, cost, isOptional: !required }
  return {
    required,
    refuseWith,
    rateLimitHeaders: authenticator.rateLimitHeaders,
    authenticate: (request, parts) => authenticator.authenticate(parts, asked, readIp(request)),
  }
}
