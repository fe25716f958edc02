import createFastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { type ApiKeys, isLatchkeyError, type ServiceRateLimit } from 'latchkey'
import {
  type ApiKeyPluginOptions,
  apiKeyAuth,
  apiKeyErrorHandler,
  apiKeyPlugin,
  getAuth,
  markSession,
  refund,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
  settle,
} from 'latchkey/fastify'
import { describe, expect, it, onTestFinished } from 'vitest'
import { settle as tick } from '../support/fake-clock.ts'
import { issueKey } from '../support/issue-key.ts'
import { ALICE, createTestKeys } from '../support/test-keys.ts'

const MINUTE: ServiceRateLimit = { name: 'minute', limit: 10, windowMs: 60_000 }

async function setUp(
  rateLimits: readonly ServiceRateLimit[] = [],
  options: Partial<ApiKeyPluginOptions> = {},
) {
  const test = createTestKeys({ rateLimits })
  const app = createFastify()
  onTestFinished(() => app.close())
  await app.register(apiKeyPlugin, { keys: test.keys, ...options })
  const { key, apiKey } = await issueKey(test.keys, { permissions: { projects: ['read'] } })
  const ask = (url = '/', headers: Record<string, string> = { 'x-api-key': key }) =>
    app.inject({ url, headers })
  return { ...test, app, key, apiKey, ask }
}

describe('apiKeyPlugin refuses', () => {
  it.each<[string, object, string]>([
    ['no keys', { keys: undefined }, '"keys" must be'],
    ['an unknown option', { realms: 'x' }, 'did you mean "realm"'],
    ['what belongs to a route', { permissions: {} }, '"options" has no option "permissions"'],
    ['another way to refuse', { refuseWith: 'fail' }, '"refuseWith" must be'],
    ['Fastify’s prefix, which is of paths', { prefix: '/v1' }, '"options" has no option "prefix"'],
    ['an address that is not a function', { ip: '::1' }, '"ip" must be a function'],
  ])('%s', async (_what, options, message) => {
    await expect(setUp([], options)).rejects.toThrow(message)
  })

  it.each<[string, unknown, string]>([
    ['a text', 'read', '"config.apiKey of GET /" must be true, false or an object'],
    ['null', null, '"config.apiKey of GET /" must be true, false or an object'],
    ['a misspelt member', { permission: {} }, 'did you mean "permissions"'],
    ['permissions that are wrong', { permissions: { projects: [] } }, '"permissions'],
    ['a cost that is wrong', { cost: -1 }, '"cost" must be'],
  ])('the config of a route when it is added: %s', async (_what, apiKey, message) => {
    const { app } = await setUp()
    expect(() => app.get('/', { config: { apiKey: apiKey as true } }, () => 'in')).toThrow(message)
  })

  it('a request without a key, with a bad one or two, before the handler runs', async () => {
    const { app, ask, key } = await setUp()
    let runs = 0
    app.get('/', { config: { apiKey: true } }, () => ++runs)
    for (const [headers, status, code] of [
      [{}, 401, 'missing_key'],
      [{ 'x-api-key': 'junk' }, 401, 'invalid_key'],
      [{ 'x-api-key': key, authorization: `Bearer ${key}` }, 400, 'multiple_credentials'],
    ] as [Record<string, string>, number, string][]) {
      const answer = await ask('/', headers)
      expect([answer.statusCode, answer.json().code]).toEqual([status, code])
      expect(answer.headers['content-type']).toBe('application/problem+json')
    }
    expect(runs).toBe(0)
  })
})

