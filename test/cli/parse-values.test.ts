import { describe, expect, it } from 'vitest'
import {
  parseAllowedIps,
  parseDuration,
  parseEnd,
  parseInteger,
  parseMoment,
  parseOwner,
  parsePermissions,
  parseQuota,
  parseRateLimits,
} from '../../lib/cli/parse-values.ts'

const NOW = Date.UTC(2026, 10, 30)

describe('what is not understood', () => {
  it.each<[string, () => unknown]>([
    ['a duration without a unit', () => parseDuration('--x', '90')],
    ['a negative duration', () => parseDuration('--x', '-5m')],
    ['a day that is none', () => parseMoment('--x', '2027-02-29', NOW)],
    ['a moment without a zone', () => parseMoment('--x', '2027-01-31T10:00', NOW)],
    ['another way to write a date', () => parseMoment('--x', 'Jan 31 2027', NOW)],
    ['an hour that is none', () => parseMoment('--x', '2027-01-31T25:00Z', NOW)],
    ['an owner without an id', () => parseOwner('--x', 'user:')],
    ['an owner without a type', () => parseOwner('--x', ':u')],
    ['permissions without actions', () => parsePermissions('--x', ['projects'])],
    ['a limit without a name', () => parseRateLimits('--x', ['100/1m'])],
    ['a limit per year', () => parseRateLimits('--x', ['a=1/year'])],
    ['half of a limit as JSON', () => parseRateLimits('--x', ['{"name":'])],
    ['a quota of words', () => parseQuota('--x', 'many')],
    ['a number with a point', () => parseInteger('--x', '1.5', 1, 10)],
    ['a number beyond its bounds', () => parseInteger('--x', '11', 1, 10)],
  ])('is refused with the name of the option: %s', (_what, parse) => {
    expect(parse).toThrow(/^--x takes /)
  })
})

describe('what is understood', () => {
  it('is a duration', () => {
    const durations = ['500ms', '30s', '15m', '24h', '90d', '2w', '0s'].map((text) =>
      parseDuration('--x', text),
    )
    expect(durations).toEqual([500, 30_000, 900_000, 86_400_000, 7_776_000_000, 1_209_600_000, 0])
  })

  it('is a moment', () => {
    expect(parseMoment('--x', '1d', NOW)).toEqual(new Date(NOW + 86_400_000))
    expect(parseMoment('--x', '2027-01-31', NOW)).toEqual(new Date('2027-01-31T00:00:00Z'))
    expect(parseMoment('--x', '2027-01-31T18:00+02:00', NOW)).toEqual(new Date('2027-01-31T16:00:00Z'))
    expect(parseEnd('--x', 'never', NOW)).toBeNull()
  })

  it('is an owner, whose id may hold colons', () => {
    expect(parseOwner('--x', 'user:a:b')).toEqual({ type: 'user', id: 'a:b' })
  })

  it('are permissions, also of resources that objects have by nature', () => {
    const permissions = parsePermissions('--x', ['a:read', '__proto__:read', 'a:write,read'])
    expect(Object.entries(permissions)).toEqual([
      ['a', ['read', 'write']],
      ['__proto__', ['read']],
    ])
    expect(parsePermissions('--x', ['none'])).toEqual({})
  })

  it('are limits and quotas', () => {
    expect(parseRateLimits('--x', ['a=5/10s', 'b=9/month', '{"name":"c","concurrent":3}'])).toEqual([
      { name: 'a', limit: 5, windowMs: 10_000 },
      { name: 'b', limit: 9, per: 'month' },
      { name: 'c', concurrent: 3 },
    ])
    expect([parseRateLimits('--x', ['none']), parseRateLimits('--x', ['default'])]).toEqual([[], null])
    expect(parseQuota('--x', '5')).toEqual({ remaining: 5 })
    expect(parseQuota('--x', '5/1h')).toEqual({ remaining: 5, refill: { amount: 5, everyMs: 3_600_000 } })
    expect(parseQuota('--x', 'unlimited')).toBeNull()
    expect([parseAllowedIps(['any']), parseAllowedIps(['::1'])]).toEqual([null, ['::1']])
  })
})
