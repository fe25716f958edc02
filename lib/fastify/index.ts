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
export { type ApiKeyAuthOptions, apiKeyAuth } from './api-key-auth.ts'
export { apiKeyErrorHandler } from './error-handler.ts'
export { getAuth, refund, settle } from './get-auth.ts'
export {
  type ApiKeyGuardOptions,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from './guards.ts'
export { type MarkSessionOptions, markSession } from './mark-session.ts'
export { type ApiKeyPluginOptions, type ApiKeyRouteConfig, apiKeyPlugin } from './plugin.ts'
export type { AnyReply, AnyRequest, RequestHook } from './request-hook.ts'
