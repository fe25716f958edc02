import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import type { Answer, Row, Statement } from './plan.ts'
import type { Execute, PostgresDriver } from './postgres-driver.ts'
import { isFromServer, toFailure, withoutParameters } from './postgres-errors.ts'

/** The parts of a postgres.js client, `postgres(url)`, that the store uses. */
export interface PostgresJsClient extends PostgresJsStatements {
  begin(work: (transaction: PostgresJsStatements) => Promise<unknown>): Promise<unknown>
  readonly options: {
    readonly transform: { readonly column: { readonly from?: ((name: string) => string) | undefined } }
  }
}

/** How postgres.js runs statements, in a transaction or alone. */
export interface PostgresJsStatements {
  // biome-ignore lint/suspicious/noExplicitAny: postgres.js has its own types for parameters.
  unsafe(query: string, parameters: any[]): { raw(): PromiseLike<PostgresJsRows> }
  typed(value: string, type: number): unknown
}

/** Rows of bytes, which no parser of the application has seen. */
export interface PostgresJsRows extends Iterable<unknown> {
  readonly columns?: readonly { readonly name: string }[]
  readonly count: number | null
}

/**
 * Runs statements over a postgres.js client, all of them in transactions: the client does not tell whether the application returned a
 * connection with an open transaction, and reads there may be old.
 */
export function postgresJsDriver(sql: PostgresJsClient): PostgresDriver {
  return {
    alone: (work) => inTransaction(sql, work),
    inTransaction: (work) => inTransaction(sql, work),
  }
}

/**
 * Uses `begin`, not `reserve`, which never resolves with `fetch_types: false`. It sends nothing on a connection that has closed:
 * postgres.js 3.4.9 would end the process, or send it on the next connection and give that answer to another query.
 */
async function inTransaction<T>(sql: PostgresJsClient, work: (execute: Execute) => Promise<T>): Promise<T> {
  let isOver = false
  let failure: unknown
  const run = (transaction: PostgresJsStatements) => {
    const executeNow: Execute = (statement) =>
      isOver
        ? forever()
        : execute(transaction, statement, sql.options.transform.column.from).catch((error: unknown) =>
            // `begin` rejects by itself then. If this rejected, it would send a rollback.
            hasClosed(error) ? forever() : throwFailure(error),
          )
    // Sent together with the first statement. In a transaction that was open it fails, and so does that.
    executeNow(READ_COMMITTED).catch(() => {})
    return work(executeNow).catch((error: unknown) => {
      failure = error
      throw error
    })
  }
  try {
    return (await sql.begin(run)) as T
  } catch (error) {
    isOver = true
    throw error === failure ? error : toFailure(withoutParameters(error))
  }
}

const READ_COMMITTED: Statement = Object.freeze({
  sql: 'set transaction isolation level read committed',
  parameters: [],
})

/** An error of the network or of a closed connection has a code, such as ECONNRESET, and does not come from the server. */
function hasClosed(error: unknown): boolean {
  return (
    typeof (error as { code?: unknown } | null)?.code === 'string' &&
    !isLatchkeyError(error) &&
    !isFromServer(error)
  )
}

function forever(): Promise<never> {
  return new Promise(() => {})
}

function throwFailure(error: unknown): never {
  throw isLatchkeyError(error) ? error : toFailure(withoutParameters(error))
}

async function execute(
  statements: PostgresJsStatements,
  { sql, parameters }: Statement,
  toName: ((name: string) => string) | undefined,
): Promise<Answer> {
  const rows = await statements
    .unsafe(
      sql,
      parameters.map((value) => asText(statements, value)),
    )
    .raw()
  const names = toName && new Map(sql.match(/\w+/g)?.map((name) => [toName(name), name]))
  const columns = rows.columns?.map(({ name }) => names?.get(name) ?? name) ?? []
  return { rows: Array.from(rows, (cells) => toRow(cells, columns)), affected: rows.count ?? 0 }
}

const TEXT = 25

/** Without a type, postgres.js would convert a text for the column it goes to: as JSON, for example, a second time. */
function asText(statements: PostgresJsStatements, value: unknown): unknown {
  return typeof value === 'string' ? statements.typed(value, TEXT) : value
}

function toRow(cells: unknown, columns: readonly string[]): Row {
  if (!Array.isArray(cells))
    throw new LatchkeyError('wrong_dialect', 'the client of postgres.js must not transform rows')
  return Object.fromEntries(columns.map((name, i) => [name, (cells[i] as Buffer | null)?.toString() ?? null]))
}
