import type { NextFunction, Request, RequestHandler, Response } from 'express'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import { type Authentication, applyOutcome } from '../http/authentication.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { createMiddlewareParts, type MiddlewareOptions } from '../http/middleware.ts'
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
  const parts = createMiddlewareParts<Request>(keys, options, (req) => req.ip)

  function respond(outcome: Authentication, req: Request, res: Response, next: NextFunction): void {
    applyOutcome(req, keys, outcome)
    if (outcome.ok) {
      // While the store was asked, somebody else may have answered.
      if (!res.headersSent) setRateLimitFields(res, outcome.limits, parts.rateLimitHeaders)
      next()
    } else if (!outcome.presented && !parts.required) next()
    else refuse(res, next, outcome.error, parts.refuseWith)
  }

  return function authenticateByApiKey(req, res, next) {
    const outcome = parts.authenticate(req)
    if (!isPromiseLike(outcome)) respond(outcome, req, res, next)
    else outcome.then((settled) => respond(settled, req, res, next)).then(undefined, next)
  }
}
