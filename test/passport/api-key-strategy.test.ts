import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setImmediate as nextTurn } from 'node:timers/promises'
import express, { type Express, type RequestHandler } from 'express'
import session, { MemoryStore } from 'express-session'
import {
  type ApiKey,
  type ApiKeysOptions,
  type IssuedKey,
  isLatchkeyError,
  type PermissionRequirement,
} from 'latchkey'
import { apiKeyErrorHandler, requireApiKey, requireAuth } from 'latchkey/express'
import {
  type ApiKeyRouteOptions,
  ApiKeyStrategy,
  type ApiKeyStrategyOptions,
  getAuth,
  Strategy,
  type VerifyDone,
  type VerifyFunction,
} from 'latchkey/passport'
import { type AuthenticateOptions, Authenticator } from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { Strategy as PassportStrategy } from 'passport-strategy'
import { describe, expect, it, vi } from 'vitest'
import { BARE, INVALID } from '../support/challenges.ts'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey, issueWarmKey } from '../support/issue-key.ts'
import { makeRequest } from '../support/made-request.ts'
import { exceeds } from '../support/problem-types.ts'
import { type Answer, type Ask, serve } from '../support/raw-http.ts'
import { rejects } from '../support/recording-store.ts'
import { BOB, createTestKeys, forgeKey } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const ALICE = { name: 'Alice' }
const LOGIN = { method: 'POST', json: { username: 'alice', password: 'right' } }
const LIMIT = { name: 'minute', limit: 10, windowMs: 60_000 }

interface Parts {
  createApp?: typeof express
  strategy?: Partial<ApiKeyStrategyOptions>
  verify?: VerifyFunction
  keys?: Partial<Omit<ApiKeysOptions, 'clock' | 'store'>>
  withSession?: boolean
}

/** An application with the strategies `apikey`, `local`, and `token`, which fails or succeeds as the header says. */
async function start({ createApp = express, strategy, verify, keys, withSession }: Parts = {}) {
  const test = createTestKeys(keys)
  const passport = new Authenticator()
  passport.serializeUser((user, done) => done(null, JSON.stringify(user)))
  passport.deserializeUser((text: string, done) => done(null, JSON.parse(text)))
  const apikey = new ApiKeyStrategy({ keys: test.keys, refuseWith: 'fail', ...strategy }, verify)
  passport.use(apikey)
  passport.use(new LocalStrategy((_name, password, done) => done(null, password === 'right' && ALICE)))
  passport.use('token', new TokenStrategy())
  const sessions = new MemoryStore()
  const app = createApp()
  if (withSession) {
    app.use(session({ secret: 'test', resave: false, saveUninitialized: false, store: sessions }))
    app.use(passport.session())
  }
  app.use(express.json())
  const ask = await serve(app)
  const issued = await issueKey(test.keys, { owner: BOB, permissions: { projects: ['read'] } })
  const sessionsNow = () =>
    new Promise((resolve) => sessions.all((_error, all) => resolve(structuredClone(all))))
  return { ...test, passport, apikey, app, ask, issued, line: keyLine(issued), sessionsNow }
}

/** Stands for another strategy in an array: `X-Token: good`, or a status to fail with, or nothing. */
class TokenStrategy extends PassportStrategy {
  override authenticate(req: express.Request): void {
    const token = req.get('X-Token')
    const fail = this.fail as (challenge: string, status?: number) => void
    if (token === 'good') this.success({ name: 'Token' })
    else fail('Token', token ? Number(token) : undefined)
  }
}

function keyLine({ key }: { key: string }): string {
  return `X-Api-Key: ${key}`
}

const show: RequestHandler = (req, res) => {
  const { method } = getAuth(req)
  res.json({ method, user: req.user, keyId: req.apiKey?.id, authMethod: req.authMethod })
}

/** Lets what has called the handler come to its end. */
const nextTick: RequestHandler = (_req, _res, next) => void setImmediate(next)

/** Adds a route and the end of an application that renders nothing of its own. */
function addRoute(app: Express, ...handlers: RequestHandler[]): void {
  app.all('/', ...handlers, show)
  const answer: express.ErrorRequestHandler = (error, _req, res, _next) => {
    res.status(error.status ?? 500).json({ message: error.message, code: error.code })
  }
  app.use(answer)
}

async function logIn(ask: Ask, path = '/login'): Promise<string> {
  return `Cookie: ${(await ask(path, [], LOGIN)).header('Set-Cookie')?.split(';')[0]}`
}

const TEMPERATURES = [
  ['warm', undefined],
  ['cold', { cache: false }],
] as const

