import { OptionError } from '../../internal/option-error.ts'
import { checkObject, checkOneOf, checkText, fail } from '../../internal/options.ts'

/** The part of a key that an imported digest covers: what follows the first or the last occurrence of a character. */
export type KeyPart =
  | { readonly afterFirst: string; readonly afterLast?: never }
  | { readonly afterLast: string; readonly afterFirst?: never }

/** A digest that another product made of a key. */
export interface ImportedDigest {
  /** `bcrypt` needs the package `bcrypt`. */
  readonly hash: 'sha256' | 'sha512' | 'bcrypt'
  /** Hexadecimal, base64 or base64url; for bcrypt its crypt string, `$2b$10$…`. */
  readonly value: string
  /**
   * Which part of the key the digest covers.
   *
   * @default the whole key
   */
  readonly of?: KeyPart
}

/** What a digest string says about its key. */
export interface ReadCoverage {
  /** The digest string as if it covered a whole key. */
  readonly whole: string
  /** The part of its name that says what it covers; empty for the whole key. */
  readonly coverage: string
}

/*
 * `$<scheme>$…` covers the whole key, `$<scheme>:after-first=<code>$…` what follows the first character of that code, two
 * hexadecimal digits.
 */
const COVERAGE = /^(\$[a-z0-9-]+)(:after-(?:first|last)=[2-7][0-9a-f])(\$[^\n]*)$/
/** A higher cost would keep a core for minutes. */
const CRYPT = /^\$2[aby]\$(?:0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}$/
const SIZES = { sha256: 32, sha512: 64 } as const

/** Takes a digest string apart into its scheme and what it covers. */
export function readCoverage(digest: string): ReadCoverage {
  const [, scheme, coverage, rest] = COVERAGE.exec(digest) ?? []
  return scheme && coverage ? { whole: scheme + rest, coverage } : { whole: digest, coverage: '' }
}

/** The part of a key that is covered; null where the key has no such part. */
export function coveredPart(key: string, coverage: string): string | null {
  if (coverage === '') return key
  const separator = String.fromCharCode(Number.parseInt(coverage.slice(-2), 16))
  const at = coverage.startsWith(':after-first') ? key.indexOf(separator) : key.lastIndexOf(separator)
  return at === -1 ? null : key.slice(at + 1)
}

/**
 * The digest string that a store keeps for a digest made elsewhere.
 *
 * @throws TypeError naming the member, never its value.
 */
export function toDigestString(name: string, given: unknown): string {
  const { hash: givenHash, value, of } = checkObject(name, given, ['hash', 'value', 'of'])
  const hash = checkOneOf(`${name}.hash`, givenHash, ['sha256', 'sha512', 'bcrypt'])
  if (typeof value !== 'string') throw new OptionError(`${name}.value`, 'be a string')
  const text = checkText(`${name}.value`, value, 255)
  const coverage = of === undefined ? '' : coverageOf(`${name}.of`, of)
  if (hash === 'bcrypt') {
    if (!CRYPT.test(text))
      fail(`${name}.value`, 'a bcrypt string such as "$2b$10$…", with a cost from 4 to 16', value)
    return `$bcrypt${coverage}${text}`
  }
  const normal = toBase64url(text, SIZES[hash])
  if (normal === null) {
    fail(`${name}.value`, `${SIZES[hash]} bytes in hexadecimal, base64 or base64url`, value)
  }
  return `$${hash}${coverage}$${normal}`
}

function coverageOf(name: string, value: unknown): string {
  const { afterFirst, afterLast } = checkObject(name, value, ['afterFirst', 'afterLast'])
  const separator = afterFirst ?? afterLast
  const isOne = (afterFirst === undefined) !== (afterLast === undefined)
  if (!isOne || typeof separator !== 'string' || !/^[\x21-\x7e]$/.test(separator)) {
    throw new OptionError(name, 'have either "afterFirst" or "afterLast", one visible ASCII character')
  }
  const code = separator.charCodeAt(0).toString(16)
  return `:after-${afterFirst === undefined ? 'last' : 'first'}=${code}`
}

/** So many bytes, given in hexadecimal, base64 or base64url, as base64url; null where they are not. */
function toBase64url(text: string, size: number): string | null {
  const isHex = text.length === 2 * size && /^[0-9a-fA-F]+$/.test(text)
  if (!isHex && !/^[A-Za-z0-9+/_-]+={0,2}$/.test(text)) return null
  const bytes = Buffer.from(text, isHex ? 'hex' : 'base64')
  if (bytes.length !== size) return null
  const normal = bytes.toString('base64url')
  // What was decoded must be all that was given: stray bits at the end would make two texts one digest.
  const given = text.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')
  return isHex || given === normal ? normal : null
}
