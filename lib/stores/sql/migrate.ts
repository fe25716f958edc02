import type { Database } from './database.ts'
import { createMigrationsTable, MIGRATIONS, recordMigration, type SqlDialect } from './migrations.ts'
import { type Plan, rowsOf } from './plan.ts'
import { createStatements } from './statements.ts'
import type { TableNames } from './table-names.ts'

/** Applies the migrations that the database does not have yet. Those of later releases, which it may have, do no harm. */
export function migrateDatabase(
  database: Database,
  names: TableNames,
): Promise<{ readonly applied: readonly string[] }> {
  return database.alter([names.schema, names.keys].join('.'), () => migratePlan(database, names))
}

function* migratePlan(
  { dialect }: Database,
  names: TableNames,
): Plan<{ readonly applied: readonly string[] }> {
  const statement = (sql: string) => ({ sql, parameters: [] })
  const kind = dialect.name === 'mysql' ? yield* askForMysqlOrMariadb() : dialect.name
  const { migrationNames } = createStatements(dialect, names)
  yield statement(createMigrationsTable(kind, names))
  const known = new Set((yield* rowsOf(migrationNames)).map((row) => row.name))
  const missing = MIGRATIONS.filter(({ name }) => !known.has(name))
  for (const { name, statements } of missing) {
    for (const sql of statements[kind](names)) yield statement(sql)
    yield statement(recordMigration(name, kind, names))
  }
  return { applied: missing.map(({ name }) => name) }
}

function* askForMysqlOrMariadb(): Plan<SqlDialect> {
  const [row] = yield* rowsOf({ sql: 'select version() as version', parameters: [] })
  return /mariadb/i.test(String(row?.version)) ? 'mariadb' : 'mysql'
}
