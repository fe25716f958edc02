import type { Context } from 'koa'
import type { LatchkeyError } from '../errors.ts'
import { keepFailureFields } from '../http/failed-response.ts'
import type { RefusalOptions } from '../http/guards.ts'
import { renderProblem, STALE_FIELDS } from '../http/problem.ts'

/** Answers with the problem body of `error`; with `'error'` throws it to earlier middlewares, or to Koa. */
export function refuse(ctx: Context, error: LatchkeyError, refuseWith: RefusalOptions['refuseWith']): void {
  if (refuseWith !== 'error') {
    sendProblem(ctx, error)
    return
  }
  keepFailureFields(ctx.res, error)
  throw error
}

/** Answers with the problem body of `error`, unless the request already has an answer. */
export function sendProblem(ctx: Context, error: LatchkeyError): void {
  if (ctx.headerSent) return
  const { headers, body } = renderProblem(error)
  for (const name of STALE_FIELDS) ctx.remove(name)
  ctx.status = error.status
  ctx.set(headers)
  ctx.body = body
  // Where the application answers by itself, Koa ends no response: nobody who was refused is left to do it.
  if (ctx.respond === false) ctx.res.end(body)
}
