import { mysqlStore, postgresStore, type SqlStore, sqliteStore } from 'latchkey/sql'
import { createPool } from 'mysql2/promise'
import { Pool } from 'pg'

export interface OpenedStore {
  readonly store: SqlStore
  close(): Promise<void>
}

/** The store of a test database, in this process: of PostgreSQL, of MariaDB, or of a SQLite file. */
export function openStore(url: string): OpenedStore {
  if (url.startsWith('postgres:')) {
    const pool = new Pool({ connectionString: url, max: 5 })
    // A connection that nobody uses is lost with the server, and is replaced by the next one.
    pool.on('error', () => {})
    return { store: postgresStore(pool), close: () => pool.end() }
  }
  if (url.startsWith('mysql:')) {
    const pool = createPool({ uri: url, connectionLimit: 5 })
    return { store: mysqlStore(pool), close: () => pool.end() }
  }
  const store = sqliteStore(url)
  return { store, close: () => store.close() }
}
