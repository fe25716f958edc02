import { createHash } from 'node:crypto'
import { LatchkeyError } from '../../errors.ts'
import { checkMethods } from '../../internal/options.ts'
import { attempt, type Database } from './database.ts'
import { DatabaseFailure, type FailureKind } from './database-errors.ts'
import { mysqlDialect } from './dialect.ts'
import { type Answer, type Plan, type Row, runPlan, type Statement } from './plan.ts'
import { createSqlStore, type SqlStore } from './sql-store.ts'
import { resolveTableNames, type SqlTableOptions } from './table-names.ts'

/** The parts of a mysql2 pool that the store uses: from `createPool` of `mysql2` or `mysql2/promise`. */
export type MysqlPool = MysqlCallbackPool | { readonly pool: MysqlCallbackPool }

export interface MysqlCallbackPool {
  getConnection(callback: (error: NodeJS.ErrnoException | null, connection: MysqlConnection) => void): void
}

/** The parts of a mysql2 connection that the store uses. */
export interface MysqlConnection {
  // biome-ignore lint/suspicious/noExplicitAny: mysql2 has an overload for each kind of result.
  execute(options: any, callback: (error: any, result: any) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  query(options: any, callback: (error: any, result: any) => void): unknown
  release(): void
  destroy(): void
}

/**
 * Creates a store in MySQL 8.0.17 or later, or MariaDB 10.6 or later, over a mysql2 pool of the application. The application closes
 * the pool.
 *
 * @throws TypeError naming the option, or when `pool` belongs to another database.
 * @example
 * const store = mysqlStore(createPool(url))
 * await migrate(store)
 */
export function mysqlStore(pool: MysqlPool, options: SqlTableOptions = {}): SqlStore {
  const database = createMysqlDatabase(checkPool(pool))
  return createSqlStore(database, resolveTableNames(options, ['table', 'schema']))
}

function checkPool(pool: unknown): MysqlCallbackPool {
  const given = pool as Record<string, unknown> | null | undefined
  if (typeof given?.prepare === 'function' && typeof given.getConnection !== 'function')
    throw new TypeError('"pool" is a SQLite database: use sqliteStore')
  if (typeof given?.connect === 'function' && typeof given.getConnection !== 'function')
    throw new TypeError('"pool" is a PostgreSQL pool: use postgresStore')
  // A pool of mysql2/promise is one of mysql2 underneath.
  const isWrapped = typeof (given?.pool as Record<string, unknown> | undefined)?.getConnection === 'function'
  checkMethods('pool', pool, ['getConnection'])
  return (isWrapped ? given?.pool : pool) as MysqlCallbackPool
}

function createMysqlDatabase(pool: MysqlCallbackPool): Database {
  const checked = new WeakSet<MysqlConnection>()
  const run = <T>(work: (execute: Execute) => Promise<T>) =>
    attempt(mysqlDialect, () =>
      withConnection(pool, async (execute, connection) => {
        if (!checked.has(connection)) await checkConnection(execute)
        checked.add(connection)
        await execute(READ_COMMITTED)
        return work(execute)
      }),
    )

  return {
    dialect: mysqlDialect,
    read: (plan) => run((execute) => runPlan(plan(), execute)),
    write: (plan) => run((execute) => runPlan(plan(), execute)),
    transact: (plan) => run((execute) => inTransaction(execute, plan())),
    alter: (table, plan) => run((execute) => whileLocked(execute, lockOf(table), plan())),
    async close() {},
  }
}

type Execute = (statement: Statement) => Promise<Answer>

async function withConnection<T>(
  pool: MysqlCallbackPool,
  work: (execute: Execute, connection: MysqlConnection) => Promise<T>,
): Promise<T> {
  const connection = await new Promise<MysqlConnection>((resolve, reject) => {
    pool.getConnection((error, given) => (error ? reject(toFailure(error)) : resolve(given)))
  })
  let isBroken = false
  try {
    return await work((statement) => execute(connection, statement), connection)
  } catch (error) {
    // This connection may still be busy: it must not go back to the pool.
    if (!(error instanceof DatabaseFailure) || error.kind === 'connection') isBroken = true
    throw error
  } finally {
    if (isBroken) connection.destroy()
    else connection.release()
  }
}

/**
 * Sends values apart from the statement. mysql2's `query` writes them into it, which is not safe if the server does not treat a
 * backslash as an escape.
 */
function execute(connection: MysqlConnection, { sql, parameters }: Statement): Promise<Answer> {
  const options = { sql, values: [...parameters], rowsAsArray: false, nestTables: false, typeCast: true }
  return new Promise((resolve, reject) => {
    const done = (error: unknown, result: unknown) => {
      if (error) reject(toFailure(error))
      else if (Array.isArray(result)) resolve({ rows: result as Row[], affected: 0 })
      else resolve({ rows: [], affected: (result as { affectedRows: number }).affectedRows })
    }
    if (parameters.length > 0) connection.execute(options, done)
    else connection.query(options, done)
  })
}

/** Refuses connection settings that would silently change texts or lose writes. */
async function checkConnection(execute: Execute): Promise<void> {
  const { rows } = await execute({
    sql: 'select @@autocommit as autocommit, @@character_set_client as client, @@character_set_results as results',
    parameters: [],
  })
  const { autocommit, client, results } = rows[0] ?? {}
  if (client !== 'utf8mb4' || results !== 'utf8mb4') {
    throw new LatchkeyError('wrong_dialect', 'the pool of MySQL must be created with charset "utf8mb4"')
  }
  if (Number(autocommit) !== 1) {
    throw new LatchkeyError('wrong_dialect', 'the connections of MySQL must have autocommit on')
  }
}

/**
 * Sets the isolation level of the next transaction. The store locks rows before it reads them to decide, so it needs no more, and this
 * level locks no gaps. The statement fails if the application returned the connection with an open transaction: reads there would be
 * as old as that transaction, and writes would stay locked until it ends.
 */
const READ_COMMITTED: Statement = Object.freeze({
  sql: 'set transaction isolation level read committed',
  parameters: [],
})

async function inTransaction<T>(execute: Execute, plan: Plan<T>): Promise<T> {
  await execute({ sql: 'start transaction', parameters: [] })
  try {
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

const LOCK_TIMEOUT_SECONDS = 60

/** MySQL does not run schema changes in a transaction. The lock ends with the connection at the latest. */
async function whileLocked<T>(execute: Execute, lock: string, plan: Plan<T>): Promise<T> {
  const { rows } = await execute({
    sql: 'select get_lock(?, ?) as locked',
    parameters: [lock, LOCK_TIMEOUT_SECONDS],
  })
  if (Number(rows[0]?.locked) !== 1) throw new Error('another process has been migrating for a minute')
  try {
    return await runPlan(plan, execute)
  } finally {
    await execute({ sql: 'select release_lock(?) as released', parameters: [lock] })
  }
}

/** The name of a lock has at most 64 characters. */
function lockOf(table: string): string {
  return `latchkey ${createHash('sha256').update(table).digest('hex').slice(0, 48)}`
}

function toFailure(error: unknown): DatabaseFailure {
  const { code, errno, sqlState } = (error ?? {}) as { code?: string; errno?: number; sqlState?: string }
  return typeof sqlState === 'string' && typeof errno === 'number'
    ? new DatabaseFailure(kindOf(errno, sqlState, error), code ?? sqlState, error)
    : new DatabaseFailure('connection', 'connection', error)
}

/** By the numbers of MySQL, which MariaDB shares: https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html */
function kindOf(errno: number, sqlState: string, error: unknown): FailureKind {
  switch (errno) {
    case 1062:
    case 1586:
      return 'duplicate'
    case 1213:
    case 3101:
      return 'rolled_back'
    // The application returned the connection with an open transaction.
    case 1568:
      return 'connection'
    case 1146:
    case 1054:
      return 'no_table'
    case 1049:
    case 1046:
      return 'no_schema'
    case 1290:
    case 1792:
    case 1836:
      return 'read_only'
    case 1064:
    case 1273:
    case 1305:
    case 1115:
      return 'not_understood'
    case 1406:
      return 'too_long'
    case 1267:
    case 1270:
    case 1271:
    case 1300:
    case 1977:
    case 3854:
    case 3988:
      return 'not_encodable'
    // MySQL uses this code for numbers too, with another message.
    case 1366:
      return /^Incorrect string value/.test((error as Error).message) ? 'not_encodable' : 'refused_value'
    case 1044:
    case 1142:
    case 1143:
    case 1227:
      return 'denied'
  }
  if (sqlState.startsWith('08')) return 'connection'
  return /^(?:22|23|HY)/.test(sqlState) ? 'refused_value' : 'refused'
}
