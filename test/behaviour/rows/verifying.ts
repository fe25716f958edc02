import { exceeds } from '../../support/problem-types.ts'
import { BOB } from '../../support/test-keys.ts'
import {
  BY_KEY,
  BY_SESSION,
  COLD,
  guardRefuses,
  NO_IO,
  NOBODY,
  passes,
  problem,
  refuses,
  WARM,
} from '../expected.ts'
import type { Given } from '../givens.ts'
import type { Row, Step } from '../row.ts'

const KEY = ['X-Api-Key: <key>']
const LOOKED_UP = { store: ['find'], limiter: [] }
const KNOWN: Given = 'the key is cached'
const MINUTE = { name: 'minute', limit: 1, windowMs: 60_000 }
const BY_BEARER = { fields: { 'WWW-Authenticate': 'Bearer realm="Users"' } }
const LOOM = 'Api-Key realm="the \\"loom\\"", Bearer realm="the \\"loom\\""'
const DAY = { name: 'day', limit: 10, per: 'day' } as const

function ask(lines: readonly string[], expect: Step['expect']): Step[] {
  return [{ ask: { lines }, expect }]
}

/** A key came as a bearer token, which is not read. */
const MISPLACED = {
  events: ['key.refused missing_key bearer_not_read'],
  fields: { 'WWW-Authenticate': 'Api-Key realm="Users"' },
  details: {
    detail:
      'API keys with this prefix are not read from "Authorization: Bearer"; ' +
      'send the key as "X-Api-Key: <key>" or "Authorization: Api-Key <key>"',
  },
}

/** DESIGN's table "Verifying", in its order. */
export const READING: readonly Row[] = [
  { title: 'refuses a request without a key', steps: ask([], problem('missing_key')) },
  {
    title: 'names the application’s realm when it refuses a request without a key',
    app: { reads: { realm: 'the "loom"' } },
    steps: ask([], problem('missing_key', { fields: { 'WWW-Authenticate': LOOM } })),
  },
  {
    title: 'treats an empty header as missing',
    steps: ask(['X-Api-Key:', 'Authorization: Api-Key '], problem('missing_key')),
  },
  {
    title: 'reads no key from the URL',
    steps: [{ ask: { path: '/?api_key=<key>', lines: [] }, expect: problem('missing_key') }],
  },
  { title: 'reads no key from a cookie', steps: ask(['Cookie: X-Api-Key=<key>'], problem('missing_key')) },
  {
    title: 'ignores other schemes',
    steps: ['Bearer e30.e30.e30', 'Basic PGtleT46', '<key>'].map((credentials) => ({
      ask: { lines: [`Authorization: ${credentials}`] },
      expect: problem('missing_key'),
    })),
  },
  {
    title: 'with `bearer: false`, says where to send a key that comes as a bearer token',
    app: { reads: { bearer: false } },
    steps: ['<key>', 'acme_test_0'].map((token) => ({
      ask: { lines: [`Authorization: Bearer ${token}`] },
      expect: problem('missing_key', MISPLACED),
    })),
  },
  {
    title: 'says the same when a guard requires the key',
    app: { keys: 'optional', reads: { bearer: false }, guard: { name: 'requireApiKey' } },
    steps: ask(['Authorization: Bearer <key>'], guardRefuses('missing_key', NOBODY, MISPLACED)),
  },
  { title: 'reads a key from X-Api-Key', steps: ask(KEY, passes(BY_KEY, COLD)) },
  {
    title: 'reads a key from Authorization, in any case',
    steps: ask(['authorization: API-KEY <key>'], passes(BY_KEY, COLD)),
  },
  {
    title: 'reads a key where the application says',
    app: { reads: { headers: ['X-Partner-Key'], scheme: false } },
    steps: [
      { ask: { lines: ['X-Partner-Key: <key>'] }, expect: passes(BY_KEY, COLD) },
      { ask: { lines: KEY }, expect: problem('missing_key', BY_BEARER) },
      { ask: { lines: ['Authorization: Api-Key <key>'] }, expect: problem('missing_key', BY_BEARER) },
    ],
  },
  {
    title: 'reads a bearer token that begins like a key, and ignores others',
    steps: [
      { ask: { lines: ['Authorization: Bearer <key>'] }, expect: passes(BY_KEY, COLD) },
      { ask: { lines: ['Authorization: Bearer e30.e30.e30'] }, expect: problem('missing_key') },
    ],
  },
  {
    title: 'refuses two keys, or the same one twice, without looking them up',
    steps: [
      {
        ask: { lines: [...KEY, 'Authorization: Api-Key <Bob’s key>'] },
        expect: refuses('multiple_credentials'),
      },
      { ask: { lines: [...KEY, ...KEY] }, expect: refuses('multiple_credentials') },
      { ask: { lines: [...KEY, 'X-Api-Key: junk'] }, expect: refuses('multiple_credentials') },
    ],
  },
]

