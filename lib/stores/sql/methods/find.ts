import type { KeyStore } from '../../../core/keys/key-store.ts'
import type { KeyRecord } from '../../../core/keys/record.ts'
import { isStorable } from '../../../internal/options.ts'
import { toKeyRecord } from '../key-row.ts'
import { type Row, rowsOf } from '../plan.ts'
import type { SqlStoreParts } from './parts.ts'
import { readRows } from './unsupported-texts.ts'

export async function find(
  { database, statements }: SqlStoreParts,
  by: Parameters<KeyStore['find']>[0],
): Promise<KeyRecord | null> {
  if ('id' in by) {
    if (!isStorable(by.id)) return null
    const [row] = (await readRows(database, () => statements.findById(by.id))) ?? []
    return row ? toKeyRecord(row) : null
  }
  const lookups = by.lookups.filter(isStorable)
  if (lookups.length === 0) return null
  return firstOf(lookups, await database.read(() => rowsOf(statements.findByLookups(lookups))))
}

/** The record of the first lookup that has one. */
function firstOf(lookups: readonly string[], rows: readonly Row[]): KeyRecord | null {
  if (rows.length < 2) return rows[0] ? toKeyRecord(rows[0]) : null
  const records = rows.map(toKeyRecord)
  for (const lookup of lookups) {
    const record = records.find((candidate) => candidate.lookup === lookup)
    if (record) return record
  }
  return null
}
