import type { RequestListener } from 'node:http'
import express from 'express'
import Koa from 'koa'
import { KoaPassport } from 'koa-passport'
import type { ApiKeyVerifier } from 'latchkey'
import { createApiKeysClient } from 'latchkey/client'
import * as forExpress from 'latchkey/express'
import * as forKoa from 'latchkey/koa'
import { ApiKeyStrategy } from 'latchkey/passport'
import { type RemoteApiKeysOptions, remoteApiKeys } from 'latchkey/remote'
import { Passport } from 'passport'
import { describe, expect, it } from 'vitest'
import { createWorld } from '../support/management-world.ts'
import { exceeds } from '../support/problem-types.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { BOB, createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const READ = { projects: ['read'] }
const WRITE = { projects: ['write'] }
const VERIFY = { 'api-keys': ['verify'] }

/** An application whose `/read` and `/write` ask for a permission, and whose `/session` takes no key. */
type Build = (keys: ApiKeyVerifier) => RequestListener

const guardOnKoa: Koa.Middleware = async (ctx, next) => {
  const guards = {
    '/read': forKoa.requirePermissions(READ),
    '/write': forKoa.requirePermissions(WRITE),
    '/session': forKoa.requireSession(),
  }
  await guards[ctx.path as keyof typeof guards](ctx as never, next)
}

const answerOnKoa: Koa.Middleware = (ctx) => {
  const { user, apiKey } = ctx.state
  if (ctx.path === '/read') {
    ctx.body = { user, owner: apiKey.owner, method: forKoa.getAuth(ctx as never).method }
  } else ctx.body = ctx.path === '/write' ? 'written' : 'yours'
}

const CONSUMERS: readonly (readonly [string, Build])[] = [
  [
    'Express',
    (keys) => {
      const app = express()
      app.use(forExpress.apiKeyAuth(keys, { bearer: true }))
      app.get(
        '/read',
        forExpress.requirePermissions(READ),
        forExpress.withApiKey((req, res) => {
          res.json({ user: req.user, owner: req.apiKey.owner, method: forExpress.getAuth(req).method })
        }),
      )
      app.get('/write', forExpress.requirePermissions(WRITE), (_req, res) => void res.send('written'))
      app.get('/session', forExpress.requireSession(), (_req, res) => void res.send('yours'))
      app.use(forExpress.apiKeyErrorHandler())
      return app
    },
  ],
  [
    'Koa',
    (keys) => {
      const app = new Koa()
      app.use(forKoa.apiKeyErrorHandler())
      app.use(forKoa.apiKeyAuth(keys, { bearer: true }))
      app.use(guardOnKoa)
      app.use(answerOnKoa)
      return app.callback()
    },
  ],
  [
    'koa-passport',
    (keys) => {
      const passport = new KoaPassport()
      passport.use(new ApiKeyStrategy({ keys, refuseWith: 'error', bearer: true }))
      const app = new Koa()
      app.use(forKoa.apiKeyErrorHandler())
      app.use(passport.authenticate('apikey', { session: false }))
      app.use(guardOnKoa)
      app.use(answerOnKoa)
      return app.callback()
    },
  ],
  [
    'Passport',
    (keys) => {
      const passport = new Passport()
      passport.use(new ApiKeyStrategy({ keys, refuseWith: 'error', bearer: true }))
      const app = express()
      app.use(passport.authenticate('apikey', { session: false }))
      app.get('/read', forExpress.requirePermissions(READ), (req, res) => {
        res.json({ user: req.user, owner: req.apiKey?.owner, method: forExpress.getAuth(req).method })
      })
      app.get('/write', forExpress.requirePermissions(WRITE), (_req, res) => void res.send('written'))
      app.get('/session', forExpress.requireSession(), (_req, res) => void res.send('yours'))
      app.use(forExpress.apiKeyErrorHandler())
      return app
    },
  ],
]

