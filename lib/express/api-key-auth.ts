import type { NextFunction, Request, RequestHandler, Response } from 'express'
import { type ApiKeyVerifier, checkVerifyOptions, type VerifyOptions } from '../core/key-verifier.ts'
import { resolveRequirement } from '../core/permissions.ts'
import {
  AUTHENTICATOR_OPTIONS,
  type Authentication,
  type AuthenticatorOptions,
  createAuthenticator,
  stampRequest,
} from '../http/authenticate-request.ts'
import { checkRefuseWith, type RefusalOptions } from '../http/guards.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { isPromiseLike } from '../internal/awaitable.ts'
import { checkBoolean, checkFunction, checkObject } from '../internal/options.ts'
import { sendProblem } from './send-problem.ts'

/** What `apiKeyAuth` asks of requests, and how it refuses them. */
export interface ApiKeyAuthOptions<User = unknown>
  extends AuthenticatorOptions<User>,
    RefusalOptions,
    Pick<VerifyOptions, 'permissions' | 'cost'> {
  /**
   * Whether a request without a key is refused. With `false` it passes unauthenticated; one with a bad key is refused
   * all the same.
   *
   * @default true
   */
  required?: boolean
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`.
   *
   * @default (req) => req.ip, which follows Express's `trust proxy` setting
   */
  ip?: (req: Request) => string | undefined
}

/**
 * Middleware that lets requests with a good key pass, sets `req.apiKey` and `req.user`, and marks them as
 * authenticated by key.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.use('/api', apiKeyAuth(keys))
 * app.post('/api/reports', apiKeyAuth(keys, { permissions: { reports: ['write'] }, cost: 5 }), create)
 */
export function apiKeyAuth<User = unknown>(
  keys: ApiKeyVerifier,
  options: ApiKeyAuthOptions<User> = {},
): RequestHandler {
  checkObject('options', options, [
    ...AUTHENTICATOR_OPTIONS,
    'permissions',
    'cost',
    'required',
    'ip',
    'refuseWith',
  ])
  const { required = true, ip: readIp, refuseWith = 'problem', cost } = options
  checkBoolean('required', required)
  if (readIp !== undefined) checkFunction('ip', readIp)
  checkRefuseWith(refuseWith)
  checkVerifyOptions({ cost })
  const permissions =
    options.permissions === undefined ? undefined : resolveRequirement('permissions', options.permissions)
  const authenticator = createAuthenticator(keys, options)

  function settle(outcome: Authentication, req: Request, res: Response, next: NextFunction): void {
    stampRequest(req, keys, outcome)
    if (outcome.ok) {
      // While the store was asked, somebody else may have answered.
      if (!res.headersSent) setRateLimitFields(res, outcome.limits, authenticator.rateLimitHeaders)
      next()
    } else if (!outcome.presented && !required) next()
    else if (refuseWith === 'error') next(outcome.error)
    else sendProblem(res, outcome.error)
  }

  return function authenticateByApiKey(req, res, next) {
    const ip = readIp ? readIp(req) : req.ip
    const outcome = authenticator.authenticate(req, { permissions, cost, ip })
    if (!isPromiseLike(outcome)) settle(outcome, req, res, next)
    else outcome.then((settled) => settle(settled, req, res, next)).then(undefined, next)
  }
}
