import { setImmediate as nextTurn } from 'node:timers/promises'
import express, { type Express } from 'express'
import { type ApiKeysOptions, type IssuedKey, LatchkeyError, memoryRateLimiter } from 'latchkey'
import { type ApiKeyAuthOptions, apiKeyAuth, apiKeyErrorHandler, getAuth } from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Passport } from 'passport'
import { describe, expect, it, vi } from 'vitest'
import { BARE, INVALID as INVALID_CHALLENGE } from '../support/challenges.ts'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey, issueWarmKey } from '../support/issue-key.ts'
import { exceeds, ownTypeOf } from '../support/problem-types.ts'
import { type Answer, serve } from '../support/raw-http.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, forgeKey, partsOf, type TestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

/** What no client may ever see. */
const INTERNAL = 'connection to 10.0.0.5 refused'

type KeysOptions = Partial<Omit<ApiKeysOptions, 'clock' | 'store'>>

/** The end of every application here: says who was let in. */
function show(app: Express): Express {
  app.use((req, res) => {
    const auth = getAuth(req)
    res.json({ method: auth.method, authMethod: req.authMethod, user: req.user, keyId: req.apiKey?.id })
  })
  return app
}

function keyLine({ key }: { key: string }): string[] {
  return [`X-Api-Key: ${key}`]
}

interface Refusal {
  status: number
  code: string
  title: string
  /** Makes the request that is refused: its key, from a fresh set of keys. */
  given(test: TestKeys): Promise<string[]>
  keys?: KeysOptions
  options?: ApiKeyAuthOptions
  /** Header fields that are there; null for one that must not be. */
  headers?: Record<string, string | null>
  /** Further members of the body. */
  members?: object
  /** The reason in the event. */
  reason?: string
}

const INVALID = {
  status: 401,
  code: 'invalid_key',
  title: 'The API key is not valid',
  headers: { 'WWW-Authenticate': INVALID_CHALLENGE },
}
const UNAVAILABLE = { status: 503, code: 'unavailable', title: 'API keys cannot be verified right now' }
const WINDOW = { name: 'minute', limit: 2, windowMs: 60_000 }

/** Every kind of key that is answered with `invalid_key`. */
const BAD_KEYS: Record<string, Refusal> = {
  'a malformed key': { ...INVALID, given: async () => ['X-Api-Key: junk'], reason: 'malformed' },
  'an unknown key': {
    ...INVALID,
    given: async ({ keys }) => [
      `X-Api-Key: ${forgeKey((await issueKey(keys)).key, { keyId: '0'.repeat(16) })}`,
    ],
    reason: 'unknown',
  },
  'a wrong secret': {
    ...INVALID,
    given: async ({ keys }) => [
      `X-Api-Key: ${forgeKey((await issueWarmKey(keys)).key, { secret: '0'.repeat(43) })}`,
    ],
    reason: 'wrong_secret',
  },
  'a revoked key': {
    ...INVALID,
    given: (test) => endedBy(test, ({ keys }, id) => keys.revoke(id)),
    reason: 'revoked',
  },
  'a disabled key': {
    ...INVALID,
    given: (test) => endedBy(test, ({ keys }, id) => keys.disable(id)),
    reason: 'disabled',
  },
  'an expired key': {
    ...INVALID,
    given: async ({ keys, clock }) => {
      const issued = await issueWarmKey(keys, { expiresAt: new Date(clock.now() + 1_000) })
      await clock.advance(1_000)
      return keyLine(issued)
    },
    reason: 'expired',
  },
  'a key that lay idle': {
    ...INVALID,
    given: async ({ keys, clock }) => {
      const issued = await issueKey(keys, { idleExpiryMs: 60_000 })
      // Longer than any use in another process may go unnoticed.
      await clock.advance(3_600_000)
      return keyLine(issued)
    },
    reason: 'idle',
  },
  'a key of an inactive owner': {
    ...INVALID,
    keys: { isOwnerActive: () => false },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
    reason: 'owner_inactive',
  },
  'a key with a prefix that is not accepted': {
    ...INVALID,
    options: { prefix: ['acme_live'] },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
    reason: 'prefix_not_accepted',
  },
  'a key without a user': {
    ...INVALID,
    options: { resolveUser: async () => null },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
    reason: 'no_user',
  },
}

async function endedBy(test: TestKeys, end: (test: TestKeys, id: string) => Promise<unknown>) {
  const issued = await issueWarmKey(test.keys)
  await end(test, issued.apiKey.id)
  return keyLine(issued)
}

