import { checkOneOf } from '../../internal/options.ts'
import { MYSQL_LENGTHS } from './dialect.ts'
import { MAY_END } from './statements/conditions.ts'
import { resolveTableNames, type SqlTableOptions, type TableNames } from './table-names.ts'
import { HOURS_OF_DAY, hourColumn } from './usage-row.ts'

/** The databases with published SQL. MySQL and MariaDB have different names for the same collation. */
export type SqlDialect = 'postgres' | 'mysql' | 'mariadb' | 'sqlite'

interface Migration {
  /** Never changed once released: the table of migrations holds it. */
  readonly name: string
  /** Migrations only add, so that processes of the previous release keep working. Each statement may run twice. */
  readonly statements: Readonly<Record<SqlDialect, (names: TableNames) => readonly string[]>>
}

export const MIGRATIONS: readonly Migration[] = [
  {
    name: '1-create-tables',
    statements: {
      postgres: createPostgresTables,
      mysql: (names) => createMysqlTables(names, 'utf8mb4_0900_bin'),
      mariadb: (names) => createMysqlTables(names, 'utf8mb4_nopad_bin'),
      sqlite: createSqliteTables,
    },
  },
  {
    name: '2-index-statuses',
    statements: {
      postgres: (names) => createStatusIndexes('postgres', names),
      // They have no partial indexes, and would not use an index that begins with the status: listings read past revoked keys.
      mysql: () => [],
      mariadb: () => [],
      sqlite: (names) => createStatusIndexes('sqlite', names),
    },
  },
  {
    name: '3-create-agreements',
    statements: {
      postgres: (names) => [createAgreements('postgres', names, 'text collate "C"', '')],
      mysql: (names) => [createMysqlAgreements(names, 'utf8mb4_0900_bin')],
      mariadb: (names) => [createMysqlAgreements(names, 'utf8mb4_nopad_bin')],
      sqlite: (names) => [createAgreements('sqlite', names, 'text', ' strict')],
    },
  },
  {
    name: '4-create-usage',
    statements: {
      postgres: createPostgresUsage,
      mysql: (names) => createMysqlUsage(names, 'utf8mb4_0900_bin'),
      mariadb: (names) => createMysqlUsage(names, 'utf8mb4_nopad_bin'),
      sqlite: createSqliteUsage,
    },
  },
]

/**
 * Returns the SQL that `migrate` runs, for teams that apply it themselves. It includes the rows in the table of migrations, so that
 * `migrate` finds nothing left to do. The folder `sql/` of the package has these files for the default names.
 *
 * @throws TypeError naming the option.
 */
export function migrationSql(dialect: SqlDialect, options: SqlTableOptions = {}): string {
  checkOneOf('dialect', dialect, ['postgres', 'mysql', 'mariadb', 'sqlite'])
  const names = resolveTableNames(options, dialect === 'sqlite' ? ['table'] : ['table', 'schema'])
  return MIGRATIONS.map((migration) => writeMigration(migration, dialect, names)).join('\n')
}

/** One migration as the text of a file. */
export function writeMigration(migration: Migration, dialect: SqlDialect, names: TableNames): string {
  const statements = [
    createMigrationsTable(dialect, names),
    ...migration.statements[dialect](names),
    recordMigration(migration.name, dialect, names),
  ]
  return `-- ${migration.name}\n\n${statements.map((statement) => `${statement};\n`).join('\n')}`
}

export function createMigrationsTable(dialect: SqlDialect, names: TableNames): string {
  const table = quote(dialect, names, names.migrations)
  switch (dialect) {
    case 'postgres':
      return `create table if not exists ${table} (\n  name text primary key,\n  applied_at_ms bigint not null\n)`
    case 'sqlite':
      return `create table if not exists ${table} (\n  name text primary key,\n  applied_at_ms integer not null\n) strict`
    default:
      return `create table if not exists ${table} (\n  name varchar(255) primary key,\n  applied_at_ms bigint not null\n) engine = InnoDB, character set utf8mb4`
  }
}

/** Records a migration, unless it is already recorded. */
export function recordMigration(name: string, dialect: SqlDialect, names: TableNames): string {
  const table = quote(dialect, names, names.migrations)
  const insert = (now: string) => `insert into ${table} (name, applied_at_ms)\nvalues ('${name}', ${now})`
  switch (dialect) {
    case 'postgres':
      return `${insert('floor(extract(epoch from clock_timestamp()) * 1000)')}\non conflict (name) do nothing`
    case 'sqlite':
      return `${insert("cast((julianday('now') - 2440587.5) * 86400000 as integer)")}\non conflict (name) do nothing`
    default:
      return `${insert('floor(unix_timestamp(now(3)) * 1000)')}\non duplicate key update name = '${name}'`
  }
}

