import { migrate } from 'latchkey/sql'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { auditJournals, crashProcesses, crashServer } from './crash-journal.ts'
import { startMariadb } from './mariadb-server.ts'
import { openStore } from './open-store.ts'
import { startPostgres } from './postgres-server.ts'
import { createRandom } from './random.ts'
import { createMariadb, createPostgres, createSqlite } from './sql-databases.ts'

/** What holds when processes and servers are killed in the middle of their work; `seed` decides when. */
export function describeCrashes({
  rounds,
  changes,
  seed,
}: {
  rounds: number
  changes: number
  seed: number
}): void {
  const title = `keeps what has resolved, and nothing by half (CRASH_SEED=${seed})`

  describe.each([
    ['SQLite', createSqlite],
    ['PostgreSQL', createPostgres],
    ['MariaDB', createMariadb],
  ])('%s, where the processes that use it are killed,', (_name, create) => {
    it(title, async () => {
      const database = await create()
      onTestFinished(() => database.remove())
      await migrate(database.open())
      const options = { url: database.url, rounds, changes, random: createRandom(seed) }
      const audit = await auditJournals(database.url, await crashProcesses(options))
      expectWork(audit)
    })
  })

  describe.each([
    ['PostgreSQL', () => startPostgres({ binaries: inject('postgresBinaries') })],
    ['MariaDB', () => startMariadb({ binary: inject('mariadbBinary') })],
  ])('%s, where it is killed itself,', (_name, start) => {
    it(title, async () => {
      const server = await start()
      onTestFinished(() => server.stop())
      const { store, close } = openStore(server.url)
      await migrate(store)
      await close()
      const options = { url: server.url, rounds, changes, random: createRandom(seed) }
      const audit = await auditJournals(server.url, await crashServer(server, options))
      expectWork(audit)
      expect(audit.unknown).toBeGreaterThan(0)
    })
  })
}

/** Otherwise nothing was proven. */
function expectWork({
  issued,
  rotated,
  revoked,
}: {
  issued: number
  rotated: number
  revoked: number
}): void {
  expect(Math.min(issued, rotated, revoked)).toBeGreaterThan(0)
}
