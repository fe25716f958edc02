import type { Proposal } from '../../../core/keys/key-store.ts'
import { AGREE } from '../scripts.ts'
import type { RedisStoreParts } from './parts.ts'

export async function agree(
  { calls, layout }: RedisStoreParts,
  name: string,
  proposal: Proposal | null,
): Promise<string | null> {
  const since = performance.now()
  const key = layout.agreement(name)
  const way = proposal?.replace ? 'replace' : proposal?.expected !== undefined ? 'swap' : 'keep'
  const args = proposal ? [way, proposal.value, proposal.expected ?? ''] : ['look', '', '']
  const [kept, written] = await calls.run(AGREE, [key], args)
  if (Number(written) === 1) await calls.confirm([key], since)
  return typeof kept === 'string' ? kept : null
}
