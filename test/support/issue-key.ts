import type { ApiKeys, IssuedKey, IssueOptions } from 'latchkey'
import { ALICE } from './test-keys.ts'

/** Issues a key of Alice's; what is given replaces the rest. */
export function issueKey(keys: ApiKeys, options: Partial<IssueOptions> = {}): Promise<IssuedKey> {
  return keys.issue({ owner: ALICE, name: 'CI', ...options })
}

/** The same, looked up once and not charged: while the clock stands still, verifying it waits for nothing. */
export async function issueWarmKey(keys: ApiKeys, options?: Partial<IssueOptions>): Promise<IssuedKey> {
  const issued = await issueKey(keys, options)
  await keys.verify(issued.key, { cost: 0, ...(options?.allowedIps && { ip: options.allowedIps[0] }) })
  return issued
}