/** What a middleware of the application's own has made of header fields before. */
export const REWRITTEN: readonly Row[] = [
  {
    title: 'sees no key that a middleware removed, however often it was sent',
    app: { rewrites: { 'x-api-key': null } },
    steps: [KEY, [...KEY, ...KEY]].map((lines) => ({ ask: { lines }, expect: problem('missing_key') })),
  },
  {
    title: 'lets a login in when a middleware removed the key',
    app: {
      rewrites: { 'x-api-key': null, authorization: null },
      keys: 'optional',
      session: 'before the keys',
      guard: { name: 'requireSession' },
    },
    steps: [KEY, [...KEY, ...KEY], ['Authorization: Api-Key <key>']].map((lines) => ({
      ask: { lines: ['Cookie: <session>', ...lines] },
      expect: passes(BY_SESSION),
    })),
  },
  {
    title: 'reads the key that a middleware set, whatever was sent',
    app: { rewrites: { 'x-api-key': '<key>' } },
    steps: [
      { ask: { lines: [] }, expect: passes(BY_KEY, COLD) },
      { ask: { lines: ['X-Api-Key: junk'] }, expect: passes(BY_KEY, WARM) },
      { ask: { lines: ['X-Api-Key: <Bob’s key>', 'X-Api-Key: junk'] }, expect: passes(BY_KEY, WARM) },
      { ask: { lines: ['Authorization: Api-Key <Bob’s key>'] }, expect: refuses('multiple_credentials') },
    ],
  },
  {
    title: 'refuses a login with a key that a middleware set',
    app: {
      rewrites: { 'x-api-key': '<key>' },
      keys: 'none',
      session: 'before the keys',
      guard: { name: 'requireSession' },
    },
    steps: ask(['Cookie: <session>'], guardRefuses('session_required', BY_SESSION)),
  },
  {
    title: 'refuses a field that was sent twice even if a middleware tidied it up',
    app: { rewrites: { authorization: 'Api-Key <key>' } },
    steps: [
      { ask: { lines: ['Authorization: API-KEY <key>'] }, expect: passes(BY_KEY, COLD) },
      {
        ask: { lines: ['Authorization: API-KEY <key>', 'Authorization: API-KEY <key>'] },
        expect: refuses('multiple_credentials', { isByRawHeaders: true }),
      },
    ],
  },
  {
    title: 'counts the texts of an array that a middleware set',
    app: { rewrites: { 'x-api-key': ['<key>', '<key>'] } },
    steps: ask([], refuses('multiple_credentials')),
  },
]

