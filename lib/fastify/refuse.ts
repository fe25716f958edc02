import type { ServerResponse } from 'node:http'
import type { LatchkeyError } from '../errors.ts'
import { keepFailureFields } from '../http/failed-response.ts'
import type { RefusalOptions } from '../http/guards.ts'
import { renderProblem, STALE_FIELDS } from '../http/problem.ts'
import type { AnyReply } from './request-hook.ts'

/** Answers with the problem body of `error`; with `'error'` hands it to the error handlers, Fastify's own last. */
export function refuse(
  reply: AnyReply,
  error: LatchkeyError,
  refuseWith: RefusalOptions['refuseWith'],
  done: (error: Error) => void,
): void {
  if (refuseWith !== 'error') {
    sendProblem(reply, error)
    return
  }
  keepFailureFields(reply.raw as ServerResponse, error)
  done(error)
}

/** Answers with the problem body of `error`, unless the request already has an answer. */
export function sendProblem(reply: AnyReply, error: LatchkeyError): void {
  if (reply.sent) return
  const { headers, body } = renderProblem(error)
  for (const name of STALE_FIELDS) reply.removeHeader(name)
  // To the type of a text, Fastify would add a charset.
  reply.code(error.status).headers(headers).send(Buffer.from(body))
}
