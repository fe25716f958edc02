import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { LatchkeyError } from '../errors.ts'
import { type Auth, getAuth, type RegisteredUser } from '../http/auth-mark.ts'
import { applyOutcome } from '../http/authentication.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { createMiddlewareParts, type MiddlewareOptions, type RequestCost } from '../http/middleware.ts'
import { ownParts } from '../http/raw-request.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import { checkOptions } from './check-options.ts'
import { problemResponse } from './problem-response.ts'
import { ResponseParts } from './response-parts.ts'

/** What `apiKeyAuth` requires of requests. */
export interface ApiKeyAuthOptions<User = unknown> extends Omit<MiddlewareOptions<User>, 'refuseWith'> {
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`, if no caller gives one. A web `Request` has none, and no header
   * field is trusted: read `X-Forwarded-For` only if a proxy of yours writes it.
   *
   * @default no address: keys with `allowedIps` are refused
   */
  ip?: (request: Request) => string | undefined
  /**
   * The permissions that the key needs. An object requires everything it names; an array, any one of its entries. Or a
   * function of the request that returns one of these at once:
   * ``(request) => ({ [`host:${new URL(request.url).host}`]: ['read'] })``. It is called once the key is known to be good, before anything
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

/** What a caller knows of a request besides itself. */
export interface RequestContext {
  /** The client's address, as the server knows it. It replaces the option `ip`. */
  ip?: string | undefined
}

/** A request that gets in. */
export interface AdmittedRequest<Who> {
  readonly ok: true
  /** Who is calling, as `getAuth(request)` says. */
  readonly auth: Who
  /** The `RateLimit` fields to send. `settle` and `refund` keep them up to date until `finish`. */
  readonly headers: Headers
  /**
   * Returns the response with these fields, and gives back the places of `concurrent` limits once its body has been sent. Without
   * it, they are given back when the client goes away, or when the `Request` is garbage-collected.
   */
  finish(response: Response): Response
}

/** A request that does not get in. */
export interface RefusedRequest {
  readonly ok: false
  /** Why. */
  readonly error: LatchkeyError
  /** The answer: a problem body (RFC 9457) with its header fields. */
  readonly response: Response
}

/** Verifies the key of a request. Rejects only with what your function `ip` throws. */
export type Authenticate<Who> = (
  request: Request,
  context?: RequestContext,
) => Promise<AdmittedRequest<Who> | RefusedRequest>

/** Who a request with a key is. */
export type KeyAuth<User = RegisteredUser> = Extract<Auth<User>, { method: 'apikey' }>

/**
 * Returns a function that verifies the key of a web `Request`, and answers who is calling or how to refuse. It marks the request as
 * authenticated by key: `getAuth(request)` and the guards know it, but not a clone of it.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const authenticate = apiKeyAuth(keys, { permissions: { projects: ['read'] } })
 *
 * async function listProjects(request: Request) {
 *   const caller = await authenticate(request)
 *   if (!caller.ok) return caller.response
 *   return caller.finish(Response.json(await projectsOf(caller.auth.user)))
 * }
 */
export function apiKeyAuth<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options: ApiKeyAuthOptions<User> & { required: false },
): Authenticate<Auth<User>>
export function apiKeyAuth<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options?: ApiKeyAuthOptions<User> & { required?: true },
): Authenticate<KeyAuth<User>>
export function apiKeyAuth<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options?: ApiKeyAuthOptions<User>,
): Authenticate<Auth<User>>
export function apiKeyAuth<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options: ApiKeyAuthOptions<User> = {},
): Authenticate<Auth<User>> {
  const { authenticate, rateLimitHeaders, required } = createMiddlewareParts<Request>(
    keys,
    checkOptions(options),
    () => undefined,
  )

  return async function authenticateByApiKey(request, { ip } = {}) {
    const answer = ResponseParts.of(request)
    const parts = { ...ownParts(request), onceEnded: answer.onceEnded }
    const outcome = await authenticate(request, parts, ip)
    applyOutcome(parts, keys, outcome)
    if (!outcome.ok && (outcome.presented || required)) {
      return { ok: false, error: outcome.error, response: answer.finish(problemResponse(outcome.error)) }
    }
    if (outcome.ok) setRateLimitFields(answer, outcome.limits, rateLimitHeaders)
    return { ok: true, auth: getAuth<User>(request), headers: answer.headers, finish: answer.finish }
  }
}
