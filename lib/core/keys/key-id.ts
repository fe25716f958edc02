import { isKeyForId } from '../../internal/key-text.ts'
import { isStorable } from '../../internal/options.ts'
import type { ImportedFormats } from './imported-format.ts'

/** Stores of applications may hold ids of other forms, up to this length. */
const MAX_ID_LENGTH = 255

/** The ids that are given to keys here, at their issue or their import. */
export const ID = /^[A-Za-z0-9_-]{1,64}$/

/**
 * Whether a text may be the id of a key. Ids often come from a client's request: a text that cannot be an id counts as
 * the id of no key. A key's text passed instead of an id stops here too.
 *
 * An imported key that looks like an id cannot be told from one.
 */
export function mayBeId(text: string, formats: ImportedFormats): boolean {
  if (text === '' || text.length > MAX_ID_LENGTH || !isStorable(text) || isKeyForId(text)) return false
  return ID.test(text) || !isImportedKey(text, formats)
}

function isImportedKey(text: string, formats: ImportedFormats): boolean {
  try {
    return formats.lookupsOf(text).length > 0
  } catch {
    // What is wrong with a format is found again, and told, when a key is verified.
    return true
  }
}
