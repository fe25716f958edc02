import type { ServerResponse } from 'node:http'
import type { LatchkeyError } from '../errors.ts'
import { renderProblem, STALE_FIELDS } from './problem.ts'
import type { ResponseFields } from './request-state.ts'

/** Answers with the problem body of `error`, unless the request already has an answer. */
export function sendProblem(res: ServerResponse, error: LatchkeyError): void {
  sendFailure(res, error.status, renderProblem(error))
}

/** Answers with a body that tells of a failure, unless the request already has an answer. */
export function sendFailure(
  res: ServerResponse,
  status: number,
  { headers, body }: { readonly headers: Readonly<Record<string, string>>; readonly body: string },
): void {
  if (res.headersSent) return
  for (const name of STALE_FIELDS) res.removeHeader(name)
  res.statusCode = status
  for (const [name, value] of Object.entries(headers)) res.setHeader(name, value)
  // Node computes it only where the body is sent: the answer to HEAD has it as well (RFC 9110 §9.3.2).
  res.setHeader('Content-Length', Buffer.byteLength(body))
  res.end(body)
}

/** The parts of Fastify's reply that this package uses. */
export interface ReplyLike {
  readonly sent: boolean
  readonly raw: object
  code(status: number): unknown
  getHeader(name: string): number | string | string[] | undefined
  header(name: string, value: string): unknown
  headers(fields: Readonly<Record<string, string>>): unknown
  removeHeader(name: string): unknown
  send(body: Buffer): unknown
}

/** The same with the reply of Fastify, which keeps the header fields until it is sent. */
export function sendProblemInReply(reply: ReplyLike, error: LatchkeyError): void {
  if (reply.sent) return
  const { headers, body } = renderProblem(error)
  for (const name of STALE_FIELDS) reply.removeHeader(name)
  reply.code(error.status)
  reply.headers(headers)
  // To the type of a text, Fastify would add a charset.
  reply.send(Buffer.from(body))
}

/** The header fields of a reply. */
export class ReplyFields implements ResponseFields {
  constructor(private readonly reply: ReplyLike) {}

  get headersSent(): boolean {
    return this.reply.sent || (this.reply.raw as ServerResponse).headersSent
  }

  setHeader(name: string, value: string): void {
    this.reply.header(name, value)
  }
}
