import type { ApiKeyEvent } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { NAMED } from '../../lib/management/schemas.ts'
import { type BuildApp, createWorld, ROUTERS, type World } from '../support/management-world.ts'
import { ALICE, BOB, createTestKeys, forgeKey, NAME, partsOf } from '../support/test-keys.ts'

const MINUTE = { name: 'minute', limit: 3, windowMs: 60_000 }

const explain = ({ call }: World, json: unknown, as = 'admin') => call('POST', '/explain', { as, json })

describe.each(ROUTERS)('an explanation on %s', (_name, build: BuildApp) => {
  const world = (testKeys = createTestKeys()) => createWorld({}, build, testKeys)

  it.each(['alice', 'bob', 'reader', 'nobodys'])('is not for %s, whoever owns the key', async (as) => {
    const here = await world()
    const { key, apiKey } = await here.keys.issue(NAME)
    for (const json of [{ key }, { id: apiKey.id }, { key: 'junk' }, { id: 'nobody' }]) {
      const { status, body } = await explain(here, json, as)
      expect([status, body.code]).toEqual([403, 'not_permitted'])
      expect(body).toEqual((await explain(here, { id: 'other' }, as)).body)
    }
    expect(here.eventsOf('key.explained')).toEqual([])
  })

  it('is for nobody who is not logged in, and for no key', async () => {
    const here = await world()
    const { key, apiKey } = await here.keys.issue({
      ...NAME,
      permissions: { 'api-keys': ['verify'], '*': ['*'] },
    })
    const json = { id: apiKey.id }
    const stranger = await here.call('POST', '/explain', { json })
    expect([stranger.status, stranger.body.code]).toEqual([401, 'authentication_required'])
    const withKey = await here.call('POST', '/explain', { as: 'admin', key, json })
    expect([withKey.status, withKey.body.code]).toEqual([403, 'session_required'])
    expect(here.eventsOf('key.explained')).toEqual([])
  })

  it('says to an administrator what keys.explain says, and is an event', async () => {
    const here = await world(createTestKeys({ rateLimits: [MINUTE] }))
    const { keys, clock, eventsOf } = here
    const { key, apiKey } = await keys.issue({ ...NAME, owner: BOB })
    const asked = {
      permissions: { projects: ['read'] },
      cost: { minute: 5 },
      ip: '192.0.2.1',
      prefix: 'acme_test',
    }
    for (const subject of [{ key }, { id: apiKey.id }, { key: 'junk' }]) {
      const { status, body } = await explain(here, { ...subject, ...asked })
      expect(status).toBe(200)
      expect(body).toEqual(JSON.parse(JSON.stringify(await keys.explain(subject, asked))))
      expect(NAMED.Explanation.parse(body)).toEqual(body)
    }
    const found = { keyId: apiKey.id, owner: BOB, outcome: 'insufficient_permissions', reason: null }
    const common = { type: 'key.explained', at: new Date(clock.now()), by: 'u_admin' }
    expect(eventsOf('key.explained')).toEqual([
      { ...common, ...found },
      { ...common, ...found },
      { ...common, keyId: null, owner: null, outcome: 'invalid_key', reason: 'malformed' },
    ])
    expect(eventsOf('key.refused')).toEqual([])
    expect(await keys.limits(apiKey.id)).toMatchObject([{ name: 'minute', remaining: 3 }])
  })

  it('holds no key and no digest, and neither do the events', async () => {
    const here = await world()
    const { keys, store, events } = here
    const { key, apiKey } = await keys.issue(NAME)
    const { digest } = (await store.find({ id: apiKey.id })) as { digest: string }
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    const bodies = [
      { key },
      { key: wrong },
      { key: ` ${key}` },
      { id: key },
      { key, id: key },
      { key, prefix: key },
      { [key]: 1 },
    ]
    let shown = ''
    for (const json of bodies) shown += (await explain(here, json)).text
    shown += JSON.stringify(events satisfies readonly ApiKeyEvent[])
    for (const secret of [key, wrong, partsOf(key).secret, 'x'.repeat(43), digest, digest.split('$')[2]]) {
      expect(shown).not.toContain(secret)
    }
  })

  it.each<[string, (key: string, id: string) => object, string]>([
    ['no subject', () => ({}), 'key'],
    ['two subjects', (key, id) => ({ key, id }), 'key'],
    ['a key that is none', () => ({ key: 7 }), 'key'],
    ['the text of a key as an id', (key) => ({ id: key }), 'id'],
    ['an address that is none', (key) => ({ key, ip: 'nowhere' }), 'ip'],
    ['a negative cost', (key) => ({ key, cost: -1 }), 'cost'],
    ['a cost of a limit that nobody has', (key) => ({ key, cost: { tokens: 1 } }), 'cost'],
    ['permissions that demand nothing', (key) => ({ key, permissions: {} }), 'permissions'],
    ['a charge', (key) => ({ key, charge: true }), 'body'],
    ['a key in the wrong place', (key) => ({ [key]: true }), 'body'],
  ])('is refused for %s', async (_what, bodyOf, field) => {
    const here = await world()
    const { key, apiKey } = await here.keys.issue(NAME)
    const { status, body, text } = await explain(here, bodyOf(key, apiKey.id))
    expect([status, body.code, body.field]).toEqual([400, 'invalid_request', field])
    expect(text).not.toContain(key)
    expect(here.eventsOf('key.explained')).toEqual([])
  })

  it('of wrong keys counts as requests, and never blocks the address that is named', async () => {
    const testKeys = createTestKeys({ failedAttempts: { limit: 1 } })
    const here = await createWorld({ requestLimit: { limit: 4, invalidKeys: 1 } }, build, testKeys)
    const { key } = await here.keys.issue(NAME)
    const wrong = { key: forgeKey(key, { secret: 'x'.repeat(43) }), ip: '192.0.2.1' }
    for (let i = 0; i < 4; i++)
      expect((await explain(here, wrong)).body).toMatchObject({ reason: 'wrong_secret' })
    expect((await explain(here, wrong)).body).toMatchObject({ status: 429, code: 'too_many_requests' })
    expect(here.eventsOf('address.blocked')).toEqual([])
    expect(await here.keys.verify(key, { ip: '192.0.2.1' })).toMatchObject({ ok: true })
  })

  it('is refused to pages of other sites', async () => {
    const here = await world()
    const { apiKey } = await here.keys.issue({ ...NAME, owner: ALICE })
    const { body } = await here.call('POST', '/explain', {
      as: 'admin',
      json: { id: apiKey.id },
      headers: { 'Sec-Fetch-Site': 'cross-site' },
    })
    expect(body).toMatchObject({ status: 403, code: 'cross_site' })
  })
})