const REFUSALS: Record<string, Refusal> = {
  ...BAD_KEYS,
  'no key': {
    status: 401,
    code: 'missing_key',
    title: 'An API key is required',
    headers: { 'WWW-Authenticate': BARE },
    given: async () => [],
  },
  'two keys': {
    status: 400,
    code: 'multiple_credentials',
    title: 'More than one API key was sent',
    headers: { 'WWW-Authenticate': null },
    given: async () => ['X-Api-Key: a', 'X-Api-Key: b'],
  },
  'an address that is not allowed': {
    status: 403,
    code: 'address_not_allowed',
    title: 'The API key may not be used from this address',
    headers: { 'WWW-Authenticate': null },
    given: async ({ keys }) => keyLine(await issueKey(keys, { allowedIps: ['203.0.113.0/24'] })),
  },
  'missing permissions': {
    status: 403,
    code: 'insufficient_permissions',
    title: 'The API key lacks a permission',
    headers: { 'WWW-Authenticate': null },
    options: { permissions: { projects: ['read', 'write'], reports: ['read'] } },
    given: async ({ keys }) => keyLine(await issueKey(keys, { permissions: { projects: ['read'] } })),
    members: { missing: { projects: ['write'], reports: ['read'] } },
  },
  'a rate limit': {
    status: 429,
    code: 'rate_limited',
    title: 'The API key has exceeded a rate limit',
    keys: { rateLimits: [WINDOW, { name: 'hour', limit: 100, windowMs: 3_600_000 }] },
    given: async ({ keys, clock }) => {
      const issued = await issueKey(keys)
      await keys.verify(issued.key, { cost: 2 })
      await clock.advance(30_500)
      return keyLine(issued)
    },
    headers: {
      'Retry-After': '30',
      RateLimit: '"minute";r=0;t=30, "hour";r=98;t=3570',
      'RateLimit-Policy': '"minute";q=2;w=60, "hour";q=100;w=3600',
      'WWW-Authenticate': null,
    },
    members: exceeds(['minute']),
  },
  'a cost that never fits': {
    status: 429,
    code: 'rate_limited',
    title: 'The API key has exceeded a rate limit',
    keys: { rateLimits: [WINDOW] },
    options: { cost: 3 },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
    headers: { 'Retry-After': null, RateLimit: '"minute";r=2' },
    members: exceeds(['minute']),
  },
  'a quota': {
    status: 429,
    code: 'quota_exceeded',
    title: 'The API key has used up its quota',
    given: async ({ keys }) => keyLine(await issueKey(keys, { quota: { remaining: 0 } })),
    headers: { 'Retry-After': null, RateLimit: '"quota";r=0', 'RateLimit-Policy': null },
    members: { exceeded: ['quota'] },
  },
  'a quota that is refilled': {
    status: 429,
    code: 'quota_exceeded',
    title: 'The API key has used up its quota',
    given: async ({ keys }) =>
      keyLine(await issueKey(keys, { quota: { remaining: 0, refill: { amount: 5, per: 'day' } } })),
    headers: { 'Retry-After': '43200', RateLimit: '"quota";r=0;t=43200', 'RateLimit-Policy': '"quota";q=5' },
    members: { exceeded: ['quota'] },
  },
  'a store that fails': {
    ...UNAVAILABLE,
    given: async ({ keys, store }) => {
      const issued = await issueKey(keys)
      store.fail('find', rejects(new Error(INTERNAL)))
      return keyLine(issued)
    },
  },
  'a store that answers nonsense': {
    ...UNAVAILABLE,
    given: async ({ keys, store }) => {
      const issued = await issueKey(keys)
      store.fail('find', async () => ({ digest: INTERNAL }))
      return keyLine(issued)
    },
  },
  'a limiter that fails': {
    ...UNAVAILABLE,
    keys: {
      rateLimiter: { ...memoryRateLimiter(), check: () => Promise.reject(new Error(INTERNAL)) },
    },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
  },
  'an owner whose state nobody knows': {
    ...UNAVAILABLE,
    keys: { isOwnerActive: () => Promise.reject(new Error(INTERNAL)) },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
  },
  'a user who cannot be found out': {
    ...UNAVAILABLE,
    options: { resolveUser: () => Promise.reject(new Error(INTERNAL)) },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
  },
  'a search for the user that throws': {
    ...UNAVAILABLE,
    options: {
      resolveUser: () => {
        throw new Error(INTERNAL)
      },
    },
    given: async ({ keys }) => keyLine(await issueWarmKey(keys)),
  },
  'keys that were closed': {
    ...UNAVAILABLE,
    given: async ({ keys }) => {
      const issued = await issueKey(keys)
      await keys.close()
      return keyLine(issued)
    },
  },
}

const HOUR = { name: 'hour', limit: 100, windowMs: 3_600_000 }

interface LimitLines {
  refused: string[]
  admitted: string[]
}

