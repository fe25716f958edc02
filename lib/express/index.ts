import type { ApiKey } from '../core/keys/record.ts'
import type { AuthMethod } from '../http/auth-mark.ts'

export type { Auth, AuthMethod, RegisteredUser } from '../http/auth-mark.ts'
export type { AuthenticatorOptions } from '../http/authenticate-request.ts'
export type {
  AuthGuardOptions,
  PermissionGuardOptions,
  SessionGuardOptions,
} from '../http/guards.ts'
export type { RateLimitSyntax } from '../http/header-fields.ts'
export type { MarkSessionOptions } from '../http/mark-session.ts'
export type { RequestCost } from '../http/middleware.ts'
export type { Problem } from '../http/problem.ts'
export type { RequestPermissions } from '../http/request-permissions.ts'
export { refund, settle } from '../http/settle-request.ts'
export { type ApiKeyAuthOptions, apiKeyAuth } from './api-key-auth.ts'
export { apiKeyErrorHandler } from './error-handler.ts'
export { type ExpressUser, getAuth } from './get-auth.ts'
export {
  type ApiKeyGuardOptions,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from './guards.ts'
export { markSession } from './mark-session.ts'
export { type ApiKeyRequest, withApiKey } from './with-api-key.ts'

declare global {
  namespace Express {
    /** Passport's types declare it too, but an application need not have them. */
    interface User {}
    interface Request {
      /** The key that authenticated the request. */
      apiKey?: ApiKey | undefined
      /** How the request was authenticated. Assigning to it has no effect on guards. */
      authMethod?: AuthMethod | undefined
    }
  }
}
