import { checkObject, fail } from '../../internal/options.ts'

/** The names of a store's tables. */
export interface SqlTableOptions {
  /**
   * The table of keys. The other tables are `<table>_quotas`, `<table>_agreements`, `<table>_usage`,
   * `<table>_usage_writers` and `<table>_migrations`. 1 to 48 letters, digits
   * and "_", not beginning with a digit.
   *
   * @default 'latchkey_keys'
   */
  table?: string
  /**
   * The schema (in MySQL and MariaDB: the database) that holds the tables. It must exist. SQLite has no schemas.
   *
   * @default the one that the connection is in
   */
  schema?: string
}

export interface TableNames {
  readonly schema: string | undefined
  readonly keys: string
  readonly quotas: string
  readonly migrations: string
  readonly agreements: string
  readonly usage: string
  readonly usageWriters: string
}

/** Leaves room for names such as `<table>_created_by` and `<table>_quotas_pkey`: PostgreSQL cuts off names after 63 bytes. */
const MAX_TABLE_LENGTH = 48
const MAX_SCHEMA_LENGTH = 63

/** The names of the tables. @throws TypeError naming the option. */
export function resolveTableNames(options: unknown, known: readonly string[]): TableNames {
  const { table = 'latchkey_keys', schema } = checkObject('options', options, known)
  const keys = checkName('table', table, MAX_TABLE_LENGTH)
  return Object.freeze({
    schema: schema === undefined ? undefined : checkName('schema', schema, MAX_SCHEMA_LENGTH),
    keys,
    quotas: `${keys}_quotas`,
    migrations: `${keys}_migrations`,
    agreements: `${keys}_agreements`,
    usage: `${keys}_usage`,
    usageWriters: `${keys}_usage_writers`,
  })
}

/** Names become part of the SQL, so only characters without a special meaning are accepted. */
function checkName(option: string, value: unknown, maxLength: number): string {
  if (typeof value === 'string' && value.length <= maxLength && /^[a-z_]\w*$/i.test(value)) {
    // SQLite reserves these names.
    if (!/^sqlite_/i.test(value)) return value
  }
  return fail(
    option,
    `1 to ${maxLength} letters, digits and "_", beginning neither with a digit nor with "sqlite_"`,
    value,
  )
}