/** Every `rateLimitHeaders`, with the lines of a refusal and of an admission by {@link WINDOW}, HOUR and a quota. */
const LIMIT_LINES: [ApiKeyAuthOptions['rateLimitHeaders'], LimitLines][] = [
  [
    'draft-10',
    {
      refused: [
        'RateLimit: "minute";r=0;t=60, "hour";r=98;t=3600, "quota";r=7',
        'RateLimit-Policy: "minute";q=2;w=60, "hour";q=100;w=3600',
      ],
      admitted: [
        'RateLimit: "minute";r=1;t=60, "hour";r=99;t=3600, "quota";r=8',
        'RateLimit-Policy: "minute";q=2;w=60, "hour";q=100;w=3600',
      ],
    },
  ],
  [
    'draft-7',
    {
      refused: ['RateLimit: limit=2, remaining=0, reset=60', 'RateLimit-Policy: 2;w=60, 100;w=3600'],
      admitted: ['RateLimit: limit=2, remaining=1, reset=60', 'RateLimit-Policy: 2;w=60, 100;w=3600'],
    },
  ],
  [
    'draft-6',
    {
      refused: [
        'RateLimit-Limit: 2',
        'RateLimit-Remaining: 0',
        'RateLimit-Reset: 60',
        'RateLimit-Policy: 2;w=60, 100;w=3600',
      ],
      admitted: [
        'RateLimit-Limit: 2',
        'RateLimit-Remaining: 1',
        'RateLimit-Reset: 60',
        'RateLimit-Policy: 2;w=60, 100;w=3600',
      ],
    },
  ],
  [false, { refused: [], admitted: [] }],
]

function limitLines({ lines }: Answer): string[] {
  return lines.filter((line) => /^(x-)?rate-?limit/i.test(line))
}