describe('a guard that names whose keys it takes', () => {
  it('takes those of a service, and not those of another', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const client = {
      async verify() {
        const result = await keys.verify(key, { cost: 0 })
        if (!result.ok) throw new Error(result.code)
        return { active: true as const, apiKey: result.apiKey, limits: [] }
      },
    }
    const [one, other] = [remoteApiKeys(client), remoteApiKeys(client)]
    const app = express()
    app.use(forExpress.apiKeyAuth(one))
    app.get('/one', forExpress.requireApiKey({ keys: one }), (_req, res) => void res.send('one'))
    app.get('/other', forExpress.requireApiKey({ keys: other }), (_req, res) => void res.send('other'))
    const ask = await serve(app)
    expect((await ask('/one', [`X-Api-Key: ${key}`])).body).toBe('one')
    expect((await ask('/other', [`X-Api-Key: ${key}`])).json()).toMatchObject({ code: 'api_key_required' })
  })
})

/** Routes whose permissions are a function of the request, by each door. */
const BY_REQUEST: readonly (readonly [string, Build])[] = [
  [
    'Express',
    (keys) => {
      const app = express()
      const permissions = (req: express.Request) => projectOf(req.url)
      app.use(forExpress.apiKeyAuth(keys, { permissions }), (_req, res) => void res.send('read'))
      return app
    },
  ],
  [
    'Koa',
    (keys) => {
      const app = new Koa()
      app.use(forKoa.apiKeyAuth(keys, { permissions: (ctx) => projectOf(ctx.url) }))
      app.use((ctx) => {
        ctx.body = 'read'
      })
      return app.callback()
    },
  ],
]

function projectOf(url: string) {
  if (url === '/fault') throw new Error('no such tenant')
  return { [`project:${url.slice(1)}`]: ['read'] }
}

describe.each(BY_REQUEST)(
  'permissions that are a function of the request, on %s over a service',
  (_name, build) => {
    it.each([false, true])(
      'are asked once the key is proven, and spend nothing if it lacks them (charge: %s)',
      async (charge) => {
        const world = await createWorld()
        const caller = await world.keys.issue({ ...NAME, owner: BOB, permissions: VERIFY })
        const baseUrl = `http://127.0.0.1:${world.port}/api-keys`
        const client = createApiKeysClient({ baseUrl, key: caller.key })
        const events: string[] = []
        const remote = remoteApiKeys(client, {
          prefix: 'acme_test',
          clock: world.clock,
          charge,
          onEvent: (event) => void events.push('operation' in event ? event.operation : event.type),
        })
        const ask = await serve(build(remote))
        const { key, apiKey } = await world.keys.issue({
          ...NAME,
          permissions: { 'project:1': ['read'] },
          rateLimits: [{ name: 'minute', limit: 5, windowMs: 60_000 }],
        })
        const lines = [`X-Api-Key: ${key}`]
        const wrong = [`X-Api-Key: ${forgeKey(key, { secret: 'x'.repeat(43) })}`]
        expect((await ask('/fault', wrong)).status).toBe(401)
        expect(events).toEqual(['key.refused'])
        for (const path of ['/2', '/a,b']) {
          expect((await ask(path, lines)).json()).toMatchObject({ code: 'insufficient_permissions' })
        }
        expect((await ask('/fault', lines)).status).toBe(503)
        expect(events.slice(1)).toEqual(['key.refused', 'key.refused', 'permissions'])
        expect(await world.keys.limits(apiKey.id)).toMatchObject([{ remaining: 5 }])
        expect((await ask('/1', lines)).body).toBe('read')
        expect(await world.keys.limits(apiKey.id)).toMatchObject([{ remaining: charge ? 4 : 5 }])
      },
    )
  },
)

