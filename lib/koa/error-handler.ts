import type { Context, Middleware } from 'koa'
import { isLatchkeyError } from '../errors.ts'
import { sendProblem } from './refuse.ts'

/**
 * Middleware that answers the errors of this package with problem bodies (RFC 9457), whoever throws them behind it, and
 * leaves every other error alone. Mount it before the others.
 *
 * @example
 * app.use(apiKeyErrorHandler())
 */
export function apiKeyErrorHandler(): Middleware<unknown, unknown> {
  return async function handleApiKeyError(ctx, next) {
    try {
      await next()
    } catch (error) {
      if (!isLatchkeyError(error) || ctx.headerSent) throw error
      sendProblem(ctx as Context, error)
    }
  }
}
