import type { ServerResponse } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { ownParts, type RequestParts } from '../http/raw-request.ts'
import { stateOf } from '../http/request-state.ts'
import { ReplyFields } from '../http/send-problem.ts'
import type { AnyReply, AnyRequest } from './request-hook.ts'

/**
 * The parts of a request: all that is known of it is kept on the request of `node:http`, which plugins for Express's middlewares
 * see too. The header fields of the response are Fastify's until it is sent.
 */
export function partsOf(request: AnyRequest, reply: AnyReply): RequestParts {
  const { raw } = request
  stateOf(raw).fields ??= new ReplyFields(reply)
  // A response of HTTP/2 has the same methods.
  return ownParts(raw, reply.raw as ServerResponse, request)
}

/** By the request of Node. */
const requests = new WeakMap<object, FastifyRequest>()

/** Remembers Fastify's request, for functions of the application that the layers below call with that of Node. */
export function noteRequest(request: AnyRequest): void {
  requests.set(request.raw, request as FastifyRequest)
}

/** The same value, or function of Fastify's request, as one of the request of Node. */
export function ofFastify<Given>(
  given: Given | ((request: FastifyRequest) => Given),
): Given | ((raw: object) => Given) {
  if (typeof given !== 'function') return given
  const ask = given as (request: FastifyRequest) => Given
  return (raw) => ask(requests.get(raw) as FastifyRequest)
}
