import { isLatchkeyError } from '../../errors.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { KeyRecord } from '../keys/record.ts'

/**
 * Adds records, all or none. If the reply is lost, a second look may show that they are there; one is enough to tell.
 * The caller then gets its key, and no key stays behind whose text is lost.
 */
export async function insertConfirmed(store: KeyStore, records: readonly KeyRecord[]): Promise<void> {
  try {
    await store.insert(records)
  } catch (error) {
    const last = records.at(-1)
    if (!last || isTold(error)) throw error
    const now = await store.find({ id: last.id }).catch(() => null)
    if (now?.digest !== last.digest || now.lookup !== last.lookup) throw error
  }
}

/**
 * Whether the store itself said what became of a write, such as that it is made and not confirmed by replicas: a second
 * look would only hide that.
 */
export function isTold(error: unknown): boolean {
  return isLatchkeyError(error) && (error.code !== 'unavailable' || isLatchkeyError(error.cause))
}
