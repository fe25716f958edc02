import express from 'express'
import fc from 'fast-check'
import { type ApiKeys, isLatchkeyError } from 'latchkey'
import { type ApiKeyAuthOptions, apiKeyAuth } from 'latchkey/express'
import { plainTextFormat } from 'latchkey/import'
import { describe, expect, it } from 'vitest'
import { BARE, INVALID } from '../support/challenges.ts'
import { EXPRESSES } from '../support/expresses.ts'
import { issueWarmKey } from '../support/issue-key.ts'
import { times } from '../support/long-run.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys, forgeKey, NAME, partsOf } from '../support/test-keys.ts'

const JWT = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1XzEifQ.c2lnbmF0dXJl'

/** An application that wants a key for everything, and a warm key for it. */
async function start(options: ApiKeyAuthOptions = {}, createApp: typeof express = express) {
  const { keys, store } = createTestKeys()
  const { key, apiKey } = await issueWarmKey(keys)
  const app = createApp()
  app.use(express.json())
  app.use(apiKeyAuth(keys, options))
  app.use((req, res) => void res.json({ keyId: req.apiKey?.id }))
  const ask = await serve(app)
  store.forgetCalls()
  return { ask, key, apiKey, keys, store }
}

/** `K` in a line stands for a good key, `J` for a bad one in the same shape. */
function fill(lines: readonly string[], key: string): string[] {
  return lines.map((line) => line.replace(/\bK\b/g, key).replace(/\bJ\b/g, `${key.slice(0, -1)}-`))
}

