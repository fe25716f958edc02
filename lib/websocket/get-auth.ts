import type { IncomingMessage } from 'node:http'
import { type Auth, getAuth as getAuthOf, type RegisteredUser } from '../http/auth-mark.ts'

/**
 * Returns who asked for the upgrade, and how they authenticated. Narrow on `method`.
 *
 * @example
 * wss.on('connection', (socket, request) => {
 *   const auth = getAuth(request)
 *   if (auth.method === 'apikey') console.log(auth.apiKey.name, auth.user)
 * })
 */
export function getAuth<User = RegisteredUser>(request: IncomingMessage): Auth<User> {
  return getAuthOf<User>(request)
}
