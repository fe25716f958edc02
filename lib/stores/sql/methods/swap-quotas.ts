import type { QuotaSwap, QuotaSwapResult } from '../../../core/keys/key-store.ts'
import { compareCodePoints } from '../../../internal/code-points.ts'
import { isStorable } from '../../../internal/options.ts'
import { copyData } from '../../../internal/plain-data.ts'
import { isRemoved, toQuotaRecord, toQuotaRow } from '../key-row.ts'
import { affectedBy, type Cell, type Plan, rowsOf } from '../plan.ts'
import type { Statements } from '../statements.ts'
import type { SqlStoreParts } from './parts.ts'

export async function swapQuota(
  { database, statements }: SqlStoreParts,
  given: QuotaSwap,
): Promise<QuotaSwapResult> {
  const swap = readSwap(given)
  return database.transact(() => swapPlan(statements, swap))
}

export async function swapQuotas(
  { database, statements }: SqlStoreParts,
  swaps: readonly QuotaSwap[],
): Promise<QuotaSwapResult[]> {
  const all = swaps.map(readSwap)
  // All other code locks quotas in this order too.
  const inOrder = [...all].sort((a, b) => compareCodePoints(a.lineageId, b.lineageId))
  return database.transact(function* () {
    const results = new Map<ReadSwap, QuotaSwapResult>()
    for (const swap of inOrder) results.set(swap, yield* swapPlan(statements, swap))
    return all.map((swap) => results.get(swap) as QuotaSwapResult)
  })
}

/** A swap that shares nothing with the caller. */
interface ReadSwap extends Pick<QuotaSwap, 'lineageId' | 'expected'> {
  readonly row: readonly Cell[]
}

function readSwap({ lineageId, expected, next }: QuotaSwap): ReadSwap {
  return { lineageId, expected: copyData(expected), row: toQuotaRow(next) }
}

function* swapPlan(statements: Statements, { lineageId, expected, row }: ReadSwap): Plan<QuotaSwapResult> {
  if (!isStorable(lineageId)) return { swapped: false, current: null }
  if ((yield* affectedBy(statements.swapQuota(lineageId, expected, row))) > 0) return { swapped: true }
  const [found] = yield* rowsOf(statements.readQuota(lineageId))
  return { swapped: false, current: found && !isRemoved(found) ? toQuotaRecord(found) : null }
}
