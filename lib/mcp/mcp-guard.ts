import type { IncomingMessage, ServerResponse } from 'node:http'
import onHeaders from 'on-headers'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { RegisteredUser } from '../http/auth-mark.ts'
import { expressAddressOf } from '../http/express-address.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { ownParts } from '../http/raw-request.ts'
import { sendFailure } from '../http/send-problem.ts'
import type { McpAuthInfo } from './auth-info.ts'
import { createMcpAuthenticator, type McpOptions } from './authenticate-mcp.ts'

/** Options of `mcpGuard`. */
export interface McpGuardOptions<User = unknown> extends McpOptions<User> {
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`.
   *
   * @default `req.ip`, which follows Express's `trust proxy` setting; without Express, the address of the socket
   */
  ip?: (req: IncomingMessage) => string | undefined
}

/** A middleware of Express, or of anything else that has requests and responses of Node. */
export interface McpGuard {
  /**
   * Calls `next` for a request that is let in, with `req.auth` and `req.body` set: pass both on with
   * `transport.handleRequest(req, res, req.body)`. It answers every other request itself.
   */
  (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void): void
  /**
   * The option `sessionIdGenerator` of the transport: makes ids that belong to the key of the request that opens the session.
   *
   * @throws TypeError when this guard has not let the request in.
   */
  sessionIdGenerator(req: IncomingMessage): () => string
}

/** What the guard sets on a request, where the SDK looks for it. */
interface GuardedRequest<User> extends IncomingMessage {
  auth?: McpAuthInfo<User>
  body?: unknown
}

/**
 * Guards an MCP server over streamable HTTP, as a middleware in front of a transport of either SDK. It verifies the key, checks the
 * permissions of every tool that the body calls, and charges them all at once, before any of them runs.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const guard = mcpGuard(keys, {
 *   tools: { search: { permissions: { docs: ['read'] } }, report: { permissions: { reports: ['write'] }, cost: 10 } },
 * })
 *
 * app.all('/mcp', guard, async (req, res) => {
 *   const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined })
 *   await createServer().connect(transport)
 *   await transport.handleRequest(req, res, req.body)
 * })
 */
export function mcpGuard<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options: McpGuardOptions<User> = {},
): McpGuard {
  const { authenticate, checkSession, rateLimitHeaders } = createMcpAuthenticator<User>(keys, options)
  const { ip = addressOf } = options
  const generators = new WeakMap<IncomingMessage, () => string>()

  async function guard(req: GuardedRequest<User>, res: ServerResponse): Promise<boolean> {
    const outcome = await authenticate({
      parts: ownParts(req, res),
      method: req.method,
      ip: ip(req),
      source: { stream: req, parsed: req.body },
    })
    if (!outcome.ok) {
      sendFailure(res, outcome.error.status, outcome)
      return false
    }
    const { authInfo, body, limits, createSessionId } = outcome
    req.auth = authInfo
    if (body !== undefined) req.body = body
    generators.set(req, createSessionId)
    if (!res.headersSent) setRateLimitFields(res, limits, rateLimitHeaders)
    onHeaders(res, () => checkSession(res.getHeader('mcp-session-id')?.toString(), authInfo))
    return true
  }

  const middleware = (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => {
    guard(req, res)
      .then((isIn) => {
        if (isIn) next()
      })
      .then(undefined, next)
  }
  return Object.assign(middleware, {
    sessionIdGenerator(req: IncomingMessage) {
      const generator = generators.get(req)
      if (generator) return generator
      throw new TypeError('sessionIdGenerator() needs a request that this guard has let in')
    },
  })
}

function addressOf(req: IncomingMessage): string | undefined {
  return 'app' in req ? expressAddressOf(req) : req.socket.remoteAddress
}
