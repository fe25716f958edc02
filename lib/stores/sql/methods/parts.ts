import type { Database } from '../database.ts'
import type { Statements } from '../statements.ts'

/** What every method of a store needs. */
export interface SqlStoreParts {
  readonly database: Database
  readonly statements: Statements
}

/** How many ids one statement names at most. */
export const IDS_PER_STATEMENT = 500

export function* inChunks<T>(values: readonly T[], size: number): Generator<readonly T[]> {
  for (let from = 0; from < values.length; from += size) yield values.slice(from, from + size)
}
