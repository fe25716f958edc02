import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkAllowedIps, compileAllowedIps } from '../../lib/core/keys/allowed-ips.ts'
import { writeAddress as write } from '../support/write-address.ts'

const allows = (rules: string[], ip: string | undefined) => compileAllowedIps(rules)(ip)

describe('an address that is not in the list', () => {
  it.each([
    [[], '192.0.2.1'],
    [['192.0.2.1'], '192.0.2.2'],
    [['192.0.2.1/32'], '192.0.2.0'],
    [['192.0.2.0/24'], '192.0.3.0'],
    [['192.0.2.128/25'], '192.0.2.127'],
    [['10.0.0.0/7'], '12.0.0.0'],
    [['0.0.0.0/0'], '2001:db8::1'],
    [['0.0.0.0/0'], '::1'],
    [['0.0.0.0/0'], '::192.0.2.1'],
    [['2001:db8::/32'], '2001:db9::'],
    [['2001:db8::/33'], '2001:db8:8000::'],
    [['2001:db8::1'], '2001:db8::2'],
    [['2001:db8::/64'], '192.0.2.1'],
    [['::192.0.2.1'], '192.0.2.1'],
    [['::ffff:192.0.2.0/120'], '192.0.3.1'],
    [['::ffff:192.0.2.1'], '::ffff:192.0.2.2'],
    [['fe80::1'], 'fe80::2%eth0'],
    [['64:ff9b::/96'], '192.0.2.1'],
  ])('is refused: %j does not hold %s', (rules, ip) => {
    expect(allows(rules, ip)).toBe(false)
  })

  it.each([
    undefined,
    '',
    ' ',
    'unknown',
    'localhost',
    '192.0.2',
    '192.0.2.256',
    '0300.0.2.1',
    '3221225985',
    '0xc0000201',
    ' 192.0.2.1',
    '192.0.2.1 ',
    '192.0.2.1\n',
    '192.0.2.1\0',
    '192.0.2.1, 198.51.100.1',
    '192.0.2.0/24',
    '::ffff:192.0.2.256',
    '::ffff:',
    ':::',
    '%eth0',
    '1'.repeat(100_000),
    ':'.repeat(100_000),
  ])('is refused where it is none, even by a list of everything', (ip) => {
    expect(allows(['0.0.0.0/0', '::/0'], ip)).toBe(false)
  })
})