describe.each(EXPRESSES)('a credential on %s', (_name, express) => {
  it.each([
    ['in X-Api-Key', ['X-Api-Key: K']],
    ['in X-Api-Key in another case', ['x-API-key: K']],
    ['without a space after the colon', ['X-Api-Key:K']],
    ['between spaces and tabs', ['X-Api-Key:  \t K \t ']],
    ['under the scheme Api-Key', ['Authorization: Api-Key K']],
    ['as a bearer token', ['Authorization: Bearer K']],
    ['as a bearer token in another case', ['AUTHORIZATION: bearer K']],
    ['under the scheme in lower case', ['authorization: api-key K']],
    ['under the scheme in upper case', ['AUTHORIZATION: API-KEY K']],
    ['behind tabs and spaces', ['Authorization: \tApi-Key \t  K \t']],
    ['beside an empty header', ['X-Api-Key: K', 'X-Api-Key:']],
    ['beside an empty header of the other kind', ['Authorization: Api-Key', 'X-Api-Key: K']],
    ['beside somebody else’s Authorization', [`Authorization: Bearer ${JWT}`, 'X-Api-Key: K']],
  ])('is read %s', async (_where, lines) => {
    const { ask, key, apiKey } = await start({}, express)
    const answer = await ask('/', fill(lines, key))
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual({ keyId: apiKey.id })
  })

  it.each([
    ['no header', []],
    ['an empty header', ['X-Api-Key:']],
    ['a blank header', ['X-Api-Key: \t ']],
    ['several empty headers', ['X-Api-Key:', 'X-Api-Key:', 'Authorization:']],
    ['a scheme without anything', ['Authorization: Api-Key']],
    ['a scheme with blanks', ['Authorization: Api-Key  \t']],
    ['another scheme', ['Authorization: Basic K']],
    ['a scheme that is spelt otherwise', ['Authorization: ApiKey K']],
    ['a bearer token that is none of these keys', [`Authorization: Bearer ${JWT}`]],
    ['a bearer token with another prefix', ['Authorization: Bearer acme_live_K']],
    ['a key without a scheme', ['Authorization: K']],
    ['another header', ['X-Api-Keys: K', 'Api-Key: K', 'Proxy-Authorization: Api-Key K']],
    ['a cookie', ['Cookie: X-Api-Key=K; api_key=K']],
  ])('is not seen in %s', async (_where, lines) => {
    const { ask, key, store } = await start({}, express)
    const answer = await ask('/', fill(lines, key))
    expect(answer.status).toBe(401)
    expect(answer.json()).toMatchObject({ code: 'missing_key' })
    expect(answer.header('WWW-Authenticate')).toBe(BARE)
    expect(store.calls()).toBe(0)
  })

  it('is not seen in the query or the body', async () => {
    const { ask, key } = await start({}, express)
    const query = ['X-Api-Key', 'x-api-key', 'api_key', 'apikey', 'key', 'authorization', 'access_token']
      .map((name) => `${name}=${key}`)
      .join('&')
    const json = { 'x-api-key': key, 'X-Api-Key': key, api_key: key, apikey: key, access_token: key }
    const answer = await ask(`/?${query}`, [], { method: 'POST', json })
    expect(answer.status).toBe(401)
    expect(answer.json()).toMatchObject({ code: 'missing_key' })
  })

  it.each([
    ['the same header twice', ['X-Api-Key: K', 'X-Api-Key: K']],
    ['the same header in two cases', ['X-Api-Key: K', 'x-api-key: K']],
    ['two headers', ['X-Api-Key: K', 'Authorization: Api-Key K']],
    ['two headers, the other way round', ['Authorization: Api-Key K', 'X-Api-Key: K']],
    [
      'Authorization twice, of which Node keeps one',
      ['Authorization: Api-Key K', 'Authorization: Api-Key K'],
    ],
    ['two apart', ['X-Api-Key: K', 'Accept: */*', 'X-Api-Key:', 'X-Api-Key: K']],
    ['three', ['X-Api-Key: K', 'X-Api-Key: K', 'X-Api-Key: K']],
    ['a good one before a bad one', ['X-Api-Key: K', 'X-Api-Key: J']],
    ['a bad one before a good one', ['X-Api-Key: J', 'Authorization: Api-Key K']],
    ['two bad ones', ['X-Api-Key: J', 'X-Api-Key: J']],
  ])('is refused where there are several: %s', async (_which, lines) => {
    const { ask, key, store } = await start({}, express)
    const answer = await ask('/', fill(lines, key))
    expect(answer.status).toBe(400)
    expect(answer.json()).toMatchObject({ code: 'multiple_credentials', status: 400 })
    expect(store.calls()).toBe(0)
  })

  it('is refused without a look at the store where it is malformed', async () => {
    const { ask, key, store } = await start({}, express)
    const { secret } = partsOf(key)
    const malformed = {
      'over-long': 'k'.repeat(8_192),
      'over-long, with a key at its end': `${'k'.repeat(8_000)}${key}`,
      'one letter too long': `${key}0`,
      'one letter too short': key.slice(0, -1),
      'a wrong checksum': `${key.slice(0, -1)}${key.endsWith('0') ? '1' : '0'}`,
      'a letter of the secret mistyped': key.replace(secret, `${secret.slice(1)}0`),
      'in upper case': key.toUpperCase(),
      'in quotes': `"${key}"`,
      'with a parameter name': `key=${key}`,
      'two keys in one line': `${key}, ${key}`,
      'a key and another word': `${key} ${key}`,
      'a prefix that is none': forgeKey(key, { prefix: '9acme' }),
      'a prefix that is too long': forgeKey(key, { prefix: 'a'.repeat(33) }),
      'a letter that is not ASCII': `${key.slice(0, -1)}é`,
      'UTF-8': Buffer.from('schlüssel').toString('latin1'),
      'a space that is not ASCII before it': `\u00a0${key}`,
      'a space that is not ASCII behind it': `${key}\u00a0`,
      'a space that is not ASCII alone': '\u00a0',
      'a JWT': JWT,
      'a member of every object': '__proto__',
      'one letter': 'k',
    }
    for (const [title, value] of Object.entries(malformed)) {
      for (const line of [`X-Api-Key: ${value}`, `Authorization: Api-Key ${value}`]) {
        const answer = await ask('/', [line])
        expect(answer.status, title).toBe(401)
        expect(answer.json(), title).toMatchObject({ code: 'invalid_key' })
        expect(answer.header('WWW-Authenticate')).toBe(INVALID)
      }
    }
    expect(store.calls()).toBe(0)
  })
})