describe.each(EXPRESSES)('apiKeyAuth on %s', (_name, express) => {
  async function start(test: TestKeys, options: ApiKeyAuthOptions = {}) {
    const app = express()
    app.use(apiKeyAuth(test.keys, options))
    return serve(show(app))
  }

  it.each(Object.entries(REFUSALS))('refuses %s', async (_what, refusal) => {
    const test = createTestKeys(refusal.keys)
    const lines = await refusal.given(test)
    const ask = await start(test, refusal.options)
    const answer = await ask('/', lines)
    const { status, code, title, members } = refusal
    expect(answer.status).toBe(status)
    expect(answer.json()).toEqual({
      type: ownTypeOf(code),
      title,
      status,
      code,
      ...members,
    })
    expect(answer.all('Content-Type')).toEqual(['application/problem+json'])
    expect(answer.all('Cache-Control')).toEqual(['no-store'])
    expect(answer.header('Set-Cookie')).toBeUndefined()
    for (const [name, value] of Object.entries(refusal.headers ?? {})) {
      expect(answer.all(name), name).toEqual(value === null ? [] : [value])
    }
    expectNothingInternal(answer, lines)
    if (refusal.reason) expect(test.eventsOf('key.refused').at(-1)?.reason).toBe(refusal.reason)
  })

  it('answers every kind of bad key with the same bytes', async () => {
    const answers = new Map<string, string[]>()
    for (const [what, { keys, options, given }] of Object.entries(BAD_KEYS)) {
      const test = createTestKeys(keys)
      const lines = await given(test)
      const ask = await start(test, options)
      const { text } = await ask('/', lines)
      const bytes = text.replace(/^Date: .*\r\n/m, '')
      answers.set(bytes, [...(answers.get(bytes) ?? []), what])
    }
    expect([...answers.values()]).toEqual([Object.keys(BAD_KEYS)])
  })

  it('admits a good key with its owner as the user and how its limits stand', async () => {
    const test = createTestKeys({ rateLimits: [WINDOW] })
    const issued = await issueKey(test.keys, { quota: { remaining: 9 } })
    const ask = await start(test)
    const answer = await ask('/', keyLine(issued))
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual({
      method: 'apikey',
      authMethod: 'apikey',
      user: ALICE,
      keyId: issued.apiKey.id,
    })
    expect(answer.header('RateLimit')).toBe('"minute";r=1;t=60, "quota";r=8')
    expect(answer.header('RateLimit-Policy')).toBe('"minute";q=2;w=60')
    for (const name of ['Set-Cookie', 'Cache-Control', 'Retry-After', 'WWW-Authenticate']) {
      expect(answer.header(name), name).toBeUndefined()
    }
    expectNothingInternal(answer, keyLine(issued))
  })

  it('sends no RateLimit fields for a key without limits', async () => {
    const test = createTestKeys()
    const ask = await start(test)
    const answer = await ask('/', keyLine(await issueKey(test.keys)))
    expect(answer.status).toBe(200)
    expect(answer.lines.filter((line) => /^ratelimit/i.test(line))).toEqual([])
  })

  describe.each(LIMIT_LINES)('with rateLimitHeaders: %s', (rateLimitHeaders, { refused, admitted }) => {
    it.each(['problem', 'error'] as const)('refuses in these words, by %s', async (refuseWith) => {
      const test = createTestKeys({ rateLimits: [WINDOW, HOUR] })
      const issued = await issueKey(test.keys, { quota: { remaining: 9 } })
      await test.keys.verify(issued.key, { cost: 2 })
      const app = express()
      app.use(apiKeyAuth(test.keys, { rateLimitHeaders, refuseWith }), apiKeyErrorHandler())
      const ask = await serve(app)
      const answer = await ask('/', keyLine(issued))
      expect(answer.status).toBe(429)
      expect(limitLines(answer)).toEqual(refused)
      expect(answer.all('Retry-After')).toEqual(['60'])
      expect(answer.json()).toEqual({
        title: 'The API key has exceeded a rate limit',
        status: 429,
        code: 'rate_limited',
        ...exceeds(['minute'], rateLimitHeaders),
      })
    })

    it('admits in these words, cold and warm', async () => {
      for (const issue of [issueKey, issueWarmKey]) {
        const test = createTestKeys({ rateLimits: [WINDOW, HOUR] })
        const issued = await issue(test.keys, { quota: { remaining: 9 } })
        const ask = await start(test, { rateLimitHeaders })
        const answer = await ask('/', keyLine(issued))
        expect(answer.status).toBe(200)
        expect(limitLines(answer)).toEqual(admitted)
      }
    })
  })

  it('follows draft 11, which is written as draft 10 is, where no syntax is chosen', async () => {
    const test = createTestKeys({ rateLimits: [WINDOW, HOUR] })
    const issued = await issueKey(test.keys, { quota: { remaining: 9 } })
    const ask = await start(test, { rateLimitHeaders: undefined } as ApiKeyAuthOptions)
    expect(limitLines(await ask('/', keyLine(issued)))).toEqual(LIMIT_LINES[0]?.[1].admitted)
  })

  it('tells of nothing left where a quota refuses that older drafts cannot show', async () => {
    for (const rateLimitHeaders of ['draft-7', 'draft-6'] as const) {
      const test = createTestKeys({ rateLimits: [WINDOW] })
      const issued = await issueKey(test.keys, { quota: { remaining: 0 } })
      const ask = await start(test, { rateLimitHeaders })
      const answer = await ask('/', keyLine(issued))
      expect(answer.json()).toMatchObject({ code: 'quota_exceeded', exceeded: ['quota'] })
      expect(limitLines(answer)).toEqual(['RateLimit-Policy: 2;w=60'])
      expect(answer.all('Retry-After')).toEqual([])
    }
  })

  it('hands the user over that the application finds', async () => {
    const test = createTestKeys()
    const ask = await start(test, {
      resolveUser: async ({ owner }) => ({ name: 'Alice', ...owner }),
    })
    for (const issued of [await issueKey(test.keys), await issueWarmKey(test.keys)]) {
      expect((await ask('/', keyLine(issued))).json()).toMatchObject({ user: { name: 'Alice', ...ALICE } })
    }
  })

  it('lets a request without a key pass where none is required, but not one with a bad key', async () => {
    const test = createTestKeys()
    const ask = await start(test, { required: false })
    const passed = await ask('/')
    expect(passed.status).toBe(200)
    expect(passed.json()).toEqual({ method: 'none' })
    expect((await ask('/', ['X-Api-Key: junk'])).status).toBe(401)
    expect((await ask('/', ['X-Api-Key: a', 'X-Api-Key: b'])).status).toBe(400)
    expect((await ask('/', keyLine(await issueKey(test.keys)))).json()).toMatchObject({ method: 'apikey' })
  })

  it('leaves a user of another middleware alone where no key is required or sent', async () => {
    const test = createTestKeys()
    const app = express()
    app.use((req, _res, next) => {
      req.user = { name: 'Carol' } as Express.User
      next()
    })
    app.use(apiKeyAuth(test.keys, { required: false }))
    const ask = await serve(show(app))
    expect((await ask('/')).json()).toEqual({ method: 'other', authMethod: 'other', user: { name: 'Carol' } })
  })

  it('answers HEAD as GET without the body, and OPTIONS as every method', async () => {
    const test = createTestKeys()
    const ask = await start(test)
    const get = await ask('/', ['X-Api-Key: junk'])
    const head = await ask('/', ['X-Api-Key: junk'], { method: 'HEAD' })
    expect(head.status).toBe(401)
    expect(head.body).toBe('')
    expect(head.header('WWW-Authenticate')).toBe(get.header('WWW-Authenticate'))
    const options = await ask('/', [], { method: 'OPTIONS' })
    expect(options.status).toBe(401)
    expect(options.json()).toMatchObject({ code: 'missing_key' })
    const good = await ask('/', keyLine(await issueKey(test.keys)), { method: 'HEAD' })
    expect({ status: good.status, body: good.body }).toEqual({ status: 200, body: '' })
  })

  describe('with refuseWith: error', () => {
    it.each(Object.entries(REFUSALS))('renders %s as the middleware itself would', async (_what, refusal) => {
      const texts = []
      for (const refuseWith of ['problem', 'error'] as const) {
        const test = createTestKeys(refusal.keys)
        const lines = await refusal.given(test)
        const app = express()
        app.use(apiKeyAuth(test.keys, { ...refusal.options, refuseWith }))
        app.use(apiKeyErrorHandler())
        const ask = await serve(app)
        texts.push((await ask('/', lines)).text.replace(/^Date: .*\r\n/m, ''))
      }
      expect(texts[1]).toBe(texts[0])
    })

    it('hands over an error that Express itself can render, and that prints no stack', async () => {
      const test = createTestKeys({ rateLimits: [WINDOW] })
      const issued = await issueKey(test.keys)
      await test.keys.verify(issued.key, { cost: 2 })
      const app = express()
      app.set('env', 'test')
      app.use(apiKeyAuth(test.keys, { refuseWith: 'error' }))
      let seen: LatchkeyError | undefined
      const remember: express.ErrorRequestHandler = (error, _req, _res, next) => {
        seen = error
        next(error)
      }
      app.use(remember)
      const ask = await serve(app)
      const answer = await ask('/', keyLine(issued))
      expect(answer.status).toBe(429)
      expect(answer.header('Retry-After')).toBe('60')
      expect(answer.header('RateLimit')).toBe('"minute";r=0;t=60')
      expect(seen).toMatchObject({ code: 'rate_limited', status: 429, statusCode: 429, expose: true })
      expect(seen?.stack).not.toContain('\n')
    })

    it('passes errors of others on', async () => {
      const app = express()
      app.use(() => {
        throw Object.assign(new Error('a teapot'), { status: 418 })
      })
      app.use(apiKeyErrorHandler())
      const handle: express.ErrorRequestHandler = (error, _req, res, _next) =>
        void res.status(error.status).send('handled')
      app.use(handle)
      const ask = await serve(app)
      expect((await ask('/')).status).toBe(418)
    })

    it('takes away what was said of the answer that has failed', async () => {
      const stale = {
        'Content-Encoding': 'gzip',
        'Content-Language': 'de',
        'Content-Range': 'bytes 0-1/2',
        'Content-Disposition': 'attachment',
        ETag: '"1"',
        'Last-Modified': 'Thu, 01 Jan 1970 00:00:00 GMT',
      }
      const app = express()
      app.get('/', (_req, res, next) => {
        res.set({ ...stale, 'X-Other': 'kept' })
        next(new LatchkeyError('unavailable'))
      })
      app.use(apiKeyErrorHandler())
      const answer = await (await serve(app))('/')
      expect(answer.json()).toMatchObject({ code: 'unavailable' })
      expect(Object.keys(stale).filter((name) => answer.header(name) !== undefined)).toEqual([])
      expect(answer.header('X-Other')).toBe('kept')
    })

    it('tells of the limits that have refused, not of those that another set of keys has shown', async () => {
      const first = createTestKeys({ rateLimits: [{ ...WINDOW, limit: 9 }] })
      const second = createTestKeys({ rateLimits: [{ ...WINDOW, limit: 1 }] })
      const [one, two] = [await issueKey(first.keys), await issueKey(second.keys)]
      const app = express()
      app.use(apiKeyAuth(first.keys), apiKeyAuth(second.keys, { headers: ['X-Second'], refuseWith: 'error' }))
      app.use(
        ((error, _req, res, _next) => void res.status(error.status).end()) as express.ErrorRequestHandler,
      )
      const ask = await serve(app)
      const lines = [...keyLine(one), `X-Second: ${two.key}`]
      expect((await ask('/', lines)).status).toBe(404)
      const answer = await ask('/', lines)
      expect(answer.status).toBe(429)
      expect(answer.header('RateLimit')).toBe('"minute";r=0;t=60')
    })

    it('leaves an answer alone that has begun', async () => {
      const app = express()
      app.get('/', (_req, res, next) => {
        res.write('begun')
        next(new LatchkeyError('unavailable'))
      })
      app.use(apiKeyErrorHandler())
      const handle: express.ErrorRequestHandler = (_error, _req, res, _next) => void res.end(', ended')
      app.use(handle)
      const ask = await serve(app)
      expect((await ask('/')).body).toMatch(/begun[\s\S]*, ended/)
    })
  })
})

