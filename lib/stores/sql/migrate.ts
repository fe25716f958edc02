import { type ErrorCode, isLatchkeyError, LatchkeyError } from '../../errors.ts'
import type { Database } from './database.ts'
import { DeniedError } from './database-errors.ts'
import { createMigrationsTable, MIGRATIONS, recordMigration, type SqlDialect } from './migrations.ts'
import { type Plan, rowsOf, type Statement } from './plan.ts'
import { createStatements } from './statements.ts'
import type { TableNames } from './table-names.ts'

interface Applied {
  readonly applied: readonly string[]
}

/**
 * Applies the missing migrations. It ignores migrations of later releases. It reads first, so that a role without the right to change
 * the schema can call it when nothing is missing.
 */
export async function migrateDatabase(database: Database, names: TableNames): Promise<Applied> {
  const before = await readMissing(database, names)
  if (before?.length === 0) return { applied: [] }
  try {
    return await database.alter([names.schema, names.keys].join('.'), () =>
      applyMissing(database, names, before),
    )
  } catch (error) {
    if (!isForbidden(error)) throw error
    // Another process, with the right to do so, may have migrated meanwhile.
    const missing = await readMissing(database, names)
    if (missing?.length === 0) return { applied: [] }
    throw toInstruction(error, database, names, missing)
  }
}

/**
 * The names of the migrations that are missing, in order. Null if there is no table of migrations, or none that this role may read. It
 * writes nothing.
 */
export async function readMissing(database: Database, names: TableNames): Promise<readonly string[] | null> {
  const { migrationNames } = createStatements(database.dialect, names)
  try {
    return await database.read(() => missingOf(migrationNames))
  } catch (error) {
    if (error instanceof DeniedError || hasCode(error, 'not_migrated')) return null
    throw error
  }
}

function* missingOf(migrationNames: Statement): Plan<readonly string[]> {
  const known = new Set((yield* rowsOf(migrationNames)).map((row) => row.name))
  return MIGRATIONS.map(({ name }) => name).filter((name) => !known.has(name))
}

/** `before` is what was missing before the lock was taken; null if there was no table of migrations. */
function* applyMissing(
  { dialect }: Database,
  names: TableNames,
  before: readonly string[] | null,
): Plan<Applied> {
  const statement = (sql: string) => ({ sql, parameters: [] })
  const kind = dialect.name === 'mysql' ? yield* askForMysqlOrMariadb() : dialect.name
  if (!before) yield statement(createMigrationsTable(kind, names))
  const missing = yield* missingOf(createStatements(dialect, names).migrationNames)
  for (const { name, statements } of MIGRATIONS.filter((migration) => missing.includes(migration.name))) {
    for (const sql of statements[kind](names)) yield statement(sql)
    yield statement(recordMigration(name, kind, names))
  }
  return { applied: missing }
}

function isForbidden(error: unknown): error is DeniedError | LatchkeyError {
  return error instanceof DeniedError || hasCode(error, 'read_only')
}

/** An error that says what is missing, and what to do, if this role or connection may not change the schema. */
function toInstruction(
  error: DeniedError | LatchkeyError,
  { dialect }: Database,
  names: TableNames,
  missing: readonly string[] | null,
): LatchkeyError {
  const lack = missing
    ? `lacks ${missing.join(' and ')}`
    : `has no table "${names.migrations}", or none that this role may read`
  const way = 'run migrate(store) as a role that may change the schema, or apply the published SQL'
  return !(error instanceof DeniedError)
    ? new LatchkeyError('read_only', `${dialect.title} ${lack}, and takes no writes here: ${way}`, {
        cause: error,
      })
    : new LatchkeyError(
        'not_migrated',
        `${dialect.title} ${lack}, and this role may not change that (${error.state}): ${way}`,
        { cause: error },
      )
}

function hasCode(error: unknown, code: ErrorCode): boolean {
  return isLatchkeyError(error) && error.code === code
}

function* askForMysqlOrMariadb(): Plan<SqlDialect> {
  const [row] = yield* rowsOf({ sql: 'select version() as version', parameters: [] })
  return /mariadb/i.test(String(row?.version)) ? 'mariadb' : 'mysql'
}
