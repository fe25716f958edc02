import type { NextFunction, Request, RequestHandler, Response } from 'express'
import type { ApiKey } from '../core/keys/record.ts'
import { checkShownProof } from '../http/assert-auth-unchanged.ts'
import type { ApiKeyGuardOptions } from '../http/guards.ts'
import { checkFunction } from '../internal/options.ts'
import type { ExpressUser } from './get-auth.ts'
import { requireApiKey } from './guards.ts'

/** A request that an API key has authenticated. The parameters are those of Express's `Request`. */
export type ApiKeyRequest<
  P = Request['params'],
  ResBody = Request['body'],
  ReqBody = Request['body'],
  ReqQuery = Request['query'],
  Locals extends Response['locals'] = Response['locals'],
> = Request<P, ResBody, ReqBody, ReqQuery, Locals> & {
  /** The key that authenticated the request. */
  apiKey: ApiKey
  /** Whom the key stands for. */
  user: ExpressUser
  authMethod: 'apikey'
}

/**
 * Runs a handler only for a request that an API key has authenticated, so that `req.apiKey` and `req.user` are there,
 * in its types too. It refuses the others as `requireApiKey(options)` does. A property that something has
 * overwritten since then is a TypeError, on the request.
 *
 * TypeScript does not tell a wrapped handler the parameters of its path: name them, or use `app.route`.
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
