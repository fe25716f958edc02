import type { Proposal } from '../../../core/keys/key-store.ts'
import { toTextCell } from '../key-row.ts'
import { type Plan, rowsOf } from '../plan.ts'
import type { Statements } from '../statements.ts'
import type { SqlStoreParts } from './parts.ts'
import { checkLengths } from './unsupported-texts.ts'

export async function agree(
  { database, statements }: SqlStoreParts,
  name: string,
  proposal: Proposal | null,
): Promise<string | null> {
  const row = [toTextCell(name, 'name'), toTextCell(proposal?.value ?? '', 'value')]
  checkLengths(['name', 'value'], row, database.dialect)
  // Read first, so that a process without the right to write can agree.
  const kept = await database.read(() => agreedPlan(statements, name))
  if (!proposal || (kept !== null && !proposal.replace && kept !== proposal.expected)) return kept
  return database.transact(function* () {
    yield kept === null || proposal.replace
      ? statements.writeAgreement(name, proposal)
      : statements.swapAgreement(name, kept, proposal.value)
    return yield* agreedPlan(statements, name)
  })
}

function* agreedPlan(statements: Statements, name: string): Plan<string | null> {
  const [row] = yield* rowsOf(statements.findAgreement(name))
  return row ? String(row.value) : null
}
