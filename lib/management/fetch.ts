import type { ApiKeys } from '../core/api-keys.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import { API_OPTIONS, createKeyManagementApi, type KeyManagementApiOptions } from './key-management-api.ts'
import { checkMountPath, relativeTo } from './mount-path.ts'

export type { Ability, Actor, ActorOwner } from './actor.ts'
export type { ClientFields, DurationCeiling, QuotaCeiling } from './client-fields.ts'
export type { Action } from './policy.ts'
export type { RequestLimitOptions } from './request-limit.ts'

/** Options of `apiKeyRouter`. */
export interface ApiKeyRouterOptions extends KeyManagementApiOptions<Request> {
  /**
   * The path of the interface. It answers requests for other paths with 404.
   *
   * @default '/api-keys'
   */
  path?: string
  /**
   * Reads the client's address, for keys with `allowedIps`, if no caller gives one. A web `Request` has none.
   *
   * @default no address: keys with `allowedIps` are refused
   */
  ip?: (request: Request) => string | undefined
}

/** Answers a request. `context` is what the server knows of it: the client's address, which replaces the option `ip`. */
export type ApiKeyRouter = (request: Request, context?: { ip?: string | undefined }) => Promise<Response>

/**
 * Creates a function for managing keys over HTTP. It answers every web `Request` under `path`, and reads its body.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const manageKeys = apiKeyRouter(keys, {
 *   path: '/api-keys',
 *   actor: async (request) => {
 *     const user = await sessions.userOf(request)
 *     return user && { id: user.id, owners: [{ type: 'user', id: user.id }] }
 *   },
 * })
 */
export function apiKeyRouter(keys: ApiKeys, options: ApiKeyRouterOptions): ApiKeyRouter {
  checkObject('options', options, ['path', ...API_OPTIONS])
  const { path = '/api-keys', ip: readIp, ...rest } = options
  if (readIp !== undefined) checkFunction('ip', readIp)
  const mount = checkMountPath(path)
  const addresses = new WeakMap<Request, string>()
  const ip = (request: Request) => addresses.get(request) ?? readIp?.(request)
  const api = createKeyManagementApi<Request>(keys, { ...rest, ip })

  return async function manageApiKeys(request, context = {}) {
    const { pathname, search } = new URL(request.url)
    const relative = relativeTo(mount, pathname)
    if (relative === null) return new Response(null, { status: 404 })
    if (context.ip !== undefined) addresses.set(request, context.ip)
    const url = relative + search
    const { status, headers, body } = await api.handle({ method: request.method, url, source: request })
    return new Response(status === 204 ? null : body, { status, headers })
  }
}
