import type { ErrorRequestHandler } from 'express'
import { isLatchkeyError } from '../errors.ts'
import { sendProblem } from './send-problem.ts'

/**
 * An error handler that answers the errors of this package with problem bodies (RFC 9457) and passes every other
 * error on. Mount it before the application's own.
 *
 * @example
 * app.use(apiKeyErrorHandler())
 */
export function apiKeyErrorHandler(): ErrorRequestHandler {
  return function handleApiKeyError(error, _req, res, next) {
    if (isLatchkeyError(error) && !res.headersSent) sendProblem(res, error)
    else next(error)
  }
}
