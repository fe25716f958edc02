import { type ApiKeyListener, type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { findOwner, type Organisations, PLANS } from './organisations.ts'

/** The keys of organisations. They are in memory and end with the process: a real application has a database. */
export function createKeys(organisations: Organisations, onEvent?: ApiKeyListener): ApiKeys {
  return createApiKeys({
    store: memoryStore(),
    rateLimiter: memoryRateLimiter(),
    prefix: 'demo',
    rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }],
    // No key of a suspended or deleted organisation works.
    isOwnerActive: (owner) => findOwner(organisations, owner)?.isSuspended === false,
    // Whatever permissions a key has, it may do no more than the current plan allows.
    ownerPermissions: (owner) => {
      const organisation = findOwner(organisations, owner)
      return organisation ? PLANS[organisation.plan] : {}
    },
    ...(onEvent && { onEvent }),
  })
}
