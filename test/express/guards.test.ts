import express, { type Express, type RequestHandler } from 'express'
import session from 'express-session'
import type { ApiKeyVerifier } from 'latchkey'
import * as onExpress from 'latchkey/express'
import {
  apiKeyAuth,
  apiKeyErrorHandler,
  getAuth,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Authenticator } from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { describe, expect, it, vi } from 'vitest'
import { readMark } from '../../lib/http/auth-mark.ts'
import { EXPRESSES } from '../support/expresses.ts'
import { guardMatrix } from '../support/guard-matrix.ts'
import { issueKey } from '../support/issue-key.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { BOB, createTestKeys, forgeKey } from '../support/test-keys.ts'

const ALICE = { name: 'Alice' }
const JUNK = 'X-Api-Key: junk'

interface Parts {
  createApp?: typeof express
  /** Where keys are read: before or behind the session. */
  keysFirst?: boolean
  /** What is mounted before the guards, behind session and keys. */
  before?: RequestHandler[]
  marks?: boolean
  userProperty?: string
}

/** Logs people in by session, reads keys where they are sent, and has a route behind each guard in `guards`. */
async function start(guards: Record<string, RequestHandler>, parts: Parts = {}) {
  const { createApp = express, keysFirst = false, before = [], marks = true, userProperty } = parts
  const test = createTestKeys()
  const passport = createPassport()
  const app = createApp()
  const readKeys = apiKeyAuth(test.keys, { required: false, refuseWith: 'error' })
  // A refusal is not the end here: what guards make of it is what is tested.
  const carryOn: express.ErrorRequestHandler = (_error, _req, _res, next) => next()
  app.use(passport.initialize(userProperty === undefined ? {} : { userProperty }))
  app.use(session({ secret: 'test', resave: false, saveUninitialized: false }))
  if (keysFirst) app.use(readKeys, carryOn)
  app.use(passport.session())
  if (marks) app.use(markSession())
  app.post('/login', express.json(), passport.authenticate('local'), (_req, res) => void res.end())
  if (!keysFirst) app.use(readKeys, carryOn)
  for (const middleware of before) app.use(middleware)
  for (const [path, guard] of Object.entries(guards)) app.get(path, guard, show)
  app.use(apiKeyErrorHandler())
  const ask = await serve(app)
  const issued = await issueKey(test.keys, { owner: BOB, permissions: { projects: ['read'] } })
  return { ...test, ask, issued, keyLine: `X-Api-Key: ${issued.key}`, cookie: await logIn(ask) }
}

function createPassport(): InstanceType<typeof Authenticator> {
  const passport = new Authenticator()
  passport.serializeUser((user, done) => done(null, JSON.stringify(user)))
  passport.deserializeUser((text: string, done) => done(null, JSON.parse(text)))
  passport.use(new LocalStrategy((_name, password, done) => done(null, password === 'right' && ALICE)))
  return passport
}

async function logIn(ask: Ask): Promise<string> {
  const answer = await ask('/login', [], { method: 'POST', json: { username: 'alice', password: 'right' } })
  expect(answer.status).toBe(200)
  return `Cookie: ${answer.header('Set-Cookie')?.split(';')[0]}`
}

const show: RequestHandler = (req, res) => {
  res.json({ ...getAuth(req), authMethod: req.authMethod, apiKey: undefined, keyId: req.apiKey?.id })
}

/** What a guard answers: the method that it let pass, or status and code. */
async function outcomeOf(ask: Ask, path: string, lines: readonly string[]): Promise<string> {
  const answer = await ask(path, lines)
  if (answer.status === 200) return String(answer.json().method)
  expect(answer.header('Content-Type')).toBe('application/problem+json')
  expect(answer.header('Cache-Control')).toBe('no-store')
  expect(answer.header('WWW-Authenticate') !== undefined).toBe(answer.status === 401)
  return `${answer.status} ${answer.json().code}`
}

