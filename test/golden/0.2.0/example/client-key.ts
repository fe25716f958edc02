import { readFile, writeFile } from 'node:fs/promises'
import type { ApiKeys } from 'latchkey'

export interface ClientKey {
  readonly key: string
  /** Whether it was issued when the program ran before, and still works. */
  readonly isFromBefore: boolean
}

/**
 * The key that the printed lines are about. Its text is kept in `file` on behalf of the client who would have it: the
 * application's own database holds its digest and nothing that it could be read from.
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
