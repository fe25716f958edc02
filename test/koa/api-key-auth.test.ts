import { setImmediate as nextTurn } from 'node:timers/promises'
import cors from '@koa/cors'
import Router from '@koa/router'
import type Koa from 'koa'
import type { Context, Middleware, Next } from 'koa'
import compose from 'koa-compose'
import type { ApiKeysOptions } from 'latchkey'
import {
  type ApiKeyAuthOptions,
  apiKeyAuth,
  apiKeyErrorHandler,
  getAuth,
  refund,
  requireApiKey,
} from 'latchkey/koa'
import { describe, expect, it, vi } from 'vitest'
import { BARE, INVALID } from '../support/challenges.ts'
import { issueKey, issueWarmKey } from '../support/issue-key.ts'
import { KOAS } from '../support/koas.ts'
import { exceeds, typeOf } from '../support/problem-types.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys, forgeKey, type TestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

/** What no client may ever see. */
const INTERNAL = 'connection to 10.0.0.5 refused'
const MINUTE = { name: 'minute', limit: 2, windowMs: 60_000 }

type KeysOptions = Partial<Omit<ApiKeysOptions, 'clock' | 'store'>>

function keyLine({ key }: { key: string }): string[] {
  return [`X-Api-Key: ${key}`]
}

/** The end of every application here: says who was let in. */
const show: Middleware = (ctx) => {
  const { user, apiKey, authMethod } = ctx.state
  ctx.body = { method: getAuth(ctx).method, authMethod, user, keyId: apiKey?.id }
}

interface Refusal {
  status: number
  code: string
  title: string
  keys?: KeysOptions
  options?: ApiKeyAuthOptions
  given(test: TestKeys): Promise<string[]>
  /** Header fields that are there; null for one that must not be. */
  headers: Record<string, string | null>
}

const REFUSALS: Record<string, Refusal> = {
  'no key': {
    status: 401,
    code: 'missing_key',
    title: 'An API key is required',
    given: async () => [],
    headers: { 'WWW-Authenticate': BARE },
  },
  'a bad key': {
    status: 401,
    code: 'invalid_key',
    title: 'The API key is not valid',
    given: async ({ keys }) =>
      keyLine({ key: forgeKey((await issueKey(keys)).key, { keyId: '0'.repeat(16) }) }),
    headers: { 'WWW-Authenticate': INVALID },
  },
  'a key without a user': {
    status: 401,
    code: 'invalid_key',
    title: 'The API key is not valid',
    options: { resolveUser: async () => null },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
    headers: { 'WWW-Authenticate': INVALID },
  },
  'two keys': {
    status: 400,
    code: 'multiple_credentials',
    title: 'More than one API key was sent',
    given: async () => ['X-Api-Key: a', 'Authorization: Api-Key b'],
    headers: { 'WWW-Authenticate': null },
  },
  'missing permissions': {
    status: 403,
    code: 'insufficient_permissions',
    title: 'The API key lacks a permission',
    options: { permissions: { projects: ['write'] } },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
    headers: { 'WWW-Authenticate': null },
  },
  'a rate limit': {
    status: 429,
    code: 'rate_limited',
    title: 'The API key has exceeded a rate limit',
    keys: { rateLimits: [MINUTE] },
    given: async ({ keys }) => {
      const issued = await issueKey(keys)
      await keys.verify(issued.key, { cost: 2 })
      return keyLine(issued)
    },
    headers: {
      'Retry-After': '60',
      RateLimit: '"minute";r=0;t=60',
      'RateLimit-Policy': '"minute";q=2;w=60',
      'WWW-Authenticate': null,
    },
  },
  'a store that fails': {
    status: 503,
    code: 'unavailable',
    title: 'API keys cannot be verified right now',
    given: async ({ keys, store }) => {
      const issued = await issueKey(keys)
      store.fail('find', rejects(new Error(INTERNAL)))
      return keyLine(issued)
    },
    headers: { 'WWW-Authenticate': null },
  },
  'a user who cannot be found out': {
    status: 503,
    code: 'unavailable',
    title: 'API keys cannot be verified right now',
    options: { resolveUser: () => Promise.reject(new Error(INTERNAL)) },
    given: async ({ keys }) => keyLine(await issueKey(keys)),
    headers: { 'WWW-Authenticate': null },
  },
}

