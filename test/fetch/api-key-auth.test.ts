import { isLatchkeyError, type ServiceRateLimit } from 'latchkey'
import {
  type AdmittedRequest,
  type ApiKeyAuthOptions,
  apiKeyAuth,
  getAuth,
  type KeyAuth,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
  settle,
  withApiKey,
} from 'latchkey/fetch'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { ALICE, BOB, createTestKeys, NAME } from '../support/test-keys.ts'

const URL = 'https://api.example.com/projects'
const MINUTE: ServiceRateLimit = { name: 'minute', limit: 10, windowMs: 60_000 }

function ask(headers: Record<string, string> = {}, init: RequestInit = {}): Request {
  return new Request(URL, { headers, ...init })
}

async function setUp(rateLimits: readonly ServiceRateLimit[] = []) {
  const test = createTestKeys({ rateLimits })
  const { key } = await issueKey(test.keys, { permissions: { projects: ['read'] } })
  return { ...test, key, askWith: (init?: RequestInit) => ask({ 'X-Api-Key': key }, init) }
}

function admitted<Who>(caller: { ok: boolean }): AdmittedRequest<Who> {
  if (!caller.ok) throw new Error('the request was refused')
  return caller as AdmittedRequest<Who>
}

describe('apiKeyAuth over a web Request refuses', () => {
  it.each<[string, object, string]>([
    ['an unknown option', { permission: {} }, 'did you mean "permissions"'],
    ['another way to refuse', { refuseWith: 'error' }, '"refuseWith" must be left out'],
    ['an address that is not a function', { ip: '127.0.0.1' }, '"ip" must be a function'],
  ])('%s', async (_what, options, message) => {
    const { keys } = await setUp()
    expect(() => apiKeyAuth(keys, options as ApiKeyAuthOptions)).toThrow(message)
    expect(() => withApiKey(keys, () => new Response(), options as { required?: true })).toThrow(message)
  })

  it('two keys that Headers has joined, whoever is logged in', async () => {
    const { keys, key } = await setUp()
    const authenticate = apiKeyAuth(keys)
    const twice: Record<string, string>[] = [
      { 'X-Api-Key': `${key}, ${key}` },
      { 'X-Api-Key': `${key},junk` },
      { Authorization: `Api-Key ${key}, Api-Key ${key}` },
      { 'X-Api-Key': key, Authorization: `Bearer ${key}` },
    ]
    for (const headers of twice) {
      const request = ask(headers)
      await markSession({ user: () => ALICE })(request)
      const caller = await authenticate(request)
      if (caller.ok) throw new Error('it was let in')
      expect([caller.response.status, caller.error.code]).toEqual([400, 'multiple_credentials'])
      expect(getAuth(request)).toEqual({ method: 'rejected', code: 'multiple_credentials' })
      expect(requireSession()(request)?.status).toBe(403)
    }
  })

  it('a key that follows another scheme, for a session', async () => {
    const { keys, key } = await setUp()
    const request = ask({ Authorization: `Bearer e30.e30.e30, Api-Key ${key}` })
    await markSession({ user: () => ALICE })(request)
    expect(requireSession({ keys })(request)?.status).toBe(403)
  })

  it('a session beside what only looks like a key after a comma', async () => {
    const { keys, key } = await setUp()
    const fields = [`Api-Key ,${key}`, `Api-Key , ${key}`, `Api-Key ${key},junk`, `Bearer ${key},x="y"`]
    for (const Authorization of fields) {
      const request = ask({ Authorization })
      await markSession({ user: () => ALICE })(request)
      expect(requireSession({ keys })(request)?.status).toBe(403)
      expect(await apiKeyAuth(keys)(request)).toMatchObject({ ok: false, error: { code: 'invalid_key' } })
    }
  })

  it('a clone: it says nothing of who is calling', async () => {
    const { keys, askWith } = await setUp()
    const request = askWith()
    await apiKeyAuth(keys)(request)
    expect(getAuth(request)).toMatchObject({ method: 'apikey' })
    for (const copy of [request.clone(), new Request(request)]) {
      expect(getAuth(copy)).toEqual({ method: 'none' })
      expect(requireApiKey()(copy)?.status).toBe(401)
      expect(copy).not.toHaveProperty('apiKey')
    }
  })

  it('an address in a field that any client writes', async () => {
    const { keys } = await setUp()
    const { key } = await issueKey(keys, { allowedIps: ['203.0.113.5'] })
    const fields = { 'X-Api-Key': key, 'X-Forwarded-For': '203.0.113.5', 'X-Real-IP': '203.0.113.5' }
    const authenticate = apiKeyAuth(keys)
    expect(await authenticate(ask(fields))).toMatchObject({
      ok: false,
      error: { code: 'address_not_allowed' },
    })
    expect(await authenticate(ask(fields), { ip: '203.0.113.5' })).toMatchObject({ ok: true })
    const other = apiKeyAuth(keys, { ip: () => '203.0.113.5' })
    expect(await other(ask(fields))).toMatchObject({ ok: true })
    expect(await other(ask(fields), { ip: '192.0.2.1' })).toMatchObject({ ok: false })
  })

  it('a key without the permission, and says so in every way', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const caller = await apiKeyAuth(keys, { permissions: { projects: ['write'] } })(askWith())
    if (caller.ok) throw new Error('it was let in')
    expect(isLatchkeyError(caller.error)).toBe(true)
    expect(caller.response.headers.get('Content-Type')).toBe('application/problem+json')
    expect(caller.response.headers.get('RateLimit')).toBe(null)
    expect(await caller.response.json()).toMatchObject({ missing: { projects: ['write'] } })
  })
})