describe('headers, scheme and bearer', () => {
  const headers = ['X-Token', 'x-other']

  it.each<[string, ApiKeyAuthOptions, string[], number, string?]>([
    ['reads the configured header', { headers }, ['x-token: K'], 200],
    ['reads another configured header', { headers }, ['X-Other: K'], 200],
    ['no longer reads the default header', { headers }, ['X-Api-Key: K'], 401, 'missing_key'],
    ['counts over configured headers', { headers }, ['X-Token: K', 'X-Other: K'], 400],
    ['reads no header where none is configured', { headers: [] }, ['X-Api-Key: K'], 401, 'missing_key'],
    ['reads the scheme where no header is configured', { headers: [] }, ['Authorization: Api-Key K'], 200],
    ['counts one line once where a name stands twice', { headers: ['a', 'A'] }, ['A: K'], 200],
    ['reads the configured scheme', { scheme: 'Token' }, ['Authorization: token K'], 200],
    ['no longer reads the default scheme', { scheme: 'Token' }, ['Authorization: Api-Key K'], 401],
    ['reads no scheme', { scheme: false }, ['Authorization: Api-Key K'], 401, 'missing_key'],
    ['reads no scheme, but headers', { scheme: false }, ['Authorization: Api-Key K', 'X-Api-Key: K'], 200],
    ['reads bearer', { bearer: true }, ['Authorization: Bearer K'], 200],
    ['reads bearer in any case', { bearer: true }, ['Authorization: BEARER \t K'], 200],
    ['reads bearer without a scheme', { bearer: true, scheme: false }, ['Authorization: Bearer K'], 200],
    ['still reads the scheme', { bearer: true }, ['Authorization: Api-Key K'], 200],
    ['lets a JWT pass by', { bearer: true }, [`Authorization: Bearer ${JWT}`], 401, 'missing_key'],
    ['lets a JWT pass by a key', { bearer: true }, [`Authorization: Bearer ${JWT}`, 'X-Api-Key: K'], 200],
    ['counts bearer', { bearer: true }, ['Authorization: Bearer K', 'X-Api-Key: K'], 400],
    [
      'knows keys by their prefix',
      { bearer: true },
      ['Authorization: Bearer acme_test_x'],
      401,
      'invalid_key',
    ],
    ['needs the whole prefix', { bearer: true }, ['Authorization: Bearer acme_tester'], 401, 'missing_key'],
    ['knows listed prefixes', { bearer: ['old', 'acme_test'] }, ['Authorization: Bearer K'], 200],
    ['knows only those', { bearer: ['old'] }, ['Authorization: Bearer K'], 401, 'missing_key'],
    [
      'refuses what has a listed prefix',
      { bearer: ['old'] },
      ['Authorization: Bearer old_1'],
      401,
      'invalid_key',
    ],
  ])('%s', async (_title, options, lines, status, code) => {
    const { ask, key } = await start(options)
    const answer = await ask('/', fill(lines, key))
    expect(answer.status).toBe(status)
    if (code) expect(answer.json()).toMatchObject({ code })
  })

  describe('with formats of other products', () => {
    const formats = [plainTextFormat({ shape: /^[0-9a-f-]{36}$/ })]
    const foreign = '4f7c0a6d-3f0f-4b8e-9d57-2f5f5f1d9a10'

    async function startWith(options: ApiKeyAuthOptions, given = formats) {
      const { keys } = createTestKeys({ formats: given })
      await keys.importAll([{ format: 'plain-text', key: foreign, ...NAME }])
      const app = express()
      app.use(apiKeyAuth(keys, options))
      app.use((_req, res) => void res.json({}))
      return serve(app)
    }

    it.each([
      ['lets a JWT pass by', `Authorization: Bearer ${JWT}`, 'missing_key'],
      ['lets another shape pass by', 'Authorization: Bearer 4f7c0a6d', 'missing_key'],
      [
        'refuses the shape without a key',
        `Authorization: Bearer ${foreign.replace('4', '5')}`,
        'invalid_key',
      ],
    ])('bearer %s', async (_what, line, code) => {
      const ask = await startWith({ bearer: true })
      expect((await ask('/', [line])).json()).toMatchObject({ code })
    })

    it('reads an imported key from every place that it may be in', async () => {
      const ask = await startWith({ bearer: true })
      for (const line of ['X-Api-Key: ', 'Authorization: Api-Key ', 'Authorization: Bearer ']) {
        expect((await ask('/', [line + foreign])).status).toBe(200)
      }
      expect((await ask('/', [`Authorization: Bearer ${foreign}`, `X-Api-Key: ${foreign}`])).status).toBe(400)
    })

    it('takes no bearer token for one where only prefixes count', async () => {
      const ask = await startWith({ bearer: ['acme_test'] })
      expect((await ask('/', [`Authorization: Bearer ${foreign}`])).json()).toMatchObject({
        code: 'missing_key',
      })
    })

    it('answers 503 where a format is broken', async () => {
      const broken = {
        name: 'broken',
        lookup() {
          throw new Error('broken')
        },
      }
      const ask = await startWith({ bearer: true }, [...formats, broken as never])
      expect((await ask('/', ['Authorization: Bearer opaque'])).status).toBe(503)
    })
  })

  it('takes no token of another scheme, though it begins as a key does', async () => {
    const { ask, key } = await start({ bearer: true })
    for (const scheme of ['Token', 'Basic', 'Bearerx', key]) {
      const answer = await ask('/', [`Authorization: ${scheme} ${key}`])
      expect(answer.json()).toMatchObject({ code: 'missing_key' })
    }
    expect((await ask('/', [`Authorization: bearer ${key}`])).status).toBe(200)
  })

  it('names the scheme in challenges that is left', async () => {
    const { ask, key } = await start({ scheme: false })
    const answer = await ask('/', [`Authorization: Api-Key ${key}`])
    expect(answer.header('WWW-Authenticate')).toBe('Bearer realm="Users"')
  })

  it('names the usual scheme in challenges where keys come in fields of their own', async () => {
    const { ask, key } = await start({ scheme: false, bearer: false })
    for (const scheme of ['Api-Key', 'Bearer']) {
      const answer = await ask('/', [`Authorization: ${scheme} ${key}`])
      expect(answer.header('WWW-Authenticate')).toBe('Api-Key realm="Users"')
    }
  })

  it('names the configured scheme in challenges', async () => {
    const { ask } = await start({ scheme: 'Token', realm: 'API' })
    expect((await ask('/')).header('WWW-Authenticate')).toBe('Token realm="API", Bearer realm="API"')
  })

  it.each<[string, Record<string, unknown>, string]>([
    ['headers', { headers: 'X-Api-Key' }, '"headers" must be an array, received a string'],
    ['headers[1]', { headers: ['X-A', 5] }, '"headers[1]" must be the name of a header field, received 5'],
    [
      'headers[0]',
      { headers: ['X A'] },
      '"headers[0]" must be the name of a header field, received a string',
    ],
    ['headers[0]', { headers: ['X-A\r\n'] }, '"headers[0]" must be the name'],
    ['headers[0]', { headers: ['Authorization'] }, '"headers[0]" must not be "authorization"'],
    ['headers[0]', { headers: ['COOKIE'] }, '"headers[0]" must not be "cookie"'],
    ['headers[0]', { headers: ['Proxy-Authorization'] }, '"headers[0]" must not be "proxy-authorization"'],
    ['headers[0]', { headers: [' X-A'] }, '"headers[0]" must be the name'],
    ['headers[0]', { headers: ['X'.repeat(65)] }, '"headers[0]" must be the name'],
    ['scheme', { scheme: 'Digest' }, '"scheme" must not be "Digest"'],
    ['scheme', { scheme: 'negotiate' }, '"scheme" must not be "negotiate"'],
    ['headers', { headers: Array(17).fill('X-A') }, '"headers" must have at most 16 entries'],
    [
      'scheme',
      { scheme: '' },
      '"scheme" must be an authentication scheme or false, received an empty string',
    ],
    ['scheme', { scheme: true }, '"scheme" must be an authentication scheme or false, received true'],
    [
      'scheme',
      { scheme: 'Api Key' },
      '"scheme" must be an authentication scheme or false, received a string',
    ],
    ['scheme', { scheme: 'bearer' }, '"scheme" must not be "bearer"'],
    ['scheme', { scheme: 'Basic' }, '"scheme" must not be "Basic"'],
    ['bearer', { bearer: 'acme' }, `"bearer" must be true or false, received the string 'acme'`],
    ['bearer', { bearer: [] }, '"bearer" must be true, false or a non-empty array of prefixes'],
    ['bearer', { bearer: ['acme', ''] }, '"bearer" must be true, false or a non-empty array of prefixes'],
    ['an unknown one', { header: ['X-A'] }, '"options" has no option "header"; did you mean "headers"?'],
  ])('refuses a wrong %s by name', (_name, options, message) => {
    const { keys } = createTestKeys()
    expect(() => apiKeyAuth(keys, options)).toThrow(TypeError)
    expect(() => apiKeyAuth(keys, options)).toThrow(message)
  })

  it('refuses bearer without a list where the keys have no prefix of their own', () => {
    const { verify } = createTestKeys().keys
    expect(() => apiKeyAuth({ verify }, { bearer: true })).toThrow(
      '"bearer" must list the prefixes, because these keys have no "prefix"',
    )
    expect(() => apiKeyAuth({ verify }, { bearer: ['acme'] })).not.toThrow()
  })
})

