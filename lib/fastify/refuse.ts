import type { ServerResponse } from 'node:http'
import type { LatchkeyError } from '../errors.ts'
import { keepFailureFields } from '../http/failed-response.ts'
import type { RefusalOptions } from '../http/guards.ts'
import { sendProblemInReply } from '../http/send-problem.ts'
import type { AnyReply } from './request-hook.ts'

/** Answers with the problem body of `error`; with `'error'` hands it to the error handlers, Fastify's own last. */
export function refuse(
  reply: AnyReply,
  error: LatchkeyError,
  refuseWith: RefusalOptions['refuseWith'],
  done: (error: Error) => void,
): void {
  if (refuseWith !== 'error') {
    sendProblemInReply(reply, error)
    return
  }
  keepFailureFields(reply.raw as ServerResponse, error)
  done(error)
}
