import express from 'express'
import fc from 'fast-check'
import type { LimitState } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import { parseDictionary, parseItem, parseList } from 'structured-headers'
import { describe, expect, it } from 'vitest'
import {
  challenge,
  type RateLimitSyntax,
  rateLimitFields,
  retryAfterField,
} from '../../lib/http/header-fields.ts'
import { INVALID } from '../support/challenges.ts'
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

const PARALLEL: LimitState = {
  type: 'concurrent',
  name: 'parallel',
  limit: 10,
  remaining: 3,
  windowMs: null,
  resetMs: null,
  exceeded: false,
}

const HOUR: LimitState = { ...MINUTE, name: 'hour', limit: 1_000, windowMs: 3_600_000, resetMs: 1_800_000 }
const DAILY_QUOTA: LimitState = {
  ...QUOTA,
  limit: 500,
  remaining: 700,
  resetMs: 43_200_000,
}

/** What a parser of RFC 9651 makes of a field: the name or number of each limit with its parameters. */
function parsed(field = '') {
  return parseList(field).map(([name, parameters]) => [name, Object.fromEntries(parameters)])
}

/** What a client reads of the one limit in fields of drafts 07 and 06; undefined where there is none. */
function nearestIn(fields: Record<string, string>, syntax: 'draft-7' | 'draft-6') {
  const names = Object.keys(fields).filter((name) => name !== 'RateLimit-Policy')
  if (names.length === 0) return undefined
  if (syntax === 'draft-7') {
    expect(names).toEqual(['RateLimit'])
    const members = [...parseDictionary(fields.RateLimit ?? '')]
    for (const [, [, parameters]] of members) expect(parameters.size).toBe(0)
    return Object.fromEntries(members.map(([name, [value]]) => [name, value]))
  }
  expect(names).toEqual(['RateLimit-Limit', 'RateLimit-Remaining', 'RateLimit-Reset'])
  const [limit, remaining, reset] = names.map((name) => {
    const [value, parameters] = parseItem(fields[name] ?? '')
    expect(parameters.size).toBe(0)
    return value
  })
  return { limit, remaining, reset }
}

function withoutPolicy({ 'RateLimit-Policy': _policy, ...rest }: Record<string, string>) {
  return rest
}

const SYNTAXES: RateLimitSyntax[] = ['draft-10', 'draft-7', 'draft-6']
const OLDER = ['draft-7', 'draft-6'] as const

/** Few different numbers, so that limits often agree in one. */
const whole = fc.oneof(fc.nat({ max: 3 }), fc.nat({ max: 1_000_000_000_000 }))
const span = fc.oneof(fc.constantFrom(1, 999, 60_000), fc.integer({ min: 1, max: 3_660 * 86_400_000 }))
const states = fc.array(
  fc.record<LimitState>({
    type: fc.constantFrom('rate_limit', 'quota'),
    name: fc.stringMatching(/^[A-Za-z0-9_-]{1,32}$/),
    limit: fc.option(whole.filter((limit) => limit > 0)),
    remaining: whole,
    windowMs: fc.option(span),
    resetMs: fc.option(span),
    exceeded: fc.boolean(),
  }),
  { minLength: 1, maxLength: 16 },
)

function seconds(ms: number | null): number {
  return Math.ceil((ms ?? 0) / 1000)
}

describe('fields of rate limits', () => {
  it.each([...SYNTAXES, false] as const)('are left out where there are no limits: %s', (syntax) => {
    expect(rateLimitFields([], syntax)).toEqual({})
  })

  it('are left out where no syntax is chosen', () => {
    expect(rateLimitFields([MINUTE, HOUR, QUOTA], false)).toEqual({})
  })

  it.each(SYNTAXES)('never name a window of no seconds: %s', (syntax) => {
    const windowOf = (windowMs: number) =>
      parsed(rateLimitFields([{ ...MINUTE, windowMs }], syntax)['RateLimit-Policy'])[0]?.[1]
    expect(windowOf(1)).toMatchObject({ w: 1 })
    expect(windowOf(2_592_000_000)).toMatchObject({ w: 2_592_000 })
  })
})

