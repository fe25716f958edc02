import type { Context, Middleware } from 'koa'
import type { ApiKeys } from '../core/api-keys.ts'
import { checkObject } from '../internal/options.ts'
import { API_OPTIONS, createKeyManagementApi, type KeyManagementApiOptions } from './key-management-api.ts'
import { checkMountPath, relativeTo } from './mount-path.ts'

export type { Ability, Actor, ActorOwner } from './actor.ts'
export type { ClientFields, DurationCeiling, QuotaCeiling } from './client-fields.ts'
export type { Action } from './policy.ts'
export type { RequestLimitOptions } from './request-limit.ts'

/** Options of `apiKeyRouter`. */
export interface ApiKeyRouterOptions extends KeyManagementApiOptions<Context> {
  /**
   * The path to answer under. Requests for other paths go to the next middleware. `/` answers all requests: use it with `koa-mount`,
   * which removes the path.
   *
   * @default '/api-keys'
   */
  path?: string
  /**
   * Reads the client's address, for keys with `allowedIps`.
   *
   * @default (ctx) => ctx.ip, which follows Koa's `proxy` setting. Behind a proxy set `maxIpsCount` as well: without it
   * Koa believes the first address of `X-Forwarded-For`, which the client writes.
   */
  ip?: (ctx: Context) => string | undefined
}

/**
 * Creates a middleware for managing keys over HTTP. It answers every request under `path`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.use(apiKeyRouter(keys, {
 *   path: '/api-keys',
 *   actor: (ctx) => ctx.state.user && { id: ctx.state.user.id, owners: [{ type: 'user', id: ctx.state.user.id }] },
 * }))
 */
export function apiKeyRouter(keys: ApiKeys, options: ApiKeyRouterOptions): Middleware {
  checkObject('options', options, ['path', ...API_OPTIONS])
  const { path = '/api-keys', ...rest } = options
  const mount = checkMountPath(path)
  const api = createKeyManagementApi<Context>(keys, { ...rest, ip: rest.ip ?? ((ctx) => ctx.ip) })

  return async function manageApiKeys(ctx, next) {
    const context = ctx as Context
    const relative = relativeTo(mount, context.path)
    if (relative === null) return next()
    const url = relative + context.search
    const parsedBody = (context.request as { body?: unknown }).body
    const { status, headers, body } = await api.handle({
      method: context.method,
      url,
      source: context,
      parsedBody,
    })
    // Another middleware, such as a timeout, may have answered in the meantime.
    if (context.headerSent) return
    context.status = status
    const { Vary: vary, ...fields } = headers
    // Other middlewares may have set `Vary` too.
    if (vary !== undefined) context.vary(vary)
    context.set(fields)
    context.body = body
    // Koa does not end the response if the application responds by itself.
    if (context.respond === false) context.res.end(body)
  }
}
