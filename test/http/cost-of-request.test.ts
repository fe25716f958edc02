import express, { type Request } from 'express'
import type { Middleware } from 'koa'
import type { ApiKeys, ApiKeyVerifier, Cost } from 'latchkey'
import * as onExpress from 'latchkey/express'
import * as onKoa from 'latchkey/koa'
import { ApiKeyStrategy, settle as settleByPassport } from 'latchkey/passport'
import { Authenticator } from 'passport'
import { describe, expect, it, vi } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { KOAS } from '../support/koas.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { createTestKeys, forgeKey } from '../support/test-keys.ts'

const MINUTE = { name: 'minute', limit: 10, windowMs: 60_000 } as const
const TOKENS = { name: 'tokens', limit: 1_000, windowMs: 60_000, only: 'named' } as const

/** A route: what it costs, and what it is settled to before the response and after its beginning. */
interface Route {
  cost?: Cost | ((request: { url: string }) => Cost | Promise<Cost>)
  settled?: Cost
  settledLate?: Cost
}

type Door = (keys: ApiKeys, route: Route) => Promise<Ask>

function expressDoor(
  createApp: typeof express,
  auth: (keys: ApiKeyVerifier, route: Route) => express.RequestHandler,
  settle: typeof onExpress.settle,
): Door {
  return (keys, route) => {
    const app = createApp()
    app.use(auth(keys, route), (req, res, next) => {
      const run = async () => {
        if (route.settled !== undefined) await settle(req, route.settled)
        res.write('{')
        if (route.settledLate !== undefined) await settle(req, route.settledLate)
        res.end('}')
      }
      run().catch(next)
    })
    app.use(onExpress.apiKeyErrorHandler())
    return serve(app)
  }
}

const byMiddleware = (keys: ApiKeyVerifier, { cost }: Route) =>
  onExpress.apiKeyAuth(keys, { ...(cost !== undefined && { cost }) })

function byPassport(keys: ApiKeyVerifier, { cost }: Route): express.RequestHandler {
  const passport = new Authenticator()
  passport.use(new ApiKeyStrategy({ keys }))
  const given = typeof cost === 'function' ? (req: Request) => cost(req) : cost
  return passport.authenticate('apikey', { session: false, ...(given !== undefined && { cost: given }) })
}

const DOORS: [string, Door][] = [
  ...EXPRESSES.flatMap(([name, createApp]): [string, Door][] => [
    [`apiKeyAuth on ${name}`, expressDoor(createApp, byMiddleware, onExpress.settle)],
    [`Passport on ${name}`, expressDoor(createApp, byPassport, settleByPassport)],
  ]),
  ...KOAS.map(([name, Koa]): [string, Door] => [
    `apiKeyAuth on ${name}`,
    (keys, { cost, settled, settledLate }) => {
      const app = new Koa()
      app.use(onKoa.apiKeyErrorHandler() as Middleware)
      app.use(onKoa.apiKeyAuth(keys, { ...(cost !== undefined && { cost }) }) as Middleware)
      app.use(async (ctx) => {
        if (settled !== undefined) await onKoa.settle(ctx, settled)
        ctx.body = '{}'
        if (settledLate === undefined) return
        ctx.flushHeaders()
        await onKoa.settle(ctx, settledLate)
      })
      return serve(app.callback())
    },
  ]),
]

