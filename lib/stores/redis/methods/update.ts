import type { Forgetting, KeyChange } from '../../../core/keys/key-store.ts'
import type { KeyRecord } from '../../../core/keys/record.ts'
import { randomBase62 } from '../../../internal/base62.ts'
import { copyData } from '../../../internal/plain-data.ts'
import { type StoredRecord, toIntentText, toJson } from '../record.ts'
import { REPLACE_DIGEST, UPDATE } from '../scripts.ts'
import { listAgain, newStamp, type RedisStoreParts } from './parts.ts'

type Outcome = 'updated' | 'conflict' | 'missing'

/** Makes a change. It is also the `forget` of the store. */
export async function update(
  parts: RedisStoreParts,
  id: string,
  expectedVersion: number,
  given: KeyChange | Forgetting,
): Promise<Outcome> {
  const { calls, indexes, quotas, lookups } = parts
  const { quota, ...rest }: KeyChange & Pick<Forgetting, 'createdBy' | 'lastUsedIp'> = copyData(given)
  const found = await lookups.byId(id)
  if (!found) return 'missing'
  const { stored } = found
  const { record, stamp } = stored
  if (record.version !== expectedVersion) return 'conflict'
  // First finish what an earlier change still has to do to the quota.
  await quotas.apply(stored, found.quota ?? undefined)
  const version = expectedVersion + 1
  const next = { ...record, ...rest, revokedAt: record.revokedAt ?? rest.revokedAt ?? null, version }
  const isRenamed = next.name !== record.name
  const nameStamp = isRenamed ? await newStamp(calls) : stored.nameStamp
  const listing = indexes.nameListing({ record: next, stamp, nameStamp })
  const intent = quota === undefined ? null : toIntentText({ version, set: quota, at: rest.updatedAt })

  const since = performance.now()
  if (isRenamed) await indexes.add([listing])
  const isIpForgotten = rest.lastUsedIp === null
  const outcome = await replaceRecord(parts, stored, { next, nameStamp, intent, isIpForgotten })
  if (outcome !== 'updated') {
    // Not on a conflict: the client may have sent the command twice, and conflicts with itself. A later sweep removes the entry.
    if (isRenamed && outcome === 'missing') await indexes.remove([listing])
    return outcome
  }
  await quotas.apply({ stamp, intent, record: next }, found.quota ?? undefined)
  if (isRenamed) {
    await listAgain(parts, [listing], since)
    await indexes.remove([indexes.nameListing(stored)])
  }
  const byCreator = next.createdBy === null ? indexes.creatorListing(stored) : null
  if (byCreator) await indexes.remove([byCreator])
  const key = parts.layout.record(record.lookup)
  await calls.confirm(isRenamed ? [key, listing.key] : [key], since)
  return outcome
}

interface Replacement {
  readonly next: KeyRecord
  readonly nameStamp: string
  readonly intent: string | null
  readonly isIpForgotten: boolean
}

/** Replaces a record if it still has the version that was read. */
async function replaceRecord(
  { calls, layout }: RedisStoreParts,
  { stamp, record }: StoredRecord,
  { next, nameStamp, intent, isIpForgotten }: Replacement,
): Promise<Outcome> {
  const token = randomBase62(10)
  const change = [toJson(next), nameStamp, intent ?? '', isIpForgotten ? '1' : '']
  const args = [stamp, record.version, next.version, token, ...change]
  const [outcome] = (await calls.run(UPDATE, [layout.record(record.lookup)], args)) as [Outcome]
  return outcome
}

export async function replaceDigest(
  { calls, layout, lookups }: RedisStoreParts,
  id: string,
  expected: string,
  next: string,
): Promise<boolean> {
  const since = performance.now()
  const found = await lookups.byId(id)
  if (found?.stored.record.digest !== expected) return false
  const key = layout.record(found.stored.record.lookup)
  const args = [found.stored.stamp, JSON.stringify(expected), JSON.stringify(next)]
  const [isReplaced] = await calls.run(REPLACE_DIGEST, [key], args)
  if (Number(isReplaced) !== 1) return false
  await calls.confirm([key], since)
  return true
}
