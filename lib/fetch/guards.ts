import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import {
  type AuthGuardOptions,
  apiKeyGuard,
  authGuard,
  type Guard,
  type PermissionGuardOptions,
  permissionGuard,
  type SessionGuardOptions,
  sessionGuard,
} from '../http/guards.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import { checkOptions } from './check-options.ts'
import { problemResponse } from './problem-response.ts'
import { ResponseParts } from './response-parts.ts'

/** Which keys a guard passes. */
export interface ApiKeyGuardOptions {
  /** The permissions that the key needs, or a function of the request that returns them at once. */
  permissions?: RequestPermissions<Request>
  /** Accepts only a key that these keys have verified. */
  keys?: ApiKeyVerifier
}

/** Checks a request that `apiKeyAuth` or `markSession` has seen: null lets it in, a response refuses it. */
export type RequestGuard = (request: Request) => Response | null

/**
 * Lets in only a login session that `markSession()` has marked, and refuses every request that presents a key, even an
 * invalid one: 401 `authentication_required` without a login, otherwise 403 `session_required`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const refused = requireSession()(request)
 * if (refused) return refused
 */
export function requireSession(options?: Omit<SessionGuardOptions, 'refuseWith'>): RequestGuard {
  return toGuard(sessionGuard(checkOptions(options)))
}

/**
 * Lets in only a request that an API key has authenticated: 401 `missing_key` for an unauthenticated request, otherwise
 * 403 `api_key_required`. With `permissions`, 403 `insufficient_permissions` names what the key lacks.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 */
export function requireApiKey(options?: ApiKeyGuardOptions): RequestGuard {
  return toGuard(apiKeyGuard<Request>(checkOptions(options)))
}

/**
 * Lets in a request that was authenticated in one of the accepted ways; by default, only sessions.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const refused = requireAuth({ accept: ['session', 'apikey'] })(request)
 */
export function requireAuth(options?: Omit<AuthGuardOptions, 'refuseWith'>): RequestGuard {
  return toGuard(authGuard(checkOptions(options)))
}

/**
 * Lets in a key that has the permissions. Sessions have none: it refuses them unless `accept` allows them. The permissions
 * may be a function of the request that returns them at once: it is called for keys only.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 */
export function requirePermissions(
  permissions: RequestPermissions<Request>,
  options?: Omit<PermissionGuardOptions, 'refuseWith'>,
): RequestGuard {
  return toGuard(permissionGuard(permissions, checkOptions(options)))
}

function toGuard(guard: Guard): RequestGuard {
  return (request) => {
    const refusal = guard(request)
    return refusal && ResponseParts.of(request).finish(problemResponse(refusal))
  }
}