describe('a request that is not Node’s', () => {
  /** Runs the middleware on an object that somebody made up; answers the code, or `admitted`. */
  async function codeOf(keys: ApiKeys, request: object): Promise<string> {
    const answered = new Promise((resolve) => {
      const middleware = apiKeyAuth(keys, { refuseWith: 'error' })
      middleware(request as never, { setHeader() {} } as never, resolve as never)
    })
    const error = await answered
    if (error === undefined) return 'admitted'
    return isLatchkeyError(error) ? error.code : String(error)
  }

  it.each<[string, unknown, string]>([
    ['a string', 'K', 'admitted'],
    ['an array of one', ['K'], 'admitted'],
    ['an array with an empty one', ['', 'K'], 'admitted'],
    ['an array of two', ['K', 'K'], 'multiple_credentials'],
    ['an empty array', [], 'missing_key'],
    ['a number', 5, 'invalid_key'],
    ['an object', { toString: 'K' }, 'invalid_key'],
    ['false', false, 'invalid_key'],
    ['an array with an object beside a key', ['K', {}], 'multiple_credentials'],
    ['an array of nothing', [null], 'missing_key'],
    ['null', null, 'missing_key'],
    ['undefined', undefined, 'missing_key'],
  ])('may have a header that is %s', async (_what, value, expected) => {
    const { keys } = createTestKeys()
    const { key } = await issueWarmKey(keys)
    const header = JSON.parse(JSON.stringify(value ?? null).replaceAll('"K"', `"${key}"`)) ?? undefined
    for (const rest of [{}, { rawHeaders: [] }]) {
      expect(await codeOf(keys, { headers: { 'x-api-key': header }, ...rest })).toBe(expected)
    }
  })

  it('may have Authorization as a string', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueWarmKey(keys)
    expect(await codeOf(keys, { headers: { authorization: `api-key ${key}` } })).toBe('admitted')
    expect(await codeOf(keys, { headers: { authorization: `api-key ${key}`, 'x-api-key': key } })).toBe(
      'multiple_credentials',
    )
  })

  it('never gets past, whatever its headers say', async () => {
    const { keys, store } = createTestKeys()
    const name = fc.constantFrom('X-Api-Key', 'x-api-key', 'Authorization', 'authorization', 'Accept')
    const value = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 200 }),
      fc.string({ maxLength: 90 }).map((text) => `Api-Key ${text}`),
      fc.stringMatching(/^acme_test_[0-9A-Za-z]{16}_[0-9A-Za-z]{43}$/).map((text) => `${text}000000`),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(name, value), { maxLength: 4 }), async (fields) => {
        const headers = Object.fromEntries(fields.map(([name, value]) => [name.toLowerCase(), value]))
        const codes = ['missing_key', 'invalid_key', 'multiple_credentials']
        expect(codes).toContain(await codeOf(keys, { headers }))
        expect(codes).toContain(await codeOf(keys, { headers, rawHeaders: fields.flat() }))
      }),
      { numRuns: times({ short: 100, soak: 300 }) },
    )
    expect(store.calls()).toBe(0)
  })
})
