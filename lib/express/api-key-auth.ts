import type { NextFunction, Request, RequestHandler, Response } from 'express'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import { type Authentication, applyOutcome } from '../http/authentication.ts'
import { expressAddressOf } from '../http/express-address.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { createMiddlewareParts, type MiddlewareOptions, type RequestCost } from '../http/middleware.ts'
import { ownParts, type RequestParts } from '../http/raw-request.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import { isPromiseLike } from '../internal/awaitable.ts'
import { refuse } from './refuse.ts'

/** What `apiKeyAuth` requires of requests, and how it refuses them. */
export interface ApiKeyAuthOptions<User = unknown> extends MiddlewareOptions<User> {
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`.
   *
   * @default (req) => req.ip, which follows Express's `trust proxy` setting
   */
  ip?: (req: Request) => string | undefined
  /**
   * The permissions that the key needs. An object requires everything it names; an array, any one of its entries. Or a
   * function of the request that returns one of these at once:
   * ``(req) => ({ [`project:${req.params.id}`]: ['read'] })``. It is called once the key is known to be good, before anything
   * is spent. If it throws, or returns a promise or nothing to require, the request gets a 503; if it names what no key can
   * hold, a 403.
   */
  permissions?: RequestPermissions<Request>
  /**
   * What a request costs: a number of units of the quota and of every limit without `only: 'named'`, units by the name of
   * a limit, as `{ tokens: 500 }`, or a function that returns one of these. It is called once the key is known to be
   * good. If it fails, takes longer than `timeoutMs` of `createApiKeys`, or returns anything else, the request gets a 503.
   *
   * @default 1
   */
  cost?: RequestCost<Request>
}

/**
 * Middleware that lets in requests with a valid key, sets `req.apiKey` and `req.user`, and marks the request as
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
  const { authenticate, rateLimitHeaders, required, refuseWith } = createMiddlewareParts<Request>(
    keys,
    options,
    expressAddressOf,
  )

  function respond(outcome: Authentication, parts: RequestParts, res: Response, next: NextFunction): void {
    applyOutcome(parts, keys, outcome)
    if (outcome.ok) {
      // While the store was asked, somebody else may have answered.
      if (!res.headersSent) setRateLimitFields(res, outcome.limits, rateLimitHeaders)
      next()
    } else if (!outcome.presented && !required) next()
    else refuse(res, next, outcome.error, refuseWith)
  }

  return function authenticateByApiKey(req, res, next) {
    const parts = ownParts(req, res)
    const outcome = authenticate(req, parts)
    if (!isPromiseLike(outcome)) respond(outcome, parts, res, next)
    else outcome.then((settled) => respond(settled, parts, res, next)).then(undefined, next)
  }
}
