import { randomBytes } from 'node:crypto'

/** Digits, then upper case, then lower case: the order of ASCII. */
const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** The largest multiple of 62 in a byte: above it, a remainder would favour the first characters. */
const FAIR = 248
const POOL_SIZE = 4_096

/** `length` characters, each drawn evenly from the base62 alphabet by the system's secure source. */
export function randomBase62(length: number): string {
  let text = ''
  while (text.length < length) {
    const byte = randomByte()
    if (byte < FAIR) text += ALPHABET[byte % 62]
  }
  return text
}

/** Fetched ahead, since each call of the system costs as much as a thousand bytes. What was drawn does not stay. */
let pool = Buffer.alloc(0)
let drawn = 0

function randomByte(): number {
  if (drawn === pool.length) {
    pool = randomBytes(POOL_SIZE)
    drawn = 0
  }
  const byte = pool[drawn] as number
  pool[drawn] = 0
  drawn += 1
  return byte
}

/** A non-negative integer in base62, padded with `0` on the left to `width` characters. */
export function toBase62(value: number, width: number): string {
  let text = ''
  for (let rest = value; rest > 0; rest = Math.floor(rest / 62)) text = ALPHABET[rest % 62] + text
  return text.padStart(width, '0')
}

/** The last `width` digits of an integer of any size. */
export function lastBase62(value: bigint, width: number): string {
  let text = ''
  for (let rest = value; text.length < width; rest /= 62n) text = ALPHABET[Number(rest % 62n)] + text
  return text
}
