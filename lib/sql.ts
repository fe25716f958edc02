export { migrationSql, type SqlDialect } from './stores/sql/migrations.ts'
export {
  type MysqlCallbackPool,
  type MysqlConnection,
  type MysqlPool,
  mysqlStore,
} from './stores/sql/mysql.ts'
export { postgresStore } from './stores/sql/postgres.ts'
export type {
  PostgresJsClient,
  PostgresJsRows,
  PostgresJsStatements,
} from './stores/sql/postgres-js.ts'
export type { PostgresClient, PostgresPool, PostgresQuery } from './stores/sql/postgres-pg.ts'
export type { PGliteConversions, PGliteDatabase, PGliteStatements } from './stores/sql/postgres-pglite.ts'
export { type MigrationResult, migrate, type SqlStore } from './stores/sql/sql-store.ts'
export { type SqliteStoreOptions, sqliteStore } from './stores/sql/sqlite.ts'
export type { SqliteDatabase, SqliteStatement } from './stores/sql/sqlite-drivers.ts'
export type { SqlTableOptions } from './stores/sql/table-names.ts'
