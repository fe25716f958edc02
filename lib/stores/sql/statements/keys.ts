import { sql } from 'kysely'
import { keyColumnNames } from '../key-row.ts'
import type { Cell, Statement } from '../plan.ts'
import { padded } from './padding.ts'
import { prepare, selectKeys, type Tables } from './tables.ts'

/** Statements that find, insert and change keys. */
export function createKeyStatements(tables: Tables) {
  const { dialect, db, keys } = tables
  const select = selectKeys(tables)
  // Any request may run these, so their SQL is written once.
  const findById = prepare(select.where('k.id', '=', '').compile())
  const findByLookup = prepare(select.where('k.lookup', '=', '').compile())
  const insertOne = insertRows(tables, 1)

  return {
    findById: (id: string) => findById([id]),

    findByLookups(lookups: readonly string[]): Statement {
      if (lookups.length === 1) return findByLookup(lookups)
      return select.where('k.lookup', 'in', padded(dialect, lookups)).compile()
    },

    insertKeys(rows: readonly (readonly Cell[])[]): Statement {
      const text = rows.length === 1 ? insertOne : insertRows(tables, rows.length)
      return { sql: text, parameters: rows.flat() }
    },

    updateKey(id: string, expectedVersion: number, row: Record<string, Cell>, revokedAtMs: Cell | undefined) {
      const update = db
        .updateTable(keys)
        .set({ ...row, version: expectedVersion + 1 })
        .where('id', '=', id)
        .where('version', '=', expectedVersion)
      if (revokedAtMs === undefined || revokedAtMs === null) return update.compile()
      return update.set('revoked_at_ms', sql`coalesce(revoked_at_ms, ${revokedAtMs})`).compile()
    },

    replaceDigest: (id: string, expected: string, next: string) =>
      db
        .updateTable(keys)
        .set({ digest: next })
        .where('id', '=', id)
        .where('digest', '=', expected)
        .compile(),

    lineageOf: (id: string) => db.selectFrom(keys).select('lineage_id').where('id', '=', id).compile(),
  }
}

/** The SQL that inserts this many rows. */
function insertRows({ db, keys }: Tables, count: number): string {
  const row = Object.fromEntries(keyColumnNames.map((column) => [column, '']))
  return db.insertInto(keys).columns(keyColumnNames).values(Array(count).fill(row)).compile().sql
}
