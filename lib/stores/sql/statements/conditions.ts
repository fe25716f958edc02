import { type Expression, type SqlBool, sql } from 'kysely'
import type { KeyFilter } from '../../../core/keys/key-store.ts'
import type { Owner } from '../../../core/keys/record.ts'
import type { Keys } from './tables.ts'

/** The condition of the partial indexes. A planner uses them only if `mayEnd` has exactly these terms. */
export const MAY_END = 'revoked_at_ms is not null or expires_at_ms is not null or idle_expiry_ms is not null'

/** An owner without keys: in SQL, nothing equals null. */
export const NOBODY = { type: null, id: null }

/** The conditions of a filter. `owners` replace those of the filter. */
export function matchesFilter(
  k: Keys,
  { createdBy, name, lineageId, status, endedBefore, expiresBefore }: KeyFilter,
  owners: readonly (Owner | typeof NOBODY)[],
): Expression<SqlBool>[] {
  const conditions: Expression<SqlBool>[] = []
  if (owners.length > 0) conditions.push(k.or(owners.map((owner) => isOwnedBy(k, owner))))
  if (createdBy !== undefined) conditions.push(k('k.created_by', '=', createdBy))
  if (name !== undefined) conditions.push(k('k.name', '=', name))
  if (lineageId !== undefined) conditions.push(k('k.lineage_id', '=', lineageId))
  if (status) conditions.push(...hasStatus(k, status))
  if (endedBefore) conditions.push(...hasEnded(k, endedBefore))
  if (expiresBefore) conditions.push(mayEnd(k), k('k.expires_at_ms', '<', expiresBefore.getTime()))
  return conditions
}

function isOwnedBy(k: Keys, { type, id }: Owner | typeof NOBODY): Expression<SqlBool> {
  return k.and([k('k.owner_type', '=', type), k('k.owner_id', '=', id)])
}

/** `keyStatus` of the core, in SQL. */
function hasStatus(k: Keys, { is, at }: NonNullable<KeyFilter['status']>): Expression<SqlBool>[] {
  if (is === 'revoked') return [k('k.revoked_at_ms', 'is not', null)]
  const isNotRevoked = k('k.revoked_at_ms', 'is', null)
  if (is === 'expired') return [mayEnd(k), isNotRevoked, hasExpired(k, at)]
  return [k('k.enabled', '=', sql.lit(is === 'active')), isNotRevoked, hasNotExpired(k, at)]
}

/** `endOf` of the core is at `at` or before; with `'<'`, before. */
export function hasExpired(k: Keys, at: Date, compare: '<=' | '<' = '<='): Expression<SqlBool> {
  const ms = at.getTime()
  return k.or([
    k('k.expires_at_ms', compare, ms),
    k.and([
      k(sql`k.created_at_ms + k.idle_expiry_ms`, compare, ms),
      k(sql`coalesce(k.last_used_at_ms, 0) + k.idle_expiry_ms`, compare, ms),
    ]),
  ])
}

/** The opposite. Not `not (…)`, which is null where a column is null. */
function hasNotExpired(k: Keys, at: Date): Expression<SqlBool> {
  const ms = at.getTime()
  return k.and([
    k.or([k('k.expires_at_ms', 'is', null), k('k.expires_at_ms', '>', ms)]),
    k.or([
      k('k.idle_expiry_ms', 'is', null),
      k(sql`k.created_at_ms + k.idle_expiry_ms`, '>', ms),
      k(sql`coalesce(k.last_used_at_ms, 0) + k.idle_expiry_ms`, '>', ms),
    ]),
  ])
}

function hasEnded(k: Keys, before: Date): Expression<SqlBool>[] {
  return [mayEnd(k), k.or([k('k.revoked_at_ms', '<', before.getTime()), hasExpired(k, before, '<')])]
}

function mayEnd(k: Keys): Expression<SqlBool> {
  return k.or([
    k('k.revoked_at_ms', 'is not', null),
    k('k.expires_at_ms', 'is not', null),
    k('k.idle_expiry_ms', 'is not', null),
  ])
}