describe.each(EXPRESSES)('a key on %s', (_name, createApp) => {
  const optionsOfRoutes: Record<string, (AuthenticateOptions & ApiKeyRouteOptions) | undefined> = {
    'no options': undefined,
    'empty options': {},
    'session: true': { session: true },
    'session: false': { session: false },
    successRedirect: { successRedirect: '/done' },
    'keepSessionInfo: true': { keepSessionInfo: true, session: true },
  }
  const strategies = ['apikey', ['apikey'], ['apikey', 'local'], ['local', 'apikey'], ['token', 'apikey']]

  describe.each(TEMPERATURES)('verified %s', (_temperature, keys) => {
    it.each(Object.entries(optionsOfRoutes))('never begins a session: %s', async (_what, options) => {
      for (const withSession of [true, false]) {
        for (const names of strategies) {
          const { app, passport, ask, line, sessionsNow } = await start({ createApp, keys, withSession })
          addRoute(app, passport.authenticate(names, options as AuthenticateOptions))
          for (let i = 0; i < 2; i++) {
            const answer = await ask('/', [line])
            const redirects = options?.successRedirect ?? options?.successReturnToOrRedirect
            expect(answer.status, `${names}`).toBe(redirects ? 302 : 200)
            if (!redirects) expect(answer.json()).toMatchObject({ method: 'apikey', user: BOB })
            expect(answer.all('Set-Cookie')).toEqual([])
          }
          expect(await sessionsNow()).toEqual({})
        }
      }
    })

    it.each(Object.entries(optionsOfRoutes))(
      'never touches somebody’s session: %s',
      async (_what, options) => {
        const { app, passport, ask, line, sessionsNow } = await start({ createApp, keys, withSession: true })
        app.post('/login', passport.authenticate('local'), show)
        app.get('/me', show)
        addRoute(app, passport.authenticate('apikey', options as AuthenticateOptions))
        const cookie = await logIn(ask)
        const before = await sessionsNow()
        expect(Object.keys(before as object)).toHaveLength(1)
        const answers = [await ask('/', [cookie, line]), await ask('/', [cookie, 'X-Api-Key: junk'])]
        expect(answers.map(({ status }) => status)).toEqual([answers[0]?.status === 302 ? 302 : 200, 401])
        if (answers[0]?.status === 200)
          expect(answers[0].json()).toMatchObject({ method: 'apikey', user: BOB })
        expect(answers.flatMap((answer) => answer.all('Set-Cookie'))).toEqual([])
        expect(await sessionsNow()).toEqual(before)
        expect((await ask('/me', [cookie])).json()).toMatchObject({ user: ALICE })
      },
    )

    it('leaves a session of another kind alone, which cannot be regenerated', async () => {
      const { app, passport, ask, line } = await start({ createApp, keys })
      const saved = Object.freeze({ theirs: true })
      app.use((req, _res, next) => {
        Object.assign(req, { session: saved })
        next()
      })
      addRoute(app, passport.authenticate('apikey', { session: true }))
      expect((await ask('/', [line])).json()).toMatchObject({ method: 'apikey' })
    })

    it.each([
      ['without options', undefined],
      ['with options', { session: true, keepSessionInfo: true }],
    ])('leaves the login alone that an application asks for in its callback, %s', async (_what, options) => {
      const { app, passport, ask, line } = await start({ createApp, keys, withSession: true })
      const logInByKey: RequestHandler = (req, res, next) => {
        passport.authenticate('apikey', (error: unknown, user: Express.User) => {
          if (error) next(error)
          else if (options) req.logIn(user, options, next)
          else req.logIn(user, next)
        })(req, res, next)
      }
      app.get('/me', show)
      addRoute(app, logInByKey)
      const answer = await ask('/', [line])
      expect(answer.status).toBe(200)
      const cookie = `Cookie: ${answer.header('Set-Cookie')?.split(';')[0]}`
      expect((await ask('/me', [cookie])).json()).toMatchObject({ user: BOB })
    })

    it('leaves the session alone that another strategy of the array begins', async () => {
      const { app, passport, ask, line } = await start({ createApp, keys, withSession: true })
      const options = Object.freeze({ failureMessage: false, session: true })
      app.get('/me', show)
      addRoute(app, passport.authenticate(['apikey', 'local'], options))
      for (let i = 0; i < 2; i++) {
        expect((await ask('/', [line])).all('Set-Cookie')).toEqual([])
        const cookie = await logIn(ask, '/')
        expect((await ask('/me', [cookie])).json()).toMatchObject({ user: ALICE })
      }
      expect(options).toEqual({ failureMessage: false, session: true })
    })

    it('puts logIn back as it was', async () => {
      const { app, passport, ask, line } = await start({ createApp, keys })
      const seen = new Set<unknown>()
      const look: RequestHandler = (req, _res, next) => {
        seen.add(req.logIn)
        next()
      }
      const byCallback: RequestHandler = (req, res, next) =>
        passport.authenticate('apikey', () => next())(req, res, next)
      const before = passport.authenticate('token', { session: false })
      const assigning = passport.authenticate('apikey', { assignProperty: 'account' })
      const handlers = [passport.authenticate('apikey'), assigning, byCallback]
      addRoute(app, before, look, ...handlers.flatMap((handler) => [handler, nextTick, look]))
      expect((await ask('/', [line, 'X-Token: good'])).status).toBe(200)
      expect(seen.size).toBe(1)
    })

    it('never crosses requests, even where Passport is handed the strategy itself', async () => {
      const {
        app,
        passport,
        apikey,
        ask,
        keys: service,
        store,
      } = await start({
        createApp,
        keys: { ...keys, ...(keys && { cache: false }) },
        strategy: {
          resolveUser: async ({ owner }) => {
            await nextTurn()
            return owner
          },
        },
      })
      app.all('/by-name', passport.authenticate('apikey'), show)
      app.all('/by-instance', passport.authenticate(apikey as never), show)
      const owners = Array.from({ length: 8 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
      const issued = await Promise.all(owners.map((owner) => issueWarmKey(service, { owner })))
      let finds = 0
      store.fail('find', async (work) => {
        for (let turns = finds++ % 5; turns > 0; turns--) await nextTurn()
        return work()
      })
      for (const path of ['/by-name', '/by-instance']) {
        const answers = await Promise.all(
          Array.from({ length: 120 }, (_, i) => {
            const { key } = issued[i % 8] as IssuedKey
            return ask(path, [
              keyLine({ key: i % 3 === 0 ? forgeKey(key, { secret: 'x'.repeat(43) }) : key }),
            ])
          }),
        )
        for (const [i, answer] of answers.entries()) {
          if (i % 3 === 0) expect(answer.status).toBe(401)
          else expect(answer.json()).toMatchObject({ method: 'apikey', user: owners[i % 8] })
        }
      }
    })
  })

  it('is charged once where two routes authenticate it, and says how its limits stand', async () => {
    const { app, passport, ask, line, keys, issued } = await start({
      createApp,
      keys: { rateLimits: [LIMIT] },
    })
    addRoute(app, passport.authenticate('apikey'), passport.authenticate('apikey', { cost: 5 }))
    const answer = await ask('/', [line])
    expect(answer.header('RateLimit')).toBe('"minute";r=9;t=60')
    expect(answer.header('RateLimit-Policy')).toBe('"minute";q=10;w=60')
    expect(await keys.verify(issued.key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 9 }] })
  })
})

interface Failure {
  status: number
  body: string
  challenges: string[]
  code: string
  /** Sets the stage; answers the header lines. */
  given(started: Awaited<ReturnType<typeof start>>): Promise<string[]> | string[]
  options?: AuthenticateOptions & ApiKeyRouteOptions
}

const UNAUTHORIZED = { status: 401, body: 'Unauthorized', code: 'invalid_key', challenges: [INVALID] }
const FORBIDDEN = { status: 403, body: 'Forbidden', challenges: [] }

