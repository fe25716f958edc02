import express from 'express'
import fc from 'fast-check'
import type { LimitState } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import { parseList } from 'structured-headers'
import { describe, expect, it } from 'vitest'
import {
  challenge,
  rateLimitField,
  rateLimitFields,
  rateLimitPolicyField,
  retryAfterField,
} from '../../lib/http/header-fields.ts'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'

const MINUTE: LimitState = {
  type: 'rate_limit',
  name: 'minute',
  limit: 100,
  remaining: 99,
  windowMs: 60_000,
  resetMs: 41_001,
  exceeded: false,
}
const QUOTA: LimitState = {
  ...MINUTE,
  type: 'quota',
  name: 'quota',
  limit: null,
  windowMs: null,
  resetMs: null,
}

/** What a parser of RFC 9651 makes of a field: the name of each limit with its parameters. */
function parsed(field: string) {
  return parseList(field).map(([name, parameters]) => [name, Object.fromEntries(parameters)])
}

describe('RateLimit and RateLimit-Policy', () => {
  it('are lists of structured fields', () => {
    expect(parsed(rateLimitField([MINUTE, QUOTA]))).toEqual([
      ['minute', { r: 99, t: 42 }],
      ['quota', { r: 99 }],
    ])
    expect(parsed(rateLimitPolicyField([MINUTE, QUOTA]))).toEqual([['minute', { q: 100, w: 60 }]])
  })

  it('say of every limit what they must, to every parser', () => {
    const whole = fc.nat({ max: 1_000_000_000_000 })
    const state: fc.Arbitrary<LimitState> = fc.record({
      type: fc.constantFrom('rate_limit', 'quota'),
      name: fc.stringMatching(/^[A-Za-z0-9_-]{1,32}$/),
      limit: fc.option(whole.filter((limit) => limit > 0)),
      remaining: whole,
      windowMs: fc.option(fc.integer({ min: 1, max: 3_660 * 86_400_000 })),
      resetMs: fc.option(fc.integer({ min: 1, max: 3_660 * 86_400_000 })),
      exceeded: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(state, { minLength: 1, maxLength: 16 }), (limits) => {
        const fields = rateLimitFields(limits)
        expect(parsed(fields.RateLimit ?? '')).toEqual(
          limits.map(({ name, remaining, resetMs }) => [
            name,
            { r: remaining, ...(resetMs !== null && { t: Math.ceil(resetMs / 1000) }) },
          ]),
        )
        const policies = limits.filter(({ limit }) => limit !== null)
        expect(parsed(fields['RateLimit-Policy'] ?? '')).toEqual(
          policies.map(({ name, limit, windowMs }) => [
            name,
            { q: limit, ...(windowMs !== null && { w: Math.max(1, Math.round(windowMs / 1000)) }) },
          ]),
        )
        expect('RateLimit-Policy' in fields).toBe(policies.length > 0)
      }),
    )
  })

  it('are left out where there are no limits', () => {
    expect(rateLimitFields([])).toEqual({})
  })

  it('leave out a policy where only a quota that nothing refills is known', () => {
    expect(rateLimitFields([QUOTA])).toEqual({ RateLimit: '"quota";r=99' })
  })

  it('never name a window of no seconds', () => {
    expect(rateLimitPolicyField([{ ...MINUTE, windowMs: 1 }])).toBe('"minute";q=100;w=1')
    expect(rateLimitPolicyField([{ ...MINUTE, windowMs: 2_592_000_000 }])).toBe('"minute";q=100;w=2592000')
  })

  it('come with real limits as a parser expects them', async () => {
    const { keys } = createTestKeys({
      rateLimits: [
        { name: 'burst', limit: 10, windowMs: 1_000, burst: 20 },
        { name: 'per-day', limit: 1_000_000_000_000, per: 'day' },
      ],
    })
    const { key } = await issueKey(keys, { quota: { remaining: 1_000_000_000_000 } })
    const app = express()
    app.use(apiKeyAuth(keys), (_req, res) => void res.end())
    const ask = await serve(app)
    const answer = await ask('/', [`X-Api-Key: ${key}`])
    expect(parsed(answer.header('RateLimit') ?? '')).toEqual([
      ['burst', { r: 19, t: 1 }],
      ['per-day', { r: 999_999_999_999, t: 43_200 }],
      ['quota', { r: 999_999_999_999 }],
    ])
    expect(parsed(answer.header('RateLimit-Policy') ?? '')).toEqual([
      ['burst', { q: 10, w: 1 }],
      ['per-day', { q: 1_000_000_000_000, w: 86_400 }],
    ])
  })
})

describe('Retry-After', () => {
  it.each([
    [0, '1'],
    [1, '1'],
    [999, '1'],
    [1_000, '1'],
    [1_001, '2'],
    [59_999.5, '60'],
    [86_400_000, '86400'],
  ])('after %d ms is never too early: %s', (retryAfterMs, expected) => {
    expect(retryAfterField(retryAfterMs)).toEqual({ 'Retry-After': expected })
  })

  it('is left out where waiting does not help', () => {
    expect(retryAfterField(null)).toEqual({})
  })
})

describe('a challenge', () => {
  it.each([
    ['Users', 'Api-Key realm="Users"'],
    ['the "inner" circle', String.raw`Api-Key realm="the \"inner\" circle"`],
    [String.raw`a\b`, String.raw`Api-Key realm="a\\b"`],
    [String.raw`ends in \"`, String.raw`Api-Key realm="ends in \\\""`],
  ])('quotes the realm %s', (realm, expected) => {
    expect(challenge('Api-Key', realm)).toBe(expected)
    // What RFC 9110 §5.6.4 undoes is what was put in.
    expect(expected.slice('Api-Key realm="'.length, -1).replace(/\\(.)/g, '$1')).toBe(realm)
  })

  it('names the error only where a key was sent', () => {
    expect(challenge('Api-Key', 'Users', 'invalid_key')).toBe('Api-Key realm="Users", error="invalid_key"')
  })

  it('reaches the client in one piece', async () => {
    const { keys } = createTestKeys()
    const app = express()
    app.use(apiKeyAuth(keys, { realm: String.raw`"a\b", error="none` }))
    const ask = await serve(app)
    expect((await ask('/')).all('WWW-Authenticate')).toEqual([
      String.raw`Api-Key realm="\"a\\b\", error=\"none"`,
    ])
  })

  it.each([
    ['a line break', 'Users\r\nSet-Cookie: a=b'],
    ['a bare line feed', 'Users\n'],
    ['a null', 'Users\0'],
    ['Latin-1', 'Übersicht'],
    ['beyond Latin-1', '利用者'],
  ])('is refused at construction with %s in its realm', (_what, realm) => {
    const { keys } = createTestKeys()
    const message = '"realm" must be printable ASCII'
    expect(() => apiKeyAuth(keys, { realm })).toThrow(new TypeError(message))
    expect(() => new ApiKeyStrategy({ keys, realm })).toThrow(new TypeError(message))
  })

  it.each([
    ['', '"realm" must be a non-empty string, received an empty string'],
    [5, '"realm" must be a non-empty string, received 5'],
    ['x'.repeat(256), '"realm" must be at most 255 characters long'],
  ])('is refused at construction with the realm %j', (realm, message) => {
    const { keys } = createTestKeys()
    expect(() => apiKeyAuth(keys, { realm: realm as string })).toThrow(new TypeError(message))
  })
})
