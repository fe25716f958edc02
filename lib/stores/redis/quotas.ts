import type { QuotaSwap, QuotaSwapResult } from '../../core/keys/key-store.ts'
import { startQuota } from '../../core/limits/quota.ts'
import { LatchkeyError } from '../../errors.ts'
import { randomBase62 } from '../../internal/base62.ts'
import type { RedisCalls } from './calls.ts'
import type { RedisLayout } from './layout.ts'
import {
  fromIntentText,
  fromQuotaText,
  type QuotaIntent,
  type StoredQuota,
  type StoredRecord,
  toQuotaText,
  toStoredQuota,
} from './record.ts'
import { APPLY_TO_QUOTA, CLEAR_INTENT, READ_QUOTAS, SWAP_QUOTA } from './scripts.ts'

export interface RedisQuotas {
  /** The quotas of these lineages, by lineage. */
  read(lineageIds: readonly string[]): Promise<ReadonlyMap<string, StoredQuota>>
  /** Makes the change of the quota that the record intends, unless it is already made, and then clears the intent. */
  apply(record: Pick<StoredRecord, 'stamp' | 'intent' | 'record'>, known?: StoredQuota): Promise<void>
  swap(swaps: readonly QuotaSwap[]): Promise<readonly QuotaSwapResult[]>
}

/** An attempt fails only if another one succeeds, so this many concurrent changes all get through. */
const MAX_ATTEMPTS = 1_000
/** The server remembers a swap for a minute. After this long, a client may have sent a swap again that the server no longer knows. */
const CERTAIN_MS = 50_000
const NO_QUOTA: StoredQuota = Object.freeze({ text: null, isRemoved: false })

export function createRedisQuotas(calls: RedisCalls, layout: RedisLayout): RedisQuotas {
  const parts: QuotaParts = { calls, layout }
  return {
    read: (lineageIds) => read(parts, lineageIds),
    apply: (record, known = NO_QUOTA) => apply(parts, record, known),
    swap: (swaps) => swap(parts, swaps),
  }
}

interface QuotaParts {
  readonly calls: RedisCalls
  readonly layout: RedisLayout
}

async function read(
  { calls, layout }: QuotaParts,
  lineageIds: readonly string[],
): Promise<ReadonlyMap<string, StoredQuota>> {
  const found = new Map<string, StoredQuota>()
  const places = calls.byPlace([...new Set(lineageIds)], layout.quota)
  await Promise.all(
    places.map(async (place) => {
      const [quotas] = (await calls.run(READ_QUOTAS, place.map(layout.quota))) as [unknown[][]]
      for (const [i, id] of place.entries()) found.set(id, toStoredQuota(quotas[i]?.[0], quotas[i]?.[1]))
    }),
  )
  return found
}

async function apply(
  { calls, layout }: QuotaParts,
  { stamp, intent, record }: Pick<StoredRecord, 'stamp' | 'intent' | 'record'>,
  known: StoredQuota,
): Promise<void> {
  if (intent === null) return
  const since = performance.now()
  const quotaKey = layout.quota(record.lineageId)
  const keys = [quotaKey, layout.indexes.lineage(record.lineageId)]
  const asked = fromIntentText(intent)
  await untilDone(async (current: StoredQuota) => {
    const next = afterIntent(current, asked)
    const args = [stamp, asked.version, ...toWords(current), ...toWords(next)]
    const [isDone, text, removed] = await calls.run(APPLY_TO_QUOTA, keys, args)
    return Number(isDone) === 1 ? DONE : { current: toStoredQuota(text, removed) }
  }, known)
  // Otherwise a failover could lose the change of the quota and keep the cleared intent.
  await calls.confirm([quotaKey], since)
  await calls.run(CLEAR_INTENT, [layout.record(record.lookup)], [stamp, intent])
}

function afterIntent(current: StoredQuota, intent: QuotaIntent): StoredQuota {
  if ('join' in intent) return { ...current, text: current.text ?? toQuotaText(intent.join) }
  if (intent.set === null) return { ...current, isRemoved: true }
  const next = startQuota(intent.set, fromQuotaText(current.text), intent.at)
  return { text: toQuotaText(next), isRemoved: false }
}

function toWords({ text, isRemoved }: StoredQuota): [string, string] {
  return [text ?? '', isRemoved ? '1' : '']
}

const DONE = Symbol('done')

/** Tries until the quota is as expected, each time with the quota found before. */
async function untilDone(
  attempt: (current: StoredQuota) => Promise<typeof DONE | { readonly current: StoredQuota }>,
  known: StoredQuota,
): Promise<void> {
  let current = known
  for (let i = 0; i < MAX_ATTEMPTS; i += 1) {
    const outcome = await attempt(current)
    if (outcome === DONE) return
    current = outcome.current
  }
  throw new LatchkeyError('unavailable', 'Other callers keep changing the quota')
}

async function swap(parts: QuotaParts, swaps: readonly QuotaSwap[]): Promise<readonly QuotaSwapResult[]> {
  const { calls, layout } = parts
  const since = performance.now()
  const results = await Promise.all(swaps.map((one) => swapOne(parts, one)))
  const done = swaps.filter((_swap, i) => results[i]?.swapped).map(({ lineageId }) => layout.quota(lineageId))
  if (done.length > 0) await calls.confirm(done, since)
  return results
}

async function swapOne(
  { calls, layout }: QuotaParts,
  { lineageId, expected, next }: QuotaSwap,
): Promise<QuotaSwapResult> {
  const keys = [layout.quota(lineageId), layout.swap(lineageId, randomBase62(16))]
  const args = [toQuotaText(expected), toQuotaText(next)]
  const sentAt = performance.now()
  const [isDone, text, removed] = await calls.run(SWAP_QUOTA, keys, args)
  if (Number(isDone) === 1) return { swapped: true }
  if (performance.now() - sentAt >= CERTAIN_MS) {
    throw new LatchkeyError('unavailable', 'Redis took too long to tell whether the quota was swapped')
  }
  const found = toStoredQuota(text, removed)
  return { swapped: false, current: found.isRemoved ? null : fromQuotaText(found.text) }
}
