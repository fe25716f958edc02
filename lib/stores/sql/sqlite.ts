import { messageOf } from '../../internal/any-realm.ts'
import { checkMethods, fail } from '../../internal/options.ts'
import { attempt, type Database } from './database.ts'
import { DatabaseFailure, type FailureKind } from './database-errors.ts'
import { sqliteDialect } from './dialect.ts'
import { type Answer, type Plan, type Row, runPlanNow, type Statement } from './plan.ts'
import { createSqlStore, type SqlStore } from './sql-store.ts'
import { openSqliteFile, type SqliteDatabase, type SqliteStatement } from './sqlite-drivers.ts'
import { resolveTableNames, type SqlTableOptions } from './table-names.ts'

export type SqliteStoreOptions = Omit<SqlTableOptions, 'schema'>

/**
 * Keys in a SQLite file, or in a database that the application has open already: a `DatabaseSync` of node:sqlite, a
 * `Database` of better-sqlite3 or of libsql.
 *
 * A file is opened when it is first needed, and created where there is none, with the first of these three that is
 * there; it is put into WAL mode, and each write is on the disk before it resolves. Several processes of one machine may use it.
 *
 * @throws TypeError naming the option, or when the pool of another database was given.
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
    throw new TypeError('"fileOrDatabase" is a pool of MySQL: use mysqlStore')
  if (typeof given?.connect === 'function')
    throw new TypeError('"fileOrDatabase" is a pool of PostgreSQL: use postgresStore')
  if (typeof value !== 'object' || value === null)
    fail('fileOrDatabase', 'the name of a file, or a database', value)
  checkMethods('fileOrDatabase', value, ['prepare', 'exec'])
  return value as SqliteDatabase
}

function createSqliteDatabase(fileOrDatabase: string | SqliteDatabase): Database {
  let opened: Promise<Connection> | null = null
  let isClosed = false

  const run = <T>(work: (connection: Connection) => T) =>
    attempt(sqliteDialect, async () => {
      if (isClosed) throw new Error('the store was closed')
      return work(await open())
    })

  /** Once for all; again where it failed. */
  function open(): Promise<Connection> {
    opened ??= openConnection(fileOrDatabase).catch((error: unknown) => {
      opened = null
      throw error
    })
    return opened
  }

  const transact = <T>(plan: () => Plan<T>) => run((connection) => inTransaction(connection, plan()))

  return {
    dialect: sqliteDialect,
    read: (plan) => run(({ execute }) => runPlanNow(plan(), execute)),
    // By itself a write would join a transaction that the application has open on its database, and be undone with it.
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

async function openConnection(fileOrDatabase: string | SqliteDatabase): Promise<Connection> {
  if (typeof fileOrDatabase !== 'string') return createConnection(fileOrDatabase)
  const database = await openSqliteFile(fileOrDatabase).catch((error: unknown) => {
    throw isSqliteError(error) ? toFailure(error) : error
  })
  const connection = createConnection(database)
  try {
    // Longer waits are made between attempts, where they do not hold up the process.
    command(database, 'pragma busy_timeout = 50')
    // Indexes of random ids are written all over the file: with room for them a page is written once and not many times.
    command(database, 'pragma cache_size = -32768')
    command(database, 'pragma wal_autocheckpoint = 4000')
    // Some builds do with less for WAL, and a machine that stops would then take a revocation with it.
    command(database, 'pragma synchronous = full')
    useWal(connection)
  } catch (error) {
    database.close?.()
    throw error
  }
  return connection
}

/** A file that cannot be written is left as it is: it can still be read. */
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

/** From begin to commit in one go. `immediate` takes the lock at the start: one that is asked for later may be refused. */
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
      // SQLite has rolled back by itself, as it does where the disk is full.
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

/** node:sqlite has numbers, the others names. */
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

/** By result code, and where that says no more than "error" by the message: https://www.sqlite.org/rescode.html */
function kindOf(code: string, message: string): FailureKind {
  if (/^SQLITE_CONSTRAINT_(?:PRIMARYKEY|UNIQUE)$/.test(code) || /^UNIQUE constraint failed/.test(message))
    return 'duplicate'
  // The application has a transaction open on its database: it will end, and then it is our turn.
  if (/^SQLITE_(?:BUSY|LOCKED)/.test(code) || /within a transaction/.test(message)) return 'rolled_back'
  if (/no such (?:table|column)|has no column named/.test(message)) return 'no_table'
  if (code.startsWith('SQLITE_READONLY')) return 'read_only'
  if (code === 'SQLITE_NOTADB' || /syntax error/.test(message)) return 'not_understood'
  if (code === 'SQLITE_TOOBIG') return 'too_long'
  return 'refused'
}
