import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileAllowedIps } from '../../lib/core/keys/allowed-ips.ts'
import { addressGroup, readAddress } from '../../lib/core/keys/client-address.ts'
import { writeAddress } from '../support/write-address.ts'

describe('a client’s address', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['192.0.2.1:443', '192.0.2.1'],
    ['192.0.2.1:0', '192.0.2.1'],
    ['192.0.2.1:65535', '192.0.2.1'],
    ['2001:db8::1', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['[2001:db8::1]:51234', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['fe80::1%25', 'fe80::1'],
    ['[fe80::1%eth0.100]:443', 'fe80::1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:192.0.2.1:443', '192.0.2.1'],
    ['[::ffff:192.0.2.1]:443', '192.0.2.1'],
    ['[::ffff:c000:201]', '192.0.2.1'],
    ['0:0:0:0:0:ffff:c000:0201', '192.0.2.1'],
    ['::ffff:192.0.2.1%eth0', '192.0.2.1'],
    // Nobody can tell a port from the last group of an address.
    ['2001:db8::1:443', '2001:db8::1:443'],
    ['::ffff:0:c000:201', '::ffff:0:c000:201'],
  ])('is read in %s', (given, text) => {
    expect(readAddress(given)).toEqual({ text, family: text.includes(':') ? 'ipv6' : 'ipv4' })
  })

  it.each([
    undefined,
    '',
    'unknown',
    'localhost:443',
    '/run/app.sock',
    '192.0.2.1:',
    '192.0.2.1:65536',
    '192.0.2.1:443443',
    '192.0.2.1:-1',
    '192.0.2.1:443:443',
    '192.0.2.256:443',
    '192.0.2.1%eth0',
    '[192.0.2.1]',
    '[192.0.2.1]:443',
    '[]',
    '[::1',
    '::1]',
    '[[::1]]',
    '[::1]443',
    '[::1]:x',
    '[::1] :443',
    '1:2:3:4:5:6:7:8:9',
    'fe80::1%',
    'fe80::1%eth0%eth1',
    'fe80::1%eth 0',
    'fe80::1%eth0\n',
    '192.0.2.1:443\n',
    '192.0.2.1, 198.51.100.1:443',
    `192.0.2.1:${'0'.repeat(200)}443`,
    `[${':'.repeat(100_000)}]:443`,
  ])('is not read in %j', (given) => {
    expect(readAddress(given)).toBeNull()
    expect(compileAllowedIps(['0.0.0.0/0', '::/0'])(given)).toBe(false)
  })

  it('is the same with a port, in brackets, with a zone and mapped', () => {
    const ipv4 = fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value) => writeAddress(value, 32))
    const ipv6 = fc.bigInt({ min: 2n ** 49n, max: 2n ** 128n - 1n }).map((value) => writeAddress(value, 128))
    fc.assert(
      fc.property(ipv4, ipv6, fc.nat(65_535), (four, six, port) => {
        for (const given of [`${four}:${port}`, `::ffff:${four}`, `[::ffff:${four}]:${port}`]) {
          expect(addressGroup(given)).toBe(four)
          expect(compileAllowedIps([four])(given)).toBe(true)
        }
        for (const given of [`[${six}]`, `[${six}]:${port}`, `${six}%eth0`, `[${six}%2]:${port}`]) {
          expect(addressGroup(given)).toBe(addressGroup(six))
          expect(compileAllowedIps([six])(given)).toBe(true)
        }
      }),
    )
  })
})

describe('the addresses that count as one client', () => {
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
    ' 192.0.2.1',
    '192.0.2.1\n',
    '192.0.2.1, 198.51.100.1',
    '192.0.2.0/24',
    '2001:db8::/64',
    '2001:db8::1::',
    '::ffff:192.0.2.256',
    '%eth0',
    '1'.repeat(100_000),
    ':'.repeat(100_000),
  ])('are none where there is no address: %s', (ip) => {
    expect(addressGroup(ip)).toBeNull()
  })

  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    // The IPv4-mapped form is the same address, however it is written.
    ['192.0.2.1', '::ffff:192.0.2.1'],
    ['192.0.2.1', '::FFFF:192.0.2.1'],
    ['192.0.2.1', '::ffff:c000:201'],
    ['192.0.2.1', '0:0:0:0:0:ffff:c000:0201'],
    ['192.0.2.1', '0:0:0:0:0:ffff:192.0.2.1'],
    ['192.0.2.1', '::ffff:192.0.2.1%eth0'],
    // Of an IPv6 address the first 64 bits, however it is written.
    ['2001:db8:0:0::/64', '2001:db8::1'],
    ['2001:db8:0:0::/64', '2001:DB8::'],
    ['2001:db8:0:0::/64', '2001:0db8:0000:0000:ffff:ffff:ffff:ffff'],
    ['2001:db8:0:0::/64', '2001:db8::1:0:0:1'],
    ['2001:db8:0:0::/64', '2001:db8:0:0:1::'],
    ['2001:db8:0:0::/64', '2001:db8::192.0.2.1'],
    ['2001:db8:0:1::/64', '2001:db8:0:1::1'],
    ['2001:db8:1:0::/64', '2001:db8:1::1'],
    ['2001:0:0:1::/64', '2001:0:0:1::1'],
    ['1:2:3:4::/64', '1:2:3:4:5:6:7:8'],
    ['1:2:3:4::/64', '1:2:3:4:5:6:7::'],
    ['0:2:3:4::/64', '::2:3:4:5:6:7:8'],
    ['fe80:0:0:0::/64', 'fe80::1%eth0'],
    ['fe80:0:0:0::/64', 'fe80::2%eth1'],
    ['0:0:0:0::/64', '::'],
    ['0:0:0:0::/64', '::1'],
    ['0:0:0:0::/64', '::192.0.2.1'],
    ['0:0:0:0::/64', '::ffff:0:c000:201'],
    ['64:ff9b:0:0::/64', '64:ff9b::192.0.2.1'],
  ])('are %s where one of them is %s', (group, ip) => {
    expect(addressGroup(ip)).toBe(group)
  })

  it('have an IPv4 address, or the first 64 bits of an IPv6 address, in common and nothing else', () => {
    const ipv4 = fc.bigInt({ min: 0n, max: 2n ** 32n - 1n })
    // Above `::ffff:0:0/96`, where IPv6 addresses stand for nothing else.
    const ipv6 = fc.bigInt({ min: 2n ** 49n, max: 2n ** 128n - 1n })
    fc.assert(
      fc.property(ipv4, ipv6, fc.nat(31), fc.nat(127), (four, six, flip4, flip6) => {
        const group4 = addressGroup(writeAddress(four, 32))
        expect(group4).toBe(writeAddress(four, 32))
        expect(addressGroup(`::ffff:${writeAddress(four, 32)}`)).toBe(group4)
        expect(addressGroup(writeAddress(four ^ (1n << BigInt(flip4)), 32))).not.toBe(group4)
        const group6 = addressGroup(writeAddress(six, 128))
        const other = six ^ (1n << BigInt(flip6))
        if (other < 2n ** 49n) return
        expect(addressGroup(writeAddress(other, 128)) === group6, writeAddress(other, 128)).toBe(flip6 < 64)
      }),
      { numRuns: 1_000 },
    )
  })
})