describe('apiKeyPlugin keeps out', () => {
  const route = { config: { apiKey: true } }

  it.each<[string, (app: FastifyInstance, keys: ApiKeys) => unknown]>([
    [
      'that was added first',
      async (app, keys) => {
        app.get('/', route, () => 'in')
        await app.register(apiKeyPlugin, { keys })
      },
    ],
    [
      'that was added while the plugin still loads',
      (app, keys) => {
        app.register(apiKeyPlugin, { keys })
        app.get('/', route, () => 'in')
      },
    ],
    [
      'of a plugin that was registered first',
      (app, keys) => {
        app.register(async (inner) => {
          inner.get('/', route, () => 'in')
        })
        app.register(apiKeyPlugin, { keys })
      },
    ],
    [
      'whose config a later plugin adds',
      async (app, keys) => {
        await app.register(apiKeyPlugin, { keys })
        app.addHook('onRoute', (options) => {
          options.config = { ...options.config, ...route.config }
        })
        app.get('/', () => 'in')
      },
    ],
  ])('every request from a route %s, since nothing checks its key', async (_what, prepare) => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const app = createFastify()
    onTestFinished(() => app.close())
    await prepare(app, keys)
    for (const headers of [{}, { 'x-api-key': key }]) {
      const answer = await app.inject({ url: '/', headers })
      expect(answer.statusCode).toBe(500)
      expect(answer.json().message).toContain('await app.register(apiKeyPlugin')
    }
  })

  it('what it adds to requests, where that is there already', async () => {
    const app = createFastify()
    onTestFinished(() => app.close())
    app.decorateRequest('apiKey', null as never)
    await expect(app.register(apiKeyPlugin, { keys: createTestKeys().keys })).rejects.toThrow(
      'one is there already',
    )
    const { app: twice, keys } = await setUp()
    await expect(twice.register(apiKeyPlugin, { keys })).rejects.toThrow('register it once')
  })
})

describe('apiKeyPlugin', () => {
  it('guards both paths of a route at the root of a prefix, in each of two plugins', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const app = createFastify()
    onTestFinished(() => app.close())
    for (const prefix of ['/a', '/b']) {
      const inner = async (part: FastifyInstance) => {
        await part.register(apiKeyPlugin, { keys })
        part.get('/', { config: { apiKey: true } }, ({ auth }) => auth.method)
      }
      app.register(inner, { prefix })
    }
    for (const url of ['/a', '/a/', '/b', '/b/']) {
      expect((await app.inject({ url })).statusCode).toBe(401)
      expect((await app.inject({ method: 'HEAD', url })).statusCode).toBe(401)
      expect((await app.inject({ url, headers: { 'x-api-key': key } })).body).toBe('apikey')
    }
  })

  it('shows who is calling, also to routes that ask for no key', async () => {
    const { app, ask } = await setUp([MINUTE])
    app.get('/', { config: { apiKey: true } }, ({ auth, apiKey }) => ({
      auth: auth.method,
      name: apiKey?.name,
    }))
    app.get('/open', ({ auth, apiKey }) => ({ auth: auth.method, key: String(apiKey) }))
    app.get('/off', { config: { apiKey: false } }, ({ auth }) => auth)
    const answer = await ask()
    expect(answer.json()).toEqual({ auth: 'apikey', name: 'CI' })
    expect(answer.headers.ratelimit).toBe('"minute";r=9;t=60')
    expect((await ask('/open')).json()).toEqual({ auth: 'none', key: 'undefined' })
    expect((await ask('/off')).json()).toEqual({ method: 'none' })
  })

  it('asks what a route asks for, wherever it stands, and charges a request once', async () => {
    const { app, ask } = await setUp([MINUTE])
    await app.register(
      async (inner) => {
        inner.get('/write', { config: { apiKey: { permissions: { projects: ['write'] } } } }, () => 'in')
        const cost = (request: { query: unknown }) => Number((request.query as { n?: string }).n ?? 3)
        inner.get('/dear', { config: { apiKey: { permissions: { projects: ['read'] }, cost } } }, () => 'in')
        inner.get('/both', { config: { apiKey: true }, onRequest: requireApiKey() }, () => 'in')
        inner.get('/optional', { config: { apiKey: { required: false } } }, ({ auth }) => auth.method)
      },
      { prefix: '/v1' },
    )
    expect((await ask('/v1/write')).json()).toMatchObject({ missing: { projects: ['write'] } })
    expect((await ask('/v1/dear?n=2')).headers.ratelimit).toBe('"minute";r=8;t=60')
    expect((await ask('/v1/both')).headers.ratelimit).toBe('"minute";r=7;t=60')
    expect((await ask('/v1/optional', {})).body).toBe('none')
    expect((await ask('/v1/optional', { 'x-api-key': 'junk' })).statusCode).toBe(401)
  })

  it('accepts keys of its prefix alone, if told', async () => {
    const { app, ask } = await setUp([], { keyPrefix: 'acme_live' })
    app.get('/', { config: { apiKey: true } }, () => 'in')
    expect((await ask()).json().code).toBe('invalid_key')
  })

  it('verifies HEAD as GET, and keeps hooks of a route after it', async () => {
    const { app, key } = await setUp([MINUTE])
    const seen: unknown[] = []
    const onRequest = [
      async (request: { auth: { method: string } }) => {
        seen.push(request.auth.method)
      },
    ]
    app.get('/', { config: { apiKey: true }, onRequest }, () => 'in')
    const head = await app.inject({ method: 'HEAD', url: '/', headers: { 'x-api-key': key } })
    expect([head.statusCode, head.body, head.headers.ratelimit]).toEqual([200, '', '"minute";r=9;t=60'])
    expect((await app.inject({ method: 'HEAD', url: '/' })).statusCode).toBe(401)
    expect(seen).toEqual(['apikey'])
  })

  it('cannot be misled by what other code puts on the request', async () => {
    const { app, ask } = await setUp()
    app.addHook('onRequest', async (request) => {
      Object.assign(request.raw, { user: { admin: true }, apiKey: { id: 'claimed' }, authMethod: 'session' })
    })
    app.get('/session', { onRequest: requireSession() }, () => 'in')
    app.get('/key', { onRequest: requireApiKey() }, ({ apiKey }) => apiKey)
    expect((await ask('/session', {})).statusCode).toBe(403)
    expect((await ask('/key', {})).statusCode).toBe(403)
  })
})

