import type { Cost } from '../core/limits/cost.ts'
import { type Auth, getAuth as getAuthOf, type RegisteredUser } from '../http/auth-mark.ts'
import { refund as refundOf, settle as settleOf } from '../http/settle-request.ts'
import { rawOf, takeUser } from './http-exchange.ts'

/**
 * Returns who made the request, and how they authenticated, for a request of Express, of Fastify, or of a middleware. Narrow on
 * `method`.
 *
 * @example
 * const auth = getAuth(req)
 * if (auth.method === 'apikey') console.log(auth.apiKey.name, auth.user)
 */
export function getAuth<User = RegisteredUser>(request: object): Auth<User> {
  takeUser(request)
  return getAuthOf<User>(rawOf(request))
}

/**
 * Replaces what a request has cost, once the work is done: as often as you like, before or after the response. A number
 * or units by name, as for `cost`; what a cost does not name keeps what it cost, and 0 gives back everything. More is
 * charged even beyond a limit: the key is then refused until it is within its limit again. The `RateLimit` fields of a
 * response that has not begun show the new state. Returns false if the request was admitted without a key, or counted on
 * nothing.
 *
 * @throws TypeError when `cost` is wrong, or names a limit that the request did not count on.
 * @throws LatchkeyError `unavailable` when the limiter cannot be reached. The change is sent again for a minute, and made
 * once.
 * @throws LatchkeyError `unsupported` when the limiter cannot settle, or another service verified the key.
 */
export function settle(request: object, cost: Cost): Promise<boolean> {
  return settleOf(rawOf(request), cost)
}

/**
 * Gives back what a request spent from its key's limits and quota: `settle` with nothing. Returns false if nothing was spent, or it
 * was already given back.
 *
 * @throws LatchkeyError `unavailable` when the limiter cannot be reached. The refund is sent again for a minute, and made
 * once.
 * @throws LatchkeyError `unsupported` when the limiter cannot give back.
 */
export function refund(request: object): Promise<boolean> {
  return refundOf(rawOf(request))
}
