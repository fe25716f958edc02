import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { createWorld, ROUTERS } from '../support/management-world.ts'
import { forgeKey, NAME } from '../support/test-keys.ts'

/** How a request differs from a plain one by Alice, with the text of a key where it does not belong. */
type Misplaced = (
  key: string,
  id: string,
) => readonly [method: string, path: string, json?: unknown, headers?: object]

const cursorOf = (id: string) => Buffer.from(JSON.stringify([0, id])).toString('base64url')

const MISPLACED: Readonly<Record<string, Misplaced>> = {
  'the id of a key to show': (key) => ['GET', `/${key}`],
  'the id of a key to change': (key) => ['PATCH', `/${key}`, { name: 'x' }],
  'the id of a key to revoke': (key) => ['POST', `/${key}/revoke`, {}],
  'the id of a key to rotate': (key) => ['POST', `/${key}/rotate`, {}],
  'the id of a key to enable': (key) => ['POST', `/${encodeURIComponent(`"${key}"`)}/enable`, {}],
  'an operation': (key, id) => ['POST', `/${id}/${key}`, {}],
  'a parameter': (key) => ['GET', `/?${key}=1`],
  'a parameter of what takes none': (key, id) => ['GET', `/${id}?${key}`],
  'a parameter that comes twice': (key) => ['GET', `/?${key}=1&${key}=2`],
  'a parameter of the document': (key) => ['GET', `/openapi.json?${key}=1`],
  'a cursor': (key) => ['GET', `/?cursor=${key}`],
  'the key that a cursor names': (key) => ['GET', `/?cursor=${cursorOf(key)}`],
  'the name of keys to list': (key) => ['GET', `/?name=${key}`],
  'the owner of keys to list': (key) => ['GET', `/?ownerType=user&ownerId=${key}`],
  'the creator of keys to list': (key) => ['GET', `/?createdBy=${key}`],
  'a status': (key) => ['GET', `/?status=${key}`],
  'a limit': (key) => ['GET', `/?limit=${key}`],
  'a member of a body': (key) => ['POST', '/', { name: 'x', [key]: 1 }],
  'a member of a change': (key, id) => ['PATCH', `/${id}`, { [key]: 1 }],
  'a member of an owner': (key) => ['POST', '/', { name: 'x', owner: { type: 'user', id: 'u', [key]: 1 } }],
  'a member of a limit': (key) => [
    'POST',
    '/',
    { name: 'x', rateLimits: [{ name: 'm', limit: 1, windowMs: 1, [key]: 1 }] },
  ],
  'a resource': (key) => ['POST', '/', { name: 'x', permissions: { [key]: ['read'] } }],
  'a resource with no actions': (key) => ['POST', '/', { name: 'x', permissions: { [key]: 'read' } }],
  'an action': (key) => ['POST', '/', { name: 'x', permissions: { projects: [key] } }],
  'a name': (key) => ['POST', '/', { name: `key ${key}` }],
  'a new name': (key, id) => ['PATCH', `/${id}`, { name: key }],
  'an owner': (key) => ['POST', '/', { name: 'x', owner: { type: 'user', id: key } }],
  'a prefix': (key) => ['POST', '/', { name: 'x', prefix: key }],
  'an address': (key) => ['POST', '/', { name: 'x', allowedIps: [key] }],
  'a date': (key) => ['POST', '/', { name: 'x', expiresAt: key }],
  'the name of a limit': (key) => [
    'POST',
    '/',
    { name: 'x', rateLimits: [{ name: key, limit: 1, windowMs: 1 }] },
  ],
  'a time zone': (key) => [
    'POST',
    '/',
    { name: 'x', rateLimits: [{ name: 'm', limit: 1, per: 'day', timeZone: key }] },
  ],
  'a reason': (key, id) => ['POST', `/${id}/revoke`, { reason: key }],
  'whose keys to revoke': (key) => ['POST', '/revoke', { owner: { type: 'user', id: key } }],
  'whose issues to revoke': (key) => ['POST', '/revoke', { createdBy: key }],
  'a body that is no object': (key) => ['POST', '/', key],
  'an Idempotency-Key': (key) => ['POST', '/', { name: 'x' }, { 'Idempotency-Key': key }],
  'an If-Match': (key, id) => ['POST', `/${id}/disable`, {}, { 'If-Match': key }],
}

