import type { ApiKeys, ImportFormat, ImportProgress, InvalidImport } from 'latchkey'
import type { BetterAuthRow } from 'latchkey/import'
import type { BetterAuthTable } from './better-auth-table.ts'

/** The `createdBy` of imported keys: it distinguishes them from keys issued since. */
export const IMPORTER = 'import from better-auth'

export interface MigrationListener {
  onProgress(progress: ImportProgress): void
  /** Receives a row that is not a key. The others are still imported. */
  onInvalid(invalid: InvalidImport): void
}

/** Imports what is not there yet. You can run it again, after an interruption or when there are more keys. */
export function migrateKeys(
  table: BetterAuthTable,
  format: ImportFormat<BetterAuthRow>,
  keys: ApiKeys,
  listener: MigrationListener,
): Promise<ImportProgress> {
  return keys.importAll(table.rows(), {
    read: (row) => ({ ...format.read(row), createdBy: IMPORTER }),
    onDuplicate: 'skip',
    by: IMPORTER,
    ...listener,
  })
}

export interface Followed {
  readonly revoked: number
  readonly disabled: number
}

/**
 * Stops imported keys that better-auth has stopped since: it revokes keys deleted there, and disables keys disabled there.
 * It never restarts a key, and leaves alone keys that were issued here.
 */
export async function followChanges(table: BetterAuthTable, keys: ApiKeys): Promise<Followed> {
  const followed = { revoked: 0, disabled: 0 }
  let cursor: string | undefined
  do {
    const page = await keys.list({ createdBy: IMPORTER, limit: 1_000, ...(cursor && { cursor }) })
    for (const { id, enabled, revokedAt, rotatedTo } of page.apiKeys) {
      if (revokedAt || rotatedTo) continue
      const state = table.stateOf(id)
      if (state === 'deleted') {
        await keys.revoke(id, { by: IMPORTER, reason: 'deleted in better-auth' })
        followed.revoked += 1
      } else if (state === 'disabled' && enabled) {
        await keys.disable(id, { by: IMPORTER })
        followed.disabled += 1
      }
    }
    cursor = page.nextCursor
  } while (cursor !== undefined)
  return followed
}
