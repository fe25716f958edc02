import type { ImportedKey } from '../core/keys/imported-key.ts'

/**
 * A row of a table of your own: the digest that it keeps, and what else there is to say of the key, in the terms of
 * {@link ImportedKey}.
 */
export type HashedRow = Omit<ImportedKey, 'format' | 'key' | 'lookup' | 'digest'> & {
  /** The digest of the key, as the other product keeps it. */
  hash: string
}