describe.each(ROUTERS)('the text of a key over %s', (_name, build) => {
  it.each(Object.entries(MISPLACED))(
    'is repeated nowhere and kept nowhere: as %s',
    async (_where, misplace) => {
      const world = await createWorld({}, build)
      const issued = await world.keys.issue({ ...NAME, name: 'victim' })
      const key = forgeKey(issued.key, { secret: 'S3cr3t'.repeat(7).padEnd(43, 'x') })
      world.store.forgetCalls()
      world.events.length = 0
      const log: string[] = []
      const [method, path, json, headers] = misplace(key, issued.apiKey.id)
      for (const as of ['admin', 'alice', 'nobody']) {
        const answer = await world.call(method, path, {
          as,
          headers: { ...headers },
          ...(json !== undefined && { json }),
        })
        expect(answer.status, answer.text).toBeGreaterThanOrEqual(400)
        expect(answer.status, answer.text).toBeLessThan(500)
        log.push(answer.text)
      }
      const methods = ['insert', 'find', 'update', 'list', 'purge', 'recordUsage'] as const
      log.push(inspect([methods.map((one) => world.store.argumentsOf(one)), world.events], { depth: 9 }))
      expect(log.join('\n')).not.toContain('S3cr3tS3cr3t')
      expect(world.store.calls('insert') + world.store.calls('update')).toBe(0)
      expect(world.eventsOf('fault')).toEqual([])
    },
  )

  it('is no more repeated where it was cut to the length of a name, or belongs to something else', async () => {
    const { call, keys } = await createWorld({}, build)
    const { key } = await keys.issue(NAME)
    for (const name of [key.slice(0, 64), key.slice(-64), `7|${'a'.repeat(40)}`, 'abc.def', 'a b', '', 'é']) {
      const inQuery = await call('GET', `/?${encodeURIComponent(name)}=1`, { as: 'alice' })
      const inBody = await call('POST', '/', { as: 'alice', json: { name: 'x', [name]: 1 } })
      for (const answer of [inQuery, inBody]) {
        expect(answer.body).toMatchObject({ status: 400, code: 'invalid_request' })
        expect(answer.body.field, answer.text).toBeUndefined()
        expect(answer.body.accepted).toContain('name')
      }
    }
  })

  it('leaves names of members in answers', async () => {
    const { call } = await createWorld({}, build)
    for (const name of ['naem', 'X-Custom', '_private', '$ref', 'a1']) {
      const inBody = await call('POST', '/', { as: 'alice', json: { name: 'x', [name]: 1 } })
      expect(inBody.body).toMatchObject({ code: 'invalid_request', field: name })
      const inOwner = await call('POST', '/', {
        as: 'alice',
        json: { name: 'x', owner: { type: 'u', id: 'x', [name]: 1 } },
      })
      expect(inOwner.body).toMatchObject({ code: 'invalid_request', field: `owner.${name}` })
    }
  })
})

describe.each(ROUTERS)('a text that no store can hold over %s', (_name, build) => {
  const texts = ['nul \0', '\0', 'half \ud83d', '\udd11 half']

  it.each(texts)('is refused as a request that is wrong, or names no key: %j', async (text) => {
    const world = await createWorld({}, build)
    const { apiKey } = await world.keys.issue(NAME)
    world.store.forgetCalls()
    const inUrl = text.includes('\0') ? encodeURIComponent(text) : '%ed%a0%bd'
    const answers = [
      await world.call('GET', `/${inUrl}`, { as: 'alice' }),
      await world.call('POST', `/${inUrl}/revoke`, { as: 'alice', json: {} }),
      await world.call('GET', `/?cursor=${cursorOf(text)}`, { as: 'alice' }),
      await world.call('POST', '/', { as: 'alice', json: { name: text } }),
      await world.call('POST', '/', { as: 'alice', json: { name: 'x', owner: { type: 'user', id: text } } }),
      await world.call('PATCH', `/${apiKey.id}`, { as: 'alice', json: { name: text } }),
      await world.call('POST', `/${apiKey.id}/revoke`, { as: 'alice', json: { reason: text } }),
      await world.call('POST', '/revoke', { as: 'admin', json: { createdBy: text } }),
      await world.call('POST', '/revoke', { as: 'admin', json: { owner: { type: text, id: 'u' } } }),
    ]
    for (const { status, body } of answers) {
      expect(status).toBeLessThan(500)
      expect(['invalid_request', 'invalid_cursor', 'not_found']).toContain(body.code)
    }
    if (text.includes('\0')) {
      for (const name of ['name', 'createdBy', 'cursor', 'ownerType=user&ownerId']) {
        const { body } = await world.call('GET', `/?${name}=${inUrl}`, { as: 'admin' })
        expect(body).toMatchObject({ status: 400, code: 'invalid_request' })
      }
    }
    expect(world.store.calls('insert') + world.store.calls('update') + world.store.calls('list')).toBe(0)
    expect(world.eventsOf('fault')).toEqual([])
  })
})
