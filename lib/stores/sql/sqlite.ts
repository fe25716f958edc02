import { messageOf } from '../../internal/any-realm.ts'
import { checkMethods, fail } from '../../internal/options.ts'
import { attempt, type Database } from './database.ts'
import { DatabaseFailure, type FailureKind } from './database-errors.ts'
import { sqliteDialect } from './dialect.ts'
import { type Answer, type Plan, type Row, runPlanNow, type Statement } from './plan.ts'
import { createSqlStore, type SqlStore } from './sql-store.ts'
import {
  loadSqliteDriver,
  type SqliteDatabase,
  type SqliteDriver,
  type SqliteStatement,
} from './sqlite-drivers.ts'
import { resolveTableNames, type SqlTableOptions } from './table-names.ts'

export type SqliteStoreOptions = Omit<SqlTableOptions, 'schema'>

/**
 * Creates a store in a SQLite file, or in a database that the application has already opened: a `DatabaseSync` of node:sqlite, or a
 * `Database` of better-sqlite3 or libsql.
 *
 * The store opens a file on first use, and creates it if it does not exist. It uses the first available of these three drivers and
 * sets WAL mode. Each write is on disk before it resolves. Several processes on one machine may use the file.
 *
 * @throws TypeError naming the option, or when given the pool of another database.
 * @example
 * const store = sqliteStore('keys.db')
 * await migrate(store)
 */
export function sqliteStore(
  fileOrDatabase: string | SqliteDatabase,
  options: SqliteStoreOptions = {},
): SqlStore {
  const database = createSqliteDatabase(checkDatabase(fileOrDatabase))
  return createSqlStore(database, resolveTableNames(options, ['table']))
}

function checkDatabase(value: unknown): string | SqliteDatabase {
  if (typeof value === 'string' && value !== '') return value
  const given = value as Record<string, unknown> | null | undefined
  if (typeof given?.prepare === 'function' && typeof given.exec === 'function') return given as never
  if (typeof given?.getConnection === 'function')
    throw new TypeError('"fileOrDatabase" is a MySQL pool: use mysqlStore')
  if (typeof given?.connect === 'function')
    throw new TypeError('"fileOrDatabase" is a PostgreSQL pool: use postgresStore')
  if (typeof value !== 'object' || value === null)
    fail('fileOrDatabase', 'the name of a file, or a database', value)
  checkMethods('fileOrDatabase', value, ['prepare', 'exec'])
  return value as SqliteDatabase
}

function createSqliteDatabase(fileOrDatabase: string | SqliteDatabase): Database {
  let opened: Promise<Connection> | null = null
  let isClosed = false
  const connect =
    typeof fileOrDatabase === 'string' ? connectToFile(fileOrDatabase) : connectTo(fileOrDatabase)

  const run = <T>(work: (connection: Connection) => T) =>
    attempt(sqliteDialect, async () => {
      if (isClosed) throw new Error('the store was closed')
      return work(await open())
    })

  /** Opens the database once, and tries again after a failure. */
  function open(): Promise<Connection> {
    opened ??= connect().catch((error: unknown) => {
      opened = null
      throw error
    })
    return opened
  }

  const transact = <T>(plan: () => Plan<T>) => run((connection) => inTransaction(connection, plan()))

  return {
    dialect: sqliteDialect,
    read: (plan) => run(({ execute }) => runPlanNow(plan(), execute)),
    // Without its own transaction, a write would join one that the application has open on its database, and could be rolled back.
    write: transact,
    transact,
    alter: (_table, plan) => transact(plan),
    async close() {
      isClosed = true
      const connection = await opened?.catch(() => null)
      if (typeof fileOrDatabase === 'string') connection?.database.close?.()
    },
  }
}

interface Connection {
  readonly database: SqliteDatabase
  execute(statement: Statement): Answer
}

function connectTo(database: SqliteDatabase): () => Promise<Connection> {
  return async () => createConnection(database)
}

/** Loads the driver now, so that the first request need not wait for it. If there is none, every request says so. */
function connectToFile(file: string): () => Promise<Connection> {
  const loading = loadSqliteDriver()
  loading.catch(() => {})
  return async () => openFile(await loading, file)
}

function openFile(open: SqliteDriver, file: string): Connection {
  const database = openDatabase(open, file)
  try {
    // Longer waits happen between attempts, where they do not block the process.
    command(database, 'pragma busy_timeout = 50')
    // Random ids spread index writes over the whole file: with a larger cache, SQLite writes each page once and not many times.
    command(database, 'pragma cache_size = -32768')
    command(database, 'pragma wal_autocheckpoint = 4000')
    // Some builds default to less for WAL, and a crash of the machine could then lose a revocation.
    command(database, 'pragma synchronous = full')
    const connection = createConnection(database)
    useWal(connection)
    return connection
  } catch (error) {
    database.close?.()
    throw error
  }
}

