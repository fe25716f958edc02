import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import express from 'express'
import type { Context, Middleware } from 'koa'
import Koa3 from 'koa'
import { KoaPassport } from 'koa-passport'
import koaSession from 'koa-session'
import type { ApiKeys } from 'latchkey'
import { getAuth as getAuthOf } from 'latchkey/express'
import * as onKoa from 'latchkey/koa'
import { apiKeyAuth, getAuth, markSession, requireApiKey, requireAuth, requireSession } from 'latchkey/koa'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Authenticator } from 'passport'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { guardMatrix } from '../support/guard-matrix.ts'
import { issueKey } from '../support/issue-key.ts'
import { KOAS } from '../support/koas.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { BOB, createTestKeys } from '../support/test-keys.ts'

const ALICE = { name: 'Alice' }
const LOGIN = 'X-Login: 1'
const JUNK = 'X-Api-Key: junk'

type Routes = Record<string, Middleware>

interface Parts {
  App?: typeof Koa3
  marks?: boolean
  /** What is mounted before the guards, behind session and keys. */
  before?: Middleware
}

/** A header stands for the login: what guards make of a session is tested, not sessions. */
const memberOf = (ctx: Context) => (ctx.get('X-Login') ? ALICE : null)

async function start(routes: Routes, { App = Koa3, marks = true, before }: Parts = {}) {
  const { keys } = createTestKeys()
  const app = silent(new App())
  const restore: Middleware = (ctx, next) => {
    ctx.state.user = memberOf(ctx as Context)
    return next()
  }
  app.use(marks ? markSession({ user: memberOf }) : restore).use(readKeys(keys))
  if (before) app.use(before)
  app.use(byPath(routes)).use(show)
  const { key } = await issueKey(keys, { owner: BOB, permissions: { projects: ['read'] } })
  return { ask: await serve(app.callback()), keyLine: `X-Api-Key: ${key}` }
}

/** Answers unforeseen errors with a 500, and says nothing more. */
function silent(app: Koa3): Koa3 {
  app.keys = ['test']
  app.silent = true
  return app
}

/** A refusal is not the end: what guards make of it is what is tested. */
function readKeys(keys: ApiKeys): Middleware {
  const authenticate = apiKeyAuth(keys, { required: false, refuseWith: 'error' })
  return async (ctx, next) => {
    try {
      await authenticate(ctx, async () => {})
    } catch {}
    return next()
  }
}

function byPath(routes: Routes): Middleware {
  return (ctx, next) => {
    const route = routes[ctx.path]
    return route ? route(ctx, next) : next()
  }
}

