import type { Context, Middleware, Next } from 'koa'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { RegisteredUser } from '../http/auth-mark.ts'
import { type Authentication, applyOutcome } from '../http/authentication.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { createMiddlewareParts, type MiddlewareOptions, type RequestCost } from '../http/middleware.ts'
import type { RequestParts } from '../http/raw-request.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import { isPromiseLike } from '../internal/awaitable.ts'
import { refuse } from './refuse.ts'
import type { ApiKeyState } from './state.ts'

/** What `apiKeyAuth` requires of requests, and how it refuses them. */
export interface ApiKeyAuthOptions<User = unknown> extends MiddlewareOptions<User> {
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`.
   *
   * @default (ctx) => ctx.ip, which follows Koa's `proxy` setting. Behind a proxy set `maxIpsCount` as well: without it
   * Koa believes the first address of `X-Forwarded-For`, which the client writes.
   */
  ip?: (ctx: Context) => string | undefined
  /**
   * The permissions that the key needs. An object requires everything it names; an array, any one of its entries. Or a
   * function of the request that returns one of these at once:
   * ``(ctx) => ({ [`project:${ctx.params.id}`]: ['read'] })``. It is called once the key is known to be good, before anything
   * is spent. If it throws, or returns a promise or nothing to require, the request gets a 503; if it names what no key can
   * hold, a 403.
   */
  permissions?: RequestPermissions<Context>
  /**
   * What a request costs: a number of units of the quota and of every limit without `only: 'named'`, units by the name of
   * a limit, as `{ tokens: 500 }`, or a function that returns one of these. It is called once the key is known to be
   * good. If it fails, takes longer than `timeoutMs` of `createApiKeys`, or returns anything else, the request gets a 503.
   *
   * @default 1
   */
  cost?: RequestCost<Context>
}

/**
 * Middleware that lets in requests with a valid key, sets `ctx.state.apiKey` and `ctx.state.user`, and marks the
 * request as authenticated by key.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.use(apiKeyAuth(keys))
 * router.post('/reports', apiKeyAuth(keys, { permissions: { reports: ['write'] }, cost: 5 }), create)
 */
export function apiKeyAuth<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options: ApiKeyAuthOptions<User> = {},
): Middleware<ApiKeyState<User>, unknown> {
  const { authenticate, rateLimitHeaders, required, refuseWith } = createMiddlewareParts<Context>(
    keys,
    options,
    (ctx) => ctx.ip,
  )

  function respond(outcome: Authentication, parts: RequestParts, ctx: Context, next: Next): unknown {
    applyOutcome(parts, keys, outcome)
    if (outcome.ok) {
      // Other code may have answered while the store was asked.
      if (!ctx.headerSent) setRateLimitFields(ctx.res, outcome.limits, rateLimitHeaders)
      return next()
    }
    if (!outcome.presented && !required) return next()
    return refuse(ctx, outcome.error, refuseWith)
  }

  return function authenticateByApiKey(ctx, next) {
    const context = ctx as Context
    const parts: RequestParts = { request: context, raw: context.req, properties: context.state }
    const outcome = authenticate(context, parts)
    if (!isPromiseLike(outcome)) return respond(outcome, parts, context, next)
    return outcome.then((settled) => respond(settled, parts, context, next))
  }
}
