import type { ErrorRequestHandler, Express, RequestHandler } from 'express'
import type { ApiKeysOptions } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { describe, expect, it } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'

const LIMITS: ApiKeysOptions['rateLimits'] = [
  { name: 'second', limit: 1, windowMs: 1_000 },
  { name: 'hour', limit: 100, windowMs: 3_600_000 },
]

describe.each(EXPRESSES)('a refusal on %s', (_name, createApp) => {
  /** Asks an application that is guarded by `guard`. */
  async function start(guard: (test: ReturnType<typeof createTestKeys>) => RequestHandler[]) {
    const test = createTestKeys({ rateLimits: LIMITS })
    const { key } = await issueKey(test.keys)
    const app: Express = createApp()
    app.use(...guard(test), (_req, res) => void res.end())
    const ask = await serve(app)
    return { ...test, key, ask }
  }

  it('names only the limits that refused', async () => {
    const { ask, key } = await start(({ keys }) => [apiKeyAuth(keys)])
    await ask('/', [`X-Api-Key: ${key}`])
    const { status, body } = await ask('/', [`X-Api-Key: ${key}`])
    expect(status).toBe(429)
    expect(JSON.parse(body)).toMatchObject({ code: 'rate_limited', exceeded: ['second'] })
  })

  it('of two credentials is an event without a key', async () => {
    const { ask, key, eventsOf } = await start(({ keys }) => [apiKeyAuth(keys)])
    const { status } = await ask('/', [`X-Api-Key: ${key}`, `Authorization: Api-Key ${key}`])
    expect(status).toBe(400)
    expect(eventsOf('key.refused')).toMatchObject([
      { code: 'multiple_credentials', reason: null, keyId: null, owner: null },
    ])
  })

  it('of a key without a user is an event with the key', async () => {
    const { ask, key, eventsOf } = await start(({ keys }) => [apiKeyAuth(keys, { resolveUser: () => null })])
    const { status } = await ask('/', [`X-Api-Key: ${key}`])
    expect(status).toBe(401)
    expect(eventsOf('key.refused')).toMatchObject([
      { code: 'invalid_key', reason: 'no_user', ip: '127.0.0.1' },
    ])
    expect(eventsOf('key.refused')[0]?.keyId).toEqual(expect.any(String))
  })

  it('by a later middleware, of a key that lacks a permission or has another prefix, is an event too', async () => {
    const { ask, key, eventsOf } = await start(({ keys }) => [
      apiKeyAuth(keys),
      apiKeyAuth(keys, { permissions: { reports: ['write'] } }),
    ])
    expect((await ask('/', [`X-Api-Key: ${key}`])).status).toBe(403)
    expect(eventsOf('key.refused')).toMatchObject([{ code: 'insufficient_permissions', reason: null }])

    const other = await start(({ keys }) => [apiKeyAuth(keys), apiKeyAuth(keys, { prefix: 'acme_live' })])
    expect((await other.ask('/', [`X-Api-Key: ${other.key}`])).status).toBe(401)
    expect(other.eventsOf('key.refused')).toMatchObject([
      { code: 'invalid_key', reason: 'prefix_not_accepted' },
    ])
  })

  it('rendered by the application keeps the challenge that it has set itself', async () => {
    const { ask } = await start(({ keys }) => [apiKeyAuth(keys, { refuseWith: 'error' })])
    expect((await ask('/')).lines).toContainEqual(expect.stringMatching(/^WWW-Authenticate: Api-Key realm/i))

    const test = createTestKeys()
    const app = createApp()
    app.use(apiKeyAuth(test.keys, { refuseWith: 'error' }))
    const render: ErrorRequestHandler = (_error, _req, res, _next) => {
      res.status(401).set('WWW-Authenticate', 'Basic realm="Own"').end()
    }
    app.use(render)
    const { lines } = await (await serve(app))('/')
    expect(lines.filter((line) => /^www-authenticate/i.test(line))).toEqual([
      'WWW-Authenticate: Basic realm="Own"',
    ])
    expect(lines).toContain('Cache-Control: no-store')
  })
})