describe('the client’s address', () => {
  async function start(configure: (app: Express) => unknown, options?: ApiKeyAuthOptions) {
    const test = createTestKeys()
    const issued = await issueKey(test.keys, { allowedIps: ['203.0.113.7', '2001:db8::/32'] })
    const anywhere = await issueKey(test.keys)
    const app = express()
    configure(app)
    app.use(apiKeyAuth(test.keys, options))
    const ask = await serve(show(app))
    return {
      from: async (address: string) =>
        (await ask('/', [...keyLine(issued), `X-Forwarded-For: ${address}`])).status,
      anywhereFrom: async (address: string) =>
        (await ask('/', [...keyLine(anywhere), `X-Forwarded-For: ${address}`])).status,
    }
  }

  it('is never taken from a header on its own', async () => {
    const { from } = await start(() => {})
    expect(await from('203.0.113.7')).toBe(403)
  })

  it('follows the application’s trust in proxies', async () => {
    const { from } = await start((app) => app.set('trust proxy', 'loopback'))
    expect(await from('203.0.113.7')).toBe(200)
    expect(await from('::ffff:203.0.113.7')).toBe(200)
    expect(await from('2001:db8::1')).toBe(200)
    expect(await from('203.0.113.8')).toBe(403)
    expect(await from('203.0.113.7, 198.51.100.1')).toBe(403)
  })

  it('may be read otherwise', async () => {
    const { from } = await start(() => {}, { ip: (req) => req.get('x-forwarded-for') })
    expect(await from('203.0.113.7')).toBe(200)
    expect(await from('203.0.113.8')).toBe(403)
  })

  it.each([
    ['junk', 'junk'],
    ['more than an address', '203.0.113.7.example'],
    ['what is far too long', '9'.repeat(5_000)],
    ['what is not ASCII', 'é'],
  ])('refuses %s where addresses are listed, and nowhere else', async (_what, address) => {
    const { from, anywhereFrom } = await start((app) => app.set('trust proxy', true))
    expect(await from(address)).toBe(403)
    expect(await anywhereFrom(address)).toBe(200)
  })
})