/** The five kinds of a bad key, and what else is answered in the same bytes. */
export const BAD_KEYS: readonly Row[] = [
  {
    title: 'refuses malformed text without looking it up',
    steps: [
      'X-Api-Key: junk',
      'X-Api-Key: <malformed key>',
      'X-Api-Key: k\u00e9y',
      'X-Api-Key: <key>\u00a0',
      `X-Api-Key: ${'x'.repeat(600)}`,
    ].map((line) => ({ ask: { lines: [line] }, expect: refuses('invalid_key', { reason: 'malformed' }) })),
  },
  {
    title: 'refuses an unknown key',
    steps: ask(['X-Api-Key: <unknown key>'], refuses('invalid_key', { reason: 'unknown', ...LOOKED_UP })),
  },
  {
    title: 'looks an unknown key up once',
    steps: [
      {
        ask: { lines: ['X-Api-Key: <unknown key>'] },
        expect: refuses('invalid_key', { reason: 'unknown', ...LOOKED_UP }),
      },
      { ask: { lines: ['X-Api-Key: <unknown key>'] }, expect: refuses('invalid_key', { reason: 'unknown' }) },
    ],
  },
  bad('refuses a known key with another secret', 'wrong_secret', [], {}, 'X-Api-Key: <wrong key>'),
  bad('refuses a revoked key', 'revoked', ['the key is revoked']),
  bad('refuses a disabled key', 'disabled', ['the key is disabled']),
  bad('refuses an expired key', 'expired', ['an hour has passed'], {
    key: { expiresAt: new Date(Date.UTC(2026, 0, 15, 12, 30)) },
  }),
  bad('refuses a key that nobody has used for too long', 'idle', ['an hour has passed'], {
    key: { idleExpiryMs: 60_000 },
  }),
  bad('refuses the key of an inactive owner', 'owner_inactive', [], { keys: { isOwnerActive: () => false } }),
  {
    title: 'refuses a key whose prefix the route does not accept, without looking it up',
    app: { reads: { prefix: 'other' } },
    steps: ask(KEY, refuses('invalid_key', { reason: 'prefix_not_accepted' })),
  },
  {
    title: 'refuses a key that has no user',
    app: { finds: 'nobody' },
    steps: ask(KEY, refuses('invalid_key', { reason: 'no_user', ...COLD })),
  },
  {
    title: 'refuses a key that is revoked between two requests, cached or not',
    given: [KNOWN, 'the key is revoked'],
    steps: [
      { ask: { lines: KEY }, expect: refuses('invalid_key', { reason: 'revoked', ...LOOKED_UP }) },
      { ask: { lines: KEY }, expect: refuses('invalid_key', { reason: 'revoked' }) },
    ],
  },
  {
    title: 'names the application’s realm and scheme when it refuses a bad key',
    app: { reads: { realm: 'Loom', scheme: 'Acme' } },
    steps: ask(
      ['Authorization: acme junk'],
      refuses('invalid_key', {
        reason: 'malformed',
        fields: {
          'WWW-Authenticate':
            'Acme realm="Loom", error="invalid_key", Bearer realm="Loom", error="invalid_token"',
        },
      }),
    ),
  },
]

function bad(
  title: string,
  reason: string,
  given: readonly Given[],
  row: Partial<Row> = {},
  line = KEY[0] as string,
): Row {
  return { title, given, ...row, steps: ask([line], refuses('invalid_key', { reason, ...LOOKED_UP })) }
}

export const REFUSALS: readonly Row[] = [
  {
    title: 'does not verify keys from an address that sent too many bad ones',
    keys: { failedAttempts: { limit: 1 } },
    given: ['the address sent an unknown key'],
    steps: ask(KEY, refuses('too_many_failures', { fields: { 'Retry-After': '60' } })),
  },
  {
    title: 'verifies a recently verified key, whatever its address has sent',
    keys: { failedAttempts: { limit: 1 } },
    given: [KNOWN, 'the address sent an unknown key'],
    steps: ask(KEY, passes(BY_KEY, WARM)),
  },
  {
    title: 'answers 503 when the store is down',
    given: ['the store is down'],
    steps: ask(KEY, fault('fault store', LOOKED_UP)),
  },
  {
    title: 'answers 503 when isOwnerActive fails',
    keys: {
      isOwnerActive: () => {
        throw new Error('the user table is down')
      },
    },
    steps: ask(KEY, fault('fault owner_status', LOOKED_UP)),
  },
  {
    title: 'answers 503 when resolveUser fails',
    app: { finds: 'a fault' },
    steps: ask(KEY, fault('fault resolve_user', COLD)),
  },
  {
    title: 'refuses an address that the key does not allow',
    key: { allowedIps: ['203.0.113.0/24'] },
    steps: ask(KEY, refuses('address_not_allowed', LOOKED_UP)),
  },
  {
    title: 'says which permissions a key lacks',
    key: { permissions: { projects: ['read'] } },
    app: { asks: { permissions: { projects: ['read', 'write'], reports: ['read'] } } },
    steps: ask(
      KEY,
      refuses('insufficient_permissions', {
        details: { missing: { projects: ['write'], reports: ['read'] } },
        ...LOOKED_UP,
      }),
    ),
  },
]

