import type { TestDatabase } from './sql-databases.ts'

/** The columns and indexes of Latchkey's tables, as PostgreSQL itself describes them. */
export async function describePostgresTables(database: TestDatabase): Promise<DescribedTables> {
  const columns = `select table_name, column_name, data_type, is_nullable, collation_name
    from information_schema.columns where table_name like 'latchkey%' order by 1, 2`
  const indexes = `select indexdef from pg_indexes where tablename like 'latchkey%' order by 1`
  const described = { columns: await database.query(columns), indexes: await database.query(indexes) }
  return described as unknown as DescribedTables
}

export interface DescribedTables {
  readonly columns: readonly {
    readonly table_name: string
    readonly column_name: string
    readonly data_type: string
    readonly is_nullable: 'YES' | 'NO'
    readonly collation_name: string | null
  }[]
  readonly indexes: readonly { readonly indexdef: string }[]
}
