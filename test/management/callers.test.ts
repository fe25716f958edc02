import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import type { ApiKey } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { type BuildApp, createWorld, ROUTERS } from '../support/management-world.ts'
import { ALICE, BOB, forgeKey, NAME } from '../support/test-keys.ts'

const VERIFIER = { ...NAME, owner: BOB, permissions: { 'api-keys': ['verify'] } }

describe.each(ROUTERS)('a right that ends while a body is sent, behind %s', (_name, build) => {
  it.each([
    ['a key', '/verify', '{"ke', 'y":"x"}', (key: string) => ({ 'X-Api-Key': key })],
    ['a login', '/', '{"nam', 'e":"x"}', () => ({ 'X-Actor': 'alice' })],
  ])('of %s, does nothing more', async (_what, path, begin, end, credential) => {
    const arrival = withResolvers()
    const buildNoticing: BuildApp = (keys, options) => {
      const listener = build(keys, options)
      return (req, res) => {
        listener(req, res)
        if (req.headers['x-slow']) arrival.resolve()
      }
    }
    let isLoggedIn = true
    const actor = () => (isLoggedIn ? { id: 'u_alice', owners: [ALICE] } : null)
    const { keys, call, port } = await createWorld({ actor }, buildNoticing)
    const { key } = await keys.issue({ ...VERIFIER, owner: ALICE })
    const other = await keys.issue(VERIFIER)
    const length = begin.length + end.length
    const slow = post(port, path, { ...credential(key), 'X-Slow': 'yes' }, length)
    slow.write(begin)
    await arrival.promise
    // Whatever could be decided by now is decided.
    await call('GET', '/self', { key: other.key })
    isLoggedIn = false
    await keys.revokeOwner(ALICE)
    slow.end(end)
    expect(await answerOf(slow)).toMatchObject({ status: 401 })
    expect((await keys.list({ owner: ALICE, status: 'active' })).apiKeys).toEqual([])
  })
})

describe('a key that asks', () => {
  it('is counted, but for giving itself up', async () => {
    const { keys, call } = await createWorld({ requestLimit: { limit: 2, verify: 1 } })
    const { key } = await keys.issue(VERIFIER)
    for (let i = 0; i < 2; i++) expect((await call('GET', '/self', { key })).status).toBe(200)
    expect((await call('GET', '/self', { key })).body).toMatchObject({ code: 'too_many_requests' })
    const verify = () => call('POST', '/verify', { key, json: { key } })
    expect((await verify()).status).toBe(200)
    expect((await verify()).body).toMatchObject({ code: 'too_many_requests' })
    expect((await call('POST', '/self/revoke', { key })).status).toBe(200)
  })
})

