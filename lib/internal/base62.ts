import { randomBytes } from 'node:crypto'

/** Digits, then upper case, then lower case: the order of ASCII. */
const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** The largest multiple of 62 in a byte: above it, a remainder would favour the first characters. */
const FAIR = 248

/** `length` characters, each drawn evenly from the base62 alphabet by the system's secure source. */
export function randomBase62(length: number): string {
  let text = ''
  while (text.length < length) {
    for (const byte of randomBytes(length - text.length + 16)) {
      if (byte < FAIR && text.length < length) text += ALPHABET[byte % 62]
    }
  }
  return text
}

/** A non-negative integer in base62, padded with `0` on the left to `width` characters. */
export function toBase62(value: number, width: number): string {
  let text = ''
  for (let rest = value; rest > 0; rest = Math.floor(rest / 62)) text = ALPHABET[rest % 62] + text
  return text.padStart(width, '0')
}
