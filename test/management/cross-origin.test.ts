import type { RequestHandler } from 'express'
import express from 'express'
import Koa from 'koa'
import { createKeyManagementApi } from 'latchkey/management'
import { apiKeyRouter as expressRouter } from 'latchkey/management/express'
import { apiKeyRouter as koaRouter } from 'latchkey/management/koa'
import { describe, expect, it } from 'vitest'
import { type BuildApp, createWorld, ROUTERS } from '../support/management-world.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const DASHBOARD = 'https://dashboard.example.net'
const EVIL = 'https://evil.example'
const PERMITTED = { allowedOrigins: ['http://localhost:5173', DASHBOARD] }
/** What a browser sends for `fetch` from another site. */
const from = (origin: string) => ({ Origin: origin, 'Sec-Fetch-Site': 'cross-site' })
const asking = (method: string, names = 'content-type') => ({
  'Access-Control-Request-Method': method,
  'Access-Control-Request-Headers': names,
})

const CORS_FIELDS = [
  'access-control-allow-origin',
  'access-control-allow-credentials',
  'access-control-allow-methods',
  'access-control-allow-headers',
  'access-control-expose-headers',
  'access-control-max-age',
]
const corsFields = (headers: Headers) => CORS_FIELDS.filter((name) => headers.has(name))
const list = (text: string | null) => (text ?? '').split(',').map((name) => name.trim())

