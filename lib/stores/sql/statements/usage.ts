import { sql } from 'kysely'
import type { UsageDelta } from '../../../core/keys/key-store.ts'
import type { Cell, Statement } from '../plan.ts'
import { padded } from './padding.ts'
import { prepare, type Tables } from './tables.ts'

/** Statements that count uses. */
export function createUsageStatements(tables: Tables) {
  const useKey = prepare(useOne(tables))

  return {
    /** Adds the uses of several keys. Their ids must be in order, so that two batches never wait for each other. */
    recordUses(uses: readonly UsageDelta[]): readonly Statement[] {
      if (tables.dialect.name === 'postgres') return [useFromJson(tables, uses)]
      if (tables.dialect.name === 'mysql') return [useByCase(tables, uses)]
      return uses.map(({ id, count, lastUsedAt, lastUsedIp }) => {
        const at = lastUsedAt.getTime()
        return useKey([count, at, lastUsedIp, at, at, id])
      })
    },
  }
}

/** Sets the address before the time that decides it: MySQL assigns from left to right. */
function useOne({ db, keys }: Tables): Statement {
  return db
    .updateTable(keys)
    .set('usage_count', sql`usage_count + ${0}`)
    .set('last_used_ip', sql`case when last_used_at_ms >= ${0} then last_used_ip else ${''} end`)
    .set('last_used_at_ms', sql`case when last_used_at_ms >= ${0} then last_used_at_ms else ${0} end`)
    .where('id', '=', '')
    .compile()
}

/** For PostgreSQL: all uses in one parameter. Rows are locked in the order of their ids. */
function useFromJson({ db, names }: Tables, uses: readonly UsageDelta[]): Statement {
  const list = JSON.stringify(
    uses.map(({ id, count, lastUsedAt, lastUsedIp }) => ({
      id,
      uses: count,
      used_at: lastUsedAt.getTime(),
      ip: lastUsedIp,
    })),
  )
  const table = sql.table(names.schema === undefined ? names.keys : `${names.schema}.${names.keys}`)
  return sql`
      with used as (
        select * from json_to_recordset(${list}::json) as u (id text, uses bigint, used_at bigint, ip text)
      ), locked as (
        select k.id from ${table} as k where k.id in (select id from used) order by k.id for no key update
      )
      update ${table} as k
      set usage_count = k.usage_count + used.uses,
        last_used_ip = case when k.last_used_at_ms >= used.used_at then k.last_used_ip else used.ip end,
        last_used_at_ms = greatest(k.last_used_at_ms, used.used_at)
      from used
      where k.id = used.id and k.id in (select id from locked)`.compile(db)
}

/** For MySQL: a `case` for each column. A padded list repeats its last use, which counts once: the first branch applies. */
function useByCase({ dialect, db, keys }: Tables, uses: readonly UsageDelta[]): Statement {
  const filled = padded(dialect, uses)
  const byId = (value: (use: UsageDelta) => Cell) =>
    sql`case id ${sql.join(
      filled.map((use) => sql`when ${use.id} then ${value(use)}`),
      sql` `,
    )} end`
  const usedAt = byId((use) => use.lastUsedAt.getTime())
  return db
    .updateTable(keys)
    .set('usage_count', sql`usage_count + ${byId((use) => use.count)}`)
    .set(
      'last_used_ip',
      sql`case when last_used_at_ms >= ${usedAt} then last_used_ip else ${byId((use) => use.lastUsedIp)} end`,
    )
    .set('last_used_at_ms', sql`greatest(coalesce(last_used_at_ms, ${usedAt}), ${usedAt})`)
    .where(
      'id',
      'in',
      filled.map(({ id }) => id),
    )
    .orderBy('id')
    .compile()
}
