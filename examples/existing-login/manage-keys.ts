import type { Request, RequestHandler } from 'express'
import type { ApiKeys, Permissions } from 'latchkey'
import { type Actor, apiKeyRouter } from 'latchkey/management/express'
import { getAuth } from 'latchkey/passport'
import { ownerOf, type User, type Users } from './users.ts'

const DAY_MS = 86_400_000

/** What keys are for here. Users may also close their accounts, but no key may ever do that. */
const KEY_PERMISSIONS: Permissions = { notes: ['read', 'write'] }

/** Users manage their own keys here, and an administrator manages everybody's. */
export function manageKeys(keys: ApiKeys, users: Users): RequestHandler {
  return apiKeyRouter(keys, {
    actor: (req) => readActor(req, users),
    clientFields: {
      permissions: KEY_PERMISSIONS,
      expiresAt: { maxMs: 90 * DAY_MS },
      metadata: false,
    },
    maxKeysPerOwner: 5,
  })
}

/** The caller, according to the login: the router itself knows no sessions. */
function readActor(req: Request, users: Users): Actor | null {
  const auth = getAuth<User>(req)
  if (auth.method !== 'session') return null
  // Look the user up again: the session was read before the body, which may have arrived slowly.
  const user = users.find(auth.user.id)
  return (
    user && {
      id: user.id,
      owners: [ownerOf(user)],
      admin: user.isAdmin,
      // An administrator has no permissions to grant here, so never sees the text of a key that has any.
      grantable: user.permissions,
    }
  )
}
