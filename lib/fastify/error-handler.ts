import { isLatchkeyError } from '../errors.ts'
import { sendProblemInReply } from '../http/send-problem.ts'
import type { AnyReply, AnyRequest } from './request-hook.ts'

/**
 * Error handler that answers this package's errors with problem bodies (RFC 9457), and passes every other error on to the handler
 * of the surrounding context.
 *
 * @example
 * app.setErrorHandler(apiKeyErrorHandler())
 */
export function apiKeyErrorHandler(): (error: unknown, request: AnyRequest, reply: AnyReply) => void {
  return function handleApiKeyError(error, _request, reply) {
    if (!isLatchkeyError(error) || reply.sent) throw error
    sendProblemInReply(reply, error)
  }
}
