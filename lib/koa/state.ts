import type { ApiKey } from '../core/record.ts'
import type { AuthMethod, RegisteredUser } from '../http/auth-mark.ts'

/** What `apiKeyAuth` and `markSession` set on `ctx.state`. */
export interface ApiKeyState<User = RegisteredUser> {
  /** The key that authenticated the request. */
  apiKey?: ApiKey | undefined
  /** Whom the key stands for, or the session has logged in. */
  user?: User | undefined
  /** How the request was authenticated; a view of what was proven, which assigning does not change. */
  authMethod?: AuthMethod | undefined
}
