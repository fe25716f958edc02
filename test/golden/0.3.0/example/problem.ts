import type { ErrorRequestHandler, Response } from 'express'

/** Answers with a problem body (RFC 9457), as Latchkey does. */
export function sendProblem(res: Response, status: number, title: string): void {
  res.status(status).set('Cache-Control', 'no-store').type('application/problem+json')
  res.send(JSON.stringify({ title, status }))
}

/** The last error handler: it tells the client about its own mistakes and logs ours. */
export const answerError: ErrorRequestHandler = (error, _req, res, next) => {
  if (res.headersSent) {
    next(error)
    return
  }
  const { status, message } = error as { status?: number; message?: string }
  // body-parser's 400 for broken JSON and 413 for too much of it, Passport's 400 and 401 for a login.
  if (status !== undefined && status >= 400 && status < 500) sendProblem(res, status, message ?? 'Refused')
  else {
    console.error(error)
    sendProblem(res, 500, 'Something went wrong')
  }
}