/** Refusals that are a failure to Passport. */
const FAILURES: Record<string, Failure> = {
  'no key': { ...UNAUTHORIZED, code: 'missing_key', challenges: [BARE], given: () => [] },
  'a malformed key': { ...UNAUTHORIZED, given: () => ['X-Api-Key: junk'] },
  'an unknown key': {
    ...UNAUTHORIZED,
    given: ({ issued }) => [keyLine({ key: forgeKey(issued.key, { keyId: '0'.repeat(16) }) })],
  },
  'a wrong secret': {
    ...UNAUTHORIZED,
    given: ({ issued }) => [keyLine({ key: forgeKey(issued.key, { secret: '0'.repeat(43) }) })],
  },
  'a revoked key': {
    ...UNAUTHORIZED,
    given: async ({ keys, issued, line }) => {
      await keys.revoke(issued.apiKey.id)
      return [line]
    },
  },
  'two keys': {
    status: 400,
    body: 'Bad Request',
    code: 'multiple_credentials',
    challenges: [],
    given: ({ line }) => [line, line],
  },
  'an address that is not allowed': {
    ...FORBIDDEN,
    code: 'address_not_allowed',
    given: async ({ keys }) => [keyLine(await issueKey(keys, { allowedIps: ['203.0.113.0/24'] }))],
  },
  'missing permissions': {
    ...FORBIDDEN,
    code: 'insufficient_permissions',
    options: { permissions: { projects: ['write'] } },
    given: ({ line }) => [line],
  },
}

/** Refusals that halt the chain. */
const HALTS: Record<string, Omit<Failure, 'body' | 'challenges'> & { headers: Record<string, string> }> = {
  'a rate limit': {
    status: 429,
    code: 'rate_limited',
    headers: {
      'Retry-After': '60',
      RateLimit: '"minute";r=1;t=60',
      'RateLimit-Policy': '"minute";q=10;w=60',
    },
    options: { cost: 2 },
    given: async ({ keys }) => {
      const issued = await issueKey(keys, { rateLimits: [LIMIT] })
      await keys.verify(issued.key, { cost: 9 })
      return [keyLine(issued)]
    },
  },
  'a quota': {
    status: 429,
    code: 'quota_exceeded',
    headers: { RateLimit: '"quota";r=0' },
    given: async ({ keys }) => [keyLine(await issueKey(keys, { quota: { remaining: 0 } }))],
  },
  'a store that fails': {
    status: 503,
    code: 'unavailable',
    headers: {},
    given: ({ store, line }) => {
      store.fail('find', rejects(new Error('connection refused')))
      return [line]
    },
  },
}

describe.each(EXPRESSES)('a refusal on %s', (_name, createApp) => {
  it.each(Object.entries(FAILURES))('fails for %s, in Passport’s words', async (_what, failure) => {
    const { status, body, challenges, given, options = {} } = failure
    for (const names of ['apikey', ['apikey']]) {
      const started = await start({ createApp })
      addRoute(started.app, started.passport.authenticate(names, options))
      const answer = await started.ask('/', await given(started))
      expect({ status: answer.status, body: answer.body }).toEqual({ status, body })
      expect(answer.all('WWW-Authenticate')).toEqual(challenges)
      expect(answer.all('Cache-Control')).toEqual(['no-store'])
    }
  })

  it.each(Object.entries(FAILURES))(
    'lets a later strategy succeed for %s, and leaks nothing',
    async (_what, failure) => {
      vi.spyOn(process, 'emitWarning').mockReturnValue()
      const { given, options, code } = failure
      const started = await start({ createApp })
      const authenticate = started.passport.authenticate(['apikey', 'token'], { ...options, session: false })
      started.app.get('/guarded', authenticate, requireAuth({ accept: ['apikey', 'session', 'other'] }), show)
      started.app.get('/key', authenticate, requireApiKey(), show)
      addRoute(started.app, authenticate)
      const lines = [...(await given(started)), 'X-Token: good']
      const answer = await started.ask('/', lines)
      expect(answer.status).toBe(200)
      const presented = code !== 'missing_key'
      expect(answer.json()).toEqual({
        method: presented ? 'rejected' : 'other',
        user: { name: 'Token' },
        ...(!presented && { authMethod: 'other' }),
      })
      for (const name of ['Cache-Control', 'Retry-After', 'WWW-Authenticate', 'RateLimit']) {
        expect(answer.all(name), name).toEqual([])
      }
      expect((await started.ask('/guarded', lines)).status).toBe(presented ? failure.status : 200)
      expect((await started.ask('/key', lines)).status).toBe(presented ? failure.status : 403)
    },
  )

  it.each(Object.entries(HALTS))('halts the chain for %s, with status and headers', async (_what, halt) => {
    const { given, options, status, code, headers } = halt
    for (const names of ['apikey', ['apikey', 'token'], ['token', 'apikey']]) {
      const started = await start({ createApp })
      started.app.set('env', 'test')
      const authenticate = started.passport.authenticate(names, { ...options, session: false })
      started.app.get('/', authenticate, show)
      started.app.get('/problem', authenticate, show)
      started.app.use('/problem', apiKeyErrorHandler())
      const lines = await given(started)
      if (names[0] === 'apikey' && names.length === 2) lines.push('X-Token: good')
      for (const path of ['/', '/problem']) {
        const answer = await started.ask(path, lines)
        expect(answer.status).toBe(status)
        for (const [name, value] of Object.entries(headers)) expect(answer.all(name), name).toEqual([value])
        expect(answer.all('Cache-Control')).toEqual(['no-store'])
        expect(answer.text).not.toContain('connection refused')
        if (path === '/problem') expect(answer.json()).toMatchObject({ code, status })
      }
    }
  })

  it('emits each challenge of an array once, and gives the status of a later strategy its turn', async () => {
    const { app, passport, ask } = await start({ createApp })
    app.get('/apikey-first', passport.authenticate(['apikey', 'token']), show)
    app.get('/token-first', passport.authenticate(['token', 'apikey']), show)
    const [first, second] = [await ask('/apikey-first'), await ask('/token-first')]
    expect(first.all('WWW-Authenticate')).toEqual([BARE, 'Token'])
    expect(second.all('WWW-Authenticate')).toEqual(['Token', BARE])
    for (const junk of [[], ['X-Api-Key: junk']]) {
      expect((await ask('/apikey-first', [...junk, 'X-Token: 403'])).status).toBe(403)
    }
    const two = ['X-Api-Key: a', 'X-Api-Key: b']
    expect((await ask('/apikey-first', [...two, 'X-Token: 403'])).status).toBe(400)
  })

  it('is an error for everything with refuseWith: error, and halts the chain', async () => {
    for (const [what, { status, code, given, options }] of Object.entries({ ...FAILURES, ...HALTS })) {
      const started = await start({ createApp, strategy: { refuseWith: 'error' } })
      const authenticate = started.passport.authenticate(['apikey', 'token'], { ...options, session: false })
      started.app.use(authenticate, show, apiKeyErrorHandler())
      const answer = await started.ask('/', [...(await given(started)), 'X-Token: good'])
      expect(answer.status, what).toBe(status)
      expect(answer.json(), what).toMatchObject({ code, status })
      expect(answer.all('Content-Type')).toEqual(['application/problem+json'])
      expect(answer.all('Cache-Control')).toEqual(['no-store'])
      const challenge = code === 'missing_key' ? BARE : INVALID
      expect(answer.all('WWW-Authenticate')).toEqual(status === 401 ? [challenge] : [])
    }
  })

  it('is Passport’s error with failWithError, and keeps its challenge', async () => {
    const { app, passport, ask } = await start({ createApp })
    addRoute(app, passport.authenticate('apikey', { failWithError: true }))
    const answer = await ask('/', ['X-Api-Key: junk'])
    expect(answer.status).toBe(401)
    expect(answer.json()).toEqual({ message: 'Unauthorized' })
    expect(answer.all('WWW-Authenticate')).toEqual([INVALID])
  })

  it('is redirected with failureRedirect, but not where it halts', async () => {
    for (const { given, options } of [FAILURES['a malformed key'], HALTS['a rate limit']] as Failure[]) {
      const started = await start({ createApp })
      addRoute(
        started.app,
        started.passport.authenticate('apikey', { ...options, failureRedirect: '/login' }),
      )
      const answer = await started.ask('/', await given(started))
      expect(answer.header('Location')).toBe(options ? undefined : '/login')
      expect(answer.status).toBe(options ? 429 : 302)
    }
  })

  it('ends whoever was logged in before it, for this request', async () => {
    const { app, passport, ask } = await start({ createApp, withSession: true })
    app.post('/login', passport.authenticate('local'), show)
    addRoute(app, (req, res, next) => passport.authenticate('apikey', () => next())(req, res, next))
    const cookie = await logIn(ask)
    expect((await ask('/', [cookie, 'X-Api-Key: junk'])).json()).toEqual({ method: 'rejected' })
    expect((await ask('/', [cookie])).json()).toMatchObject({ user: ALICE })
  })
})

