import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import { LatchkeyError } from '../errors.ts'
import { type Auth, getAuth, type RegisteredUser } from '../http/auth-mark.ts'
import { applyOutcome } from '../http/authentication.ts'
import { createMiddlewareParts, type MiddlewareOptions, type RequestCost } from '../http/middleware.ts'
import { ownParts } from '../http/raw-request.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import { OptionError } from '../internal/option-error.ts'
import { ignoreErrors } from './ignore-errors.ts'
import { refuseUpgrade } from './refuse-upgrade.ts'

/** What `apiKeyUpgrade` requires of requests. */
export interface ApiKeyUpgradeOptions<User = unknown> extends Omit<MiddlewareOptions<User>, 'refuseWith'> {
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`. Behind a proxy, read what your proxy writes.
   *
   * @default (request) => request.socket.remoteAddress
   */
  ip?: (request: IncomingMessage) => string | undefined
  /**
   * The permissions that the key needs. An object requires everything it names; an array, any one of its entries. Or a
   * function of the request that returns one of these at once:
   * ``(request) => ({ [`room:${roomOf(request.url)}`]: ['read'] })``. It is called once the key is known to be good, before anything
   * is spent. If it throws, or returns a promise or nothing to require, the request gets a 503; if it names what no key can
   * hold, a 403.
   */
  permissions?: RequestPermissions<IncomingMessage>
  /**
   * What an upgrade costs: a number of units of the quota and of every limit without `only: 'named'`, units by the name of
   * a limit, as `{ tokens: 500 }`, or a function that returns one of these. It is called once the key is known to be
   * good. If it fails, takes longer than `timeoutMs` of `createApiKeys`, or returns anything else, the request gets a 503.
   *
   * @default 1
   */
  cost?: RequestCost<IncomingMessage>
}

/** Who a request with a key is. */
export type KeyAuth<User = RegisteredUser> = Extract<Auth<User>, { method: 'apikey' }>

/**
 * Verifies the key of an upgrade request. Takes what the event `upgrade` of `node:http` gives. Answers who is calling; null once it has
 * refused the request and ended its socket. Never rejects.
 */
export type Upgrade<Who> = (request: IncomingMessage, socket: Duplex, head?: unknown) => Promise<Who | null>

/**
 * Returns a function that verifies the key of a request before it becomes a WebSocket, or another protocol. It marks the request as
 * authenticated by key: `getAuth(request)` knows it. A refusal is a whole HTTP answer, as on every other route, and the end of the
 * socket. A place of a `concurrent` limit is held until the socket closes.
 *
 * It sends no `RateLimit` fields with an accepted upgrade, and does not look at `Origin`, because other sites cannot send a key.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const authenticate = apiKeyUpgrade(keys, { permissions: { chat: ['read'] }, tickets })
 *
 * server.on('upgrade', async (request, socket, head) => {
 *   const auth = await authenticate(request, socket, head)
 *   if (!auth) return
 *   wss.handleUpgrade(request, socket, head, (ws) => wss.emit('connection', ws, request))
 * })
 */
export function apiKeyUpgrade<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options: ApiKeyUpgradeOptions<User> & { required: false },
): Upgrade<Auth<User>>
export function apiKeyUpgrade<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options?: ApiKeyUpgradeOptions<User> & { required?: true },
): Upgrade<KeyAuth<User>>
export function apiKeyUpgrade<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options?: ApiKeyUpgradeOptions<User>,
): Upgrade<Auth<User>>
export function apiKeyUpgrade<User = RegisteredUser>(
  keys: ApiKeyVerifier,
  options: ApiKeyUpgradeOptions<User> = {},
): Upgrade<Auth<User>> {
  if ('refuseWith' in options) {
    throw new OptionError('refuseWith', 'be left out: every refusal is an answer on the socket')
  }
  const { authenticate, required } = createMiddlewareParts<IncomingMessage>(
    keys,
    options,
    (request) => request.socket.remoteAddress,
  )

  /** The refusal, or null. */
  async function check(request: IncomingMessage, socket: Duplex): Promise<LatchkeyError | null> {
    const parts = {
      ...ownParts(request),
      onceEnded: (run: () => void) => void (socket.destroyed ? run() : socket.once('close', run)),
    }
    try {
      const outcome = await authenticate(request, parts)
      applyOutcome(parts, keys, outcome)
      return outcome.ok || (!outcome.presented && !required) ? null : outcome.error
    } catch (cause) {
      // What the application's `ip` throws: nobody is there to handle it.
      keys.report?.({ type: 'fault', operation: 'verify', error: cause })
      return new LatchkeyError('unavailable', undefined, { cause, stack: false })
    }
  }

  return async function authenticateUpgrade(request, socket) {
    ignoreErrors(socket)
    const refusal = await check(request, socket)
    if (refusal) refuseUpgrade(request, socket, refusal)
    return refusal || socket.destroyed ? null : getAuth<User>(request)
  }
}