describe('with Fastify, the answer to a refusal', () => {
  async function refusedBy(
    options: Partial<ApiKeyPluginOptions>,
    prepare: (app: FastifyInstance) => void = () => {},
  ) {
    const { app, ask } = await setUp([MINUTE], options)
    prepare(app)
    app.get('/', { config: { apiKey: { cost: 11 } } }, () => 'in')
    return ask()
  }

  it('is a problem body, by default', async () => {
    const answer = await refusedBy({})
    expect(answer.statusCode).toBe(429)
    expect(answer.headers).toMatchObject({ 'cache-control': 'no-store', ratelimit: '"minute";r=10' })
    expect(answer.json()).toMatchObject({ code: 'rate_limited', exceeded: ['minute'] })
  })

  it('is in Fastify’s own format, as an error', async () => {
    const answer = await refusedBy({ refuseWith: 'error' })
    expect(answer.headers).toMatchObject({ 'cache-control': 'no-store', ratelimit: '"minute";r=10' })
    expect(answer.json()).toEqual({
      statusCode: 429,
      code: 'rate_limited',
      error: 'Too Many Requests',
      message: 'The API key has exceeded a rate limit',
    })
  })

  it('is what the application’s error handler says, with the fields of the refusal', async () => {
    const answer = await refusedBy({ refuseWith: 'error' }, (app) =>
      app.setErrorHandler((error, _request, reply) => {
        if (isLatchkeyError(error)) reply.code(error.status).send({ failed: error.code })
      }),
    )
    expect(answer.json()).toEqual({ failed: 'rate_limited' })
    expect(answer.headers).toMatchObject({ 'cache-control': 'no-store', ratelimit: '"minute";r=10' })
  })

  it('is a problem body with apiKeyErrorHandler(), which passes on what is not ours', async () => {
    const { app, ask } = await setUp([MINUTE], { refuseWith: 'error' })
    app.setErrorHandler(apiKeyErrorHandler())
    app.get('/', { config: { apiKey: { cost: 11 } } }, () => 'in')
    app.get('/broken', () => Promise.reject(new Error('broken')))
    expect((await ask()).headers['content-type']).toBe('application/problem+json')
    expect((await ask('/broken')).json()).toMatchObject({ statusCode: 500, message: 'broken' })
  })
})

