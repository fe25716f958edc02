import {
  type DialectAdapter,
  DummyDriver,
  Kysely,
  MysqlAdapter,
  MysqlQueryCompiler,
  PostgresAdapter,
  PostgresQueryCompiler,
  type QueryCompiler,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely'
import type { Cell } from './plan.ts'

/** The tables, for the compiler; statements name them by what `TableNames` holds. */
export interface Schema {
  keys: Record<string, Cell>
  quotas: Record<string, Cell>
  migrations: { name: string }
  agreements: { name: string; value: string }
}

/** In what databases differ, as far as statements go. */
export interface Dialect {
  readonly name: 'postgres' | 'mysql' | 'sqlite'
  /** For messages. */
  readonly title: string
  /** Writes SQL; it runs none. */
  readonly builder: Kysely<Schema>
  /** Whether rows have to be locked: SQLite lets one transaction write at a time. */
  readonly locksRows: boolean
  /** How many records one statement inserts at most: a power of two, below the limit of parameters. */
  readonly recordsPerInsert: number
  /** How many characters a column keeps, where the schema bounds it. */
  readonly maxLengths: Readonly<Record<string, number>> | null
}

export const postgresDialect: Dialect = Object.freeze({
  name: 'postgres',
  title: 'PostgreSQL',
  builder: createBuilder(new PostgresAdapter(), () => new PostgresQueryCompiler()),
  locksRows: true,
  recordsPerInsert: 256,
  maxLengths: null,
})

/** What the columns of MySQL and MariaDB hold, in characters: their indexes take at most 3,072 bytes. */
export const MYSQL_LENGTHS = Object.freeze({
  id: 255,
  lookup: 700,
  lineage_id: 255,
  name: 255,
  owner_type: 64,
  owner_id: 255,
  created_by: 255,
  // Texts without an index hold 65,535 bytes, JSON holds 4 GiB.
  digest: 16_000,
  prefix: 16_000,
  hint: 16_000,
  last_used_ip: 16_000,
  revoked_by: 16_000,
  revoked_reason: 16_000,
  rotated_from: 255,
  rotated_to: 255,
  // Of an agreement.
  value: 255,
})

export const mysqlDialect: Dialect = Object.freeze({
  name: 'mysql',
  title: 'MySQL',
  builder: createBuilder(new MysqlAdapter(), () => new MysqlQueryCompiler()),
  locksRows: true,
  recordsPerInsert: 256,
  maxLengths: MYSQL_LENGTHS,
})

export const sqliteDialect: Dialect = Object.freeze({
  name: 'sqlite',
  title: 'SQLite',
  builder: createBuilder(new SqliteAdapter(), () => new SqliteQueryCompiler()),
  locksRows: false,
  recordsPerInsert: 64,
  maxLengths: null,
})

function createBuilder(adapter: DialectAdapter, createQueryCompiler: () => QueryCompiler): Kysely<Schema> {
  return new Kysely<Schema>({
    dialect: {
      createDriver: () => new DummyDriver(),
      createAdapter: () => adapter,
      // Of no dialect in particular: nothing is ever asked of a driver that does nothing.
      createIntrospector: (db) => new SqliteIntrospector(db),
      createQueryCompiler,
    },
  })
}
