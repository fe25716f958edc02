import type { Statement } from '../plan.ts'
import { hasExpired } from './conditions.ts'
import { padded } from './padding.ts'
import type { Tables } from './tables.ts'

/** Statements that purge keys, and the quotas of lineages without keys. */
export function createPurgingStatements({ dialect, db, keys, quotas }: Tables) {
  return {
    /** Locks those of the keys that are revoked or have expired. */
    lockEnded(ids: readonly string[], at: Date): Statement {
      const select = db
        .selectFrom(`${keys} as k`)
        .select(['k.id', 'k.lineage_id'])
        .where('k.id', 'in', padded(dialect, ids))
        .where((k) => k.or([k('k.revoked_at_ms', 'is not', null), hasExpired(k, at)]))
        .orderBy('k.id')
      return (dialect.locksRows ? select.forUpdate() : select).compile()
    },

    deleteKeys: (ids: readonly string[]) =>
      db.deleteFrom(keys).where('id', 'in', padded(dialect, ids)).compile(),

    /** Those of the lineages that still have keys. */
    livingLineages: (lineageIds: readonly string[]) =>
      db
        .selectFrom(keys)
        .select('lineage_id')
        .distinct()
        .where('lineage_id', 'in', padded(dialect, lineageIds))
        .compile(),

    deleteQuotas: (lineageIds: readonly string[]) =>
      db.deleteFrom(quotas).where('lineage_id', 'in', padded(dialect, lineageIds)).compile(),
  }
}
