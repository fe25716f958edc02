import type { ApiKey } from '../core/keys/record.ts'
import type { AuthMethod, RegisteredUser } from '../http/auth-mark.ts'

/** What `apiKeyAuth` and `markSession` set on `ctx.state`. */
export interface ApiKeyState<User = RegisteredUser> {
  /** The key that authenticated the request. A plain value, which any middleware can change. */
  apiKey?: ApiKey | undefined
  /** The user that the key belongs to, or that is logged in with the session. */
  user?: User | undefined
  /**
   * How the request was authenticated, as of Latchkey's last middleware. A plain value, which any middleware can
   * change: base decisions on `getAuth(ctx)`.
   */
  authMethod?: AuthMethod | undefined
}

/** What `ctx.state` holds in a handler of `withApiKey`. */
export interface ProvenApiKeyState<User = RegisteredUser> {
  /** The key that authenticated the request. */
  apiKey: ApiKey
  /** The user that the key belongs to. */
  user: NonNullable<User>
  authMethod: 'apikey'
}
