import type { ServerResponse } from 'node:http'
import { ownParts, type RequestParts } from '../http/raw-request.ts'
import { stateOf } from '../http/request-state.ts'
import type { AnyReply, AnyRequest } from './request-hook.ts'

/**
 * The parts of a request: all that is known of it is kept on the request of `node:http`, which plugins for Express's middlewares
 * see too. The header fields of the response are Fastify's until it is sent.
 */
export function partsOf({ raw }: AnyRequest, reply: AnyReply): RequestParts {
  stateOf(raw).fields ??= new ReplyFields(reply)
  // A response of HTTP/2 has the same methods.
  return ownParts(raw, reply.raw as ServerResponse)
}

/** The header fields of a reply. */
export class ReplyFields {
  constructor(private readonly reply: AnyReply) {}

  get headersSent(): boolean {
    return this.reply.sent || this.reply.raw.headersSent
  }

  setHeader(name: string, value: string): void {
    this.reply.header(name, value)
  }
}
