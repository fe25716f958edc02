import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text as readText } from 'node:stream/consumers'
import { inspect } from 'node:util'
import {
  type ApiKeysClient,
  ApiKeysClientError,
  type ApiKeysClientOptions,
  createApiKeysClient,
  isApiKeysClientError,
} from 'latchkey/client'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { listen } from '../support/raw-http.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const KEY = 'acme_test_0000000000000000_s3cretOfThisProgram'
const TOKEN = 'Bearer s3cretOfTheSession'
const ID = 'A'.repeat(16)
const BASE = 'https://auth.example.com/api-keys'

type Fetch = NonNullable<ApiKeysClientOptions['fetch']>

const { keys } = createTestKeys()
const issued = await keys.issue({ ...NAME, permissions: { projects: ['read'] }, quota: { remaining: 1 } })
/** A good key as it travels. */
const API_KEY = JSON.parse(JSON.stringify(issued.apiKey)) as Record<string, unknown>
const STEP = { step: 'record', outcome: 'passed', message: 'The store has the key.', read: {} }
const EXPLANATION = {
  outcome: 'admitted',
  reason: null,
  retryAfterMs: null,
  apiKey: API_KEY,
  limits: [],
  steps: [STEP],
}

afterEach(() => void vi.useRealTimers())

function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers })
}

/** A refusal of the service. */
function problem(code: string, status: number, headers: Record<string, string> = {}): Response {
  return json({ type: 'urn:x', title: 'x', status, code }, status, headers)
}

interface Sent {
  readonly url: string
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | undefined
}

interface Scripted {
  readonly fetch: Fetch
  readonly sent: Sent[]
}

/** Gives these answers in turn, the last one again and again; what is thrown by one is a connection that failed. */
function answering(...answers: (() => Response | Promise<Response>)[]): Scripted {
  const sent: Sent[] = []
  return {
    sent,
    fetch: async (url, init) => {
      const { method = '', headers, body } = init
      sent.push({ url, method, headers: headers as Record<string, string>, body: body as string })
      const answer = answers[Math.min(sent.length, answers.length) - 1] as () => Response
      return answer()
    },
  }
}

const lost = () => {
  throw new TypeError('the connection was reset')
}

function clientOf({ fetch }: { fetch: Fetch }, options: Partial<ApiKeysClientOptions> = {}): ApiKeysClient {
  return createApiKeysClient({ baseUrl: BASE, key: KEY, retries: 0, fetch, ...options })
}

async function errorOf(call: Promise<unknown>): Promise<unknown> {
  const answer = await call.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  )
  if ('value' in answer) expect.fail(`it has answered ${inspect(answer.value)}`)
  return answer.error
}

/** What failed, after it was looked at for secrets. */
async function failureOf(call: Promise<unknown>): Promise<ApiKeysClientError> {
  const error = await errorOf(call)
  expect(isApiKeysClientError(error), inspect(error)).toBe(true)
  expectNoSecrets(error)
  return error as ApiKeysClientError
}

function expectNoSecrets(value: unknown): void {
  const shown = inspect(value, { depth: 20, showHidden: true }) + String((value as Error)?.stack)
  expect(shown).not.toContain('s3cret')
}