const show: Middleware = (ctx) => {
  const { authMethod, apiKey, user } = ctx.state as onKoa.ApiKeyState
  const state = { authMethod, key: apiKey?.name, user }
  ctx.body = { ...getAuth(ctx), apiKey: undefined, state }
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

describe.each(KOAS)('the guards on %s', (_name, App) => {
  it('let pass what they say and nothing else', async () => {
    const matrix = guardMatrix<Middleware>(onKoa)
    const routes = Object.fromEntries(Object.entries(matrix).map(([path, [guard]]) => [path, guard]))
    const { ask, keyLine } = await start(routes, { App })
    const both = [LOGIN, keyLine]
    const combinations = [[], [LOGIN], [keyLine], [JUNK], both, [LOGIN, JUNK], [...both, JUNK]]
    for (const [path, [, ...expected]] of Object.entries(matrix)) {
      const outcomes = await Promise.all(combinations.map((lines) => outcomeOf(ask, path, lines)))
      expect(outcomes, path).toEqual(expected)
    }
  })

  it('throw what they refuse with refuseWith: error', async () => {
    const { ask } = await start({ '/': requireSession({ refuseWith: 'error' }) }, { App })
    const answer = await ask('/')
    expect([answer.status, answer.header('WWW-Authenticate')]).toEqual([401, 'Session realm="Users"'])
    expect(answer.header('Content-Type')).not.toBe('application/problem+json')
  })
})

const ROUTES = {
  '/session': requireSession(),
  '/key': requireApiKey(),
  '/any': requireAuth({ accept: ['session', 'apikey', 'other'] }),
}

/** How the request was authenticated, and what the routes answer. */
const NONE = ['none', '401 authentication_required', '401 missing_key', '401 authentication_required']
const CONFLICT = ['conflict', '403 session_required', '403 api_key_required', '403 auth_method_not_accepted']
const PROVEN = {
  nobody: NONE,
  login: ['session', 'session', '403 api_key_required', 'session'],
  key: ['apikey', '403 session_required', 'apikey', 'apikey'],
  'login and junk': ['rejected', '403 session_required', '401 invalid_key', '401 invalid_key'],
}

describe('the mark beside ctx.state', () => {
  async function outcomesWith(before: Middleware) {
    const { ask, keyLine } = await start(ROUTES, { before })
    const askers = { nobody: [], login: [LOGIN], key: [keyLine], 'login and junk': [LOGIN, JUNK] }
    const outcomes: Record<string, string[]> = {}
    for (const [who, lines] of Object.entries(askers)) {
      const { method } = (await ask('/', lines)).json()
      const answers = Object.keys(ROUTES).map((path) => outcomeOf(ask, path, lines))
      outcomes[who] = [String(method), ...(await Promise.all(answers))]
    }
    return outcomes
  }

  it.each<[string, (ctx: Context) => void]>([
    ['is assigned to', (ctx) => Object.assign(ctx.state, { authMethod: 'session' })],
    ['is copied', (ctx) => Object.assign(ctx, { state: { ...ctx.state } })],
    [
      'gets other properties',
      (ctx) => Object.assign(ctx.state, { app: 1, session: { passport: { user: 1 } } }),
    ],
  ])('stays where the state %s', async (_what, change) => {
    const outcomes = await outcomesWith((ctx, next) => {
      change(ctx as Context)
      return next()
    })
    expect(outcomes).toEqual(PROVEN)
  })

  it('shows on ctx.state, as plain values', async () => {
    const states: Record<string, unknown> = {}
    const { ask, keyLine } = await start({})
    const askers = { nobody: [], login: [LOGIN], key: [keyLine], both: [LOGIN, keyLine], junk: [LOGIN, JUNK] }
    for (const [who, lines] of Object.entries(askers)) states[who] = (await ask('/', lines)).json().state
    const byKey = { authMethod: 'apikey', key: 'CI', user: { type: 'user', id: 'u_bob' } }
    expect(states).toEqual({
      nobody: {},
      login: { authMethod: 'session', user: { name: 'Alice' } },
      key: byKey,
      both: byKey,
      junk: {},
    })
  })

  it('passes nobody where the state is replaced', async () => {
    const outcomes = await outcomesWith((ctx, next) => {
      ctx.state = {}
      return next()
    })
    expect(outcomes).toEqual({ ...PROVEN, login: NONE, key: CONFLICT })
  })

  it('passes nobody as a session or a key where somebody else sets ctx.state.user', async () => {
    vi.spyOn(process, 'emitWarning').mockReturnValue()
    const outcomes = await outcomesWith((ctx, next) => {
      Object.assign(ctx.state, { user: { name: 'Mallory' }, apiKey: { id: 'forged' } })
      return next()
    })
    const other = ['other', '403 session_required', '403 api_key_required', 'other']
    expect(outcomes).toEqual({ ...PROVEN, nobody: other, login: CONFLICT, key: CONFLICT })
  })

  it('passes nobody in an application that answers inside another, and knows nobody', async () => {
    const { keys } = createTestKeys()
    const inner = silent(new Koa3()).use(byPath(ROUTES)).use(show).callback()
    const outer = silent(new Koa3())
      .use(markSession({ user: memberOf }))
      .use(readKeys(keys))
    outer.use((ctx) => {
      ctx.respond = false
      return inner(ctx.req, ctx.res)
    })
    const ask = await serve(outer.callback())
    const keyLine = `X-Api-Key: ${(await issueKey(keys)).key}`
    expect(await outcomeOf(ask, '/session', [LOGIN])).toBe('401 authentication_required')
    expect(await outcomeOf(ask, '/key', [keyLine])).toBe('403 api_key_required')
    expect(await outcomeOf(ask, '/any', [LOGIN, JUNK])).toBe('401 invalid_key')
  })

  it('is read by every copy of the package', async () => {
    vi.resetModules()
    const copy = await import('latchkey/koa')
    expect(copy.requireApiKey).not.toBe(requireApiKey)
    const { ask, keyLine } = await start({
      '/session': copy.requireSession(),
      '/key': copy.requireApiKey(),
      '/either': copy.requireAuth({ accept: ['session', 'apikey'] }),
    })
    expect(await outcomeOf(ask, '/key', [keyLine])).toBe('apikey')
    expect(await outcomeOf(ask, '/session', [LOGIN])).toBe('session')
    expect(await outcomeOf(ask, '/session', [LOGIN, keyLine])).toBe('403 session_required')
    expect(await outcomeOf(ask, '/either', [LOGIN, JUNK])).toBe('401 invalid_key')
  })

  it('is that of the request over HTTP/2 too, where a key sent twice is two', async () => {
    const { keys } = createTestKeys()
    const app = silent(new Koa3())
      .use(markSession({ user: memberOf }))
      .use(readKeys(keys))
    app.use(byPath(ROUTES)).use(show)
    const { key } = await issueKey(keys)
    const statusOf = await serveHttp2(app)
    expect(await statusOf('/key', { 'x-api-key': key })).toBe(200)
    expect(await statusOf('/session', { 'x-login': '1' })).toBe(200)
    expect(await statusOf('/session', { 'x-login': '1', 'x-api-key': key })).toBe(403)
    expect(await statusOf('/any', { 'x-login': '1', 'x-api-key': 'junk' })).toBe(401)
    expect(await statusOf('/key', { 'x-api-key': [key, key] })).toBe(400)
  })
})

async function serveHttp2(app: Koa3): Promise<(path: string, headers: object) => Promise<number>> {
  const server = createHttp2Server(app.callback())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const client = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  onTestFinished(() => {
    client.destroy()
    server.close()
  })
  return (path, headers) =>
    new Promise((resolve, reject) => {
      const stream = client.request({ ...headers, ':path': path })
      stream.on('response', ({ ':status': status }) => resolve(Number(status)))
      stream.on('error', reject)
      stream.resume()
    })
}

describe('what a programmer of Koa is told', () => {
  it('names markSession, once for each guard, where nothing has marked the user', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { ask } = await start({ '/': requireSession() }, { marks: false })
    for (let i = 0; i < 3; i++) expect(await outcomeOf(ask, '/', [LOGIN])).toBe('403 session_required')
    expect(warn.mock.calls).toEqual([
      [expect.stringContaining('mount markSession()'), { code: 'LATCHKEY_UNMARKED' }],
    ])
  })

  it('names apiKeyAuth, once for each guard, where nothing has verified the key', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { keys } = createTestKeys()
    const app = silent(new Koa3()).use(byPath(ROUTES)).use(apiKeyAuth(keys)).use(show)
    const ask = await serve(app.callback())
    for (let i = 0; i < 3; i++) expect(await outcomeOf(ask, '/key', [JUNK])).toBe('401 missing_key')
    expect(await outcomeOf(ask, '/session', [JUNK])).toBe('403 session_required')
    expect(warn.mock.calls).toEqual([
      [expect.stringMatching(/^requireApiKey\(\) .* mount apiKeyAuth/), { code: 'LATCHKEY_UNVERIFIED' }],
    ])
  })
})

