import type { ImportFormat } from '../core/keys/imported-format.ts'
import { checkObject } from '../internal/options.ts'
import type { HashedRow } from './hashed-row.ts'
import { readName } from './read-column.ts'

/** A row of a table of bcrypt digests. */
export type BcryptRow = HashedRow & {
  /** What stands before the separator of the key, by which its row is found. */
  lookup: string
}

export interface BcryptFormatOptions {
  /**
   * What parts the id of a key from its secret, one visible ASCII character; the first one counts.
   *
   * @default '.'
   */
  separator?: string
  /**
   * What was given to bcrypt: the secret alone, or the whole key. bcrypt itself has read no more than 72 bytes of it.
   *
   * @default 'secret'
   */
  covers?: 'secret' | 'key'
}

/**
 * Keys of the form `<id>.<secret>` of which a table keeps the bcrypt digest, `$2a$`, `$2b$` or `$2y$`. They need the
 * package `bcrypt`, which each process runs once for each key; `upgradeDigests` makes an end of it.
 *
 * For keys without an id write a format of your own whose `lookup` answers what your table is searched by.
 */
export function bcryptFormat(options: BcryptFormatOptions = {}): ImportFormat<BcryptRow> {
  checkObject('options', options, ['separator', 'covers'])
  const { separator = '.', covers = 'secret' } = options
  if (!/^[\x21-\x7e]$/.test(separator)) {
    throw new TypeError('"separator" must be one visible ASCII character')
  }
  if (covers !== 'secret' && covers !== 'key') throw new TypeError('"covers" must be "secret" or "key"')
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
        throw new TypeError('the column "lookup" must be what stands before the separator')
      return {
        ...rest,
        format: 'bcrypt',
        lookup: id,
        digest: { hash: 'bcrypt', value, ...(covers === 'secret' && { of: { afterFirst: separator } }) },
      }
    },
  }
}
