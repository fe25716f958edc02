import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mysqlStore, postgresStore, type SqlStore, type SqlTableOptions, sqliteStore } from 'latchkey/sql'
import Libsql from 'libsql'
import { createPool, type Pool as MysqlPool } from 'mysql2/promise'
import { Pool as PostgresPool } from 'pg'
import { inject } from 'vitest'

/** A database of a test file's own. */
export interface TestDatabase {
  /** A store over a pool, or a connection, of its own. */
  open(options?: SqlTableOptions): SqlStore
  /** Runs a statement beside the stores. */
  query(sql: string): Promise<Record<string, unknown>[]>
  /** For whoever connects in another way; the file of SQLite. */
  readonly url: string
  remove(): Promise<void>
}

/** Each of them with how a test file makes one. */
export const DATABASES: readonly (readonly [string, () => Promise<TestDatabase>])[] = [
  ['SQLite', createSqlite],
  ['PostgreSQL', createPostgres],
  ['MariaDB', createMariadb],
]

export async function createPostgres(): Promise<TestDatabase> {
  const name = databaseName()
  const server = new PostgresPool({ connectionString: inject('postgresUrl'), max: 1 })
  await server.query(`create database ${name}`)
  const url = withDatabase(inject('postgresUrl'), name)
  const pools = [new PostgresPool({ connectionString: url, max: 2 })]
  return {
    url,
    open(options) {
      const pool = new PostgresPool({ connectionString: url, max: 10 })
      pools.push(pool)
      return postgresStore(pool, options)
    },
    query: async (sql) => (await pools[0]?.query(sql))?.rows ?? [],
    async remove() {
      for (const pool of pools) await pool.end()
      await server.query(`drop database ${name}`)
      await server.end()
    },
  }
}

export async function createMariadb(): Promise<TestDatabase> {
  const name = databaseName()
  const server = createPool({ uri: inject('mariadbUrl'), connectionLimit: 1 })
  await server.query(`create database ${name}`)
  const url = withDatabase(inject('mariadbUrl'), name)
  const pools: MysqlPool[] = [createPool({ uri: url, connectionLimit: 2 })]
  return {
    url,
    open(options) {
      const pool = createPool({ uri: url, connectionLimit: 10 })
      pools.push(pool)
      return mysqlStore(pool, options)
    },
    async query(sql) {
      const [rows] = (await pools[0]?.query(sql)) ?? []
      return Array.isArray(rows) ? (rows as Record<string, unknown>[]) : []
    },
    async remove() {
      for (const pool of pools) await pool.end()
      await server.query(`drop database ${name}`)
      await server.end()
    },
  }
}

export async function createSqlite(): Promise<TestDatabase> {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-sqlite-'))
  const file = join(folder, 'keys.db')
  const stores: SqlStore[] = []
  return {
    url: file,
    open(options) {
      const store = sqliteStore(file, options)
      stores.push(store)
      return store
    },
    async query(sql) {
      const database = new Libsql(file)
      try {
        database.exec('pragma busy_timeout = 5000')
        const statement = database.prepare(sql)
        if (statement.reader) return statement.all() as Record<string, unknown>[]
        statement.run()
        return []
      } finally {
        database.close()
      }
    },
    async remove() {
      for (const store of stores) await store.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function databaseName(): string {
  return `latchkey_${randomUUID().replaceAll('-', '')}`
}

function withDatabase(url: string, name: string): string {
  const changed = new URL(url)
  changed.pathname = `/${name}`
  return changed.href
}
