import { crc32 } from 'node:zlib'
import { randomBase62, toBase62 } from '../../internal/base62.ts'
import { fail } from '../../internal/options.ts'

const KEY_ID_LENGTH = 16
const SECRET_LENGTH = 43
const CHECKSUM_LENGTH = 6
const TAIL_LENGTH = KEY_ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH + 2

/** The most characters a prefix may have. */
export const MAX_PREFIX_LENGTH = 32

/** Longer texts are never treated as native keys. */
export const MAX_KEY_LENGTH = MAX_PREFIX_LENGTH + TAIL_LENGTH

/** The allowed prefixes. */
export const PREFIX = /^[A-Za-z](?:[A-Za-z0-9_]{0,30}[A-Za-z0-9])?$/
const KEY_ID = /^[0-9A-Za-z]{16}$/
const TAIL = /^_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}$/

/** What the text of a native key says, before any lookup. */
export interface ParsedKey {
  readonly prefix: string
  /** Public and indexed: it finds the record and proves nothing. */
  readonly keyId: string
}

export interface GeneratedKey extends ParsedKey {
  /** The whole key. Store only its digest. */
  readonly key: string
}

/** A new key: `<prefix>_<keyId>_<secret><checksum>`, 256 bits of secret from the system's secure source. */
export function generateKey(prefix: string, keyId = newKeyId()): GeneratedKey {
  const body = `${prefix}_${keyId}_${randomBase62(SECRET_LENGTH)}`
  return { key: body + checksumOf(body), prefix, keyId }
}

/** A new random identifier, like that of a native key. */
export function newKeyId(): string {
  return randomBase62(KEY_ID_LENGTH)
}

/**
 * Reads a native key from the right, so that the prefix may hold `_`. Returns null for every other shape. It does not
 * check the checksum: see {@link hasRightChecksum}. It takes time bounded by {@link MAX_KEY_LENGTH}.
 */
export function parseKey(key: string): ParsedKey | null {
  const split = key.length - TAIL_LENGTH
  if (split < 1 || split > MAX_PREFIX_LENGTH) return null
  if (!TAIL.test(key.slice(split))) return null
  const claim = claimOf(key)
  return PREFIX.test(claim.prefix) ? claim : null
}

/** What stands where a native key has its id, and its prefix before that. It may be any text: see {@link parseKey}. */
export function claimOf(key: string): ParsedKey {
  const split = key.length - TAIL_LENGTH
  return { prefix: key.slice(0, split), keyId: key.slice(split + 1, split + 1 + KEY_ID_LENGTH) }
}

/** Whether a text in the shape of a key ends in the CRC-32 of everything before it. */
export function hasRightChecksum(key: string): boolean {
  const end = key.length - CHECKSUM_LENGTH
  return checksumOf(key.slice(0, end)) === key.slice(end)
}

/**
 * Requires a usable prefix: 1 to 32 letters, digits and `_`, beginning with a letter and not ending in `_`. With only
 * these, a double click selects a whole key and a scanner's pattern needs no escapes.
 *
 * @throws TypeError naming the option.
 */
export function checkPrefix(name: string, value: unknown): string {
  if (typeof value === 'string' && PREFIX.test(value)) return value
  return fail(
    name,
    `1 to ${MAX_PREFIX_LENGTH} letters, digits and "_", beginning with a letter and not ending in "_"`,
    value,
  )
}

/** Requires an identifier of a native key: 16 base62 characters. @throws TypeError naming the option */
export function checkKeyId(name: string, value: unknown): string {
  if (typeof value === 'string' && KEY_ID.test(value)) return value
  return fail(name, `${KEY_ID_LENGTH} letters and digits`, value)
}

/**
 * Returns a regular expression that finds every key with this prefix in source code and logs, for secret scanners. It
 * uses only RE2 and Hyperscan syntax, so you can register it with GitHub or put it in a gitleaks rule.
 *
 * @throws TypeError when the prefix is not usable.
 * @example
 * secretScanningPattern('acme_live') // '\\bacme_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}\\b'
 */
export function secretScanningPattern(prefix: string): string {
  return `\\b${checkPrefix('prefix', prefix)}_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}\\b`
}

/** CRC-32 as in zlib and PNG (ISO 3309), six base62 characters. It finds typing errors; it proves nothing. */
function checksumOf(body: string): string {
  return toBase62(crc32(body), CHECKSUM_LENGTH)
}