/** What a route requires depends on the request. */
export const PERMISSIONS: readonly Row[] = [
  {
    title: 'asks for the permissions of this request, and spends nothing without them',
    key: { rateLimits: [DAY], permissions: { 'project:1': ['read'] } },
    app: { asks: { permissions: ({ url }) => ({ [url.slice(url.indexOf('?') + 1)]: ['read'] }) } },
    given: [KNOWN],
    steps: [
      {
        ask: { path: '/?project:2', lines: KEY },
        expect: refuses('insufficient_permissions', { details: { missing: { 'project:2': ['read'] } } }),
      },
      {
        ask: { path: '/?project:1', lines: KEY },
        expect: passes(BY_KEY, { ...WARM, fields: limitFields('"day";r=9;t=43200', '"day";q=10;w=86400') }),
      },
    ],
  },
  {
    title: 'refuses every key if a request names what no key can hold',
    key: { permissions: { '*': ['*'] } },
    app: { asks: { permissions: ({ url }) => ({ [url.slice(url.indexOf('?') + 1)]: ['read'] }) } },
    given: [KNOWN],
    steps: [
      {
        ask: { path: '/?project:*', lines: KEY },
        expect: refuses('insufficient_permissions', { details: { missing: {} } }),
      },
    ],
  },
  {
    title: 'answers 503 if the permissions of a request cannot be told',
    key: { permissions: { '*': ['*'] } },
    app: { asks: { permissions: () => ({}) } },
    given: [KNOWN],
    steps: ask(KEY, refuses('unavailable', { events: ['fault permissions'] })),
  },
  {
    title: 'asks a guard’s function for the permissions of this request',
    key: { permissions: { 'project:1': ['read'] } },
    app: {
      guard: {
        name: 'requirePermissions',
        permissions: ({ url }) => ({ [url.slice(url.indexOf('?') + 1)]: ['read'] }),
      },
    },
    steps: [
      {
        ask: { path: '/?project:2', lines: KEY },
        expect: guardRefuses('insufficient_permissions', BY_KEY, {
          details: { missing: { 'project:2': ['read'] } },
          ...COLD,
        }),
      },
      { ask: { path: '/?project:1', lines: KEY }, expect: passes(BY_KEY, WARM) },
    ],
  },
]

function fault(event: string, io: { store: string[]; limiter: string[] }) {
  return refuses('unavailable', { events: [event], ...io })
}

