import { readFile, writeFile } from 'node:fs/promises'
import type { ApiKeys } from 'latchkey'

export interface ClientKey {
  readonly key: string
  /** Whether a previous run issued the key and it still works. */
  readonly isFromBefore: boolean
}

/**
 * The key for the printed commands. `file` keeps its text on behalf of a client: the application's own database holds only its
 * digest, from which nobody can read the key.
 */
export async function findClientKey(keys: ApiKeys, file: string): Promise<ClientKey> {
  const kept = await readIfThere(file)
  if (kept !== null && (await keys.verify(kept, { cost: 0 })).ok) return { key: kept, isFromBefore: true }
  const { key } = await keys.issue({
    owner: { type: 'user', id: 'u_1' },
    name: 'first key',
    permissions: { projects: ['read'] },
  })
  await writeFile(file, key, { mode: 0o600 })
  return { key, isFromBefore: false }
}

async function readIfThere(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}
