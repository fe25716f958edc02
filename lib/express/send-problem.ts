import type { Response } from 'express'
import type { LatchkeyError } from '../errors.ts'
import { renderProblem, STALE_FIELDS } from '../http/problem.ts'

/** Answers with the problem body of `error`, unless the request already has an answer. */
export function sendProblem(res: Response, error: LatchkeyError): void {
  if (res.headersSent) return
  const { headers, body } = renderProblem(error)
  for (const name of STALE_FIELDS) res.removeHeader(name)
  res.statusCode = error.status
  for (const [name, value] of Object.entries(headers)) res.setHeader(name, value)
  // Node computes it only where the body is sent: the answer to HEAD has it as well (RFC 9110 §9.3.2).
  res.setHeader('Content-Length', Buffer.byteLength(body))
  res.end(body)
}
