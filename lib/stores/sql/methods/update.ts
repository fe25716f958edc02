import type { Forgetting, KeyChange } from '../../../core/keys/key-store.ts'
import { startQuota } from '../../../core/limits/quota.ts'
import { isStorable } from '../../../internal/options.ts'
import { copyData } from '../../../internal/plain-data.ts'
import { toChangedColumns, toQuotaRecord, toQuotaRow, toTextCell } from '../key-row.ts'
import { affectedBy, type Plan, rowsOf } from '../plan.ts'
import type { Statements } from '../statements.ts'
import { find } from './find.ts'
import type { SqlStoreParts } from './parts.ts'
import { checkLengths, isUnsupported } from './unsupported-texts.ts'

type Outcome = 'updated' | 'conflict' | 'missing'

export async function update(
  parts: SqlStoreParts,
  id: string,
  expectedVersion: number,
  change: KeyChange,
): Promise<Outcome> {
  const { database, statements } = parts
  if (!isStorable(id)) return 'missing'
  const row = toChangedColumns(change)
  checkLengths(Object.keys(row), Object.values(row), database.dialect)
  const { quota, revokedAt, updatedAt } = change
  const updateKey = statements.updateKey(id, expectedVersion, row, revokedAt?.getTime())
  if (quota === undefined) return writeTo(parts, id, 'missing', () => updatePlan(statements, id, updateKey))
  const setQuota = quota && copyData(quota)
  const at = new Date(updatedAt)
  return writeTo(parts, id, 'missing', function* () {
    const outcome = yield* updatePlan(statements, id, updateKey)
    if (outcome === 'updated') yield* setQuotaPlan(statements, id, setQuota, at)
    return outcome
  })
}

export async function forget(
  { database, statements }: SqlStoreParts,
  id: string,
  expectedVersion: number,
  forgetting: Forgetting,
): Promise<Outcome> {
  if (!isStorable(id)) return 'missing'
  const updateKey = statements.updateKey(id, expectedVersion, toChangedColumns(forgetting), undefined)
  return database.transact(() => updatePlan(statements, id, updateKey))
}

export async function replaceDigest(
  parts: SqlStoreParts,
  id: string,
  expected: string,
  next: string,
): Promise<boolean> {
  const { database, statements } = parts
  if (!isStorable(id) || !isStorable(expected)) return false
  checkLengths(['digest'], [toTextCell(next, 'digest')], database.dialect)
  return writeTo(parts, id, false, function* () {
    return (yield* affectedBy(statements.replaceDigest(id, expected, next))) > 0
  })
}

/** Writes to one key. Returns `missing` if its id is a text that the database cannot hold. */
async function writeTo<T>(parts: SqlStoreParts, id: string, missing: T, plan: () => Plan<T>): Promise<T> {
  try {
    return await parts.database.transact(plan)
  } catch (error) {
    if (isUnsupported(error) && !(await find(parts, { id }))) return missing
    throw error
  }
}

function* updatePlan(
  statements: Statements,
  id: string,
  updateKey: ReturnType<Statements['updateKey']>,
): Plan<Outcome> {
  if ((yield* affectedBy(updateKey)) > 0) return 'updated'
  return (yield* rowsOf(statements.lineageOf(id))).length > 0 ? 'conflict' : 'missing'
}

function* setQuotaPlan(statements: Statements, id: string, quota: KeyChange['quota'], at: Date): Plan<void> {
  const [key] = yield* rowsOf(statements.lineageOf(id))
  const lineageId = String(key?.lineage_id)
  if (!quota) {
    yield statements.removeQuota(lineageId)
    return
  }
  // There must be a row to lock. A row inserted here is overwritten below.
  yield statements.insertQuota(lineageId, toQuotaRow({ ...startQuota(quota, null, at), epoch: 0 }), true)
  const [existing] = yield* rowsOf(statements.lockQuotas([lineageId]))
  const next = startQuota(quota, existing ? toQuotaRecord(existing) : null, at)
  yield statements.updateQuota(lineageId, toQuotaRow(next))
}