const DAY = { name: 'day', limit: 1_000, windowMs: 86_400_000 }

interface LimitLines {
  refused: string[]
  admitted: string[]
}

/** Every `rateLimitHeaders`, with the lines of a refusal and of an admission by {@link LIMIT} and DAY. */
const LIMIT_LINES: [ApiKeyStrategyOptions['rateLimitHeaders'], LimitLines][] = [
  [
    'draft-10',
    {
      refused: [
        'RateLimit: "minute";r=0;t=60, "day";r=990;t=86400',
        'RateLimit-Policy: "minute";q=10;w=60, "day";q=1000;w=86400',
      ],
      admitted: [
        'RateLimit: "minute";r=9;t=60, "day";r=999;t=86400',
        'RateLimit-Policy: "minute";q=10;w=60, "day";q=1000;w=86400',
      ],
    },
  ],
  [
    'draft-7',
    {
      refused: ['RateLimit: limit=10, remaining=0, reset=60', 'RateLimit-Policy: 10;w=60, 1000;w=86400'],
      admitted: ['RateLimit: limit=10, remaining=9, reset=60', 'RateLimit-Policy: 10;w=60, 1000;w=86400'],
    },
  ],
  [
    'draft-6',
    {
      refused: [
        'RateLimit-Limit: 10',
        'RateLimit-Remaining: 0',
        'RateLimit-Reset: 60',
        'RateLimit-Policy: 10;w=60, 1000;w=86400',
      ],
      admitted: [
        'RateLimit-Limit: 10',
        'RateLimit-Remaining: 9',
        'RateLimit-Reset: 60',
        'RateLimit-Policy: 10;w=60, 1000;w=86400',
      ],
    },
  ],
  [false, { refused: [], admitted: [] }],
]

describe.each(EXPRESSES)('the limits of a key on %s', (_name, createApp) => {
  describe.each(LIMIT_LINES)('with rateLimitHeaders: %s', (rateLimitHeaders, { refused, admitted }) => {
    const keys = { rateLimits: [LIMIT, DAY] }

    it.each(['fail', 'error'] as const)('are told in a refusal by %s', async (refuseWith) => {
      const started = await start({ createApp, keys, strategy: { rateLimitHeaders, refuseWith } })
      const { app, passport, ask, line, issued } = started
      await started.keys.verify(issued.key, { cost: 10 })
      app.get('/problem', passport.authenticate('apikey'), show)
      app.use('/problem', apiKeyErrorHandler())
      addRoute(app, passport.authenticate('apikey'))
      for (const path of ['/', '/problem']) {
        const answer = await ask(path, [line])
        expect(answer.status).toBe(429)
        expect(limitLines(answer)).toEqual(refused)
        expect(answer.all('Retry-After')).toEqual(['60'])
        if (path === '/problem') expect(answer.json()).toMatchObject(exceeds(['minute'], rateLimitHeaders))
      }
    })

    it('are told in an admission', async () => {
      const verify: VerifyFunction = (apiKey, done) => done(null, apiKey.owner)
      for (const parts of [{}, { verify }, { strategy: { resolveUser: async () => ALICE } }]) {
        const strategy = { ...parts.strategy, rateLimitHeaders }
        const { app, passport, ask, line } = await start({ createApp, keys, ...parts, strategy })
        addRoute(app, passport.authenticate('apikey'))
        const answer = await ask('/', [line])
        expect(answer.status).toBe(200)
        expect(limitLines(answer)).toEqual(admitted)
      }
    })
  })
})

