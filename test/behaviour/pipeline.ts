import type { ApiKey, ApiKeys } from 'latchkey'
import type { App, GuardCall, Who } from './row.ts'
import type { Tokens } from './tokens.ts'

/** What an application is put together from. */
export type Part =
  | 'observe'
  | 'cors'
  | 'session'
  | 'login'
  | 'restore'
  | 'rewrite'
  | 'mark'
  | 'keys'
  | 'keysAgain'
  | 'meanwhile'
  | 'guard'
  | 'route'

/** What an adapter needs besides the description of the application. */
export interface Surroundings {
  readonly keys: ApiKeys
  /** Keys of another application. */
  readonly otherKeys: ApiKeys
  /** Whom a key stands for, where the application says that. */
  readonly resolveUser: ((apiKey: ApiKey) => unknown) | undefined
  readonly tokens: Pick<Tokens, 'fill'>
  /** Takes note of who a request is once it has been answered. */
  note(headers: Readonly<Record<string, unknown>>, who: Who): void
}

/** Whom the session logs in. */
export const SESSION_USER = Object.freeze({ name: 'Alice of the session' })

/** Whom another middleware puts on the request. */
export const OTHER_USER = Object.freeze({ name: 'somebody else' })

export const CORS_ORIGIN = 'https://app.example'

/** The parts of an application in the order in which a request meets them. */
export function partsOf(app: App): readonly Part[] {
  const keys: Part[] = app.keys === 'none' ? [] : app.asksAgain ? ['keys', 'keysAgain'] : ['keys']
  const login: Part[] = app.session ? ['session', 'login'] : []
  const marked: Part[] = app.session ? (app.session === 'unmarked' ? ['restore'] : ['restore', 'mark']) : []
  const authentication = app.session === 'after the keys' ? [...keys, ...marked] : [...marked, ...keys]
  const meanwhile: Part[] = app.meanwhile ? ['meanwhile'] : []
  const guard: Part[] = app.guard ? ['guard'] : []
  return [
    'observe',
    ...(app.cors ? (['cors'] as const) : []),
    ...login,
    ...(app.rewrites ? (['rewrite'] as const) : []),
    ...(app.guardFirst ? guard : []),
    ...authentication,
    ...meanwhile,
    ...(app.guardFirst ? [] : guard),
    'route',
  ]
}

/** Does to header fields what a middleware of the application's own does. */
export function rewriteHeaders(
  headers: Record<string, string | string[] | undefined>,
  { rewrites = {} }: App,
  { tokens }: Surroundings,
): void {
  for (const [name, value] of Object.entries(rewrites)) {
    if (value === null) delete headers[name]
    else headers[name] = typeof value === 'string' ? tokens.fill(value) : value.map(tokens.fill)
  }
}

/** The guards of a door. */
export interface Guards<Middleware> {
  requireSession(options?: object): Middleware
  requireAuth(options?: object): Middleware
  requireApiKey(options?: object): Middleware
  requirePermissions(permissions: never, options?: object): Middleware
}

export function createGuard<Middleware>(
  guards: Guards<Middleware>,
  call: GuardCall | undefined,
  { keys, otherKeys }: Surroundings,
  refuseWith: 'problem' | 'error' | null = 'problem',
): Middleware {
  if (!call) throw new Error('the application has no guard')
  const whose = 'keys' in call && call.keys ? { keys: call.keys === 'these' ? keys : otherKeys } : {}
  const options = { ...call.with, ...whose, ...(refuseWith && { refuseWith }) }
  if (call.name === 'requirePermissions') return guards.requirePermissions(call.permissions as never, options)
  return guards[call.name](options)
}
