import type { ApiKeys } from '../core/api-keys.ts'
import { BOUNDS } from '../core/keys/bounds.ts'
import type { ApiKey } from '../core/keys/record.ts'

/** The predecessors and successors of a key that work or may work again: they share its quota. */
export async function* workingRelatives(
  keys: Pick<ApiKeys, 'get'>,
  apiKey: ApiKey,
  now: number,
): AsyncGenerator<ApiKey> {
  let successor = apiKey
  // No grace period is longer: keys replaced earlier have ended.
  while (successor.rotatedFrom !== null && successor.createdAt.getTime() + BOUNDS.graceMs.max > now) {
    const older = await keys.get(successor.rotatedFrom)
    if (!older) break
    if (mayWork(older, now)) yield older
    successor = older
  }
  for (let newer = await successorOf(keys, apiKey); newer; newer = await successorOf(keys, newer)) {
    if (mayWork(newer, now)) yield newer
  }
}

async function successorOf(keys: Pick<ApiKeys, 'get'>, { rotatedTo }: ApiKey): Promise<ApiKey | null> {
  return rotatedTo === null ? null : keys.get(rotatedTo)
}

/** A rotated key that has expired cannot be revived; any other key can. */
function mayWork({ revokedAt, rotatedTo, expiresAt }: ApiKey, now: number): boolean {
  if (revokedAt !== null) return false
  return rotatedTo === null || expiresAt === null || expiresAt.getTime() > now
}