describe.each(DOORS)('%s', (_name, door) => {
  async function start(route: Route, options: Parameters<typeof createTestKeys>[0] = {}) {
    const test = createTestKeys({ rateLimits: [MINUTE, TOKENS], ...options })
    const { key } = await issueKey(test.keys)
    const ask = await door(test.keys, route)
    const left = async () => {
      const result = await test.keys.verify(key, { cost: 0 })
      return result.ok && result.limits.map(({ remaining }) => remaining)
    }
    return {
      ...test,
      key,
      left,
      askWith: (text: string) => ask('/', [`X-Api-Key: ${text}`]),
      ask: (path = '/') => ask(path, [`X-Api-Key: ${key}`]),
      askWithoutKey: () => ask('/'),
    }
  }

  it.each<[string, Route['cost']]>([
    [
      'throws',
      () => {
        throw new Error('no such model')
      },
    ],
    ['rejects', () => Promise.reject(new Error('no such model'))],
    ['answers nothing', () => undefined as never],
    ['answers a text', () => '5' as never],
    ['answers a fraction', () => ({ tokens: 1.5 })],
    ['answers less than nothing', () => -1],
    ['names a limit that nobody has', () => ({ token: 1 })],
  ])('answers 503 with an event and spends nothing if the cost %s', async (_what, cost) => {
    const { ask, left, eventsOf } = await start({ cost })
    const answer = await ask()
    expect(answer.status).toBe(503)
    expect(answer.json()).toMatchObject({ code: 'unavailable' })
    expect(answer.body).not.toContain('model')
    expect(eventsOf('fault')).toHaveLength(1)
    expect(['cost', 'verify']).toContain(eventsOf('fault')[0]?.operation)
    expect(await left()).toEqual([10, 1_000])
  })

  it('never asks for the cost of a request whose key is refused', async () => {
    const cost = vi.fn(() => -1)
    const { askWith, key, left, eventsOf } = await start({ cost })
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    for (const bad of [wrong, `${key}x`, 'junk']) {
      const answer = await askWith(bad)
      expect(answer.status).toBe(401)
      expect(answer.json()).toMatchObject({ code: 'invalid_key' })
    }
    expect(cost).not.toHaveBeenCalled()
    expect(eventsOf('fault')).toEqual([])
    expect(eventsOf('key.refused').map(({ reason }) => reason)).toEqual([
      'wrong_secret',
      'malformed',
      'malformed',
    ])
    expect(await left()).toEqual([10, 1_000])
  })

  it('counts keys that are refused before the cost is asked for as failed attempts', async () => {
    const { askWith, key } = await start({ cost: () => -1 }, { failedAttempts: { limit: 2 } })
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    for (const status of [401, 401, 429]) expect((await askWith(wrong)).status).toBe(status)
  })

  it('answers 503 if the cost is not known in time', async () => {
    const cost = vi.fn(() => new Promise<never>(() => {}))
    const { ask, clock, left, eventsOf } = await start({ cost })
    const asking = ask()
    await vi.waitFor(() => expect(cost).toHaveBeenCalled())
    await clock.advance(5_000)
    expect((await asking).status).toBe(503)
    expect(eventsOf('fault')).toMatchObject([{ operation: 'cost' }])
    expect(await left()).toEqual([10, 1_000])
  })

  it('asks for the cost of a request once a key is presented', async () => {
    const seen: string[] = []
    const cost = ({ url }: { url: string }) => {
      seen.push(url)
      return { tokens: url.length * 10 }
    }
    const { ask, askWithoutKey, left } = await start({ cost })
    expect((await askWithoutKey()).status).toBe(401)
    expect(seen).toEqual([])
    const answer = await ask('/abc')
    expect(answer.status).toBe(200)
    expect(answer.header('RateLimit')).toMatch(/^"minute";r=9;t=\d+, "tokens";r=960;t=\d+$/)
    expect(answer.header('RateLimit-Policy')).toBe('"minute";q=10;w=60, "tokens";q=1000;w=60')
    expect(await left()).toEqual([9, 960])
    expect((await ask(`/${'a'.repeat(96)}`)).status).toBe(429)
  })

  it('shows all limits of a request whose function says that it costs nothing', async () => {
    const { ask, left } = await start({ cost: () => 0 })
    expect((await ask()).header('RateLimit')).toBe('"minute";r=10, "tokens";r=1000')
    expect(await left()).toEqual([10, 1_000])
  })

  it('charges what a route was mounted with, whatever becomes of the object', async () => {
    const cost = { tokens: 500 }
    const { ask, left } = await start({ cost })
    expect((await ask()).status).toBe(200)
    cost.tokens = 5
    expect((await ask()).status).toBe(200)
    expect(await left()).toEqual([8, 0])
  })

  it('shows only the limits that a request counts on', async () => {
    const { ask } = await start({ cost: 2 })
    expect((await ask()).header('RateLimit')).toMatch(/^"minute";r=8;t=\d+$/)
  })

  it('shows what a request was settled to before its response', async () => {
    const { ask, left } = await start({
      cost: { tokens: 500 },
      settled: { tokens: 120 },
      settledLate: { tokens: 130 },
    })
    const answer = await ask()
    expect(answer.header('RateLimit')).toMatch(/^"minute";r=9;t=\d+, "tokens";r=880;t=\d+$/)
    expect(await left()).toEqual([9, 870])
  })

  it('refuses the next request after one that was settled beyond the limit', async () => {
    const { ask } = await start({ cost: { tokens: 0 }, settled: { tokens: 1_200 } })
    expect((await ask()).header('RateLimit')).toMatch(/"tokens";r=0;t=60$/)
    const refused = await ask()
    expect(refused.status).toBe(429)
    expect(refused.json()).toMatchObject({ code: 'rate_limited', exceeded: ['tokens'] })
    expect(refused.header('Retry-After')).toBe('60')
  })
})

