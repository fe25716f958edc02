/** As much of a `DatabaseSync` of node:sqlite, or of a `Database` of better-sqlite3 or libsql, as the store uses. */
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
  /** Of node:sqlite alone, which otherwise throws at a number that it cannot represent, and shows it. */
  setReadBigInts?(enabled: boolean): unknown
}

type Opener = (file: string) => SqliteDatabase

/**
 * Opens a file with the first driver that is there: that of Node, better-sqlite3, libsql.
 *
 * @throws Error saying what to install where there is none.
 */
export async function openSqliteFile(file: string): Promise<SqliteDatabase> {
  const reasons: string[] = []
  for (const load of [loadNodeSqlite, loadBetterSqlite, loadLibsql]) {
    let open: Opener | null
    try {
      open = await load()
    } catch (error) {
      reasons.push((error as Error).message)
      continue
    }
    if (open) return open(file)
  }
  throw new Error(
    `no driver of SQLite was found: run Node 22.13 or later, or install better-sqlite3 or libsql (${reasons.join('; ')})`,
  )
}

/** Not by an import: older versions of Node have no such module, and bundlers would look for it. */
async function loadNodeSqlite(): Promise<Opener | null> {
  const builtin = process.getBuiltinModule?.('node:sqlite' as 'node:module') as unknown as
    | { DatabaseSync: new (file: string) => SqliteDatabase }
    | undefined
  return builtin ? (file) => new builtin.DatabaseSync(file) : null
}

async function loadBetterSqlite(): Promise<Opener> {
  const { default: Database } = await import('better-sqlite3')
  return (file) => new Database(file)
}

async function loadLibsql(): Promise<Opener> {
  const { default: Database } = await import('libsql')
  return (file) => new Database(file)
}