describe.each(EXPRESSES)('the guards on %s', (_name, createApp) => {
  const matrix = guardMatrix(onExpress)
  const guards = Object.fromEntries(Object.entries(matrix).map(([path, [guard]]) => [path, guard]))

  it.each([
    ['behind the session', false],
    ['before the session', true],
  ])('let pass what they say and nothing else, with keys read %s', async (_where, keysFirst) => {
    const { ask, keyLine, cookie } = await start(guards, { createApp, keysFirst })
    const combinations = [
      [],
      [cookie],
      [keyLine],
      [JUNK],
      [cookie, keyLine],
      [cookie, JUNK],
      [cookie, JUNK, keyLine],
    ]
    for (const [path, [, ...expected]] of Object.entries(matrix)) {
      const outcomes = await Promise.all(combinations.map((lines) => outcomeOf(ask, path, lines)))
      // Passport restores the session behind the key and replaces the user: nobody is trusted then.
      const conflicting = keysFirst ? expected.with(4, outcomes[4] as string) : expected
      expect(outcomes, path).toEqual(conflicting)
      if (keysFirst) expect(outcomes[4], path).toMatch(/^403 (session|api_key)_required|^403 auth_method_not/)
    }
  })

  it('name what a key lacks', async () => {
    const { ask, keyLine } = await start(
      { '/': requirePermissions({ projects: ['read', 'write'] }) },
      { createApp },
    )
    expect((await ask('/', [keyLine])).json()).toMatchObject({
      code: 'insufficient_permissions',
      missing: { projects: ['write'] },
    })
  })
})

describe('a request with a login and a key', () => {
  const guards = { '/show': ((_req, _res, next) => next()) as RequestHandler, '/session': requireSession() }

  it('is the key’s', async () => {
    const { ask, keyLine, cookie, issued } = await start(guards)
    expect((await ask('/show', [cookie, keyLine])).json()).toEqual({
      method: 'apikey',
      authMethod: 'apikey',
      user: BOB,
      keyId: issued.apiKey.id,
    })
  })

  it('is nobody’s where the key is bad', async () => {
    const { ask, cookie, keyLine, issued } = await start(guards)
    const wrong = `X-Api-Key: ${forgeKey(issued.key, { secret: '0'.repeat(43) })}`
    expect((await ask('/show', [cookie, wrong])).json()).toEqual({ method: 'rejected', code: 'invalid_key' })
    expect((await ask('/show', [cookie, JUNK, keyLine])).json()).toEqual({
      method: 'rejected',
      code: 'multiple_credentials',
    })
  })

  it('is in conflict where the session is restored behind the key', async () => {
    const { ask, keyLine, cookie } = await start(guards, { keysFirst: true })
    const answer = (await ask('/show', [cookie, keyLine])).json()
    expect({ method: answer.method, authMethod: answer.authMethod }).toEqual({ method: 'conflict' })
    expect((await ask('/show', [keyLine])).json()).toMatchObject({ method: 'apikey', user: BOB })
    expect((await ask('/show', [cookie])).json()).toMatchObject({ method: 'session', user: ALICE })
  })

  it('is refused for sessions where nothing reads keys', async () => {
    const passport = createPassport()
    const app = express()
    app.use(session({ secret: 'test', resave: false, saveUninitialized: false }))
    app.use(passport.session(), markSession())
    app.post('/login', express.json(), passport.authenticate('local'), (_req, res) => void res.end())
    app.get('/', requireSession(), show)
    app.get('/token', requireSession({ headers: ['X-Token'], scheme: false }), show)
    app.get('/gateway', requireSession({ ignorePresentedKey: true }), show)
    app.get('/bearer', requireSession({ bearer: true, keys: createTestKeys().keys }), show)
    const ask = await serve(app)
    const cookie = await logIn(ask)
    for (const line of [JUNK, 'Authorization: Api-Key x', 'authorization: API-KEY x']) {
      expect(await outcomeOf(ask, '/', [cookie, line])).toBe('403 session_required')
      expect(await outcomeOf(ask, '/gateway', [cookie, line])).toBe('session')
      expect(await outcomeOf(ask, '/token', [cookie, line])).toBe('session')
    }
    expect(await outcomeOf(ask, '/token', [cookie, 'X-Token: x'])).toBe('403 session_required')
    expect(await outcomeOf(ask, '/', [cookie, 'X-Api-Key:'])).toBe('session')
    expect(await outcomeOf(ask, '/', [cookie, 'Authorization: Bearer acme_live_x'])).toBe('session')
    expect(await outcomeOf(ask, '/bearer', [cookie, 'Authorization: Bearer acme_test_x'])).toBe(
      '403 session_required',
    )
    expect(await outcomeOf(ask, '/bearer', [cookie, 'Authorization: Bearer e30.e30.x'])).toBe('session')
    expect(await outcomeOf(ask, '/gateway', [JUNK])).toBe('401 authentication_required')
  })

  it('is refused although presented keys are ignored, where a key was verified or refused', async () => {
    const { ask, keyLine, cookie } = await start({ '/': requireSession({ ignorePresentedKey: true }) })
    expect(await outcomeOf(ask, '/', [cookie])).toBe('session')
    expect(await outcomeOf(ask, '/', [cookie, keyLine])).toBe('403 session_required')
    expect(await outcomeOf(ask, '/', [cookie, JUNK])).toBe('403 session_required')
  })
})