function limitLines({ lines }: Answer): string[] {
  return lines.filter((line) => /^(x-)?rate-?limit/i.test(line))
}

describe('the session strategy of Passport in one array with keys', () => {
  it('may let a bad key pass, but never past our guards', async () => {
    for (const names of [
      ['session', 'apikey'],
      ['apikey', 'session'],
    ]) {
      const { app, passport, ask } = await start({ withSession: true })
      app.post('/login', passport.authenticate('local'), show)
      app.use(passport.authenticate(names), requireAuth({ accept: ['apikey', 'session'] }), show)
      const cookie = await logIn(ask)
      expect((await ask('/', [cookie, 'X-Api-Key: junk'])).status).toBeGreaterThanOrEqual(401)
      expect((await ask('/', ['X-Api-Key: junk'])).status).toBeGreaterThanOrEqual(401)
      expect((await ask('/')).status).toBe(401)
    }
  })
})

describe.each(TEMPERATURES)('a custom callback, with the key %s', (_temperature, keys) => {
  type Call = unknown[]

  async function callsOf(given: Failure['given'], names: string | string[], options: object = {}) {
    const calls: Call[] = []
    const started = await start(keys ? { keys } : {})
    const authenticate: RequestHandler = (req, res, next) => {
      const callback = (...args: Call) => {
        calls.push(args)
        next()
      }
      passport.authenticate(names, options, callback)(req, res, next)
    }
    const { passport } = started
    addRoute(started.app, authenticate)
    await started.ask('/', await given(started))
    return calls
  }

  it.each(Object.entries(FAILURES))('is called for %s as Passport has it', async (_what, failure) => {
    const { given, options, status, code } = failure
    const challenge = code === 'missing_key' ? BARE : INVALID
    const stated = status === 401 ? undefined : status
    expect(await callsOf(given, 'apikey', options)).toEqual([[null, false, challenge, stated]])
    expect(await callsOf(given, ['apikey'], options)).toEqual([[null, false, [challenge], [stated]]])
  })

  it.each(Object.entries(HALTS))(
    'is called with the error for %s',
    async (_what, { given, options, code, status }) => {
      for (const names of ['apikey', ['apikey', 'token']]) {
        const [call, ...others] = await callsOf(given, names, options)
        expect(others).toEqual([])
        expect(call).toHaveLength(1)
        expect(isLatchkeyError(call?.[0])).toBe(true)
        expect(call?.[0]).toMatchObject({ code, status, statusCode: status })
      }
    },
  )

  it('is called with the user', async () => {
    expect(await callsOf(({ line }) => [line], 'apikey')).toEqual([[null, BOB, undefined]])
  })

  it.each<[string, Failure['given']]>([
    ['a good key', ({ line }) => [line]],
    ['an unknown key', FAILURES['an unknown key']?.given as Failure['given']],
    ['no key', () => []],
    ['a store that fails', HALTS['a store that fails']?.given as Failure['given']],
  ])('that throws for %s is called once, and the request is answered', async (_what, given) => {
    const unhandled = watchUnhandled()
    const started = await start(keys ? { keys } : {})
    if (!keys) await started.keys.verify(started.issued.key)
    const callback = vi.fn(() => {
      throw new Error('a mistake')
    })
    const { passport } = started
    const authenticate: RequestHandler = (req, res, next) =>
      passport.authenticate('apikey', callback)(req, res, next)
    addRoute(started.app, authenticate)
    const lines = await given(started)
    const answer = await started.ask('/', lines)
    expect(answer.status).toBe(500)
    expect(answer.json()).toEqual({ message: 'a mistake' })
    expect(callback).toHaveBeenCalledTimes(1)
    expect((await started.ask('/', lines)).status).toBe(500)
    expect(await unhandled()).toEqual([])
  })
})

