/** The parts of a `DatabaseSync` of node:sqlite, or a `Database` of better-sqlite3 or libsql, that the store uses. */
export interface SqliteDatabase {
  exec(sql: string): unknown
  prepare(sql: string): SqliteStatement
  close?(): unknown
}

export interface SqliteStatement {
  // biome-ignore lint/suspicious/noExplicitAny: each driver names what can be bound in its own way.
  all(...parameters: any[]): unknown[]
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  run(...parameters: any[]): { readonly changes: number | bigint }
  /** Only in node:sqlite, which otherwise throws on a number that it cannot represent, and shows the number. */
  setReadBigInts?(enabled: boolean): unknown
}

/** Opens a file. */
export type SqliteDriver = (file: string) => SqliteDatabase

/** A driver, or the reason why there is none. */
type Loaded = SqliteDriver | Error

/**
 * Loads the first available driver: node:sqlite, better-sqlite3, libsql.
 *
 * @throws Error saying what to install, if there is no driver.
 */
export async function loadSqliteDriver(): Promise<SqliteDriver> {
  const reasons: string[] = []
  for (const load of [loadNodeSqlite, loadBetterSqlite, loadLibsql]) {
    const loaded = await load()
    if (typeof loaded === 'function') return loaded
    reasons.push(loaded.message)
  }
  throw new Error(
    `found no SQLite driver: run Node 22.13 or later, or install better-sqlite3 or libsql (${reasons.join('; ')})`,
  )
}

/** Without an import: older versions of Node do not have this module, and bundlers would look for it. */
function loadNodeSqlite(): Loaded {
  const builtin = process.getBuiltinModule?.('node:sqlite' as 'node:module') as unknown as
    | { DatabaseSync: new (file: string) => SqliteDatabase }
    | undefined
  return builtin ? (file) => new builtin.DatabaseSync(file) : new Error('this Node has no node:sqlite')
}

// Bundlers accept a missing package only if the import is directly inside a `try`.

async function loadBetterSqlite(): Promise<Loaded> {
  try {
    return openerOf(await import('better-sqlite3'))
  } catch (error) {
    return error as Error
  }
}

async function loadLibsql(): Promise<Loaded> {
  try {
    return openerOf(await import('libsql'))
  } catch (error) {
    return error as Error
  }
}

type DatabaseClass = new (file: string) => SqliteDatabase

/** A CommonJS module: its class is `default` or the module itself, depending on how this file was built. */
function openerOf(module: object): SqliteDriver {
  const { default: Database = module as DatabaseClass } = module as { default?: DatabaseClass }
  return (file) => new Database(file)
}
