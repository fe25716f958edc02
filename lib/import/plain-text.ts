import { hash as sha256 } from 'node:crypto'
import { checkShape, type ImportFormat } from '../core/keys/imported-format.ts'
import type { ImportedKey } from '../core/keys/imported-key.ts'
import { checkObject } from '../internal/options.ts'
import { readName } from './read-column.ts'

/** A row of a table that stores keys as plain text. */
export type PlainTextRow = Omit<ImportedKey, 'format' | 'lookup' | 'digest' | 'key'> & { key: string }

export interface PlainTextFormatOptions {
  /**
   * Matches a whole key.
   *
   * @default 16 to 255 letters, digits, `_` and `-`
   */
  shape?: RegExp
}

/**
 * Imports keys from a table that stores their text. Latchkey finds them by their SHA-256 and does not store their text,
 * so you can drop the old table. A guessable key can be guessed from its SHA-256 too: rotate such keys.
 */
export function plainTextFormat(options: PlainTextFormatOptions = {}): ImportFormat<PlainTextRow> {
  checkObject('options', options, ['shape'])
  const { shape = /^[A-Za-z0-9_-]{16,255}$/ } = options
  checkShape('shape', shape)
  return {
    name: 'plain-text',
    lookup: (key) => (shape.test(key) ? sha256('sha256', key, 'base64url') : null),
    read: ({ key, ...rest }) => ({ ...rest, format: 'plain-text', key: readName('key', key) }),
  }
}
