import { existsSync } from 'node:fs'
import type { Owner } from 'latchkey'
import type { BetterAuthRow } from 'latchkey/import'
import Database from 'libsql'

/** The table `apikey` of better-auth, and the owners of its keys. It is only read. */
export interface BetterAuthTable {
  /** Every row, read page by page: memory use does not grow with the table. */
  rows(): Iterable<BetterAuthRow>
  /** better-auth stores no owner type: an id in the table `organization` is an organisation. */
  ownerOf(row: BetterAuthRow): Owner
  /** The current state of a key there: better-auth deletes revoked, expired and used-up keys. */
  stateOf(id: string): 'enabled' | 'disabled' | 'deleted'
  close(): void
}

const PAGE = 1_000

/** @throws Error if there is no such file, or it has no table `apikey`. */
export function openBetterAuth(file: string): BetterAuthTable {
  // The driver would create one.
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
