import { type PostgresClient, type PostgresQuery, postgresStore, type SqlStore } from 'latchkey/sql'
import type { Pool } from 'pg'

/** A statement with the plan that PostgreSQL made for it; one that reads has been run for it. */
export interface Explained {
  readonly sql: string
  readonly plan: PlanNode
}

/** As much as is looked at of what `explain (format json)` answers. */
export interface PlanNode {
  readonly 'Node Type': string
  readonly 'Relation Name'?: string
  readonly 'Index Name'?: string
  readonly 'Actual Rows'?: number
  readonly 'Actual Loops'?: number
  readonly 'Rows Removed by Filter'?: number
  readonly 'Rows Removed by Index Recheck'?: number
  readonly Plans?: readonly PlanNode[]
}

/** A store whose statements are explained, with the values they are run with, before each is run. */
export function explainedStore(pool: Pool): { readonly store: SqlStore; readonly explained: Explained[] } {
  const explained: Explained[] = []
  const store = postgresStore({
    async connect(): Promise<PostgresClient> {
      const client = await pool.connect()
      return {
        async query(query: PostgresQuery) {
          const [verb = ''] = query.text.trim().split(/\s/)
          if (['select', 'insert', 'update', 'delete', 'with'].includes(verb)) {
            const options = verb === 'select' ? 'analyze, format json' : 'format json'
            const { rows } = await client.query(`explain (${options}) ${query.text}`, query.values)
            explained.push({ sql: query.text, plan: rows[0]['QUERY PLAN'][0].Plan })
          }
          return client.query(query as never)
        },
        release: (destroy) => client.release(destroy),
        on: (event, listener) => client.on(event, listener),
        off: (event, listener) => client.off(event, listener),
      }
    },
  })
  return { store, explained }
}

/** A plan and all that it is made of. */
export function nodesOf(plan: PlanNode): PlanNode[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodesOf)]
}

/** How many rows of a table were looked at, those included that the answer has no use for. */
export function rowsRead(plan: PlanNode, table: string): number {
  return nodesOf(plan)
    .filter((node) => node['Relation Name'] === table)
    .reduce((sum, node) => sum + rowsOf(node), 0)
}

/** How many rows were put in order, at most by one step. */
export function rowsSorted(plan: PlanNode): number {
  const sorts = nodesOf(plan).filter((node) => node['Node Type'].includes('Sort'))
  return Math.max(0, ...sorts.flatMap((node) => (node.Plans ?? []).map(rowsOf)))
}

/** PostgreSQL tells them for one loop. */
function rowsOf(node: PlanNode): number {
  const removed = (node['Rows Removed by Filter'] ?? 0) + (node['Rows Removed by Index Recheck'] ?? 0)
  return ((node['Actual Rows'] ?? 0) + removed) * (node['Actual Loops'] ?? 1)
}