function openDatabase(open: SqliteDriver, file: string): SqliteDatabase {
  try {
    return open(file)
  } catch (error) {
    throw isSqliteError(error) ? toFailure(error) : error
  }
}

/** Sets WAL mode. A read-only file stays as it is: the store can still read it. */
function useWal({ database, execute }: Connection): void {
  const [row] = execute({ sql: 'pragma journal_mode', parameters: [] }).rows
  if (row?.journal_mode === 'wal') return
  try {
    command(database, 'begin immediate')
    command(database, 'rollback')
    command(database, 'pragma journal_mode = wal')
  } catch (error) {
    if (!(error instanceof DatabaseFailure) || error.kind !== 'read_only') throw error
  }
}

const MAX_PREPARED = 100

function createConnection(database: SqliteDatabase): Connection {
  const prepared = new Map<string, SqliteStatement>()

  function prepare(sql: string): SqliteStatement {
    let statement = prepared.get(sql)
    if (!statement) {
      statement = database.prepare(sql)
      statement.setReadBigInts?.(true)
      const [oldest] = prepared.size >= MAX_PREPARED ? prepared.keys() : []
      if (oldest !== undefined) prepared.delete(oldest)
      prepared.set(sql, statement)
    }
    return statement
  }

  return {
    database,
    execute({ sql, parameters }) {
      try {
        const statement = prepare(sql)
        // SQLite has no booleans, and drivers refuse them.
        const values = parameters.map((value) => (typeof value === 'boolean' ? Number(value) : value))
        if (/^(?:select|pragma|explain)\b/.test(sql))
          return { rows: statement.all(...values) as Row[], affected: 0 }
        return { rows: [], affected: Number(statement.run(...values).changes) }
      } catch (error) {
        throw toFailure(error)
      }
    },
  }
}

/** Runs from begin to commit without a pause. `immediate` takes the lock at the start: SQLite may refuse it later. */
function inTransaction<T>({ database, execute }: Connection, plan: Plan<T>): T {
  command(database, 'begin immediate')
  try {
    const result = runPlanNow(plan, execute)
    command(database, 'commit')
    return result
  } catch (error) {
    try {
      database.exec('rollback')
    } catch {
      // SQLite has already rolled back, for example because the disk is full.
    }
    throw error
  }
}

function command(database: SqliteDatabase, sql: string): void {
  try {
    database.exec(sql)
  } catch (error) {
    throw toFailure(error)
  }
}

const CODES: Readonly<Record<number, string>> = {
  5: 'SQLITE_BUSY',
  6: 'SQLITE_LOCKED',
  8: 'SQLITE_READONLY',
  14: 'SQLITE_CANTOPEN',
  18: 'SQLITE_TOOBIG',
  26: 'SQLITE_NOTADB',
  1555: 'SQLITE_CONSTRAINT_PRIMARYKEY',
  2067: 'SQLITE_CONSTRAINT_UNIQUE',
}

/** node:sqlite reports numbers, the other drivers names. */
function codeOf(error: unknown): string {
  const { code, errcode } = (error ?? {}) as { code?: unknown; errcode?: unknown }
  if (typeof errcode === 'number') return CODES[errcode] ?? CODES[errcode & 0xff] ?? `SQLITE_${errcode}`
  return typeof code === 'string' ? code : ''
}

function isSqliteError(error: unknown): boolean {
  return codeOf(error).startsWith('SQLITE')
}

function toFailure(error: unknown): DatabaseFailure {
  const code = codeOf(error)
  const message = messageOf(error)
  return new DatabaseFailure(kindOf(code, message), code || 'SQLITE', error)
}

/** By result code or, if that is only a general error, by message: https://www.sqlite.org/rescode.html */
function kindOf(code: string, message: string): FailureKind {
  if (/^SQLITE_CONSTRAINT_(?:PRIMARYKEY|UNIQUE)$/.test(code) || /^UNIQUE constraint failed/.test(message))
    return 'duplicate'
  // The application has an open transaction on its database: the store tries again after that.
  if (/^SQLITE_(?:BUSY|LOCKED)/.test(code) || /within a transaction/.test(message)) return 'rolled_back'
  if (/no such (?:table|column)|has no column named/.test(message)) return 'no_table'
  if (code.startsWith('SQLITE_READONLY')) return 'read_only'
  if (code === 'SQLITE_NOTADB' || /syntax error/.test(message)) return 'not_understood'
  if (code === 'SQLITE_TOOBIG') return 'too_long'
  return 'refused'
}