describe('a session', () => {
  it('is not what a token middleware finds beside a cookie', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const byToken: RequestHandler = (req, _res, next) => {
      if (req.get('authorization') === 'Bearer token') req.user = { name: 'Token' } as Express.User
      next()
    }
    const guards = {
      '/': requireSession(),
      '/any': requireAuth({ accept: ['session', 'other'] }),
      '/show': ((_req, _res, next) => next()) as RequestHandler,
    }
    // Marked, and exchanged afterwards: nobody knows who is asking.
    const marked = await start(guards, { before: [byToken] })
    const both = [marked.cookie, 'Authorization: Bearer token']
    expect((await marked.ask('/show', both)).json()).toMatchObject({ method: 'conflict' })
    expect(await outcomeOf(marked.ask, '/', both)).toBe('403 session_required')
    expect(await outcomeOf(marked.ask, '/any', both)).toBe('403 auth_method_not_accepted')
    expect((await marked.ask('/show', ['Authorization: Bearer token'])).json()).toMatchObject({
      method: 'other',
      authMethod: 'other',
    })
    expect(await outcomeOf(marked.ask, '/any', ['Authorization: Bearer token'])).toBe('other')
    // Never marked: what is there is somebody’s, and no session.
    const unmarked = await start(guards, { before: [byToken], marks: false })
    expect(await outcomeOf(unmarked.ask, '/', [unmarked.cookie, 'Authorization: Bearer token'])).toBe(
      '403 session_required',
    )
    expect(warn).toHaveBeenCalled()
  })

  it('is not whomever another middleware has put there before it is marked', async () => {
    const app = express()
    app.use(session({ secret: 'test', resave: false, saveUninitialized: false }))
    app.use((req, _res, next) => {
      req.user = { name: 'Token' } as Express.User
      next()
    })
    app.use(markSession())
    app.get('/', requireAuth({ accept: ['session', 'other'] }), show)
    const ask = await serve(app)
    expect((await ask('/')).json()).toMatchObject({ method: 'other', authMethod: 'other' })
  })

  it('is refused unmarked, and the programmer is warned once', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { ask, cookie } = await start({ '/': requireSession() }, { marks: false })
    for (let i = 0; i < 3; i++) expect(await outcomeOf(ask, '/', [cookie])).toBe('403 session_required')
    expect(warn).toHaveBeenCalledTimes(1)
    expect(warn).toHaveBeenCalledWith(expect.stringContaining('markSession()'), { code: 'LATCHKEY_UNMARKED' })
  })

  it('warns nobody where everything is as it should be', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { ask, cookie, keyLine } = await start({ '/': requireSession() })
    for (const lines of [[], [cookie], [keyLine], [cookie, JUNK]]) await ask('/', lines)
    expect(warn).not.toHaveBeenCalled()
  })

  it('ends midway with the logout', async () => {
    const logOut: RequestHandler = (req, _res, next) => req.logout(next)
    const { ask, cookie } = await start(
      { '/': requireSession(), '/either': requireAuth({ accept: ['session', 'apikey'] }) },
      { before: [logOut] },
    )
    expect(await outcomeOf(ask, '/', [cookie])).toBe('401 authentication_required')
    expect(await outcomeOf(ask, '/either', [cookie])).toBe('401 authentication_required')
  })

  it('may be the application’s own, without Passport', async () => {
    const app = express()
    app.use(session({ secret: 'test', resave: false, saveUninitialized: false }))
    app.post('/login', (req, res) => {
      ;(req.session as { member?: object }).member = ALICE
      res.end()
    })
    app.use(markSession({ user: (req) => (req.session as { member?: object }).member }))
    app.get('/', requireSession(), show)
    const ask = await serve(app)
    expect(await outcomeOf(ask, '/', [])).toBe('401 authentication_required')
    expect((await ask('/', [await logIn(ask)])).json()).toMatchObject({ method: 'session', user: ALICE })
  })

  it('may keep its user under another property', async () => {
    const { ask, cookie, keyLine } = await start(
      { '/': requireSession(), '/key': requireApiKey() },
      {
        userProperty: 'account',
        before: [(req, _res, next) => next(req.user && new Error('there is a user'))],
      },
    )
    expect((await ask('/', [cookie])).json()).toMatchObject({ method: 'session', user: ALICE })
    expect((await ask('/key', [cookie, keyLine])).json()).toMatchObject({ method: 'apikey', user: BOB })
  })

  it.each<[string, unknown, string]>([
    ['user', { user: 'alice' }, '"user" must be a function, received a string'],
    ['an unknown option', { users: () => null }, '"options" has no option "users"; did you mean "user"?'],
  ])('is not marked with a wrong %s', (_name, options, message) => {
    expect(() => markSession(options as never)).toThrow(new TypeError(message))
  })
})

