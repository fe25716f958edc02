import { sql } from 'kysely'
import type { QuotaRecord } from '../../../core/limits/quota.ts'
import { quotaColumnNames } from '../key-row.ts'
import type { Cell, Statement } from '../plan.ts'
import { padded } from './padding.ts'
import { prepare, type Tables } from './tables.ts'

/** Statements that read, lock and change quotas. */
export function createQuotaStatements(tables: Tables) {
  const { dialect, db, quotas } = tables
  const select = db.selectFrom(quotas).select(['lineage_id', ...quotaColumnNames, 'removed'])
  const insert = prepare(insertOrLock(tables))
  const update = prepare(overwrite(tables))
  const swap = prepare(swapIfSame(tables))
  const read = prepare(select.where('lineage_id', '=', '').compile())

  return {
    /** If the lineage has a quota, keeps and locks that. */
    insertQuota: (lineageId: string, row: readonly Cell[], removed: boolean) =>
      insert([lineageId, ...row, removed]),

    lockQuotas(lineageIds: readonly string[]): Statement {
      const some = select.where('lineage_id', 'in', padded(dialect, lineageIds)).orderBy('lineage_id')
      return (dialect.locksRows ? some.forUpdate() : some).compile()
    },

    updateQuota: (lineageId: string, row: readonly Cell[]) => update([...row, false, lineageId]),

    swapQuota: (
      lineageId: string,
      { epoch, allotted, remaining, nextRefillAt }: QuotaRecord,
      row: readonly Cell[],
    ) => swap([...row, lineageId, epoch, allotted, remaining, nextRefillAt?.getTime() ?? -1]),

    readQuota: (lineageId: string) => read([lineageId]),

    removeQuota: (lineageId: string) =>
      db.updateTable(quotas).set({ removed: true }).where('lineage_id', '=', lineageId).compile(),
  }
}

/** Sets an existing row to itself, which locks it: otherwise a purge could remove it before this transaction ends. */
function insertOrLock({ dialect, db, names, quotas }: Tables): Statement {
  const ownId = sql.ref<Cell>(`${names.quotas}.lineage_id`)
  const columns = ['lineage_id', ...quotaColumnNames, 'removed']
  const insert = db.insertInto(quotas).values(blank(columns))
  // Not `insert ignore`, which would hide every other error.
  if (dialect.name === 'mysql') return insert.onDuplicateKeyUpdate({ lineage_id: ownId }).compile()
  return insert
    .onConflict((conflict) => conflict.column('lineage_id').doUpdateSet({ lineage_id: ownId }))
    .compile()
}

function overwrite({ db, quotas }: Tables): Statement {
  return db
    .updateTable(quotas)
    .set(blank([...quotaColumnNames, 'removed']))
    .where('lineage_id', '=', '')
    .compile()
}

/** Compares the time of the next refill too: processes of release 0.2 may change that alone. */
function swapIfSame({ db, quotas }: Tables): Statement {
  return db
    .updateTable(quotas)
    .set(blank(quotaColumnNames))
    .where('lineage_id', '=', '')
    .where('removed', '=', sql.lit(false))
    .where('epoch', '=', '')
    .where('allotted', '=', '')
    .where('remaining', '=', '')
    .where((q) => q(sql`coalesce(next_refill_at_ms, -1)`, '=', ''))
    .compile()
}

function blank(columns: readonly string[]): Record<string, Cell> {
  return Object.fromEntries(columns.map((column) => [column, '']))
}
