export type { Auth, AuthMethod, RegisteredUser } from '../http/auth-mark.ts'
export type { AuthenticatorOptions } from '../http/authenticate-request.ts'
export type { RateLimitSyntax } from '../http/header-fields.ts'
export type { RequestCost } from '../http/middleware.ts'
export type { Problem } from '../http/problem.ts'
export type { RequestPermissions } from '../http/request-permissions.ts'
export {
  Public,
  RequireKey,
  type RequireKeyOptions,
  RequireSession,
  RequireSessionOrKey,
} from './decorators.ts'
export type { LatchkeyModuleOptions } from './gatekeeper.ts'
export { getAuth, refund, settle } from './get-auth.ts'
export type { HttpRequest } from './http-exchange.ts'
export { LatchkeyGuard } from './latchkey.guard.ts'
export { LatchkeyModule, type LatchkeyModuleAsyncOptions } from './latchkey.module.ts'
export { LatchkeyExceptionFilter } from './latchkey-exception.filter.ts'
export { LatchkeyException } from './latchkey-exception.ts'
export { CurrentApiKey, CurrentAuth } from './parameters.ts'
export { API_KEYS } from './tokens.ts'
