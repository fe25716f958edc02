import type { FastifyRequest } from 'fastify'
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
import type { RequestHook } from './request-hook.ts'
import { noteRequest, ofFastify } from './request-parts.ts'

/** Which keys a guard passes. */
export interface ApiKeyGuardOptions extends GuardOptions<FastifyRequest> {}

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
  return toHook(apiKeyGuard(ofNode(options)), options)
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
 * Lets in a key that has the permissions. Sessions have none: it refuses them unless `accept` allows them. The permissions
 * may be a function of the request that returns them at once: it is called for keys only.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const onRequest = requirePermissions({ projects: ['write'] }, { accept: ['session'] })
 * app.post('/projects', { onRequest }, create)
 */
export function requirePermissions(
  permissions: RequestPermissions<FastifyRequest>,
  options?: PermissionGuardOptions,
): RequestHook {
  return toHook(permissionGuard(ofFastify(permissions), options), options)
}

function toHook(guard: Guard, { refuseWith }: RefusalOptions = {}): RequestHook {
  return function guardRequest(request, reply, done) {
    noteRequest(request)
    const refusal = guard(request.raw)
    if (refusal) refuse(reply, refusal, refuseWith, done)
    else done()
  }
}

/** The same options for the request of Node, which the guards below know. */
function ofNode(options: ApiKeyGuardOptions = {}): GuardOptions<object> {
  const { permissions, ...others } = options
  return permissions === undefined ? others : { ...others, permissions: ofFastify(permissions) }
}
