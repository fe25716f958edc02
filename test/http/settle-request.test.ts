import express, { type ErrorRequestHandler, type RequestHandler } from 'express'
import { type ApiKeys, type ApiKeyVerifier, memoryRateLimiter, type RateLimiter } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler, refund } from 'latchkey/express'
import { ApiKeyStrategy, refund as refundByPassport } from 'latchkey/passport'
import { Authenticator } from 'passport'
import { describe, expect, it, vi } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'

const LIMIT = { name: 'minute', limit: 10, windowMs: 60_000 }

type Handler = RequestHandler | ErrorRequestHandler

/** A middleware that authenticates by one of the ways there are. */
type Way = (keys: ApiKeyVerifier, options?: { cost?: number }) => RequestHandler

const byMiddleware: Way = (keys, options) => apiKeyAuth(keys, options)
const byPassport: Way = (keys, options = {}) => {
  const passport = new Authenticator()
  passport.use(new ApiKeyStrategy({ keys }))
  return passport.authenticate('apikey', { session: false, ...options })
}

const WAYS = EXPRESSES.flatMap(([name, createApp]) => [
  [`apiKeyAuth on ${name}`, createApp, byMiddleware, refund] as const,
  [`Passport on ${name}`, createApp, byPassport, refundByPassport] as const,
])

const pass: RequestHandler = (_req, _res, next) => next()

/** Goes on behind a refusal, as an application may. */
function refuseAndGoOn(options: { cost?: number } = {}): (keys: ApiKeys) => Handler[] {
  const goOn: ErrorRequestHandler = (_error, _req, _res, next) => next()
  return (keys) => [apiKeyAuth(keys, { refuseWith: 'error', ...options }), goOn]
}

/** An application with these handlers; the last one shows what `refund` answered, as often as it is called. */
async function start(
  handlers: (keys: ApiKeys) => Handler[],
  {
    createApp = express,
    giveBack = refund,
    times = 1,
    ...options
  }: {
    createApp?: typeof express
    giveBack?: typeof refund
    times?: number
    rateLimiter?: RateLimiter
  } = {},
) {
  const test = createTestKeys({ rateLimits: [LIMIT], ...options })
  const app = createApp()
  for (const handler of handlers(test.keys)) app.use(handler as RequestHandler)
  app.use((req, res, next) => {
    const answers = (async () => {
      const made = []
      for (let i = 0; i < times; i++) made.push(await giveBack(req))
      res.json(made)
    })()
    answers.catch(next)
  })
  app.use(apiKeyErrorHandler())
  const ask = await serve(app)
  const { key } = await issueKey(test.keys)
  const left = async () => {
    const result = await test.keys.verify(key, { cost: 0 })
    return result.ok ? result.limits[0]?.remaining : result.code
  }
  return { ...test, key, left, askWithKey: () => ask('/', [`X-Api-Key: ${key}`]), ask }
}

describe.each(WAYS)('a refund of a request that was verified by %s', (_way, createApp, way, giveBack) => {
  it('gives back what it has spent, once', async () => {
    const parts = { createApp, giveBack, times: 3 }
    const { askWithKey, left, keys, key } = await start((keys) => [way(keys, { cost: 4 })], parts)
    await keys.verify(key, { cost: 5 })
    const answer = await askWithKey()
    expect(answer.json()).toEqual([true, false, false])
    // The response had not begun.
    expect(answer.header('RateLimit')).toBe('"minute";r=5;t=60')
    expect(await left()).toBe(5)
  })

  it('is false where it has spent nothing', async () => {
    const { askWithKey, left } = await start((keys) => [way(keys, { cost: 0 })], { createApp, giveBack })
    expect((await askWithKey()).json()).toEqual([false])
    expect(await left()).toBe(10)
  })

  it('is unavailable where the limiter cannot be told', async () => {
    const { askWithKey, limiter, left } = await start((keys) => [way(keys)], { createApp, giveBack })
    vi.spyOn(limiter as Required<RateLimiter>, 'settle').mockImplementation(() =>
      Promise.reject(new Error('connection refused')),
    )
    const answer = await askWithKey()
    expect(answer.status).toBe(503)
    expect(answer.json()).toMatchObject({ code: 'unavailable' })
    expect(await left()).toBe(9)
  })

  it('is unsupported where the limiter cannot give back', async () => {
    const { settle: _settle, ...rateLimiter } = memoryRateLimiter()
    const parts = { createApp, giveBack, rateLimiter }
    const { askWithKey, left } = await start((keys) => [way(keys)], parts)
    const answer = await askWithKey()
    expect(answer.status).toBe(501)
    expect(answer.json()).toMatchObject({ code: 'unsupported' })
    expect(await left()).toBe(9)
  })
})

