import type { ApiKey } from '../core/keys/record.ts'
import type { AuthMethod } from '../http/auth-mark.ts'
import type { ApiKeyAuthenticateOptions } from './api-key-strategy.ts'

export { type Auth, type AuthMethod, getAuth, type RegisteredUser } from '../http/auth-mark.ts'
export type { AuthenticatorOptions } from '../http/authenticate-request.ts'
export type { RateLimitSyntax } from '../http/header-fields.ts'
export { refund, settle } from '../http/settle-request.ts'
export {
  type ApiKeyAuthenticateOptions,
  type ApiKeyRouteOptions,
  ApiKeyStrategy,
  ApiKeyStrategy as Strategy,
  type ApiKeyStrategyOptions,
  type VerifyDone,
  type VerifyFunction,
  type VerifyFunctionWithRequest,
} from './api-key-strategy.ts'
export { BadRequestError } from './bad-request-error.ts'
export {
  type HeaderAPIKeyConfig,
  type HeaderAPIKeyDone,
  HeaderAPIKeyStrategy,
  HeaderAPIKeyStrategy as default,
  type HeaderAPIKeyVerify,
  type HeaderAPIKeyVerifyDoneLast,
} from './header-api-key-strategy.ts'
export type { PassportRequest } from './strategy-base.ts'

declare module 'passport' {
  // An overload by name: any other strategy, such as `local`, ignores `permissions` and lets everybody in.
  interface Authenticator<InitializeRet, AuthenticateRet, AuthorizeRet, AuthorizeOptions> {
    /** Authenticates by API key. `permissions` and `cost` are the route's requirements for the key. */
    authenticate(
      strategy: 'apikey' | ['apikey', ...string[]] | [...string[], 'apikey'],
      options: ApiKeyAuthenticateOptions,
      // biome-ignore lint/suspicious/noExplicitAny: as Passport's own types have it.
      callback?: (...args: any[]) => any,
    ): AuthenticateRet
  }
}

declare global {
  namespace Express {
    interface Request {
      /** The key that authenticated the request. */
      apiKey?: ApiKey | undefined
      /** How the request was authenticated. Assigning to it has no effect on guards. */
      authMethod?: AuthMethod | undefined
    }
  }
}