describe('an option', () => {
  const secret = 's3cret'
  it.each<[string, object, string]>([
    ['no base', { baseUrl: undefined }, '"baseUrl" must be an absolute URL, received undefined'],
    ['an empty base', { baseUrl: '' }, '"baseUrl" must be an absolute URL, received an empty string'],
    ['a relative base without a page', { baseUrl: '/api-keys' }, '"baseUrl" must be an absolute URL'],
    ['a base that is no URL', { baseUrl: {} }, '"baseUrl" must be an absolute URL, received an object'],
    ['a base with credentials', { baseUrl: `https://u:${secret}@x.example` }, '"baseUrl" must have no cred'],
    ['a base with a user', { baseUrl: `https://${secret}@x.example` }, '"baseUrl" must have no credentials'],
    ['a base with a query', { baseUrl: `https://x.example/?key=${secret}` }, 'no query'],
    ['a base with a fragment', { baseUrl: `https://x.example/#${secret}` }, 'no fragment'],
    ['a base of another scheme', { baseUrl: 'ftp://x.example' }, '"baseUrl" must begin with https://'],
    ['a base that is a script', { baseUrl: 'javascript:alert(1)' }, '"baseUrl" must begin with https://'],
    ['a base that is a file', { baseUrl: 'file:///etc/keys' }, '"baseUrl" must begin with https://'],
    ['a key with a line break', { key: `${secret}\nX-Admin: 1` }, '"key" must be a key'],
    ['a key with a space', { key: `${secret} ` }, '"key" must be a key'],
    ['a key beyond ASCII', { key: `${secret}é` }, '"key" must be a key'],
    ['an empty key', { key: '' }, '"key" must be a key'],
    ['no key where one was meant', { key: null }, '"key" must be a key'],
    ['a name of a header field', { headers: { 'a b': secret } }, '"headers" must have valid names of header'],
    [
      'a value of a header field',
      { headers: { a: `${secret}\r\nb: c` } },
      '"headers.a" must be a valid value',
    ],
    ['a value beyond Latin', { headers: { a: `${secret}→` } }, '"headers.a" must be a valid value'],
    ['a number as a header field', { headers: { a: 1 } }, '"headers.a" must be a valid value'],
    ['a Headers object', { headers: new Headers({ a: secret }) }, '"headers" must be a plain object'],
    ['a list of header fields', { headers: [['a', secret]] }, '"headers" must be a plain object'],
    ['no function', { fetch: 'fetch' }, '"fetch" must be a function'],
    ['no time', { timeoutMs: 0 }, '"timeoutMs" must be a positive integer, received 0'],
    ['endless time', { timeoutMs: Number.POSITIVE_INFINITY }, '"timeoutMs" must be an integer from 1 to'],
    [
      'a negative number of retries',
      { retries: -1 },
      '"retries" must be an integer from 0 to 10, received -1',
    ],
    ['too many retries', { retries: 11 }, '"retries" must be an integer from 0 to 10, received 11'],
    ['half a retry', { retries: 0.5 }, '"retries" must be an integer'],
    ['a name that is unknown', { retires: 1 }, 'has no option "retires"; did you mean "retries"?'],
  ])('is refused by its name: %s', (_what, wrong, message) => {
    const create = () => createApiKeysClient({ baseUrl: BASE, ...wrong } as ApiKeysClientOptions)
    expect(create).toThrow(TypeError)
    expect(create).toThrow(message)
    try {
      create()
    } catch (error) {
      expectNoSecrets(error)
    }
  })

  it('may be wrong later, where it is a function, and is refused then; nothing is sent', async () => {
    const script = answering(() => json(API_KEY))
    const wrong: Partial<ApiKeysClientOptions>[] = [
      { key: () => 's3cret\n' },
      { key: async () => undefined as never },
      { headers: () => ({ a: 's3cret\n' }) },
      { headers: async () => null as never },
    ]
    for (const options of wrong) {
      const error = await errorOf(clientOf(script, options).self())
      expect(error).toBeInstanceOf(TypeError)
      expect((error as Error).message).toMatch(/^"(?:key|headers)/)
      expectNoSecrets(error)
    }
    expect(script.sent).toHaveLength(0)
  })

  it('may fail, where it is a function: the service cannot be asked then', async () => {
    const script = answering(() => json(API_KEY))
    const fails = () => Promise.reject(Object.assign(new Error('the vault is sealed'), { status: 401 }))
    for (const options of [{ key: fails }, { headers: fails }]) {
      const error = await failureOf(clientOf(script, options).self())
      expect(error).toMatchObject({ code: 'unavailable', responseStatus: null })
      expect(error.cause).toMatchObject({ message: 'the vault is sealed' })
    }
    expect(script.sent).toHaveLength(0)
  })

  it('is what it was when the client was made', async () => {
    const script = answering(() => json(API_KEY))
    const headers: Record<string, string> = { Authorization: TOKEN }
    const client = clientOf(script, { headers })
    headers.Authorization = 's3cret\n'
    await client.self()
    expect(script.sent[0]?.headers.Authorization).toBe(TOKEN)
  })

  it.each<[string, object, string]>([
    ['a name that is misspelt', { expectedVersoin: 1 }, 'did you mean "expectedVersion"?'],
    ['a version that is none', { expectedVersion: '1' }, '"expectedVersion" must be'],
    ['a signal that is none', { signal: new AbortController() }, '"signal" must be an AbortSignal'],
    ['a list', [], '"options" must be an object'],
  ])('of a call is refused by its name, and nothing is sent: %s', async (_what, options, message) => {
    const script = answering(() => json(API_KEY))
    const client = clientOf(script)
    for (const call of [
      client.update(ID, {}, options as never),
      client.enable(ID, options as never),
      client.disable(ID, options as never),
      client.rotate(ID, {}, options as never),
      client.revoke(ID, options as never),
    ]) {
      await expect(call).rejects.toThrow(TypeError)
      await expect(call).rejects.toThrow(message)
    }
    expect(script.sent).toHaveLength(0)
  })

  it('of a call is not taken by one that does not know it', async () => {
    const script = answering(() => json(API_KEY))
    const client = clientOf(script)
    const calls = [
      client.list({}, { expectedVersion: 1 } as never),
      client.issue({ name: 'a' }, { expectedVersion: 1 } as never),
      client.get(ID, { reason: 'a' } as never),
      client.update(ID, {}, { reason: 'a' } as never),
      client.revokeOwner(NAME.owner, { expectedVersion: 1 } as never),
      client.revokeCreatedBy('u', { expectedVersion: 1 } as never),
      client.revokeSelf({ expectedVersion: 1 } as never),
      client.self(null as never),
      client.openApi('now' as never),
      client.verify({ key: 'x' }, { charge: true } as never),
      client.issue({ name: 'a' }, { idempotencyKey: 'two words' }),
      client.issue({ name: 'a' }, { idempotencyKey: '' }),
    ]
    for (const call of calls) await expect(call).rejects.toThrow(TypeError)
    expect(script.sent).toHaveLength(0)
  })
})

describe('what is sent', () => {
  it.each<[string | URL, string]>([
    ['https://x.example', 'https://x.example'],
    ['https://x.example/', 'https://x.example'],
    ['https://x.example/api-keys//', 'https://x.example/api-keys'],
    ['https://x.example/api-keys?', 'https://x.example/api-keys'],
    ['https://x.example/api-keys#', 'https://x.example/api-keys'],
    ['https://x.example/a/../api-keys', 'https://x.example/api-keys'],
    [new URL('http://x.example:8080/a b/'), 'http://x.example:8080/a%20b'],
  ])('goes below %s', async (baseUrl, base) => {
    const script = answering(() => json(API_KEY))
    const client = clientOf(script, { baseUrl })
    await client.self()
    await client.get(ID)
    await errorOf(client.list())
    await errorOf(client.list({ name: 'a&b=c', owner: { type: 'user', id: 'ü/#' } }))
    expect(script.sent.map(({ url }) => url)).toEqual([
      `${base}/self`,
      `${base}/${ID}`,
      base,
      `${base}?name=a%26b%3Dc&ownerType=user&ownerId=%C3%BC%2F%23`,
    ])
  })

  it('goes below the page, in a browser', async () => {
    vi.stubGlobal('location', { href: 'https://app.example.com/settings?tab=keys#top' })
    try {
      const script = answering(() => json(API_KEY))
      await clientOf(script, { baseUrl: '/api-keys' }).self()
      await clientOf(script, { baseUrl: 'api-keys' }).self()
      const url = 'https://app.example.com/api-keys/self'
      expect(script.sent.map((sent) => sent.url)).toEqual([url, url])
      for (const baseUrl of [undefined, null, '', {}] as never[]) {
        expect(() => clientOf(script, { baseUrl })).toThrow('"baseUrl" must be an absolute URL')
      }
    } finally {
      vi.unstubAllGlobals()
    }
  })

  it('has one field of each name, ours first', async () => {
    const script = answering(() => json(API_KEY))
    const headers = {
      'x-api-key': 'another',
      accept: 'text/html',
      'CONTENT-TYPE': 'text/plain',
      'if-match': '"9"',
      'x-csrf': '1',
    }
    await clientOf(script, { headers }).revoke(ID, { expectedVersion: 3 })
    expect(script.sent[0]?.headers).toEqual({
      'x-csrf': '1',
      Accept: 'application/json',
      'Content-Type': 'application/json',
      'If-Match': '"3"',
      'X-Api-Key': KEY,
    })
  })

  it('follows no redirect, and is sent by the fetch of that moment', async () => {
    const client = createApiKeysClient({ baseUrl: BASE, retries: 0 })
    const replaced = vi.fn(async (_url: string, _init: RequestInit) => json(API_KEY))
    vi.stubGlobal('fetch', replaced)
    try {
      await client.self()
      expect(replaced.mock.calls[0]?.[1]).toMatchObject({ redirect: 'manual', method: 'GET' })
    } finally {
      vi.unstubAllGlobals()
    }
  })

  const never = new Date(Number.NaN)
  /** As dates of other libraries, and those of another realm. */
  const foreignNever = { toJSON: () => null }
  it.each<[string, object, string]>([
    ['an invalid date', { name: 'a', expiresAt: never }, '"expiresAt" must be a valid Date'],
    ['an invalid date of a library', { name: 'a', expiresAt: foreignNever }, '"expiresAt" must be a valid'],
    ['an invalid date inside', { name: 'a', metadata: { at: [never] } }, '"0" must be a valid Date'],
    ['NaN', { name: 'a', idleExpiryMs: Number.NaN }, '"idleExpiryMs" must be a finite number'],
    ['Infinity', { name: 'a', quota: { remaining: Infinity } }, '"remaining" must be a finite number'],
    ['NaN in an object', { name: 'a', idleExpiryMs: Object(Number.NaN) }, '"idleExpiryMs" must be a finite'],
    ['no object', null as never, '"request" must be an object'],
    ['a Map', new Map([['name', 'a']]), '"request" must be an object'],
  ])('is never null instead of %s', async (_what, request, message) => {
    const script = answering(() => json({ key: 'x', apiKey: API_KEY }))
    const client = clientOf(script)
    for (const call of [
      client.issue(request as never),
      client.update(ID, request as never),
      client.rotate(ID, request as never),
      client.verify(request as never),
    ]) {
      await expect(call).rejects.toThrow(TypeError)
      await expect(call).rejects.toThrow(message)
    }
    expect(script.sent).toHaveLength(0)
  })

  it('holds null where null was meant, and no cost that is not charged', async () => {
    const script = answering(() => json({ active: false }))
    const client = clientOf(script)
    await errorOf(client.update(ID, { expiresAt: null, quota: null, metadata: { a: null } }))
    await client.verify({ key: 'x', cost: 7 })
    await client.verify({ key: 'x', cost: 7, charge: true })
    expect(script.sent.map(({ body }) => JSON.parse(body ?? ''))).toEqual([
      { expiresAt: null, quota: null, metadata: { a: null } },
      { key: 'x' },
      { key: 'x', cost: 7, charge: true },
    ])
  })

  it('is a bulk revocation of somebody only', async () => {
    const script = answering(() => json({ revoked: 0 }))
    const client = clientOf(script)
    for (const owner of [undefined, null, {}, { type: 'user' }, { type: 'user', id: '' }] as never[]) {
      await expect(client.revokeOwner(owner)).rejects.toThrow(TypeError)
    }
    for (const createdBy of [undefined, null, '', 7] as never[]) {
      await expect(client.revokeCreatedBy(createdBy)).rejects.toThrow('"createdBy"')
    }
    for (const owner of [null, {}, { type: 'user' }] as never[]) {
      await expect(client.revokeCreatedBy('u', { owner })).rejects.toThrow(TypeError)
    }
    for (const id of [undefined, null, 7, {}] as never[]) {
      await expect(client.revoke(id)).rejects.toThrow('"id" must be a string')
    }
    expect(script.sent).toHaveLength(0)
  })
})

describe('an answer that is none', () => {
  /** What a server answers with, whose fault pages show what they were sent. */
  type Page = (request: IncomingMessage, response: ServerResponse) => void
  const page =
    (status: number, body: string, headers: Record<string, string> = {}): Page =>
    (_request, response) =>
      void response.writeHead(status, headers).end(body)
  const echo: Page = (request, response) =>
    void response.writeHead(200).end(`${request.headers['x-api-key']} ${request.headers.authorization}`)
  const without = (member: string) => JSON.stringify({ ...API_KEY, [member]: undefined })
  const withMember = (member: string, value: unknown) => JSON.stringify({ ...API_KEY, [member]: value })
  const HUGE = 'usageCount":1e400'

  it.each<[string, Page, number, string]>([
    [
      'a page of a proxy',
      page(502, '<html>Bad gateway</html>'),
      502,
      'answered 502 without a Latchkey error',
    ],
    ['a page that greets', page(200, '<html>Hello</html>'), 200, 'the response of the service is not JSON'],
    ['a page that shows what it was sent', echo, 200, 'the response of the service is not JSON'],
    ['nothing', page(204, ''), 204, 'the response of the service is not JSON'],
    ['an empty body', page(200, ''), 200, 'the response of the service is not JSON'],
    ['a list', page(200, '[]'), 200, 'the service answered an array as an API key'],
    ['null', page(200, 'null'), 200, 'the service answered null as an API key'],
    ['a text', page(200, '"s3cret"'), 200, 'the service answered a string as an API key'],
    ['an object of another shape', page(200, '{"ok":true,"key":"s3cret"}'), 200, 'whose "id" is undefined'],
    ['a key without a member', page(200, without('permissions')), 200, '"permissions" is undefined'],
    ['a key without an end', page(200, without('expiresAt')), 200, '"expiresAt" is undefined'],
    ['a key whose end is a number', page(200, withMember('expiresAt', 1)), 200, '"expiresAt" is 1'],
    [
      'a key whose end is no date',
      page(200, withMember('expiresAt', 's3cret 1')),
      200,
      '"expiresAt" is a str',
    ],
    [
      'a key whose end has no zone',
      page(200, withMember('expiresAt', '2030-01-01T00:00:00')),
      200,
      'expiresAt',
    ],
    [
      'a key whose end is impossible',
      page(200, withMember('expiresAt', '2030-99-01T00:00:00Z')),
      200,
      'expir',
    ],
    ['a key that may be anything', page(200, withMember('permissions', { '*': '*' })), 200, '"permissions"'],
    ['a key that is perhaps enabled', page(200, withMember('enabled', 1)), 200, '"enabled" is 1'],
    ['a quota that is none', page(200, withMember('quota', { remaining: -1 })), 200, '"quota" is an object'],
    [
      'a count that is huge',
      page(200, without('usageCount').replace('{', `{"${HUGE},`)),
      200,
      '"usageCount"',
    ],
    ['a version that is huge', page(200, withMember('version', 2 ** 60)), 200, '"version"'],
    [
      'a code that is unknown',
      page(403, '{"code":"s3cret_new"}'),
      403,
      'answered 403 without a Latchkey error',
    ],
    [
      'a code of the prototype',
      page(403, '{"code":"constructor"}'),
      403,
      'answered 403 without a Latchkey error',
    ],
    [
      'a problem of somebody else',
      page(404, '{"title":"Not Found"}'),
      404,
      'answered 404 without a Latchkey error',
    ],
    [
      'a problem in a list',
      page(404, '[{"code":"not_found"}]'),
      404,
      'answered 404 without a Latchkey error',
    ],
  ])('is unavailable: %s', async (_what, handler, responseStatus, message) => {
    const port = await listen(handler)
    const baseUrl = `http://127.0.0.1:${port}`
    const client = createApiKeysClient({ baseUrl, key: KEY, headers: { Authorization: TOKEN }, retries: 0 })
    for (const call of [client.self(), client.get(ID), client.revoke(ID)]) {
      const error = await failureOf(call)
      expect(error).toMatchObject({ code: 'unavailable', responseStatus })
      expect(error.message).toContain(message)
    }
  })

  it('reads a problem, whatever else is in it, and harms no prototype', async () => {
    const body = `{"code":"conflict","field":7,"__proto__":{"admin":true},"constructor":1,"apiKey":{"id":"x"}}`
    const script = answering(() => new Response(body, { status: 409 }))
    const error = await failureOf(clientOf(script).rotate(ID))
    expect(error).toMatchObject({ code: 'conflict', responseStatus: 409, field: undefined })
    expect(({} as { admin?: boolean }).admin).toBe(undefined)
    expect(Object.getPrototypeOf(error.details)).toBe(Object.prototype)
    // What is no key is not shown as one.
    expect(error.details).not.toHaveProperty('apiKey')
  })

  const lists = (limits: unknown) => ({ active: true, apiKey: API_KEY, limits })
  const state = {
    type: 'quota',
    name: 'quota',
    limit: null,
    remaining: 1,
    windowMs: null,
    resetMs: null,
    exceeded: false,
  }
  it.each<[string, unknown]>([
    ['active is left out', { apiKey: API_KEY, limits: [] }],
    ['active is a text', { active: 'true', apiKey: API_KEY, limits: [] }],
    ['there is no key', { active: true, limits: [] }],
    ['the key is null', { active: true, apiKey: null, limits: [] }],
    ['the key is wrong', { active: true, apiKey: { ...API_KEY, id: '' }, limits: [] }],
    ['there are no limits', { active: true, apiKey: API_KEY }],
    ['a limit is null', lists([null])],
    ['a limit is of another type', lists([{ ...state, type: 'other' }])],
    ['a limit has a name that no header field can carry', lists([{ ...state, name: 'a\r\nb' }])],
    ['a limit has less than nothing left', lists([{ ...state, remaining: -1 }])],
    ['a limit has a text left', lists([{ ...state, remaining: '1' }])],
    ['a limit is perhaps exceeded', lists([{ ...state, exceeded: null }])],
    ['it is refused for a reason that is unknown', { ...lists([]), refused: { code: 'other' } }],
    ['it is refused for nothing', { ...lists([]), refused: null }],
    ['it is refused by a text', { ...lists([]), refused: 'no' }],
    ['it lacks nothing', { ...lists([]), refused: { code: 'insufficient_permissions' } }],
    [
      'it lacks nonsense',
      { ...lists([]), refused: { code: 'insufficient_permissions', missing: { a: 'read' } } },
    ],
    ['it may come back at no time', { ...lists([]), refused: { code: 'rate_limited', exceeded: [] } }],
    [
      'it may come back in the past',
      { ...lists([]), refused: { code: 'rate_limited', retryAfterMs: -1, exceeded: [] } },
    ],
    [
      'what it exceeds is no list',
      { ...lists([]), refused: { code: 'quota_exceeded', retryAfterMs: null, exceeded: 'a' } },
    ],
    ['a bad key is refused for another reason', { active: false, refused: { code: 'rate_limited' } }],
    ['a blocked address is blocked for no time', { active: false, refused: { code: 'too_many_failures' } }],
  ])('is no verification where %s', async (_what, body) => {
    const script = answering(() => json(body))
    expect(await failureOf(clientOf(script).verify({ key: 's3cret' }))).toMatchObject({
      code: 'unavailable',
      responseStatus: 200,
    })
  })

  it.each<[string, (client: ApiKeysClient) => Promise<unknown>, unknown]>([
    ['a page', (client) => client.list(), { apiKeys: API_KEY }],
    ['a page with a key', (client) => client.list(), { apiKeys: [API_KEY, {}] }],
    ['a cursor', (client) => client.list(), { apiKeys: [], nextCursor: 7 }],
    ['an issued key', (client) => client.issue({ name: 'a' }), { apiKey: API_KEY }],
    ['the record of an issued key', (client) => client.issue({ name: 'a' }), { key: 's3cret', apiKey: {} }],
    ['a rotated key', (client) => client.rotate(ID), { key: 's3cret', apiKey: API_KEY }],
    [
      'a rotated key that never ends',
      (client) => client.rotate(ID),
      { key: 's3cret', apiKey: API_KEY, previous: { ...API_KEY, expiresAt: null } },
    ],
    ['a number of keys', (client) => client.revokeOwner(NAME.owner), { revoked: '7' }],
    ['what was erased', (client) => client.erase(NAME.owner), { removed: 1 }],
    ['an explanation', (client) => client.explain({ id: ID }), { ...EXPLANATION, outcome: undefined }],
    ['an explanation of a key', (client) => client.explain({ id: ID }), { ...EXPLANATION, apiKey: {} }],
    ['an explanation without limits', (client) => client.explain({ id: ID }), { ...EXPLANATION, limits: {} }],
    [
      'an explanation with a wait',
      (client) => client.explain({ id: ID }),
      { ...EXPLANATION, retryAfterMs: '5' },
    ],
    [
      'an explanation without steps',
      (client) => client.explain({ id: ID }),
      { ...EXPLANATION, steps: undefined },
    ],
    [
      'a step',
      (client) => client.explain({ id: ID }),
      { ...EXPLANATION, steps: [{ ...STEP, outcome: 'maybe' }] },
    ],
    [
      'the message of a step',
      (client) => client.explain({ id: ID }),
      { ...EXPLANATION, steps: [{ ...STEP, message: 7 }] },
    ],
    [
      'what a step read',
      (client) => client.explain({ id: ID }),
      { ...EXPLANATION, steps: [{ ...STEP, read: [] }] },
    ],
    ['a document', (client) => client.openApi(), []],
  ])('is not %s', async (_what, call, body) => {
    const script = answering(() => json(body))
    expect(await failureOf(call(clientOf(script)))).toMatchObject({ code: 'unavailable' })
  })
})

describe('a connection', () => {
  const options = { key: KEY, headers: { Authorization: TOKEN }, retries: 0 }

  it('that is refused is unavailable', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    await new Promise((resolve) => server.close(resolve))
    const client = createApiKeysClient({ baseUrl: `http://127.0.0.1:${port}`, ...options })
    const error = await failureOf(client.self())
    expect(error).toMatchObject({ code: 'unavailable', responseStatus: null })
    expect(inspect(error)).toContain('ECONNREFUSED')
  })

  it('that breaks before, or in the middle of, an answer is unavailable', async () => {
    const port = await listen((request, response) => {
      if (request.url === '/self') return void request.socket.destroy()
      response.writeHead(200, { 'Content-Length': '1000' }).write('{"active":')
      setImmediate(() => request.socket.destroy())
    })
    const client = createApiKeysClient({ baseUrl: `http://127.0.0.1:${port}`, ...options })
    for (const call of [client.self(), client.get(ID)]) {
      expect(await failureOf(call)).toMatchObject({ code: 'unavailable', responseStatus: null })
    }
  })

  it.each([301, 302, 303, 307, 308])(
    'that is redirected by %i sends the key nowhere else',
    async (status) => {
      const elsewhere: string[] = []
      const other = await listen((request, response) => {
        elsewhere.push(JSON.stringify(request.headers))
        response.end(JSON.stringify(API_KEY))
      })
      const port = await listen((request, response) => {
        request.resume()
        response.writeHead(status, { Location: `http://127.0.0.1:${other}/self` }).end()
      })
      const client = createApiKeysClient({ baseUrl: `http://127.0.0.1:${port}`, ...options })
      for (const call of [client.self(), client.issue({ name: 'a' })]) {
        const error = await failureOf(call)
        expect(error).toMatchObject({ code: 'unavailable', responseStatus: status })
        expect(error.message).toContain('redirect')
      }
      expect(elsewhere).toEqual([])
    },
  )

  it('that a browser says is redirected is unavailable, and not tried again', async () => {
    const opaque = Object.defineProperties(Response.error(), { type: { value: 'opaqueredirect' } })
    const script = answering(() => opaque)
    const error = await failureOf(clientOf(script, { retries: 2 }).self())
    expect(error.message).toContain('redirect')
    expect(script.sent).toHaveLength(1)
  })

  it('shows no secret in a client', () => {
    const client = createApiKeysClient({ baseUrl: BASE, ...options })
    expectNoSecrets(client)
    expect(Object.isFrozen(client)).toBe(true)
  })
})

