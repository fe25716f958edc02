import { isRegExp } from '../../internal/any-realm.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkArray, checkFunction, describe, fail } from '../../internal/options.ts'
import type { ImportedKey } from './imported-key.ts'
import type { KeyRecord } from './record.ts'

/**
 * Recognises the keys of another product and finds their records. Imported keys keep their text, so their holders
 * notice nothing.
 *
 * @example
 * // Keys of a table that was searched by their first eight characters.
 * const legacy: KeyFormat = { name: 'legacy', lookup: (key) => (/^[a-z0-9]{40}$/.test(key) ? key.slice(0, 8) : null) }
 */
export interface KeyFormat {
  /**
   * 1 to 32 lower-case letters, digits and `-`, beginning with a letter. It is stored with every imported key: never
   * rename it or use it for another format.
   */
  readonly name: string
  /**
   * Returns the text that finds this key's record, 1 to 200 characters; null if the key does not have this format. It
   * receives every presented text that is neither a native key nor a JWT, before any I/O: test the whole shape, so that
   * it ignores other tokens. The result must be unique for each key and must never change. It need not be secret.
   */
  lookup(key: string): string | null
}

/** A format that also reads the rows of the product's own table. */
export interface ImportFormat<Row> extends KeyFormat {
  /**
   * Turns a row into an argument for `keys.import`. It never guesses: anything it cannot carry over is an error.
   *
   * @throws TypeError naming the column.
   */
  read(row: Row): ImportedKey
}

/** Longer texts are never treated as imported keys. */
export const MAX_FOREIGN_KEY_LENGTH = 512
const MAX_LOOKUP_LENGTH = 200
const NAME = /^[a-z][a-z0-9-]{0,31}$/
/** Characters that a header field can carry and trimming keeps. */
const VISIBLE = /^[\x21-\x7e]+$/
/** JWS and JWE in their compact form (RFC 7515 §7.1, RFC 7516 §7.1). They begin with an encoded JSON object. */
const JWT = /^eyJ[\w-]*(?:\.[\w-]*){2,4}$/

export interface ImportedFormats {
  readonly names: readonly string[]
  /** The lookups that may find a presented key, from each format that recognises its shape. */
  lookupsOf(key: string): readonly string[]
  /** Whether a text has the shape of an imported key. */
  recognises(text: string): boolean
  /** The lookup that one format derives; null if the key does not have its shape. */
  lookupBy(name: string, key: string): string | null
}

/** @throws TypeError naming the option. */
export function compileFormats(option: string, value: unknown): ImportedFormats {
  const formats = new Map<string, KeyFormat>()
  for (const [i, entry] of checkArray(option, value, 32).entries()) {
    const path = `${option}[${i}]`
    if (typeof entry !== 'object' || entry === null) fail(path, 'a format', entry)
    const { name, lookup } = entry as Partial<KeyFormat>
    if (typeof name !== 'string' || !NAME.test(name)) {
      fail(`${path}.name`, '1 to 32 lower-case letters, digits and "-", beginning with a letter', name)
    }
    if (formats.has(name)) throw new OptionError(`${path}.name`, 'be unique among the formats')
    checkFunction(`${path}.lookup`, lookup)
    formats.set(name, entry as KeyFormat)
  }

  function lookupsOf(key: string): readonly string[] {
    if (formats.size === 0 || key.length > MAX_FOREIGN_KEY_LENGTH || !VISIBLE.test(key) || JWT.test(key))
      return []
    return [...formats.values()].flatMap((format) => lookupOf(format, key) ?? [])
  }

  return {
    names: [...formats.keys()],
    lookupsOf,
    recognises(text) {
      try {
        return lookupsOf(text).length > 0
      } catch {
        // What is wrong with a format is found again, and told, when the key is verified.
        return true
      }
    },
    lookupBy(name, key) {
      const format = formats.get(name)
      return format && key.length <= MAX_FOREIGN_KEY_LENGTH && VISIBLE.test(key)
        ? lookupOf(format, key)
        : null
    },
  }
}

/** Makes the lookup of a record from what a format derives. @throws TypeError when no format could have derived it. */
export function importedLookup(format: string, value: unknown): string {
  if (typeof value !== 'string' || !isLookup(value)) {
    throw new OptionError('lookup', `be 1 to ${MAX_LOOKUP_LENGTH} visible ASCII characters`)
  }
  return `${format}:${value}`
}

/** Requires a pattern that gives the same answer each time. @throws TypeError */
export function checkShape(name: string, value: unknown): void {
  if (isRegExp(value) && !value.global && !value.sticky) return
  throw new OptionError(name, 'be a regular expression without the flags "g" and "y"')
}

/** Whether a record belongs to an imported key. The lookup of a native key is its id, which has no `:`. */
export function isImported({ lookup }: Pick<KeyRecord, 'lookup'>): boolean {
  return lookup.includes(':')
}

function lookupOf(format: KeyFormat, key: string): string | null {
  const value: unknown = format.lookup(key)
  if (value === null) return null
  if (typeof value !== 'string') {
    throw new TypeError(
      `the format "${format.name}" must return a string or null, received ${describe(value)}`,
    )
  }
  // What no imported key can have finds none.
  return isLookup(value) ? `${format.name}:${value}` : null
}

function isLookup(value: string): boolean {
  return value.length <= MAX_LOOKUP_LENGTH && VISIBLE.test(value)
}
