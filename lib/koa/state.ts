import type { ApiKey } from '../core/keys/record.ts'
import type { AuthMethod, RegisteredUser } from '../http/auth-mark.ts'

/** What `apiKeyAuth` and `markSession` set on `ctx.state`. */
export interface ApiKeyState<User = RegisteredUser> {
  /** The key that authenticated the request. A plain value too. */
  apiKey?: ApiKey | undefined
  /** Whom the key stands for, or the session has logged in. */
  user?: User | undefined
  /**
   * How the request was authenticated, as of the last middleware of ours that looked. A plain value, which any middleware
   * can change: decide by `getAuth(ctx)`.
   */
  authMethod?: AuthMethod | undefined
}

/** What an API key has proven of a request, on `ctx.state` behind `withApiKey`. */
export interface ProvenApiKeyState<User = RegisteredUser> {
  /** The key that authenticated the request. */
  apiKey: ApiKey
  /** Whom the key stands for. */
  user: NonNullable<User>
  authMethod: 'apikey'
}
