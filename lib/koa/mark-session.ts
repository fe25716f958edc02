import type { Context, Middleware } from 'koa'
import { createSessionMarker, type MarkSessionOptions } from '../http/mark-session.ts'
import type { ApiKeyState } from './state.ts'

/**
 * Marks requests of a logged-in session. Mount it right after your session middleware and before anything else that
 * sets `ctx.state.user`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.use(session(app)).use(passport.session()).use(markSession())
 * app.use(session(app)).use(markSession({ user: (ctx) => ctx.session?.user }))
 */
export function markSession(options: MarkSessionOptions<Context> = {}): Middleware<ApiKeyState, unknown> {
  const mark = createSessionMarker(options)
  return function markSessionOfRequest(ctx, next) {
    mark(ctx as Context)
    return next()
  }
}