describe('a refund of a request', () => {
  it.each([
    ['that nothing has verified', () => [pass], []],
    ['without a key', (keys: ApiKeys) => [apiKeyAuth(keys, { required: false })], []],
    ['with a bad key', refuseAndGoOn(), ['X-Api-Key: junk']],
  ])('%s is false', async (_what, handlers, lines) => {
    const { ask } = await start(handlers)
    expect((await ask('/', lines)).json()).toEqual([false])
  })

  it('that a limit has refused is false', async () => {
    const { askWithKey, left } = await start(refuseAndGoOn({ cost: 11 }))
    expect((await askWithKey()).json()).toEqual([false])
    expect(await left()).toBe(10)
  })

  const PAIRS: [string, Way, Way][] = [
    ['apiKeyAuth again and again', byMiddleware, byMiddleware],
    ['apiKeyAuth, Passport and apiKeyAuth', byMiddleware, byPassport],
    ['Passport, apiKeyAuth and Passport', byPassport, byMiddleware],
    ['Passport again and again', byPassport, byPassport],
  ]
  it.each(PAIRS)('that was verified by %s is made once', async (_ways, first, second) => {
    for (const [costs, spent] of [
      [[4, 4, 0], 4],
      [[0, 4, 0], 4],
      [[4, 0, 0], 4],
      [[0, 4, 4], 4],
      [[3, 5, 4], 3],
    ] as const) {
      const ways = [first, second, first]
      const given = (keys: ApiKeys) => ways.map((way, i) => way(keys, { cost: costs[i] as number }))
      const { askWithKey, left, limiter, keys, key } = await start(given, { times: 2 })
      await keys.verify(key, { cost: 6 })
      const check = vi.spyOn(limiter, 'check')
      const answer = await askWithKey()
      expect(check.mock.calls.map(([{ cost }]) => cost).filter((cost) => cost > 0)).toEqual([spent])
      expect(answer.header('RateLimit')).toMatch(/^"minute";r=4(;|$)/)
      expect(answer.json()).toEqual([true, false])
      expect(await left()).toBe(4)
    }
  })

  it('is made by either door, whichever has verified it', async () => {
    const parts = { giveBack: refundByPassport, times: 2 }
    const { askWithKey, left } = await start((keys) => [byMiddleware(keys)], parts)
    expect((await askWithKey()).json()).toEqual([true, false])
    expect(await left()).toBe(10)
  })

  it('reaches each of the keys that have verified it', async () => {
    const both = await start((keys) => [byMiddleware(keys, { cost: 4 }), byOther], { times: 2 })
    // The same key, as another service with a limiter of its own knows it.
    const other = createTestKeys({ rateLimits: [LIMIT], store: both.store, clock: both.clock })
    const otherAuth = byMiddleware(other.keys, { cost: 3 })
    function byOther(...args: Parameters<RequestHandler>) {
      return otherAuth(...args)
    }
    expect((await both.askWithKey()).json()).toEqual([true, false])
    expect(await both.left()).toBe(10)
    expect(await other.keys.verify(both.key, { cost: 10 })).toMatchObject({ ok: true })
  })

  it('that a verifier without refunds has verified is false', async () => {
    const { keys } = createTestKeys({ rateLimits: [LIMIT] })
    const { key } = await issueKey(keys)
    const plain: ApiKeyVerifier = { prefix: 'acme_test', verify: keys.verify }
    const app = express()
    app.use(byMiddleware(plain), async (req, res) => {
      res.json([await refund(req)])
    })
    const ask = await serve(app)
    expect((await ask('/', [`X-Api-Key: ${key}`])).json()).toEqual([false])
  })

  it('leaves the other requests of the key as they are', async () => {
    const { askWithKey, left, keys, key } = await start((keys) => [byMiddleware(keys, { cost: 2 })])
    await keys.verify(key)
    await Promise.all([askWithKey(), askWithKey(), askWithKey()])
    expect(await left()).toBe(9)
  })
})
