import type Koa from 'koa'
import type { Context, Middleware } from 'koa'
import passport from 'koa-passport'
import session from 'koa-session'
import { type ApiKeysOptions, isLatchkeyError } from 'latchkey'
import { apiKeyErrorHandler, getAuth, refund, requireApiKey, requireAuth } from 'latchkey/koa'
import { ApiKeyStrategy, type ApiKeyStrategyOptions, type VerifyDone } from 'latchkey/passport'
import { Authenticator, type Strategy } from 'passport'
import { Strategy as PassportStrategy } from 'passport-strategy'
import { describe, expect, it, vi } from 'vitest'
import { BARE, INVALID } from '../support/challenges.ts'
import { issueKey, issueWarmKey } from '../support/issue-key.ts'
import { KOAS } from '../support/koas.ts'
import { serve } from '../support/raw-http.ts'
import { rejects } from '../support/recording-store.ts'
import { BOB, createTestKeys } from '../support/test-keys.ts'

const LIMIT = { name: 'minute', limit: 10, windowMs: 60_000 }
const TOKEN_USER = { name: 'Token' }

interface Parts {
  Koa: typeof Koa
  keys?: Partial<Omit<ApiKeysOptions, 'clock' | 'store'>>
  strategy?: Partial<ApiKeyStrategyOptions>
  withSession?: boolean
  /** What stands before koa-passport. */
  before?: Middleware[]
}

/** koa-passport with the strategies `apikey` and `token`, which succeeds or fails as `X-Token` says. */
async function start({ Koa, keys, strategy, withSession, before = [] }: Parts) {
  const test = createTestKeys(keys)
  const koaPassport = new passport.KoaPassport()
  koaPassport.serializeUser((user, done) => done(null, JSON.stringify(user)))
  koaPassport.deserializeUser((text: string, done) => done(null, JSON.parse(text)))
  koaPassport.use(
    new ApiKeyStrategy({ keys: test.keys, refuseWith: 'fail', ...strategy }) as unknown as Strategy,
  )
  koaPassport.use('token', new TokenStrategy())
  const app = new Koa()
  app.keys = ['test']
  for (const middleware of before) app.use(middleware)
  if (withSession) app.use(session(app))
  app.use(koaPassport.initialize())
  if (withSession) app.use(koaPassport.session())
  const ask = await serve((req, res) => void app.callback()(req, res))
  const issued = await issueKey(test.keys, { owner: BOB, permissions: { projects: ['read'] } })
  const line = `X-Api-Key: ${issued.key}`
  const use = (...middlewares: Middleware[]) => {
    for (const middleware of [...middlewares, show]) app.use(middleware)
  }
  return { ...test, app, use, ask, issued, line, passport: koaPassport }
}

class TokenStrategy extends PassportStrategy {
  override authenticate(req: { headers: Record<string, unknown> }): void {
    if (req.headers['x-token'] === 'good') this.success(TOKEN_USER)
    else (this.fail as unknown as (challenge: string) => void)('Token')
  }
}

const show: Middleware = (ctx) => {
  const { user, apiKey, authMethod } = ctx.state
  ctx.body = { method: getAuth(ctx).method, user, keyId: apiKey?.id, authMethod }
}

/** What Koa writes to stderr, which this test keeps to itself. */
function watchStderr(): () => string {
  const spy = vi.spyOn(console, 'error').mockImplementation(() => {})
  return () => spy.mock.calls.flat().join('\n')
}

const TEMPERATURES = [
  ['warm', undefined],
  ['cold', { cache: false }],
] as const

