import type { ErrorRequestHandler } from 'express'
import session, { MemoryStore } from 'express-session'
import Koa from 'koa'
import koaPassport from 'koa-passport'
import koaSession from 'koa-session'
import { ApiKeyStrategy, HeaderAPIKeyStrategy } from 'latchkey/passport'
import { type AuthenticateOptions, Authenticator } from 'passport'
import { describe, expect, it } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'

const OPTIONS: readonly (readonly [string, unknown])[] = [
  ['failureMessage', true],
  ['failureMessage', 'nothing for you'],
  ['successMessage', true],
  ['successMessage', 'hello'],
  ['failureFlash', true],
  ['failureFlash', { type: 'error', message: 'no' }],
  ['successFlash', 'hello'],
  ['successReturnToOrRedirect', '/done'],
]

const LINES = ['X-Api-Key: <key>', 'X-Api-Key: junk', 'Accept: */*']

const answerError: ErrorRequestHandler = (error, _req, res, _next) => {
  res.status(500).send(`${error.name}: ${error.message}`)
}

describe.each(EXPRESSES)('what makes Passport change a session on %s', (_name, createApp) => {
  async function start(names: string | string[], options: AuthenticateOptions) {
    const test = createTestKeys({ rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }] })
    const { key } = await issueKey(test.keys)
    const asked: string[] = []
    const passport = new Authenticator()
    passport.use(new ApiKeyStrategy({ keys: test.keys, refuseWith: 'fail' }))
    passport.use(
      new HeaderAPIKeyStrategy({}, false, (text, done) => {
        asked.push(text)
        done(null, text === key && { id: 1 }, { message: 'told' })
      }),
    )
    const store = new MemoryStore()
    const app = createApp()
    app.use(session({ secret: 'test', resave: false, saveUninitialized: false, store }))
    app.use((req, _res, next) => {
      if (req.get('X-Return')) Object.assign(req.session, { returnTo: '/before' })
      Object.assign(req, { flash: () => Object.assign(req.session, { flash: {} }) })
      next()
    })
    app.get('/', passport.authenticate(names, options), (_req, res) => void res.end('passed'))
    app.use(answerError)
    const serverAsk = await serve(app)
    const ask = (line: string) => serverAsk('/', [line.replace('<key>', key)])
    const sessions = () => new Promise((resolve) => store.all?.((_error, all) => resolve(all)))
    return { ...test, ask, asked, sessions }
  }

  describe.each<[string, string | string[]]>([
    ['ApiKeyStrategy', 'apikey'],
    ['HeaderAPIKeyStrategy', 'headerapikey'],
    ['both', ['apikey', 'headerapikey']],
  ])('with %s', (_strategies, names) => {
    it.each(OPTIONS)('is refused by name: %s: %j', async (option, value) => {
      const { ask, asked, sessions, store } = await start(names, { [option]: value })
      store.forgetCalls()
      for (const line of LINES) {
        const answer = await ask(line)
        expect([answer.status, answer.body]).toEqual([
          500,
          expect.stringContaining(`TypeError: "${option}" makes Passport change the session`),
        ])
        expect(answer.header('Set-Cookie')).toBeUndefined()
      }
      expect([asked, store.calls(), await sessions()]).toEqual([[], 0, {}])
    })

    it('is let alone where it is switched off', async () => {
      const off = Object.fromEntries(OPTIONS.map(([option]) => [option, false]))
      const { ask, sessions } = await start(names, { ...off, failureRedirect: '/login' })
      expect((await ask('X-Api-Key: <key>')).body).toBe('passed')
      expect((await ask('X-Api-Key: junk')).status).toBe(302)
      expect(await sessions()).toEqual({})
    })
  })
})

it.each(OPTIONS)('koa-passport is told of %s: %j, too', async (option, value) => {
  const { keys } = createTestKeys()
  const { key } = await issueKey(keys)
  const passport = new koaPassport.KoaPassport()
  passport.use(new ApiKeyStrategy({ keys }) as never)
  const app = new Koa()
  app.keys = ['test']
  app.silent = true
  const seen: unknown[] = []
  app.use(async (_ctx, next) => {
    await next().catch((error: Error) => seen.push(error.message))
  })
  app.use(koaSession(app) as never)
  app.use(passport.authenticate('apikey', { [option]: value } as never))
  const ask: Ask = await serve(app.callback())
  for (const line of LINES) {
    expect((await ask('/', [line.replace('<key>', key)])).header('Set-Cookie')).toBeUndefined()
  }
  expect(seen).toEqual(
    LINES.map(() => expect.stringContaining(`"${option}" makes Passport change the session`)),
  )
})