describe.each(ROUTERS)('a page of another site, behind %s', (_name, build) => {
  it('does what any other client does, and may read the answer, where its origin is allowed', async () => {
    const { call, keys } = await createWorld(PERMITTED, build)
    const headers = from(DASHBOARD)
    const issued = await call('POST', '/', { as: 'alice', headers, json: { name: 'CI' } })
    expect(issued.status).toBe(201)
    const { id } = issued.body.apiKey as { id: string }
    const answers = [
      issued,
      await call('GET', '/', { as: 'alice', headers }),
      await call('PATCH', `/${id}`, { as: 'alice', headers, json: { name: 'x' } }),
      // Refusals are to be read as well.
      await call('POST', '/', { headers, json: { name: 'CI' } }),
      await call('POST', '/', { as: 'alice', headers, body: '{' }),
      await call('GET', '/nothing/at/all', { headers }),
      await call('DELETE', '/', { headers }),
      await call('GET', '/openapi.json', { headers }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([201, 200, 200, 401, 400, 404, 405, 200])
    for (const { headers } of answers) {
      expect(headers.get('access-control-allow-origin')).toBe(DASHBOARD)
      expect(headers.get('vary')).toBe('Origin')
      expect(headers.has('access-control-allow-credentials')).toBe(false)
      const exposed = list(headers.get('access-control-expose-headers'))
      expect(exposed).toEqual(
        expect.arrayContaining(['ETag', 'RateLimit', 'RateLimit-Policy', 'Retry-After', 'WWW-Authenticate']),
      )
    }
    expect((await keys.get(id))?.name).toBe('x')
  })

  it.each([
    EVIL,
    'null',
    '',
    'https://dashboard.example.net.evil.example',
    'https://evil-dashboard.example.net',
    'https://sub.dashboard.example.net',
    'http://dashboard.example.net',
    'https://dashboard.example.net:8443',
    'https://dashboard.example.net/',
    'HTTPS://DASHBOARD.EXAMPLE.NET',
    'https://dashboard.example.net, https://evil.example',
    'https://dashboard.example.net https://evil.example',
    'http://localhost',
  ])('changes nothing and reads nothing where its origin is %j', async (origin) => {
    const { call, keys } = await createWorld({ ...PERMITTED, allowCredentials: true }, build)
    const { apiKey } = await keys.issue(NAME)
    const headers = from(origin)
    const form = { ...headers, 'Content-Type': 'application/x-www-form-urlencoded' }
    const text = { ...headers, 'Content-Type': 'text/plain' }
    const path = `/${apiKey.id}/revoke`
    const refused = [
      await call('POST', path, { as: 'alice', headers, json: {} }),
      await call('POST', path, { as: 'alice', headers: form, body: 'reason=x' }),
      await call('POST', path, { as: 'alice', headers: text, body: '{}' }),
    ]
    for (const answer of refused) expect(answer.body).toMatchObject({ status: 403, code: 'cross_site' })
    const preflight = await call('OPTIONS', path, { headers: { ...headers, ...asking('POST') } })
    expect(preflight.status).toBe(405)
    const look = await call('GET', '/', { as: 'alice', headers })
    expect(look.status).toBe(200)
    for (const answer of [...refused, preflight, look]) {
      expect(corsFields(answer.headers)).toEqual([])
      expect(answer.headers.get('vary')).toBe('Origin')
    }
    expect((await keys.get(apiKey.id))?.version).toBe(1)
  })

  it('sends no form, also from an allowed origin', async () => {
    const { call, keys } = await createWorld({ ...PERMITTED, allowCredentials: true }, build)
    const { apiKey } = await keys.issue(NAME)
    for (const type of ['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data']) {
      const headers = { ...from(DASHBOARD), 'Content-Type': type }
      const answer = await call('POST', `/${apiKey.id}/revoke`, { as: 'alice', headers, body: '{}' })
      expect(answer.body).toMatchObject({ status: 415, code: 'unsupported_media_type' })
    }
    expect((await keys.get(apiKey.id))?.revokedAt).toBeNull()
  })

  it('is told by a preflight what it may send, before anybody is asked who it is', async () => {
    let asked = 0
    const actor = () => {
      asked += 1
      return null
    }
    const { call } = await createWorld({ ...PERMITTED, actor }, build)
    const preflight = (path: string, method: string, names?: string) =>
      call('OPTIONS', path, { headers: { ...from(DASHBOARD), ...asking(method, names) } })
    const answer = await preflight('/abc', 'PATCH', 'content-type,if-match,x-csrf-token')
    expect(answer.status).toBe(204)
    expect(answer.text.endsWith('\n\n')).toBe(true)
    const { headers } = answer
    expect(headers.get('access-control-allow-origin')).toBe(DASHBOARD)
    expect(headers.get('vary')).toBe('Origin')
    expect(headers.has('access-control-allow-credentials')).toBe(false)
    expect(list(headers.get('access-control-allow-methods'))).toEqual(['GET', 'HEAD', 'PATCH', 'DELETE'])
    expect(list(headers.get('access-control-allow-headers'))).toEqual([
      'Authorization',
      'Content-Type',
      'Idempotency-Key',
      'If-Match',
      'X-Api-Key',
      'x-csrf-token',
    ])
    expect(Number(headers.get('access-control-max-age'))).toBeGreaterThan(0)
    const root = await preflight('/', 'POST')
    expect(list(root.headers.get('access-control-allow-methods'))).toEqual(['GET', 'HEAD', 'POST'])
    const unknown = await preflight('/a/b', 'POST')
    expect([unknown.status, unknown.headers.get('access-control-allow-origin')]).toEqual([404, DASHBOARD])
    expect(asked).toBe(0)
  })

  it('is granted no header field whose name is none', async () => {
    const { call } = await createWorld(PERMITTED, build)
    const names = `x-a,, *x ,x b,"x",${'y'.repeat(65)},x-c`
    const headers = { ...from(DASHBOARD), ...asking('POST', names) }
    const granted = (await call('OPTIONS', '/', { headers })).headers.get('access-control-allow-headers')
    expect(list(granted).slice(5)).toEqual(['x-a', '*x', 'x-c'])
  })

  it('may send credentials only where that is said', async () => {
    const { call } = await createWorld({ ...PERMITTED, allowCredentials: true }, build)
    const answers = [
      await call('GET', '/', { as: 'alice', headers: from(DASHBOARD) }),
      await call('OPTIONS', '/', { headers: { ...from(DASHBOARD), ...asking('POST') } }),
    ]
    for (const { headers } of answers) {
      expect(headers.get('access-control-allow-credentials')).toBe('true')
      expect(headers.get('access-control-allow-origin')).toBe(DASHBOARD)
    }
    const own = await call('GET', '/', { as: 'alice' })
    expect(corsFields(own.headers)).toEqual([])
    expect(own.headers.get('vary')).toBe('Origin')
  })

  it.each([{}, { allowedOrigins: [] }])('is refused as ever without allowed origins: %j', async (options) => {
    const { call } = await createWorld(options, build)
    const answers = [
      await call('POST', '/', { as: 'alice', headers: from(DASHBOARD), json: { name: 'CI' } }),
      await call('OPTIONS', '/', { headers: { ...from(DASHBOARD), ...asking('POST') } }),
      await call('GET', '/', { as: 'alice', headers: from(DASHBOARD) }),
    ]
    expect(answers.map(({ body: { code } }) => code)).toEqual(['cross_site', 'method_not_allowed', undefined])
    for (const { headers } of answers) {
      expect(corsFields(headers)).toEqual([])
      expect(headers.has('vary')).toBe(false)
    }
  })
})

/** Each router behind a middleware that has said already what its part of the answer varies by. */
const varying: readonly (readonly [string, BuildApp])[] = [
  [
    'Express',
    (keys, options) => {
      const vary: RequestHandler = (_req, res, next) => {
        res.vary('Accept-Encoding')
        next()
      }
      return express()
        .use(vary)
        .use('/api-keys', expressRouter(keys, options as never))
    },
  ],
  [
    'Koa',
    (keys, options) =>
      new Koa()
        .use((ctx, next) => {
          ctx.vary('Accept-Encoding')
          return next()
        })
        .use(koaRouter(keys, options as never))
        .callback(),
  ],
]

it.each(varying)('leaves what others vary by in place on %s', async (_name, build) => {
  const { call } = await createWorld(PERMITTED, build)
  for (const headers of [{}, from(DASHBOARD), from(EVIL)]) {
    const answer = await call('POST', '/', { headers, json: {} })
    expect(list(answer.headers.get('vary'))).toEqual(['Accept-Encoding', 'Origin'])
  }
})

it('is the same without a router', async () => {
  const { keys } = createTestKeys()
  const api = createKeyManagementApi<{ headers: Record<string, string> }>(keys, {
    ...PERMITTED,
    actor: () => null,
  })
  const ask = (method: string, headers: Record<string, string>) =>
    api.handle({ method, url: '/', source: { headers } })
  expect(await ask('OPTIONS', { origin: DASHBOARD, 'access-control-request-method': 'POST' })).toMatchObject({
    status: 204,
    headers: { 'Access-Control-Allow-Origin': DASHBOARD, Vary: 'Origin' },
    body: '',
  })
  const other = await ask('GET', { origin: EVIL })
  expect([other.status, other.headers.Vary]).toEqual([401, 'Origin'])
  expect(other.headers).not.toHaveProperty('Access-Control-Allow-Origin')
})

describe('the option allowedOrigins', () => {
  const build = (options: object) => () =>
    createKeyManagementApi(createTestKeys().keys, { actor: () => null, ...options } as never)

  it.each([
    '*',
    'null',
    '',
    'dashboard.example.net',
    '//dashboard.example.net',
    'https://*.example.net',
    'https://dashboard.example.*',
    'https://dashboard.example.net/',
    'https://dashboard.example.net/keys',
    'https://dashboard.example.net?x',
    'https://dashboard.example.net#x',
    'https://user@dashboard.example.net',
    'https://dashboard.example.net:443',
    'http://dashboard.example.net:80',
    'https://dashboard.example.net:0',
    'https://dashboard.example.net:99999',
    'https://Dashboard.example.net',
    'HTTPS://dashboard.example.net',
    ' https://dashboard.example.net',
    'https://dashboard.example.net\n',
    'https://a.example,https://b.example',
    'https://a.example https://b.example',
    'https://bücher.example',
    'https://(a|b).example.net',
    'https://127.1',
    'https://',
    /^https:/,
    null,
    7,
    { origin: DASHBOARD },
  ])('takes no %j', (origin) => {
    const make = build({ allowedOrigins: [DASHBOARD, origin] })
    expect(make).toThrow(TypeError)
    expect(make).toThrow('"allowedOrigins[1]" must be one exact origin as a browser sends it')
    if (typeof origin === 'string' && origin.length > 10) expect(make).not.toThrow(origin)
  })

  it.each(['*', 'https://dashboard.example.net', true, null, new Set([DASHBOARD])])(
    'is a list and nothing else, so not %j',
    (allowedOrigins) => {
      expect(build({ allowedOrigins })).toThrow('"allowedOrigins" must be an array')
    },
  )

  it.each([
    'http://localhost:5173',
    'http://127.0.0.1',
    'http://[::1]:8080',
    'https://xn--bcher-kva.example',
    'https://a_b.example.net:8443',
    'chrome-extension://abcdefghijklmnop',
    'capacitor://localhost',
  ])('takes %s', (origin) => {
    expect(build({ allowedOrigins: [origin] })).not.toThrow()
  })

  it('goes with allowCredentials, which means nothing by itself', () => {
    expect(build({ allowCredentials: true })).toThrow('"allowCredentials" needs "allowedOrigins"')
    expect(build({ ...PERMITTED, allowCredentials: 'yes' })).toThrow(
      '"allowCredentials" must be true or false',
    )
    expect(build({ ...PERMITTED, allowCredentials: false })).not.toThrow()
    expect(build({ allowedOrigin: [DASHBOARD] })).toThrow('did you mean "allowedOrigins"?')
  })

  it('is read once: what the application changes afterwards changes nothing', async () => {
    const allowedOrigins = [DASHBOARD]
    const { call } = await createWorld({ allowedOrigins })
    allowedOrigins.push(EVIL)
    const answer = await call('POST', '/', { as: 'alice', headers: from(EVIL), json: { name: 'CI' } })
    expect(answer.body).toMatchObject({ code: 'cross_site' })
  })
})
