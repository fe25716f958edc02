import type { Dialect } from './dialect.ts'
import type { Statement } from './plan.ts'
import { createAgreementStatements } from './statements/agreements.ts'
import { createKeyStatements } from './statements/keys.ts'
import { createListingStatements } from './statements/listing.ts'
import { createPurgingStatements } from './statements/purging.ts'
import { createQuotaStatements } from './statements/quotas.ts'
import { createTables } from './statements/tables.ts'
import { createUsageStatements } from './statements/usage.ts'
import { createUsageCountStatements } from './statements/usage-counts.ts'
import type { TableNames } from './table-names.ts'

/** The statements of a store, in the SQL of its dialect and with the names of its tables. */
export type Statements = ReturnType<typeof createStatements>

export function createStatements(dialect: Dialect, names: TableNames) {
  const tables = createTables(dialect, names)
  const { db, migrations } = tables

  return {
    ...createKeyStatements(tables),
    ...createListingStatements(tables),
    ...createPurgingStatements(tables),
    ...createQuotaStatements(tables),
    ...createUsageStatements(tables),
    ...createUsageCountStatements(tables),
    ...createAgreementStatements(tables),
    migrationNames: db.selectFrom(migrations).select('name').compile() as Statement,
  }
}
