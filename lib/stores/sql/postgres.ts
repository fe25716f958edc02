import { createHash } from 'node:crypto'
import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import { messageOf } from '../../internal/any-realm.ts'
import { checkMethods } from '../../internal/options.ts'
import { attempt, type Database } from './database.ts'
import { DatabaseFailure, type FailureKind } from './database-errors.ts'
import { postgresDialect } from './dialect.ts'
import { type Answer, type Plan, type Row, runPlan, type Statement } from './plan.ts'
import { createSqlStore, type SqlStore } from './sql-store.ts'
import { resolveTableNames, type SqlTableOptions } from './table-names.ts'

/** The parts of a pg `Pool` that the store uses. */
export interface PostgresPool {
  connect(): Promise<PostgresClient>
}

/** The parts of a pg `PoolClient` that the store uses. */
export interface PostgresClient {
  query(query: PostgresQuery): Promise<{ readonly rows: unknown[]; readonly rowCount: number | null }>
  release(destroy?: boolean): void
  on(event: 'error', listener: () => void): unknown
  off(event: 'error', listener: () => void): unknown
  /** In recent releases of pg: `T` within a transaction. */
  getTransactionStatus?(): string | null
}

/** A query with the store's own parsers, whatever parsers the application has registered. */
export interface PostgresQuery {
  text: string
  values: unknown[]
  types: { getTypeParser(oid: number, format?: string): (value: string) => unknown }
}

/**
 * Creates a store in PostgreSQL 12 or later, over a pg pool of the application. The application closes the pool.
 *
 * @throws TypeError naming the option, or when `pool` belongs to another database.
 * @example
 * const store = postgresStore(new Pool({ connectionString }))
 * await migrate(store)
 */
export function postgresStore(pool: PostgresPool, options: SqlTableOptions = {}): SqlStore {
  checkPool(pool)
  return createSqlStore(createPostgresDatabase(pool), resolveTableNames(options, ['table', 'schema']))
}

function checkPool(pool: unknown): void {
  const given = pool as Record<string, unknown> | null | undefined
  if (typeof given?.getConnection === 'function')
    throw new TypeError('"pool" is a MySQL pool: use mysqlStore')
  if (typeof given?.prepare === 'function')
    throw new TypeError('"pool" is a SQLite database: use sqliteStore')
  checkMethods('pool', pool, ['connect'])
}

function createPostgresDatabase(pool: PostgresPool): Database {
  const run = <T>(work: (execute: Execute, client: PostgresClient) => Promise<T>) =>
    attempt(postgresDialect, () => withClient(pool, work))

  return {
    dialect: postgresDialect,
    read: (plan) => run((execute, client) => alone(client, runPlan(plan(), execute))),
    write: (plan) => run((execute, client) => alone(client, runPlan(plan(), execute))),
    transact: (plan) => run((execute) => inTransaction(execute, plan())),
    alter: (table, plan) =>
      run((execute) =>
        inTransaction(execute, plan(), {
          sql: 'select pg_advisory_xact_lock($1)',
          parameters: [lockOf(table)],
        }),
      ),
    async close() {},
  }
}

type Execute = (statement: Statement) => Promise<Answer>

async function withClient<T>(
  pool: PostgresPool,
  work: (execute: Execute, client: PostgresClient) => Promise<T>,
): Promise<T> {
  const client = await pool.connect().catch((error: unknown) => {
    throw toFailure(error)
  })
  let isBroken = false
  const onError = () => {
    isBroken = true
  }
  // If a connection ends during a query, pg also emits an event, which ends the process without a listener.
  client.on('error', onError)
  try {
    return await work((statement) => execute(client, statement), client)
  } catch (error) {
    // This connection may still be busy: it must not go back to the pool.
    if (!(error instanceof DatabaseFailure) || error.kind === 'connection') isBroken = true
    throw error
  } finally {
    client.off('error', onError)
    client.release(isBroken)
  }
}

async function execute(client: PostgresClient, { sql, parameters }: Statement): Promise<Answer> {
  try {
    const { rows, rowCount } = await client.query({
      text: sql,
      values: [...parameters],
      types: { getTypeParser: (_oid, format) => (format === 'binary' ? refuseBinary : String) },
    })
    return { rows: rows as Row[], affected: rowCount ?? 0 }
  } catch (error) {
    throw isLatchkeyError(error) ? error : toFailure(error)
  }
}

/**
 * Fails if the application returned the connection with an open transaction: what was read may be old, and what was written stays
 * locked until that ends. It checks afterwards: before, the statement that ends the transaction may still be running.
 */
async function alone<T>(client: PostgresClient, work: Promise<T>): Promise<T> {
  const result = await work
  if (!isInTransaction(client)) return result
  const problem = 'the application returned a connection to the pool with an open transaction'
  throw new DatabaseFailure('connection', 'connection', new Error(problem))
}

function isInTransaction(client: PostgresClient): boolean {
  try {
    return client.getTransactionStatus?.() === 'T'
  } catch {
    // pg has the method, but an older pg-native does not.
    return false
  }
}

/** Uses read committed, whatever the default is: the store locks rows before it reads them to decide, so it needs no more. */
async function inTransaction<T>(execute: Execute, plan: Plan<T>, lock?: Statement): Promise<T> {
  await execute({ sql: 'begin isolation level read committed', parameters: [] })
  try {
    if (lock) await execute(lock)
    const result = await runPlan(plan, execute)
    await execute({ sql: 'commit', parameters: [] })
    return result
  } catch (error) {
    if (error instanceof DatabaseFailure && error.kind !== 'connection') {
      await execute({ sql: 'rollback', parameters: [] })
    }
    throw error
  }
}

/** pg has already turned binary results into text and destroyed numbers. */
function refuseBinary(): never {
  throw new LatchkeyError('wrong_dialect', 'the pool of PostgreSQL must not ask for binary results')
}

function lockOf(table: string): string {
  return createHash('sha256').update(`latchkey ${table}`).digest().readBigInt64BE().toString()
}

function toFailure(error: unknown): DatabaseFailure {
  const code = (error as { code?: unknown } | null)?.code
  // An error of the network has a code too, such as ECONNRESET.
  const isAnswer = typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && 'severity' in (error as object)
  if (isAnswer) return new DatabaseFailure(kindOf(code), code, error)
  // pg's message if the server is not PostgreSQL.
  const isOther = /^Received unexpected \w+ message/.test(messageOf(error))
  return new DatabaseFailure(
    isOther ? 'not_understood' : 'connection',
    isOther ? 'protocol' : 'connection',
    error,
  )
}

/** By SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html */
function kindOf(state: string): FailureKind {
  switch (state) {
    case '23505':
      return 'duplicate'
    case '40001':
    case '40P01':
      return 'rolled_back'
    // The application returned the connection with an open or a failed transaction.
    case '25001':
    case '25P01':
    case '25P02':
      return 'connection'
    case '42P01':
    case '42703':
      return 'no_table'
    case '3F000':
    case '3D000':
      return 'no_schema'
    case '25006':
      return 'read_only'
    case '42601':
    case '42883':
    case '42704':
    case '0A000':
      return 'not_understood'
    case '54000':
    case '22001':
      return 'too_long'
    case '22021':
    case '22P05':
      return 'not_encodable'
    case '42501':
      return 'denied'
  }
  // The server is going down or coming up; it ends the connection itself.
  if (/^(?:57P|08|53)/.test(state)) return 'connection'
  return /^(?:22|23)/.test(state) ? 'refused_value' : 'refused'
}