describe('apiKeyAuth over a web Request', () => {
  it('answers who is calling, and the fields to send', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const caller = admitted<KeyAuth>(await apiKeyAuth(keys)(askWith()))
    expect(caller.auth).toMatchObject({ method: 'apikey', user: ALICE, apiKey: { name: 'CI' } })
    expect(Object.fromEntries(caller.headers)).toEqual({
      ratelimit: '"minute";r=9;t=60',
      'ratelimit-policy': '"minute";q=10;w=60',
    })
    const response = caller.finish(Response.json({ ok: true }))
    expect(response.headers.get('RateLimit')).toBe('"minute";r=9;t=60')
  })

  it('lets a request without a key in where none is needed, and never one with a bad key', async () => {
    const { keys } = await setUp()
    const authenticate = apiKeyAuth(keys, { required: false })
    expect(await authenticate(ask())).toMatchObject({ ok: true, auth: { method: 'none' } })
    expect(await authenticate(ask({ 'X-Api-Key': 'junk' }))).toMatchObject({ ok: false })
  })

  it('charges a request once, however often it is asked', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const request = askWith()
    await apiKeyAuth(keys)(request)
    const again = admitted(await apiKeyAuth(keys, { permissions: { projects: ['read'] } })(request))
    expect(again.finish(new Response()).headers.get('RateLimit')).toBe('"minute";r=9;t=60')
    const other = admitted(await apiKeyAuth(keys)(askWith()))
    expect(other.headers.get('RateLimit')).toBe('"minute";r=8;t=60')
  })

  it('adds its fields to a response that nobody can change, and leaves what the handler set', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const redirect = admitted(await apiKeyAuth(keys)(askWith())).finish(Response.redirect(URL, 302))
    expect([redirect.status, redirect.headers.get('Location')]).toEqual([302, URL])
    expect(redirect.headers.get('RateLimit')).toBe('"minute";r=9;t=60')
    const own = new Response('own', { headers: { RateLimit: 'own' } })
    expect(
      admitted(await apiKeyAuth(keys)(askWith()))
        .finish(own)
        .headers.get('RateLimit'),
    ).toBe('own')
  })

  it('hands on a response that nobody can change or copy, without its fields', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const failed = Response.error()
    expect(admitted(await apiKeyAuth(keys)(askWith())).finish(failed)).toBe(failed)
    // What Deno answers a WebSocket with.
    const upgrade = Response.error()
    Object.defineProperty(upgrade, 'status', { value: 101 })
    expect(admitted(await apiKeyAuth(keys)(askWith())).finish(upgrade)).toBe(upgrade)
  })

  it('reads a request that names its context, as some routers have it', async () => {
    const { keys, askWith } = await setUp()
    const request = askWith()
    Object.assign(request, { ctx: { request } })
    expect(getAuth(request)).toEqual({ method: 'none' })
    expect(await apiKeyAuth(keys)(request)).toMatchObject({ ok: true, auth: { method: 'apikey' } })
    expect(requireApiKey()(request)).toBe(null)
  })

  it('shows what settling has left, until the response is made', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const request = askWith()
    const caller = admitted(await apiKeyAuth(keys, { cost: 5 })(request))
    expect(await settle(request, 2)).toBe(true)
    const response = caller.finish(new Response('done'))
    expect(response.headers.get('RateLimit')).toBe('"minute";r=8;t=60')
    expect(await settle(request, 4)).toBe(true)
    expect(response.headers.get('RateLimit')).toBe('"minute";r=8;t=60')
  })

  it('asks a function of the request for the permissions', async () => {
    const { keys } = await setUp()
    const { key } = await issueKey(keys, { permissions: { 'project:p1': ['read'] } })
    const permissions = ({ url }: Request) => ({ [`project:${url.split('/').at(-1)}`]: ['read'] })
    const askFor = (id: string) => new Request(`${URL}/${id}`, { headers: { 'X-Api-Key': key } })
    const open = apiKeyAuth(keys)
    for (const [id, status] of [
      ['p1', undefined],
      ['p2', 403],
      ['%20', 403],
    ] as const) {
      const caller = await apiKeyAuth(keys, { permissions })(askFor(id))
      expect([id, caller.ok ? undefined : caller.response.status]).toEqual([id, status])
      const request = askFor(id)
      await open(request)
      expect([id, requirePermissions(permissions)(request)?.status]).toEqual([id, status])
    }
  })

  it('asks a function of the request for the cost', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const cost = (request: Request) => Number(new globalThis.URL(request.url).searchParams.get('n') ?? 4)
    const caller = admitted(await apiKeyAuth(keys, { cost })(askWith()))
    expect(caller.headers.get('RateLimit')).toBe('"minute";r=6;t=60')
  })
})

