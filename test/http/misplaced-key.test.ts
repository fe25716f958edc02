import express, { type RequestHandler } from 'express'
import Koa from 'koa'
import {
  type ApiKeyAuthOptions,
  apiKeyAuth,
  apiKeyErrorHandler,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
} from 'latchkey/express'
import { apiKeyAuth as koaApiKeyAuth, requirePermissions as koaRequirePermissions } from 'latchkey/koa'
import { apiKeyRouter } from 'latchkey/management/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Passport } from 'passport'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { createTestKeys, type TestKeys } from '../support/test-keys.ts'

const HINT =
  'API keys with this prefix are not read from "Authorization: Bearer"; ' +
  'send the key as "X-Api-Key: <key>" or "Authorization: Api-Key <key>"'

const UNREAD = { bearer: false } as const

const end: RequestHandler = (_req, res) => void res.end('passed')

function passportApp({ keys }: TestKeys) {
  const passport = new Passport()
  passport.use(new ApiKeyStrategy({ keys, bearer: false, refuseWith: 'error' }))
  return express().use(passport.authenticate('apikey'), end, apiKeyErrorHandler())
}

/** Applications that refuse a request without a key, each in its own way. */
const DOORS: readonly (readonly [string, (test: TestKeys) => Promise<Ask>])[] = [
  ['apiKeyAuth on Express', ({ keys }) => serve(express().use(apiKeyAuth(keys, UNREAD), end))],
  ['apiKeyAuth on Koa', ({ keys }) => serve(new Koa().use(koaApiKeyAuth(keys, UNREAD)).callback())],
  ['Passport', (test) => serve(passportApp(test))],
  [
    'requireApiKey',
    ({ keys }) =>
      serve(express().use(apiKeyAuth(keys, { ...UNREAD, required: false }), requireApiKey(), end)),
  ],
  [
    'requireAuth',
    ({ keys }) =>
      serve(
        express().use(
          apiKeyAuth(keys, { ...UNREAD, required: false }),
          requireAuth({ accept: ['apikey'] }),
          end,
        ),
      ),
  ],
  [
    'requirePermissions on Koa',
    ({ keys }) => {
      const app = new Koa()
      app
        .use(koaApiKeyAuth(keys, { ...UNREAD, required: false }))
        .use(koaRequirePermissions({ projects: ['read'] }))
      return serve(app.callback())
    },
  ],
]

describe.each(DOORS)('a key as a Bearer token, where those are not read, with %s', (_name, start) => {
  it('is refused with a hint, a reason, and without a look at anything', async () => {
    const test = createTestKeys()
    const { key } = await issueKey(test.keys)
    test.store.forgetCalls()
    test.events.length = 0
    const ask = await start(test)
    const answers = await Promise.all(
      [key, `${key.slice(0, -1)}-`, 'acme_test_', 'acme_test_0'].map((token) =>
        ask('/', [`authorization: bearer  ${token}`]),
      ),
    )
    for (const answer of answers) {
      expect(answer.status).toBe(401)
      expect(answer.header('WWW-Authenticate')).toBe('Api-Key realm="Users"')
      expect(answer.json()).toEqual({
        type: 'urn:problem-type:latchkey:missing_key',
        title: 'An API key is required',
        status: 401,
        code: 'missing_key',
        detail: HINT,
      })
    }
    expect(test.store.calls()).toBe(0)
    expect(test.events).toEqual(
      answers.map(() => ({
        type: 'key.refused',
        at: expect.any(Date),
        code: 'missing_key',
        reason: 'bearer_not_read',
        keyId: null,
        owner: null,
        ip: '127.0.0.1',
      })),
    )
  })

  it.each([
    'Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln',
    'Authorization: Bearer acme_tester',
    'Authorization: Bearer acme_test',
    'Authorization: Bearer  ',
    'Authorization: Basic acme_test_0',
    'Authorization: acme_test_0',
    'Authorization: Bearer x acme_test_0',
    'Cookie: bearer=acme_test_0',
  ])('is not seen in %s', async (line) => {
    const test = createTestKeys()
    const ask = await start(test)
    const answer = await ask('/', [line])
    expect(answer.json()).not.toHaveProperty('detail')
    expect(answer.json()).toMatchObject({ code: 'missing_key' })
    expect(test.events).toEqual([])
  })
})

