import type { ImportedKey } from '../core/keys/imported-key.ts'

/** A row of your own table: the stored digest, and the other members of {@link ImportedKey}. */
export type HashedRow = Omit<ImportedKey, 'format' | 'key' | 'lookup' | 'digest'> & {
  /** The digest of the key, as the other product stores it. */
  hash: string
}
