import { type ApiKeyListener, type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { findOwner, type Users } from './users.ts'

/** The keys of this application's users. They are in memory and end with the process: a real application has a database. */
export function createKeys(users: Users, onEvent?: ApiKeyListener): ApiKeys {
  return createApiKeys({
    store: memoryStore(),
    rateLimiter: memoryRateLimiter(),
    prefix: 'demo',
    rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }],
    // No key of a deleted user works, and no key may do more than its owner may do now.
    isOwnerActive: (owner) => findOwner(users, owner) !== null,
    ownerPermissions: (owner) => findOwner(users, owner)?.permissions ?? {},
    ...(onEvent && { onEvent }),
  })
}
