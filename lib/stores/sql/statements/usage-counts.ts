import { sql } from 'kysely'
import type { Statement } from '../plan.ts'
import { HOURS_OF_DAY, hourColumn } from '../usage-row.ts'
import { inPowersOfTwo, padded } from './padding.ts'
import { prepare, type Tables } from './tables.ts'

/** What to add under one subject, on one day. */
export interface UsageAmount {
  readonly subject: string
  readonly day: number
  readonly counter: string
  readonly amount: number
}

/** How many rows one statement removes: a long one would hold up others. */
export const ROWS_PER_REMOVAL = 5_000

/** Statements that count use by the hour: a row holds a day of one subject and counter, and a column for each hour. */
export function createUsageCountStatements(tables: Tables) {
  const { dialect, db, keys, usage, usageWriters } = tables
  const addOne = HOURS_OF_DAY.map((hour) => prepare(addRows(tables, hour, [NOTHING])))

  return {
    /** Locks the writer's row, so that of two sendings of a batch one waits for the other. */
    lockWriter(writer: string): Statement {
      const select = db.selectFrom(usageWriters).select('number').where('writer', '=', writer)
      return (dialect.locksRows ? select.forUpdate() : select).compile()
    },

    insertWriter: (writer: string, number: number, at: number): Statement =>
      db.insertInto(usageWriters).values({ writer, number, at_ms: at }).compile(),

    updateWriter: (writer: string, number: number, at: number): Statement =>
      db.updateTable(usageWriters).set({ number, at_ms: at }).where('writer', '=', writer).compile(),

    removeWriters: (before: number): Statement =>
      db.deleteFrom(usageWriters).where('at_ms', '<', before).compile(),

    /** The owners of those keys that exist. They stay until the transaction ends. */
    holdOwners(ids: readonly string[]): Statement {
      const select = db
        .selectFrom(keys)
        .select(['id', 'owner_type', 'owner_id'])
        .where('id', 'in', padded(dialect, ids))
        .orderBy('id')
      if (dialect.name === 'postgres') return select.modifyEnd(sql`for key share`).compile()
      return (dialect.name === 'mysql' ? select.modifyEnd(sql`lock in share mode`) : select).compile()
    },

    /** Adds to one hour of the day. The rows must be in order, so that two batches never wait for each other. */
    addUsage(hour: number, rows: readonly UsageAmount[]): readonly Statement[] {
      if (dialect.name === 'postgres') return [addFromJson(tables, hour, rows)]
      if (dialect.name === 'mysql')
        return [...inPowersOfTwo(rows, dialect.recordsPerInsert)].map((some) => addRows(tables, hour, some))
      return rows.map(({ subject, day, counter, amount }) =>
        (addOne[hour] as (typeof addOne)[number])([subject, day, counter, amount]),
      )
    },

    readUsage: (subject: string, fromDay: number, toDay: number, kind: 'calls' | 'permissions'): Statement =>
      db
        .selectFrom(usage)
        .select(['day', 'counter', ...HOURS_OF_DAY.map(hourColumn)])
        .where('subject', '=', subject)
        .where('day', '>=', fromDay)
        .where('day', '<=', toDay)
        .where('counter', kind === 'permissions' ? 'like' : 'not like', 'permission:%')
        .compile(),

    removeUsageOf: (subjects: readonly string[]): Statement =>
      db.deleteFrom(usage).where('subject', 'in', padded(dialect, subjects)).compile(),

    /** Removes some of the rows from before a day. */
    removeUsageBefore(day: number): Statement {
      if (dialect.name === 'mysql') {
        return db.deleteFrom(usage).where('day', '<', day).limit(ROWS_PER_REMOVAL).compile()
      }
      const place = sql.ref(dialect.name === 'postgres' ? 'ctid' : 'rowid')
      const old = db
        .selectFrom(usage)
        .select(place.as('place'))
        .where('day', '<', day)
        .limit(ROWS_PER_REMOVAL)
      return db.deleteFrom(usage).where(place, 'in', old).compile()
    },
  }
}

const NOTHING: UsageAmount = { subject: '', day: 0, counter: '', amount: 0 }

function addRows({ dialect, db, usage }: Tables, hour: number, rows: readonly UsageAmount[]): Statement {
  const column = hourColumn(hour)
  const insert = db.insertInto(usage).values(rows.map(({ amount, ...row }) => ({ ...row, [column]: amount })))
  if (dialect.name === 'mysql') {
    const added = sql`${sql.ref(column)} + values(${sql.ref(column)})`
    return insert.onDuplicateKeyUpdate({ [column]: added } as never).compile()
  }
  return insert
    .onConflict((conflict) =>
      conflict.columns(['subject', 'day', 'counter']).doUpdateSet({
        [column]: sql`${sql.ref(`${usage}.${column}`)} + ${sql.ref(`excluded.${column}`)}`,
      }),
    )
    .compile()
}

/** For PostgreSQL: all rows in one parameter. */
function addFromJson({ db, names }: Tables, hour: number, rows: readonly UsageAmount[]): Statement {
  const table = sql.table(names.schema === undefined ? names.usage : `${names.schema}.${names.usage}`)
  const column = sql.ref(hourColumn(hour))
  return sql`
      insert into ${table} as u (subject, day, counter, ${column})
      select subject, day, counter, amount
      from json_to_recordset(${JSON.stringify(rows)}::json)
        as added (subject text, day integer, counter text, amount bigint)
      order by subject collate "C", day, counter collate "C"
      on conflict (subject, day, counter) do update set ${column} = u.${column} + excluded.${column}`.compile(
    db,
  )
}
