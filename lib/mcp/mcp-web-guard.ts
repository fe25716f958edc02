import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { LatchkeyError } from '../errors.ts'
import { ResponseParts } from '../fetch/response-parts.ts'
import type { RegisteredUser } from '../http/auth-mark.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { ownParts } from '../http/raw-request.ts'
import type { McpAuthInfo } from './auth-info.ts'
import { createMcpAuthenticator, type McpOptions } from './authenticate-mcp.ts'

/** Options of `mcpWebGuard`. */
export interface McpWebGuardOptions<User = unknown> extends McpOptions<User> {
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`, if no caller gives one. A web `Request` has none.
   *
   * @default no address: keys with `allowedIps` are refused
   */
  ip?: (request: Request) => string | undefined
}

/** A request that is let in. It is itself what `handleRequest` and `fetch` of the SDK take as their second argument. */
export interface AdmittedMcpRequest<User = RegisteredUser> {
  readonly ok: true
  /** Who is calling, for handlers. */
  readonly authInfo: McpAuthInfo<User>
  /** The body of a POST; undefined for other methods. Nobody else must read or parse it. */
  readonly parsedBody: unknown
  /** The option `sessionIdGenerator` of a transport: makes ids that belong to this key. */
  sessionIdGenerator(): string
  /** The `RateLimit` fields to send. */
  readonly headers: Headers
  /** Returns the response with these fields, and gives back the places of `concurrent` limits once its body has been sent. */
  finish(response: Response): Response
}

/** A request that is not let in. */
export interface RefusedMcpRequest {
  readonly ok: false
  /** Why. */
  readonly error: LatchkeyError
  /** The answer. */
  readonly response: Response
}

/** Verifies the key of a request and what its body calls. Rejects only with what your function `ip` throws. */
export type McpWebGuard<User = RegisteredUser> = (
  request: Request,
  context?: { ip?: string | undefined },
) => Promise<AdmittedMcpRequest<User> | RefusedMcpRequest>

/**
 * The same as `mcpGuard`, for servers that take a web `Request`. It reads the body; the request itself goes on to the SDK.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const guard = mcpWebGuard(keys, { tools: { search: { permissions: { docs: ['read'] } } } })
 * const handler = createMcpHandler(createServer)
 *
 * export async function serveMcp(request: Request): Promise<Response> {
 *   const caller = await guard(request)
 *   if (!caller.ok) return caller.response
 *   return caller.finish(await handler.fetch(request, caller))
 * }
 */
export function mcpWebGuard<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options: McpWebGuardOptions<User> = {},
): McpWebGuard<User> {
  const { authenticate, checkSession, rateLimitHeaders } = createMcpAuthenticator<User>(keys, options)
  const { ip: readIp } = options

  return async function guardMcpRequest(request, { ip = readIp?.(request) } = {}) {
    const answer = ResponseParts.of(request)
    const outcome = await authenticate({
      parts: { ...ownParts(request), onceEnded: answer.onceEnded },
      method: request.method,
      ip,
      source: { stream: request, parsed: undefined },
    })
    if (!outcome.ok) {
      const { error, headers, body } = outcome
      return {
        ok: false,
        error,
        response: answer.finish(new Response(body, { status: error.status, headers })),
      }
    }
    const { authInfo, body, limits, createSessionId } = outcome
    setRateLimitFields(answer, limits, rateLimitHeaders)
    return {
      ok: true,
      authInfo,
      parsedBody: body,
      sessionIdGenerator: createSessionId,
      headers: answer.headers,
      finish(response) {
        checkSession(response.headers.get('mcp-session-id'), authInfo)
        return answer.finish(response)
      },
    }
  }
}
