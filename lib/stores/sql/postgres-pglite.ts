import type { Answer, Row, Statement } from './plan.ts'
import type { PostgresDriver } from './postgres-driver.ts'
import { toFailure, withoutParameters } from './postgres-errors.ts'

/** The parts of a PGlite database that the store uses. */
export interface PGliteDatabase extends PGliteStatements {
  transaction<T>(work: (transaction: PGliteStatements) => Promise<T>): Promise<T>
  execProtocolRaw(message: Uint8Array): Promise<Uint8Array>
}

/** How PGlite runs statements, in a transaction or alone. */
export interface PGliteStatements {
  query(
    query: string,
    parameters: unknown[],
    options: PGliteConversions,
  ): Promise<{ readonly rows: unknown[]; readonly affectedRows?: number }>
}

/** The store's own conversions by type, whatever conversions the application has registered. */
export interface PGliteConversions {
  // biome-ignore lint/suspicious/noExplicitAny: PGlite has its own types for values.
  parsers: Record<number, (value: any) => any>
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  serializers: Record<number, (value: any) => any>
}

/**
 * Runs statements in a PGlite database. It has one session, and lets one caller after the other have it, for a statement or for a
 * transaction.
 */
export function pgliteDriver(database: PGliteDatabase): PostgresDriver {
  const single: PostgresDriver['read'] = (work) => work((statement) => execute(database, statement))
  return {
    read: single,
    write: single,
    async inTransaction(work) {
      let failure: unknown
      try {
        return await database.transaction((transaction) =>
          work((statement) => execute(transaction, statement)).catch((error: unknown) => {
            failure = error
            throw error
          }),
        )
      } catch (error) {
        throw error === failure ? error : toFailure(withoutParameters(error))
      }
    },
  }
}

/** boolean, bigint, integer, text, json and numeric. */
const TYPES = [16, 20, 23, 25, 114, 1700]
const AS_TEXT: PGliteConversions = {
  parsers: Object.fromEntries(TYPES.map((type) => [type, String])),
  serializers: Object.fromEntries(TYPES.map((type) => [type, String])),
}

async function execute(on: PGliteStatements, { sql, parameters }: Statement): Promise<Answer> {
  try {
    const { rows, affectedRows } = await on.query(sql, [...parameters], AS_TEXT)
    return { rows: rows as Row[], affected: affectedRows ?? 0 }
  } catch (error) {
    throw toFailure(withoutParameters(error))
  }
}
