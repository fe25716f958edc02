import type { ImportFormat } from '../core/keys/imported-format.ts'
import type { HashedRow } from './hashed-row.ts'
import { readName } from './read-column.ts'

/** A stored key of the package `prefixed-api-key`. Pass its `longTokenHash` as `hash`. */
export type PrefixedApiKeyRow = HashedRow & {
  /** The middle part of the key. It finds the row. */
  shortToken: string
}

/** base58, padded with zeros; no `_` is in it, and the prefix may hold some. */
const TOKEN = /^[0-9A-Za-z]{4,64}$/

/**
 * Imports the keys of the package `prefixed-api-key`, `<prefix>_<shortToken>_<longToken>`. The digest is the SHA-256 of
 * the long token, in hexadecimal.
 *
 * Source: `src/index.ts` of seamapi/prefixed-api-key.
 */
export function prefixedApiKeyFormat(): ImportFormat<PrefixedApiKeyRow> {
  return {
    name: 'prefixed-api-key',
    lookup(key) {
      const [longToken = '', shortToken = '', ...prefix] = key.split('_').reverse()
      const isWhole = prefix.some((part) => part !== '') && TOKEN.test(shortToken) && TOKEN.test(longToken)
      return isWhole ? shortToken : null
    },
    read({ hash, shortToken, ...rest }) {
      const value = readName('hash', hash)
      const lookup = readName('shortToken', shortToken)
      if (!TOKEN.test(lookup))
        throw new TypeError('the column "shortToken" must be 4 to 64 letters and digits')
      return {
        ...rest,
        format: 'prefixed-api-key',
        lookup,
        digest: { hash: 'sha256', value, of: { afterLast: '_' } },
      }
    },
  }
}