describe('a request that several middlewares verify', () => {
  const LIMIT = { name: 'minute', limit: 10, windowMs: 60_000 }

  async function start(first: ApiKeyAuthOptions, second: ApiKeyAuthOptions, byPassport = false) {
    const test = createTestKeys({ rateLimits: [LIMIT] })
    const issued = await issueKey(test.keys, { permissions: { projects: ['read'] } })
    const app = express()
    app.use(apiKeyAuth(test.keys, first))
    if (byPassport) {
      const passport = new Passport()
      passport.use(new ApiKeyStrategy({ keys: test.keys }))
      app.use(passport.authenticate('apikey', second as object))
    } else app.use(apiKeyAuth(test.keys, second))
    const ask = await serve(show(app))
    const answer = await ask('/', keyLine(issued))
    const peeked = await test.keys.verify(issued.key, { cost: 0 })
    return { ...test, answer, left: peeked.ok && peeked.limits[0]?.remaining }
  }

  it.each([
    ['once', {}, {}, 9],
    ['at its first admission, whatever comes later', {}, { cost: 5 }, 9],
    ['its first cost', { cost: 5 }, {}, 5],
    ['where the first only looked', { cost: 0 }, { cost: 5 }, 5],
    ['what the first took, where the second only looks', { cost: 5 }, { cost: 0 }, 5],
    ['nothing where both only look', { cost: 0 }, { cost: 0 }, 10],
  ])('is charged %s', async (_what, first, second, left) => {
    for (const byPassport of [false, true]) {
      const charged = await start(first, second, byPassport)
      expect(charged.answer.status).toBe(200)
      expect(charged.left).toBe(left)
      expect(charged.answer.header('RateLimit')).toMatch(new RegExp(`^"minute";r=${left}(;|$)`))
    }
  })

  it('has its permissions checked again, and is refunded nothing', async () => {
    const second = { permissions: { projects: ['write'] } }
    const charged = await start({ permissions: { projects: ['read'] } }, second)
    expect(charged.answer.status).toBe(403)
    expect(charged.answer.json()).toMatchObject({
      code: 'insufficient_permissions',
      missing: { projects: ['write'] },
    })
    expect(charged.left).toBe(9)
    const byPassport = await start({}, second, true)
    expect(byPassport.answer.status).toBe(403)
    expect(byPassport.left).toBe(9)
  })

  it('has its prefix checked again', async () => {
    const charged = await start({}, { prefix: 'acme_live' })
    expect(charged.answer.status).toBe(401)
    expect(charged.left).toBe(9)
  })

  it('is charged by each of two sets of keys', async () => {
    const one = createTestKeys({ rateLimits: [LIMIT] })
    const two = createTestKeys({ rateLimits: [LIMIT], store: one.store, clock: one.clock })
    const issued = await issueKey(one.keys)
    const app = express()
    app.use(apiKeyAuth(one.keys), apiKeyAuth(two.keys), apiKeyAuth(one.keys))
    const ask = await serve(show(app))
    expect((await ask('/', keyLine(issued))).status).toBe(200)
    for (const { keys } of [one, two]) {
      expect(await keys.verify(issued.key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 9 }] })
    }
  })

  it('has its user looked for once by each way of finding it', async () => {
    const test = createTestKeys()
    const findUser = vi.fn(async () => ({ name: 'Alice' }))
    const findOther = vi.fn(async () => ({ name: 'Alice’s service' }))
    const app = express()
    app.use(apiKeyAuth(test.keys, { resolveUser: findUser }))
    app.use(apiKeyAuth(test.keys, { resolveUser: findUser }))
    app.use('/other', apiKeyAuth(test.keys, { resolveUser: findOther }))
    const ask = await serve(show(app))
    const issued = await issueKey(test.keys)
    expect((await ask('/', keyLine(issued))).json()).toMatchObject({ user: { name: 'Alice' } })
    expect(findUser).toHaveBeenCalledTimes(1)
    expect((await ask('/other', keyLine(issued))).json()).toMatchObject({
      user: { name: 'Alice’s service' },
      method: 'apikey',
    })
    expect(findOther).toHaveBeenCalledTimes(1)
  })

  it('stays refused once it was, for guards behind it', async () => {
    const test = createTestKeys()
    const app = express()
    app.use(apiKeyAuth(test.keys, { permissions: { projects: ['read'] }, refuseWith: 'error' }))
    const carryOn: express.ErrorRequestHandler = (_error, _req, _res, next) => next()
    app.use(carryOn)
    const ask = await serve(show(app))
    expect((await ask('/', keyLine(await issueKey(test.keys)))).json()).toEqual({ method: 'rejected' })
  })
})

