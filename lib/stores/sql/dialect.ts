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

/** The tables, for Kysely's types. `TableNames` has their real names. */
export interface Schema {
  keys: Record<string, Cell>
  quotas: Record<string, Cell>
  migrations: { name: string }
  agreements: { name: string; value: string }
  usage: Record<string, Cell>
  usageWriters: { writer: string; number: number; at_ms: number }
}

/** How databases differ in their statements. */
export interface Dialect {
  readonly name: 'postgres' | 'mysql' | 'sqlite'
  /** The name for error messages. */
  readonly title: string
  /** Writes SQL, and never runs it. */
  readonly builder: Kysely<Schema>
  /** Whether statements lock rows. SQLite runs one writing transaction at a time, and needs no locks. */
  readonly locksRows: boolean
  /** How many records one statement inserts at most: a power of two, within the limit of parameters. */
  readonly recordsPerInsert: number
  /** How many characters each bounded column holds; null if the schema bounds none. */
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

/** How many characters the columns of MySQL and MariaDB hold: an index entry has at most 3,072 bytes. */
export const MYSQL_LENGTHS = Object.freeze({
  id: 255,
  lookup: 700,
  lineage_id: 255,
  name: 255,
  owner_type: 64,
  owner_id: 255,
  created_by: 255,
  // Columns without an index hold 65,535 bytes; those with JSON hold 4 GiB, and are not listed here.
  digest: 16_000,
  prefix: 16_000,
  hint: 16_000,
  last_used_ip: 16_000,
  revoked_by: 16_000,
  revoked_reason: 16_000,
  rotated_from: 255,
  rotated_to: 255,
  // Of the table of agreements.
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
      // Never used: Kysely requires one.
      createIntrospector: (db) => new SqliteIntrospector(db),
      createQueryCompiler,
    },
  })
}
