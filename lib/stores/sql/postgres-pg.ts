import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import { DatabaseFailure } from './database-errors.ts'
import type { Answer, Row, Statement } from './plan.ts'
import type { Execute, PostgresDriver } from './postgres-driver.ts'
import { toFailure } from './postgres-errors.ts'

/** The parts of a pg `Pool` that the store uses. */
export interface PostgresPool {
  connect(): Promise<PostgresClient>
}

/** The parts of a pg `PoolClient` that the store uses. */
export interface PostgresClient {
  query(query: PostgresQuery): Promise<{ readonly rows: unknown[]; readonly rowCount: number | null }>
  release(destroy?: boolean): void
  on(event: 'error', listener: () => void): unknown
  off(event: 'error', listener: () => void): unknown
  /** In recent releases of pg: `T` within a transaction. */
  getTransactionStatus?(): string | null
}

/** A query with the store's own parsers, whatever parsers the application has registered. */
export interface PostgresQuery {
  text: string
  values: unknown[]
  types: { getTypeParser(oid: number, format?: string): (value: string) => unknown }
}

export function pgDriver(pool: PostgresPool): PostgresDriver {
  const single: PostgresDriver['read'] = (work) =>
    withClient(pool, (execute, client) => alone(client, work(execute)))
  return {
    read: single,
    write: single,
    inTransaction: (work) => withClient(pool, (execute) => inTransaction(execute, work)),
  }
}

async function withClient<T>(
  pool: PostgresPool,
  work: (execute: Execute, client: PostgresClient) => Promise<T>,
): Promise<T> {
  const client = await pool.connect().catch((error: unknown) => {
    throw toFailure(error)
  })
  let isBroken = false
  const onError = () => {
    isBroken = true
  }
  // If a connection ends during a query, pg also emits an event, which ends the process without a listener.
  client.on('error', onError)
  try {
    return await work((statement) => execute(client, statement), client)
  } catch (error) {
    // This connection may still be busy: it must not go back to the pool.
    if (!(error instanceof DatabaseFailure) || error.kind === 'connection') isBroken = true
    throw error
  } finally {
    client.off('error', onError)
    client.release(isBroken)
  }
}

async function execute(client: PostgresClient, { sql, parameters }: Statement): Promise<Answer> {
  try {
    const { rows, rowCount } = await client.query({
      text: sql,
      values: [...parameters],
      types: { getTypeParser: (_oid, format) => (format === 'binary' ? refuseBinary : String) },
    })
    return { rows: rows as Row[], affected: rowCount ?? 0 }
  } catch (error) {
    throw isLatchkeyError(error) ? error : toFailure(error)
  }
}

/**
 * Fails if the application returned the connection with an open transaction: what was read may be old, and what was written stays
 * locked until that ends. It checks afterwards: before, the statement that ends the transaction may still be running.
 */
async function alone<T>(client: PostgresClient, work: Promise<T>): Promise<T> {
  const result = await work
  if (!isInTransaction(client)) return result
  const problem = 'the application returned a connection to the pool with an open transaction'
  throw new DatabaseFailure('connection', 'connection', new Error(problem))
}

function isInTransaction(client: PostgresClient): boolean {
  try {
    return client.getTransactionStatus?.() === 'T'
  } catch {
    // pg has the method, but an older pg-native does not.
    return false
  }
}

async function inTransaction<T>(execute: Execute, work: (execute: Execute) => Promise<T>): Promise<T> {
  await execute({ sql: 'begin isolation level read committed', parameters: [] })
  try {
    const result = await work(execute)
    await execute({ sql: 'commit', parameters: [] })
    return result
  } catch (error) {
    if (error instanceof DatabaseFailure && error.kind !== 'connection') {
      await execute({ sql: 'rollback', parameters: [] })
    }
    throw error
  }
}

/** pg has already turned binary results into text and destroyed numbers. */
function refuseBinary(): never {
  throw new LatchkeyError('wrong_dialect', 'the pool of PostgreSQL must not ask for binary results')
}
