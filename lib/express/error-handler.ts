import type { ErrorRequestHandler } from 'express'
import { isLatchkeyError } from '../errors.ts'
import { sendProblem } from '../http/send-problem.ts'

/**
 * Error handler that answers this package's errors with problem bodies (RFC 9457) and passes every other error on.
 * Mount it before your own error handler.
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
