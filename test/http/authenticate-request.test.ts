import express, { type ErrorRequestHandler } from 'express'
import { type ApiKeyVerifier, LatchkeyError, type VerifyResult } from 'latchkey'
import { type ApiKeyAuthOptions, apiKeyAuth } from 'latchkey/express'
import { describe, expect, it } from 'vitest'
import { serve } from '../support/raw-http.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const READ = { projects: ['read'] }

/** An application behind these middlewares, which shows what an error handler is given. */
async function start(...guards: [keys: ApiKeyVerifier, options?: ApiKeyAuthOptions][]) {
  const app = express()
  const errors: unknown[] = []
  for (const [keys, options] of guards) app.use(apiKeyAuth(keys, { refuseWith: 'error', ...options }))
  app.get('/', (req, res) => void res.json({ keyId: req.apiKey?.id }))
  const note: ErrorRequestHandler = (error, _req, res, _next) => {
    errors.push(error)
    res.status(error.status ?? 500).json({ code: error.code })
  }
  app.use(note)
  return { ask: await serve(app), errors }
}

describe('what happens beside verify', () => {
  it('becomes an event: two keys, no user, a user that cannot be found, a key that was verified for less', async () => {
    const { keys, events } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    const lines = [`X-Api-Key: ${key}`]
    const failure = new Error('the users are away')
    const cases: [options: ApiKeyAuthOptions[], lines: string[], code: string, event: object][] = [
      [
        [{}],
        [...lines, `Authorization: Api-Key ${key}`],
        'multiple_credentials',
        { type: 'key.refused', code: 'multiple_credentials', reason: null, keyId: null, owner: null },
      ],
      [
        [{ resolveUser: () => null }],
        lines,
        'invalid_key',
        { type: 'key.refused', code: 'invalid_key', reason: 'no_user', keyId: apiKey.id, owner: NAME.owner },
      ],
      [
        [{ resolveUser: () => Promise.reject(failure) }],
        lines,
        'unavailable',
        { type: 'fault', operation: 'resolve_user', error: failure },
      ],
      [
        [{}, { prefix: 'other' }],
        lines,
        'invalid_key',
        { type: 'key.refused', code: 'invalid_key', reason: 'prefix_not_accepted', keyId: apiKey.id },
      ],
      [
        [{}, { permissions: READ }],
        lines,
        'insufficient_permissions',
        { type: 'key.refused', code: 'insufficient_permissions', reason: null, keyId: apiKey.id },
      ],
    ]
    for (const [options, sent, code, event] of cases) {
      const { ask } = await start(...options.map((one): [ApiKeyVerifier, ApiKeyAuthOptions] => [keys, one]))
      events.length = 0
      expect((await ask('/', sent)).json()).toEqual({ code })
      expect(events, code).toEqual([expect.objectContaining(event)])
    }
  })

  it('is refused by verifiers that take no note of it, too', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const { verify } = keys
    const lines = [`X-Api-Key: ${key}`]
    const refused: [ApiKeyAuthOptions[], string[], string][] = [
      [[{}], [...lines, ...lines], 'multiple_credentials'],
      [[{ resolveUser: () => undefined }], lines, 'invalid_key'],
      [[{ resolveUser: () => Promise.reject(new Error('away')) }], lines, 'unavailable'],
      [[{}, { prefix: 'other' }], lines, 'invalid_key'],
      [[{}, { permissions: READ }], lines, 'insufficient_permissions'],
    ]
    const verifier = { verify }
    for (const [options, sent, code] of refused) {
      const { ask } = await start(
        ...options.map((one): [ApiKeyVerifier, ApiKeyAuthOptions] => [verifier, one]),
      )
      expect((await ask('/', sent)).json()).toEqual({ code })
    }
  })
})

describe('a verifier that fails', () => {
  const failing = (error: unknown) => ({ verify: (): Promise<VerifyResult> => Promise.reject(error) })

  it('may say itself that it is unavailable, and with which fields', async () => {
    const error = new LatchkeyError('unavailable', 'not now', { headers: { 'Retry-After': '7' } })
    const { ask, errors } = await start([failing(error)])
    const answer = await ask('/', ['X-Api-Key: k'])
    expect(answer.status).toBe(503)
    expect(answer.header('Retry-After')).toBe('7')
    expect(errors).toEqual([error])
    expect(errors[0]).toBe(error)
  })

  it.each([
    ['an error of its own', new Error('down')],
    ['an error of ours that is about something else', new LatchkeyError('not_found')],
    ['nothing', undefined],
  ])('is unavailable with %s, which stays with the error', async (_what, cause) => {
    const { ask, errors } = await start([failing(cause)])
    const answer = await ask('/', ['X-Api-Key: k'])
    expect(answer.json()).toEqual({ code: 'unavailable' })
    expect((errors[0] as Error).cause).toBe(cause)
  })
})

describe('two middlewares with keys of their own', () => {
  it('each verify what they read: a good key of one is none for the other', async () => {
    const [one, other] = [createTestKeys({ prefix: 'one' }), createTestKeys({ prefix: 'other' })]
    const { key } = await one.keys.issue(NAME)
    const { key: otherKey, apiKey } = await other.keys.issue(NAME)
    const { ask } = await start(
      [one.keys, { headers: ['X-One'], scheme: false }],
      [other.keys, { headers: ['X-Other'], scheme: false }],
    )
    const codeOf = async (...lines: string[]) => (await ask('/', lines)).json()
    expect(await codeOf(`X-One: ${key}`, `X-Other: ${key}`)).toEqual({ code: 'invalid_key' })
    expect(await codeOf(`X-One: ${key}`, `X-Other: ${otherKey}x`)).toEqual({ code: 'invalid_key' })
    expect(await codeOf(`X-One: ${key}`, `X-Other: ${otherKey}`)).toEqual({ keyId: apiKey.id })
  })

  it('each charge their own, and each once', async () => {
    const limit = { name: 'minute', limit: 5, windowMs: 60_000 }
    const { keys } = createTestKeys({ rateLimits: [limit] })
    const [first, second] = [await keys.issue(NAME), await keys.issue(NAME)]
    const { ask } = await start(
      [keys, { headers: ['X-One'], scheme: false }],
      [keys, { headers: ['X-One'], scheme: false }],
      [keys, { headers: ['X-Two'], scheme: false, cost: 2 }],
    )
    expect((await ask('/', [`X-One: ${first.key}`, `X-Two: ${second.key}`])).status).toBe(200)
    const left = async (key: string) => {
      const result = await keys.verify(key, { cost: 0 })
      return result.ok && result.limits[0]?.remaining
    }
    expect(await left(first.key)).toBe(4)
    expect(await left(second.key)).toBe(3)
  })
})
