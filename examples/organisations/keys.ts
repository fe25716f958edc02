import { type ApiKeyListener, type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { findOwner, type Organisations, PLANS } from './organisations.ts'

/** The keys of organisations. In memory they end with the process: a real application has a database. */
export function createKeys(organisations: Organisations, onEvent?: ApiKeyListener): ApiKeys {
  return createApiKeys({
    store: memoryStore(),
    rateLimiter: memoryRateLimiter(),
    prefix: 'demo',
    rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }],
    // No key of a suspended organisation works, nor of one that is gone.
    isOwnerActive: (owner) => findOwner(organisations, owner)?.isSuspended === false,
    // Whatever a key was given, it may do no more than the plan says now.
    ownerPermissions: (owner) => {
      const organisation = findOwner(organisations, owner)
      return organisation ? PLANS[organisation.plan] : {}
    },
    ...(onEvent && { onEvent }),
  })
}
