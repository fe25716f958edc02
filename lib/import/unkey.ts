import { hash as sha256 } from 'node:crypto'
import type { ImportFormat } from '../core/keys/imported-format.ts'
import type { HashedRow } from './hashed-row.ts'
import { readName } from './read-column.ts'

const SHAPE = /^[A-Za-z0-9_-]{8,255}$/

/**
 * Imports the keys of Unkey, and of any table that finds keys by the SHA-256 of the whole key. `hash` is that digest in
 * base64, base64url or hexadecimal.
 *
 * Source: `internal/hash` of unkeyed/unkey.
 */
export function unkeyFormat(): ImportFormat<HashedRow> {
  return {
    name: 'unkey',
    lookup: (key) => (SHAPE.test(key) ? sha256('sha256', key, 'base64url') : null),
    read({ hash, ...rest }) {
      const value = readName('hash', hash)
      const bytes = Buffer.from(value, /^[0-9a-fA-F]{64}$/.test(value) ? 'hex' : 'base64')
      return {
        ...rest,
        format: 'unkey',
        lookup: bytes.toString('base64url'),
        digest: { hash: 'sha256', value },
      }
    },
  }
}
