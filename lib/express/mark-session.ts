import type { Request, RequestHandler } from 'express'
import { createSessionMarker, type MarkSessionOptions } from '../http/mark-session.ts'

/**
 * Marks requests of a logged-in session. Mount it right after your session middleware and before anything else that
 * sets `req.user`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.use(session({ … }), passport.session(), markSession())
 * app.use(session({ … }), markSession({ user: (req) => req.session.user }))
 */
export function markSession(options: MarkSessionOptions<Request> = {}): RequestHandler {
  const mark = createSessionMarker(options)
  return function markSessionOfRequest(req, _res, next) {
    mark(req)
    next()
  }
}
