import { createHash } from 'node:crypto'
import { checkMethods } from '../../internal/options.ts'
import { attempt, type Database } from './database.ts'
import { postgresDialect } from './dialect.ts'
import { type Plan, runPlan, type Statement } from './plan.ts'
import type { PostgresDriver } from './postgres-driver.ts'
import { type PostgresJsClient, postgresJsDriver } from './postgres-js.ts'
import { type PostgresPool, pgDriver } from './postgres-pg.ts'
import { type PGliteDatabase, pgliteDriver } from './postgres-pglite.ts'
import { createSqlStore, type SqlStore } from './sql-store.ts'
import { resolveTableNames, type SqlTableOptions } from './table-names.ts'

/**
 * Creates a store in PostgreSQL 12 or later, over what the application connects with: a `Pool` of pg, a client of postgres.js, or a PGlite
 * database. The application closes it.
 *
 * @throws TypeError naming the option, or when `pool` belongs to another database.
 * @example
 * const store = postgresStore(new Pool({ connectionString }))
 * await migrate(store)
 */
export function postgresStore(
  pool: PostgresPool | PostgresJsClient | PGliteDatabase,
  options: SqlTableOptions = {},
): SqlStore {
  const driver = driverOf(pool)
  return createSqlStore(createPostgresDatabase(driver), resolveTableNames(options, ['table', 'schema']))
}

function driverOf(pool: unknown): PostgresDriver {
  const given = pool as Record<string, unknown> | null | undefined
  const has = (name: string) => typeof given?.[name] === 'function'
  if (has('getConnection')) throw new TypeError('"pool" is a MySQL pool: use mysqlStore')
  if (has('prepare')) throw new TypeError('"pool" is a SQLite database: use sqliteStore')
  if (given?.$client) throw new TypeError('"pool" is a Drizzle database: pass its $client')
  if (has('escapeIdentifier')) throw new TypeError('"pool" is one client of pg: pass a Pool')
  if (has('$connect')) throw new TypeError('"pool" is a Prisma client: pass the pool of its adapter')
  if (has('unsafe') && has('begin')) return postgresJsDriver(pool as PostgresJsClient)
  if (has('execProtocolRaw') && has('transaction')) return pgliteDriver(pool as PGliteDatabase)
  checkMethods('pool', pool, ['connect'])
  return pgDriver(pool as PostgresPool)
}

function createPostgresDatabase(driver: PostgresDriver): Database {
  const transact = <T>(plan: () => Plan<T>, lock?: Statement) =>
    attempt(postgresDialect, () =>
      driver.inTransaction(async (execute) => {
        if (lock) await execute(lock)
        return runPlan(plan(), execute)
      }),
    )
  return {
    dialect: postgresDialect,
    read: (plan) => attempt(postgresDialect, () => driver.read((execute) => runPlan(plan(), execute))),
    write: (plan) => attempt(postgresDialect, () => driver.write((execute) => runPlan(plan(), execute))),
    transact: (plan) => transact(plan),
    alter: (table, plan) =>
      transact(plan, { sql: 'select pg_advisory_xact_lock($1::text::bigint)', parameters: [lockOf(table)] }),
    async close() {},
  }
}

function lockOf(table: string): string {
  return createHash('sha256').update(`latchkey ${table}`).digest().readBigInt64BE().toString()
}
