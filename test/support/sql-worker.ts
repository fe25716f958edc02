/**
 * A process that shares a database with others. At the moment its input ends it migrates, then takes as many units of the
 * quota of the lineage `shared` as it is told, one by one and 20 at a time:
 *
 *     node --import tsx test/support/sql-worker.ts <SQLite|PostgreSQL|MariaDB> <url or file> [units]
 */
import { migrate, mysqlStore, postgresStore, sqliteStore } from 'latchkey/sql'
import { createPool } from 'mysql2'
import { Pool } from 'pg'
import { lease } from './key-records.ts'

const [kind, url = '', units = '0'] = process.argv.slice(2)

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
const { applied } = await migrate(store)
let [asked, granted] = [0, 0]
async function take(): Promise<void> {
  while (asked < Number(units)) {
    asked += 1
    const leased = await lease(store, 'shared', 1)
    granted += leased ?? 0
  }
}
await Promise.all(Array.from({ length: 20 }, take))
console.log(JSON.stringify({ applied, granted }))
await store.close()
await end()
