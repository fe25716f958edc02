import { migrate, type SqlStore } from 'latchkey/sql'
import { Pool } from 'pg'
import { afterAll, beforeAll } from 'vitest'
import { type Explained, explainedStore } from './explained-store.ts'
import { createPostgres, type TestDatabase } from './sql-databases.ts'

/** A database with many keys, as a test reaches it. */
export interface ManyKeys {
  readonly count: number
  readonly database: TestDatabase
  readonly store: SqlStore
  /** What the store has asked of the database. */
  readonly explained: Explained[]
}

/** Makes so many keys before the tests of this block, and removes them after. */
export function withManyKeys(count: number): ManyKeys {
  const made: { -readonly [member in keyof ManyKeys]?: ManyKeys[member] } = { count }
  let pool: Pool | undefined

  beforeAll(async () => {
    made.database = await createPostgres()
    pool = new Pool({ connectionString: made.database.url })
    Object.assign(made, explainedStore(pool))
    await migrate(made.store as SqlStore)
    await made.database.query(fillWithKeys(count))
  }, 600_000)
  afterAll(async () => {
    await pool?.end()
    await made.database?.remove()
  })
  // What a test reads is there by the time that it runs.
  return made as ManyKeys
}

/** How many keys each owner has of those below. */
export const KEYS_OF_AN_OWNER = 100

/**
 * SQL that makes so many keys in the tables of PostgreSQL, as they are in the field: some disabled, expired, expiring, idle
 * or with a quota, and of those that were revoked most are the oldest, since they are kept for a while and new ones come.
 * Two are made in each millisecond; the key `k7` has the number 7.
 */
function fillWithKeys(count: number): string {
  return `
  insert into latchkey_keys
  select 'k' || n, 'l' || n, '$sha256$' || n, 'k' || n, 'name ' || n % 1009, 'acme', 'acme_' || n,
    'user', 'u' || n % ${count / KEYS_OF_AN_OWNER}, case when n % 3 = 0 then 'a' || n % 100 end,
    '{"projects":["read"]}', '{}', n % 29 <> 0, null, null, 1768478400000 + n / 2, 1768478400000 + n / 2,
    case n / 7 % 40 when 0 then 1768478400000 + n when 20 then 1868478400000 end,
    case when n / 11 % 50 = 0 then 86400000 end, n % 7, null, null,
    case when n <= ${count / 10} or n % 101 = 0 then 1768478400000 + n end, null, null, null, null, 1
  from generate_series(1, ${count}) as n;
  insert into latchkey_keys_quotas
  select 'k' || n, 100, 1768478400000, 0, null, null, false from generate_series(1, ${count}, 2) as n;
  analyze`
}
