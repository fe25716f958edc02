import type { NextFunction, Request, RequestHandler, Response } from 'express'
import type { ApiKey } from '../core/keys/record.ts'
import { checkShownProof } from '../http/assert-auth-unchanged.ts'
import { checkFunction } from '../internal/options.ts'
import type { ExpressUser } from './get-auth.ts'
import { type ApiKeyGuardOptions, requireApiKey } from './guards.ts'

/** A request that an API key has authenticated. Takes the type parameters of Express's `Request`. */
export type ApiKeyRequest<
  P = Request['params'],
  ResBody = Request['body'],
  ReqBody = Request['body'],
  ReqQuery = Request['query'],
  Locals extends Response['locals'] = Response['locals'],
> = Request<P, ResBody, ReqBody, ReqQuery, Locals> & {
  /** The key that authenticated the request. */
  apiKey: ApiKey
  /** The user that the key belongs to. */
  user: ExpressUser
  authMethod: 'apikey'
}

/**
 * Runs a handler only for requests that an API key has authenticated, so `req.apiKey` and `req.user` are set, in the
 * types too. It refuses other requests as `requireApiKey(options)` does. If other code has overwritten these properties
 * since, the request fails with a TypeError.
 *
 * TypeScript cannot infer the path parameters of a wrapped handler: name them, or use `app.route`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.get('/export', apiKeyAuth(keys), withApiKey((req, res) => void res.json(req.apiKey.owner)))
 * app.get('/projects/:id', withApiKey<{ id: string }>((req, res) => show(req.params.id, res), {
 *   permissions: { projects: ['read'] },
 * }))
 * app.route('/projects/:id').get(withApiKey((req, res) => show(req.params.id, res)))
 */
export function withApiKey<
  P = Request['params'],
  ResBody = Request['body'],
  ReqBody = Request['body'],
  ReqQuery = Request['query'],
  Locals extends Response['locals'] = Response['locals'],
>(
  handler: (
    req: ApiKeyRequest<P, ResBody, ReqBody, ReqQuery, Locals>,
    res: Response<ResBody, Locals>,
    next: NextFunction,
  ) => unknown,
  options?: ApiKeyGuardOptions,
): RequestHandler<P, ResBody, ReqBody, ReqQuery, Locals> {
  checkFunction('handler', handler)
  const guard = requireApiKey(options) as RequestHandler<P, ResBody, ReqBody, ReqQuery, Locals>
  return function handleWithApiKey(req, res, next) {
    let returned: unknown
    // The guard answers at once. Express 5 waits for what a handler returns, and takes a rejection for an error.
    guard(req, res, (refusal) => {
      if (refusal !== undefined) {
        next(refusal)
        return
      }
      checkShownProof(req)
      returned = handler(req as ApiKeyRequest<P, ResBody, ReqBody, ReqQuery, Locals>, res, next)
    })
    return returned
  }
}
