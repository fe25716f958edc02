import type { Request } from 'express'
import { type Auth, getAuth as getAuthOf, type RegisteredUser } from '../http/auth-mark.ts'

/** The registered user type; without one, `Express.User`. */
export type ExpressUser = RegisteredUser<Express.User>

/**
 * Returns who made the request, and how they authenticated. Narrow on `method`.
 *
 * @example
 * const auth = getAuth(req)
 * if (auth.method === 'apikey') console.log(auth.apiKey.name, auth.user)
 */
export function getAuth(req: Request): Auth<ExpressUser> {
  return getAuthOf<ExpressUser>(req)
}
