import { LatchkeyError } from '../../errors.ts'
import { DatabaseFailure } from './database-errors.ts'
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
  readonly command: string
}

/** Runs statements over a postgres.js client. */
export function postgresJsDriver(sql: PostgresJsClient): PostgresDriver {
  const transact: PostgresDriver['inTransaction'] = (work) => inTransaction(sql, work, commit)
  return {
    // In a transaction too: the client does not tell whether the application left one open.
    read: (work) => inTransaction(sql, work, async () => false),
    write: transact,
    inTransaction: transact,
  }
}

type Send = (statement: Statement) => Promise<PostgresJsRows>

/**
 * Uses `begin`, not `reserve`, which never resolves with `fetch_types: false`. It sends nothing on a connection that has closed:
 * postgres.js 3.4.9 would end the process, or send it on the next connection and give that answer to another query.
 */
async function inTransaction<T>(
  sql: PostgresJsClient,
  work: (execute: Execute) => Promise<T>,
  commit: (send: Send) => Promise<boolean>,
): Promise<T> {
  let isClosed = false
  let outcome: { result: T; isCommitted: boolean } | { failure: unknown } | undefined

  async function run(transaction: PostgresJsStatements): Promise<void> {
    const send: Send = (statement) =>
      isClosed ? forever() : sendOn(transaction, statement).catch(rejectIfOpen)
    // Sent together with the first statement. In a transaction that was open it fails, and so does that.
    send(READ_COMMITTED).catch(() => {})
    try {
      const result = await work(async (statement) => toAnswer(await send(statement), statement.sql, sql))
      outcome = { result, isCommitted: await commit(send) }
    } catch (failure) {
      outcome = { failure }
      throw failure
    }
  }

  try {
    await sql.begin(run)
  } catch (error) {
    isClosed = true
    if (!outcome || ('result' in outcome && !outcome.isCommitted)) throw toFailure(withoutParameters(error))
  }
  if (outcome && 'result' in outcome) return outcome.result
  throw outcome?.failure
}

/**
 * Commits, and leaves `begin` an empty transaction to commit. What that sends is a prepared statement. If a PgBouncer does not know it, the
 * transaction fails, and postgres.js commits again, which then rolls back and looks like success.
 */
async function commit(send: Send): Promise<boolean> {
  const { command } = await send({ sql: 'commit and chain', parameters: [] })
  if (command === 'COMMIT') return true
  throw new DatabaseFailure('connection', 'connection', new Error('the transaction was rolled back'))
}

const READ_COMMITTED: Statement = Object.freeze({
  sql: 'set transaction isolation level read committed',
  parameters: [],
})

function sendOn(statements: PostgresJsStatements, { sql, parameters }: Statement): Promise<PostgresJsRows> {
  const values = parameters.map((value) => asText(statements, value))
  return Promise.resolve(statements.unsafe(sql, values).raw())
}

/** The type `unknown`: PostgreSQL takes the one of the column, and postgres.js has no conversion for it. */
const UNKNOWN = 705

/** Otherwise postgres.js would convert a value for its column, as the application's types say: a text as JSON, for example, once more. */
function asText(statements: PostgresJsStatements, value: unknown): unknown {
  return value === null || value === undefined ? value : statements.typed(String(value), UNKNOWN)
}

/** Once the connection has closed, `begin` rejects by itself. If this rejected before, `begin` would send a rollback. */
function rejectIfOpen(error: unknown): Promise<never> {
  if (!isFromServer(error) && typeof (error as { code?: unknown } | null)?.code === 'string') return forever()
  throw toFailure(withoutParameters(error))
}

function forever(): Promise<never> {
  return new Promise(() => {})
}

function toAnswer(rows: PostgresJsRows, sql: string, { options }: PostgresJsClient): Answer {
  const toName = options.transform.column.from
  const names = toName && new Map(sql.match(/\w+/g)?.map((name) => [toName(name), name]))
  const columns = rows.columns?.map(({ name }) => names?.get(name) ?? name) ?? []
  return { rows: Array.from(rows, (cells) => toRow(cells, columns)), affected: rows.count ?? 0 }
}

function toRow(cells: unknown, columns: readonly string[]): Row {
  if (!Array.isArray(cells))
    throw new LatchkeyError('wrong_dialect', 'the client of postgres.js must not transform rows')
  return Object.fromEntries(columns.map((name, i) => [name, (cells[i] as Buffer | null)?.toString() ?? null]))
}