describe('a user under another name than user', () => {
  it('is not what koa-passport makes of userProperty, which it ignores', async () => {
    const { keys } = createTestKeys()
    const passport = new KoaPassport()
    passport.serializeUser((user, done) => done(null, JSON.stringify(user)))
    passport.deserializeUser((text: string, done) => done(null, JSON.parse(text)))
    passport.use(new ApiKeyStrategy({ keys }))
    const app = silent(new Koa3())
    app.use(koaSession(app)).use(passport.initialize({ userProperty: 'account' }))
    app.use(passport.session()).use(markSession())
    app.use(async (ctx, next) => {
      if (ctx.path !== '/login') return next()
      await ctx.login(ALICE)
      ctx.body = ''
    })
    app.use(byPath({ '/session': requireSession(), '/key': passport.authenticate('apikey', {}) }))
    app.use(byPath({ '/key': requireApiKey() })).use(show)
    const ask = await serve(app.callback())
    const login = await ask('/login', [], { method: 'POST' })
    const cookie = `Cookie: ${login
      .all('Set-Cookie')
      .map((line) => line.split(';')[0])
      .join('; ')}`
    const keyLine = `X-Api-Key: ${(await issueKey(keys, { owner: BOB })).key}`
    expect((await ask('/session', [cookie])).json()).toMatchObject({ method: 'session', user: ALICE })
    expect((await ask('/key', [cookie, keyLine])).json()).toMatchObject({ method: 'apikey', user: BOB })
    expect(await outcomeOf(ask, '/session', [cookie, keyLine])).toBe('403 session_required')
  })

  it('is nobody, until markSession is told where it is', async () => {
    const { keys } = createTestKeys()
    const restore: Middleware = (ctx, next) => {
      ctx.state.account = memberOf(ctx as Context)
      return next()
    }
    const untold = silent(new Koa3()).use(restore).use(markSession())
    const told = silent(new Koa3())
      .use(restore)
      .use(markSession({ user: (ctx) => ctx.state.account }))
    const asks = []
    for (const app of [untold, told]) {
      asks.push(await serve(app.use(readKeys(keys)).use(byPath(ROUTES)).use(show).callback()))
    }
    const [askUntold, askTold] = asks as [Ask, Ask]
    expect(await outcomeOf(askUntold, '/session', [LOGIN])).toBe('401 authentication_required')
    expect((await askTold('/session', [LOGIN])).json()).toMatchObject({ method: 'session', user: ALICE })
    expect(await outcomeOf(askTold, '/session', [LOGIN, JUNK])).toBe('403 session_required')
  })
})

