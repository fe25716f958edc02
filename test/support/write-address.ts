import { isIP } from 'node:net'
import { expect } from 'vitest'

/** An address in its longest form. */
export function writeAddress(value: bigint, bits: number): string {
  const size = bits === 32 ? 8n : 16n
  const fields = Array.from({ length: bits === 32 ? 4 : 8 }, (_, i) => {
    const field = (value >> (BigInt(bits) - size * BigInt(i + 1))) & (2n ** size - 1n)
    return field.toString(bits === 32 ? 10 : 16)
  })
  const text = fields.join(bits === 32 ? '.' : ':')
  expect(isIP(text)).toBe(bits === 32 ? 4 : 6)
  return text
}
