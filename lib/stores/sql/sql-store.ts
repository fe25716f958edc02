import type { KeyStore } from '../../core/keys/key-store.ts'
import { OptionError } from '../../internal/option-error.ts'
import type { Database } from './database.ts'
import { agree } from './methods/agree.ts'
import { find } from './methods/find.ts'
import { insert } from './methods/insert.ts'
import { count, list } from './methods/list.ts'
import type { SqlStoreParts } from './methods/parts.ts'
import { purge } from './methods/purge.ts'
import { recordUsage } from './methods/record-usage.ts'
import { swapQuota, swapQuotas } from './methods/swap-quotas.ts'
import { forget, replaceDigest, update } from './methods/update.ts'
import { addUsage, readUsage, removeUsage } from './methods/usage-counts.ts'
import { migrateDatabase, readMissing } from './migrate.ts'
import { createStatements } from './statements.ts'
import type { TableNames } from './table-names.ts'

/** A store in a SQL database, with every optional method. `migrate` or the published SQL creates its tables. */
export interface SqlStore extends Required<KeyStore> {
  /** Closes the SQLite file that the store opened. A pool or database of the application stays open. */
  close(): Promise<void>
}

/** What `migrate` applied. */
export interface MigrationResult {
  /** The names of the applied migrations, in order; empty if the tables were up to date. */
  readonly applied: readonly string[]
}

/** A registered symbol, since the other copy of the package, ESM or CommonJS, may have created the store. */
const MIGRATE = Symbol.for('latchkey.sql.migrate')
const MISSING = Symbol.for('latchkey.sql.missing')

/**
 * Creates the tables of the store, or brings those of an earlier release up to date. It only adds and never removes or changes
 * data. If several processes start at once, one migrates and the others wait.
 *
 * @throws LatchkeyError `read_only`, `wrong_dialect`, or `not_migrated` if the `schema` is missing.
 * @throws TypeError when `store` is not a SQL store.
 * @example
 * const store = postgresStore(new Pool())
 * await migrate(store)
 */
export async function migrate(store: SqlStore): Promise<MigrationResult> {
  const run = (store as { [MIGRATE]?: () => Promise<MigrationResult> } | null)?.[MIGRATE]
  if (!run) throw new OptionError('store', 'be made by postgresStore, mysqlStore or sqliteStore')
  return run()
}

/**
 * The names of the migrations that the store lacks, in order; null where it has none, or its role may not see them. Undefined for a
 * store that is not SQL. It changes nothing.
 */
export async function missingMigrations(store: KeyStore): Promise<readonly string[] | null | undefined> {
  return (store as { [MISSING]?: () => Promise<readonly string[] | null> })[MISSING]?.()
}

export function createSqlStore(database: Database, names: TableNames): SqlStore {
  const parts: SqlStoreParts = { database, statements: createStatements(database.dialect, names) }
  const store: SqlStore = {
    insert: (records) => insert(parts, records),
    find: (by) => find(parts, by),
    update: (id, expectedVersion, change) => update(parts, id, expectedVersion, change),
    replaceDigest: (id, expected, next) => replaceDigest(parts, id, expected, next),
    list: (filter, page) => list(parts, filter, page),
    count: (filter) => count(parts, filter),
    purge: (ids, at) => purge(parts, ids, at),
    forget: (id, expectedVersion, forgetting) => forget(parts, id, expectedVersion, forgetting),
    recordUsage: (batch) => recordUsage(parts, batch),
    swapQuota: (lineageId, expected, next) => swapQuota(parts, { lineageId, expected, next }),
    swapQuotas: (swaps) => swapQuotas(parts, swaps),
    agree: (name, proposal) => agree(parts, name, proposal),
    addUsage: (batch) => addUsage(parts, batch),
    readUsage: (selection) => readUsage(parts, selection),
    removeUsage: (removal) => removeUsage(parts, removal),
    close: () => database.close(),
  }
  return Object.defineProperties(store, {
    [MIGRATE]: { value: () => migrateDatabase(database, names) },
    [MISSING]: { value: () => readMissing(database, names) },
  })
}