describe('verifying for others', () => {
  it('tells of no more bad keys than are allowed, although many are sent at once', async () => {
    const { keys, call, store } = await createWorld({ requestLimit: { invalidKeys: 2 } })
    const service = await keys.issue(VERIFIER)
    const bad = Array.from({ length: 20 }, (_, i) =>
      forgeKey(service.key, { keyId: `unknown${i + 100_000_000}` }),
    )
    const together = withResolvers()
    let looking = 0
    // None is answered before all are looked for.
    store.fail('find', async (work) => {
      const found = await work()
      if (found !== null) return found
      looking += 1
      if (looking === bad.length) together.resolve()
      await together.promise
      return null
    })
    const answers = await Promise.all(
      bad.map((key) => call('POST', '/verify', { key: service.key, json: { key } })),
    )
    expect(answers.filter(({ body }) => body.refused === undefined)).toHaveLength(2)
    expect(answers.filter(({ body }) => body.refused !== undefined)).toHaveLength(18)
  })

  it('answers about good keys however many bad ones strangers send', async () => {
    const { keys, call } = await createWorld({ requestLimit: { invalidKeys: 1 } })
    const service = await keys.issue(VERIFIER)
    const good = await keys.issue(NAME)
    const verify = (key: string) => call('POST', '/verify', { key: service.key, json: { key } })
    await verify('bad')
    expect((await verify('bad')).body).toMatchObject({ refused: { code: 'too_many_failures' } })
    expect((await verify(good.key)).body).toMatchObject({ active: true })
  })

  it.each(['x', '192.0.2.1\r\nforged: yes', 'fe80::1%\r\nforged', '192.0.2.1:http', ''])(
    'takes nothing for an address that is none: %j',
    async (ip) => {
      const { keys, call, eventsOf } = await createWorld()
      const service = await keys.issue(VERIFIER)
      const good = await keys.issue({ ...NAME, allowedIps: ['192.0.2.1'] })
      const answer = await call('POST', '/verify', { key: service.key, json: { key: good.key, ip } })
      expect(answer.body).toMatchObject({ status: 400, field: 'ip' })
      expect(eventsOf('address.blocked')).toEqual([])
    },
  )

  it.each([
    '192.0.2.1',
    '192.0.2.1:80',
    '2001:db8::1',
    '[2001:db8::1]:80',
    '::ffff:192.0.2.1',
    'fe80::1%eth0',
  ])('takes %s', async (ip) => {
    const { keys, call } = await createWorld()
    const { key } = await keys.issue(VERIFIER)
    expect((await call('POST', '/verify', { key, json: { key, ip } })).status).toBe(200)
  })

  it('does not echo a key from where none belongs', async () => {
    const { keys, call } = await createWorld()
    const { key } = await keys.issue(VERIFIER)
    const wrong = [
      { [key]: true },
      { key, permissions: { [key]: 'read' } },
      { key, permissions: { [key]: [''] } },
      { key, permissions: [{ [key]: [7] }] },
      { [key]: { __proto__: 1, constructor: 1 } },
      { key, prefix: key },
      { key, ip: key },
    ]
    for (const json of wrong) {
      const answer = await call('POST', '/verify', { key, json })
      expect(answer.status).toBe(400)
      expect(answer.text).not.toContain(key)
    }
    const inQuery = await call('POST', `/verify?${key}=1`, { key, json: { key } })
    expect(inQuery.body).toMatchObject({ status: 400, field: 'body' })
    expect(inQuery.text).not.toContain(key)
  })
})

describe('what is sent', () => {
  it('is no date beyond the year 9999', async () => {
    const { call } = await createWorld()
    const issue = (expiresAt: string) => call('POST', '/', { as: 'alice', json: { name: 'x', expiresAt } })
    expect((await issue('9999-12-31T23:59:59-23:59')).body).toMatchObject({ status: 400, field: 'expiresAt' })
    const last = '9999-12-31T23:59:59.999Z'
    expect(((await issue(last)).body.apiKey as ApiKey).expiresAt).toBe(last)
  })

  it.each([
    'application/json; charset=utf-8; charset=utf-16',
    'application/json; charset=utf-16; charset=utf-8',
    'application/json; charset="utf-8',
    'application/json; charset =utf-16',
  ])('is not JSON in another charset besides: %s', async (type) => {
    const { call } = await createWorld()
    const answer = await call('POST', '/', {
      as: 'alice',
      json: { name: 'x' },
      headers: { 'Content-Type': type },
    })
    expect(answer.body).toMatchObject({ status: 415 })
  })

  it('is told to be too long or no JSON before it is asked who sends it, and nothing else is', async () => {
    const { call } = await createWorld({ maxBodyBytes: 20 })
    const form = { headers: { 'Content-Type': 'text/plain' }, body: '{}' }
    expect((await call('POST', '/', form)).status).toBe(415)
    expect((await call('POST', '/', { body: ' '.repeat(21) })).status).toBe(413)
    expect((await call('POST', '/', { body: '{' })).status).toBe(400)
    for (const json of [{ name: 'x' }, { nonsense: 1 }, [], null, { constructor: 1 }]) {
      expect((await call('POST', '/', { json })).status).toBe(401)
    }
  })
})

function post(port: number, path: string, headers: Record<string, string>, length: number): ClientRequest {
  return request({
    port,
    host: '127.0.0.1',
    path: `/api-keys${path}`,
    method: 'POST',
    headers: { ...headers, 'Content-Type': 'application/json', 'Content-Length': length },
  })
}

async function answerOf(sent: ClientRequest): Promise<{ status: number | undefined; body: string }> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.on('response', resolve).on('error', reject)
  })
  return { status: response.statusCode, body: await text(response) }
}

function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {}
  const promise = new Promise<void>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}
