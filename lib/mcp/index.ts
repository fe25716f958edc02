export type { RegisteredUser } from '../http/auth-mark.ts'
export type { AuthenticatorOptions } from '../http/authenticate-request.ts'
export type { RateLimitSyntax } from '../http/header-fields.ts'
export type { RequestCost } from '../http/middleware.ts'
export type { Problem } from '../http/problem.ts'
export type { RequestPermissions } from '../http/request-permissions.ts'
export { refund, settle } from '../http/settle-request.ts'
export { getAuth, type KeyAuth, type McpAuthInfo } from './auth-info.ts'
export type { McpOptions } from './authenticate-mcp.ts'
export { type McpGuard, type McpGuardOptions, mcpGuard } from './mcp-guard.ts'
export {
  type AdmittedMcpRequest,
  type McpWebGuard,
  type McpWebGuardOptions,
  mcpWebGuard,
  type RefusedMcpRequest,
} from './mcp-web-guard.ts'
export type { McpCall, McpRule, McpRules } from './rules.ts'
