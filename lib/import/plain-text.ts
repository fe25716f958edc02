import { hash as sha256 } from 'node:crypto'
import { checkShape, type ImportFormat } from '../core/keys/imported-format.ts'
import type { ImportedKey } from '../core/keys/imported-key.ts'
import { checkObject } from '../internal/options.ts'
import { readName } from './read-column.ts'

/** A row of a table that keeps keys as they are. */
export type PlainTextRow = Omit<ImportedKey, 'format' | 'lookup' | 'digest' | 'key'> & { key: string }

export interface PlainTextFormatOptions {
  /**
   * What such a key looks like, the whole of it.
   *
   * @default 16 to 255 letters, digits, `_` and `-`
   */
  shape?: RegExp
}

/**
 * Keys of a table that keeps their text. They are found by their SHA-256 and their text is not stored: the old table can
 * go. A key that can be guessed can be guessed from its SHA-256 too: have such keys rotated.
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
