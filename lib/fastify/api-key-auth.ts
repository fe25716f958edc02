import type { FastifyRequest } from 'fastify'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import { type Authentication, applyOutcome } from '../http/authentication.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { createMiddlewareParts, type MiddlewareOptions, type RequestCost } from '../http/middleware.ts'
import type { RequestParts } from '../http/raw-request.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import { ReplyFields } from '../http/send-problem.ts'
import { isPromiseLike } from '../internal/awaitable.ts'
import { refuse } from './refuse.ts'
import type { AnyReply, RequestHook } from './request-hook.ts'
import { partsOf } from './request-parts.ts'

/** What `apiKeyAuth` requires of requests, and how it refuses them. */
export interface ApiKeyAuthOptions<User = unknown> extends MiddlewareOptions<User> {
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`.
   *
   * @default (request) => request.ip, which follows Fastify's option `trustProxy`
   */
  ip?: (request: FastifyRequest) => string | undefined
  /**
   * The permissions that the key needs. An object requires everything it names; an array, any one of its entries. Or a
   * function of the request that returns one of these at once:
   * ``(request) => ({ [`project:${request.params.id}`]: ['read'] })``. It is called once the key is known to be good, before anything
   * is spent. If it throws, or returns a promise or nothing to require, the request gets a 503; if it names what no key can
   * hold, a 403.
   */
  permissions?: RequestPermissions<FastifyRequest>
  /**
   * What a request costs: a number of units of the quota and of every limit without `only: 'named'`, units by the name of
   * a limit, as `{ tokens: 500 }`, or a function that returns one of these. It is called once the key is known to be
   * good. If it fails, takes longer than `timeoutMs` of `createApiKeys`, or returns anything else, the request gets a 503.
   *
   * @default 1
   */
  cost?: RequestCost<FastifyRequest>
}

/**
 * Hook that lets in requests with a valid key, and marks them as authenticated by key. Read who is calling with `getAuth(request)`,
 * or with `apiKeyPlugin` from `request.auth`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.addHook('onRequest', apiKeyAuth(keys))
 * app.post('/reports', { onRequest: apiKeyAuth(keys, { permissions: { reports: ['write'] }, cost: 5 }) }, create)
 */
export function apiKeyAuth<User = unknown>(
  keys: ApiKeyVerifier,
  options: ApiKeyAuthOptions<User> = {},
): RequestHook {
  const { authenticate, rateLimitHeaders, required, refuseWith } = createMiddlewareParts<FastifyRequest>(
    keys,
    options,
    (request) => request.ip,
  )

  function respond(
    outcome: Authentication,
    parts: RequestParts,
    reply: AnyReply,
    done: (error?: Error) => void,
  ): void {
    applyOutcome(parts, keys, outcome)
    if (outcome.ok) {
      // While the store was asked, somebody else may have answered.
      if (!reply.sent) setRateLimitFields(new ReplyFields(reply), outcome.limits, rateLimitHeaders)
      done()
    } else if (!outcome.presented && !required) done()
    else refuse(reply, outcome.error, refuseWith, done)
  }

  return function authenticateByApiKey(request, reply, done) {
    const parts = partsOf(request, reply)
    const outcome = authenticate(request as FastifyRequest, parts)
    if (!isPromiseLike(outcome)) respond(outcome, parts, reply, done)
    else outcome.then((settled) => respond(settled, parts, reply, done)).then(undefined, done)
  }
}