describe('a cost behind a middleware that has charged the request', () => {
  type Middle = (keys: ApiKeys, cost?: RequestCost) => express.RequestHandler
  type RequestCost = Cost | (() => Cost)

  const middle: Middle = (keys, cost) => onExpress.apiKeyAuth(keys, cost === undefined ? {} : { cost })
  const strategy: Middle = (keys, cost) => byPassport(keys, cost === undefined ? {} : { cost })

  async function start(build: Middle, front: RequestCost | undefined, route: RequestCost) {
    const { keys, eventsOf } = createTestKeys({ rateLimits: [MINUTE, TOKENS] })
    const { key, apiKey } = await issueKey(keys, { quota: { remaining: 50 } })
    const app = express()
    app.use(build(keys, front))
    app.use(build(keys, route), (_req, res) => void res.send('worked'))
    app.use(onExpress.apiKeyErrorHandler())
    const ask = await serve(app)
    const left = async () => (await keys.limits(apiKey.id))?.map(({ remaining }) => remaining)
    return { ask: () => ask('/', [`X-Api-Key: ${key}`]), left, eventsOf }
  }

  describe.each<[string, Middle]>([
    ['apiKeyAuth', middle],
    ['Passport', strategy],
  ])('by %s', (_name, build) => {
    it.each<[string, RequestCost | undefined, RequestCost]>([
      ['one unit', undefined, { tokens: 1_000 }],
      ['a number', 2, () => ({ tokens: 1_000 })],
      ['another name', { minute: 1 }, { minute: 1, tokens: 0 }],
      ['no unit of it', { tokens: 0 }, { tokens: 1_000 }],
    ])('is a fault, not for nothing, if it names a limit beyond %s', async (_what, front, route) => {
      const { ask, eventsOf } = await start(build, front, route)
      const answer = await ask()
      expect(answer.status).toBe(503)
      expect(answer.body).not.toContain('worked')
      expect(eventsOf('fault')).toMatchObject([{ operation: 'verify' }])
      expect(String(eventsOf('fault')[0]?.error)).toContain('"cost" names the limit "tokens", but')
    })

    it.each<[string, RequestCost | undefined, RequestCost, number[]]>([
      ['is charged alone if that was for nothing', 0, { tokens: 400 }, [9, 600, 49]],
      ['is not charged twice if it is the same', { tokens: 400 }, { tokens: 400 }, [9, 600, 49]],
      ['is not charged if every call counts on its limits', 3, { minute: 5, quota: 5 }, [7, 1_000, 47]],
      ['is not charged if it is a number', 3, 5, [7, 1_000, 47]],
    ])('%s', async (_what, front, route, rest) => {
      const { ask, left } = await start(build, front, route)
      expect((await ask()).status).toBe(200)
      expect(await left()).toEqual(rest)
    })
  })
})

describe('a settlement of a request', () => {
  it('without a key is false', async () => {
    const app = express()
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    app.use(onExpress.apiKeyAuth(keys, { required: false }), async (req, res) => {
      res.json(await onExpress.settle(req, 5))
    })
    const ask = await serve(app)
    expect((await ask('/')).json()).toBe(false)
  })

  it('leaves fields alone that were switched off', async () => {
    const app = express()
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const { key } = await issueKey(keys)
    app.use(onExpress.apiKeyAuth(keys, { rateLimitHeaders: false }), async (req, res) => {
      res.json(await onExpress.settle(req, 5))
    })
    const ask = await serve(app)
    const answer = await ask('/', [`X-Api-Key: ${key}`])
    expect(answer.json()).toBe(true)
    expect(answer.header('RateLimit')).toBeUndefined()
  })
})
