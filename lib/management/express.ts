import type { Request, RequestHandler } from 'express'
import type { ApiKeys } from '../core/api-keys.ts'
import { createKeyManagementApi, type KeyManagementApiOptions } from './key-management-api.ts'

export type { Ability, Actor, ActorOwner } from './actor.ts'
export type { ClientFields, DurationCeiling, QuotaCeiling } from './client-fields.ts'
export type { Action } from './policy.ts'
export type { RequestLimitOptions } from './request-limit.ts'

/** What `apiKeyRouter` asks of the application, and what it allows. */
export interface ApiKeyRouterOptions extends KeyManagementApiOptions<Request> {
  /**
   * Reads the client's address, for keys with `allowedIps`.
   *
   * @default (req) => req.ip, which follows Express's `trust proxy` setting
   */
  ip?: (req: Request) => string | undefined
}

/**
 * Keys over HTTP: a middleware that answers every request under the path that it is mounted at.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.use('/api-keys', apiKeyRouter(keys, {
 *   actor: (req) => req.user && { id: req.user.id, owners: [{ type: 'user', id: req.user.id }] },
 * }))
 */
export function apiKeyRouter(keys: ApiKeys, options: ApiKeyRouterOptions): RequestHandler {
  const api = createKeyManagementApi<Request>(keys, { ...options, ip: options?.ip ?? ((req) => req.ip) })

  return function manageApiKeys(req, res, next) {
    const { method, url, body: parsedBody } = req
    api
      .handle({ method, url, source: req, parsedBody })
      .then(({ status, headers, body }) => {
        // While the store was asked, somebody else may have answered.
        if (res.headersSent) return
        res.statusCode = status
        const { Vary: vary, ...fields } = headers
        // Others may have said what their part of the answer varies by.
        if (vary !== undefined) res.vary(vary)
        for (const [name, value] of Object.entries(fields)) res.setHeader(name, value)
        // Node computes it only where the body is sent: the answer to HEAD has it as well (RFC 9110 §9.3.2).
        if (status !== 204) res.setHeader('Content-Length', Buffer.byteLength(body))
        res.end(body)
      })
      .catch(next)
  }
}