describe('RateLimit and RateLimit-Policy of draft 10', () => {
  it('are lists of structured fields', () => {
    const fields = rateLimitFields([MINUTE, QUOTA], 'draft-10')
    expect(parsed(fields.RateLimit)).toEqual([
      ['minute', { r: 99, t: 42 }],
      ['quota', { r: 99 }],
    ])
    expect(parsed(fields['RateLimit-Policy'])).toEqual([['minute', { q: 100, w: 60 }]])
  })

  it('say which limit counts requests under way', () => {
    const fields = rateLimitFields([MINUTE, PARALLEL], 'draft-10')
    expect(parsed(fields.RateLimit)).toEqual([
      ['minute', { r: 99, t: 42 }],
      ['parallel', { r: 3 }],
    ])
    expect(fields['RateLimit-Policy']).toBe('"minute";q=100;w=60, "parallel";q=10;qu="concurrent-requests"')
    const asQuota = { ...PARALLEL, type: 'quota' } as const
    expect(rateLimitFields([MINUTE, asQuota], 'draft-10')['RateLimit-Policy']).not.toContain('qu=')
  })

  it.each(OLDER)('of %s leave it out, and all limits where it refuses', (syntax) => {
    expect(rateLimitFields([MINUTE, PARALLEL], syntax)).toEqual(rateLimitFields([MINUTE], syntax))
    const refused = { ...PARALLEL, remaining: 0, exceeded: true }
    expect(nearestIn(withoutPolicy(rateLimitFields([MINUTE, refused], syntax)), syntax)).toBeUndefined()
  })

  it('say of every limit what they must, to every parser', () => {
    fc.assert(
      fc.property(states, (limits) => {
        const fields = rateLimitFields(limits, 'draft-10')
        expect(parsed(fields.RateLimit)).toEqual(
          limits.map(({ name, remaining, resetMs }) => [
            name,
            { r: remaining, ...(resetMs !== null && { t: seconds(resetMs) }) },
          ]),
        )
        const policies = limits.filter(({ limit }) => limit !== null)
        expect(parsed(fields['RateLimit-Policy'])).toEqual(
          policies.map(({ name, limit, windowMs }) => [
            name,
            { q: limit, ...(windowMs !== null && { w: Math.max(1, Math.round(windowMs / 1000)) }) },
          ]),
        )
        expect('RateLimit-Policy' in fields).toBe(policies.length > 0)
      }),
    )
  })

  it('leave out a policy where only a quota that nothing refills is known', () => {
    expect(rateLimitFields([QUOTA], 'draft-10')).toEqual({ RateLimit: '"quota";r=99' })
  })

  it('come with real limits as a parser expects them', async () => {
    const answer = await answerWithRealLimits('draft-10')
    expect(parsed(answer.header('RateLimit'))).toEqual([
      ['burst', { r: 19, t: 1 }],
      ['per-day', { r: 999_999_999_999, t: 43_200 }],
      ['quota', { r: 999_999_999_999 }],
    ])
    expect(parsed(answer.header('RateLimit-Policy'))).toEqual([
      ['burst', { q: 10, w: 1 }],
      ['per-day', { q: 1_000_000_000_000, w: 86_400 }],
    ])
  })
})

