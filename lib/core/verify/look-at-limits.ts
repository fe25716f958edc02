import { fail } from '../../internal/options.ts'
import type { DependencyRunner } from '../faults.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { mayBeId } from '../keys/key-id.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { keyCostOf } from '../limits/cost.ts'
import { oneOfEachName } from '../limits/one-of-each-name.ts'
import type { QuotaLeases } from '../limits/quota-leases.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import { checkLimitAnswer, type RateLimiter } from '../limits/rate-limiter.ts'
import type { RecordCache } from './record-cache.ts'

export interface LookParts {
  readonly store: KeyStore
  readonly formats: ImportedFormats
  readonly cache: RecordCache
  readonly limiter: RateLimiter
  readonly quotaLeases: QuotaLeases
  readonly guard: DependencyRunner
  readonly retainMs: number
}

/** How often the record is read because the limiter knows a later version. */
const MAX_READS = 3

/**
 * How the limits of a key and of its owner stand, and its quota; null if there is no such key. It spends nothing.
 *
 * @throws TypeError when `id` is not text.
 */
export async function lookAtLimits(
  { store, formats, cache, limiter, quotaLeases, guard, retainMs }: LookParts,
  id: string,
): Promise<readonly LimitState[] | null> {
  if (typeof id !== 'string') fail('id', 'a string', id)
  if (!mayBeId(id, formats)) return null
  const record = await store.find({ id })
  if (!record) return null
  for (let reads = 0; reads < MAX_READS; reads += 1) {
    const { cached } = await cache.loadFresh(record.lookup)
    // It was purged meanwhile, and another key may have its lookup.
    if (cached?.apiKey.id !== id) return null
    const { apiKey, owner, quota } = cached
    const { limits, places: seen } = keyCostOf(cached.limits, 0, null)
    const places = seen.length === 0 ? undefined : { id: '-', limits: seen }
    const { lineageId, version } = apiKey
    const request = {
      lineageId,
      owner,
      keyId: id,
      version,
      fresh: true,
      cost: 0,
      limits,
      places,
      retainMs,
      isExact: true,
    }
    const answer = await guard.run('rate_limiter', async () => checkLimitAnswer(await limiter.check(request)))
    if (answer.outcome === 'stale') continue
    const shown = cached.hasNamesakes ? oneOfEachName(answer.limits) : answer.limits
    return quota ? [...shown, quotaLeases.stateOf(cached, false)] : shown
  }
  throw guard.toError('store', new Error('the store keeps returning a record older than its latest change'))
}