describe('what looks like a key in a Bearer token', () => {
  const BEARER = 'Authorization: Bearer acme_test_0'

  it.each<[ApiKeyAuthOptions, string]>([
    [
      { headers: ['X-Token', 'X-Key'], scheme: false },
      '; send the key as "X-Token: <key>" or "X-Key: <key>"',
    ],
    [{ headers: [], scheme: 'Acme' }, '; send the key as "Authorization: Acme <key>"'],
    [{ headers: [], scheme: false }, ''],
    [{ headers: [], bearer: ['old'] }, '; send the key as "Authorization: Api-Key <key>"'],
  ])('is answered with the places that are read: %j', async (options, advice) => {
    const { keys } = createTestKeys()
    const ask = await serve(express().use(apiKeyAuth(keys, { ...UNREAD, ...options }), end))
    expect((await ask('/', [BEARER])).json().detail).toBe(
      `API keys with this prefix are not read from "Authorization: Bearer"${advice}`,
    )
  })

  it('passes where no key is needed, and is no event', async () => {
    const { keys, events } = createTestKeys()
    const ask = await serve(express().use(apiKeyAuth(keys, { ...UNREAD, required: false }), end))
    expect((await ask('/', [BEARER])).body).toBe('passed')
    expect(events).toEqual([])
  })

  it.each<[string, RequestHandler]>([
    ['a key', requireApiKey()],
    ['a session or a key', requireAuth({ accept: ['session', 'apikey'] })],
    [
      'a session or a key from some headers',
      requireAuth({ accept: ['session', 'apikey'], headers: ['X-Api-Key'] }),
    ],
    [
      'a key, though a gateway adds one',
      requireAuth({ accept: ['session', 'apikey'], ignorePresentedKey: true }),
    ],
    ['a session or a permission', requirePermissions({ a: ['b'] }, { accept: ['session'] })],
  ])('is told where to go by a guard that takes %s', async (_what, guard) => {
    const { keys, eventsOf } = createTestKeys()
    const optional = apiKeyAuth(keys, { ...UNREAD, required: false })
    const ask = await serve(express().use(optional, guard, end))
    const answer = await ask('/', [BEARER])
    expect([answer.status, answer.json()]).toMatchObject([401, { code: 'missing_key', detail: HINT }])
    expect(eventsOf('key.refused')).toMatchObject([{ code: 'missing_key', reason: 'bearer_not_read' }])
  })

  it('passes by a key that was sent where it is read', async () => {
    const { keys, events } = createTestKeys()
    const { key } = await issueKey(keys)
    events.length = 0
    const ask = await serve(express().use(apiKeyAuth(keys, UNREAD), end))
    expect((await ask('/', [BEARER, `X-Api-Key: ${key}`])).body).toBe('passed')
    expect(events).toEqual([])
  })

  it('is left to whoever reads it, where these keys name no prefix', async () => {
    const { verify } = createTestKeys().keys
    const ask = await serve(express().use(apiKeyAuth({ verify }), end))
    expect((await ask('/', [BEARER])).json()).not.toHaveProperty('detail')
  })

  it('is an event of the management only where a key is needed', async () => {
    const { keys, eventsOf } = createTestKeys()
    const app = express().use('/api-keys', apiKeyRouter(keys, { ...UNREAD, actor: () => null }))
    const ask = await serve(app)
    expect((await ask('/api-keys', [BEARER])).json()).toMatchObject({ code: 'authentication_required' })
    expect(eventsOf('key.refused')).toEqual([])
    expect((await ask('/api-keys/self', [BEARER])).json()).toMatchObject({
      code: 'missing_key',
      detail: HINT,
    })
    expect(eventsOf('key.refused')).toMatchObject([{ code: 'missing_key', reason: 'bearer_not_read' }])
  })

  it('is told so, and decides, where another middleware of this process reads such tokens', async () => {
    const { keys } = createTestKeys()
    // The last test of this file: from here on, the process reads such tokens.
    apiKeyAuth(keys)
    const app = express()
    app.use('/login', markSession({ user: () => ({ id: 'u_1' }) }))
    app.use(apiKeyAuth(keys, { ...UNREAD, required: false }))
    app.use(requireAuth({ accept: ['session', 'apikey'] }), end)
    const ask = await serve(app)
    for (const path of ['/', '/login']) {
      const answer = await ask(path, [BEARER])
      expect([answer.status, answer.json()]).toMatchObject([401, { code: 'missing_key', detail: HINT }])
    }
    expect((await ask('/login')).body).toBe('passed')
  })
})
