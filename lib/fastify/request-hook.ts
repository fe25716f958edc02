import type { FastifyReply, FastifyRequest, RawServerBase, RouteGenericInterface } from 'fastify'

/** A request of any server that Fastify runs on: HTTP/1.1, HTTPS or HTTP/2. */
export type AnyRequest = FastifyRequest<RouteGenericInterface, RawServerBase>

/** A reply of any such server. */
export type AnyReply = FastifyReply<RouteGenericInterface, RawServerBase>

/** A hook for `onRequest`, `preValidation` or `preHandler`. */
export type RequestHook = (request: AnyRequest, reply: AnyReply, done: (error?: Error) => void) => void
