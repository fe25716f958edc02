import { runInNewContext } from 'node:vm'
import { createKeyManagementApi } from 'latchkey/management'
import { describe, expect, it } from 'vitest'
import { ACTORS } from '../support/management-world.ts'
import { ALICE, createTestKeys, NAME } from '../support/test-keys.ts'

/** The interface for a framework that is neither Express nor Koa; everybody is logged in as Alice. */
async function createApi() {
  const { keys, clock, events } = createTestKeys()
  const api = createKeyManagementApi<object>(keys, { actor: () => ACTORS.alice, clock })
  const { key } = await keys.issue(NAME)
  const get = (headers: unknown) => api.handle({ method: 'GET', url: '/', source: { headers } })
  return { api, keys, key, get, events }
}

const JSON_TYPE = { 'content-type': 'application/json' }

/** The same fields as each kind of object that holds header fields. */
const READABLE: readonly (readonly [string, (fields: Record<string, string>) => unknown])[] = [
  ['an object', (fields) => ({ ...fields })],
  ['an object without a prototype', (fields) => Object.assign(Object.create(null), fields)],
  [
    'an object of another realm',
    (fields) => runInNewContext('JSON.parse(text)', { text: JSON.stringify(fields) }),
  ],
  ['a Headers', (fields) => new Headers(fields)],
  [
    'a Headers of another realm',
    (fields) => {
      const source = `class Headers extends Map { get [Symbol.toStringTag]() { return 'Headers' } } new Headers(fields)`
      return runInNewContext(source, { fields: Object.entries(fields) })
    },
  ],
  [
    'a Headers of a polyfill, which has no brand',
    (fields) => {
      const inner = new Headers(fields)
      return { get: (name: string) => inner.get(name), entries: () => inner.entries() }
    },
  ],
]

describe.each(READABLE)('header fields in %s', (_kind, make) => {
  it('let a login in that comes alone, and refuse one beside a key', async () => {
    const { get, key } = await createApi()
    expect((await get(make({ accept: '*/*' }))).status).toBe(200)
    const withKey: readonly Record<string, string>[] = [
      { 'x-api-key': key },
      { authorization: `Api-Key ${key}` },
      { 'x-api-key': 'no key at all' },
    ]
    for (const fields of withKey) expect((await get(make(fields))).status).not.toBe(200)
  })

  it('are read whatever they are for', async () => {
    const { api, keys } = await createApi()
    const send = (fields: Record<string, string>) =>
      api.handle({
        method: 'POST',
        url: '/',
        source: { headers: make({ ...JSON_TYPE, ...fields }) },
        parsedBody: { name: 'new' },
      })
    expect(JSON.parse((await send({ 'sec-fetch-site': 'cross-site' })).body)).toMatchObject({
      code: 'cross_site',
    })
    expect((await send({ 'idempotency-key': 'once' })).status).toBe(201)
    expect(JSON.parse((await send({ 'idempotency-key': 'once' })).body)).toMatchObject({
      code: 'already_done',
    })
    expect((await keys.list()).apiKeys).toHaveLength(2)
  })
})

describe('header fields that cannot be read', () => {
  class Bag {
    readonly #fields: Record<string, string>
    constructor(fields: Record<string, string>) {
      this.#fields = fields
    }
    getHeader(name: string) {
      return this.#fields[name]
    }
  }

  it.each<[string, (fields: Record<string, string>) => unknown]>([
    ['a Map', (fields) => new Map(Object.entries(fields))],
    ['an array', (fields) => Object.entries(fields)],
    ['null', () => null],
    ['nothing', () => undefined],
    ['a string', (fields) => JSON.stringify(fields)],
    ['a Request', (fields) => new Request('http://localhost/', { headers: fields })],
    ['a URLSearchParams', (fields) => new URLSearchParams(fields)],
    ['an object of a class of its own', (fields) => new Bag(fields)],
    [
      'names in upper case',
      (fields) =>
        Object.fromEntries(Object.entries(fields).map(([name, value]) => [name.toUpperCase(), value])),
    ],
    [
      'values that are no texts',
      (fields) =>
        Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, Buffer.from(value)])),
    ],
  ])('are a TypeError, and no login passes: %s', async (_kind, make) => {
    const { get, key } = await createApi()
    const failed = await get(make({ 'x-api-key': key })).catch((error: unknown) => error)
    expect(failed).toBeInstanceOf(TypeError)
    expect((failed as Error).message).toMatch(/^"headers" must /)
    expect((failed as Error).message).not.toContain(key)
  })

  it.each([[null], [undefined], ['GET /']])('are those of what is no request: %o', async (source) => {
    const { api } = await createApi()
    const sent = api.handle({ method: 'GET', url: '/', source: source as never })
    await expect(sent).rejects.toThrow(/^"source" must be the request of the framework/)
  })
})

describe('a Request of the web', () => {
  const url = 'http://localhost/'

  it('is a request like any other, its body read by whoever hands it in', async () => {
    const { api, keys, key } = await createApi()
    const send = async (source: Request) =>
      api.handle({ method: source.method, url: '/', source, parsedBody: await source.text() })
    const body = JSON.stringify({ name: 'over the web' })
    const made = await send(new Request(url, { method: 'POST', body, headers: JSON_TYPE }))
    expect(made.status).toBe(201)
    expect((await keys.list({ owner: ALICE, name: 'over the web' })).apiKeys).toHaveLength(1)
    const headers = { ...JSON_TYPE, 'x-api-key': key }
    expect((await send(new Request(url, { method: 'POST', body, headers }))).status).toBe(403)
  })

  it.each([
    ['a text', (text: string) => text],
    ['bytes', (text: string) => new TextEncoder().encode(text)],
  ])('is refused where its body is too long, which nothing has announced: %s', async (_what, toBody) => {
    const { api, keys } = await createApi()
    const send = (name: string) => {
      const source = new Request(url, { method: 'POST', headers: JSON_TYPE })
      const parsedBody = toBody(JSON.stringify({ name, metadata: { text: 'ü'.repeat(40_000) } }))
      return api.handle({ method: 'POST', url: '/', source, parsedBody })
    }
    const before = (await keys.list()).apiKeys
    expect((await send('long')).body).toContain('"body_too_large"')
    expect((await keys.list()).apiKeys).toEqual(before)
  })

  it('whose body somebody has read and not handed in is a fault, and nothing is done by what it did not say', async () => {
    const { api, keys, events } = await createApi()
    const [apiKey] = (await keys.list()).apiKeys
    const source = new Request(url, { method: 'POST', body: '{"graceMs":0}', headers: JSON_TYPE })
    await source.text()
    const answer = await api.handle({ method: 'POST', url: `/${apiKey?.id}/rotate`, source })
    expect(answer.status).toBe(503)
    expect(events.at(-1)).toMatchObject({ type: 'fault', error: { message: expect.stringMatching(/body/) } })
    expect((await keys.list()).apiKeys).toEqual([apiKey])
  })
})