describe('a verify callback', () => {
  type AnyVerify = (...args: never[]) => unknown

  /** Runs one request through `verify`; answers status, user, and what Passport keeps as info. */
  async function outcomeOf(
    verify: AnyVerify,
    strategy: Partial<ApiKeyStrategyOptions> = {},
    keys?: Parts['keys'],
  ) {
    const unhandled = watchUnhandled()
    const started = await start({ strategy, verify: verify as VerifyFunction, ...(keys && { keys }) })
    let info: unknown
    const look: RequestHandler = (req, _res, next) => {
      info = req.authInfo
      next()
    }
    addRoute(started.app, started.passport.authenticate('apikey'), look)
    const answer = await started.ask('/', [started.line])
    expect(await unhandled()).toEqual([])
    return {
      ...started,
      answer,
      info,
      status: answer.status,
      user: answer.status === 200 && answer.json().user,
    }
  }

  const user = { name: 'Bob' }

  it('takes the key and done', async () => {
    const seen: ApiKey[] = []
    const outcome = await outcomeOf((apiKey: ApiKey, done: VerifyDone) => {
      seen.push(apiKey)
      done(null, user, { scope: 'read' })
    })
    expect(outcome).toMatchObject({ status: 200, user, info: { scope: 'read' } })
    expect(outcome.answer.json()).toMatchObject({ method: 'apikey', keyId: outcome.issued.apiKey.id })
    expect(seen).toEqual([outcome.issued.apiKey])
    expect(JSON.stringify(seen)).not.toMatch(/digest|sha256|lookup/)
  })

  it('is asked about every request with a key, also where that is known already', async () => {
    let isWelcome = true
    const verify = (_apiKey: ApiKey, done: VerifyDone) => done(null, isWelcome && user)
    const { ask, line } = await outcomeOf(verify)
    expect((await ask('/', [line])).json()).toMatchObject({ user })
    isWelcome = false
    expect((await ask('/', [line])).status).toBe(401)
  })

  it('takes the request first where that is asked for', async () => {
    const verify = (req: { url: string }, apiKey: ApiKey, done: VerifyDone) =>
      done(null, { url: req.url, owner: apiKey.owner })
    expect(await outcomeOf(verify, { passReqToCallback: true })).toMatchObject({
      status: 200,
      user: { url: '/', owner: BOB },
    })
  })

  it.each<[string, AnyVerify, number]>([
    ['answers later', (_key: ApiKey, done: VerifyDone) => setImmediate(done, null, user), 200],
    ['is async', async (_key: ApiKey, done: VerifyDone) => done(null, user), 200],
    ['says no', (_key: ApiKey, done: VerifyDone) => done(null, false), 401],
    ['says null', (_key: ApiKey, done: VerifyDone) => done(null, null), 401],
    ['says nothing', (_key: ApiKey, done: VerifyDone) => done(null), 401],
    ['says no in words', (_key: ApiKey, done: VerifyDone) => done(null, false, 'Basic realm="evil"'), 401],
    ['says no with a number', (_key: ApiKey, done: VerifyDone) => done(null, false, 418), 401],
    ['fails', (_key: ApiKey, done: VerifyDone) => done(new Error('connection refused')), 503],
    ['fails later', (_key: ApiKey, done: VerifyDone) => setImmediate(done, new Error('refused')), 503],
    [
      'throws',
      () => {
        throw new Error('connection refused')
      },
      503,
    ],
    ['throws nothing much', () => Promise.reject(undefined), 503],
    ['rejects', async () => Promise.reject(new Error('connection refused')), 503],
    [
      'answers twice',
      (_key: ApiKey, done: VerifyDone) => {
        done(null, user)
        done(null, { name: 'Mallory' })
        done(new Error('connection refused'))
      },
      200,
    ],
    [
      'answers and throws',
      (_key: ApiKey, done: VerifyDone) => {
        done(null, user)
        throw new Error('connection refused')
      },
      200,
    ],
    [
      'answers and rejects',
      async (_key: ApiKey, done: VerifyDone) => {
        done(null, user)
        throw new Error('connection refused')
      },
      200,
    ],
    [
      'says no and then yes',
      (_key: ApiKey, done: VerifyDone) => {
        done(null, false)
        done(null, user)
      },
      401,
    ],
    [
      'resolves with somebody else',
      async (_key: ApiKey, done: VerifyDone) => {
        done(null, user)
        return { name: 'Mallory' }
      },
      200,
    ],
    [
      'resolves with somebody before it answers',
      (_key: ApiKey, done: VerifyDone) => {
        setTimeout(done, 2, null, user)
        return Promise.resolve({ name: 'Mallory' })
      },
      200,
    ],
  ])('that %s has the first word', async (_what, verify, status) => {
    for (const [, keys] of TEMPERATURES) {
      const { answer, user: found } = await outcomeOf(verify, {}, keys)
      expect(answer.status).toBe(status)
      if (status === 200) expect(found).toEqual(user)
      if (status === 401) expect(answer.all('WWW-Authenticate')).toEqual([INVALID])
      expect(answer.text).not.toContain('connection refused')
    }
  })

  it('may be wrapped as Nest does it', async () => {
    const validate = vi.fn((apiKey: ApiKey) => ({ id: apiKey.owner.id }))
    const wrap = async (...args: unknown[]) => {
      const done = args.at(-1) as VerifyDone
      try {
        done(null, await validate(...(args.slice(0, -1) as [ApiKey])))
      } catch (error) {
        done(error)
      }
    }
    expect(wrap).toHaveLength(0)
    expect(await outcomeOf(wrap)).toMatchObject({ status: 200, user: { id: BOB.id } })
    expect(validate).toHaveBeenCalledTimes(1)
    validate.mockImplementation(() => {
      throw new Error('connection refused')
    })
    expect(await outcomeOf(wrap)).toMatchObject({ status: 503 })
  })

  it('may sit in a subclass, as Nest’s mixin makes one', async () => {
    const { keys } = createTestKeys()
    class Mixed extends ApiKeyStrategy {
      constructor(...args: [ApiKeyStrategyOptions]) {
        super(...args, (_apiKey, done) => done(null, user))
      }
    }
    const passport = new Authenticator()
    passport.use(new Mixed({ keys }))
    const app = express()
    addRoute(app, passport.authenticate('apikey'))
    const ask = await serve(app)
    const line = keyLine(await issueKey(keys))
    expect((await ask('/', [line])).json()).toMatchObject({ method: 'apikey', user })
  })
})

describe('without a verify callback', () => {
  it('the user is the owner, and cannot be changed', async () => {
    const { app, passport, ask, line } = await start()
    let user: unknown
    addRoute(app, passport.authenticate('apikey'), (req, _res, next) => {
      user = req.user
      next()
    })
    expect((await ask('/', [line])).json()).toMatchObject({ user: BOB })
    expect(user).toEqual(BOB)
    expect(Object.isFrozen(user)).toBe(true)
  })

  it.each<[string, () => unknown, number]>([
    ['a user', async () => ({ name: 'Bob' }), 200],
    ['a user at once', () => ({ name: 'Bob' }), 200],
    ['null', async () => null, 401],
    ['undefined', () => undefined, 401],
    ['false', () => false, 401],
    ['a rejection', () => Promise.reject(new Error('connection refused')), 503],
    [
      'an exception',
      () => {
        throw new Error('connection refused')
      },
      503,
    ],
  ])('resolveUser answers with %s', async (_what, resolveUser, status) => {
    const { app, passport, ask, line } = await start({ strategy: { resolveUser } })
    addRoute(app, passport.authenticate('apikey'))
    for (let i = 0; i < 2; i++) {
      const answer = await ask('/', [line])
      expect(answer.status).toBe(status)
      if (status === 200) expect(answer.json()).toMatchObject({ user: { name: 'Bob' } })
      expect(answer.text).not.toContain('connection refused')
    }
  })
})

