import {
  type ApiKeys,
  type ApiKeysOptions,
  createApiKeys,
  memoryRateLimiter,
  memoryStore,
  type Owner,
  type ServiceRateLimit,
} from 'latchkey'

/** What each plan may do. All keys of a customer share `tokens`, so a second key brings no more of them. */
export const PLANS = {
  free: [
    { name: 'calls', limit: 20, windowMs: 60_000 },
    { name: 'tokens', limit: 60, per: 'day', scope: 'owner', only: 'named' },
  ],
  pro: [
    { name: 'calls', limit: 600, windowMs: 60_000 },
    { name: 'tokens', limit: 100_000, per: 'day', scope: 'owner', only: 'named' },
  ],
} satisfies Record<string, readonly ServiceRateLimit[]>

export type Plan = keyof typeof PLANS

/** Keys of customers by plan. A real application has both in a database, and counts in Redis. */
export function createKeys(
  planOf: (owner: Owner) => Plan | Promise<Plan>,
  options: Partial<ApiKeysOptions> = {},
): ApiKeys {
  return createApiKeys({
    store: memoryStore(),
    rateLimiter: memoryRateLimiter(),
    prefix: 'demo',
    rateLimits: { plans: PLANS, planOf },
    ...options,
  })
}
