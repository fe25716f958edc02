import type { ExpressionBuilder, Kysely } from 'kysely'
import type { Dialect, Schema } from '../dialect.ts'
import { keyColumnNames, QUOTA_PREFIX, quotaColumnNames } from '../key-row.ts'
import type { Statement } from '../plan.ts'
import type { TableNames } from '../table-names.ts'

/** What every statement is written with: the dialect, and the tables under their real names. */
export interface Tables {
  readonly dialect: Dialect
  readonly names: TableNames
  readonly db: Kysely<Schema>
  readonly keys: 'keys'
  readonly quotas: 'quotas'
  readonly migrations: 'migrations'
  readonly agreements: 'agreements'
  readonly usage: 'usage'
  readonly usageWriters: 'usageWriters'
}

/** Writes conditions on the table of keys, under the alias `k`. */
export type Keys = ExpressionBuilder<{ k: Schema['keys'] }, 'k'>

export function createTables(dialect: Dialect, names: TableNames): Tables {
  const { builder } = dialect
  return {
    dialect,
    names,
    db: names.schema === undefined ? builder : builder.withSchema(names.schema),
    // Kysely's types know each table by its role; the SQL has its real name.
    keys: names.keys as 'keys',
    quotas: names.quotas as 'quotas',
    migrations: names.migrations as 'migrations',
    agreements: names.agreements as 'agreements',
    usage: names.usage as 'usage',
    usageWriters: names.usageWriters as 'usageWriters',
  }
}

/** Selects keys, each with the quota of its lineage. */
export function selectKeys({ db, keys, quotas }: Tables) {
  return db
    .selectFrom(`${keys} as k`)
    .leftJoin(`${quotas} as q`, 'q.lineage_id', 'k.lineage_id')
    .select(keyColumnNames.map((column) => `k.${column}` as const))
    .select(
      [...quotaColumnNames, 'removed'].map((column) => `q.${column} as ${QUOTA_PREFIX}${column}` as const),
    )
}

/** Takes the SQL of a statement once. The function it returns adds parameters. */
export function prepare({ sql: text }: Statement): (parameters: readonly unknown[]) => Statement {
  return (parameters) => ({ sql: text, parameters })
}