describe.each(CONSUMERS)('%s over a service', (_name, build) => {
  async function createConsumer(options: RemoteApiKeysOptions = {}) {
    const world = await createWorld()
    const caller = await world.keys.issue({ ...NAME, owner: BOB, permissions: VERIFY })
    let isAway = false
    const client = createApiKeysClient({
      baseUrl: `http://127.0.0.1:${world.port}/api-keys`,
      key: caller.key,
      retries: 0,
      fetch: (url, init) => (isAway ? Promise.reject(new TypeError('fetch failed')) : fetch(url, init)),
    })
    const remote = remoteApiKeys(client, { prefix: 'acme_test', clock: world.clock, ...options })
    const [ask, askLocal] = [await serve(build(remote)), await serve(build(world.keys))]
    const goAway = () => {
      isAway = true
    }
    return { ...world, caller, ask, askLocal, goAway }
  }

  const told = async (ask: Ask, path: string, lines: string[]) => {
    const answer = await ask(path, lines)
    // What changes with every request.
    const fields = answer.lines.filter((line) => !/^(?:date|etag|ratelimit)/i.test(line))
    return { status: answer.status, lines: fields, body: answer.body }
  }

  it('answers 503, and never 401, for a good key while the service is away', async () => {
    const { keys, ask, goAway } = await createConsumer()
    const { key } = await keys.issue({ ...NAME, permissions: READ })
    goAway()
    for (const path of ['/read', '/write', '/session']) {
      const answer = await ask(path, [`X-Api-Key: ${key}`])
      expect(answer.status).toBe(503)
      expect(answer.json()).toMatchObject({ code: 'unavailable' })
      expect(answer.text).not.toContain('fetch failed')
      expect(answer.header('WWW-Authenticate')).toBeUndefined()
    }
  })

  it('answers 503 where the service refuses the key of this application', async () => {
    const { keys, caller, ask } = await createConsumer()
    const { key } = await keys.issue({ ...NAME, permissions: READ })
    await keys.update(caller.apiKey.id, { permissions: {} })
    expect((await ask('/read', [`X-Api-Key: ${key}`])).status).toBe(503)
    await keys.revoke(caller.apiKey.id)
    expect((await ask('/read', [`X-Api-Key: ${key}`])).status).toBe(503)
  })

  it('answers each request as it would over keys of its own, asked the first time and from memory', async () => {
    const { keys, ask, askLocal } = await createConsumer()
    const good = await keys.issue({ ...NAME, permissions: READ })
    const revoked = await keys.issue({ ...NAME, permissions: READ })
    await keys.revoke(revoked.apiKey.id)
    const disabled = await keys.issue({ ...NAME, permissions: READ })
    await keys.disable(disabled.apiKey.id)
    const elsewhere = await keys.issue({ ...NAME, permissions: READ, allowedIps: ['192.0.2.1'] })
    const presented: string[][] = [
      [],
      [`X-Api-Key: ${good.key}`],
      [`Authorization: Bearer ${good.key}`],
      [`Authorization: Api-Key ${good.key}`],
      [`X-Api-Key: ${good.key}`, `Authorization: Api-Key ${revoked.key}`],
      [`X-Api-Key: ${revoked.key}`],
      [`X-Api-Key: ${disabled.key}`],
      [`X-Api-Key: ${elsewhere.key}`],
      [`X-Api-Key: ${forgeKey(good.key, { secret: 'x'.repeat(43) })}`],
      [`X-Api-Key: ${forgeKey(good.key, { keyId: 'x'.repeat(16) })}`],
      [`X-Api-Key: ${good.key}x`],
      ['X-Api-Key: nonsense'],
      ['Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln'],
    ]
    for (const lines of presented) {
      for (const path of ['/read', '/write', '/session', '/read']) {
        const what = `${path} ${lines.join(', ').replaceAll(/_\w{20,}/g, '…')}`
        expect(await told(ask, path, lines), what).toEqual(await told(askLocal, path, lines))
      }
    }
    expect((await ask('/read', [`X-Api-Key: ${good.key}`])).json()).toEqual({
      user: NAME.owner,
      owner: NAME.owner,
      method: 'apikey',
    })
  })

  it('charges a request once, and shows the limits', async () => {
    const { keys, ask } = await createConsumer({ charge: true })
    const { key } = await keys.issue({
      ...NAME,
      permissions: READ,
      rateLimits: [{ name: 'minute', limit: 2, windowMs: 60_000 }],
    })
    const lines = [`X-Api-Key: ${key}`]
    const answers = [await ask('/read', lines), await ask('/read', lines), await ask('/read', lines)]
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429])
    expect(answers.map((answer) => answer.header('RateLimit'))).toEqual([
      '"minute";r=1;t=60',
      '"minute";r=0;t=60',
      '"minute";r=0;t=60',
    ])
    expect(answers[2]?.header('Retry-After')).toBe('60')
    expect(answers[2]?.json()).toMatchObject({ code: 'rate_limited', ...exceeds(['minute']) })
  })
})