describe('the mark', () => {
  const routes = {
    '/show': ((_req, _res, next) => next()) as RequestHandler,
    '/session': requireSession(),
    '/key': requireApiKey(),
  }

  it('is changed by no assignment', async () => {
    const assign: RequestHandler = (req, _res, next) => {
      req.authMethod = 'session'
      Object.assign(req, { authMethod: 'session' })
      next()
    }
    const { ask, keyLine, cookie } = await start(routes, { before: [assign] })
    expect((await ask('/show', [keyLine])).json()).toMatchObject({ method: 'apikey', authMethod: 'apikey' })
    expect(await outcomeOf(ask, '/session', [keyLine])).toBe('403 session_required')
    expect((await ask('/show', [cookie])).json()).toMatchObject({ authMethod: 'session' })
    expect((await ask('/show')).json()).toEqual({ method: 'none' })
    expect(await outcomeOf(ask, '/session', [cookie, JUNK])).toBe('403 session_required')
  })

  it('does not follow a key or a user that somebody else puts on the request', async () => {
    vi.spyOn(process, 'emitWarning').mockReturnValue()
    const forge: RequestHandler = (req, _res, next) => {
      req.apiKey = { id: 'forged' } as never
      req.user = { ...BOB, admin: true } as never
      next()
    }
    const { ask, keyLine } = await start(routes, { before: [forge] })
    expect((await ask('/show', [keyLine])).json()).toMatchObject({ method: 'conflict' })
    expect(await outcomeOf(ask, '/key', [keyLine])).toBe('403 api_key_required')
    expect(await outcomeOf(ask, '/key', [])).toBe('403 api_key_required')
    expect(await outcomeOf(ask, '/session', [])).toBe('403 session_required')
  })

  it('is forged by no header', async () => {
    const names = ['authMethod', 'auth-method', 'latchkey.auth', 'user', 'apiKey', 'session', '__proto__']
    const lines = names.map((name) => `${name}: {"method":"session"}`)
    const { ask } = await start(routes)
    expect((await ask('/show?authMethod=session', lines)).json()).toEqual({ method: 'none' })
    expect(await outcomeOf(ask, '/session', lines)).toBe('401 authentication_required')
    expect(await outcomeOf(ask, '/key', lines)).toBe('401 missing_key')
  })

  it('is frozen, beside the request rather than on it, and copied with nothing', async () => {
    const seen: unknown[] = []
    const look: RequestHandler = (req, _res, next) => {
      seen.push(Object.isFrozen(readMark(req)))
      seen.push(getAuth({ ...req, user: req.user } as never).method)
      seen.push(Object.getOwnPropertySymbols(req).some((key) => String(key).includes('latchkey')))
      next()
    }
    const { ask, keyLine } = await start(routes, { before: [look] })
    expect((await ask('/show', [keyLine])).json()).toMatchObject({ method: 'apikey' })
    expect(seen).toEqual([true, 'other', false])
  })

  it('is seen from outside the application that made it', async () => {
    const { keys } = createTestKeys()
    const inner = express()
    inner.use(apiKeyAuth(keys))
    const app = express()
    app.use(inner)
    app.get('/', requireApiKey(), show)
    const ask = await serve(app)
    const issued = await issueKey(keys)
    for (let i = 0; i < 2; i++) {
      expect((await ask('/', [`X-Api-Key: ${issued.key}`])).json()).toMatchObject({
        method: 'apikey',
        authMethod: 'apikey',
        keyId: issued.apiKey.id,
      })
    }
  })

  it('names the keys that wrote it', async () => {
    const mine = createTestKeys()
    const theirs = createTestKeys()
    const app = express()
    app.use('/mine', apiKeyAuth(mine.keys))
    app.use('/theirs', apiKeyAuth(theirs.keys))
    const guards: [string, RequestHandler][] = [
      ['key', requireApiKey({ keys: mine.keys })],
      ['auth', requireAuth({ accept: ['apikey', 'session'], keys: mine.keys })],
      ['permissions', requirePermissions({ projects: ['read'] }, { keys: mine.keys })],
    ]
    for (const [name, guard] of guards) app.get([`/mine/${name}`, `/theirs/${name}`], guard, show)
    const ask = await serve(app)
    const permissions = { projects: ['read'] }
    const line = `X-Api-Key: ${(await issueKey(mine.keys, { permissions })).key}`
    const foreign = `X-Api-Key: ${(await issueKey(theirs.keys, { permissions })).key}`
    for (const [name] of guards) {
      expect(await outcomeOf(ask, `/mine/${name}`, [line])).toBe('apikey')
      expect(await outcomeOf(ask, `/theirs/${name}`, [foreign])).toMatch(
        /^403 (api_key_required|auth_method)/,
      )
    }
  })

  it('is read by every copy of the package', async () => {
    const { keys } = createTestKeys()
    vi.resetModules()
    const copy = await import('latchkey/express')
    expect(copy.requireApiKey).not.toBe(requireApiKey)
    const app: Express = express()
    app.use('/a', apiKeyAuth(keys, { required: false }), copy.requireApiKey({ keys }), show)
    app.use('/b', copy.apiKeyAuth(keys), requireApiKey({ keys }), show)
    app.use('/c', copy.apiKeyAuth(keys), requireSession(), show)
    app.use('/d', apiKeyAuth(keys, { cost: 2 }), copy.apiKeyAuth(keys, { cost: 2 }), show)
    app.use('/e', copy.apiKeyAuth(keys, { refuseWith: 'error' }), show, apiKeyErrorHandler())
    const ask = await serve(app)
    const rateLimits = [{ name: 'minute', limit: 3, windowMs: 60_000 }]
    const line = `X-Api-Key: ${(await issueKey(keys, { rateLimits })).key}`
    const unlimited = `X-Api-Key: ${(await issueKey(keys)).key}`
    expect(await outcomeOf(ask, '/a', [unlimited])).toBe('apikey')
    expect(await outcomeOf(ask, '/a', [])).toBe('401 missing_key')
    expect(await outcomeOf(ask, '/b', [unlimited])).toBe('apikey')
    expect(await outcomeOf(ask, '/c', [unlimited])).toBe('403 session_required')
    expect(await outcomeOf(ask, '/d', [line])).toBe('apikey')
    expect(await outcomeOf(ask, '/e', [JUNK])).toBe('401 invalid_key')
  })

  it('outlives a later success of another strategy', async () => {
    vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { keys } = createTestKeys()
    const passport = createPassport()
    passport.use(new ApiKeyStrategy({ keys, refuseWith: 'fail' }))
    const app = express()
    app.use(express.json())
    app.use(passport.authenticate(['apikey', 'local'], { session: false }))
    app.post('/key', requireApiKey(), show)
    app.post('/any', requireAuth({ accept: ['apikey', 'session', 'other'] }), show)
    app.post('/session', requireSession(), show)
    const ask = await serve(app)
    const json = { username: 'alice', password: 'right' }
    const answers = async (lines: string[]) =>
      Promise.all(
        ['/key', '/any', '/session'].map(
          async (path) => (await ask(path, lines, { method: 'POST', json })).status,
        ),
      )
    expect(await answers([])).toEqual([403, 200, 403])
    expect(await answers([JUNK])).toEqual([401, 401, 403])
  })
})

