import { usageSubject } from '../../../core/usage/usage-counts.ts'
import { isLatchkeyError } from '../../../errors.ts'
import { compareCodePoints } from '../../../internal/code-points.ts'
import { isStorable } from '../../../internal/options.ts'
import { affectedBy, type Plan, rowsOf } from '../plan.ts'
import type { Statements } from '../statements.ts'
import { IDS_PER_STATEMENT, inChunks, type SqlStoreParts } from './parts.ts'
import { isUnsupported } from './unsupported-texts.ts'

export async function purge(parts: SqlStoreParts, ids: readonly string[], at: Date): Promise<number> {
  const all = [...new Set(ids)].filter(isStorable).sort()
  const until = new Date(at)
  let purged = 0
  for (const some of inChunks(all, IDS_PER_STATEMENT)) purged += await purgeSome(parts, some, until)
  return purged
}

async function purgeSome(parts: SqlStoreParts, ids: readonly string[], at: Date): Promise<number> {
  try {
    return await purgeNow(parts, ids, at)
  } catch (error) {
    if (!isUnsupported(error)) throw error
  }
  // One of the ids is a text that the database cannot hold: narrow it down, and skip it.
  if (ids.length === 1) return 0
  const half = Math.ceil(ids.length / 2)
  return (await purgeSome(parts, ids.slice(0, half), at)) + (await purgeSome(parts, ids.slice(half), at))
}

/** Before `migrate` has created the tables of use, nothing is counted in them. */
async function purgeNow(
  { database, statements }: SqlStoreParts,
  ids: readonly string[],
  at: Date,
): Promise<number> {
  try {
    return await database.transact(() => purgePlan(statements, ids, at, true))
  } catch (error) {
    if (!isLatchkeyError(error) || error.code !== 'not_migrated') throw error
    return database.transact(() => purgePlan(statements, ids, at, false))
  }
}

/** Locks the quotas before it reads which lineages still have keys: an insert of a successor waits for the same lock. */
function* purgePlan(
  statements: Statements,
  ids: readonly string[],
  at: Date,
  hasUsage: boolean,
): Plan<number> {
  const ended = yield* rowsOf(statements.lockEnded(ids, at))
  if (ended.length === 0) return 0
  const endedIds = ended.map(({ id }) => String(id))
  const purged = yield* affectedBy(statements.deleteKeys(endedIds))
  if (hasUsage) yield statements.removeUsageOf(endedIds.map((keyId) => usageSubject({ keyId })))
  const lineageIds = [...new Set(ended.map((row) => String(row.lineage_id)))].sort(compareCodePoints)
  const locked = yield* rowsOf(statements.lockQuotas(lineageIds))
  if (locked.length === 0) return purged
  const withQuota = locked.map((row) => String(row.lineage_id))
  const living = yield* rowsOf(statements.livingLineages(withQuota))
  const dead = withQuota.filter((lineageId) => !living.some((row) => row.lineage_id === lineageId))
  if (dead.length > 0) yield statements.deleteQuotas(dead)
  return purged
}