describe('guards over a web Request', () => {
  it('take no other way to refuse', () => {
    expect(() => requireSession({ refuseWith: 'error' } as object)).toThrow('"refuseWith" must be left out')
    expect(() => requirePermissions({ a: ['b'] }, { refuseWith: 'error' } as object)).toThrow('"refuseWith"')
  })

  it('answer with a response, which has the fields of the key that was charged', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const request = askWith()
    await apiKeyAuth(keys)(request)
    const refused = requirePermissions({ projects: ['write'] })(request)
    expect(refused?.status).toBe(403)
    expect(refused?.headers.get('RateLimit')).toBe('"minute";r=9;t=60')
    expect(requirePermissions({ projects: ['read'] })(request)).toBe(null)
    expect(requireAuth({ accept: ['apikey', 'session'] })(request)).toBe(null)
  })

  it('tell a session from a key, whoever marks first', async () => {
    const { keys, askWith } = await setUp()
    const mark = markSession({ user: async () => BOB })
    const session = ask()
    await mark(session)
    expect(getAuth(session)).toEqual({ method: 'session', user: BOB })
    expect(requireSession()(session)).toBe(null)
    expect(requireApiKey()(session)?.status).toBe(403)
    const both = askWith()
    await mark(both)
    await apiKeyAuth(keys)(both)
    await mark(both)
    expect(getAuth(both)).toMatchObject({ method: 'apikey', user: ALICE })
    expect(requireSession()(both)?.status).toBe(403)
  })
})

describe('markSession over a web Request', () => {
  it.each<[string, object | undefined, string]>([
    ['without a user', {}, '"user" must be a function'],
    ['with an unknown option', { users: () => null }, 'did you mean "user"'],
  ])('is a mistake %s', (_what, options, message) => {
    expect(() => markSession(options as { user: () => unknown })).toThrow(message)
  })

  it('marks nobody where nobody is logged in, and passes on what fails', async () => {
    for (const user of [null, undefined, false]) {
      const request = ask()
      await markSession({ user: () => user })(request)
      expect(getAuth(request)).toEqual({ method: 'none' })
    }
    const failing = markSession({ user: () => Promise.reject(new Error('the session store is away')) })
    await expect(failing(ask())).rejects.toThrow('the session store is away')
  })
})

describe('withApiKey over a web Request', () => {
  it('is a mistake without a handler, or where a key is not required', async () => {
    const { keys } = await setUp()
    expect(() => withApiKey(keys, undefined as never)).toThrow('"handler" must be a function')
    expect(() => withApiKey(keys, () => new Response(), { required: false } as object)).toThrow('"required"')
  })

  it('runs the handler for a valid key alone, with what the framework hands over', async () => {
    const { keys, askWith } = await setUp([MINUTE])
    const handle = withApiKey(
      keys,
      async (_request, { user, apiKey }, { params }: { params: Promise<{ id: string }> }) =>
        Response.json({ user, name: apiKey.name, id: (await params).id }),
      { permissions: { projects: ['read'] } },
    )
    const context = { params: Promise.resolve({ id: 'p1' }) }
    const response = await handle(askWith(), context)
    expect(await response.json()).toEqual({ user: ALICE, name: NAME.name, id: 'p1' })
    expect(response.headers.get('RateLimit')).toBe('"minute";r=9;t=60')
    expect((await handle(ask(), context)).status).toBe(401)
  })

  it('passes on what the handler throws', async () => {
    const { keys, askWith } = await setUp()
    const handle = withApiKey(keys, () => Promise.reject(new Error('no projects today')))
    await expect(handle(askWith())).rejects.toThrow('no projects today')
  })
})
