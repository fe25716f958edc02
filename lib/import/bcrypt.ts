import type { ImportFormat } from '../core/keys/imported-format.ts'
import { checkObject, checkOneOf } from '../internal/options.ts'
import type { HashedRow } from './hashed-row.ts'
import { readName } from './read-column.ts'

/** A row of a table of bcrypt digests. */
export type BcryptRow = HashedRow & {
  /** The part of the key before the separator. It finds the row. */
  lookup: string
}

export interface BcryptFormatOptions {
  /**
   * The character between a key's id and its secret, visible ASCII. Only its first occurrence counts.
   *
   * @default '.'
   */
  separator?: string
  /**
   * What was hashed: the secret alone, or the whole key. bcrypt reads only the first 72 bytes.
   *
   * @default 'secret'
   */
  covers?: 'secret' | 'key'
}

/**
 * Imports keys of the form `<id>.<secret>` from a table of bcrypt digests, `$2a$`, `$2b$` or `$2y$`. They need the
 * package `bcrypt`, which each process runs once for each key. `upgradeDigests` replaces these digests over time.
 *
 * For keys without an id, write your own format whose `lookup` returns the value that finds rows in your table.
 */
export function bcryptFormat(options: BcryptFormatOptions = {}): ImportFormat<BcryptRow> {
  checkObject('options', options, ['separator', 'covers'])
  const { separator = '.', covers = 'secret' } = options
  if (!/^[\x21-\x7e]$/.test(separator)) {
    throw new TypeError('"separator" must be one visible ASCII character')
  }
  checkOneOf('covers', covers, ['secret', 'key'])
  return {
    name: 'bcrypt',
    lookup(key) {
      const at = key.indexOf(separator)
      // A token of three parts is a JWT, or something else that is no key.
      const isWhole = at > 0 && at < key.length - 1 && !key.includes(separator, at + 1)
      return isWhole ? key.slice(0, at) : null
    },
    read({ hash, lookup, ...rest }) {
      const value = readName('hash', hash)
      const id = readName('lookup', lookup)
      if (id.includes(separator))
        throw new TypeError('the column "lookup" must be the part of the key before the separator')
      return {
        ...rest,
        format: 'bcrypt',
        lookup: id,
        digest: { hash: 'bcrypt', value, ...(covers === 'secret' && { of: { afterFirst: separator } }) },
      }
    },
  }
}