describe.each(OLDER)('fields of %s', (syntax) => {
  const nearestOf = (limits: LimitState[]) => nearestIn(rateLimitFields(limits, syntax), syntax)
  const policiesOf = (limits: LimitState[]) => parsed(rateLimitFields(limits, syntax)['RateLimit-Policy'])

  it('show no limit where a quota that nothing refills refuses, whatever else is left', () => {
    const spent = { ...QUOTA, remaining: 0, exceeded: true }
    expect(rateLimitFields([spent], syntax)).toEqual({})
    expect(rateLimitFields([MINUTE, spent], syntax)).toEqual({ 'RateLimit-Policy': '100;w=60' })
    expect(rateLimitFields([spent, MINUTE], syntax)).toEqual({ 'RateLimit-Policy': '100;w=60' })
  })

  it('pass over a quota that nothing refills, even where it has less left', () => {
    expect(rateLimitFields([QUOTA], syntax)).toEqual({})
    expect(nearestOf([{ ...QUOTA, remaining: 1 }, MINUTE])).toMatchObject({ limit: 100, remaining: 99 })
    expect(policiesOf([QUOTA, MINUTE])).toEqual([[100, { w: 60 }]])
  })

  it('show the limit with the fewest calls left, wherever it stands', () => {
    const spent = { ...HOUR, remaining: 0, exceeded: true }
    const expected = { limit: 1_000, remaining: 0, reset: 1_800 }
    expect(nearestOf([MINUTE, spent])).toEqual(expected)
    expect(nearestOf([spent, MINUTE])).toEqual(expected)
    expect(nearestOf([HOUR, { ...MINUTE, remaining: 98 }])).toMatchObject({ limit: 100, remaining: 98 })
  })

  it('show the one that resets last of limits with as many calls left', () => {
    const expected = { limit: 1_000, remaining: 99, reset: 1_800 }
    expect(nearestOf([MINUTE, HOUR])).toEqual(expected)
    expect(nearestOf([HOUR, MINUTE])).toEqual(expected)
    expect(nearestOf([{ ...MINUTE, resetMs: null }, HOUR])).toEqual(expected)
  })

  it('show a full limit as one that resets now', () => {
    expect(nearestOf([{ ...MINUTE, remaining: 100, resetMs: null }])).toEqual({
      limit: 100,
      remaining: 100,
      reset: 0,
    })
  })

  it('show a quota that is refilled, which has no window and so no policy', () => {
    expect(nearestOf([DAILY_QUOTA])).toEqual({ limit: 500, remaining: 700, reset: 43_200 })
    expect(policiesOf([DAILY_QUOTA])).toEqual([])
    expect(policiesOf([MINUTE, DAILY_QUOTA])).toEqual([[100, { w: 60 }]])
  })

  it('list the windows of all limits, of equal numbers the longest', () => {
    expect(policiesOf([MINUTE, HOUR])).toEqual([
      [100, { w: 60 }],
      [1_000, { w: 3_600 }],
    ])
    const longer = { ...HOUR, limit: 100 }
    expect(policiesOf([MINUTE, longer])).toEqual([[100, { w: 3_600 }]])
    expect(policiesOf([longer, MINUTE])).toEqual([[100, { w: 3_600 }]])
  })

  it('say what they must, to every parser', () => {
    fc.assert(
      fc.property(states, (limits) => {
        const fields = rateLimitFields(limits, syntax)
        const nearest = nearestIn(fields, syntax)
        const numbered = limits.filter(({ limit }) => limit !== null)
        const isHopeless = limits.some(({ limit, exceeded }) => limit === null && exceeded)
        expect(nearest !== undefined).toBe(numbered.length > 0 && !isHopeless)
        if (nearest) {
          expect(Object.keys(nearest)).toEqual(['limit', 'remaining', 'reset'])
          const fewest = Math.min(...numbered.map(({ remaining }) => remaining))
          const last = numbered
            .filter(({ remaining }) => remaining === fewest)
            .sort((one, other) => (other.resetMs ?? 0) - (one.resetMs ?? 0))[0]
          expect(nearest).toEqual({
            limit: last?.limit,
            remaining: fewest,
            reset: seconds(last?.resetMs ?? null),
          })
        }
        const policies = parsed(fields['RateLimit-Policy'])
        const windowed = numbered.filter(({ windowMs }) => windowMs !== null)
        const numbers = [...new Set(windowed.map(({ limit }) => limit))]
        expect(policies).toEqual(
          numbers.map((number) => {
            const windows = windowed
              .filter(({ limit }) => limit === number)
              .map(({ windowMs }) => windowMs ?? 0)
            return [number, { w: Math.max(1, Math.round(Math.max(...windows) / 1000)) }]
          }),
        )
        expect('RateLimit-Policy' in fields).toBe(policies.length > 0)
      }),
    )
  })

  it('come with real limits as a parser expects them', async () => {
    const answer = await answerWithRealLimits(syntax)
    const names = ['RateLimit', 'RateLimit-Limit', 'RateLimit-Remaining', 'RateLimit-Reset']
    const sent = names.flatMap((name) => answer.all(name).map((value) => [name, value]))
    // A bucket's burst goes beyond its number.
    expect(nearestIn(Object.fromEntries(sent), syntax)).toEqual({ limit: 10, remaining: 19, reset: 1 })
    expect(parsed(answer.header('RateLimit-Policy'))).toEqual([
      [10, { w: 1 }],
      [1_000_000_000_000, { w: 86_400 }],
    ])
  })
})

/** The answer to the first request with a key that has limits of several kinds and a quota. */
async function answerWithRealLimits(rateLimitHeaders: RateLimitSyntax) {
  const { keys } = createTestKeys({
    rateLimits: [
      { name: 'burst', limit: 10, windowMs: 1_000, burst: 20 },
      { name: 'per-day', limit: 1_000_000_000_000, per: 'day' },
    ],
  })
  const { key } = await issueKey(keys, { quota: { remaining: 1_000_000_000_000 } })
  const app = express()
  app.use(apiKeyAuth(keys, { rateLimitHeaders }), (_req, res) => void res.end())
  const ask = await serve(app)
  return ask('/', [`X-Api-Key: ${key}`])
}

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
    expect(challenge(['Api-Key'], realm)).toBe(expected)
    // What RFC 9110 §5.6.4 undoes is what was put in.
    expect(expected.slice('Api-Key realm="'.length, -1).replace(/\\(.)/g, '$1')).toBe(realm)
  })

  it('names the error only where a key was sent', () => {
    expect(challenge(['Api-Key', 'Bearer'], 'Users', 'invalid_key')).toBe(INVALID)
  })

  it('reaches the client in one piece', async () => {
    const { keys } = createTestKeys()
    const app = express()
    app.use(apiKeyAuth(keys, { realm: String.raw`"a\b", error="none` }))
    const ask = await serve(app)
    expect((await ask('/')).all('WWW-Authenticate')).toEqual([
      String.raw`Api-Key realm="\"a\\b\", error=\"none", Bearer realm="\"a\\b\", error=\"none"`,
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