describe('what Passport offers beside', () => {
  it.each<[string, (passport: Authenticator) => RequestHandler]>([
    ['assignProperty', (passport) => passport.authenticate('apikey', { assignProperty: 'account' })],
    ['authorize', (passport) => passport.authorize('apikey')],
  ])('%s leaves no mark', async (_what, authorize) => {
    for (const [, keys] of TEMPERATURES) {
      const { app, passport, ask, line } = await start({ withSession: true, ...(keys && { keys }) })
      app.post('/login', passport.authenticate('local'), show)
      let account: unknown
      addRoute(app, authorize(passport as Authenticator), (req, _res, next) => {
        account = (req as { account?: unknown }).account
        next()
      })
      const cookie = await logIn(ask)
      const answer = await ask('/', [cookie, line])
      expect(answer.json()).toEqual({ method: 'other', user: ALICE })
      expect(account).toEqual(BOB)
      expect(answer.all('Set-Cookie')).toEqual([])
      expect((await ask('/', [cookie, 'X-Api-Key: junk'])).status).toBe(401)
    }
  })

  it('authInfo: false sets none', async () => {
    const { app, passport, ask, line } = await start()
    let info: unknown = 'untouched'
    addRoute(app, passport.authenticate('apikey', { authInfo: false }), (req, _res, next) => {
      info = req.authInfo
      next()
    })
    expect((await ask('/', [line])).json()).toMatchObject({ method: 'apikey' })
    expect(info).toBeUndefined()
  })

  it('an info transformer cannot change the mark', async () => {
    const { app, passport, ask, line } = await start({
      verify: (_apiKey, done) => done(null, BOB, { method: 'apikey' }),
    })
    passport.transformAuthInfo((info: object, done: (error: null, info: object) => void) =>
      done(null, Object.assign(info, { method: 'session', authMethod: 'session' })),
    )
    let info: unknown
    addRoute(app, passport.authenticate('apikey'), (req, _res, next) => {
      info = req.authInfo
      next()
    })
    expect((await ask('/', [line])).json()).toMatchObject({ method: 'apikey', authMethod: 'apikey' })
    expect(info).toEqual({ method: 'session', authMethod: 'session' })
  })

  it('takes the strategy under another name', async () => {
    const { app, passport, apikey, ask, line } = await start()
    expect(apikey.name).toBe('apikey')
    expect(Strategy).toBe(ApiKeyStrategy)
    passport.use('machines', apikey as never)
    addRoute(app, passport.authenticate('machines'))
    expect((await ask('/', [line])).json()).toMatchObject({ method: 'apikey' })
  })
})

describe('the options of a route', () => {
  it('ask for permissions and cost', async () => {
    const { app, passport, ask, issued, line, keys } = await start({ keys: { rateLimits: [LIMIT] } })
    const read = Object.freeze({ permissions: Object.freeze({ projects: ['read'] }), cost: 4 })
    const either: PermissionRequirement = [{ reports: ['read'] }, { projects: ['read'] }]
    app.get('/read', passport.authenticate('apikey', read), show)
    app.get('/either', passport.authenticate('apikey', { permissions: either, cost: 0 }), show)
    app.get('/write', passport.authenticate('apikey', { permissions: { projects: ['write'] } }), show)
    expect((await ask('/write', [line])).status).toBe(403)
    expect((await ask('/read', [line])).status).toBe(200)
    expect((await ask('/either', [line])).status).toBe(200)
    expect(await keys.verify(issued.key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 6 }] })
    expect(read).toEqual({ permissions: { projects: ['read'] }, cost: 4 })
  })

  it.each(['permission', 'permisions', 'Permissions'])(
    'that misspell permissions as "%s" let nobody pass',
    async (name) => {
      const { app, passport, ask, line } = await start()
      addRoute(
        app,
        passport.authenticate('apikey', { [name]: { projects: ['write'] } } as AuthenticateOptions),
      )
      const answer = await ask('/', [line])
      expect(answer.status).toBe(500)
      expect(answer.json().message).toContain(`"${name}"; did you mean "permissions"?`)
    },
  )

  it.each<[string, Record<string, unknown>]>([
    ['cost', { cost: -1 }],
    ['cost', { cost: '5' }],
    ['cost', { cost: null }],
    ['cost', { cost: Number.NaN }],
    ['permissions', { permissions: null }],
    ['permissions', { permissions: 'projects' }],
    ['permissions', { permissions: [] }],
    ['permissions.projects', { permissions: { projects: 'read' } }],
    ['permissions.projects', { permissions: { projects: [] } }],
  ])('that are wrong are an error that names "%s", and no request passes', async (name, options) => {
    const { app, passport, ask, line, keys, issued } = await start({ keys: { rateLimits: [LIMIT] } })
    addRoute(app, passport.authenticate(['apikey', 'token'], options as AuthenticateOptions))
    for (const lines of [[line], [], ['X-Api-Key: junk'], [line, 'X-Token: good']]) {
      const answer = await ask('/', lines)
      expect(answer.status).toBe(500)
      expect(answer.json().message).toContain(`"${name}" must`)
    }
    expect(await keys.verify(issued.key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 10 }] })
  })
})

