import type { ApiKey } from '../core/keys/record.ts'
import type { ErrorCode } from '../errors.ts'
import { partsOf, type RequestParts, rawRequest, userProperty } from './raw-request.ts'
import { type AuthMark, stateOf } from './request-state.ts'

declare global {
  namespace Latchkey {
    /**
     * Registers the application's user type, once, for every entry point of this package:
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

/** The application's registered user type, or `Fallback`. */
export type RegisteredUser<Fallback = unknown> = Latchkey.Register extends { user: infer U } ? U : Fallback

/** How a request was authenticated. */
export type AuthMethod = 'apikey' | 'session' | 'other'

/**
 * Who made a request, and how they authenticated. Narrow on `method`:
 *
 * - `apikey`: by a key; `user` is the user that the key belongs to.
 * - `session`: by a login session that `markSession()` has marked.
 * - `other`: the request has a user that came from neither, or the application's own code verified the key.
 * - `rejected`: a key was presented and refused, with `code`. Nothing else in the request counts.
 * - `conflict`: other code replaced the user after authentication. No user is trusted.
 * - `none`: the request is not authenticated.
 */
export type Auth<User = RegisteredUser> =
  | { readonly method: 'apikey'; readonly user: User; readonly apiKey: ApiKey }
  | { readonly method: 'session'; readonly user: User }
  | { readonly method: 'other'; readonly user: User }
  | { readonly method: 'rejected'; readonly code: ErrorCode }
  | { readonly method: 'conflict' }
  | { readonly method: 'none' }

export function readMark(request: object): AuthMark | undefined {
  return stateOf(rawRequest(request)).mark
}

/** Marks the request, replacing any earlier mark, and shows the mark on it. */
export function writeMark(parts: RequestParts, mark: AuthMark): void {
  stateOf(parts.raw).mark = Object.freeze(mark)
  showMark(parts)
}

const shown = new WeakSet<object>()

/**
 * Shows the mark as `authMethod` and `apiKey`, marked or not. On Koa these are plain values of `ctx.state`. Elsewhere
 * they are accessors: on the prototype that all requests of an Express application share, or on the request itself if
 * there is none or other code has set properties of those names.
 */
export function showMark({ request, raw, properties }: RequestParts): void {
  if (properties !== request) {
    const { mark } = stateOf(raw)
    properties.authMethod = mark ? shownMethod(mark.method) : shownMethod(getAuth(request).method)
    properties.apiKey = mark?.method === 'apikey' ? mark.apiKey : undefined
    return
  }
  const prototype = Object.getPrototypeOf(properties)
  if (
    !isShared(prototype) ||
    Object.hasOwn(properties, 'authMethod') ||
    Object.hasOwn(properties, 'apiKey')
  ) {
    addViews(properties)
  } else if (!shown.has(prototype)) {
    addViews(outermost(prototype))
    shown.add(prototype)
  }
}

function shownMethod(method: Auth['method']): AuthMethod | undefined {
  return method === 'apikey' || method === 'session' || method === 'other' ? method : undefined
}

function addViews(target: object): void {
  Object.defineProperty(target, 'authMethod', AUTH_METHOD)
  Object.defineProperty(target, 'apiKey', API_KEY)
}

function isShared(prototype: object | null): prototype is object {
  return prototype !== null && Object.hasOwn(prototype, 'app')
}

/** A mounted application inherits from the one around it, which gives the request its own prototype back. */
function outermost(prototype: object): object {
  const outer = Object.getPrototypeOf(prototype)
  return isShared(outer) ? outermost(outer) : prototype
}

/** Returns who made the request, and how they authenticated. Reads only what earlier middlewares established. */
export function getAuth<User = RegisteredUser>(request: object): Auth<User> {
  const { raw, properties } = partsOf(request)
  const { mark } = stateOf(raw)
  const user = properties[userProperty(request)] as User
  const hasUser = !isNobody(user)
  if (!mark) return hasUser ? { method: 'other', user } : NOBODY
  if (mark.method === 'rejected') return { method: 'rejected', code: mark.code }
  if (user === mark.user) {
    return mark.method === 'apikey'
      ? { method: 'apikey', user, apiKey: mark.apiKey }
      : { method: mark.method, user }
  }
  // A session may end midway; a user that somebody exchanged is not the one that was proven.
  return hasUser || mark.method !== 'session' ? { method: 'conflict' } : NOBODY
}

/** Whether a value means no user, as in Passport. 0 and an empty string may be a user's id. */
export function isNobody(user: unknown): boolean {
  return user === undefined || user === null || user === false
}

const NOBODY = Object.freeze({ method: 'none' })

const AUTH_METHOD: PropertyDescriptor & ThisType<object> = {
  get() {
    return shownMethod(getAuth(this).method)
  },
  // A middleware that assigns its own `authMethod` changes nothing, and does not crash.
  set() {},
  enumerable: true,
  configurable: true,
}

const API_KEY: PropertyDescriptor & ThisType<object> = {
  get() {
    const mark = readMark(this)
    return mark?.method === 'apikey' ? mark.apiKey : undefined
  },
  // What an application assigns is what it reads; the mark stays.
  set(value) {
    Object.defineProperty(this, 'apiKey', { value, writable: true, enumerable: true, configurable: true })
  },
  enumerable: true,
  configurable: true,
}
