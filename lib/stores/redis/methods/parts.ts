import { randomBase62 } from '../../../internal/base62.ts'
import type { RedisBatches } from '../batches.ts'
import type { RedisCalls } from '../calls.ts'
import type { Listing, RedisIndexes } from '../indexes.ts'
import { createStamp, type RedisLayout } from '../layout.ts'
import type { RedisLookups } from '../lookups.ts'
import type { RedisQuotas } from '../quotas.ts'

/** What every method of the store needs. */
export interface RedisStoreParts {
  readonly calls: RedisCalls
  readonly layout: RedisLayout
  readonly indexes: RedisIndexes
  readonly quotas: RedisQuotas
  readonly batches: RedisBatches
  readonly lookups: RedisLookups
  /** The age from which an index entry without a record counts as left over, not as an insertion in progress. */
  readonly strayMs: number
}

export async function newStamp(calls: RedisCalls): Promise<string> {
  return createStamp(await calls.now(), randomBase62(10))
}

/** Lists the entries once more if the change took so long that others may have swept them. */
export async function listAgain(
  { indexes, strayMs }: RedisStoreParts,
  listings: readonly Listing[],
  listedAt: number,
): Promise<void> {
  if (performance.now() - listedAt > strayMs / 60) await indexes.add(listings)
}
