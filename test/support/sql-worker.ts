/**
 * A process that migrates, at the moment its input ends:
 *
 *     node --import tsx test/support/sql-worker.ts <SQLite|PostgreSQL|MariaDB> <url or file>
 */
import { migrate, mysqlStore, postgresStore, sqliteStore } from 'latchkey/sql'
import { createPool } from 'mysql2'
import { Pool } from 'pg'

const [kind, url = ''] = process.argv.slice(2)

function open() {
  if (kind === 'SQLite') return { store: sqliteStore(url), end: async () => {} }
  if (kind === 'PostgreSQL') {
    const pool = new Pool({ connectionString: url })
    return { store: postgresStore(pool), end: () => pool.end() }
  }
  const pool = createPool(url)
  return { store: mysqlStore(pool), end: () => pool.promise().end() }
}

const { store, end } = open()
console.log('ready')
for await (const _ of process.stdin);
console.log(JSON.stringify((await migrate(store)).applied))
await store.close()
await end()
