import type { Request, RequestHandler } from 'express'
import type { ApiKeys, Permissions } from 'latchkey'
import { type Actor, apiKeyRouter } from 'latchkey/management/express'
import { getAuth } from 'latchkey/passport'
import { ownerOf, type User, type Users } from './users.ts'

const DAY_MS = 86_400_000

/** What keys are for here. Users may also close their accounts: no key ever may, whoever asks for one. */
const KEY_PERMISSIONS: Permissions = { notes: ['read', 'write'] }

/** Where users look after their keys, and an administrator after everybody's. */
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

/** Who is asking, as the login says: the router itself knows no session. */
function readActor(req: Request, users: Users): Actor | null {
  const auth = getAuth<User>(req)
  if (auth.method !== 'session') return null
  // Looked up anew: the session was read before the body, which may have come slowly.
  const user = users.find(auth.user.id)
  return (
    user && {
      id: user.id,
      owners: [ownerOf(user)],
      admin: user.isAdmin,
      // An administrator holds no permissions here, and so is never shown the text of a key that has any.
      grantable: user.permissions,
    }
  )
}