describe('under load and under stress', () => {
  it('never crosses 200 requests that come at once, good and bad in turn', async () => {
    const test = createTestKeys({ cache: false })
    const owners = Array.from({ length: 10 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
    const issued = await Promise.all(owners.map((owner) => issueKey(test.keys, { owner })))
    let finds = 0
    test.store.fail('find', async (work) => {
      for (let turns = finds++ % 7; turns > 0; turns--) await nextTurn()
      return work()
    })
    const ask = await start(test, {
      resolveUser: async ({ owner }) => {
        await nextTurn()
        return owner
      },
    })
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, i) => {
        const { key } = issued[Math.floor(i / 2) % 10] as IssuedKey
        return ask('/', keyLine({ key: i % 2 ? forgeKey(key, { secret: 'x'.repeat(43) }) : key }))
      }),
    )
    for (const [i, answer] of answers.entries()) {
      const owner = owners[Math.floor(i / 2) % 10]
      if (i % 2) expect(answer.status).toBe(401)
      else
        expect(answer.json()).toMatchObject({ user: owner, keyId: issued[Math.floor(i / 2) % 10]?.apiKey.id })
    }
  })

  it('leaves an answer alone that somebody gave while the store was asked', async () => {
    const unhandled = watchUnhandled()
    const test = createTestKeys({ rateLimits: [WINDOW] })
    const good = await issueKey(test.keys)
    const bad = forgeKey(good.key, { keyId: '0'.repeat(16) })
    let passed = 0
    const app = express()
    app.use((_req, res, next) => {
      next()
      res.end('too slow')
    })
    app.use(apiKeyAuth(test.keys))
    app.use(() => {
      passed += 1
    })
    const handle = vi.fn<express.ErrorRequestHandler>()
    app.use(((error, req, res, next) => handle(error, req, res, next)) as express.ErrorRequestHandler)
    const ask = await serve(app)
    for (const key of [bad, good.key]) {
      const answer = await ask('/', keyLine({ key }))
      expect(answer).toMatchObject({ status: 200, body: 'too slow' })
    }
    expect(await unhandled()).toEqual([])
    expect(passed).toBe(1)
    expect(handle).not.toHaveBeenCalled()
  })

  it('answers where a client hangs up while the store is asked', async () => {
    const unhandled = watchUnhandled()
    const test = createTestKeys()
    const issued = await issueKey(test.keys)
    test.store.fail('find', async (work) => {
      await nextTurn()
      return work()
    })
    const app = express()
    app.use((req, _res, next) => {
      if (req.path === '/hang-up') req.socket.destroy()
      next()
    })
    app.use(apiKeyAuth(test.keys))
    const ask = await serve(show(app))
    await ask('/hang-up', keyLine(issued)).catch(() => {})
    expect(await unhandled()).toEqual([])
    expect((await ask('/', keyLine(issued))).status).toBe(200)
  })

  it.each<[string, unknown]>([
    ['nothing', undefined],
    ['null', null],
    ['a refusal that says nothing', { ok: false }],
    ['a refusal with a code of its own', { ok: false, code: 'teapot' }],
    ['a verified key without limits', { ok: true, apiKey: { owner: ALICE } }],
  ])('never hangs and never admits where a verifier answers %s', async (_what, value) => {
    const unhandled = watchUnhandled()
    for (const verifier of [
      { verify: async () => value as never },
      { verify: async () => undefined as never, verifyEager: () => value as never },
    ]) {
      const app = express()
      app.use(apiKeyAuth(verifier))
      app.use(((_error, _req, res, _next) => void res.status(500).end()) as express.ErrorRequestHandler)
      const ask = await serve(show(app))
      const { key } = await issueKey(createTestKeys().keys)
      expect((await ask('/', keyLine({ key }))).status).toBeGreaterThanOrEqual(500)
    }
    expect(await unhandled()).toEqual([])
  })

  it('hands an error of what comes next to the application, cold or warm', async () => {
    const unhandled = watchUnhandled()
    const test = createTestKeys({ cache: { maxAgeMs: 1_000 } })
    const issued = await issueKey(test.keys)
    const app = express()
    app.use(apiKeyAuth(test.keys))
    app.use(() => {
      throw new Error(INTERNAL)
    })
    const handle = vi.fn<express.ErrorRequestHandler>(
      (_error, _req, res, _next) => void res.status(500).end(),
    )
    app.use(((error, req, res, next) => handle(error, req, res, next)) as express.ErrorRequestHandler)
    const ask = await serve(app)
    expect((await ask('/', keyLine(issued))).status).toBe(500)
    expect((await ask('/', keyLine(issued))).status).toBe(500)
    expect(handle).toHaveBeenCalledTimes(2)
    expect(await unhandled()).toEqual([])
  })

  async function start(test: TestKeys, options: ApiKeyAuthOptions = {}) {
    const app = express()
    app.use(apiKeyAuth(test.keys, options))
    return serve(show(app))
  }
})