describe.each(KOAS)('koa-passport on %s', (_name, Koa) => {
  describe('refuses', () => {
    it.each([
      ['no key', [], {}, 401, 'Unauthorized', [BARE]],
      ['a bad key', ['X-Api-Key: junk'], {}, 401, 'Unauthorized', [INVALID]],
      ['two keys', ['X-Api-Key: a', 'X-Api-Key: b'], {}, 400, 'Bad Request', []],
      ['missing permissions', null, { permissions: { projects: ['write'] } }, 403, 'Forbidden', []],
    ])(
      '%s with the text and the challenge of Passport',
      async (_what, lines, options, status, body, challenges) => {
        const { ask, use, line, passport } = await start({ Koa })
        use(passport.authenticate('apikey', options))
        const answer = await ask('/', lines ?? [line])
        expect(answer).toMatchObject({ status, body })
        expect(answer.all('WWW-Authenticate')).toEqual(challenges)
        expect(answer.all('Cache-Control')).toEqual(['no-store'])
        expect(answer.all('Set-Cookie')).toEqual([])
      },
    )

    describe.each([
      ['Koa itself', [], 'text/plain; charset=utf-8'],
      ['apiKeyErrorHandler', [apiKeyErrorHandler()], 'application/problem+json'],
    ])('by an error that %s renders', (_renderer, before, type) => {
      it('a key at its limit', async () => {
        const stderr = watchStderr()
        const { ask, use, keys, passport } = await start({ Koa, before })
        use(passport.authenticate('apikey', { cost: 2 }))
        const issued = await issueKey(keys, { rateLimits: [LIMIT] })
        await keys.verify(issued.key, { cost: 9 })
        const answer = await ask('/', [`X-Api-Key: ${issued.key}`])
        expect(answer.status).toBe(429)
        expect(answer.all('Retry-After')).toEqual(['60'])
        expect(answer.all('RateLimit')).toEqual(['"minute";r=1;t=60'])
        expect(answer.all('RateLimit-Policy')).toEqual(['"minute";q=10;w=60'])
        expect(answer.all('Cache-Control')).toEqual(['no-store'])
        expect(answer.all('Content-Type')).toEqual([type])
        expect(stderr()).toBe('')
      })

      it('every key while the store is down', async () => {
        watchStderr()
        const { ask, use, line, store, passport } = await start({ Koa, before })
        use(passport.authenticate(['apikey', 'token']))
        store.fail('find', rejects(new Error('connection to 10.0.0.5 refused')))
        const answer = await ask('/', [line, 'X-Token: good'])
        expect(answer.status).toBe(503)
        expect(answer.all('Cache-Control')).toEqual(['no-store'])
        expect(answer.all('Content-Type')).toEqual([type])
        expect(answer.text).not.toContain('10.0.0.5')
      })

      it('a bad key, with refuseWith: error', async () => {
        const stderr = watchStderr()
        const { ask, use, passport } = await start({ Koa, before, strategy: { refuseWith: 'error' } })
        use(passport.authenticate(['apikey', 'token']))
        const answer = await ask('/', ['X-Api-Key: junk', 'X-Token: good'])
        expect(answer.status).toBe(401)
        expect(answer.all('WWW-Authenticate')).toEqual([INVALID])
        expect(answer.all('Cache-Control')).toEqual(['no-store'])
        expect(answer.all('Content-Type')).toEqual([type])
        expect(stderr()).toBe('')
      })
    })

    it('at our guards what another strategy of the array has let pass, where the key was bad', async () => {
      for (const names of [
        ['apikey', 'token'],
        ['token', 'apikey'],
      ]) {
        const { ask, use, passport } = await start({ Koa })
        use(passport.authenticate(names, { session: false }), async (ctx, next) => {
          if (ctx.path === '/guarded')
            await requireAuth({ accept: ['apikey', 'session', 'other'] })(ctx, next)
          else await next()
        })
        const passed = await ask('/', ['X-Api-Key: junk', 'X-Token: good'])
        expect(passed.json()).toMatchObject({ user: TOKEN_USER })
        expect(passed.json().authMethod).not.toBe('apikey')
        expect((await ask('/guarded', ['X-Api-Key: junk', 'X-Token: good'])).status).toBeGreaterThanOrEqual(
          401,
        )
        expect((await ask('/guarded', ['X-Token: good'])).json()).toMatchObject({ method: 'other' })
      }
    })
  })

  describe.each(TEMPERATURES)('admits a key, verified %s,', (_temperature, keyOptions) => {
    it('with key, user and method on ctx.state, where guards find them', async () => {
      const keyParts = { rateLimits: [LIMIT], ...keyOptions }
      const { ask, use, issued, line, keys, passport } = await start({ Koa, keys: keyParts })
      use(passport.authenticate('apikey'), requireApiKey({ keys, permissions: { projects: ['read'] } }))
      for (const left of [9, 8]) {
        const answer = await ask('/', [line])
        expect(answer.json()).toEqual({
          method: 'apikey',
          user: BOB,
          keyId: issued.apiKey.id,
          authMethod: 'apikey',
        })
        expect(answer.header('RateLimit')).toBe(`"minute";r=${left};t=60`)
        expect(answer.all('Cache-Control')).toEqual([])
      }
    })

    it.each<[string, object]>([
      ['no options', {}],
      ['session: true', { session: true }],
      ['keepSessionInfo: true', { session: true, keepSessionInfo: true }],
    ])('and never begins, changes or ends a session: %s', async (_what, options) => {
      const { app, ask, use, line, passport } = await start({
        Koa,
        withSession: true,
        ...(keyOptions && { keys: keyOptions }),
      })
      const logIn = passport.authenticate('token')
      app.use((ctx, next) => (ctx.path === '/login' ? logIn(ctx, next) : next()))
      const byKey = passport.authenticate(['apikey', 'token'], options)
      use((ctx, next) => (ctx.path === '/by-key' ? byKey(ctx, next) : next()))
      const login = await ask('/login', ['X-Token: good'])
      const cookie = `Cookie: ${login
        .all('Set-Cookie')
        .map((value) => value.split(';')[0])
        .join('; ')}`
      expect((await ask('/', [cookie])).json()).toMatchObject({ user: TOKEN_USER })
      for (const lines of [[line], [line, cookie]]) {
        const answer = await ask('/by-key', lines)
        expect(answer.json()).toMatchObject({ method: 'apikey', user: BOB })
        expect(answer.all('Set-Cookie')).toEqual([])
      }
      expect((await ask('/by-key', [cookie, 'X-Api-Key: junk'])).all('Set-Cookie')).toEqual([])
      expect((await ask('/', [cookie])).json()).toMatchObject({ user: TOKEN_USER })
    })
  })

  it('never crosses requests', async () => {
    const { ask, use, keys, passport } = await start({ Koa, keys: { cache: false } })
    use(passport.authenticate('apikey'))
    const owners = Array.from({ length: 30 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
    const issued = await Promise.all(owners.map((owner) => issueWarmKey(keys, { owner })))
    const answers = await Promise.all(
      issued.map(({ key }, i) => ask('/', [`X-Api-Key: ${i % 3 === 0 ? 'junk' : key}`])),
    )
    for (const [i, answer] of answers.entries()) {
      if (i % 3 === 0) expect(answer.status).toBe(401)
      else expect(answer.json()).toMatchObject({ user: owners[i], keyId: issued[i]?.apiKey.id })
    }
  })

  it('hands a verify callback a request that leads to the context', async () => {
    const test = createTestKeys()
    const koaPassport = new passport.KoaPassport()
    const verify = (req: { ctx: Context }, _apiKey: unknown, done: VerifyDone) =>
      done(null, { name: req.ctx.get('X-Name') })
    const strategy = new ApiKeyStrategy({ keys: test.keys, passReqToCallback: true }, verify)
    koaPassport.use(strategy as unknown as Strategy)
    const app = new Koa()
    app.use(koaPassport.authenticate('apikey')).use(show)
    const ask = await serve(app.callback())
    const { key } = await issueKey(test.keys)
    expect((await ask('/', [`X-Api-Key: ${key}`, 'X-Name: Bob'])).json()).toMatchObject({
      method: 'apikey',
      user: { name: 'Bob' },
    })
  })

  it('tells a callback made for the request how it was decided, and leaves a login it asks for alone', async () => {
    const { ask, use, line, passport } = await start({ Koa, withSession: true })
    const told: unknown[] = []
    use((ctx, next) => {
      if (ctx.path === '/me') return next()
      return passport.authenticate('apikey', async (...args: unknown[]) => {
        told.push(args.slice(0, 4))
        const [error, user] = args
        if (error) throw error
        if (user) await ctx.login(user)
        ctx.body = { user, method: getAuth(ctx).method }
      })(ctx, next)
    })
    const good = await ask('/', [line])
    expect(good.json()).toEqual({ user: BOB, method: 'apikey' })
    const cookie = `Cookie: ${good
      .all('Set-Cookie')
      .map((value) => value.split(';')[0])
      .join('; ')}`
    expect((await ask('/me', [cookie])).json()).toMatchObject({ user: BOB })
    expect((await ask('/', ['X-Api-Key: junk'])).json()).toEqual({ user: false, method: 'rejected' })
    expect(told[1]).toEqual([null, false, INVALID, undefined])
  })

  it.each(['assignProperty', 'authorize'])('leaves no mark by %s', async (way) => {
    const { ask, use, line, passport } = await start({ Koa })
    use(
      way === 'authorize'
        ? passport.authorize('apikey', {})
        : passport.authenticate('apikey', { assignProperty: 'account' }),
      (ctx, next) => {
        ctx.set('X-Account', ctx.state.account.id)
        return next()
      },
    )
    const answer = await ask('/', [line])
    expect(answer.json()).toEqual({ method: 'none' })
    expect(answer.header('X-Account')).toBe(BOB.id)
  })

  it('spends once, and gives back by the context', async () => {
    const { ask, use, line, keys, issued, passport } = await start({ Koa, keys: { rateLimits: [LIMIT] } })
    use(passport.authenticate('apikey', { cost: 4 }), passport.authenticate('apikey'), async (ctx, next) => {
      if (ctx.path === '/fails') ctx.set('X-Given', String(await refund(ctx)))
      await next()
    })
    expect((await ask('/', [line])).status).toBe(200)
    expect(await keys.verify(issued.key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 6 }] })
    expect((await ask('/fails', [line])).header('X-Given')).toBe('true')
    expect(await keys.verify(issued.key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 6 }] })
  })

  /** What koa-passport itself does; `apiKeyAuth` of `latchkey/koa` has none of these limits. */
  describe('has limits that are koa-passport’s own:', () => {
    it('failWithError loses the challenge, which Koa takes away with all other fields', async () => {
      watchStderr()
      const { ask, use, passport } = await start({ Koa })
      use(passport.authenticate('apikey', { failWithError: true }))
      const answer = await ask('/', ['X-Api-Key: junk'])
      expect(answer.status).toBe(401)
      expect(answer.all('WWW-Authenticate')).toEqual([])
      expect(answer.all('Cache-Control')).toEqual(['no-store'])
    })

    it('a callback that requests share answers one of two that come at once', async () => {
      const { ask, use, store, line, passport } = await start({ Koa, keys: { cache: false } })
      use((ctx, next) => (ctx.path === '/alone' ? next() : shared(ctx, next)))
      const shared = passport.authenticate('apikey', () => {})
      let release = () => {}
      const gate = new Promise<void>((resolve) => {
        release = resolve
      })
      let waiting = 0
      store.fail('find', async (work) => {
        waiting += 1
        await gate
        return work()
      })
      const answered: string[] = []
      const both = ['/one', '/two'].map((path) =>
        ask(path, [line]).then(
          () => answered.push(path),
          () => {},
        ),
      )
      await vi.waitFor(() => expect(waiting).toBeGreaterThan(0))
      release()
      await Promise.race(both)
      expect((await ask('/alone')).status).toBe(200)
      expect(answered).toHaveLength(1)
    })

    it('a strategy that another copy of Passport was given is unknown to it: nobody passes, and Koa says why', async () => {
      const stderr = watchStderr()
      const test = createTestKeys()
      const other = new Authenticator()
      other.use(new ApiKeyStrategy({ keys: test.keys, refuseWith: 'fail' }) as unknown as Strategy)
      const koaPassport = new passport.KoaPassport()
      const app = new Koa()
      app.use(koaPassport.authenticate('apikey')).use(show)
      const ask = await serve(app.callback())
      const { key } = await issueKey(test.keys)
      expect((await ask('/', [`X-Api-Key: ${key}`])).status).toBe(500)
      expect(stderr()).toContain('Unknown authentication strategy "apikey"')
    })
  })

  it('hands errors over that are known by their brand', async () => {
    let seen: unknown
    const remember: Middleware = (_ctx, next) =>
      next().catch((error: unknown) => {
        seen = error
      })
    const { ask, use, passport } = await start({ Koa, before: [remember], strategy: { refuseWith: 'error' } })
    use(passport.authenticate('apikey'))
    await ask('/', ['X-Api-Key: junk'])
    expect(isLatchkeyError(seen) && seen.code).toBe('invalid_key')
  })
})
