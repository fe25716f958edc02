import { isLatchkeyError, LatchkeyError } from '../../../errors.ts'
import type { Database } from '../database.ts'
import type { Dialect } from '../dialect.ts'
import { type Cell, type Row, rowsOf, type Statement } from '../plan.ts'

/** Whether a statement failed because it named a text that the database cannot hold. */
export function isUnsupported(error: unknown): boolean {
  return isLatchkeyError(error) && error.code === 'unsupported'
}

/** The rows that a statement finds; null if it names a text that the database cannot hold. */
export async function readRows(
  database: Database,
  statement: () => Statement,
): Promise<readonly Row[] | null> {
  try {
    return await database.read(() => rowsOf(statement()))
  } catch (error) {
    if (isUnsupported(error)) return null
    throw error
  }
}

/** @throws LatchkeyError `unsupported` for a text that a lenient server would cut off. */
export function checkLengths(
  columns: readonly string[],
  cells: readonly Cell[],
  { maxLengths, title }: Dialect,
): void {
  if (!maxLengths) return
  for (const [i, column] of columns.entries()) {
    const [cell, maxLength] = [cells[i], maxLengths[column]]
    if (typeof cell !== 'string' || maxLength === undefined) continue
    if (cell.length <= maxLength || [...cell].length <= maxLength) continue
    const problem = `the column "${column}" holds at most ${maxLength} characters in ${title}`
    throw new LatchkeyError('unsupported', problem)
  }
}