describe('what a programmer hands to apiKeyAuth', () => {
  it.each<[string, Record<string, unknown>, string]>([
    ['required', { required: 'no' }, `"required" must be true or false, received the string 'no'`],
    ['ip', { ip: '127.0.0.1' }, '"ip" must be a function, received a string'],
    [
      'refuseWith',
      { refuseWith: 'fail' },
      `"refuseWith" must be "problem" or "error", received the string 'fail'`,
    ],
    ['cost', { cost: -1 }, '"cost" must be an integer'],
    ['cost', { cost: '5' }, '"cost" must be an integer'],
    ['permissions', { permissions: null }, '"permissions" must be'],
    [
      'permissions',
      { permissions: { projects: [] } },
      '"permissions.projects" must name at least one action',
    ],
    ['permissions', { permissions: { projects: 'read' } }, '"permissions.projects" must be an array'],
    ['resolveUser', { resolveUser: {} }, '"resolveUser" must be a function, received an object'],
    [
      'rateLimitHeaders',
      { rateLimitHeaders: 'draft-8' },
      `"rateLimitHeaders" must be "draft-11", "draft-10", "draft-7", "draft-6" or false, received the string 'draft-8'`,
    ],
    [
      'rateLimitHeaders',
      { rateLimitHeaders: true },
      '"rateLimitHeaders" must be "draft-11", "draft-10", "draft-7"',
    ],
    ['rateLimitHeaders', { rateLimitHeaders: null }, '"draft-6" or false, received null'],
    [
      'an unknown one',
      { rateLimitHeader: false },
      '"options" has no option "rateLimitHeader"; did you mean "rateLimitHeaders"?',
    ],
    ['prefix', { prefix: '' }, '"prefix" must be'],
    ['prefix', { prefix: [5] }, '"prefix" must be'],
    [
      'an unknown one',
      { permission: {} },
      '"options" has no option "permission"; did you mean "permissions"?',
    ],
  ])('is refused with a wrong %s by name', (_name, options, message) => {
    const { keys } = createTestKeys()
    expect(() => apiKeyAuth(keys, options)).toThrow(TypeError)
    expect(() => apiKeyAuth(keys, options)).toThrow(message)
  })

  it('is refused with { keys }, and told how to pass them', () => {
    const { keys } = createTestKeys()
    const message = '"keys" comes first and by itself: pass (keys, options), not ({ keys })'
    expect(() => apiKeyAuth({ keys } as never)).toThrow(new TypeError(message))
  })

  it.each([[undefined], [null], [{}], ['acme']])('is refused with %s for keys', (keys) => {
    expect(() => apiKeyAuth(keys as never)).toThrow(
      new TypeError('"keys" must be what createApiKeys() returned'),
    )
  })

  it('is never changed', async () => {
    const test = createTestKeys()
    const permissions = Object.freeze({ projects: Object.freeze(['read']) })
    const options = Object.freeze({ permissions, cost: 2, headers: Object.freeze(['X-Token']) })
    expect(() => apiKeyAuth(test.keys, options)).not.toThrow()
  })
})

/** BOB is not told about ALICE: no key, digest, owner or cause in what a client sees. */
function expectNothingInternal({ text }: Answer, lines: readonly string[]): void {
  expect(text).not.toContain(INTERNAL)
  expect(text).not.toContain('sha256')
  if (!text.startsWith('HTTP/1.1 200')) {
    expect(text).not.toContain(ALICE.id)
    expect(text).not.toContain(BOB.id)
  }
  const { secret } = partsOf(lines[0]?.replace(/^.*: /, '') ?? '')
  if (secret) expect(text).not.toContain(secret)
}