describe.each(KOAS)('apiKeyAuth on %s', (_name, Koa) => {
  /** An application of these middlewares that says who was let in. */
  function createApp(...middlewares: Middleware[]): Koa {
    const app = new Koa()
    for (const middleware of middlewares) app.use(middleware)
    return app.use(show)
  }

  function start(...middlewares: Middleware[]): Promise<Ask> {
    return serve(createApp(...middlewares).callback())
  }

  /** What Koa writes to stderr, which this test keeps to itself. */
  function watchStderr(): () => string {
    const spy = vi.spyOn(console, 'error').mockImplementation(() => {})
    return () => spy.mock.calls.flat().join('\n')
  }

  describe('that refuses', () => {
    /** What the request is answered, by an application that `mount` puts together. */
    async function answerOf(
      refusal: Refusal,
      mount: (auth: Middleware) => Middleware[],
      refuseWith?: 'error',
    ) {
      const test = createTestKeys(refusal.keys)
      const lines = await refusal.given(test)
      const auth = apiKeyAuth(test.keys, { ...refusal.options, ...(refuseWith && { refuseWith }) })
      const ask = await start(...mount(auth as Middleware))
      return ask('/', lines)
    }

    it.each(Object.entries(REFUSALS))('answers %s with a problem body', async (_what, refusal) => {
      const stderr = watchStderr()
      const answer = await answerOf(refusal, (auth) => [auth])
      const { status, code, title, headers } = refusal
      expect(answer.status).toBe(status)
      expect(answer.json()).toMatchObject({
        type: typeOf(code),
        title,
        status,
        code,
      })
      expect(answer.all('Content-Type')).toEqual(['application/problem+json'])
      expect(answer.all('Cache-Control')).toEqual(['no-store'])
      expect(answer.all('Content-Length')).toEqual([String(answer.body.length)])
      for (const [name, value] of Object.entries(headers)) {
        expect(answer.all(name), name).toEqual(value === null ? [] : [value])
      }
      expect(answer.text).not.toContain(INTERNAL)
      expect(stderr()).toBe('')
    })

    it.each(Object.entries(REFUSALS))(
      'throws %s for apiKeyErrorHandler, which answers the same',
      async (_what, refusal) => {
        const stderr = watchStderr()
        const withoutDate = ({ text }: { text: string }) => text.replace(/^Date: .*\r\n/m, '')
        const problem = await answerOf(refusal, (auth) => [auth])
        const thrown = await answerOf(refusal, (auth) => [apiKeyErrorHandler(), auth], 'error')
        expect(withoutDate(thrown)).toBe(withoutDate(problem))
        expect(stderr()).toBe('')
      },
    )

    it.each(Object.entries(REFUSALS))(
      'throws %s for Koa itself, which keeps status and fields',
      async (_what, refusal) => {
        const stderr = watchStderr()
        const { status, title, headers } = refusal
        const answer = await answerOf(refusal, (auth) => [auth], 'error')
        expect(answer.status).toBe(status)
        expect(answer.body).toBe(status < 500 ? title : 'Service Unavailable')
        expect(answer.all('Cache-Control')).toEqual(['no-store'])
        for (const [name, value] of Object.entries(headers)) {
          expect(answer.all(name), name).toEqual(value === null ? [] : [value])
        }
        expect(answer.text).not.toContain(INTERNAL)
        // What is the client's fault is no line in the log; what is ours is told once.
        if (status < 500) expect(stderr()).toBe('')
        else expect(stderr()).toContain(title)
      },
    )

    it('throws an error with its code, and no stack, for middlewares before it', async () => {
      const test = createTestKeys()
      let seen: unknown
      const ask = await start(
        async (ctx, next) => {
          await next().catch((error) => {
            seen = error
            ctx.status = 200
            ctx.body = 'caught'
          })
        },
        apiKeyAuth(test.keys, { refuseWith: 'error' }) as Middleware,
      )
      const answer = await ask('/', ['X-Api-Key: junk'])
      expect(answer).toMatchObject({ status: 200, body: 'caught' })
      // Whoever makes a success of it may let that be stored.
      expect(answer.all('Cache-Control')).toEqual([])
      expect(seen).toMatchObject({ code: 'invalid_key', status: 401, statusCode: 401, expose: true })
      expect((seen as Error).stack).not.toContain('\n')
    })

    it('keeps a failure uncached that a middleware before it renders in its own way', async () => {
      const test = createTestKeys()
      const ask = await start(
        async (ctx, next) => {
          await next().catch((error) => {
            ctx.status = error.status
            ctx.body = { error: error.code }
          })
        },
        apiKeyAuth(test.keys, { refuseWith: 'error' }) as Middleware,
      )
      const answer = await ask('/', ['X-Api-Key: junk'])
      expect(answer.json()).toEqual({ error: 'invalid_key' })
      expect(answer.all('Cache-Control')).toEqual(['no-store'])
    })

    it('prints nothing where the application is silent', async () => {
      const stderr = watchStderr()
      const test = createTestKeys()
      const issued = await issueKey(test.keys)
      test.store.fail('find', rejects(new Error(INTERNAL)))
      const app = createApp(apiKeyAuth(test.keys, { refuseWith: 'error' }) as Middleware)
      app.silent = true
      const ask = await serve(app.callback())
      expect((await ask('/', keyLine(issued))).status).toBe(503)
      expect(stderr()).toBe('')
    })

    it.each(['problem', 'error'] as const)(
      'answers by %s where the application answers by itself',
      async (refuseWith) => {
        const test = createTestKeys()
        const ask = await start(
          (ctx, next) => {
            ctx.respond = false
            return next()
          },
          apiKeyAuth(test.keys, { refuseWith }) as Middleware,
          (ctx) => void ctx.res.writeHead(200).end('by itself'),
        )
        const refused = await ask('/', ['X-Api-Key: junk'])
        expect(refused.status).toBe(401)
        expect(refused.all('WWW-Authenticate')).toEqual([INVALID])
        expect(refused.all('Cache-Control')).toEqual(['no-store'])
        if (refuseWith === 'problem') expect(refused.json()).toMatchObject({ code: 'invalid_key' })
        const head = await ask('/', ['X-Api-Key: junk'], { method: 'HEAD' })
        expect(head).toMatchObject({ status: 401, body: '' })
        expect(await ask('/', keyLine(await issueKey(test.keys)))).toMatchObject({
          status: 200,
          body: 'by itself',
        })
      },
    )

    it('clears what middlewares before it have set as the body and the user', async () => {
      const test = createTestKeys()
      let after: unknown
      const ask = await start(async (ctx, next) => {
        ctx.body = { secret: true }
        ctx.state.user = { name: 'Carol' }
        await next()
        after = { ...ctx.state, auth: getAuth(ctx) }
      }, apiKeyAuth(test.keys) as Middleware)
      const answer = await ask('/', ['X-Api-Key: junk'])
      expect(answer.json()).toMatchObject({ code: 'invalid_key' })
      expect(after).toEqual({
        user: undefined,
        apiKey: undefined,
        authMethod: undefined,
        auth: { method: 'rejected', code: 'invalid_key' },
      })
    })
  })

  describe('that admits', () => {
    it('sets key, user and method on ctx.state, and says how the limits stand', async () => {
      for (const issue of [issueKey, issueWarmKey]) {
        const test = createTestKeys({ rateLimits: [MINUTE] })
        const issued = await issue(test.keys, { quota: { remaining: 9 } })
        const ask = await start(apiKeyAuth(test.keys) as Middleware)
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
      }
    })

    it.each<[NonNullable<ApiKeyAuthOptions['rateLimitHeaders']>, string | undefined]>([
      ['draft-10', '"minute";r=1;t=60'],
      ['draft-7', 'limit=2, remaining=1, reset=60'],
      ['draft-6', undefined],
      [false, undefined],
    ])('writes the limits as %s has them', async (rateLimitHeaders, field) => {
      const test = createTestKeys({ rateLimits: [MINUTE] })
      const ask = await start(apiKeyAuth(test.keys, { rateLimitHeaders }) as Middleware)
      const answer = await ask('/', keyLine(await issueKey(test.keys)))
      expect(answer.header('RateLimit')).toBe(field)
      expect(answer.header('RateLimit-Remaining')).toBe(rateLimitHeaders === 'draft-6' ? '1' : undefined)
    })

    it.each(['draft-11', 'draft-10', 'draft-7', 'draft-6', false] as const)(
      'gives the problem the type that belongs to %s, as an error too',
      async (rateLimitHeaders) => {
        for (const refuseWith of ['problem', 'error'] as const) {
          const test = createTestKeys({ rateLimits: [MINUTE] })
          const auth = apiKeyAuth(test.keys, { rateLimitHeaders, refuseWith }) as Middleware
          const ask = await start(apiKeyErrorHandler() as Middleware, auth)
          const issued = await issueKey(test.keys)
          await test.keys.verify(issued.key, { cost: 2 })
          expect((await ask('/', keyLine(issued))).json()).toEqual({
            title: 'The API key has exceeded a rate limit',
            status: 429,
            code: 'rate_limited',
            ...exceeds(['minute'], rateLimitHeaders),
          })
        }
      },
    )

    it('keeps its own type where the quota refuses', async () => {
      const test = createTestKeys({ rateLimits: [MINUTE] })
      const ask = await start(apiKeyAuth(test.keys) as Middleware)
      const issued = await issueKey(test.keys, { quota: { remaining: 0 } })
      expect((await ask('/', keyLine(issued))).json()).toEqual({
        type: typeOf('quota_exceeded'),
        title: 'The API key has used up its quota',
        status: 429,
        code: 'quota_exceeded',
        exceeded: ['quota'],
      })
    })

    it('hands the user over that the application finds, at once or later', async () => {
      const test = createTestKeys()
      const issued = await issueWarmKey(test.keys)
      for (const resolveUser of [() => ({ name: 'Alice' }), async () => ({ name: 'Alice' })]) {
        const ask = await start(apiKeyAuth(test.keys, { resolveUser }) as Middleware)
        expect((await ask('/', keyLine(issued))).json()).toMatchObject({
          method: 'apikey',
          user: { name: 'Alice' },
        })
      }
    })

    it('lets a request without a key pass where none is required, but not one with a bad key', async () => {
      const test = createTestKeys()
      const ask = await start(
        (ctx, next) => {
          if (ctx.path === '/carol') ctx.state.user = { name: 'Carol' }
          return next()
        },
        apiKeyAuth(test.keys, { required: false }) as Middleware,
      )
      expect((await ask('/')).json()).toEqual({ method: 'none' })
      expect((await ask('/carol')).json()).toEqual({
        method: 'other',
        authMethod: 'other',
        user: { name: 'Carol' },
      })
      expect((await ask('/carol', ['X-Api-Key: junk'])).status).toBe(401)
      expect((await ask('/', ['X-Api-Key: a', 'X-Api-Key: b'])).status).toBe(400)
      const good = await ask('/carol', keyLine(await issueKey(test.keys)))
      expect(good.json()).toMatchObject({ method: 'apikey', user: ALICE })
    })

    it('waits for nothing with a key that is at hand, and never holds up the rest with one that is not', async () => {
      const test = createTestKeys()
      const order: string[] = []
      const ask = await start(
        async (_ctx, next) => {
          const rest = next()
          order.push('after')
          await rest
        },
        apiKeyAuth(test.keys) as Middleware,
        (_ctx, next) => {
          order.push('route')
          return next()
        },
      )
      await ask('/', keyLine(await issueKey(test.keys)))
      await ask('/', keyLine(await issueWarmKey(test.keys)))
      expect(order).toEqual(['after', 'route', 'route', 'after'])
    })

    it('spends a request once, however many middlewares verify its key, and gives it back once', async () => {
      const test = createTestKeys({ rateLimits: [{ ...MINUTE, limit: 10 }] })
      const issued = await issueKey(test.keys)
      const given: boolean[] = []
      const ask = await start(
        apiKeyAuth(test.keys, { cost: 4 }) as Middleware,
        apiKeyAuth(test.keys, { cost: 2 }) as Middleware,
        async (ctx, next) => {
          if (ctx.path === '/fails') given.push(await refund(ctx), await refund(ctx))
          await next()
        },
      )
      const left = async () => {
        const peeked = await test.keys.verify(issued.key, { cost: 0 })
        return peeked.ok && peeked.limits[0]?.remaining
      }
      expect((await ask('/', keyLine(issued))).header('RateLimit')).toMatch(/r=6;/)
      expect(await left()).toBe(6)
      expect((await ask('/fails', keyLine(issued))).status).toBe(200)
      expect(given).toEqual([true, false])
      expect(await left()).toBe(6)
    })
  })

  describe('and what others do to ctx.state', () => {
    /** What the end of the application finds, where `change` stands between it and the key. */
    async function found(change: (state: Record<string, unknown>, ctx: Context) => void) {
      const test = createTestKeys()
      const issued = await issueKey(test.keys)
      let state: Record<string, unknown> = {}
      let guarded = false
      const ask = await start(
        apiKeyAuth(test.keys) as Middleware,
        (ctx, next) => {
          change(ctx.state, ctx)
          state = { ...ctx.state }
          return next()
        },
        requireApiKey(),
        (_ctx, next) => {
          guarded = true
          return next()
        },
      )
      const answer = await ask('/', keyLine(issued))
      return { answer, state, guarded, keyId: issued.apiKey.id }
    }

    it('reads what it has assigned as the method, and guards do not', async () => {
      const { answer, state, guarded } = await found((given) => {
        given.authMethod = 'session'
      })
      expect(answer.json()).toMatchObject({ method: 'apikey', authMethod: 'session' })
      expect(Object.keys(state).sort()).toEqual(['apiKey', 'authMethod', 'user'])
      expect(guarded).toBe(true)
    })

    it('reads what it has assigned as the key, and guards do not', async () => {
      const { answer, state, guarded } = await found((given) => {
        given.apiKey = { id: 'theirs', permissions: { '*': ['*'] } }
      })
      expect(state.apiKey).toMatchObject({ id: 'theirs' })
      expect(answer.json()).toMatchObject({ method: 'apikey', keyId: 'theirs' })
      expect(guarded).toBe(true)
    })

    it('cannot write on the key itself', async () => {
      const stderr = watchStderr()
      const { answer } = await found((given) => {
        Object.assign(given.apiKey as object, { permissions: { '*': ['*'] } })
      })
      expect(answer.status).toBe(500)
      expect(stderr()).toContain('read only')
    })

    it.each<[string, (state: Record<string, unknown>, ctx: Context) => void]>([
      [
        'puts another user in place',
        (state) => {
          state.user = { name: 'Mallory' }
        },
      ],
      [
        'takes the user away',
        (state) => {
          delete state.user
        },
      ],
      [
        'exchanges all of it',
        (_state, ctx) => {
          ctx.state = {}
        },
      ],
    ])('is trusted by no guard once somebody %s', async (_what, change) => {
      const { answer, guarded } = await found(change)
      expect(answer.json()).toMatchObject({ status: 403, code: 'api_key_required' })
      expect(guarded).toBe(false)
    })

    it('may copy it', async () => {
      const { state, keyId } = await found((_state, ctx) => {
        ctx.state = { ...ctx.state }
      })
      expect(state).toMatchObject({ authMethod: 'apikey', user: ALICE, apiKey: { id: keyId } })
    })

    it('finds each request’s own, though many are under way', async () => {
      const test = createTestKeys({ cache: false })
      const owners = Array.from({ length: 20 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
      const issued = await Promise.all(owners.map((owner) => issueKey(test.keys, { owner })))
      let finds = 0
      test.store.fail('find', async (work) => {
        for (let turns = finds++ % 5; turns > 0; turns--) await nextTurn()
        return work()
      })
      const ask = await start(apiKeyAuth(test.keys) as Middleware, async (_ctx, next) => {
        await nextTurn()
        await next()
      })
      const answers = await Promise.all(issued.map((one) => ask('/', keyLine(one))))
      expect(answers.map((answer) => answer.json().user)).toEqual(owners)
      expect(answers.map((answer) => answer.json().keyId)).toEqual(issued.map(({ apiKey }) => apiKey.id))
    })
  })

  describe('beside @koa/router', () => {
    async function startRouter(place: 'application' | 'router') {
      const test = createTestKeys()
      const router = new Router()
      const auth = apiKeyAuth(test.keys)
      const app = new Koa()
      if (place === 'application') app.use(auth)
      else router.use(auth as never)
      router.get('/projects/:id', (ctx) => {
        ctx.body = { id: ctx.params.id, user: ctx.state.user }
      })
      app.use(router.routes() as Middleware).use(router.allowedMethods() as Middleware)
      const ask = await serve(app.callback())
      return { ask, line: keyLine(await issueKey(test.keys)) }
    }

    it.each(['application', 'router'] as const)(
      'in the %s, answers HEAD as GET without the body',
      async (place) => {
        const { ask, line } = await startRouter(place)
        for (const lines of [line, ['X-Api-Key: junk'], []]) {
          const get = await ask('/projects/7', lines)
          const head = await ask('/projects/7', lines, { method: 'HEAD' })
          expect(head.status).toBe(get.status)
          expect(head.body).toBe('')
          const fields = ['WWW-Authenticate', 'Content-Type', 'Content-Length', 'Cache-Control']
          expect(fields.map((name) => head.header(name))).toEqual(fields.map((name) => get.header(name)))
        }
        expect((await ask('/projects/7', line)).json()).toEqual({ id: '7', user: ALICE })
      },
    )

    it('asks for a key before it says which methods or addresses there are', async () => {
      const { ask, line } = await startRouter('application')
      for (const method of ['OPTIONS', 'POST', 'PURGE']) {
        expect((await ask('/projects/7', [], { method })).status, method).toBe(401)
      }
      expect((await ask('/nowhere')).status).toBe(401)
      expect((await ask('/projects/7', line, { method: 'POST' })).status).toBe(405)
      expect((await ask('/nowhere', line)).status).toBe(404)
    })

    it('leaves OPTIONS, 405 and 404 to the router that it guards the routes of', async () => {
      const { ask } = await startRouter('router')
      const options = await ask('/projects/7', [], { method: 'OPTIONS' })
      expect(options).toMatchObject({ status: 200, body: '' })
      expect(options.header('Allow')).toBe('HEAD, GET')
      expect((await ask('/projects/7', [], { method: 'POST' })).status).toBe(405)
      expect((await ask('/nowhere')).status).toBe(404)
    })

    it('leaves a preflight to the middleware before it, which answers for refusals too', async () => {
      const test = createTestKeys()
      const ask = await start(cors({ origin: 'https://app.example' }), apiKeyAuth(test.keys) as Middleware)
      const origin = 'Origin: https://app.example'
      const preflight = await ask('/', [origin, 'Access-Control-Request-Method: GET'], { method: 'OPTIONS' })
      expect(preflight.status).toBe(204)
      const refused = await ask('/', [origin])
      expect(refused.status).toBe(401)
      expect(refused.header('Access-Control-Allow-Origin')).toBe('https://app.example')
    })
  })

  describe('and what comes after it', () => {
    it('passes an error on as it is, cold and warm, and spends the key all the same', async () => {
      const teapot = Object.assign(new Error('a teapot'), { status: 418, expose: true })
      const test = createTestKeys({ rateLimits: [{ ...MINUTE, limit: 10 }] })
      for (const thrown of [
        teapot,
        new TypeError(INTERNAL),
        Object.assign(new Error(), { code: 'invalid_key' }),
      ]) {
        for (const throwIt of [() => Promise.reject(thrown), () => toss(thrown)]) {
          for (const issue of [issueKey, issueWarmKey]) {
            let seen: unknown
            const ask = await start(
              async (ctx, next) => {
                await next().catch((error: unknown) => {
                  seen = error
                  ctx.body = 'caught'
                })
              },
              apiKeyErrorHandler(),
              apiKeyAuth(test.keys) as Middleware,
              throwIt,
            )
            const issued = await issue(test.keys)
            expect((await ask('/', keyLine(issued))).body).toBe('caught')
            expect(seen).toBe(thrown)
            expect(await test.keys.verify(issued.key, { cost: 0 })).toMatchObject({
              limits: [{ remaining: 9 }],
            })
          }
        }
      }
    })

    it('leaves it to Koa to refuse a second call of next', async () => {
      const stderr = watchStderr()
      const test = createTestKeys()
      const issued = await issueKey(test.keys)
      const twice: Middleware = async (_ctx, next) => {
        await next()
        await next()
      }
      for (const order of [
        [twice, apiKeyAuth(test.keys)],
        [apiKeyAuth(test.keys), twice],
      ]) {
        const ask = await start(...(order as Middleware[]))
        expect((await ask('/', keyLine(issued))).status).toBe(500)
      }
      expect(stderr().match(/next\(\) called multiple times/g)).toHaveLength(2)
    })

    it('is not reached by a key that is refused', async () => {
      const stderr = watchStderr()
      const route = vi.fn((_ctx: Context, next: Next) => next())
      for (const refuseWith of ['problem', 'error'] as const) {
        for (const { keys, options, given } of Object.values(REFUSALS)) {
          const test = createTestKeys(keys)
          const lines = await given(test)
          const ask = await start(apiKeyAuth(test.keys, { ...options, refuseWith }) as Middleware, route)
          expect((await ask('/', lines)).status).toBeGreaterThanOrEqual(400)
        }
      }
      expect(route).not.toHaveBeenCalled()
      expect(stderr()).not.toContain(INTERNAL)
    })

    it('knows who is asking in an application within this one, by the same context', async () => {
      const test = createTestKeys({ rateLimits: [MINUTE] })
      const within = createApp(requireApiKey({ keys: test.keys }))
      const mounted = compose(within.middleware as Middleware[])
      const ask = await start(apiKeyAuth(test.keys) as Middleware, (ctx, next) => mounted(ctx, next))
      expect((await ask('/', keyLine(await issueKey(test.keys)))).json()).toMatchObject({ method: 'apikey' })
    })

    it('proves nothing in an application within this one that makes a context of its own', async () => {
      const test = createTestKeys({ rateLimits: [MINUTE] })
      const handle = {
        '/guarded': createApp(requireApiKey()).callback(),
        '/asked-again': createApp(apiKeyAuth(test.keys) as Middleware, requireApiKey()).callback(),
      }
      const ask = await start(apiKeyAuth(test.keys) as Middleware, (ctx) => {
        ctx.respond = false
        return handle[ctx.path as keyof typeof handle](ctx.req, ctx.res)
      })
      const issued = await issueKey(test.keys)
      expect((await ask('/guarded', keyLine(issued))).json()).toMatchObject({ code: 'api_key_required' })
      const again = await ask('/asked-again', keyLine(issued))
      expect(again.json()).toMatchObject({ method: 'apikey', user: ALICE })
      expect(await test.keys.verify(issued.key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 0 }] })
    })
  })

  describe('while the store is asked', () => {
    it('leaves an answer alone that somebody gave', async () => {
      const unhandled = watchUnhandled()
      const test = createTestKeys({ rateLimits: [MINUTE] })
      const good = await issueKey(test.keys)
      const bad = { key: forgeKey(good.key, { keyId: '0'.repeat(16) }) }
      let passed = 0
      const app = new Koa()
      app.use((ctx, next) => {
        void next()
        ctx.body = 'too slow'
      })
      app.use(apiKeyAuth(test.keys))
      app.use(() => {
        passed += 1
      })
      const ask = await serve(app.callback())
      for (const issued of [bad, good]) {
        expect(await ask('/', keyLine(issued))).toMatchObject({ status: 200, body: 'too slow' })
      }
      await vi.waitFor(() => expect(passed).toBe(1))
      expect(await unhandled()).toEqual([])
    })

    it('survives a client that hangs up', async () => {
      const unhandled = watchUnhandled()
      const stderr = watchStderr()
      const test = createTestKeys({ rateLimits: [MINUTE], cache: false })
      const good = await issueKey(test.keys)
      const bad = { key: forgeKey(good.key, { keyId: '0'.repeat(16) }) }
      test.store.fail('find', async (work) => {
        await nextTurn()
        return work()
      })
      const ask = await start((ctx, next) => {
        if (ctx.path === '/hang-up') ctx.req.socket.destroy()
        return next()
      }, apiKeyAuth(test.keys) as Middleware)
      for (const issued of [good, bad]) await ask('/hang-up', keyLine(issued)).catch(() => {})
      expect(await unhandled()).toEqual([])
      expect((await ask('/', keyLine(good))).status).toBe(200)
      expect(stderr()).not.toContain('latchkey')
    })
  })

  describe('and the client’s address', () => {
    async function startFrom(
      settings: { proxy?: boolean; maxIpsCount?: number },
      options: ApiKeyAuthOptions = {},
    ) {
      const test = createTestKeys()
      const issued = await issueKey(test.keys, { allowedIps: ['203.0.113.7', '2001:db8::/32'] })
      const app = new Koa(settings)
      app.use(apiKeyAuth(test.keys, options)).use(show)
      const ask = await serve(app.callback())
      return async (address: string) =>
        (await ask('/', [...keyLine(issued), `X-Forwarded-For: ${address}`])).status
    }

    it('is never taken from a header on its own', async () => {
      const from = await startFrom({})
      expect(await from('203.0.113.7')).toBe(403)
    })

    it('follows the application’s trust in proxies', async () => {
      const from = await startFrom({ proxy: true, maxIpsCount: 1 })
      expect(await from('203.0.113.7')).toBe(200)
      expect(await from('2001:db8::1')).toBe(200)
      expect(await from('203.0.113.8')).toBe(403)
      // What the client has written before the proxy's own entry counts for nothing.
      expect(await from('203.0.113.7, 198.51.100.1')).toBe(403)
      expect(await from('198.51.100.1, 203.0.113.7')).toBe(200)
    })

    it('is what the client writes where Koa trusts every entry', async () => {
      const from = await startFrom({ proxy: true })
      expect(await from('203.0.113.7, 198.51.100.1')).toBe(200)
    })

    it('may be read otherwise', async () => {
      const from = await startFrom({}, { ip: (ctx) => ctx.get('X-Forwarded-For') })
      expect(await from('203.0.113.7')).toBe(200)
      expect(await from('203.0.113.8')).toBe(403)
      expect(await from('9'.repeat(5_000))).toBe(403)
    })

    it('lets nobody pass where reading it throws', async () => {
      const stderr = watchStderr()
      const from = await startFrom({}, { ip: () => toss(new Error(INTERNAL)) })
      expect(await from('203.0.113.7')).toBe(500)
      expect(stderr()).toContain(INTERNAL)
    })
  })
})