describe('an address that is in the list', () => {
  it.each([
    [['192.0.2.1'], '192.0.2.1'],
    [['192.0.2.1/32'], '192.0.2.1'],
    [['192.0.2.77/24'], '192.0.2.1'],
    [['192.0.2.128/25'], '192.0.2.128'],
    [['10.0.0.0/7'], '11.255.255.255'],
    [['0.0.0.0/0'], '255.255.255.255'],
    [['0.0.0.0/0'], '0.0.0.0'],
    [['0.0.0.0/0'], '::ffff:192.0.2.1'],
    [['::/0'], '2001:db8::1'],
    [['::/0'], '::'],
    [['2001:DB8::/33'], '2001:db8:7fff::'],
    [['2001:db8:0:0::1'], '2001:0db8::0:1'],
    [['2001:db8::1/128'], '2001:DB8::1'],
    [['198.51.100.0/24', '192.0.2.1', '2001:db8::/32'], '2001:db8::9'],
    [['fe80::/10'], 'fe80::1%eth0'],
    [['fe80::1'], 'fe80::1%25'],
    // The IPv4-mapped form is the same address, on either side and however it is written.
    [['192.0.2.1'], '::ffff:192.0.2.1'],
    [['192.0.2.0/24'], '::FFFF:192.0.2.99'],
    [['192.0.2.1'], '::ffff:c000:201'],
    [['192.0.2.1'], '0:0:0:0:0:ffff:c000:0201'],
    [['192.0.2.1'], '0:0:0:0:0:ffff:192.0.2.1'],
    [['192.0.2.1'], '::ffff:192.0.2.1%eth0'],
    [['::ffff:192.0.2.1'], '192.0.2.1'],
    [['::ffff:c000:201'], '192.0.2.1'],
    [['::ffff:192.0.2.0/120'], '192.0.2.200'],
    [['::ffff:c000:200/120'], '::ffff:192.0.2.200'],
    [['::ffff:0.0.0.0/96'], '192.0.2.1'],
    [['::ffff:0:0/96'], '192.0.2.1'],
  ])('is accepted: %j holds %s', (rules, ip) => {
    expect(allows(rules, ip)).toBe(true)
  })

  it('is accepted for every block as arithmetic says, and for no other', () => {
    const address = fc.oneof(
      fc.record({ bits: fc.constant(32), value: fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }) }),
      // Above `::ffff:0:0/96`, where IPv6 addresses stand for nothing else.
      fc.record({ bits: fc.constant(128), value: fc.bigInt({ min: 2n ** 49n, max: 2n ** 128n - 1n }) }),
    )
    fc.assert(
      fc.property(address, fc.nat(128), fc.nat(128), ({ bits, value }, lengthSeed, flipSeed) => {
        const length = lengthSeed % (bits + 1)
        const flipped = flipSeed % bits
        const other = value ^ (1n << BigInt(bits - 1 - flipped))
        const rule = [`${write(value, bits)}/${length}`]
        expect(allows(rule, write(value, bits))).toBe(true)
        if (bits === 32 || other >= 2n ** 49n) {
          expect(allows(rule, write(other, bits)), `${rule} ${write(other, bits)}`).toBe(flipped >= length)
        }
        if (bits === 32) expect(allows(rule, `::ffff:${write(other, 32)}`)).toBe(flipped >= length)
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('a list', () => {
  it.each<[string, unknown, string]>([
    ['is no array', '192.0.2.1', '"allowedIps" must be an array, received a string'],
    ['is an object', {}, '"allowedIps" must be an array, received an object'],
    ['has too many entries', Array(257).fill('::1'), '"allowedIps" must have at most 256 entries'],
    ['holds no text', [7], '"allowedIps[0]" must be an IP address or a CIDR block, received 7'],
    ['holds a hole', Array(1), '"allowedIps[0]" must be'],
    ['is wrong further on', ['::1', 'x'], '"allowedIps[1]" must be'],
    ...[
      '',
      'example.org',
      '192.0.2',
      '192.0.2.256',
      '192.0.2.0/33',
      '192.0.2.0/-1',
      '192.0.2.0/',
      '192.0.2.0/ 8',
      '192.0.2.0/+8',
      '192.0.2.0/1e1',
      '192.0.2.0/0x8',
      '192.0.2.0/8.0',
      '192.0.2.0/0008',
      '192.0.2.0/24/24',
      '192.0.2.0/255.255.255.0',
      '/24',
      '192.0.2.*',
      '192.0.2.1-192.0.2.9',
      ' 192.0.2.1',
      '192.0.2.1\n',
      '2001:db8::/129',
      '2001:db8::1::',
      '[2001:db8::1]',
      'fe80::1%eth0',
      'fe80::%eth0/10',
      '::ffff:192.0.2.1/95',
      '1'.repeat(100_000),
    ].map(
      (text) =>
        [`holds ${JSON.stringify(text.slice(0, 30))}`, [text], '"allowedIps[0]" must be'] as [
          string,
          unknown,
          string,
        ],
    ),
  ])('is refused where it %s, without the text', (_what, value, message) => {
    expect(() => checkAllowedIps('allowedIps', value)).toThrow(TypeError)
    expect(() => checkAllowedIps('allowedIps', value)).toThrow(message)
    expect(() => checkAllowedIps('allowedIps', value)).not.toThrow(/example|::1|192\.0/)
  })

  it('is copied as it was written', () => {
    const given = ['192.0.2.0/24', '2001:DB8::/32', '::ffff:192.0.2.1', '0.0.0.0/0', '::/0']
    const copy = checkAllowedIps('allowedIps', given)
    expect(copy).toEqual(given)
    expect(copy).not.toBe(given)
    expect(checkAllowedIps('allowedIps', [])).toEqual([])
  })

  it.each(['everyone', '*', '0.0.0.0/', '::/0/0'])('that a store has spoilt with %j is an error', (rule) => {
    expect(() => allows(['192.0.2.1', rule], '192.0.2.1')).toThrow(TypeError)
  })
})