describe('a request that is not Express’s', () => {
  /** Runs the strategy the way Passport does, on a made-up request; answers the action that it took. */
  async function act(strategy: ApiKeyStrategy, request: object, options?: object): Promise<unknown[]> {
    const actions: unknown[][] = []
    const created = Object.create(strategy)
    const done = new Promise<void>((resolve) => {
      for (const name of ['success', 'fail', 'error', 'pass', 'redirect']) {
        created[name] = (...args: unknown[]) => {
          actions.push([name, ...args])
          resolve()
        }
      }
    })
    created.authenticate(request, options)
    await done
    await nextTurn()
    expect(actions).toHaveLength(1)
    return actions[0] as unknown[]
  }

  it('may be next to nothing', async () => {
    const { apikey, issued } = await start()
    expect(await act(apikey, { headers: {} })).toEqual(['fail', BARE, undefined])
    expect(await act(apikey, { headers: { 'x-api-key': 'junk' } })).toEqual(['fail', INVALID, undefined])
    expect(await act(apikey, { headers: { 'x-api-key': ['a', 'b'] } })).toEqual(['fail', INVALID, 400])
    const request = { headers: { 'x-api-key': issued.key } }
    expect(await act(apikey, request)).toEqual(['success', BOB, undefined])
    expect(getAuth(request)).toMatchObject({ method: 'apikey', user: BOB })
    expect(await act(apikey, {})).toEqual(['error', expect.any(TypeError)])
  })

  it('takes one action for every refusal, and never pass', async () => {
    for (const [what, { given, options, status }] of Object.entries({ ...FAILURES, ...HALTS })) {
      const started = await start()
      const lines = await given(started)
      const request = makeRequest(...lines.map((line) => line.split(': ') as [string, string]))
      const [action, ...args] = await act(started.apikey, request, options)
      expect(action, what).toBe(status === 429 || status === 503 ? 'error' : 'fail')
      if (action === 'error') expect(args).toEqual([expect.objectContaining({ status })])
    }
  })

  it('has an address where only a socket knows it', async () => {
    const { apikey, keys } = await start()
    const { key } = await issueKey(keys, { allowedIps: ['203.0.113.7'] })
    const headers = { 'x-api-key': key }
    expect((await act(apikey, { headers, socket: { remoteAddress: '203.0.113.7' } }))[0]).toBe('success')
    expect(await act(apikey, { headers, socket: { remoteAddress: '203.0.113.8' } })).toEqual([
      'fail',
      INVALID,
      403,
    ])
    expect((await act(apikey, { headers, ip: '203.0.113.7', socket: {} }))[0]).toBe('success')
    expect(await act(apikey, { headers, ip: '9'.repeat(300) })).toEqual(['fail', INVALID, 403])
  })

  it.each(TEMPERATURES)('may come from a bare server, with the key %s', async (_temperature, keyOptions) => {
    const unhandled = watchUnhandled()
    const { passport, keys, issued } = await start(keyOptions ? { keys: keyOptions } : {})
    const errors: unknown[] = []
    const handle = (req: IncomingMessage, res: ServerResponse) => {
      passport.authenticate('apikey')(req, res, (error?: { status: number }) => {
        if (error) errors.push(error)
        res.statusCode = error?.status ?? 200
        res.end(getAuth(req).method)
      })
    }
    expect(createServer(handle)).toBeDefined()
    const ask = await serve(handle)
    expect(await ask('/', [keyLine(issued)])).toMatchObject({ status: 200, body: 'apikey' })
    expect((await ask('/')).all('WWW-Authenticate')).toEqual([BARE])
    const limited = await issueKey(keys, { rateLimits: [LIMIT] })
    await keys.verify(limited.key, { cost: 10 })
    expect(await ask('/', [keyLine(limited)])).toMatchObject({ status: 429, body: 'rejected' })
    expect(errors).toEqual([
      expect.objectContaining({ headers: expect.objectContaining({ 'Retry-After': '60' }) }),
    ])
    expect(await unhandled()).toEqual([])
  })

  it('may be on its way to be answered already', async () => {
    const started = await start({ keys: { rateLimits: [LIMIT] } })
    started.app.use((_req, res, next) => {
      res.write('a')
      next()
    })
    started.app.get('/', started.passport.authenticate('apikey'), (_req, res) => void res.end('b'))
    await started.ask('/', [started.line])
    // The second time all is known, and nothing is waited for.
    expect(await started.ask('/', [started.line])).toMatchObject({ status: 200, body: 'ab' })
  })

  it('may have been answered already', async () => {
    const unhandled = watchUnhandled()
    for (const given of [FAILURES['an unknown key'], HALTS['a rate limit'], HALTS['a store that fails']]) {
      const started = await start({ keys: { cache: false } })
      const lines = await (given as Failure).given(started)
      started.app.use((_req, res, next) => {
        next()
        res.end('too slow')
      })
      addRoute(started.app, started.passport.authenticate('apikey', given?.options ?? {}))
      started.app.use(((_error, _req, _res, _next) => {}) as express.ErrorRequestHandler)
      expect(await started.ask('/', lines)).toMatchObject({ status: 200, body: 'too slow' })
    }
    expect((await unhandled()).filter((error) => !String(error).includes('after they are sent'))).toEqual([])
  })
})

describe('what a programmer hands to the strategy', () => {
  it.each<[string, Record<string, unknown>, unknown, string]>([
    [
      'both functions',
      { resolveUser: () => null },
      () => {},
      '"resolveUser" and a verify callback cannot be combined',
    ],
    ['verify', {}, 'verify', '"verify" must be a function, received a string'],
    ['resolveUser', { resolveUser: 5 }, undefined, '"resolveUser" must be a function, received 5'],
    ['keys', { keys: undefined }, undefined, '"keys" must be what createApiKeys() returned'],
    ['keys', { keys: {} }, undefined, '"keys" must be what createApiKeys() returned'],
    ['passReqToCallback', { passReqToCallback: 1 }, undefined, '"passReqToCallback" must be true or false'],
    ['refuseWith', { refuseWith: 'problem' }, undefined, '"refuseWith" must be "fail" or "error"'],
    [
      'rateLimitHeaders',
      { rateLimitHeaders: 'draft-8' },
      undefined,
      `"rateLimitHeaders" must be "draft-11", "draft-10", "draft-7", "draft-6" or false, received the string 'draft-8'`,
    ],
    ['prefix', { prefix: [] }, undefined, '"prefix" must be a prefix or a non-empty array'],
    ['headers', { headers: 'X' }, undefined, '"headers" must be an array'],
    [
      'an unknown one',
      { header: 'X' },
      undefined,
      '"options" has no option "header"; did you mean "headers"?',
    ],
  ])('is refused with a wrong %s by name', (_name, options, verify, message) => {
    const { keys } = createTestKeys()
    const create = () => new ApiKeyStrategy({ keys, ...options }, verify as VerifyFunction)
    expect(create).toThrow(TypeError)
    expect(create).toThrow(message)
  })

  it.each([[undefined], [null], ['keys'], [[]]])('is refused with %s for options', (options) => {
    expect(() => new ApiKeyStrategy(options as never)).toThrow(TypeError)
  })

  it('is refused with the keys themselves for options, and told how to pass them', () => {
    const { keys } = createTestKeys()
    const message = '"keys" is an option: use new ApiKeyStrategy({ keys })'
    expect(() => new ApiKeyStrategy(keys as never)).toThrow(new TypeError(message))
  })

  it('is never changed', () => {
    const { keys } = createTestKeys()
    expect(() => new ApiKeyStrategy(Object.freeze({ keys, realm: 'API' }))).not.toThrow()
  })
})
