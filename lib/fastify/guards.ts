import type { PermissionRequirement } from '../core/keys/permissions.ts'
import {
  type ApiKeyGuardOptions,
  type AuthGuardOptions,
  apiKeyGuard,
  authGuard,
  type Guard,
  type PermissionGuardOptions,
  permissionGuard,
  type RefusalOptions,
  type SessionGuardOptions,
  sessionGuard,
} from '../http/guards.ts'
import { refuse } from './refuse.ts'
import type { RequestHook } from './request-hook.ts'

/**
 * Lets in only a login session that `markSession()` has marked, and refuses every request that presents a key, even an
 * invalid one: 401 `authentication_required` without a login, otherwise 403 `session_required`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.get('/settings', { onRequest: requireSession() }, settings)
 */
export function requireSession(options?: SessionGuardOptions): RequestHook {
  return toHook(sessionGuard(options), options)
}

/**
 * Lets in only a request that an API key has authenticated: 401 `missing_key` for an unauthenticated request, otherwise
 * 403 `api_key_required`. With `permissions`, 403 `insufficient_permissions` names what the key lacks.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const onRequest = [apiKeyAuth(keys), requireApiKey({ permissions: { reports: ['read'] } })]
 * app.get('/export', { onRequest }, send)
 */
export function requireApiKey(options?: ApiKeyGuardOptions): RequestHook {
  return toHook(apiKeyGuard(options), options)
}

/**
 * Lets in a request that was authenticated in one of the accepted ways; by default, only sessions.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.get('/me', { onRequest: requireAuth({ accept: ['session', 'apikey'] }) }, show)
 */
export function requireAuth(options?: AuthGuardOptions): RequestHook {
  return toHook(authGuard(options), options)
}

/**
 * Lets in a key that has the permissions. Sessions have none: it refuses them unless `accept` allows them.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const onRequest = requirePermissions({ projects: ['write'] }, { accept: ['session'] })
 * app.post('/projects', { onRequest }, create)
 */
export function requirePermissions(
  permissions: PermissionRequirement,
  options?: PermissionGuardOptions,
): RequestHook {
  return toHook(permissionGuard(permissions, options), options)
}

function toHook(guard: Guard, { refuseWith }: RefusalOptions = {}): RequestHook {
  return function guardRequest(request, reply, done) {
    const refusal = guard(request.raw)
    if (refusal) refuse(reply, refusal, refuseWith, done)
    else done()
  }
}
