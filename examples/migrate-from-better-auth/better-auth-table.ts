import { existsSync } from 'node:fs'
import type { Owner } from 'latchkey'
import type { BetterAuthRow } from 'latchkey/import'
import Database from 'libsql'

/** The table `apikey` of better-auth, and whom its keys belong to. Nothing is written to it. */
export interface BetterAuthTable {
  /** Every row, read by pages: the memory it takes does not grow with the table. */
  rows(): Iterable<BetterAuthRow>
  /** better-auth keeps no type of owner: those of organisations are known by the table `organization`. */
  ownerOf(row: BetterAuthRow): Owner
  /** What has become of a key there: it deletes keys that are revoked, expired or used up. */
  stateOf(id: string): 'enabled' | 'disabled' | 'deleted'
  close(): void
}

const PAGE = 1_000

/** @throws Error where there is no such file, or no table `apikey` in it. */
export function openBetterAuth(file: string): BetterAuthTable {
  // The driver would make one.
  if (!existsSync(file)) throw new Error(`there is no file ${file}`)
  const database = new Database(file)
  database.exec('pragma query_only = on')
  if (!hasTable(database, 'apikey')) throw new Error(`${file} holds no table "apikey"`)
  const page = database.prepare('select * from apikey where id > ? order by id limit ?')
  const state = database.prepare('select enabled from apikey where id = ?')
  const organization = hasTable(database, 'organization')
    ? database.prepare('select id from organization where id = ?')
    : null

  function* rows(): Iterable<BetterAuthRow> {
    let last = ''
    while (true) {
      const some = page.all(last, PAGE) as BetterAuthRow[]
      yield* some
      const end = some.at(-1)
      if (!end) return
      last = end.id
    }
  }

  return {
    rows,
    ownerOf({ referenceId, userId }) {
      const id = referenceId ?? userId ?? ''
      const isOrganization = organization !== null && organization.all(id).length > 0
      return { type: isOrganization ? 'organization' : 'user', id }
    },
    stateOf(id) {
      const [row] = state.all(id) as { enabled: number }[]
      if (!row) return 'deleted'
      return row.enabled ? 'enabled' : 'disabled'
    },
    close: () => void database.close(),
  }
}

function hasTable(database: Database.Database, name: string): boolean {
  const tables = database.prepare("select name from sqlite_master where type = 'table' and name = ?")
  return tables.all(name).length > 0
}
