import type { Proposal } from '../../../core/keys/key-store.ts'
import type { Statement } from '../plan.ts'
import type { Tables } from './tables.ts'

/** Statements that read and write what processes agree on. */
export function createAgreementStatements({ dialect, db, agreements }: Tables) {
  return {
    findAgreement: (name: string): Statement =>
      db.selectFrom(agreements).select('value').where('name', '=', name).compile(),

    /** Replaces this value and no other. */
    swapAgreement: (name: string, expected: string, value: string): Statement =>
      db
        .updateTable(agreements)
        .set({ value })
        .where('name', '=', name)
        .where('value', '=', expected)
        .compile(),

    /** Keeps an existing value, unless the proposal replaces it. */
    writeAgreement(name: string, { value, replace }: Proposal): Statement {
      const insert = db.insertInto(agreements).values({ name, value })
      if (dialect.name === 'mysql') {
        // Sets an existing name to itself. `insert ignore` would hide every other error.
        return insert.onDuplicateKeyUpdate(replace ? { value } : { name }).compile()
      }
      return insert
        .onConflict((conflict) => {
          const same = conflict.column('name')
          return replace ? same.doUpdateSet({ value }) : same.doNothing()
        })
        .compile()
    },
  }
}
