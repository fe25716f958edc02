import type { Request, RequestHandler } from 'express'
import type { ApiKeys } from '../core/api-keys.ts'
import { checkObject } from '../internal/options.ts'
import { API_OPTIONS, createKeyManagementApi, type KeyManagementApiOptions } from './key-management-api.ts'
import { sendAnswer } from './send-answer.ts'

export type { Ability, Actor, ActorOwner } from './actor.ts'
export type { ClientFields, DurationCeiling, QuotaCeiling } from './client-fields.ts'
export type { Action } from './policy.ts'
export type { RequestLimitOptions } from './request-limit.ts'

/** Options of `apiKeyRouter`. */
export interface ApiKeyRouterOptions extends KeyManagementApiOptions<Request> {
  /**
   * Reads the client's address, for keys with `allowedIps`.
   *
   * @default (req) => req.ip, which follows Express's `trust proxy` setting
   */
  ip?: (req: Request) => string | undefined
}

/**
 * Creates a middleware for managing keys over HTTP. It answers every request under its mount path.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.use('/api-keys', apiKeyRouter(keys, {
 *   actor: (req) => req.user && { id: req.user.id, owners: [{ type: 'user', id: req.user.id }] },
 * }))
 */
export function apiKeyRouter(keys: ApiKeys, options: ApiKeyRouterOptions): RequestHandler {
  checkObject('options', options, API_OPTIONS)
  const api = createKeyManagementApi<Request>(keys, { ...options, ip: options.ip ?? ((req) => req.ip) })

  return function manageApiKeys(req, res, next) {
    const { method, url, body: parsedBody } = req
    api
      .handle({ method, url, source: req, parsedBody })
      .then((answer) => sendAnswer(res, answer))
      .catch(next)
  }
}
