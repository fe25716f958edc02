/**
 * The text of a key in the wrong place: as an id, as a name, as the name of a member. It is a secret wherever it stands, and so it
 * is kept out of stores, answers, messages and events.
 */

const MAX_PREFIX_LENGTH = 32
/** From the `_` before the id to the end; the prefix stands before it. One may begin within what looks like another. */
const TAIL = /(?=(_[0-9A-Za-z]{16}_[0-9A-Za-z]{49})(?![0-9A-Za-z]))/g
const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/**
 * Whether a text has a whole key in it, with its checksum: what only looks like one has not, be it an id of somebody's. Look at the
 * length of a text first: a long one that is made for it takes long.
 */
export function holdsKey(text: string): boolean {
  for (const { index, 1: tail = '' } of text.matchAll(TAIL)) {
    const end = index + tail.length
    for (let start = Math.max(0, index - MAX_PREFIX_LENGTH); start < index; start += 1) {
      if (hasChecksum(text.slice(start, end))) return true
    }
  }
  return false
}

/** The secret of a key, cut off or mistyped as it may be, behind its id. */
const ID_AND_SECRET = /(?<![0-9A-Za-z])[0-9A-Za-z]{16}_[0-9A-Za-z]{43}/
/** Ids of keys are shorter than any key. */
const MAX_ID_LENGTH = 64

/** Whether what is given as the id of a key has the shape of the key itself. */
export function isKeyForId(id: string): boolean {
  return id.length > MAX_ID_LENGTH && ID_AND_SECRET.test(id)
}

const NAME = /^[A-Za-z_$][\w$-]{0,63}$/
/** What is left of a key that was cut to the length of a name, and what most keys of others are: no word is as long. */
const KEY_PART = /[0-9A-Za-z]{16}_[0-9A-Za-z]{16}|[0-9A-Za-z]{32}/

/** Whether a name that nobody knows may be repeated: one that looks like the name of a member, and not like a key. */
export function looksLikeName(name: string): boolean {
  return NAME.test(name) && !KEY_PART.test(name)
}

/** `projects` of `permissions` is `permissions.projects`; where the name must not be shown, it is `permissions`. */
export function memberPath(path: string, name: string): string {
  if (!looksLikeName(name)) return path
  return path === '' ? name : `${path}.${name}`
}

/** `checksumOf` of the format of keys, in plain JavaScript: browsers load this. */
function hasChecksum(key: string): boolean {
  const end = key.length - 6
  let given = 0
  for (const digit of key.slice(end)) given = given * 62 + DIGITS.indexOf(digit)
  return given === crc32(key.slice(0, end))
}

/** CRC-32 as in zlib (ISO 3309), of a text in UTF-8. */
function crc32(text: string): number {
  let crc = -1
  for (const byte of new TextEncoder().encode(text)) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  return ~crc >>> 0
}