function createPostgresTables(names: TableNames): readonly string[] {
  const [keys, quotas] = [names.keys, names.quotas].map((table) => quote('postgres', names, table))
  const text = 'text collate "C"'
  return [
    `create table if not exists ${keys} (
  id ${text} primary key,
  lookup ${text} not null,
  digest ${text} not null,
  lineage_id ${text} not null,
  name ${text} not null,
  prefix ${text} not null,
  hint ${text} not null,
  owner_type ${text} not null,
  owner_id ${text} not null,
  created_by ${text},
  permissions text not null,
  metadata text not null,
  enabled boolean not null,
  rate_limits text,
  allowed_ips text,
  created_at_ms bigint not null,
  updated_at_ms bigint not null,
  expires_at_ms bigint,
  idle_expiry_ms bigint,
  usage_count bigint not null,
  last_used_at_ms bigint,
  last_used_ip text,
  revoked_at_ms bigint,
  revoked_by text,
  revoked_reason text,
  rotated_from ${text},
  rotated_to ${text},
  version bigint not null
)`,
    ...createIndexes('postgres', names),
    `create table if not exists ${quotas} (
  lineage_id ${text} primary key,
  remaining bigint not null,
  epoch bigint not null,
  allotted bigint not null,
  refill text,
  next_refill_at_ms bigint,
  removed boolean not null
)`,
  ]
}

function createSqliteTables(names: TableNames): readonly string[] {
  const [keys, quotas] = [names.keys, names.quotas].map((table) => quote('sqlite', names, table))
  return [
    `create table if not exists ${keys} (
  id text primary key not null,
  lookup text not null,
  digest text not null,
  lineage_id text not null,
  name text not null,
  prefix text not null,
  hint text not null,
  owner_type text not null,
  owner_id text not null,
  created_by text,
  permissions text not null,
  metadata text not null,
  enabled integer not null,
  rate_limits text,
  allowed_ips text,
  created_at_ms integer not null,
  updated_at_ms integer not null,
  expires_at_ms integer,
  idle_expiry_ms integer,
  usage_count integer not null,
  last_used_at_ms integer,
  last_used_ip text,
  revoked_at_ms integer,
  revoked_by text,
  revoked_reason text,
  rotated_from text,
  rotated_to text,
  version integer not null
) strict`,
    ...createIndexes('sqlite', names),
    `create table if not exists ${quotas} (
  lineage_id text primary key not null,
  remaining integer not null,
  epoch integer not null,
  allotted integer not null,
  refill text,
  next_refill_at_ms integer,
  removed integer not null
) strict`,
  ]
}

function createIndexes(dialect: 'postgres' | 'sqlite', names: TableNames): readonly string[] {
  const create = createIndex(dialect, names)
  return [
    create('unique index', 'lookup', 'lookup'),
    create('index', 'created', 'created_at_ms, id'),
    create('index', 'owner', 'owner_type, owner_id, created_at_ms, id'),
    create('index', 'created_by', 'created_by, created_at_ms, id'),
    create('index', 'name', 'name, created_at_ms, id'),
    create('index', 'lineage', 'lineage_id, created_at_ms, id'),
    `${create('index', 'revoked', 'created_at_ms, id')}\n  where revoked_at_ms is not null`,
    `${create('index', 'disabled', 'created_at_ms, id')}\n  where enabled = false`,
    `${create('index', 'may_end', 'created_at_ms, id')}\n  where ${MAY_END}`,
  ]
}

/**
 * Without these, a listing by status reads past all revoked keys before the first match, and the oldest keys are mostly revoked. They
 * begin with the time, not the status: PostgreSQL knows that the table is in order of time, and would rate any other index as more
 * expensive than reading past.
 */
function createStatusIndexes(dialect: 'postgres' | 'sqlite', names: TableNames): readonly string[] {
  const create = createIndex(dialect, names)
  return [
    `${create('index', 'is_active', 'created_at_ms, id')}\n  where enabled = true and revoked_at_ms is null`,
    `${create('index', 'is_disabled', 'created_at_ms, id')}\n  where enabled = false and revoked_at_ms is null`,
    // A planner uses this index only if a listing has exactly this condition.
    `${create('index', 'may_expire', 'created_at_ms, id')}\n  where (${MAY_END}) and revoked_at_ms is null`,
  ]
}

/** Index names are unique in a schema, so they begin with the name of the table. */
function createIndex(dialect: 'postgres' | 'sqlite', names: TableNames) {
  const table = quote(dialect, names, names.keys)
  return (kind: string, name: string, columns: string) =>
    `create ${kind} if not exists "${names.keys}_${name}" on ${table} (${columns})`
}