describe('koa-passport next to another copy of Passport', () => {
  it('passes nobody by a strategy that the other copy was given, and says which it misses', async () => {
    const { keys } = createTestKeys()
    new Authenticator().use(new ApiKeyStrategy({ keys }))
    const passport = new KoaPassport()
    const app = new Koa3()
    const errors: string[] = []
    app.on('error', (error: Error) => errors.push(error.message))
    app.use(passport.initialize()).use(passport.authenticate('apikey', {})).use(show)
    const ask = await serve(app.callback())
    const keyLine = `X-Api-Key: ${(await issueKey(keys)).key}`
    for (const lines of [[], [keyLine], [JUNK]]) expect((await ask('/', lines)).status).toBe(500)
    expect(errors).toEqual(Array(3).fill('Unknown authentication strategy "apikey"'))
  })

  it('breaks the Passport that it shares with Express, which passes nobody, and spares one of their own', async () => {
    const { keys } = createTestKeys()
    const load = createRequire(createRequire(import.meta.url).resolve('koa-passport'))
    const shared: typeof import('passport') = load('passport')
    const own = new shared.Passport()
    for (const passport of [shared, own]) passport.use(new ApiKeyStrategy({ keys, resolveUser: () => BOB }))
    onTestFinished(() => void shared.unuse('apikey'))
    const app = express()
    app.set('env', 'test')
    const handler: express.RequestHandler = (req, res) => void res.json({ method: getAuthOf(req).method })
    app.get('/shared', shared.authenticate('apikey', {}), handler)
    app.get('/initialized', shared.initialize(), handler)
    app.get('/own', own.initialize(), own.authenticate('apikey', {}), handler)
    const ask = await serve(app)
    const keyLine = `X-Api-Key: ${(await issueKey(keys)).key}`
    for (const lines of [[], [keyLine]]) {
      for (const path of ['/shared', '/initialized']) expect((await ask(path, lines)).status).toBe(500)
    }
    expect((await ask('/own', [keyLine])).json()).toEqual({ method: 'apikey' })
    expect((await ask('/own')).status).toBe(401)
  })
})
