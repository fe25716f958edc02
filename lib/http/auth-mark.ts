import type { ApiKeyVerifier } from '../core/key-verifier.ts'
import type { ApiKey } from '../core/record.ts'
import type { ErrorCode } from '../errors.ts'
import { rawRequest, userProperty } from './raw-request.ts'

declare global {
  namespace Latchkey {
    /**
     * Registers the application's user type, once, for every door of this package:
     *
     * ```ts
     * declare global {
     *   namespace Latchkey {
     *     interface Register { user: User }
     *   }
     * }
     * ```
     */
    interface Register {}
  }
}

/** The application's user type, where it is registered; otherwise `Fallback`. */
export type RegisteredUser<Fallback = unknown> = Latchkey.Register extends { user: infer U } ? U : Fallback

/** How a request was authenticated, in a word. */
export type AuthMethod = 'apikey' | 'session' | 'other'

/**
 * Who is asking, and how that was proven. Narrow on `method`:
 *
 * - `apikey`: by a key; `user` is whom the key stands for.
 * - `session`: by a login session that `markSession()` has seen.
 * - `other`: there is a user, and neither of the two put it there.
 * - `rejected`: a key was presented and refused, for `code`. Whatever else the request carries does not count.
 * - `conflict`: somebody replaced the user after the proof. Nobody is trusted.
 * - `none`: nobody.
 */
export type Auth<User = RegisteredUser> =
  | { readonly method: 'apikey'; readonly user: User; readonly apiKey: ApiKey }
  | { readonly method: 'session'; readonly user: User }
  | { readonly method: 'other'; readonly user: User }
  | { readonly method: 'rejected'; readonly code: ErrorCode }
  | { readonly method: 'conflict' }
  | { readonly method: 'none' }

/** The truth about how a request was authenticated; `req.authMethod` and `getAuth` are views of it. */
export type AuthMark =
  | {
      readonly method: 'apikey'
      readonly user: unknown
      readonly apiKey: ApiKey
      readonly keys: ApiKeyVerifier
    }
  | { readonly method: 'session'; readonly user: unknown }
  | { readonly method: 'rejected'; readonly code: ErrorCode; readonly keys: ApiKeyVerifier }

/**
 * Under `Symbol.for`, so that both copies of the package read one mark; on the raw request, so that
 * frameworks that wrap it keep it; not enumerable and not writable, so that nothing copies or sets it by accident.
 */
const MARK = Symbol.for('latchkey.auth')

export function readMark(request: object): AuthMark | undefined {
  return (rawRequest(request) as { [MARK]?: AuthMark })[MARK]
}

/** Stamps the request, and hangs the view `authMethod` on it. */
export function writeMark(request: object, mark: AuthMark): void {
  const raw = rawRequest(request)
  const isFirst = !Object.hasOwn(raw, MARK)
  Object.defineProperty(raw, MARK, { value: Object.freeze(mark), configurable: true })
  if (isFirst || !Object.hasOwn(request, 'authMethod'))
    Object.defineProperty(request, 'authMethod', AUTH_METHOD)
}

/** Who is asking, and how that was proven. Reads nothing but what middlewares have established. */
export function getAuth<User = RegisteredUser>(request: object): Auth<User> {
  const mark = readMark(request)
  const user = (request as Record<string, unknown>)[userProperty(request)] as User
  const hasUser = user !== undefined && user !== null
  if (!mark) return hasUser ? { method: 'other', user } : NOBODY
  if (mark.method === 'rejected') return { method: 'rejected', code: mark.code }
  if (user === mark.user) {
    return mark.method === 'apikey'
      ? { method: 'apikey', user, apiKey: mark.apiKey }
      : { method: 'session', user }
  }
  // A session may end midway; a user that somebody exchanged is not the one that was proven.
  return hasUser || mark.method === 'apikey' ? { method: 'conflict' } : NOBODY
}

const NOBODY = Object.freeze({ method: 'none' })

const AUTH_METHOD: PropertyDescriptor & ThisType<object> = {
  get() {
    const { method } = getAuth(this)
    return method === 'apikey' || method === 'session' || method === 'other' ? method : undefined
  },
  // A middleware that assigns its own `authMethod` changes nothing, and does not crash.
  set() {},
  enumerable: true,
  configurable: true,
}
