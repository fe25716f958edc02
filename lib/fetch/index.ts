export type { Auth, AuthMethod, RegisteredUser } from '../http/auth-mark.ts'
export type { AuthenticatorOptions } from '../http/authenticate-request.ts'
export type {
  AuthGuardOptions,
  PermissionGuardOptions,
  SessionGuardOptions,
} from '../http/guards.ts'
export type { RateLimitSyntax } from '../http/header-fields.ts'
export type { RequestCost } from '../http/middleware.ts'
export type { Problem } from '../http/problem.ts'
export type { RequestPermissions } from '../http/request-permissions.ts'
export { refund, settle } from '../http/settle-request.ts'
export {
  type AdmittedRequest,
  type ApiKeyAuthOptions,
  type Authenticate,
  apiKeyAuth,
  type KeyAuth,
  type RefusedRequest,
  type RequestContext,
} from './api-key-auth.ts'
export { getAuth } from './get-auth.ts'
export {
  type ApiKeyGuardOptions,
  type RequestGuard,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from './guards.ts'
export { type MarkSessionOptions, markSession } from './mark-session.ts'
export { problemResponse } from './problem-response.ts'
export { type ApiKeyHandler, withApiKey } from './with-api-key.ts'
