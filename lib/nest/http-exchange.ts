import type { ServerResponse } from 'node:http'
import type { ArgumentsHost } from '@nestjs/common'
import { isNobody } from '../http/auth-mark.ts'
import { expressAddressOf } from '../http/express-address.ts'
import { ownParts, type RequestParts } from '../http/raw-request.ts'
import { type ResponseFields, stateOf } from '../http/request-state.ts'
import { ReplyFields, type ReplyLike } from '../http/send-problem.ts'

/** What the requests of Express and of Fastify have in common. A function of the request may name the type of one of them instead. */
export interface HttpRequest {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly params: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, unknown>>
  readonly body?: unknown
  readonly ip?: string | undefined
}

/** A request and its response, on either platform. All that is known of the request is kept on the one of Node. */
export interface HttpExchange {
  /** The platform's request, as handlers see it. */
  readonly request: object
  readonly parts: RequestParts
  readonly response: ServerResponse
  /** The header fields of the response, which are Fastify's until it is sent. */
  readonly fields: ResponseFields
  /** Fastify's reply. */
  readonly reply: ReplyLike | null
}

/** @throws Error for a message of a WebSocket, a microservice or GraphQL, which has no request to authenticate. */
export function exchangeOf(host: ArgumentsHost): HttpExchange {
  const type = host.getType<string>()
  if (type !== 'http') {
    throw new Error(
      `latchkey/nest checks keys and sessions on HTTP routes only, not on "${type}": verify the key there with keys.verify(), and put @Public() on the handler`,
    )
  }
  const http = host.switchToHttp()
  return createExchange(http.getRequest<object>(), http.getResponse<ServerResponse | ReplyLike>())
}

export function createExchange(request: object, response: ServerResponse | ReplyLike): HttpExchange {
  const raw = rawOf(request)
  if (!isReply(response))
    return { request, parts: ownParts(raw, response), response, fields: response, reply: null }
  const state = stateOf(raw)
  state.fields ??= new ReplyFields(response)
  // A response of HTTP/2 has the same methods.
  const sent = response.raw as ServerResponse
  return {
    request,
    parts: ownParts(raw, sent, request),
    response: sent,
    fields: state.fields,
    reply: response,
  }
}

/** The request of Node that Fastify's wraps; Express's own is one. */
export function rawOf(request: object): object {
  const { raw } = request as { raw?: { on?: unknown; headers?: unknown } | null }
  return typeof raw?.on === 'function' && typeof raw.headers === 'object' ? raw : request
}

function isReply(response: ServerResponse | ReplyLike): response is ReplyLike {
  return 'raw' in response && 'code' in response && typeof response.code === 'function'
}

/** The client's address as the platform tells it. */
export function addressOf(request: object): string | undefined {
  return expressAddressOf(request)
}

/** Fastify's requests that show who is calling. */
const shown = new WeakSet<object>()

/**
 * Shows on Fastify's request what is kept on the one of Node: handlers and other guards look there. As on Express, nobody can
 * overwrite `authMethod`.
 */
export function showAuth(request: object): void {
  const raw = rawOf(request) as { user?: unknown }
  if (raw === request) return
  if (!shown.has(request)) Object.defineProperties(request, VIEWS)
  shown.add(request)
  // A plugin may have put a property there that cannot be set.
  Reflect.set(request, 'user', raw.user)
}

/** Takes over the user that another guard has put on Fastify's request, or removed from it, as if it were Express's. */
export function takeUser(request: object): void {
  const raw = rawOf(request) as { user?: unknown }
  if (raw === request) return
  const { user } = request as { user?: unknown }
  if (shown.has(request) || !isNobody(user)) raw.user = user
}

const VIEWS: PropertyDescriptorMap & ThisType<object> = {
  authMethod: {
    get() {
      takeUser(this)
      return (rawOf(this) as { authMethod?: unknown }).authMethod
    },
    set() {},
    enumerable: true,
    configurable: true,
  },
  apiKey: {
    get() {
      return (rawOf(this) as { apiKey?: unknown }).apiKey
    },
    // What an application assigns is what it reads; the mark stays.
    set(apiKey) {
      Object.assign(rawOf(this), { apiKey })
    },
    enumerable: true,
    configurable: true,
  },
}
