import type { KeyRecord } from '../../../core/keys/record.ts'
import { compareCodePoints } from '../../../internal/code-points.ts'
import { keyColumnNames, toKeyRow, toQuotaRow } from '../key-row.ts'
import type { Cell, Plan } from '../plan.ts'
import { inPowersOfTwo } from '../statements/padding.ts'
import { IDS_PER_STATEMENT, inChunks, type SqlStoreParts } from './parts.ts'
import { checkLengths } from './unsupported-texts.ts'

export async function insert(parts: SqlStoreParts, records: readonly KeyRecord[]): Promise<void> {
  const { database } = parts
  const rows = records.map(toKeyRow)
  for (const row of rows) checkLengths(keyColumnNames, row, database.dialect)
  const quotas = records.flatMap(({ lineageId, quota }) =>
    quota ? [{ lineageId, row: toQuotaRow(quota) }] : [],
  )
  const lineageIds = records.map(({ lineageId }) => lineageId)
  if (rows.length > 0) await database.transact(() => insertPlan(parts, rows, lineageIds, quotas))
}

/**
 * Keys first, then quotas, as everywhere. It also locks existing quotas: otherwise a purge of the lineage's last key would not see
 * these keys yet and would remove their quota.
 */
function* insertPlan(
  { database: { dialect }, statements }: SqlStoreParts,
  rows: readonly (readonly Cell[])[],
  lineageIds: readonly string[],
  quotas: readonly { lineageId: string; row: readonly Cell[] }[],
): Plan<void> {
  for (const some of inPowersOfTwo(rows, dialect.recordsPerInsert)) yield statements.insertKeys(some)
  const inOrder = [...quotas].sort((a, b) => compareCodePoints(a.lineageId, b.lineageId))
  for (const { lineageId, row } of inOrder) yield statements.insertQuota(lineageId, row, false)
  if (!dialect.locksRows) return
  for (const some of inChunks([...new Set(lineageIds)].sort(compareCodePoints), IDS_PER_STATEMENT))
    yield statements.lockQuotas(some)
}
