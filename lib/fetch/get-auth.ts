import { type Auth, getAuth as getAuthOf, type RegisteredUser } from '../http/auth-mark.ts'

/**
 * Returns who made the request, and how they authenticated. Narrow on `method`. A clone of the request is not marked.
 *
 * @example
 * const auth = getAuth(request)
 * if (auth.method === 'apikey') console.log(auth.apiKey.name, auth.user)
 */
export function getAuth<User = RegisteredUser>(request: Request): Auth<User> {
  return getAuthOf<User>(request)
}
