import type { KeyFilter, ListPage } from '../../../core/keys/key-store.ts'
import type { KeyRecord, Owner } from '../../../core/keys/record.ts'
import { checkInteger, isStorable } from '../../../internal/options.ts'
import type { Database } from '../database.ts'
import { toKeyRecord } from '../key-row.ts'
import type { Row, Statement } from '../plan.ts'
import type { SqlStoreParts } from './parts.ts'
import { readRows } from './unsupported-texts.ts'

export async function list(
  { database, statements }: SqlStoreParts,
  filter: KeyFilter,
  page: ListPage,
): Promise<KeyRecord[]> {
  const limit = checkInteger('limit', page.limit, 0, Number.MAX_SAFE_INTEGER)
  const rows = await readMatching(database, filter, (storable) => statements.list(storable, page))
  return rows.slice(0, limit).map(toKeyRecord)
}

export async function count({ database, statements }: SqlStoreParts, filter: KeyFilter): Promise<number> {
  const [row] = await readMatching(database, filter, statements.count)
  return Number(row?.count ?? 0)
}

/** Reads by a filter. If the filter names texts that the database cannot hold, no key has them. */
async function readMatching(
  database: Database,
  filter: KeyFilter,
  statement: (filter: KeyFilter) => Statement,
): Promise<readonly Row[]> {
  const { createdBy, name, lineageId } = filter
  if ([createdBy, name, lineageId].some((text) => text !== undefined && !isStorable(text))) return []
  const owners = filter.owners?.filter(({ type, id }) => isStorable(type) && isStorable(id))
  if (owners?.length === 0) return []
  const read = (some = owners) =>
    readRows(database, () => statement({ ...filter, ...(some && { owners: some }) }))
  const rows = await read()
  if (rows || !owners) return rows ?? []
  // The encoding of the database may lack characters of one owner: then read the others.
  const known: Owner[] = []
  for (const owner of owners) if (await read([owner])) known.push(owner)
  return (known.length > 0 && (await read(known))) || []
}
