import type { Context } from 'koa'
import { type Auth, getAuth as getAuthOf, type RegisteredUser } from '../http/auth-mark.ts'

/**
 * Returns who made the request, and how they authenticated. Narrow on `method`.
 *
 * @example
 * const auth = getAuth(ctx)
 * if (auth.method === 'apikey') console.log(auth.apiKey.name, auth.user)
 */
export function getAuth<User = RegisteredUser>(ctx: Pick<Context, 'req' | 'state'>): Auth<User> {
  return getAuthOf<User>(ctx)
}
