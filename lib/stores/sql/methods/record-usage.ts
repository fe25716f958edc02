import type { UsageDelta } from '../../../core/keys/key-store.ts'
import { compareCodePoints } from '../../../internal/code-points.ts'
import { isStorable } from '../../../internal/options.ts'
import { IDS_PER_STATEMENT, inChunks, type SqlStoreParts } from './parts.ts'

export async function recordUsage(
  { database, statements }: SqlStoreParts,
  batch: readonly UsageDelta[],
): Promise<void> {
  for (const uses of inChunks(combineUses(batch), IDS_PER_STATEMENT)) {
    await database.write(function* () {
      for (const statement of statements.recordUses(uses)) yield statement
    })
  }
}

/** One use for each key, in the order of the ids: a key that is twice in a statement would count once. */
function combineUses(batch: readonly UsageDelta[]): UsageDelta[] {
  const uses = new Map<string, UsageDelta>()
  for (const use of batch) {
    // No key has such an id, and it would make the whole batch fail.
    if (!isStorable(use.id)) continue
    const { id, count, lastUsedAt } = use
    const earlier = uses.get(id)
    const latest = earlier && earlier.lastUsedAt >= lastUsedAt ? earlier : use
    const lastUsedIp = latest.lastUsedIp !== null && isStorable(latest.lastUsedIp) ? latest.lastUsedIp : null
    uses.set(id, {
      id,
      count: count + (earlier?.count ?? 0),
      lastUsedAt: new Date(latest.lastUsedAt),
      lastUsedIp,
    })
  }
  return [...uses.values()].sort((a, b) => compareCodePoints(a.id, b.id))
}
