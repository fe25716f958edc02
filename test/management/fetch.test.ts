import { type ApiKeyRouter, apiKeyRouter } from 'latchkey/management/fetch'
import { describe, expect, it } from 'vitest'
import { ACTORS } from '../support/management-world.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const BASE = 'https://api.example.com'
const JSON_TYPE = { 'Content-Type': 'application/json' }

/** The interface for anybody who says that he is Alice. */
function createRouter(options: Partial<Parameters<typeof apiKeyRouter>[1]> = {}) {
  const test = createTestKeys()
  const actor = async (request: Request) => ACTORS[request.headers.get('X-Actor') ?? ''] ?? null
  return { ...test, manage: apiKeyRouter(test.keys, { actor, ...options }) }
}

function post(
  path: string,
  body: string | ReadableStream | null,
  headers: Record<string, string> = {},
): Request {
  const init = { method: 'POST', body, headers: { 'X-Actor': 'alice', ...JSON_TYPE, ...headers } }
  return new Request(BASE + path, { ...init, duplex: 'half' } as RequestInit)
}

async function codeOf(response: Response): Promise<[number, unknown]> {
  return [response.status, ((await response.json()) as { code?: unknown }).code]
}

/** A body that comes in pieces, and then breaks off if `error` is given. */
function streamOf(pieces: readonly string[], error?: Error): ReadableStream<Uint8Array> {
  const rest = pieces.map((piece) => new TextEncoder().encode(piece))
  return new ReadableStream({
    pull(controller) {
      const next = rest.shift()
      if (next) controller.enqueue(next)
      else if (error) controller.error(error)
      else controller.close()
    },
  })
}

describe('apiKeyRouter over a web Request refuses', () => {
  it.each<[string, object, string]>([
    ['a path without a slash', { path: 'api-keys' }, '"path" must begin with "/"'],
    ['an unknown option', { paths: '/' }, 'did you mean "path"'],
    ['an address that no function reads', { ip: '127.0.0.1' }, '"ip" must be a function'],
  ])('%s', (_what, options, message) => {
    expect(() => createRouter(options)).toThrow(message)
  })

  it('a body that breaks off, as one that is not complete', async () => {
    const { manage, keys, events } = createRouter()
    const request = post('/api-keys', streamOf(['{"name":"CI"}'], new Error('the client went away')))
    expect(await codeOf(await manage(request))).toEqual([400, 'invalid_request'])
    expect(events).toEqual([])
    expect((await keys.list()).apiKeys).toEqual([])
  })

  it('a body that goes on and on, without reading it to its end', async () => {
    const { manage } = createRouter({ maxBodyBytes: 100 })
    let pulled = 0
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        pulled += 1
        controller.enqueue(new Uint8Array(50).fill(32))
      },
    })
    expect(await codeOf(await manage(post('/api-keys', endless)))).toEqual([413, 'body_too_large'])
    expect(pulled).toBeLessThan(50)
  })

  it('a path that only looks like its own', async () => {
    const { manage } = createRouter()
    for (const path of ['/', '/api-keys2', '/api-key', '//api-keys', '/API-KEYS', '/v1/api-keys']) {
      const response = await manage(new Request(BASE + path, { headers: { 'X-Actor': 'alice' } }))
      expect([path, response.status, response.body]).toEqual([path, 404, null])
    }
  })

  it('a login beside a key, wherever the key comes', async () => {
    const { manage, keys } = createRouter()
    const { key } = await keys.issue(NAME)
    const beside: Record<string, string>[] = [
      { 'X-Api-Key': key },
      { Authorization: `Bearer ${key}` },
      { 'X-Api-Key': 'a, b' },
    ]
    for (const headers of beside) {
      const response = await manage(post('/api-keys', '{"name":"CI"}', headers))
      expect(response.status).not.toBe(201)
    }
    expect((await keys.list()).apiKeys).toHaveLength(1)
  })
})

describe('apiKeyRouter over a web Request', () => {
  async function issue(
    manage: ApiKeyRouter,
    path = '/api-keys',
  ): Promise<{ key: string; apiKey: { id: string } }> {
    const response = await manage(post(path, streamOf(['{"name":', '"Schlüssel"}'])))
    expect(response.status).toBe(201)
    return (await response.json()) as { key: string; apiKey: { id: string } }
  }

  it('issues, reads and revokes keys', async () => {
    const { manage, keys } = createRouter()
    const { key, apiKey } = await issue(manage)
    expect(await keys.verify(key)).toMatchObject({ ok: true, apiKey: { name: 'Schlüssel' } })
    const read = await manage(
      new Request(`${BASE}/api-keys/${apiKey.id}`, { headers: { 'X-Actor': 'alice' } }),
    )
    expect([read.status, read.headers.get('Cache-Control')]).toEqual([200, 'no-store'])
    expect((await manage(post(`/api-keys/${apiKey.id}/revoke`, null))).status).toBe(200)
    expect(await keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
  })

  it('is found at another path, and at the root', async () => {
    await issue(createRouter({ path: '/v1/keys/' }).manage, '/v1/keys')
    await issue(createRouter({ path: '/' }).manage, '/')
  })

  it('believes the address that the server tells rather than the one in its option', async () => {
    const { manage, keys } = createRouter({ ip: () => '192.0.2.1' })
    const { key } = await keys.issue({ ...NAME, allowedIps: ['203.0.113.5'] })
    const ask = () => new Request(`${BASE}/api-keys/self`, { headers: { 'X-Api-Key': key } })
    expect((await manage(ask())).status).toBe(403)
    expect((await manage(ask(), { ip: '203.0.113.5' })).status).toBe(200)
  })

  it('answers a preflight without a body', async () => {
    const { manage } = createRouter({ allowedOrigins: ['https://app.example'] })
    const headers = { Origin: 'https://app.example', 'Access-Control-Request-Method': 'POST' }
    const response = await manage(new Request(`${BASE}/api-keys`, { method: 'OPTIONS', headers }))
    expect([response.status, response.body]).toEqual([204, null])
  })
})
