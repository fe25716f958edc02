import type { IncomingMessage, ServerResponse } from 'node:http'

/** As much of a request as this package reads, whichever framework made it. */
export interface RequestLike {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly rawHeaders?: readonly string[]
}

/**
 * The request of `node:http` behind a framework's. What is written on it survives a framework that hands every
 * middleware another object.
 */
export function rawRequest(request: object): RequestLike & object {
  const { ctx } = request as { ctx?: { req?: unknown } }
  const raw = typeof ctx === 'object' && ctx !== null ? ctx.req : undefined
  return (isRequest(raw) ? raw : request) as RequestLike & object
}

/** The response that goes with a request, where the framework hangs it there and it can set header fields. */
export function responseOf(request: object): ServerResponse | undefined {
  const { res } = request as { res?: Partial<ServerResponse> }
  return typeof res?.setHeader === 'function' ? (res as ServerResponse) : undefined
}

/** The property under which authenticated users are put: Passport lets an application rename it. */
export function userProperty(request: object): string {
  return (request as { _userProperty?: string })._userProperty ?? 'user'
}

/** Puts a user where Passport, guards and handlers look for one. */
export function setUser(request: object, user: unknown): void {
  const property = userProperty(request)
  // The usual name as a constant: on the hot path a computed one costs microseconds.
  if (property === 'user') (request as { user?: unknown }).user = user
  else (request as Record<string, unknown>)[property] = user
}

function isRequest(value: unknown): value is IncomingMessage {
  return typeof value === 'object' && value !== null && typeof (value as IncomingMessage).headers === 'object'
}
