import type { Request, RequestHandler } from 'express'
import {
  type AuthGuardOptions,
  apiKeyGuard,
  authGuard,
  type Guard,
  type ApiKeyGuardOptions as GuardOptions,
  type PermissionGuardOptions,
  permissionGuard,
  type RefusalOptions,
  type SessionGuardOptions,
  sessionGuard,
} from '../http/guards.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import { refuse } from './refuse.ts'

/** Which keys a guard passes. */
export interface ApiKeyGuardOptions extends GuardOptions<Request> {}

/**
 * Lets in only a login session that `markSession()` has marked, and refuses every request that presents a key, even an
 * invalid one: 401 `authentication_required` without a login, otherwise 403 `session_required`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.use('/settings', requireSession())
 */
export function requireSession(options?: SessionGuardOptions): RequestHandler {
  return toMiddleware(sessionGuard(options), options)
}

/**
 * Lets in only a request that an API key has authenticated: 401 `missing_key` for an unauthenticated request, otherwise
 * 403 `api_key_required`. With `permissions`, 403 `insufficient_permissions` names what the key lacks.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.get('/export', apiKeyAuth(keys), requireApiKey({ permissions: { reports: ['read'] } }), send)
 */
export function requireApiKey(options?: ApiKeyGuardOptions): RequestHandler {
  return toMiddleware(apiKeyGuard<Request>(options), options)
}

/**
 * Lets in a request that was authenticated in one of the accepted ways; by default, only sessions.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.get('/me', requireAuth({ accept: ['session', 'apikey'] }), show)
 */
export function requireAuth(options?: AuthGuardOptions): RequestHandler {
  return toMiddleware(authGuard(options), options)
}

/**
 * Lets in a key that has the permissions. Sessions have none: it refuses them unless `accept` allows them. The permissions
 * may be a function of the request that returns them at once: it is called for keys only.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.post('/projects', requirePermissions({ projects: ['write'] }, { accept: ['session'] }), create)
 */
export function requirePermissions(
  permissions: RequestPermissions<Request>,
  options?: PermissionGuardOptions,
): RequestHandler {
  return toMiddleware(permissionGuard(permissions, options), options)
}

function toMiddleware(guard: Guard, { refuseWith }: RefusalOptions = {}): RequestHandler {
  return function guardRequest(req, res, next) {
    const refusal = guard(req)
    if (refusal) refuse(res, next, refusal, refuseWith)
    else next()
  }
}