/** The table has its indexes inline: MySQL cannot run `create index` twice. */
function createMysqlTables(names: TableNames, collation: string): readonly string[] {
  const [keys, quotas] = [names.keys, names.quotas].map((table) => quote('mysql', names, table))
  const varchar = (column: keyof typeof MYSQL_LENGTHS) => `${column} varchar(${MYSQL_LENGTHS[column]})`
  const settings = mysqlSettings(collation)
  return [
    `create table if not exists ${keys} (
  ${varchar('id')} primary key,
  ${varchar('lookup')} not null,
  digest text not null,
  ${varchar('lineage_id')} not null,
  ${varchar('name')} not null,
  prefix text not null,
  hint text not null,
  ${varchar('owner_type')} not null,
  ${varchar('owner_id')} not null,
  ${varchar('created_by')},
  permissions longtext not null,
  metadata longtext not null,
  enabled boolean not null,
  rate_limits longtext,
  allowed_ips longtext,
  created_at_ms bigint not null,
  updated_at_ms bigint not null,
  expires_at_ms bigint,
  idle_expiry_ms bigint,
  usage_count bigint not null,
  last_used_at_ms bigint,
  last_used_ip text,
  revoked_at_ms bigint,
  revoked_by text,
  revoked_reason text,
  ${varchar('rotated_from')},
  ${varchar('rotated_to')},
  version bigint not null,
  unique key lookup (lookup),
  key created (created_at_ms, id),
  key owner (owner_type, owner_id, created_at_ms, id),
  key created_by (created_by, created_at_ms, id),
  key name (name, created_at_ms, id),
  key lineage (lineage_id, created_at_ms, id),
  key revoked (revoked_at_ms, created_at_ms, id),
  key disabled (enabled, created_at_ms, id),
  key expires (expires_at_ms, created_at_ms, id)
) ${settings}`,
    `create table if not exists ${quotas} (
  ${varchar('lineage_id')} primary key,
  remaining bigint not null,
  epoch bigint not null,
  allotted bigint not null,
  refill longtext,
  next_refill_at_ms bigint,
  removed boolean not null
) ${settings}`,
  ]
}

function createAgreements(dialect: SqlDialect, names: TableNames, type: string, settings: string): string {
  const table = quote(dialect, names, names.agreements)
  return `create table if not exists ${table} (
  name ${type} primary key not null,
  value ${type} not null
)${settings}`
}

function createMysqlAgreements(names: TableNames, collation: string): string {
  return createAgreements('mysql', names, `varchar(${MYSQL_LENGTHS.value})`, ` ${mysqlSettings(collation)}`)
}

function createPostgresUsage(names: TableNames): readonly string[] {
  const [usage, writers] = [names.usage, names.usageWriters].map((table) => quote('postgres', names, table))
  const text = 'text collate "C"'
  return [
    `create table if not exists ${usage} (
  subject ${text} not null,
  day integer not null,
  counter ${text} not null,
  ${hourColumns('bigint')},
  primary key (subject, day, counter)
)`,
    `create index if not exists "${names.usage}_day" on ${usage} (day)`,
    `create table if not exists ${writers} (
  writer ${text} primary key,
  number bigint not null,
  at_ms bigint not null
)`,
  ]
}

function createSqliteUsage(names: TableNames): readonly string[] {
  const [usage, writers] = [names.usage, names.usageWriters].map((table) => quote('sqlite', names, table))
  return [
    `create table if not exists ${usage} (
  subject text not null,
  day integer not null,
  counter text not null,
  ${hourColumns('integer')},
  primary key (subject, day, counter)
) strict`,
    `create index if not exists "${names.usage}_day" on ${usage} (day)`,
    `create table if not exists ${writers} (
  writer text primary key not null,
  number integer not null,
  at_ms integer not null
) strict`,
  ]
}

function createMysqlUsage(names: TableNames, collation: string): readonly string[] {
  const [usage, writers] = [names.usage, names.usageWriters].map((table) => quote('mysql', names, table))
  const settings = mysqlSettings(collation)
  return [
    `create table if not exists ${usage} (
  subject varchar(340) not null,
  day integer not null,
  counter varchar(160) not null,
  ${hourColumns('bigint')},
  primary key (subject, day, counter),
  key day (day)
) ${settings}`,
    `create table if not exists ${writers} (
  writer varchar(64) primary key,
  number bigint not null,
  at_ms bigint not null
) ${settings}`,
  ]
}

function hourColumns(type: string): string {
  return HOURS_OF_DAY.map((hour) => `${hourColumn(hour)} ${type} not null default 0`).join(',\n  ')
}

function mysqlSettings(collation: string): string {
  return `engine = InnoDB, row_format = dynamic, character set utf8mb4, collate ${collation}`
}

/** Names have only letters, digits and "_", so quoting needs no escapes. */
function quote(dialect: SqlDialect, { schema }: TableNames, table: string): string {
  const mark = dialect === 'postgres' || dialect === 'sqlite' ? '"' : '`'
  const parts = schema === undefined ? [table] : [schema, table]
  return parts.map((part) => `${mark}${part}${mark}`).join('.')
}