describe('the time of a call', () => {
  const within = { timeoutMs: 60, retries: 2 }

  it.each<[string, (request: IncomingMessage, response: ServerResponse) => void]>([
    ['does not answer', () => {}],
    ['answers with a body that never ends', (_request, response) => void response.write('{"active":true,')],
  ])('is over where the service %s', async (_what, handler) => {
    const port = await listen(handler)
    const client = createApiKeysClient({ baseUrl: `http://127.0.0.1:${port}`, key: KEY, ...within })
    const error = await failureOf(client.verify({ key: 's3cret' }))
    expect(error).toMatchObject({ code: 'unavailable', responseStatus: null })
    expect(error.message).toBe('the service did not respond within 60 ms')
  })

  const hangs = () => new Promise<never>(() => {})
  it.each<[string, Partial<ApiKeysClientOptions>]>([
    ['a fetch that knows no signals', { fetch: hangs }],
    ['a body that never comes', { fetch: async () => ({ status: 200, text: hangs }) as unknown as Response }],
    ['a key that never comes', { key: hangs }],
    ['header fields that never come', { headers: hangs }],
  ])('is over for %s', async (_what, options) => {
    const client = createApiKeysClient({ baseUrl: BASE, ...within, ...options })
    expect((await failureOf(client.self())).message).toContain('within 60 ms')
  })

  it('is that of all repetitions and pauses together', async () => {
    vi.useFakeTimers()
    let asked = 0
    const fetch: Fetch = () => {
      asked += 1
      return new Promise((_resolve, reject) => setTimeout(reject, 300, new TypeError('lost')))
    }
    const client = createApiKeysClient({ baseUrl: BASE, timeoutMs: 1_000, retries: 10, fetch })
    const failed = failureOf(client.self())
    await vi.advanceTimersByTimeAsync(1_000)
    expect((await failed).message).toContain('within 1000 ms')
    // 300, a pause of 50 to 100, 300, a pause of 100 to 200, and what is left: 100 to 250
    expect(asked).toBe(3)
  })

  it('leaves no timer behind, however it ends', async () => {
    vi.useFakeTimers()
    await clientOf(answering(() => json(API_KEY))).self()
    await failureOf(clientOf(answering(lost)).self())
    const given = new AbortController()
    const paused = errorOf(clientOf(answering(lost), { retries: 1 }).self({ signal: given.signal }))
    await vi.advanceTimersByTimeAsync(0)
    given.abort()
    await paused
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('a signal', () => {
  const reason = new Error('the user has left')

  it('that was given before lets nothing be sent', async () => {
    const script = answering(() => json(API_KEY))
    const signal = AbortSignal.abort(reason)
    const client = clientOf(script)
    for (const call of [
      client.list({}, { signal }),
      client.issue({ name: 'a' }, { signal }),
      client.get(ID, { signal }),
      client.update(ID, {}, { signal }),
      client.enable(ID, { signal }),
      client.disable(ID, { signal }),
      client.rotate(ID, {}, { signal }),
      client.revoke(ID, { signal }),
      client.revokeOwner(NAME.owner, { signal }),
      client.revokeCreatedBy('u', { signal }),
      client.self({ signal }),
      client.revokeSelf({ signal }),
      client.verify({ key: 'x' }, { signal }),
      client.openApi({ signal }),
    ]) {
      expect(await errorOf(call)).toBe(reason)
    }
    expect(script.sent).toHaveLength(0)
  })

  it('that is given while the service answers ends the request', async () => {
    let reached = () => {}
    const asked = new Promise<void>((resolve) => {
      reached = resolve
    })
    let gone: Promise<unknown> = Promise.resolve()
    const port = await listen((request) => {
      gone = new Promise((resolve) => request.socket.on('close', resolve))
      reached()
    })
    const controller = new AbortController()
    const client = createApiKeysClient({ baseUrl: `http://127.0.0.1:${port}`, retries: 2 })
    const failed = errorOf(client.self({ signal: controller.signal }))
    await asked
    controller.abort(reason)
    expect(await failed).toBe(reason)
    await gone
  })

  it('that is given while a key is fetched keeps the request back for good', async () => {
    const script = answering(() => json(API_KEY))
    let tell = (_key: string) => {}
    const key = () =>
      new Promise<string>((resolve) => {
        tell = resolve
      })
    const controller = new AbortController()
    const failed = errorOf(clientOf(script, { key }).revokeSelf({ signal: controller.signal }))
    controller.abort(reason)
    expect(await failed).toBe(reason)
    tell(KEY)
    await new Promise(setImmediate)
    expect(script.sent).toHaveLength(0)
  })

  it('that is given in a pause ends it', async () => {
    vi.useFakeTimers()
    const script = answering(() => problem('unavailable', 503, { 'Retry-After': '2' }))
    const controller = new AbortController()
    const failed = errorOf(clientOf(script, { retries: 2 }).self({ signal: controller.signal }))
    await vi.advanceTimersByTimeAsync(1_000)
    controller.abort(reason)
    expect(await failed).toBe(reason)
    await vi.advanceTimersByTimeAsync(10_000)
    expect(script.sent).toHaveLength(1)
  })

  it('is let go of when the call has ended', async () => {
    const { signal } = new AbortController()
    const added = vi.spyOn(signal, 'addEventListener')
    const removed = vi.spyOn(signal, 'removeEventListener')
    await clientOf(answering(() => json(API_KEY))).self({ signal })
    await errorOf(clientOf(answering(lost)).self({ signal }))
    expect(added).toHaveBeenCalledTimes(2)
    expect(removed.mock.calls).toEqual(added.mock.calls.map(([type, listener]) => [type, listener]))
  })
})

describe('a repetition', () => {
  const calls: [string, boolean, (client: ApiKeysClient) => Promise<unknown>][] = [
    ['list', true, (client) => client.list()],
    ['get', true, (client) => client.get(ID)],
    ['self', true, (client) => client.self()],
    ['openApi', true, (client) => client.openApi()],
    ['issue', true, (client) => client.issue({ name: 'a' })],
    ['rotate', true, (client) => client.rotate(ID)],
    ['rotate of a version', true, (client) => client.rotate(ID, {}, { expectedVersion: 1 })],
    ['revoke', true, (client) => client.revoke(ID)],
    ['verify', true, (client) => client.verify({ key: 'x' })],
    ['explain', true, (client) => client.explain({ key: 'x' })],
    ['verify that is not charged', true, (client) => client.verify({ key: 'x', charge: false })],
    ['verify that is charged', false, (client) => client.verify({ key: 'x', charge: true })],
    ['revoke of a version', false, (client) => client.revoke(ID, { expectedVersion: 1 })],
    ['update', false, (client) => client.update(ID, { name: 'a' })],
    ['enable', false, (client) => client.enable(ID)],
    ['disable', false, (client) => client.disable(ID)],
    ['revokeOwner', false, (client) => client.revokeOwner(NAME.owner)],
    ['revokeCreatedBy', false, (client) => client.revokeCreatedBy('u')],
    ['erase', false, (client) => client.erase(NAME.owner)],
    ['revokeSelf', false, (client) => client.revokeSelf()],
  ]

  it.each(calls)('of %s: %s', async (_name, isRepeated, call) => {
    vi.useFakeTimers()
    for (const failing of [
      lost,
      () => problem('unavailable', 503),
      () => new Response('', { status: 502 }),
    ]) {
      const script = answering(failing)
      const failed = failureOf(call(clientOf(script, { retries: 2 })))
      await vi.advanceTimersByTimeAsync(5_000)
      expect(await failed).toMatchObject({ code: 'unavailable' })
      expect(script.sent).toHaveLength(isRepeated ? 3 : 1)
      // Sent again is what was sent before, its idempotency key above all.
      expect(new Set(script.sent.map((sent) => JSON.stringify(sent))).size).toBe(1)
    }
  })

  it.each([
    [429, 'rate_limited', 1],
    [429, 'too_many_requests', 1],
    [502, 'unavailable', 3],
    [503, 'unavailable', 3],
    [504, 'unavailable', 3],
    [400, 'invalid_request', 1],
    [401, 'invalid_key', 1],
    [404, 'not_found', 1],
    [409, 'conflict', 1],
    [409, 'already_done', 1],
    [412, 'precondition_failed', 1],
    [500, 'x', 1],
    [501, 'unsupported', 1],
  ])('comes after %i %s: %i requests in all', async (status, code, count) => {
    vi.useFakeTimers()
    const script = answering(() => problem(code, status))
    const failed = failureOf(clientOf(script, { retries: 2 }).issue({ name: 'a' }))
    await vi.advanceTimersByTimeAsync(5_000)
    expect(await failed).toMatchObject({ responseStatus: status })
    expect(script.sent).toHaveLength(count)
  })

  it('does not come after a 200 that is no answer', async () => {
    const script = answering(() => new Response('<html>'))
    await failureOf(clientOf(script, { retries: 2 }).self())
    expect(script.sent).toHaveLength(1)
  })

  it('helps where the failure passes, and asks for key and header fields anew', async () => {
    vi.useFakeTimers()
    const script = answering(
      lost,
      () => problem('unavailable', 503),
      () => json(API_KEY),
    )
    let count = 0
    const client = clientOf(script, {
      retries: 2,
      key: () => `key_${++count}`,
      headers: async () => ({ 'x-n': `${count}` }),
    })
    const answer = client.self()
    await vi.advanceTimersByTimeAsync(1_000)
    expect(await answer).toEqual(issued.apiKey)
    expect(script.sent.map(({ headers }) => headers['X-Api-Key'])).toEqual(['key_1', 'key_2', 'key_3'])
  })

  it('has the idempotency key of its call, and no other call has it', async () => {
    vi.useFakeTimers()
    const script = answering(lost)
    const client = clientOf(script, { retries: 1 })
    const failed = Promise.all([
      failureOf(client.issue({ name: 'a' })),
      failureOf(client.issue({ name: 'a' })),
    ])
    await vi.advanceTimersByTimeAsync(5_000)
    await failed
    const sent = script.sent.map(({ headers }) => headers['Idempotency-Key'])
    expect(sent).toHaveLength(4)
    expect(new Set(sent).size).toBe(2)
    for (const key of sent) expect(key).toMatch(/^[0-9a-f]{32}$/)
  })

  it('after a conflict comes only where the conflict may be with oneself', async () => {
    vi.useFakeTimers()
    const conflict = () => problem('conflict', 409)
    const first = answering(conflict)
    await failureOf(clientOf(first, { retries: 2 }).rotate(ID))
    expect(first.sent).toHaveLength(1)
    const second = answering(lost, conflict, () => problem('already_done', 409))
    const failed = failureOf(clientOf(second, { retries: 2 }).rotate(ID))
    await vi.advanceTimersByTimeAsync(5_000)
    expect(await failed).toMatchObject({ code: 'already_done' })
    const other = answering(lost, conflict)
    const revoked = failureOf(clientOf(other, { retries: 2 }).revoke(ID))
    await vi.advanceTimersByTimeAsync(5_000)
    expect(await revoked).toMatchObject({ code: 'conflict' })
    expect(other.sent).toHaveLength(2)
  })

  it('comes after pauses that double, each shortened by chance to half of it at most', async () => {
    vi.useFakeTimers()
    const times: number[] = []
    const fetch: Fetch = async () => {
      times.push(performance.now())
      throw new TypeError('lost')
    }
    const failed = failureOf(clientOf({ fetch }, { retries: 7, timeoutMs: 60_000 }).self())
    await vi.advanceTimersByTimeAsync(60_000)
    await failed
    const pauses = times.slice(1).map((time, i) => time - (times[i] as number))
    const longest = [100, 200, 400, 800, 1_600, 2_000, 2_000]
    expect(pauses).toHaveLength(longest.length)
    for (const [i, pause] of pauses.entries()) {
      expect(pause).toBeGreaterThanOrEqual((longest[i] as number) / 2 - 1)
      expect(pause).toBeLessThanOrEqual((longest[i] as number) + 1)
    }
  })

  it.each<[string, () => string, number]>([
    ['in seconds', () => '2', 2_000],
    ['as a date', () => new Date(Date.now() + 2_000).toUTCString(), 2_000],
  ])('comes when Retry-After says, %s', async (_what, value, waitMs) => {
    vi.useFakeTimers({ now: Date.UTC(2026, 0, 1) })
    const script = answering(
      () => problem('unavailable', 503, { 'Retry-After': value() }),
      () => json(API_KEY),
    )
    const answer = clientOf(script, { retries: 1 }).self()
    await vi.advanceTimersByTimeAsync(waitMs - 1)
    expect(script.sent).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(await answer).toEqual(issued.apiKey)
  })

  it.each([
    ['3', 3_000],
    ['60', 60_000],
    ['99999999999', 99_999_999_999_000],
    ['9'.repeat(400), Number.MAX_SAFE_INTEGER],
  ])('does not come where Retry-After (%s) is later than two seconds', async (value, retryAfterMs) => {
    const script = answering(() => problem('unavailable', 503, { 'Retry-After': value }))
    const error = await failureOf(clientOf(script, { retries: 2 }).self())
    expect(error).toMatchObject({ code: 'unavailable', responseStatus: 503, retryAfterMs })
    expect(script.sent).toHaveLength(1)
  })

  it.each(['soon', '', '-1', 'Thu, 01 Jan 1970 00:00:00 GMT'])(
    'comes soon where Retry-After is %j',
    async (value) => {
      vi.useFakeTimers()
      const script = answering(
        () => problem('unavailable', 503, { 'Retry-After': value }),
        () => json(API_KEY),
      )
      const answer = clientOf(script, { retries: 1 }).self()
      await vi.advanceTimersByTimeAsync(100)
      expect(await answer).toEqual(issued.apiKey)
    },
  )

  it('is not read on where a response has no end', async () => {
    let sentBytes = 0
    const port = await listen((_request, response) => {
      response.writeHead(200, { 'Content-Type': 'application/json' })
      const chunk = Buffer.alloc(1_048_576, 0x20)
      const goOn = () => {
        while (!response.destroyed && response.write(chunk)) sentBytes += chunk.length
        sentBytes += chunk.length
      }
      response.on('drain', goOn)
      goOn()
    })
    const client = createApiKeysClient({ baseUrl: `http://127.0.0.1:${port}`, timeoutMs: 60_000 })
    expect(await failureOf(client.self())).toMatchObject({ code: 'unavailable', responseStatus: 200 })
    expect(sentBytes).toBeLessThan(200 * 1_048_576)
  })

  it('reaches a service that comes back, over real connections', async () => {
    const bodies: string[] = []
    const port = await listen(async (request, response) => {
      bodies.push(await readText(request))
      if (bodies.length === 1) return void request.socket.destroy()
      response.writeHead(200, { 'Content-Type': 'application/json' }).end('{"active":false}')
    })
    const client = createApiKeysClient({ baseUrl: `http://127.0.0.1:${port}`, key: KEY })
    expect(await client.verify({ key: 'x' })).toEqual({ active: false })
    expect(bodies).toEqual(['{"key":"x"}', '{"key":"x"}'])
  })
})

describe('an error', () => {
  it('is recognised from any copy of the package, and nothing else is', () => {
    const error = new ApiKeysClientError('not_found')
    expect(isApiKeysClientError(error)).toBe(true)
    const brand = Symbol.for('latchkey.client-error')
    expect(isApiKeysClientError(Object.assign(new Error('x'), { [brand]: true }))).toBe(true)
    for (const other of [null, undefined, 'x', {}, new Error('x'), { code: 'not_found' }]) {
      expect(isApiKeysClientError(other)).toBe(false)
    }
    expect(Object.keys(error)).not.toContain('status')
  })
})
