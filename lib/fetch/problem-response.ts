import type { LatchkeyError } from '../errors.ts'
import { renderProblem } from '../http/problem.ts'

/**
 * The answer to a request that failed with this error: its status, header fields and problem body (RFC 9457).
 *
 * @example
 * if (isLatchkeyError(error)) return problemResponse(error)
 */
export function problemResponse(error: LatchkeyError): Response {
  const { headers, body } = renderProblem(error)
  const length = String(Buffer.byteLength(body))
  return new Response(body, { status: error.status, headers: { ...headers, 'Content-Length': length } })
}
