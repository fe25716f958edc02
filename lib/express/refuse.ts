import type { NextFunction, Response } from 'express'
import type { LatchkeyError } from '../errors.ts'
import { keepFailureFields } from '../http/failed-response.ts'
import type { RefusalOptions } from '../http/guards.ts'
import { sendProblem } from '../http/send-problem.ts'

/** Answers with the problem body of `error`; with `'error'` hands it to the error handlers, Express's own last. */
export function refuse(
  res: Response,
  next: NextFunction,
  error: LatchkeyError,
  refuseWith: RefusalOptions['refuseWith'],
): void {
  if (refuseWith !== 'error') {
    sendProblem(res, error)
    return
  }
  keepFailureFields(res, error)
  next(error)
}