export const LIMITS: readonly Row[] = [
  {
    title: 'shows what is left of a limit, and refuses beyond it',
    key: { rateLimits: [MINUTE] },
    steps: [
      {
        ask: { lines: KEY },
        expect: passes(BY_KEY, { ...COLD, fields: limitFields('"minute";r=0;t=60', '"minute";q=1;w=60') }),
      },
      {
        ask: { lines: KEY },
        expect: refuses('rate_limited', {
          details: exceeds(['minute']),
          limiter: ['check 1: limited'],
          fields: { 'Retry-After': '60', ...limitFields('"minute";r=0;t=60', '"minute";q=1;w=60') },
        }),
      },
    ],
  },
  {
    title: 'names each limit that refuses, and shows all limits',
    key: { rateLimits: [MINUTE, DAY] },
    given: ['the key has been used once'],
    steps: ask(
      KEY,
      refuses('rate_limited', {
        details: exceeds(['minute']),
        limiter: ['check 1: limited'],
        fields: {
          'Retry-After': '60',
          ...limitFields('"minute";r=0;t=60, "day";r=9;t=43200', '"minute";q=1;w=60, "day";q=10;w=86400'),
        },
      }),
    ),
  },
  {
    title: 'refuses a cost larger than the limit, without Retry-After',
    key: { rateLimits: [MINUTE] },
    app: { asks: { cost: 5 } },
    steps: ask(
      KEY,
      refuses('rate_limited', {
        details: exceeds(['minute']),
        store: ['find'],
        limiter: ['check 5: limited'],
        fields: limitFields('"minute";r=1', '"minute";q=1;w=60'),
      }),
    ),
  },
  {
    title: 'refuses when the quota is used up',
    key: { quota: { remaining: 0 } },
    steps: ask(
      KEY,
      refuses('quota_exceeded', {
        details: { exceeded: ['quota'] },
        store: ['find'],
        limiter: ['check 0: admitted'],
        fields: { RateLimit: '"quota";r=0' },
      }),
    ),
  },
  {
    title: 'spends the cost of a route',
    key: { rateLimits: [DAY] },
    app: { asks: { cost: 5 } },
    steps: ask(
      KEY,
      passes(BY_KEY, {
        store: ['find'],
        limiter: ['check 5: admitted'],
        fields: limitFields('"day";r=5;t=43200', '"day";q=10;w=86400'),
      }),
    ),
  },
  {
    title: 'spends nothing on a route that costs nothing',
    key: { rateLimits: [MINUTE] },
    app: { asks: { cost: 0 } },
    given: ['the key has been used once'],
    steps: [1, 2].map(() => ({
      ask: { lines: KEY },
      expect: passes(BY_KEY, {
        limiter: ['check 0: admitted'],
        fields: limitFields('"minute";r=0;t=60', '"minute";q=1;w=60'),
      }),
    })),
  },
  {
    title: 'spends nothing on a refusal',
    key: { rateLimits: [DAY] },
    app: { asks: { permissions: { projects: ['write'] } } },
    given: [KNOWN],
    steps: ask(KEY, refuses('insufficient_permissions', { details: { missing: { projects: ['write'] } } })),
  },
  {
    title: 'charges a request once, however often it is authenticated',
    key: { rateLimits: [DAY], permissions: { projects: ['read'] } },
    app: { asks: {}, asksAgain: { permissions: { projects: ['read'] }, cost: 5 } },
    steps: ask(
      KEY,
      passes(BY_KEY, { ...COLD, fields: limitFields('"day";r=9;t=43200', '"day";q=10;w=86400') }),
    ),
  },
  {
    title: 'charges a request at the first authentication with a cost',
    key: { rateLimits: [DAY] },
    app: { asks: { cost: 0 }, asksAgain: { cost: 5 } },
    given: [KNOWN],
    steps: ask(
      KEY,
      passes(BY_KEY, {
        limiter: ['check 0: admitted', 'check 5: admitted'],
        fields: limitFields('"day";r=5;t=43200', '"day";q=10;w=86400'),
      }),
    ),
  },
  {
    title: 'checks permissions at each authentication of a request, and refunds nothing',
    key: { rateLimits: [DAY], permissions: { projects: ['read'] } },
    app: { asks: {}, asksAgain: { permissions: { projects: ['write'] } } },
    steps: ask(
      KEY,
      refuses('insufficient_permissions', {
        details: { missing: { projects: ['write'] } },
        ...COLD,
        fields: limitFields('"day";r=9;t=43200', '"day";q=10;w=86400'),
      }),
    ),
  },
  ...(
    [
      ['draft-7', { RateLimit: 'limit=10, remaining=9, reset=43200', 'RateLimit-Policy': '10;w=86400' }],
      [
        'draft-6',
        {
          'RateLimit-Limit': '10',
          'RateLimit-Remaining': '9',
          'RateLimit-Reset': '43200',
          'RateLimit-Policy': '10;w=86400',
        },
      ],
      [false, {}],
    ] as const
  ).map(
    ([rateLimitHeaders, fields]): Row => ({
      title: rateLimitHeaders
        ? `shows the limits in the syntax of ${rateLimitHeaders}`
        : 'shows no limits if told not to',
      key: { rateLimits: [DAY] },
      app: { reads: { rateLimitHeaders } },
      steps: ask(KEY, passes(BY_KEY, { ...COLD, fields })),
    }),
  ),
  {
    title: 'answers 503 when the limiter is down',
    given: [KNOWN, 'the limiter is down'],
    steps: ask(KEY, refuses('unavailable', { events: ['fault rate_limiter'], limiter: ['check 1: failed'] })),
  },
  {
    title: 'counts in this process while Redis is away',
    limiter: 'away, local',
    key: { rateLimits: [MINUTE] },
    steps: ask(
      KEY,
      passes(BY_KEY, {
        ...COLD,
        events: ['fault rate_limiter'],
        fields: limitFields('"minute";r=0;t=60', '"minute";q=1;w=60'),
      }),
    ),
  },
  {
    title: 'admits while Redis is away, if configured so',
    limiter: 'away, open',
    key: { rateLimits: [MINUTE] },
    steps: ask(KEY, passes(BY_KEY, { ...COLD, events: ['fault rate_limiter'] })),
  },
  {
    title: 'refuses while Redis is away, if configured so',
    limiter: 'away, closed',
    key: { rateLimits: [MINUTE] },
    steps: ask(
      KEY,
      refuses('unavailable', {
        events: ['fault rate_limiter'],
        store: ['find'],
        limiter: ['check 1: failed'],
      }),
    ),
  },
]