describe('what a programmer hands to apiKeyAuth', () => {
  it.each<[string, Record<string, unknown>, string]>([
    ['required', { required: 'no' }, `"required" must be true or false, received the string 'no'`],
    ['ip', { ip: '127.0.0.1' }, '"ip" must be a function, received a string'],
    [
      'refuseWith',
      { refuseWith: 'throw' },
      `"refuseWith" must be "problem" or "error", received the string 'throw'`,
    ],
    ['cost', { cost: -1 }, '"cost" must be an integer'],
    [
      'permissions',
      { permissions: { projects: [] } },
      '"permissions.projects" must name at least one action',
    ],
    ['resolveUser', { resolveUser: {} }, '"resolveUser" must be a function, received an object'],
    [
      'rateLimitHeaders',
      { rateLimitHeaders: true },
      '"rateLimitHeaders" must be "draft-11", "draft-10", "draft-7"',
    ],
    ['realm', { realm: 'a\r\nb' }, '"realm" must be printable ASCII'],
    ['prefix', { prefix: '' }, '"prefix" must be'],
    ['headers', { headers: ['Cookie'] }, '"headers[0]" must not be "cookie"'],
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

  it('is never changed', () => {
    const { keys } = createTestKeys()
    const options = Object.freeze({ cost: 2, headers: Object.freeze(['X-Token']) })
    expect(() => apiKeyAuth(keys, options)).not.toThrow()
  })
})

function toss(error: unknown): never {
  throw error
}