describe('what a programmer hands to a guard', () => {
  it.each<[string, () => unknown, string]>([
    ['accept', () => requireAuth({ accept: [] }), '"accept" must not be empty'],
    ['accept', () => requireAuth({ accept: 'session' as never }), '"accept" must be an array'],
    ['accept', () => requireAuth({ accept: ['key' as never] }), '"accept" must hold some of "apikey"'],
    ['accept', () => requirePermissions({ a: ['b'] }, { accept: ['apikey' as never] }), '"accept" must hold'],
    ['permissions', () => requirePermissions({}), '"permissions" must name at least one resource'],
    ['permissions', () => requirePermissions([]), '"permissions" must be'],
    ['permissions', () => requirePermissions([{ a: ['b'] }, {}]), '"permissions" must name'],
    [
      'permissions',
      () => requirePermissions({ projects: [] }),
      '"permissions.projects" must name at least one',
    ],
    ['permissions', () => requireApiKey({ permissions: 'read' as never }), '"permissions" must be'],
    [
      'refuseWith',
      () => requireSession({ refuseWith: 'fail' as never }),
      '"refuseWith" must be "problem" or "error"',
    ],
    [
      'ignorePresentedKey',
      () => requireSession({ ignorePresentedKey: 1 as never }),
      '"ignorePresentedKey" must be',
    ],
    ['headers', () => requireSession({ headers: [''] }), '"headers[0]" must be the name of a header field'],
    [
      'bearer',
      () => requireSession({ bearer: true }),
      '"bearer" must list the prefixes, because these keys have no "prefix"',
    ],
    ['an unknown one', () => requireSession({ accepts: [] } as never), '"options" has no option "accepts"'],
    ['an unknown one', () => requireApiKey({ permission: {} } as never), 'did you mean "permissions"?'],
  ])('is refused with a wrong %s by name', (_name, create, message) => {
    expect(create).toThrow(TypeError)
    expect(create).toThrow(message)
  })

  it('may be a verifier of another kind', () => {
    const keys: ApiKeyVerifier = {
      verify: async () => ({ ok: false, code: 'invalid_key', reason: 'unknown' }),
    }
    expect(() => requireApiKey({ keys })).not.toThrow()
  })
})
