import { checkObject } from '../../internal/options.ts'
import type { ImportedKey } from '../keys/imported-key.ts'
import { type ApiKey, keyStatus, toApiKey } from '../keys/record.ts'
import { checkBy } from './change-keys.ts'
import { importAll } from './import-all.ts'
import { insertConfirmed } from './insert-confirmed.ts'
import type { ChangeOptions, KeyManagement } from './key-management.ts'
import { type ImportParts, prepareRow } from './prepare-import.ts'

/** Brings keys of other products into the store. */
export function createKeyImport(parts: ImportParts): Pick<KeyManagement, 'import' | 'importAll'> {
  const { store, cache, clock, emit } = parts

  async function importOne(imported: ImportedKey, options: ChangeOptions = {}): Promise<ApiKey> {
    checkObject('options', options, ['by'])
    const by = checkBy(options)
    const { record } = await prepareRow(parts, imported, 0)
    await insertConfirmed(store, [record])
    cache.forgetMissing(record.lookup)
    const at = new Date(clock.now())
    const apiKey = toApiKey(record, keyStatus(record, at))
    emit({ type: 'key.imported', at, keyId: record.id, owner: record.owner, by, before: null, apiKey })
    return apiKey
  }

  return { import: importOne, importAll: (rows, options) => importAll(parts, rows, options) }
}
