import type { ServerResponse } from 'node:http'

/** The parts of a request that this package reads, from any framework. */
export interface RequestLike {
  readonly headers: HeaderFields | WebHeaders
  readonly rawHeaders?: readonly string[]
}

/** Header fields as in Node: by lower-case name. */
export type HeaderFields = Readonly<Record<string, string | string[] | undefined>>

/** The parts of a web `Headers` that this package reads, from any realm or package. */
export interface WebHeaders {
  get(name: string): string | null
  entries(): Iterable<[string, string]>
}

/** The header fields of a request, also from a `Headers`, which joins repeated fields. */
export function headerFields({ headers }: RequestLike): HeaderFields {
  if (!isWebHeaders(headers)) return headers
  return Object.fromEntries(Array.from(headers.entries(), ([name, value]) => [name.toLowerCase(), value]))
}

/**
 * Whether header fields are a `Headers`. By its brand, or by its shape where a polyfill has none: a Map and a
 * `URLSearchParams` have the same methods, and names in any case. No field that a client sends is a function.
 */
export function isWebHeaders(headers: unknown): headers is WebHeaders {
  const { get, entries } = (headers ?? {}) as Partial<WebHeaders>
  if (typeof get !== 'function' || typeof entries !== 'function') return false
  return /^\[object (?:Headers|Object)\]$/.test(Object.prototype.toString.call(headers))
}

/** The parts of Koa's context that this package reads. */
interface KoaContext {
  readonly req: RequestLike & object
  readonly res: ServerResponse
  readonly state: Record<string, unknown>
}

/** A framework's request, and where it has what this package reads and writes. */
export interface RequestParts {
  /** What the framework hands to middlewares. */
  readonly request: object
  /** The request of `node:http` behind it. */
  readonly raw: RequestLike & object
  /** The object that has its user, `apiKey` and `authMethod`: with Koa `ctx.state`, otherwise the request. */
  readonly properties: Record<string, unknown>
  /** Another object that shows the same request to handlers, if the framework has one. */
  readonly outer?: object | undefined
  /** The response, if the framework hands it to middlewares beside the request. */
  readonly response?: ServerResponse | undefined
  /** Runs a function once the response has ended, where no object of Node tells. */
  readonly onceEnded?: ((run: () => void) => void) | undefined
}

/**
 * The parts of a request of any framework. A middleware that knows its framework names them itself: on Express, looking
 * for the properties of Koa's context costs microseconds each time.
 */
export function partsOf(request: object): RequestParts {
  const context = koaContextOf(request)
  return context ? { request, raw: context.req, properties: context.state } : ownParts(request)
}

/** The parts of a request that extends the one of `node:http`, as on Express. */
export function ownParts(request: object, response?: ServerResponse, outer?: object): RequestParts {
  return {
    request,
    raw: request as RequestLike & object,
    properties: request as Record<string, unknown>,
    response,
    outer,
  }
}

/**
 * The request of `node:http` behind a framework's. What is written on it survives a framework that hands every
 * middleware another object.
 */
export function rawRequest(request: object): RequestLike & object {
  return koaContextOf(request)?.req ?? (request as RequestLike & object)
}

/** The object that has a request's user, `apiKey` and `authMethod`: with Koa `ctx.state`, otherwise the request. */
export function propertiesOf(request: object): Record<string, unknown> {
  return koaContextOf(request)?.state ?? (request as Record<string, unknown>)
}

/** The response of a request, if the framework sets it there and it can set header fields. */
export function responseOf(request: object): ServerResponse | undefined {
  const { res } = koaContextOf(request) ?? (request as { res?: Partial<ServerResponse> })
  return typeof res?.setHeader === 'function' ? (res as ServerResponse) : undefined
}

/** The property for the authenticated user: Passport lets an Express application rename it. */
export function userProperty(request: object): string {
  return (request as { _userProperty?: string })._userProperty ?? 'user'
}

/** Sets the user where Passport, guards and handlers look for it. */
export function setUser({ request, properties }: RequestParts, user: unknown): void {
  const property = userProperty(request)
  // The usual name as a constant: on the hot path a computed one costs microseconds.
  if (property === 'user') properties.user = user
  else properties[property] = user
}

/**
 * Koa's context, where `request` is one or inherits from one, or is Koa's request, or what koa-passport hands to strategies
 * in its place. A context and its request name each other, which nothing that a client sends can do. Routers of web requests have such
 * pairs too, without a request of Node.
 */
function koaContextOf(request: object): KoaContext | undefined {
  const { request: inner, ctx: outer } = request as { request?: { ctx?: unknown } | null; ctx?: unknown }
  const context = (typeof inner === 'object' && inner !== null ? inner.ctx : undefined) ?? outer
  if (typeof context !== 'object' || context === null) return undefined
  const { request: named, req } = context as { request?: { ctx?: unknown }; req?: unknown }
  return named?.ctx === context && typeof req === 'object' && req !== null
    ? (context as KoaContext)
    : undefined
}
