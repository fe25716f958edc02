import { type ApiKey, createApiKeys, LatchkeyError } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { INVALID } from '../support/challenges.ts'
import {
  ACTORS,
  type BuildApp,
  createWorld,
  ROUTERS,
  type World,
  type WorldOptions,
} from '../support/management-world.ts'
import { exceeds } from '../support/problem-types.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const READ = { projects: ['read'] }

class BoundedAdmin {
  id = 'u_1'
  admin = true
  get grantable() {
    return READ
  }
}
const READER = { can: ['read'] }
const VERIFIER = { ...NAME, owner: BOB, name: 'service', permissions: { 'api-keys': ['verify'] } }

describe.each(ROUTERS)('%s', (_name, build: BuildApp) => {
  const world = (options?: WorldOptions, testKeys = createTestKeys()) => createWorld(options, build, testKeys)

  describe('who asks', () => {
    it('refuses a bad key although there is a login', async () => {
      const { keys, call } = await world()
      const { key, apiKey } = await keys.issue(NAME)
      const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
      const answer = await call('GET', '/', { as: 'alice', key: wrong })
      expect(answer.body).toMatchObject({ status: 401, code: 'invalid_key' })
      expect(answer.headers.get('www-authenticate')).toBe(INVALID)
      await keys.revoke(apiKey.id)
      expect((await call('GET', '/', { as: 'alice', key })).body).toMatchObject({ code: 'invalid_key' })
    })

    it('goes by the clock of the keys, unless it has its own', async () => {
      const testKeys = createTestKeys()
      const clientFields = { expiresAt: { maxMs: 86_400_000 } }
      const endOf = async ({ call }: World) => {
        const { body } = await call('POST', '/', { as: 'alice', json: { name: 'CI' } })
        return Date.parse((body as { apiKey: { expiresAt: string } }).apiKey.expiresAt)
      }
      const now = testKeys.clock.now()
      expect(await endOf(await world({ clientFields }, testKeys))).toBe(now + 86_400_000)
      const clock = { now: () => now + 60_000 }
      expect(await endOf(await world({ clientFields, clock }, testKeys))).toBe(now + 86_460_000)
    })

    it('refuses a good key although there is a login, and charges nothing', async () => {
      const { keys, call } = await world()
      const { key } = await keys.issue({
        ...NAME,
        rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }],
      })
      for (const path of ['/', '/', '/']) {
        expect((await call('GET', path, { as: 'alice', key })).body).toMatchObject({
          code: 'session_required',
        })
      }
      expect((await keys.verify(key)).ok).toBe(true)
    })

    it('refuses a key that is presented where another middleware of this process reads keys', async () => {
      const other = createTestKeys({ prefix: 'other' })
      const { key } = await other.keys.issue(NAME)
      await createWorld({ headers: ['X-Other-Key'] }, build, other)
      const { call } = await world()
      const answer = await call('GET', '/', { as: 'alice', headers: { 'X-Other-Key': key } })
      expect(answer.body).toMatchObject({ status: 403, code: 'session_required' })
    })

    it('does not ask the application about a request that presents a key', async () => {
      let asked = 0
      const actor = () => {
        asked += 1
        return ACTORS.alice as never
      }
      const { keys, call } = await world({ actor })
      const { key } = await keys.issue(NAME)
      await call('GET', '/', { key })
      await call('GET', '/self', { key })
      expect(asked).toBe(0)
      await call('GET', '/')
      expect(asked).toBe(1)
    })

    it.each([
      ['fails', () => Promise.reject(new Error('the sessions are away'))],
      ['fails with an error of ours', () => Promise.reject(new LatchkeyError('not_found'))],
      ['answers with nonsense', () => ({ id: 'u_1', isAdmin: true })],
      ['claims to be a key', () => ({ id: 'key:abc' })],
      ['answers with a promise of nonsense', async () => 'u_1'],
      ['bounds an admin by its class', () => new BoundedAdmin()],
      [
        'bounds an owner by its class',
        () => ({ id: 'u_1', owners: [Object.assign(Object.create(READER), ALICE)] }),
      ],
    ])('answers 503 where the application %s, and tells nobody why', async (_what, actor) => {
      const { call, eventsOf } = await world({ actor: actor as never })
      const answer = await call('GET', '/')
      expect(answer.body).toEqual({
        type: 'urn:problem-type:latchkey:unavailable',
        title: 'API keys cannot be verified right now',
        status: 503,
        code: 'unavailable',
      })
      expect(eventsOf('fault')).toHaveLength(1)
    })

    it('takes an actor that is false for nobody, as Passport has it', async () => {
      const { call, eventsOf } = await world({ actor: () => false as never })
      expect((await call('GET', '/')).body).toMatchObject({ status: 401, code: 'authentication_required' })
      expect(eventsOf('fault')).toEqual([])
    })

    it.each([
      '',
      '/revoke',
      '/:id',
      'DELETE /:id',
      '/:id/enable',
      '/:id/disable',
      '/:id/rotate',
      '/:id/revoke',
    ])('lets no key change keys, whatever it may do: %s', async (asked) => {
      const path = asked.replace('DELETE ', '')
      const { keys, call } = await world()
      const permissions = { '*': ['*'], 'api-keys': ['*', 'verify', 'issue', 'manage'] }
      const { key, apiKey } = await keys.issue({ ...NAME, permissions })
      const before = await keys.list()
      const method = path === '/:id' ? 'PATCH' : asked.startsWith('DELETE') ? 'DELETE' : 'POST'
      const json = path === '' || path === '/:id' ? { name: 'x' } : path === '/revoke' ? { owner: ALICE } : {}
      const answer = await call(method, path.replace(':id', apiKey.id) || '/', { key, json })
      expect(answer.body).toMatchObject({ status: 403, code: 'session_required' })
      const { apiKeys } = await keys.list()
      expect(apiKeys.map(({ id, version }) => [id, version])).toEqual(
        before.apiKeys.map(({ id, version }) => [id, version]),
      )
    })
  })

  describe('what is sent', () => {
    it.each([
      ['a member that is unknown', '{"name":"x","admin":true}', 'admin'],
      ['a member inside another', '{"name":"x","owner":{"type":"user","id":"u","x":1}}', 'owner.x'],
      ['__proto__', '{"name":"x","__proto__":{"admin":true}}', '__proto__'],
      [
        '__proto__ inside permissions',
        '{"name":"x","permissions":{"__proto__":["*"]}}',
        'permissions.__proto__',
      ],
      [
        '__proto__ inside metadata',
        '{"name":"x","metadata":{"a":[{"__proto__":1}]}}',
        'metadata.a[0].__proto__',
      ],
      ['constructor', '{"name":"x","constructor":{"prototype":{}}}', 'constructor'],
      ['a wrong type', '{"name":7}', 'name'],
      ['no name', '{}', 'name'],
      ['no date', '{"name":"x","expiresAt":"tomorrow"}', 'expiresAt'],
      ['a date that has passed', '{"name":"x","expiresAt":"1999-01-01T00:00:00Z"}', 'expiresAt'],
      [
        'a limit that is none',
        '{"name":"x","rateLimits":[{"name":"a","limit":0,"windowMs":1}]}',
        'rateLimits[0].limit',
      ],
      ['an address that is none', '{"name":"x","allowedIps":["300.1.1.1"]}', 'allowedIps[0]'],
      ['half a surrogate', '{"name":"\\ud800"}', 'name'],
      ['NUL', '{"name":"a\\u0000"}', 'name'],
      ['no JSON', '{"name":', 'body'],
      ['a list', '[]', 'body'],
      ['null', 'null', 'body'],
    ])('refuses %s by its name', async (_what, body, field) => {
      const { call, keys } = await world({
        clientFields: { rateLimits: [{ name: 'a', limit: 5, windowMs: 60_000 }] },
      })
      const answer = await call('POST', '/', { as: 'alice', body })
      expect(answer.body).toMatchObject({ status: 400, code: 'invalid_request', field })
      expect(answer.body.accepted).toMatch(/\w/)
      expect((await keys.list()).apiKeys).toEqual([])
      expect(({} as { admin?: unknown }).admin).toBeUndefined()
    })

    it('names what would be accepted', async () => {
      const { call } = await world()
      const { body } = await call('POST', '/', { as: 'alice', json: { name: 'x', permisions: {} } })
      expect(body).toEqual({
        type: 'urn:problem-type:latchkey:invalid_request',
        title: 'The request is malformed',
        status: 400,
        code: 'invalid_request',
        field: 'permisions',
        accepted:
          'owner, prefix, name, permissions, rateLimits, quota, allowedIps, expiresAt, idleExpiryMs, metadata',
      })
    })

    it.each([
      ['/?owner=x', 'owner'],
      ['/?limit=0', 'limit'],
      ['/?limit=101', 'limit'],
      ['/?limit=5&limit=6', 'limit'],
      ['/?ownerType=user', 'ownerId'],
      ['/?ownerId=u', 'ownerType'],
      ['/?status=gone', 'status'],
      ['/?__proto__=1', '__proto__'],
      ['/?cursor=%00', 'cursor'],
      ['/?cursor=nonsense', 'cursor'],
    ])('refuses the query %s', async (path, field) => {
      const { call } = await world()
      const answer = await call('GET', path, { as: 'alice' })
      expect(answer.status).toBe(400)
      expect(answer.body.field).toBe(field)
    })

    it.each([
      ['no type', { 'Content-Type': '' }],
      ['a form', { 'Content-Type': 'application/x-www-form-urlencoded' }],
      ['text', { 'Content-Type': 'text/plain; charset=utf-8' }],
      ['another encoding', { 'Content-Type': 'application/json; charset=utf-16' }],
      ['compressed JSON', { 'Content-Encoding': 'gzip' }],
    ])('refuses %s, with a body or without', async (_what, headers) => {
      const { call, keys } = await world()
      const { apiKey } = await keys.issue(NAME)
      for (const body of [undefined, '{}']) {
        const answer = await call('POST', `/${apiKey.id}/disable`, {
          as: 'alice',
          headers,
          ...(body && { body }),
        })
        expect(answer.body).toMatchObject({ status: 415, code: 'unsupported_media_type' })
      }
      expect((await keys.get(apiKey.id))?.enabled).toBe(true)
    })

    it.each([65_537, 1_000_000])('refuses a body of %i bytes, announced or not', async (length) => {
      const { call } = await world()
      const body = `{"name":"${'x'.repeat(length)}"}`
      expect((await call('POST', '/', { as: 'alice', body })).body).toMatchObject({
        code: 'body_too_large',
        accepted: 'at most 65536 bytes',
      })
      const stream = new Blob([body]).stream()
      const answer = await call('POST', '/', { as: 'alice', body: stream as never })
      expect(answer.body).toMatchObject({ status: 413, code: 'body_too_large' })
    })

    it('takes a body up to the limit, and another limit', async () => {
      const metadata = { a: 'é'.repeat(10_000) }
      const { call } = await world()
      expect((await call('POST', '/', { as: 'alice', json: { name: 'x', metadata } })).status).toBe(201)
      const small = await world({ maxBodyBytes: 100 })
      expect((await small.call('POST', '/', { as: 'alice', json: { name: 'x', metadata } })).status).toBe(413)
    })

    it('refuses a change that another site has caused, and not a look', async () => {
      const { call, keys } = await world()
      const { apiKey } = await keys.issue(NAME)
      const cross = { as: 'alice', headers: { 'Sec-Fetch-Site': 'cross-site' } }
      expect((await call('POST', `/${apiKey.id}/revoke`, cross)).body).toMatchObject({ code: 'cross_site' })
      expect((await keys.get(apiKey.id))?.revokedAt).toBeNull()
      expect((await call('GET', `/${apiKey.id}`, cross)).status).toBe(200)
      const own = { as: 'alice', headers: { 'Sec-Fetch-Site': 'same-origin' } }
      expect((await call('POST', `/${apiKey.id}/revoke`, own)).status).toBe(200)
    })
  })

  describe('what is not there', () => {
    it('is not told from what is not theirs', async () => {
      const { call, keys } = await world()
      const { apiKey } = await keys.issue({ ...NAME, owner: BOB })
      for (const [method, path] of [
        ['GET', ''],
        ['PATCH', ''],
        ['POST', '/enable'],
        ['POST', '/disable'],
        ['POST', '/rotate'],
        ['POST', '/revoke'],
      ] as const) {
        const options = { as: 'alice', ...(method === 'PATCH' && { json: { name: 'mine' } }) }
        const theirs = await call(method, `/${apiKey.id}${path}`, options)
        const nobodys = await call(method, `/0000000000000000${path}`, options)
        expect(theirs.body).toEqual(nobodys.body)
        expect(theirs.body).toMatchObject({ status: 404, code: 'not_found' })
      }
      expect(await keys.get(apiKey.id)).toEqual(apiKey)
    })

    it.each(['/a/b', '/a/b/c', '/self/x', '/verify/revoke/x', '/%', '/%E0%A4', '/x/%00'])(
      'answers 404 at %s',
      async (path) => {
        const { call } = await world()
        for (const method of ['GET', 'POST', 'DELETE']) {
          expect((await call(method, path, { as: 'admin' })).body).toMatchObject({
            status: 404,
            code: 'not_found',
          })
        }
      },
    )

    it('answers requests that are not for it as if it were not there', async () => {
      const { port } = await world()
      for (const path of ['/', '/api-keysx', '/other']) {
        expect(await (await fetch(`http://127.0.0.1:${port}${path}`)).text()).toBe('elsewhere')
      }
    })

    it.each([
      ['DELETE', '/', 'GET, HEAD, POST'],
      ['PUT', '/abc', 'GET, HEAD, PATCH, DELETE'],
      ['GET', '/abc/revoke', 'POST'],
      ['GET', '/verify', 'POST'],
      ['POST', '/self', 'GET, HEAD'],
      ['OPTIONS', '/self/revoke', 'POST'],
    ])('answers %s %s with the methods that there are', async (method, path, allowed) => {
      const { call } = await world()
      const answer = await call(method, path, { as: 'alice' })
      expect(answer.body).toMatchObject({ status: 405, code: 'method_not_allowed' })
      expect(answer.headers.get('allow')).toBe(allowed)
    })

    it('answers HEAD as GET, without the body', async () => {
      const { call, keys, port } = await world()
      const { apiKey } = await keys.issue(NAME)
      const got = await call('GET', `/${apiKey.id}`, { as: 'alice' })
      const head = await fetch(`http://127.0.0.1:${port}/api-keys/${apiKey.id}`, {
        method: 'HEAD',
        headers: { 'X-Actor': 'alice' },
      })
      expect(head.status).toBe(200)
      expect(await head.text()).toBe('')
      expect(head.headers.get('etag')).toBe('"1"')
      expect(head.headers.get('content-length')).toBe(got.headers.get('content-length'))
    })
  })

  describe('a new key', () => {
    it('is shown this once, and belongs to the one owner that there is', async () => {
      const { call, keys, eventsOf } = await world()
      const answer = await call('POST', '/', { as: 'alice', json: { name: 'CI', permissions: READ } })
      expect(answer.status).toBe(201)
      expect(answer.body.apiKey).toMatchObject({ owner: ALICE, createdBy: 'u_alice', permissions: READ })
      expect(await keys.verify(answer.body.key as string, { permissions: READ })).toMatchObject({ ok: true })
      expect(eventsOf('key.issued')[0]).toMatchObject({ by: 'u_alice', owner: ALICE })
      const { id } = answer.body.apiKey as ApiKey
      for (const path of ['/', `/${id}`]) {
        expect((await call('GET', path, { as: 'alice' })).text).not.toContain(answer.body.key)
      }
    })

    it('is made once of two requests with one Idempotency-Key, and its text is told once', async () => {
      const { call, keys } = await world()
      const options = { as: 'alice', json: { name: 'CI' }, headers: { 'Idempotency-Key': 'one' } }
      const answers = await Promise.all([1, 2, 3].map(() => call('POST', '/', options)))
      expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409])
      const made = answers.find(({ status }) => status === 201)
      const repeated = answers.find(({ status }) => status === 409)
      expect(repeated?.body).toMatchObject({ code: 'already_done', apiKey: made?.body.apiKey as object })
      expect(repeated?.text).not.toContain(made?.body.key)
      expect((await keys.list()).apiKeys).toHaveLength(1)
    })

    it('is another one for another actor, another route and another Idempotency-Key', async () => {
      const { call, keys } = await world()
      const headers = { 'Idempotency-Key': 'one' }
      const mine = await call('POST', '/', { as: 'alice', json: { name: 'a' }, headers })
      expect((await call('POST', '/', { as: 'bob', json: { name: 'a' }, headers })).status).toBe(201)
      const other = { headers: { 'Idempotency-Key': 'two' } }
      expect((await call('POST', '/', { as: 'alice', json: { name: 'a' }, ...other })).status).toBe(201)
      const { id } = mine.body.apiKey as ApiKey
      expect((await call('POST', `/${id}/rotate`, { as: 'alice', headers })).status).toBe(201)
      expect((await keys.list()).apiKeys).toHaveLength(4)
    })

    it('that was made already is not shown to an actor that may no longer read it', async () => {
      let actor = ACTORS.alice
      const { call } = await world({ actor: () => actor as never })
      const options = { json: { name: 'CI' }, headers: { 'Idempotency-Key': 'one' } }
      await call('POST', '/', options)
      actor = { id: 'u_alice', owners: [{ ...ALICE, can: ['create'] }] }
      const { body } = await call('POST', '/', options)
      expect(body).toMatchObject({ code: 'already_done' })
      expect(body).not.toHaveProperty('apiKey')
    })

    it.each(['', 'a b', 'é', 'x'.repeat(256)])('refuses the Idempotency-Key %j', async (value) => {
      const { call } = await world()
      const headers = { 'Idempotency-Key': Buffer.from(value).toString('latin1') }
      const answer = await call('POST', '/', { as: 'alice', json: { name: 'a' }, headers })
      expect(answer.body).toMatchObject({ code: 'invalid_request', field: 'Idempotency-Key' })
    })

    it('is refused where the owner has as many as are allowed, and not one too many is admitted at once', async () => {
      const { call, keys } = await world({ maxKeysPerOwner: 3 })
      await keys.disable((await keys.issue(NAME)).apiKey.id)
      await keys.revoke((await keys.issue(NAME)).apiKey.id)
      const answers = await Promise.all(
        Array.from({ length: 6 }, () => call('POST', '/', { as: 'alice', json: { name: 'x' } })),
      )
      expect(answers.map(({ status }) => status).sort()).toEqual([201, 201, 409, 409, 409, 409])
      const full = answers.find(({ status }) => status === 409)
      expect(full?.body).toMatchObject({ code: 'too_many_keys', accepted: 'at most 3 keys of one owner' })
      expect((await call('POST', '/', { as: 'bob', json: { name: 'x' } })).status).toBe(201)
    })

    it('is not one too many although two processes have counted at the same moment', async () => {
      const one = createTestKeys()
      const { store, limiter, clock } = one
      const two = createApiKeys({ store, rateLimiter: limiter, prefix: 'acme_test', clock })
      const here = await world({ maxKeysPerOwner: 2 }, one)
      const there = await world({ maxKeysPerOwner: 2 }, { ...one, keys: two })
      await one.keys.issue(NAME)
      const held = store.hold('list')
      const late = here.call('POST', '/', { as: 'alice', json: { name: 'late' } })
      await held.reached
      expect((await there.call('POST', '/', { as: 'alice', json: { name: 'early' } })).status).toBe(201)
      held.release()
      expect((await late).body).toMatchObject({ status: 409, code: 'too_many_keys' })
      const { apiKeys } = await one.keys.list({ status: 'active' })
      expect(apiKeys.map(({ name }) => name).sort()).toEqual(['CI', 'early'])
    })
  })

  describe('a key', () => {
    it('is revoked by DELETE, in the version that is expected, by whoever may revoke it', async () => {
      const { call, keys } = await world()
      const { key, apiKey } = await keys.issue(NAME)
      const remove = (as: string, headers: Record<string, string> = {}) =>
        call('DELETE', `/${apiKey.id}`, { as, headers })
      expect((await remove('bob')).body).toMatchObject({ status: 404, code: 'not_found' })
      expect((await remove('reader')).body).toMatchObject({ status: 403, code: 'not_permitted' })
      expect((await remove('alice', { 'If-Match': '"7"' })).body).toMatchObject({
        code: 'precondition_failed',
      })
      const crossSite = await remove('alice', { 'Sec-Fetch-Site': 'cross-site' })
      expect(crossSite.body).toMatchObject({ code: 'cross_site' })
      expect((await keys.verify(key)).ok).toBe(true)
      const answer = await remove('alice', { 'If-Match': '"1"' })
      expect(answer.status).toBe(200)
      expect(answer.body).toMatchObject({ id: apiKey.id, status: 'revoked', revokedBy: 'u_alice' })
      expect(await keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
    })

    it('is changed only in the version that is expected', async () => {
      const { call, keys } = await world()
      const { apiKey } = await keys.issue(NAME)
      const first = await call('GET', `/${apiKey.id}`, { as: 'alice' })
      const tag = first.headers.get('etag') as string
      expect(tag).toBe('"1"')
      const change = (value: string) =>
        call('PATCH', `/${apiKey.id}`, { as: 'alice', json: { name: 'new' }, headers: { 'If-Match': value } })
      expect((await change(`W/${tag}`)).body).toMatchObject({ code: 'precondition_failed' })
      expect((await change('"0", "7"')).body).toMatchObject({ code: 'precondition_failed' })
      expect((await change('1')).body).toMatchObject({ code: 'invalid_request', field: 'If-Match' })
      const changed = await change(`"0", ${tag}`)
      expect(changed.status).toBe(200)
      expect(changed.headers.get('etag')).toBe('"2"')
      expect((await change(tag)).body).toMatchObject({ code: 'precondition_failed' })
      expect((await change('*')).status).toBe(200)
    })

    it.each(['rotate', 'enable'])(
      'is not %sd where it gains permissions between the decision and the call',
      async (verb) => {
        const { call, keys, store } = await world()
        const { apiKey } = await keys.issue({ ...NAME, permissions: READ })
        await keys.disable(apiKey.id)
        const held = store.hold('find')
        const asked = call('POST', `/${apiKey.id}/${verb}`, { as: 'alice' })
        await held.reached
        await keys.update(apiKey.id, { permissions: { secrets: ['read'] } })
        held.release()
        expect((await asked).body).toMatchObject({ status: 403, code: 'permissions_exceeded' })
        expect((await keys.list()).apiKeys).toHaveLength(1)
        expect((await keys.get(apiKey.id))?.enabled).toBe(false)
      },
    )

    it('is changed where somebody else has changed it in between, and not with If-Match', async () => {
      const { call, keys, store } = await world()
      const { apiKey } = await keys.issue(NAME)
      const change = async (headers: Record<string, string>) => {
        const held = store.hold('find')
        const asked = call('PATCH', `/${apiKey.id}`, { as: 'alice', json: { metadata: { a: 1 } }, headers })
        await held.reached
        await keys.update(apiKey.id, { name: 'theirs' })
        held.release()
        return asked
      }
      expect((await change({})).body).toMatchObject({ name: 'theirs', metadata: { a: 1 } })
      const { version } = (await keys.get(apiKey.id)) as ApiKey
      expect((await change({ 'If-Match': `"${version}"` })).body).toMatchObject({
        code: 'precondition_failed',
      })
    })

    it('cannot be given to another owner', async () => {
      const { call, keys } = await world()
      const { apiKey } = await keys.issue(NAME)
      for (const json of [{ owner: BOB }, { createdBy: 'u_bob' }, { prefix: 'x' }]) {
        const { body } = await call('PATCH', `/${apiKey.id}`, { as: 'admin', json })
        expect(body).toMatchObject({ code: 'field_not_allowed', field: Object.keys(json)[0] })
      }
      expect(await keys.get(apiKey.id)).toEqual(apiKey)
    })

    it('is stopped, started again, and revoked for good', async () => {
      const { call, keys, eventsOf } = await world()
      const { key, apiKey } = await keys.issue(NAME)
      const path = `/${apiKey.id}`
      expect((await call('POST', `${path}/disable`, { as: 'alice' })).body).toMatchObject({ enabled: false })
      expect((await keys.verify(key)).ok).toBe(false)
      expect((await call('POST', `${path}/enable`, { as: 'alice' })).body).toMatchObject({ enabled: true })
      expect((await keys.verify(key)).ok).toBe(true)
      const revoked = await call('POST', `${path}/revoke`, { as: 'alice', json: { reason: 'lost' } })
      expect(revoked.body).toMatchObject({ revokedBy: 'u_alice', revokedReason: 'lost' })
      expect((await keys.verify(key)).ok).toBe(false)
      expect((await call('POST', `${path}/enable`, { as: 'alice' })).body).toMatchObject({ code: 'conflict' })
      expect((await call('POST', `${path}/revoke`, { as: 'alice' })).status).toBe(200)
      const events = ['key.disabled', 'key.enabled', 'key.revoked'] as const
      for (const type of events) expect(eventsOf(type)).toMatchObject([{ by: 'u_alice', keyId: apiKey.id }])
    })

    it('is rotated: both work until the grace is over', async () => {
      const { call, keys, clock } = await world()
      const { key, apiKey } = await keys.issue({ ...NAME, permissions: READ })
      const answer = await call('POST', `/${apiKey.id}/rotate`, { as: 'alice', json: { graceMs: 60_000 } })
      expect(answer.status).toBe(201)
      expect(answer.body.apiKey).toMatchObject({ rotatedFrom: apiKey.id, permissions: READ })
      expect(answer.body.previous).toMatchObject({
        rotatedTo: (answer.body.apiKey as ApiKey).id,
        expiresAt: new Date(clock.now() + 60_000).toISOString(),
      })
      expect((await keys.verify(key)).ok).toBe(true)
      await clock.advance(60_000)
      expect((await keys.verify(key)).ok).toBe(false)
      expect((await keys.verify(answer.body.key as string)).ok).toBe(true)
    })

    it('is rotated once of several requests with one Idempotency-Key', async () => {
      const { call, keys } = await world()
      const { apiKey } = await keys.issue(NAME)
      const options = { as: 'alice', headers: { 'Idempotency-Key': 'r' } }
      const answers = await Promise.all([1, 2, 3].map(() => call('POST', `/${apiKey.id}/rotate`, options)))
      const [made, ...others] = answers.sort((a, b) => a.status - b.status)
      expect(made?.status).toBe(201)
      for (const other of others) {
        expect(other.status).toBe(409)
        expect(other.text).not.toContain(made?.body.key)
      }
      const again = await call('POST', `/${apiKey.id}/rotate`, options)
      expect(again.body).toMatchObject({ code: 'already_done', apiKey: made?.body.apiKey as object })
    })

    it('cannot be piled up by rotating', async () => {
      const { call, keys, clock } = await world({ maxKeysPerOwner: 1 })
      const { apiKey } = await keys.issue(NAME)
      const first = await call('POST', `/${apiKey.id}/rotate`, { as: 'alice' })
      const { id } = first.body.apiKey as ApiKey
      const rotate = () => call('POST', `/${id}/rotate`, { as: 'alice' })
      expect((await rotate()).body).toMatchObject({ code: 'too_many_keys' })
      await clock.advance(86_400_000)
      expect((await rotate()).status).toBe(201)
    })

    it('that has expired is brought back only where there is room', async () => {
      const { call, keys, clock } = await world({ maxKeysPerOwner: 1 })
      const { apiKey } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1_000) })
      await clock.advance(1_000)
      const other = await keys.issue(NAME)
      const revive = () => call('PATCH', `/${apiKey.id}`, { as: 'alice', json: { expiresAt: null } })
      expect((await revive()).body).toMatchObject({ code: 'too_many_keys' })
      await keys.revoke(other.apiKey.id)
      expect((await revive()).status).toBe(200)
    })
  })

  describe('many keys', () => {
    it('are listed page by page, own ones only, in one order', async () => {
      const { call, keys, clock, eventsOf } = await world()
      const ids: string[] = []
      for (let i = 0; i < 25; i++) {
        ids.push((await keys.issue({ ...NAME, name: `n${i}` })).apiKey.id)
        await keys.issue({ ...NAME, owner: BOB })
        await clock.advance(1)
      }
      const first = await call('GET', '/', { as: 'alice' })
      expect(first.body.apiKeys).toHaveLength(20)
      const cursor = encodeURIComponent(first.body.nextCursor as string)
      const second = await call('GET', `/?cursor=${cursor}`, { as: 'alice' })
      const listed = [...(first.body.apiKeys as ApiKey[]), ...(second.body.apiKeys as ApiKey[])]
      expect(listed.map(({ id }) => id)).toEqual(ids)
      expect(second.body).not.toHaveProperty('nextCursor')
      expect(eventsOf('key.read')).toEqual([])
    })

    it('are filtered', async () => {
      const { call, keys } = await world()
      const { apiKey } = await keys.issue({ ...NAME, name: 'é & x', createdBy: 'u_2' })
      await keys.issue({ ...NAME, owner: BOB })
      const revoked = await keys.issue({ ...NAME, createdBy: 'u_2' })
      await keys.revoke(revoked.apiKey.id)
      const ids = async (as: string, query: string) => {
        const { body } = await call('GET', `/?${query}`, { as })
        return (body.apiKeys as ApiKey[]).map(({ id }) => id)
      }
      expect(await ids('alice', `name=${encodeURIComponent('é & x')}`)).toEqual([apiKey.id])
      expect(await ids('admin', 'createdBy=u_2&status=active')).toEqual([apiKey.id])
      expect(await ids('admin', 'ownerType=user&ownerId=u_alice&status=revoked')).toEqual([revoked.apiKey.id])
      expect(await ids('admin', 'limit=2')).toHaveLength(2)
      const theirs = await call('GET', '/?ownerType=user&ownerId=u_bob', { as: 'alice' })
      expect(theirs.body).toMatchObject({ code: 'not_permitted', field: 'owner' })
    })

    it('are listed the other way round, and by their end', async () => {
      const { call, keys, clock } = await world()
      const issue = async (expiresAt: string | null) => {
        await clock.advance(1)
        return (await keys.issue({ ...NAME, expiresAt: expiresAt === null ? null : new Date(expiresAt) }))
          .apiKey.id
      }
      const lasting = await issue(null)
      const ending = await issue('2030-01-31T12:00:00.000Z')
      const ids = async (query: string) => {
        const { body } = await call('GET', `/?${query}`, { as: 'alice' })
        return (body.apiKeys as ApiKey[]).map(({ id }) => id)
      }
      expect(await ids('order=newest')).toEqual([ending, lasting])
      expect(await ids('order=oldest')).toEqual([lasting, ending])
      expect(await ids(`expiresBefore=${encodeURIComponent('2030-01-31T13:00:00.001+01:00')}`)).toEqual([
        ending,
      ])
      expect(await ids('expiresBefore=2030-01-31T12:00:00Z')).toEqual([])
      const soon = 'expiresBefore=2030-02-01T00:00:00Z'
      expect(await ids(`${soon}&status=active`)).toEqual([ending])
      await keys.disable(ending)
      expect(await ids(`${soon}&status=active`)).toEqual([])
      expect(await ids(`${soon}&status=disabled`)).toEqual([ending])
      expect(await ids(soon)).toEqual([ending])
      await keys.enable(ending)
      const first = await call('GET', '/?order=newest&limit=1', { as: 'alice' })
      const cursor = `cursor=${first.body.nextCursor}`
      expect(await ids(`order=newest&${cursor}`)).toEqual([lasting])
      const wrong: [string, string, string][] = [
        [`order=oldest&${cursor}`, 'invalid_cursor', 'cursor'],
        [cursor, 'invalid_cursor', 'cursor'],
        ['order=asc', 'invalid_request', 'order'],
        ['order=newest&order=newest', 'invalid_request', 'order'],
        ['expiresBefore=tomorrow', 'invalid_request', 'expiresBefore'],
        ['expiresBefore=2030-01-31', 'invalid_request', 'expiresBefore'],
      ]
      for (const [query, code, field] of wrong) {
        const refused = await call('GET', `/?${query}`, { as: 'alice' })
        expect([refused.status, refused.body.code, refused.body.field], query).toEqual([400, code, field])
      }
    })

    it('are told of where an administrator reads those of others', async () => {
      const { call, keys, eventsOf } = await world()
      const { apiKey } = await keys.issue(NAME)
      await call('GET', `/${apiKey.id}`, { as: 'alice' })
      expect(eventsOf('key.read')).toEqual([])
      await call('GET', `/${apiKey.id}`, { as: 'admin' })
      await call('GET', '/', { as: 'admin' })
      expect(eventsOf('key.read')).toMatchObject([
        { keyId: apiKey.id, owner: ALICE, by: 'u_admin' },
        { keyId: apiKey.id, owner: ALICE, by: 'u_admin' },
      ])
    })

    it('are revoked by owner, and by creator for administrators only', async () => {
      const { call, keys, eventsOf } = await world()
      await keys.issue(NAME)
      await keys.issue({ ...NAME, owner: BOB, createdBy: 'u_left' })
      const revoke = (as: string, json: object) => call('POST', '/revoke', { as, json })
      expect((await revoke('alice', { owner: BOB })).body).toMatchObject({ code: 'not_permitted' })
      expect((await revoke('alice', { createdBy: 'u_left' })).body).toMatchObject({ code: 'not_permitted' })
      expect((await revoke('alice', { owner: BOB, createdBy: 'u_left' })).body).toMatchObject({
        code: 'not_permitted',
      })
      expect((await revoke('admin', {})).body).toMatchObject({ code: 'invalid_request' })
      expect((await keys.list({ status: 'active' })).apiKeys).toHaveLength(2)
      expect((await revoke('alice', { owner: ALICE, reason: 'all' })).body).toEqual({ revoked: 1 })
      expect((await revoke('admin', { createdBy: 'u_left' })).body).toEqual({ revoked: 1 })
      expect(eventsOf('owner.revoked')).toMatchObject([{ by: 'u_alice' }])
      expect(eventsOf('creator.revoked')).toMatchObject([{ by: 'u_admin', createdBy: 'u_left' }])
    })

    it('are revoked by whoever has issued them among those of an owner', async () => {
      const { call, keys, eventsOf } = await world()
      const gone = await keys.issue({ ...NAME, createdBy: 'u_left' })
      await keys.issue({ ...NAME, createdBy: 'u_stays' })
      await keys.issue({ ...NAME, owner: BOB, createdBy: 'u_left' })
      const json = { owner: ALICE, createdBy: 'u_left', reason: 'left' }
      expect((await call('POST', '/revoke', { as: 'alice', json })).body).toEqual({ revoked: 1 })
      expect(await keys.get(gone.apiKey.id)).toMatchObject({ revokedBy: 'u_alice', revokedReason: 'left' })
      expect((await keys.list({ status: 'active' })).apiKeys).toHaveLength(2)
      expect(eventsOf('creator.revoked')).toMatchObject([
        { by: 'u_alice', owner: ALICE, createdBy: 'u_left' },
      ])
    })
  })

  describe('a key for itself', () => {
    it('is shown, and revoked, by its key and by nothing else', async () => {
      const { call, keys, eventsOf } = await world()
      const { key, apiKey } = await keys.issue({
        ...NAME,
        rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }],
      })
      expect((await call('GET', '/self', { as: 'admin' })).body).toMatchObject({ code: 'missing_key' })
      const self = await call('GET', '/self', { key })
      expect(self.body.id).toBe(apiKey.id)
      expect(self.headers.get('ratelimit')).toMatch(/^"minute";r=0/)
      expect(self.text).not.toContain(key)
      expect((await call('GET', '/self', { key })).body).toMatchObject({
        code: 'rate_limited',
        ...exceeds(['minute']),
      })
      const revoked = await call('POST', '/self/revoke', { key, json: { reason: 'leaked' } })
      expect(revoked.body).toMatchObject({ revokedReason: 'leaked', revokedBy: `key:${apiKey.id}` })
      expect((await call('POST', '/self/revoke', { key })).body).toMatchObject({ code: 'invalid_key' })
      expect(eventsOf('key.revoked')).toHaveLength(1)
    })
  })

  describe('verifying for others', () => {
    it('tells nothing of a bad key, whatever is wrong with it', async () => {
      const { call, keys, clock } = await world()
      const service = await keys.issue(VERIFIER)
      const texts: string[] = ['', 'x', 'x'.repeat(10_000), '\u0000', 'acme_test_a']
      const wrong = await keys.issue(NAME)
      texts.push(forgeKey(wrong.key, { secret: 'x'.repeat(43) }))
      texts.push(forgeKey(wrong.key, { keyId: 'unknown000000000' }))
      const revoked = await keys.issue(NAME)
      await keys.revoke(revoked.apiKey.id)
      const disabled = await keys.issue(NAME)
      await keys.disable(disabled.apiKey.id)
      const expired = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1_000) })
      await clock.advance(1_000)
      for (const key of [...texts, revoked.key, disabled.key, expired.key]) {
        const answer = await call('POST', '/verify', { key: service.key, json: { key } })
        expect(answer.status).toBe(200)
        expect(answer.body).toEqual({ active: false })
      }
    })

    it('tells how a good key stands, and charges only when asked to', async () => {
      const { call, keys } = await world()
      const service = await keys.issue(VERIFIER)
      const { key, apiKey } = await keys.issue({
        ...NAME,
        permissions: READ,
        allowedIps: ['192.0.2.0/24'],
        rateLimits: [{ name: 'minute', limit: 2, windowMs: 60_000 }],
      })
      const verify = async (json: object) => {
        const answer = await call('POST', '/verify', {
          key: service.key,
          json: { key, ip: '192.0.2.1', ...json },
        })
        expect(answer.text).not.toContain(key)
        return answer.body
      }
      for (let i = 0; i < 3; i++) {
        expect(await verify({ permissions: READ, cost: 2 })).toMatchObject({
          active: true,
          apiKey: { id: apiKey.id, owner: ALICE },
          limits: [{ name: 'minute', remaining: 2 }],
        })
      }
      expect(await verify({ permissions: [{ reports: ['read'] }, { projects: ['write'] }] })).toMatchObject({
        active: true,
        refused: { code: 'insufficient_permissions' },
      })
      expect(await verify({ ip: '203.0.113.9' })).toMatchObject({
        active: true,
        refused: { code: 'address_not_allowed' },
      })
      expect(await verify({ prefix: 'other' })).toEqual({ active: false })
      const unknown = { code: 'invalid_request', field: 'cost' }
      expect(await verify({ charge: true, cost: { minutes: 2 } })).toMatchObject(unknown)
      expect(await verify({ charge: true, cost: { minute: -1 } })).toMatchObject({ code: 'invalid_request' })
      expect(await verify({ charge: true, cost: { minute: 2 } })).toMatchObject({
        limits: [{ remaining: 0 }],
      })
      expect(await verify({ charge: true })).toMatchObject({
        active: true,
        refused: { code: 'rate_limited', retryAfterMs: 60_000, exceeded: ['minute'] },
      })
    })

    it('needs a free place, but holds none', async () => {
      const { call, keys } = await world()
      const service = await keys.issue(VERIFIER)
      const { key } = await keys.issue({ ...NAME, rateLimits: [{ name: 'parallel', concurrent: 1 }] })
      const verify = async () =>
        (await call('POST', '/verify', { key: service.key, json: { key, charge: true } })).body
      for (let i = 0; i < 3; i++) {
        expect(await verify()).toMatchObject({ active: true, limits: [{ type: 'concurrent', remaining: 0 }] })
      }
      const held = await keys.verify(key)
      expect(await verify()).toMatchObject({
        refused: { code: 'rate_limited', retryAfterMs: 1_000, exceeded: ['parallel'] },
      })
      if (held.ok) await keys.release(held)
      expect(await verify()).not.toHaveProperty('refused')
    })

    it('is for keys that may, and is no way round the address of the caller', async () => {
      const { call, keys } = await world()
      const { key } = await keys.issue(NAME)
      expect((await call('POST', '/verify', { as: 'admin', json: { key } })).body).toMatchObject({
        code: 'missing_key',
      })
      expect((await call('POST', '/verify', { key, json: { key } })).body).toMatchObject({
        code: 'insufficient_permissions',
        missing: { 'api-keys': ['verify'] },
      })
      const elsewhere = await keys.issue({ ...VERIFIER, allowedIps: ['192.0.2.1'] })
      expect((await call('POST', '/verify', { key: elsewhere.key, json: { key } })).body).toMatchObject({
        code: 'address_not_allowed',
      })
    })

    it('reads the address as the framework tells it, also where the option is undefined', async () => {
      const { call, keys } = await world({ ip: undefined } as object)
      const { key } = await keys.issue({ ...NAME, allowedIps: ['127.0.0.0/8'] })
      expect((await call('GET', '/self', { key })).status).toBe(200)
    })

    it('tells nothing more to a caller that asks about too many bad keys, until the window is over', async () => {
      const { call, keys, clock } = await world({ requestLimit: { invalidKeys: 2, windowMs: 60_000 } })
      const service = await keys.issue(VERIFIER)
      const other = await keys.issue(VERIFIER)
      const verify = (key: string, text: string) => call('POST', '/verify', { key, json: { key: text } })
      expect((await verify(service.key, service.key)).body).toMatchObject({ active: true })
      for (let i = 0; i < 2; i++) expect((await verify(service.key, 'bad')).body).toEqual({ active: false })
      expect((await verify(service.key, 'bad')).body).toEqual({
        active: false,
        refused: { code: 'too_many_failures', retryAfterMs: 60_000 },
      })
      expect((await verify(other.key, 'bad')).body).toEqual({ active: false })
      await clock.advance(60_000)
      expect((await verify(service.key, 'bad')).body).toEqual({ active: false })
    })

    it('is 503 where the store is away, and never an inactive key', async () => {
      const { call, keys, store } = await world()
      const service = await keys.issue(VERIFIER)
      const { key } = await keys.issue(NAME)
      await call('POST', '/verify', { key: service.key, json: { key: service.key } })
      store.fail('find', rejects(new Error('down')))
      expect((await call('POST', '/verify', { key: service.key, json: { key } })).body).toMatchObject({
        status: 503,
        code: 'unavailable',
      })
    })
  })

  it('refuses an actor that asks too often, each by itself', async () => {
    const { call, clock } = await world({ requestLimit: { limit: 2, windowMs: 10_000 } })
    for (let i = 0; i < 2; i++) expect((await call('GET', '/', { as: 'alice' })).status).toBe(200)
    await clock.advance(4_000)
    const refused = await call('GET', '/', { as: 'alice' })
    expect(refused.body).toMatchObject({ status: 429, code: 'too_many_requests' })
    expect(refused.headers.get('retry-after')).toBe('6')
    expect((await call('GET', '/', { as: 'bob' })).status).toBe(200)
    await clock.advance(6_000)
    expect((await call('GET', '/', { as: 'alice' })).status).toBe(200)
  })
})

it('refuses wrong options by their names', async () => {
  const build = (options: object) => createWorld(options as never)
  await expect(build({ actor: 'alice' })).rejects.toThrow(/"actor" must be a function/)
  await expect(build({ clientfields: {} })).rejects.toThrow(
    /has no option "clientfields"; did you mean "clientFields"/,
  )
  await expect(build({ requestLimit: true })).rejects.toThrow(/"requestLimit" must be an object or false/)
  await expect(build({ maxBodyBytes: 0 })).rejects.toThrow(/"maxBodyBytes" must be/)
  await expect(build({ verifyPermission: {} })).rejects.toThrow(/"verifyPermission" must name/)
  // No option opens the management of keys to keys.
  await expect(build({ keyActions: { list: READ } })).rejects.toThrow(/has no option "keyActions"/)
  for (const verifyPermission of [
    { services: ['verify'] },
    { 'api-keys': ['*'] },
    { '*': ['verify'] },
    { 'api-keys': ['verify'], services: ['verify'] },
    [{ 'api-keys': ['verify'] }, { services: ['verify'] }],
  ]) {
    await expect(build({ verifyPermission })).rejects.toThrow(
      '"verifyPermission" must name actions of "api-keys" and nothing else',
    )
  }
})
