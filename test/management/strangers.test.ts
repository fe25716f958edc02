import express from 'express'
import Koa from 'koa'
import { createKeyManagementApi } from 'latchkey/management'
import { apiKeyRouter as expressRouter } from 'latchkey/management/express'
import { apiKeyRouter as koaRouter } from 'latchkey/management/koa'
import { beforeEach, describe, expect, it } from 'vitest'
import { ACTORS, type BuildApp, type CallOptions, createWorld } from '../support/management-world.ts'
import { createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const OPERATIONS = ['/', '/revoke', '/verify', '/self/revoke', '/abc/rotate', '/abc/enable']
const VERIFIER = { ...NAME, permissions: { 'api-keys': ['verify'] } }

/** How often anything was looked for in the body. */
let looks = 0
beforeEach(() => {
  looks = 0
})

/** A body that notices whoever looks into it. */
function watchedBody(): object {
  const look = <Args extends unknown[], Seen>(see: (...args: Args) => Seen) => {
    return (...args: Args): Seen => {
      looks += 1
      return see(...args)
    }
  }
  return new Proxy(
    { name: 'CI', metadata: { list: Array(1_000).fill(0) }, unknown: true },
    {
      // A promise that is resolved with it asks for `then`, which is none of our looking.
      get: (body, name) => (name === 'then' ? undefined : look(Reflect.get)(body, name)),
      has: look(Reflect.has),
      ownKeys: look(Reflect.ownKeys),
      getOwnPropertyDescriptor: look(Reflect.getOwnPropertyDescriptor),
    },
  )
}

const DOORS: readonly (readonly [string, BuildApp])[] = [
  [
    'Express',
    (keys, options) =>
      express()
        .use((req, _res, next) => {
          req.body = watchedBody()
          req.resume().on('end', () => next())
        })
        .use('/api-keys', expressRouter(keys, options as never)),
  ],
  [
    'Koa',
    (keys, options) =>
      new Koa()
        .use(async (ctx, next) => {
          for await (const _ of ctx.req) {
          }
          ;(ctx.request as { body?: unknown }).body = watchedBody()
          await next()
        })
        .use(koaRouter(keys, options as never))
        .callback(),
  ],
  [
    'no router',
    (keys, options) => {
      const api = createKeyManagementApi(keys, options)
      return async (req, res) => {
        for await (const _ of req) {
        }
        const url = String(req.url).slice('/api-keys'.length)
        const parsedBody = watchedBody()
        const answer = await api.handle({ method: String(req.method), url, source: req as never, parsedBody })
        res.writeHead(answer.status, answer.headers).end(answer.body)
      }
    },
  ],
]

describe.each(DOORS)('with %s, a body is looked at', (_name, build) => {
  it.each(OPERATIONS)('by nobody for a stranger: POST %s', async (path) => {
    const { call, keys } = await createWorld({}, build)
    const { key, apiKey } = await keys.issue(NAME)
    await keys.revoke(apiKey.id)
    const strangers: CallOptions[] = [
      {},
      { key: 'acme_test_malformed' },
      { key: forgeKey(key, { secret: 'x'.repeat(43) }) },
      { key },
      { headers: { Authorization: `Api-Key ${key}`, 'X-Api-Key': key } },
      { as: 'alice', headers: { 'Sec-Fetch-Site': 'cross-site' } },
    ]
    const statuses = []
    for (const stranger of strangers) {
      statuses.push((await call('POST', path, { ...stranger, json: {} })).status)
    }
    expect(statuses).toEqual([401, 401, 401, 401, 400, 403])
    expect(looks).toBe(0)
  })

  it('by nobody for a key that may not do this, or not from there', async () => {
    const { call, keys } = await createWorld({}, build)
    const { key } = await keys.issue({ ...NAME, permissions: { '*': ['*'] } })
    const elsewhere = await keys.issue({ ...VERIFIER, allowedIps: ['203.0.113.7'] })
    const answers = [
      await call('POST', '/', { key, json: {} }),
      await call('PATCH', '/abc', { key, json: {} }),
      await call('POST', '/verify', { key, json: {} }),
      await call('POST', '/verify', { key: elsewhere.key, json: {} }),
      await call('POST', '/verify', { as: 'admin', json: {} }),
    ]
    expect(answers.map(({ body }) => body.code)).toEqual([
      'session_required',
      'session_required',
      'insufficient_permissions',
      'address_not_allowed',
      'missing_key',
    ])
    expect(looks).toBe(0)
  })

  it('no more often than a caller may ask', async () => {
    const { call, keys } = await createWorld({ requestLimit: { limit: 1, verify: 1 } }, build)
    const { key } = await keys.issue(VERIFIER)
    const callers: [string, CallOptions][] = [
      ['/', { as: 'alice' }],
      ['/verify', { key }],
    ]
    for (const [path, caller] of callers) {
      expect((await call('POST', path, { ...caller, json: {} })).body).toMatchObject({ status: 400 })
      expect(looks).toBeGreaterThan(0)
      looks = 0
      expect((await call('POST', path, { ...caller, json: {} })).status).toBe(429)
      expect(looks).toBe(0)
    }
  })

  it('where its sender is somebody, who is told what is wrong with it', async () => {
    const { call } = await createWorld({ actor: () => ACTORS.alice as never }, build)
    const answer = await call('POST', '/', { json: {} })
    expect(answer.body).toMatchObject({ code: 'invalid_request', field: 'unknown' })
    expect(looks).toBeGreaterThan(0)
  })
})

it('reads no query of more parameters than there could be', async () => {
  const { call } = await createWorld()
  const query = (count: number) => `?${Array.from({ length: count }, (_, i) => `p${i}`).join('&')}`
  for (const path of ['/', '/self', '/openapi.json']) {
    expect((await call('GET', path + query(32))).body).toMatchObject({ status: 400, field: 'p0' })
    expect((await call('GET', path + query(33))).body).toMatchObject({
      status: 400,
      field: 'query',
      accepted: 'at most 32 parameters',
    })
  }
})

it('names a forbidden member by its whole path, and what is nested too deeply', async () => {
  const { keys } = createTestKeys()
  const api = createKeyManagementApi(keys, { actor: () => ACTORS.alice as never })
  const headers = { 'content-type': 'application/json', 'content-length': '2' }
  const fieldOf = async (text: string) => {
    const source = { headers, readableDidRead: true }
    const { body } = await api.handle({ method: 'POST', url: '/', source, parsedBody: text })
    return JSON.parse(body).field
  }
  expect(await fieldOf('{"name":"x","metadata":{"a":[0,[1,{"b":{"__proto__":1}}]]}}')).toBe(
    'metadata.a[1][1].b.__proto__',
  )
  expect(await fieldOf('[{"constructor":1}]')).toBe('[0].constructor')
  expect(await fieldOf(`{"metadata":${'['.repeat(30_000)}${']'.repeat(30_000)}}`)).toMatch(
    /^metadata(\[0\])+/,
  )
})