function limitFields(limit: string, policy: string): Record<string, string> {
  return { RateLimit: limit, 'RateLimit-Policy': policy }
}

export const ADMISSIONS: readonly Row[] = [
  {
    title: 'asks the store and the limiter once when a key is not cached',
    steps: ask(KEY, passes(BY_KEY, COLD)),
  },
  {
    title: 'asks only the limiter when it is',
    given: [KNOWN],
    steps: [1, 2].map(() => ({ ask: { lines: KEY }, expect: passes(BY_KEY, WARM) })),
  },
  {
    title: 'asks neither about a cached key without limits when revocation is bounded',
    keys: { revocation: 'bounded' },
    given: [KNOWN],
    steps: ask(KEY, passes(BY_KEY, NO_IO)),
  },
  {
    title: 'sets the owner of the key as the user',
    key: { owner: BOB },
    steps: ask(KEY, passes({ ...BY_KEY, user: BOB }, COLD)),
  },
  {
    title: 'sets the user that the application finds',
    app: { finds: 'a user' },
    steps: ask(KEY, passes({ ...BY_KEY, user: { name: 'Alice' } }, COLD)),
  },
  {
    title: 'admits a key with the permissions and an allowed address',
    key: { permissions: { projects: ['*'] }, allowedIps: ['127.0.0.0/8'] },
    app: { asks: { permissions: { projects: ['write'] } } },
    steps: ask(KEY, passes(BY_KEY, COLD)),
  },
  {
    title: 'lets in a request without a key when keys are optional, but not with a bad key',
    app: { keys: 'optional' },
    steps: [
      { ask: { lines: [] }, expect: passes({ method: 'none' }) },
      { ask: { lines: KEY }, expect: passes(BY_KEY, COLD) },
      { ask: { lines: ['X-Api-Key: junk'] }, expect: refuses('invalid_key', { reason: 'malformed' }) },
      { ask: { lines: [...KEY, ...KEY] }, expect: refuses('multiple_credentials') },
    ],
  },
]
