import type { LatchkeyError } from '../../errors.ts'
import { fail } from '../../internal/options.ts'
import type { DependencyRunner } from '../faults.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { mayBeId } from '../keys/key-id.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { type KeyCost, keyCostOf } from '../limits/cost.ts'
import { oneOfEachName } from '../limits/one-of-each-name.ts'
import type { QuotaLeases } from '../limits/quota-leases.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import { checkLimitAnswer, type LimitRequest, type RateLimiter } from '../limits/rate-limiter.ts'
import type { CachedKey, RecordCache } from './record-cache.ts'
import { placesToSee } from './spend.ts'

export interface LookParts {
  readonly store: KeyStore
  readonly formats: ImportedFormats
  readonly cache: RecordCache
  readonly limiter: RateLimiter
  readonly quotaLeases: QuotaLeases
  readonly guard: DependencyRunner
  readonly retainMs: number
}

/** How often a record is read because the limiter knows a later version. */
export const MAX_READS = 3

/**
 * How the limits of a key and of its owner stand, and its quota; null if there is no such key. It spends nothing.
 *
 * @throws TypeError when `id` is not text.
 */
export async function lookAtLimits(parts: LookParts, id: string): Promise<readonly LimitState[] | null> {
  const { store, formats, cache, quotaLeases, guard } = parts
  if (typeof id !== 'string') fail('id', 'a string', id)
  if (!mayBeId(id, formats)) return null
  const record = await store.find({ id })
  if (!record) return null
  for (let reads = 0; reads < MAX_READS; reads += 1) {
    const { cached } = await cache.loadFresh(record.lookup)
    // It was purged meanwhile, and another key may have its lookup.
    if (cached?.apiKey.id !== id) return null
    const cost = keyCostOf(cached.limits, 0, null)
    const limits = await lookAtCost(parts, cached, cost, { fresh: true, isExact: true })
    if (!limits) continue
    const shown = cached.hasNamesakes ? oneOfEachName(limits) : limits
    return cached.quota ? [...shown, quotaLeases.stateOf(cached, false)] : shown
  }
  throw staleStoreError(guard)
}

/**
 * How the limits stand on which a call counts, and then those in which it takes places. It spends nothing. Null if the limiter knows a
 * later version of the record.
 *
 * @throws LatchkeyError `unavailable`
 */
export async function lookAtCost(
  { limiter, guard, retainMs }: Pick<LookParts, 'limiter' | 'guard' | 'retainMs'>,
  { apiKey, owner }: CachedKey,
  cost: KeyCost,
  how: Required<Pick<LimitRequest, 'fresh' | 'isExact'>>,
): Promise<readonly LimitState[] | null> {
  const { lineageId, id: keyId, version } = apiKey
  const { limits } = cost
  const places = placesToSee(cost)
  const request = { lineageId, owner, keyId, version, cost: 0, limits, places, retainMs, ...how }
  const look = async () => checkLimitAnswer(await limiter.check(request))
  const answer = await guard.run('rate_limiter', look, [], 'check')
  return answer.outcome === 'stale' ? null : answer.limits
}

/** The error of a call that found the record out of date too often. */
export function staleStoreError(guard: DependencyRunner): LatchkeyError {
  return guard.toError('store', new Error('the store keeps returning a record older than its latest change'))
}
