import fc from 'fast-check'
import { secretScanningPattern } from 'latchkey'
import { describe, expect, it } from 'vitest'
import {
  checkPrefix,
  generateKey,
  hasRightChecksum,
  MAX_KEY_LENGTH,
  parseKey,
} from '../../lib/core/keys/key-format.ts'
import golden from '../golden/key-format.json' with { type: 'json' }

/** A key of the right shape with the right checksum; null for everything else. */
function readKey(text: string): ReturnType<typeof parseKey> {
  const parsed = parseKey(text)
  return parsed && hasRightChecksum(text) ? parsed : null
}

// fast-check prints its seed with every counterexample.
const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const base62 = (length: number) =>
  fc.string({ unit: fc.constantFrom(...ALPHABET), minLength: length, maxLength: length })
const prefixes = fc.stringMatching(/^[A-Za-z](?:[A-Za-z0-9_]{0,30}[A-Za-z0-9])?$/)
const parts = fc.record({ prefix: prefixes, keyId: base62(16), secret: base62(43) })
const valid = golden.keys[0]?.key as string

describe('what is no key', () => {
  const tail = valid.slice('acme_live'.length)
  const secretStart = 'acme_live_0123456789ABCDEF_'.length
  it.each([
    ['an empty string', ''],
    ['a prefix alone', 'acme_live'],
    ['a key without its prefix', tail.slice(1)],
    ['a key with an empty prefix', tail],
    ['a key cut short by one', valid.slice(0, -1)],
    ['a key with one character more', `${valid}0`],
    ['a key without its checksum', valid.slice(0, -6)],
    ['a space before it', ` ${valid}`],
    ['a space behind it', `${valid} `],
    ['a newline behind it', `${valid}\n`],
    ['a NUL behind it', `${valid}\0`],
    ['a NUL in its secret', `${valid.slice(0, secretStart)}\0${valid.slice(secretStart + 1)}`],
    ['a hyphen for an underscore', valid.replace('_0123', '-0123')],
    ['a letter beyond ASCII in its secret', `${valid.slice(0, -10)}é${valid.slice(-9)}`],
    ['a full-width digit in its key id', valid.replace('_0123', '_\uff10123')],
    ['half a surrogate pair', `${valid.slice(0, -10)}\ud83d${valid.slice(-9)}`],
    ['an accent on its prefix', valid.replace('acme', 'acmé')],
    ['two keys', `${valid},${valid}`],
    ['the same letters in capitals', valid.toUpperCase()],
    ['a JSON Web Token', `eyJhbGciOiJIUzI1NiJ9.${'a'.repeat(40)}.${'b'.repeat(43)}`],
  ])('refuses %s', (_what, text) => {
    expect(readKey(text)).toBeNull()
  })

  it.each(['1acme', '_acme', 'acme_', 'a-b', 'a.b', 'ac me', 'a'.repeat(33)])(
    'refuses a right checksum behind the wrong prefix %j',
    (prefix) => {
      expect(readKey(withChecksum(`${prefix}_${'0'.repeat(16)}_${'0'.repeat(43)}`))).toBeNull()
    },
  )

  it.each([
    ['secret that is too short', `acme_${'0'.repeat(16)}_${'0'.repeat(42)}`],
    ['secret that is too long', `acme_${'0'.repeat(16)}_${'0'.repeat(44)}`],
    ['key id that is too short', `acme_${'0'.repeat(15)}_${'0'.repeat(43)}`],
    ['key id with an underscore', `acme_${'0'.repeat(8)}_${'0'.repeat(7)}_${'0'.repeat(43)}`],
    ['secret with an underscore', `acme_${'0'.repeat(16)}_${'0'.repeat(20)}_${'0'.repeat(22)}`],
  ])('refuses a right checksum over a %s', (_what, body) => {
    expect(readKey(withChecksum(body))).toBeNull()
  })

  it('answers for 100 kB of anything as quickly as for a key', () => {
    const floods = ['_', 'a_', 'a', '\0', 'é', '_0000000000000000', valid].map((unit) =>
      unit.repeat(Math.ceil(100_000 / unit.length)),
    )
    const budgetMs = 1_000
    const start = performance.now()
    for (let i = 0; i < 1_000; i++) floods.forEach(readKey)
    expect(performance.now() - start).toBeLessThan(budgetMs)
    for (const text of floods) expect(readKey(text)).toBeNull()
  })

  it('refuses any text that is not one, and never throws', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ maxLength: 200 }), fc.string({ unit: 'binary' })), (text) => {
        expect(readKey(text)).toBeNull()
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('the checksum', () => {
  it('finds every single wrong character', () => {
    for (const at of valid.split('').keys()) {
      for (const char of `${ALPHABET}_`) {
        if (char === valid[at]) continue
        expect(readKey(valid.slice(0, at) + char + valid.slice(at + 1)), `${char} at ${at}`).toBeNull()
      }
    }
  })

  it('finds every single wrong character and every swap of neighbours, in any key', () => {
    const wrong = fc.record({ at: fc.nat({ max: 200 }), char: fc.constantFrom(...ALPHABET) })
    fc.assert(
      fc.property(parts, wrong, ({ prefix, keyId, secret }, { at, char }) => {
        const key = withChecksum(`${prefix}_${keyId}_${secret}`)
        const i = at % (key.length - 1)
        const changed = key.slice(0, i) + char + key.slice(i + 1)
        const swapped = key.slice(0, i) + key[i + 1] + key[i] + key.slice(i + 2)
        for (const text of [changed, swapped]) if (text !== key) expect(readKey(text)).toBeNull()
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('a key', () => {
  it('is read from the right, whatever underscores its prefix holds', () => {
    fc.assert(
      fc.property(parts, ({ prefix, keyId, secret }) => {
        expect(readKey(withChecksum(`${prefix}_${keyId}_${secret}`))).toEqual({ prefix, keyId })
      }),
      { numRuns: 1_000 },
    )
  })

  it('is read from the right where the prefix looks like a key id itself', () => {
    const prefix = 'a_0123456789ABCDEF_0123456789ABC'
    const { key, keyId } = generateKey(prefix)
    expect(readKey(key)).toEqual({ prefix, keyId })
  })

  it.each(['a', 'acme_live', 'sk_test_eu_1', `A${'_'.repeat(30)}9`])(
    'is generated for the prefix %s',
    (p) => {
      const { key, keyId, prefix } = generateKey(p)
      expect(prefix).toBe(p)
      expect(key).toMatch(new RegExp(`^${p}_${keyId}_[0-9A-Za-z]{49}$`))
      expect(keyId).toMatch(/^[0-9A-Za-z]{16}$/)
      expect(key.length).toBeLessThanOrEqual(MAX_KEY_LENGTH)
      expect(withChecksum(key.slice(0, -6))).toBe(key)
      expect(readKey(key)).toEqual({ prefix: p, keyId })
    },
  )

  it('is drawn evenly from all 62 characters', () => {
    const counts = new Map<string, number>()
    const keys = 3_000
    for (let i = 0; i < keys; i++) {
      for (const char of generateKey('a').key.slice(2, -6).replace('_', '')) {
        counts.set(char, (counts.get(char) ?? 0) + 1)
      }
    }
    const expected = (keys * 59) / 62
    expect(counts.size).toBe(62)
    // Eight standard deviations: a bias of one part in seven would be seen, chance never is.
    for (const [char, count] of counts) {
      expect(Math.abs(count - expected), char).toBeLessThan(8 * Math.sqrt(expected))
    }
  })

  it('is never made twice', () => {
    const keys = Array.from({ length: 5_000 }, () => generateKey('acme'))
    expect(new Set(keys.map(({ keyId }) => keyId)).size).toBe(keys.length)
    expect(new Set(keys.map(({ key }) => key.slice(-49, -6))).size).toBe(keys.length)
  })

  it.each(golden.keys)('keeps the format that was released: $key', ({ key, prefix, keyId, checksum }) => {
    expect(readKey(key)).toEqual({ prefix, keyId })
    expect(key.endsWith(checksum)).toBe(true)
    expect(withChecksum(key.slice(0, -6))).toBe(key)
  })
})

describe('a prefix', () => {
  it.each([
    ['empty', ''],
    ['with a digit in front', '1a'],
    ['with an underscore in front', '_a'],
    ['with an underscore behind', 'a_'],
    ['with a hyphen', 'a-b'],
    ['with a dot', 'a.b'],
    ['with a space', 'a b'],
    ['with a newline behind', 'a\n'],
    ['with a letter beyond ASCII', 'é'],
    ['of 33 characters', 'a'.repeat(33)],
    ['of 100 kB', 'a_'.repeat(50_000)],
    ['that is no string', 7],
    ['that is an array of one', ['acme']],
    ['that is missing', undefined],
  ])('is refused %s, by name and without its text', (_what, value) => {
    expect(() => checkPrefix('prefix', value)).toThrow(
      /^"prefix" must be 1 to 32 letters, digits and "_", beginning with a letter and not ending in "_", received (7|an array|undefined|an empty string|a string)$/,
    )
    expect(() => secretScanningPattern(value as string)).toThrow(TypeError)
  })

  it.each(['a', 'Z', 'a1', 'acme__live', 'a'.repeat(32)])('may be %s', (prefix) => {
    expect(checkPrefix('prefix', prefix)).toBe(prefix)
  })
})

describe('the secret-scanning pattern', () => {
  it('is the documented one', () => {
    expect(secretScanningPattern('acme_live')).toBe('\\bacme_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}\\b')
  })

  it.each([
    ['a key with a longer prefix', (key: string) => `my_${key}`],
    ['a key glued to a word', (key: string) => `x${key}`],
    ['a key that goes on', (key: string) => `${key}0`],
    ['a key that goes on with an underscore', (key: string) => `${key}_`],
    ['a key of another prefix', () => generateKey('acme_test').key],
    ['a key of a prefix that begins the same', () => generateKey('acme_live_eu').key],
    ['a hint', (key: string) => key.slice(0, 'acme_live_'.length + 16)],
  ])('passes by %s', (_what, toText) => {
    expect(toText(generateKey('acme_live').key)).not.toMatch(new RegExp(secretScanningPattern('acme_live')))
  })

  it('finds every key in the text around it, and nothing else', () => {
    const separators = fc.constantFrom(' ', '\n', '"', "'", '=', ',', ':', '-', '(', '/', '.')
    fc.assert(
      fc.property(
        prefixes,
        fc.array(fc.tuple(base62(16), base62(43), separators), { minLength: 1 }),
        (p, list) => {
          const keys = list.map(([keyId, secret]) => withChecksum(`${p}_${keyId}_${secret}`))
          const text = list.map(([, , separator], i) => `${separator}${keys[i]}`).join('')
          expect(text.match(new RegExp(secretScanningPattern(p), 'g'))).toEqual(keys)
        },
      ),
    )
  })
})

/** The checksum as the format states it, computed bit by bit: ISO 3309, in base62, six characters. */
function withChecksum(body: string): string {
  let crc = 0xffffffff
  for (const byte of Buffer.from(body)) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  }
  let rest = BigInt((crc ^ 0xffffffff) >>> 0)
  let text = ''
  for (let i = 0; i < 6; i++, rest /= 62n) text = ALPHABET[Number(rest % 62n)] + text
  return body + text
}
