import type { ServerResponse } from 'node:http'
import type { ReplyLike } from '../http/send-problem.ts'
import type { ApiResponse } from './key-management-api.ts'

/** Sends an answer of the interface, unless another middleware, such as a timeout, has answered in the meantime. */
export function sendAnswer(res: ServerResponse, { status, headers, body }: ApiResponse): void {
  if (res.headersSent) return
  res.statusCode = status
  const { Vary: vary, ...fields } = headers
  // Other middlewares may have set `Vary` too.
  if (vary !== undefined) res.setHeader('Vary', withField(res.getHeader('Vary'), vary))
  for (const [name, value] of Object.entries(fields)) res.setHeader(name, value)
  // Node sets it only if it sends the body. The response to HEAD has it as well (RFC 9110 §9.3.2).
  if (status !== 204) res.setHeader('Content-Length', Buffer.byteLength(body))
  res.end(body)
}

/** The same with the reply of Fastify, which knows the length of the body itself. */
export function sendAnswerInReply(reply: ReplyLike, { status, headers, body }: ApiResponse): void {
  if (reply.sent) return
  const { Vary: vary, ...fields } = headers
  if (vary !== undefined) reply.header('Vary', withField(reply.getHeader('Vary'), vary))
  reply.code(status)
  reply.headers(fields)
  reply.send(Buffer.from(body))
}

function withField(present: number | string | readonly string[] | undefined, field: string): string {
  const names = [present ?? []].flat().join(', ')
  const isThere = names
    .split(',')
    .some((name) => ['*', field.toLowerCase()].includes(name.trim().toLowerCase()))
  return isThere ? names : [names, field].filter(Boolean).join(', ')
}
