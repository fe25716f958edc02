import type { Context, Middleware } from 'koa'
import { isLatchkeyError } from '../errors.ts'
import { sendProblem } from './refuse.ts'

/**
 * Middleware that answers this package's errors with problem bodies (RFC 9457), whichever later middleware throws them,
 * and rethrows every other error. Mount it before the others.
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