describe('hooks of Fastify', () => {
  it('let in by session, by key, or by either', async () => {
    const { keys, app, ask, key } = await setUp()
    app.addHook('onRequest', markSession({ user: ({ headers }) => headers['x-login'] }))
    app.addHook('onRequest', apiKeyAuth(keys, { required: false }))
    app.get('/session', { onRequest: requireSession() }, (request) => getAuth(request))
    app.get(
      '/either',
      { onRequest: requireAuth({ accept: ['session', 'apikey'] }) },
      ({ auth }) => auth.method,
    )
    app.get('/write', { onRequest: requirePermissions({ projects: ['write'] }) }, () => 'in')
    expect((await ask('/session', { 'x-login': 'alice' })).json()).toEqual({
      method: 'session',
      user: 'alice',
    })
    expect((await ask('/session', { 'x-login': 'alice', 'x-api-key': key })).json().code).toBe(
      'session_required',
    )
    expect((await ask('/session', {})).json().code).toBe('authentication_required')
    expect((await ask('/either', { 'x-login': 'alice' })).body).toBe('session')
    expect((await ask('/either', { 'x-login': 'alice', 'x-api-key': key })).body).toBe('apikey')
    expect((await ask('/write')).json().code).toBe('insufficient_permissions')
  })

  it('ask for permissions by the request that Fastify knows', async () => {
    const { app, keys, ask } = await setUp()
    const permissions = ({ params }: FastifyRequest) => ({
      [`project:${(params as { id: string }).id}`]: ['read'],
    })
    app.get('/config/:id', { config: { apiKey: { permissions } } }, () => 'in')
    app.get(
      '/guard/:id',
      { config: { apiKey: true }, onRequest: requirePermissions(permissions) },
      () => 'in',
    )
    app.get('/key/:id', { config: { apiKey: true }, onRequest: requireApiKey({ permissions }) }, () => 'in')
    const nothing = () => undefined as never
    app.get('/nothing', { config: { apiKey: true }, onRequest: requirePermissions(nothing) }, () => 'in')
    const { key } = await issueKey(keys, { permissions: { 'project:p1': ['read'] } })
    for (const path of ['config', 'guard', 'key']) {
      const statusOf = async (id: string) => (await ask(`/${path}/${id}`, { 'x-api-key': key })).statusCode
      expect([path, await statusOf('p1'), await statusOf('p2'), await statusOf('a b')]).toEqual([
        path,
        200,
        403,
        403,
      ])
    }
    expect((await ask('/nothing')).statusCode).toBe(503)
  })

  it('are told by a mistake in markSession', () => {
    expect(() => markSession({} as { user: () => unknown })).toThrow('"user" must be a function')
    expect(() => markSession({ user: () => null, users: 1 } as object as { user: () => unknown })).toThrow(
      '"user"',
    )
  })

  it.each([
    ['', () => {}],
    [
      ', where a plugin for middlewares of Express puts the response on the request',
      (app: FastifyInstance) =>
        app.addHook('onRequest', async (request, reply) => {
          Object.assign(request.raw, { res: reply.raw })
        }),
    ],
  ])('show what settling and giving back have left%s', async (_where, prepare) => {
    const { app, ask } = await setUp([MINUTE])
    prepare(app)
    app.get('/settle', { config: { apiKey: { cost: 5 } } }, async (request) => settle(request, 2))
    app.get('/refund', { config: { apiKey: { cost: 5 } } }, async (request) => refund(request))
    const settled = await ask('/settle')
    expect([settled.json(), settled.headers.ratelimit]).toEqual([true, '"minute";r=8;t=60'])
    const refunded = await ask('/refund')
    expect([refunded.json(), refunded.headers.ratelimit]).toEqual([true, '"minute";r=8;t=60'])
  })

  it('give places back when the response has ended', async () => {
    const { keys, app, apiKey, ask } = await setUp([{ name: 'parallel', concurrent: 1 }])
    const free = async () => (await keys.limits(apiKey.id))?.[0]?.remaining
    app.get('/', { config: { apiKey: true } }, async () => ({ free: await free() }))
    app.get('/broken', { config: { apiKey: true } }, () => Promise.reject(new Error('broken')))
    expect((await ask()).json()).toEqual({ free: 0 })
    await tick()
    expect(await free()).toBe(1)
    expect((await ask('/broken')).statusCode).toBe(500)
    await tick()
    expect(await free()).toBe(1)
  })

  it('use the address that Fastify knows', async () => {
    const { keys, app } = await setUp()
    const { key } = await issueKey(keys, { owner: ALICE, allowedIps: ['203.0.113.5'] })
    app.get('/', { config: { apiKey: true } }, () => 'in')
    const from = async (remoteAddress: string) =>
      (
        await app.inject({
          url: '/',
          remoteAddress,
          headers: { 'x-api-key': key, 'x-forwarded-for': '203.0.113.5' },
        })
      ).statusCode
    expect([await from('203.0.113.5'), await from('192.0.2.1')]).toEqual([200, 403])
  })
})
