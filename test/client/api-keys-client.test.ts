import { inspect } from 'node:util'
import type { ApiKey } from 'latchkey'
import {
  type ApiKeysClient,
  ApiKeysClientError,
  type ApiKeysClientOptions,
  createApiKeysClient,
  type ErrorCode,
  isApiKeysClientError,
} from 'latchkey/client'
import { openApiDocument } from 'latchkey/management'
import { describe, expect, it } from 'vitest'
import { createWorld, ROUTERS, type World, type WorldOptions } from '../support/management-world.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const DAY = 86_400_000
const IN_2030 = Date.parse('2030-01-31T12:00:00.123Z')
const READ = { projects: ['read'] }
const VERIFIER = { ...NAME, owner: BOB, name: 'service', permissions: { 'api-keys': ['verify'] } }
const PER_MINUTE = { name: 'minute', limit: 1, windowMs: 60_000 }
const UNKNOWN = 'A'.repeat(16)

/** An application, and clients for it. */
interface Place extends World {
  /** A client with a login. */
  as(actor: string, options?: Partial<ApiKeysClientOptions>): ApiKeysClient
  /** A client with a key. */
  by(key: string, options?: Partial<ApiKeysClientOptions>): ApiKeysClient
}

type Fetch = NonNullable<ApiKeysClientOptions['fetch']>

/** Sends the first request, lets the service act, and loses what it answers. */
function losingFirstAnswer(): Fetch {
  let isFirst = true
  return async (url, init) => {
    const response = await fetch(url, init)
    if (!isFirst) return response
    isFirst = false
    await response.text()
    throw new TypeError('the connection was reset')
  }
}

/** Answers with keys that have gone through `change`. */
function changing(change: (apiKey: Record<string, unknown>) => object): Fetch {
  return async (url, init) => {
    const response = await fetch(url, init)
    const text = JSON.stringify(await response.json(), (_name, value) =>
      typeof value?.lineageId === 'string' ? change(value) : value,
    )
    return new Response(text, { status: response.status, headers: response.headers })
  }
}

/** What a call was refused with. */
async function refusalOf(call: Promise<unknown>): Promise<ApiKeysClientError> {
  const answer = await call.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  )
  const error = 'error' in answer ? answer.error : undefined
  expect(isApiKeysClientError(error), inspect(answer)).toBe(true)
  expect(error).toBeInstanceOf(ApiKeysClientError)
  return error as ApiKeysClientError
}

describe.each(ROUTERS)('%s', (_name, build) => {
  async function place(options?: WorldOptions, testKeys = createTestKeys()): Promise<Place> {
    const world = await createWorld(options, build, testKeys)
    const connect = (given: Partial<ApiKeysClientOptions>) =>
      createApiKeysClient({ baseUrl: `http://127.0.0.1:${world.port}/api-keys`, retries: 0, ...given })
    return {
      ...world,
      as: (actor, given = {}) => connect({ headers: { 'X-Actor': actor }, ...given }),
      by: (key, given = {}) => connect({ key, ...given }),
    }
  }

  describe('the use of keys', () => {
    it('is told of keys and owners that the caller reads, and of no others', async () => {
      const { keys, as } = await place()
      const bobs = await keys.issue({ ...NAME, owner: BOB })
      const alices = await keys.issue({ ...NAME, permissions: { projects: ['read', 'write'] } })
      await keys.verify(alices.key, { permissions: READ })
      await keys.verify(alices.key, { permissions: { users: ['read'] } })
      await keys.verify(bobs.key)
      const alice = as('alice')
      expect(await alice.usage(bobs.apiKey.id)).toBeNull()
      expect(await alice.unusedPermissions(bobs.apiKey.id)).toBeNull()
      expect(await refusalOf(alice.ownerUsage(BOB))).toMatchObject({ code: 'not_permitted' })
      const report = await alice.usage(alices.apiKey.id, { by: 'hour', timeZone: 'Europe/Berlin' })
      const total = { admitted: 1, refused: 1, refusedBy: { insufficient_permissions: 1 }, units: {} }
      expect(report).toMatchObject({ by: 'hour', timeZone: 'Europe/Berlin', total })
      expect(report?.buckets.at(-1)?.endsAt).toBeInstanceOf(Date)
      expect((await alice.ownerUsage(ALICE)).total).toEqual(total)
      const found = await alice.unusedPermissions(alices.apiKey.id, { days: 7 })
      expect(found).toMatchObject({ used: READ, unused: { projects: ['write'] }, unwatched: {} })
    })

    it('is read to the owner of the key alone without an event', async () => {
      const { keys, as, eventsOf } = await place()
      const { apiKey } = await keys.issue(NAME)
      await as('alice').usage(apiKey.id)
      expect(eventsOf('key.read')).toEqual([])
      await as('admin').usage(apiKey.id)
      expect(eventsOf('key.read')).toEqual([expect.objectContaining({ keyId: apiKey.id, by: 'u_admin' })])
    })

    it.each([
      [{ by: 'week' }, '"by"'],
      [{ from: 'yesterday' }, '"from"'],
      [{ to: 7 }, '"to"'],
      [{ timeZone: '' }, '"timeZone"'],
      [{ key: 'a' }, 'key'],
    ])('is not asked for with %j', async (request, message) => {
      const client = (await place()).as('alice')
      await expect(client.usage(UNKNOWN, request as never)).rejects.toThrow(message)
      await expect(client.ownerUsage(ALICE, request as never)).rejects.toThrow(message)
    })

    it('is refused with the name of what no schema can check', async () => {
      const { keys, as } = await place()
      const { apiKey } = await keys.issue(NAME)
      const long = { by: 'hour' as const, from: new Date(0), to: new Date(IN_2030) }
      const refusal = await refusalOf(as('alice').usage(apiKey.id, long))
      expect(refusal).toMatchObject({ code: 'invalid_request', details: { field: 'from' } })
      const nowhere = await refusalOf(as('alice').usage(apiKey.id, { timeZone: 'Mars/Base' }))
      expect(nowhere).toMatchObject({ code: 'invalid_request', details: { field: 'timeZone' } })
    })

    it('narrows a rotation', async () => {
      const { keys, as } = await place()
      const { key, apiKey } = await keys.issue({ ...NAME, permissions: { projects: ['read', 'write'] } })
      await keys.verify(key, { permissions: READ })
      const refusal = await refusalOf(as('alice').rotate(apiKey.id, { onlyUsed: { days: 0 } }))
      expect(refusal).toMatchObject({ code: 'invalid_request', details: { field: 'onlyUsed.days' } })
      const { apiKey: successor } = await as('alice').rotate(apiKey.id, { onlyUsed: {} })
      expect(successor.permissions).toEqual(READ)
    })
  })

  describe('a refusal', () => {
    interface Refused {
      what: string
      call(place: Place, alices: ApiKey, bobs: ApiKey): Promise<unknown>
      code: ErrorCode
      status: number
      field?: string
      options?: WorldOptions
    }
    const invalid = { code: 'invalid_request', status: 400 } as const
    const rows: Refused[] = [
      { what: 'an empty name', call: ({ as }) => as('alice').issue({ name: '' }), ...invalid, field: 'name' },
      {
        what: 'a member that is unknown',
        call: ({ as }) => as('alice').issue({ name: 'a', admin: true } as never),
        ...invalid,
        field: 'admin',
      },
      {
        what: 'a member that is unknown, inside another',
        call: ({ as }) => as('alice').issue({ name: 'a', quota: { remaining: 1, left: 2 } as never }),
        ...invalid,
        field: 'quota.left',
      },
      {
        what: 'a misspelt permission, where a key is verified',
        call: async ({ keys, by }) =>
          by((await keys.issue(VERIFIER)).key).verify({ key: 'x', permission: READ } as never),
        ...invalid,
        field: 'body',
      },
      {
        what: 'a status that is none',
        call: ({ as }) => as('alice').list({ status: 'gone' as never }),
        ...invalid,
        field: 'status',
      },
      {
        what: 'an order that is none',
        call: ({ as }) => as('alice').list({ order: 'asc' as never }),
        ...invalid,
        field: 'order',
      },
      {
        what: 'a cursor of another order',
        async call({ as, keys }) {
          await keys.issue(NAME)
          const { nextCursor = '' } = await as('alice').list({ limit: 1 })
          return as('alice').list({ order: 'newest', cursor: nextCursor })
        },
        code: 'invalid_cursor',
        status: 400,
      },
      {
        what: 'a cursor that is none',
        call: ({ as }) => as('alice').list({ cursor: 'nonsense' }),
        code: 'invalid_cursor',
        status: 400,
        field: 'cursor',
      },
      {
        what: 'a permission beyond what may be granted',
        call: ({ as }) => as('alice').issue({ name: 'a', permissions: { billing: ['read'] } }),
        code: 'permissions_exceeded',
        status: 403,
        field: 'permissions',
      },
      {
        what: 'a field that may not be set',
        call: ({ as }, { id }) => as('alice').update(id, { rateLimits: [] }),
        code: 'field_not_allowed',
        status: 403,
        field: 'rateLimits',
      },
      {
        what: 'a field that nobody may set',
        call: ({ as }, { id }) => as('admin').update(id, { owner: BOB } as never),
        code: 'field_not_allowed',
        status: 403,
        field: 'owner',
      },
      {
        what: 'a time beyond the ceiling',
        call: ({ as, clock }) => as('alice').issue({ name: 'a', expiresAt: new Date(clock.now() + 2 * DAY) }),
        options: { clientFields: { expiresAt: { maxMs: DAY } } },
        code: 'ceiling_exceeded',
        status: 403,
        field: 'expiresAt',
      },
      {
        what: 'somebody else’s owner',
        call: ({ as }) => as('alice').issue({ name: 'a', owner: BOB }),
        code: 'not_permitted',
        status: 403,
        field: 'owner',
      },
      {
        what: 'somebody else’s owner, of whom all keys are to be revoked',
        call: ({ as }) => as('alice').revokeOwner(BOB),
        code: 'not_permitted',
        status: 403,
      },
      {
        what: 'a bulk revocation by somebody who is no admin',
        call: ({ as }) => as('alice').revokeCreatedBy('u_alice'),
        code: 'not_permitted',
        status: 403,
      },
      {
        what: 'somebody who erases their own account and is no admin',
        call: ({ as }) => as('alice').erase(ALICE),
        code: 'not_permitted',
        status: 403,
      },
      {
        what: 'an explanation by somebody who is no admin',
        call: ({ as }, { id }) => as('alice').explain({ id }),
        code: 'not_permitted',
        status: 403,
      },
      {
        what: 'somebody who may only read',
        call: ({ as }, { id }) => as('reader').disable(id),
        code: 'not_permitted',
        status: 403,
      },
      {
        what: 'one key too many',
        call: ({ as }) => as('alice').issue({ name: 'a' }),
        options: { maxKeysPerOwner: 1 },
        code: 'too_many_keys',
        status: 409,
      },
      {
        what: 'a rotation that comes second',
        async call({ as, keys }, { id }) {
          await keys.rotate(id)
          return as('alice').rotate(id)
        },
        code: 'conflict',
        status: 409,
      },
      {
        what: 'a body that is too large',
        call: ({ as }) => as('alice').issue({ name: 'a', metadata: { a: 'x'.repeat(70_000) } }),
        code: 'body_too_large',
        status: 413,
      },
      {
        what: 'nobody’s login',
        call: ({ as }) => as('stranger').list(),
        code: 'authentication_required',
        status: 401,
      },
      { what: 'no key', call: ({ as }) => as('alice').self(), code: 'missing_key', status: 401 },
      {
        what: 'a key that is wrong',
        async call({ keys, by }) {
          const { key } = await keys.issue(NAME)
          return by(forgeKey(key, { secret: 'x'.repeat(43) })).self()
        },
        code: 'invalid_key',
        status: 401,
      },
      {
        what: 'a key where a login is wanted',
        call: async ({ keys, by }) => by((await keys.issue(NAME)).key).list(),
        code: 'session_required',
        status: 403,
      },
      {
        what: 'a key that may not verify others',
        call: async ({ keys, by }) => by((await keys.issue(NAME)).key).verify({ key: 'x' }),
        code: 'insufficient_permissions',
        status: 403,
      },
      {
        what: 'a part of the service that is broken',
        call({ as, store }) {
          store.fail('list', rejects(new Error('the database is away')))
          return as('alice').list()
        },
        code: 'unavailable',
        status: 503,
      },
    ]

    it.each(rows)('tells of $what', async ({ call, code, status, field, options }) => {
      const given = await place(options)
      const { apiKey: alices } = await given.keys.issue(NAME)
      const { apiKey: bobs } = await given.keys.issue({ ...NAME, owner: BOB })
      const error = await refusalOf(call(given, alices, bobs))
      expect(error).toMatchObject({ name: 'ApiKeysClientError', code, responseStatus: status })
      if (field !== undefined) {
        expect(error.field).toBe(field)
        expect(error.message).toContain(`"${field}"`)
      }
      if (status === 400) expect(error.accepted).toMatch(/\w/)
      // An error handler of a framework would answer this program's own client with it.
      expect(error).not.toHaveProperty('status')
      expect(error).not.toHaveProperty('statusCode')
    })

    it('tells what a key lacks', async () => {
      const { keys, by } = await place()
      const { key } = await keys.issue(NAME)
      const { details } = await refusalOf(by(key).verify({ key }))
      expect(details).toMatchObject({ missing: { 'api-keys': ['verify'] } })
    })

    it('tells when to come back', async () => {
      const { keys, by } = await place()
      const { key } = await keys.issue({ ...NAME, rateLimits: [PER_MINUTE] })
      await by(key).self()
      const error = await refusalOf(by(key).self())
      expect(error).toMatchObject({ code: 'rate_limited', responseStatus: 429, retryAfterMs: 60_000 })
      expect(error.details).toEqual({ exceeded: ['minute'], 'violated-policies': ['minute'] })
    })

    it('tells of too many requests', async () => {
      const { as } = await place({ requestLimit: { limit: 1, windowMs: 5_000 } })
      await as('alice').list()
      const error = await refusalOf(as('alice').list())
      expect(error).toMatchObject({ code: 'too_many_requests', responseStatus: 429, retryAfterMs: 5_000 })
    })
  })

  describe('a key that is not there for the caller', () => {
    const ids: [string, (bobs: ApiKey) => string][] = [
      ['unknown', () => UNKNOWN],
      ['somebody else’s', ({ id }) => id],
    ]

    it.each(ids)('is null where it is %s', async (_what, idOf) => {
      const { as, keys } = await place()
      const { apiKey } = await keys.issue({ ...NAME, owner: BOB })
      expect(await as('alice').get(idOf(apiKey))).toBe(null)
    })

    it.each(ids)('is not found by any change where it is %s, and stays as it is', async (_what, idOf) => {
      const { as, keys } = await place()
      const { apiKey } = await keys.issue({ ...NAME, owner: BOB })
      const client = as('alice')
      const id = idOf(apiKey)
      const calls = [
        client.update(id, { name: 'mine' }),
        client.enable(id),
        client.disable(id),
        client.rotate(id),
        client.revoke(id),
      ]
      for (const call of calls) {
        expect(await refusalOf(call)).toMatchObject({ code: 'not_found', responseStatus: 404 })
      }
      expect(await keys.get(apiKey.id)).toEqual(apiKey)
    })

    it('is an error where it may not be read', async () => {
      const { as, keys } = await place()
      const { apiKey } = await keys.issue(NAME)
      expect(await refusalOf(as('nobodys').get(apiKey.id))).toMatchObject({ code: 'not_permitted' })
    })
  })

  it.each([
    'self',
    'verify',
    'revoke',
    'openapi.json',
    '.',
    '..',
    '%2e%2e',
    '%2E',
    '../self',
    'x/../self',
    'self/',
    'self?',
    'self#',
    'self;v=1',
    '\\self',
    'a/b',
    ' self',
    'SELF/revoke',
    'ſelf',
    'ｓｅｌｆ',
    'Schlüssel',
    '\u202eself',
    'a\u0000',
    '\ud800',
    '',
    'x'.repeat(65),
    '__proto__/x',
  ])('asks for nothing where an id is %j', async (id) => {
    const { keys, as } = await place()
    const { apiKey } = await keys.issue(VERIFIER)
    let asked = 0
    const client = as('admin', {
      fetch: (url, init) => {
        asked += 1
        return fetch(url, init)
      },
    })
    expect(await client.get(id)).toBe(null)
    expect(await client.limits(id)).toBe(null)
    for (const call of [
      client.update(id, { name: 'other' }),
      client.enable(id),
      client.disable(id),
      client.rotate(id),
      client.revoke(id),
    ]) {
      expect(await refusalOf(call)).toMatchObject({ code: 'not_found', responseStatus: null })
    }
    expect(asked).toBe(0)
    expect(await keys.get(apiKey.id)).toEqual(apiKey)
  })

  describe('what is answered', () => {
    it('is a key as the service has it, dates being dates, and frozen', async () => {
      const { as, keys, clock } = await place()
      const expiresAt = new Date(clock.now() + DAY)
      const settings = {
        name: 'Schlüssel 🔑',
        permissions: { projects: ['read'], '*': ['read'] },
        rateLimits: [PER_MINUTE, { name: 'day', limit: 9, per: 'day' as const, timeZone: 'Europe/Berlin' }],
        quota: { remaining: 5, refill: { amount: 5, everyMs: 60_000 } },
        allowedIps: ['192.0.2.0/24', '2001:db8::/32'],
        expiresAt,
        idleExpiryMs: 60_000,
        metadata: { nested: [{ a: null, at: expiresAt.toISOString() }] },
        prefix: 'acme_live',
      }
      const client = as('admin')
      const { key, apiKey } = await client.issue({ owner: ALICE, ...settings })
      expect(apiKey).toMatchObject({ ...settings, quota: { remaining: 5 }, createdBy: 'u_admin' })
      expect(apiKey).toEqual(await keys.get(apiKey.id))
      expect(await client.get(apiKey.id)).toEqual(apiKey)
      expect(await keys.verify(key, { ip: '192.0.2.1' })).toMatchObject({ ok: true })
      for (const date of [apiKey.createdAt, apiKey.updatedAt, apiKey.expiresAt, apiKey.quota?.nextRefillAt]) {
        expect(date).toBeInstanceOf(Date)
      }
      for (const part of [apiKey, apiKey.owner, apiKey.permissions, apiKey.quota, apiKey.metadata.nested]) {
        expect(Object.isFrozen(part)).toBe(true)
      }
    })

    it('is a key after each change of it', async () => {
      const { as, keys, eventsOf } = await place()
      const client = as('alice')
      const { apiKey: issued } = await client.issue({ name: 'CI' })
      const { id } = issued
      const updated = await client.update(id, { name: 'other', permissions: READ })
      expect(updated).toEqual(await keys.get(id))
      expect(updated).toMatchObject({ name: 'other', permissions: READ })
      expect(await client.disable(id)).toEqual(await keys.get(id))
      expect(await keys.get(id)).toMatchObject({ enabled: false })
      expect(await client.enable(id)).toEqual(await keys.get(id))
      expect(await keys.get(id)).toMatchObject({ enabled: true, permissions: READ })
      const revoked = await client.revoke(id, { reason: 'lost' })
      expect(revoked).toEqual(await keys.get(id))
      expect(revoked).toMatchObject({ revokedBy: 'u_alice', revokedReason: 'lost' })
      expect(revoked.revokedAt).toBeInstanceOf(Date)
      expect(eventsOf('key.revoked')).toMatchObject([{ by: 'u_alice', keyId: id }])
    })

    it('is a key without what was cleared, and with what was left out', async () => {
      const { as, keys, clock } = await place()
      const { apiKey } = await keys.issue({
        ...NAME,
        expiresAt: new Date(clock.now() + DAY),
        allowedIps: ['192.0.2.1'],
      })
      const changed = await as('alice').update(apiKey.id, { expiresAt: null, allowedIps: undefined })
      expect(changed).toMatchObject({ expiresAt: null, allowedIps: ['192.0.2.1'] })
    })

    it('is both keys of a rotation', async () => {
      const { as, keys, clock } = await place()
      const { apiKey } = await keys.issue(NAME)
      const expiresAt = new Date(clock.now() + 2 * DAY)
      const rotated = await as('alice').rotate(apiKey.id, { graceMs: 1_000, expiresAt })
      expect(rotated.apiKey).toEqual(await keys.get(rotated.apiKey.id))
      expect(rotated.apiKey).toMatchObject({ rotatedFrom: apiKey.id, expiresAt })
      expect(rotated.previous).toEqual(await keys.get(apiKey.id))
      expect(rotated.previous.expiresAt).toEqual(new Date(clock.now() + 1_000))
      expect(await keys.verify(rotated.key)).toMatchObject({ ok: true })
    })

    it('is how many keys were revoked', async () => {
      const { as, keys } = await place()
      const client = as('admin')
      for (const owner of [ALICE, ALICE, BOB]) await keys.issue({ ...NAME, owner, createdBy: 'u_gone' })
      expect(await client.revokeOwner(ALICE, { reason: 'left' })).toBe(2)
      expect(await client.revokeOwner(ALICE)).toBe(0)
      expect(await client.revokeCreatedBy('u_gone', { reason: 'left' })).toBe(1)
      const { apiKeys } = await keys.list({ status: 'revoked' })
      expect(apiKeys.map(({ revokedReason }) => revokedReason)).toEqual(['left', 'left', 'left'])
    })

    it('is an explanation, with dates as in the service', async () => {
      const { as, keys } = await place()
      const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 3 } })
      const asked = { cost: { quota: 5 }, ip: '192.0.2.1', permissions: { projects: ['read'] } }
      for (const subject of [{ key }, { id: apiKey.id }]) {
        expect(await as('admin').explain({ ...subject, ...asked })).toEqual(
          await keys.explain(subject, asked),
        )
        expect(await as('admin').explain(subject)).toEqual(await keys.explain(subject))
      }
      expect(await as('admin').explain({ key, cost: 5 })).toMatchObject({
        outcome: 'quota_exceeded',
        apiKey: { createdAt: expect.any(Date) },
        limits: [{ name: 'quota', remaining: 3 }],
      })
      expect(await as('admin').explain({ id: 'nobody' })).toMatchObject({ reason: 'unknown', apiKey: null })
      await expect(as('admin').explain({ key, id: apiKey.id } as never)).rejects.toMatchObject({
        code: 'invalid_request',
        field: 'key',
      })
      await expect(as('admin').explain('text' as never)).rejects.toThrow('"request" must be an object')
    })

    it('is what was erased of an owner', async () => {
      const { as, keys, eventsOf } = await place()
      for (const owner of [ALICE, ALICE, BOB, BOB]) await keys.issue({ ...NAME, owner, createdBy: ALICE.id })
      const client = as('admin')
      expect(await client.erase(ALICE, { knownAs: null })).toEqual({ removed: 2, forgotten: 0 })
      expect(await client.erase(ALICE)).toEqual({ removed: 0, forgotten: 2 })
      expect((await keys.list()).apiKeys).toMatchObject([{ createdBy: null }, { createdBy: null }])
      expect(eventsOf('owner.erased')).toMatchObject([
        { owner: ALICE, by: 'u_admin', complete: true },
        { owner: ALICE, by: 'u_admin', complete: true },
      ])
    })

    it('is how many keys of one owner somebody has issued', async () => {
      const { as, keys } = await place()
      for (const owner of [ALICE, BOB]) await keys.issue({ ...NAME, owner, createdBy: 'u_gone' })
      expect(await as('alice').revokeCreatedBy('u_gone', { owner: ALICE, reason: 'left' })).toBe(1)
      expect((await keys.list({ owner: BOB })).apiKeys).toMatchObject([{ revokedAt: null }])
    })

    it('is the own key, which can be given up', async () => {
      const { by, keys } = await place()
      const { key, apiKey } = await keys.issue(NAME)
      const client = by(key)
      expect(await client.self()).toEqual(apiKey)
      await keys.flush()
      const revoked = await client.revokeSelf({ reason: 'leaked' })
      expect(revoked).toEqual(await keys.get(apiKey.id))
      expect(revoked).toMatchObject({ revokedBy: `key:${apiKey.id}`, revokedReason: 'leaked' })
      expect(await refusalOf(client.self())).toMatchObject({ code: 'invalid_key' })
    })

    it('is how the limits of a key stand, as the service says it', async () => {
      const { as, keys } = await place()
      const { apiKey } = await keys.issue({ ...VERIFIER, owner: ALICE, quota: { remaining: 5 } })
      const limits = await as('alice').limits(apiKey.id)
      expect(limits).toEqual(await keys.limits(apiKey.id))
      expect(limits).toMatchObject([{ type: 'quota', remaining: 5 }])
      expect(await as('bob').limits(apiKey.id)).toBe(null)
    })

    it('is the document', async () => {
      const { as } = await place()
      expect(await as('alice').openApi()).toEqual(JSON.parse(openApiDocument()))
    })
  })

  describe('a list', () => {
    it('shows every key once, page by page, in the order of the service', async () => {
      const { as, keys } = await place()
      for (let i = 0; i < 7; i++) await keys.issue({ ...NAME, owner: i === 3 ? BOB : ALICE, name: `${i}` })
      const seen: ApiKey[] = []
      let cursor: string | undefined
      do {
        const page = await as('alice').list({ limit: 2, ...(cursor !== undefined && { cursor }) })
        seen.push(...page.apiKeys)
        cursor = page.nextCursor
      } while (cursor !== undefined)
      expect(seen).toEqual((await keys.list({ owner: ALICE })).apiKeys)
      expect(seen).toHaveLength(6)
    })

    it.each<[string, object, string[]]>([
      ['nothing', {}, ['0', '1', '2']],
      ['owner', { owner: BOB }, ['1']],
      ['creator', { createdBy: 'u_carol & co' }, ['2']],
      ['name', { name: '0' }, ['0']],
      ['status', { status: 'revoked' }, ['2']],
      ['the time of its end', { expiresBefore: new Date(IN_2030 + 1) }, ['0']],
      ['a time that is its end', { expiresBefore: new Date(IN_2030) }, []],
      ['order', { order: 'newest' }, ['2', '1', '0']],
      ['two at once', { owner: ALICE, status: 'active' }, ['0']],
      ['what is undefined', { owner: undefined, name: undefined, limit: undefined }, ['0', '1', '2']],
    ])('is filtered by %s', async (_what, filter, names) => {
      const { as, keys, clock } = await place()
      await keys.issue({ ...NAME, name: '0', expiresAt: new Date(IN_2030) })
      await clock.advance(1)
      await keys.issue({ ...NAME, name: '1', owner: BOB })
      await clock.advance(1)
      const { apiKey } = await keys.issue({ ...NAME, name: '2', createdBy: 'u_carol & co' })
      await keys.revoke(apiKey.id)
      const { apiKeys } = await as('admin').list(filter)
      expect(apiKeys.map(({ name }) => name)).toEqual(names)
    })

    it.each<[string, object, string]>([
      ['no owner, of whom there was to be one', { owner: null }, 'owner'],
      ['half an owner', { owner: { type: 'user', id: undefined } }, 'owner.id'],
      ['no creator', { createdBy: null }, 'createdBy'],
      ['an empty name', { name: '' }, 'name'],
      ['no cursor', { cursor: null }, 'cursor'],
      ['a limit that is none', { limit: Number.NaN }, 'limit'],
      ['a limit that is too high', { limit: 101 }, 'limit'],
      ['a filter that is misspelt', { onwer: ALICE }, 'onwer'],
      ['no time', { expiresBefore: null }, 'expiresBefore'],
      ['a time that is a text', { expiresBefore: '2030-01-01T00:00:00Z' }, 'expiresBefore'],
      ['a time that is none', { expiresBefore: new Date(Number.NaN) }, 'expiresBefore'],
      ['no order', { order: null }, 'order'],
    ])('is not asked for with %s, which would show other keys', async (_what, filter, name) => {
      const { as } = await place()
      await expect(as('admin').list(filter as never)).rejects.toThrow(TypeError)
      await expect(as('admin').list(filter as never)).rejects.toThrow(`"${name}"`)
    })
  })

  describe('the status of a key', () => {
    it('is what the service says', async () => {
      const { as, by, keys } = await place()
      const { key, apiKey } = await keys.issue(NAME)
      expect((await as('alice').get(apiKey.id))?.status).toBe('active')
      expect((await by(key).self()).status).toBe('active')
      expect((await as('alice').disable(apiKey.id)).status).toBe('disabled')
      expect((await as('alice').list()).apiKeys).toMatchObject([{ status: 'disabled' }])
      expect((await as('alice').revoke(apiKey.id)).status).toBe('revoked')
    })

    it('is decided by its other members where an earlier service says none', async () => {
      const { as, keys } = await place()
      await keys.issue({ ...NAME, expiresAt: new Date(Date.now() + DAY) })
      await keys.revoke((await keys.issue(NAME)).apiKey.id)
      const { apiKeys } = await as('alice', { fetch: changing(({ status: _, ...rest }) => rest) }).list()
      expect(apiKeys.map(({ status }) => status).sort()).toEqual(['active', 'revoked'])
    })

    it('is refused where it is none', async () => {
      const { as, keys } = await place()
      await keys.issue(NAME)
      for (const status of ['gone', '', null, 1]) {
        const client = as('alice', { fetch: changing((apiKey) => ({ ...apiKey, status })) })
        expect(await refusalOf(client.list())).toMatchObject({ code: 'unavailable' })
      }
    })
  })

  describe('a version', () => {
    it('that is no longer there refuses each change, and changes nothing', async () => {
      const { as, keys } = await place()
      const { apiKey } = await keys.issue(NAME)
      const { id } = await keys.update(apiKey.id, { name: 'newer' })
      const client = as('alice')
      const options = { expectedVersion: apiKey.version }
      for (const call of [
        client.update(id, { name: 'mine' }, options),
        client.enable(id, options),
        client.disable(id, options),
        client.rotate(id, {}, options),
        client.revoke(id, options),
      ]) {
        expect(await refusalOf(call)).toMatchObject({ code: 'precondition_failed', responseStatus: 412 })
      }
      // In the service itself, the same call fails with the same code.
      await expect(keys.disable(id, options)).rejects.toMatchObject({
        code: 'precondition_failed',
        status: 412,
      })
      expect(await keys.get(id)).toMatchObject({ name: 'newer', version: 2, revokedAt: null })
    })

    it('that is still there lets each change pass', async () => {
      const { as, keys } = await place()
      const client = as('alice')
      const { id, version } = (await keys.issue(NAME)).apiKey
      const updated = await client.update(id, { name: 'mine' }, { expectedVersion: version })
      const disabled = await client.disable(id, { expectedVersion: updated.version })
      const enabled = await client.enable(id, { expectedVersion: disabled.version })
      const { previous, apiKey } = await client.rotate(id, {}, { expectedVersion: enabled.version })
      await client.revoke(id, { expectedVersion: previous.version })
      const revoked = await client.revoke(apiKey.id, { expectedVersion: apiKey.version })
      expect(revoked.version).toBe(apiKey.version + 1)
    })
  })

  describe('a request that is repeated', () => {
    it('has issued one key where the first answer was lost, and tells which', async () => {
      const { as, keys } = await place()
      const client = as('alice', { fetch: losingFirstAnswer(), retries: 2 })
      const error = await refusalOf(client.issue({ name: 'CI' }))
      const { apiKeys } = await keys.list()
      expect(apiKeys).toHaveLength(1)
      expect(error).toMatchObject({ code: 'already_done', responseStatus: 409 })
      expect(error.details.apiKey).toEqual(apiKeys[0])
    })

    it('has rotated once where the first answer was lost, and tells to which key', async () => {
      const { as, keys } = await place()
      const { apiKey } = await keys.issue(NAME)
      const client = as('alice', { fetch: losingFirstAnswer(), retries: 2 })
      const error = await refusalOf(client.rotate(apiKey.id, {}, { expectedVersion: apiKey.version }))
      const { apiKeys } = await keys.list()
      expect(apiKeys).toHaveLength(2)
      expect(error).toMatchObject({ code: 'already_done' })
      expect(error.details.apiKey).toEqual(apiKeys.find(({ id }) => id !== apiKey.id))
    })

    it('waits for a rotation of its own that is still under way', async () => {
      const { as, keys, store } = await place()
      const { apiKey } = await keys.issue(NAME)
      const inserting = store.hold('insert')
      let first: Promise<Response> | undefined
      const told: string[] = []
      const client = as('alice', {
        retries: 3,
        fetch: async (url, init) => {
          if (!first) {
            first = fetch(url, { ...init, signal: null })
            await inserting.reached
            throw new TypeError('the connection was reset')
          }
          const response = await fetch(url, init)
          told.push(((await response.clone().json()) as { code: string }).code)
          inserting.release()
          await first
          return response
        },
      })
      const error = await refusalOf(client.rotate(apiKey.id))
      expect(told).toEqual(['conflict', 'already_done'])
      expect(error.details.apiKey).toMatchObject({ rotatedFrom: apiKey.id })
      expect((await keys.list()).apiKeys).toHaveLength(2)
    })

    it('revokes where the first answer was lost', async () => {
      const { as, keys, eventsOf } = await place()
      const { apiKey } = await keys.issue(NAME)
      const client = as('alice', { fetch: losingFirstAnswer(), retries: 1 })
      const revoked = await client.revoke(apiKey.id, { reason: 'lost' })
      expect(revoked).toEqual(await keys.get(apiKey.id))
      expect(eventsOf('key.revoked')).toHaveLength(1)
    })

    it('makes one key for each idempotency key, and another one without', async () => {
      const { as, keys } = await place()
      const client = as('alice')
      const { apiKey } = await client.issue({ name: 'a' }, { idempotencyKey: 'order-1' })
      const error = await refusalOf(client.issue({ name: 'a' }, { idempotencyKey: 'order-1' }))
      expect(error).toMatchObject({ code: 'already_done' })
      expect(error.details.apiKey).toEqual(apiKey)
      await client.issue({ name: 'a' })
      await client.issue({ name: 'a' })
      expect((await keys.list()).apiKeys).toHaveLength(3)
    })
  })

  describe('who asks', () => {
    it('is whoever the key says at that moment', async () => {
      const { by, keys } = await place()
      const old = await keys.issue(NAME)
      let current = old.key
      const client = by('', { key: async () => current })
      expect(await client.self()).toMatchObject({ id: old.apiKey.id })
      const next = await keys.rotate(old.apiKey.id, { graceMs: 0 })
      expect(await refusalOf(client.self())).toMatchObject({ code: 'invalid_key' })
      current = next.key
      expect(await client.self()).toMatchObject({ id: next.apiKey.id })
    })

    it('is whoever the header fields say at that moment', async () => {
      const { as, keys } = await place()
      await keys.issue({ ...NAME, owner: BOB, name: 'Bob’s' })
      let actor = 'alice'
      const client = as('', { headers: async () => ({ 'x-actor': actor }) })
      expect((await client.list()).apiKeys).toHaveLength(0)
      actor = 'bob'
      expect((await client.list()).apiKeys).toMatchObject([{ name: 'Bob’s' }])
    })

    it('is the key, however a header field of the same name is spelt', async () => {
      const { by, keys } = await place()
      const { key, apiKey } = await keys.issue(NAME)
      const client = by(key, { headers: { 'x-api-key': 'another', 'content-type': 'text/plain' } })
      expect(await client.self()).toMatchObject({ id: apiKey.id })
      expect(await client.revokeSelf()).toMatchObject({ revokedBy: `key:${apiKey.id}` })
    })
  })

  describe('a verification', () => {
    async function verifier(options?: WorldOptions, testKeys = createTestKeys()) {
      const world = await place(options, testKeys)
      const { key } = await world.keys.issue(VERIFIER)
      return { ...world, client: world.by(key) }
    }

    it.each<[string, (place: Place) => Promise<string>]>([
      ['is no key', async () => 'nonsense'],
      ['is empty', async () => ''],
      ['is forged', async ({ keys }) => forgeKey((await keys.issue(NAME)).key, { keyId: UNKNOWN })],
      [
        'is revoked',
        async ({ keys }) => {
          const { key, apiKey } = await keys.issue(NAME)
          await keys.revoke(apiKey.id)
          return key
        },
      ],
      [
        'is disabled',
        async ({ keys }) => {
          const { key, apiKey } = await keys.issue(NAME)
          await keys.disable(apiKey.id)
          return key
        },
      ],
      [
        'has expired',
        async ({ keys, clock }) => {
          const { key } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1) })
          await clock.advance(1)
          return key
        },
      ],
    ])('says of a key that %s that it is not active, and nothing else', async (_what, make) => {
      const given = await verifier()
      expect(await given.client.verify({ key: await make(given) })).toEqual({ active: false })
    })

    it('says of a key with another prefix that it is not active', async () => {
      const { client, keys } = await verifier()
      const { key } = await keys.issue(NAME)
      expect(await client.verify({ key, prefix: ['acme_live', 'other'] })).toEqual({ active: false })
      expect(await client.verify({ key, prefix: 'acme_test' })).toMatchObject({ active: true })
    })

    it('says that keys from an address are not looked at', async () => {
      const { client, keys, clock } = await verifier({}, createTestKeys({ failedAttempts: { limit: 1 } }))
      const { key } = await keys.issue(NAME)
      const ip = '192.0.2.7'
      expect(await client.verify({ key: 'nonsense', ip })).toEqual({ active: false })
      await clock.advance(0)
      expect(await client.verify({ key, ip })).toEqual({
        active: false,
        refused: { code: 'too_many_failures', retryAfterMs: 60_000 },
      })
      expect(await client.verify({ key, ip: '192.0.2.8' })).toMatchObject({ active: true })
    })

    it('says of a good key which it is and how its limits stand, and spends nothing', async () => {
      const { client, keys } = await verifier()
      const { key, apiKey } = await keys.issue({ ...NAME, permissions: READ, rateLimits: [PER_MINUTE] })
      const expected = await keys.verify(key, { cost: 0 })
      if (!expected.ok) throw new Error('the key is good')
      for (const cost of [undefined, 1, 1_000]) {
        const answer = await client.verify({ key, permissions: READ, ...(cost !== undefined && { cost }) })
        expect(answer).toEqual({ active: true, apiKey: expected.apiKey, limits: expected.limits })
      }
      // Each is noted as the last use, and none is counted.
      const { lastUsedAt, ...rest } = expected.apiKey
      expect(await keys.get(apiKey.id)).toMatchObject(rest)
    })

    it('says that a call comes from an address that is not allowed', async () => {
      const { client, keys } = await verifier()
      const { key, apiKey } = await keys.issue({ ...NAME, allowedIps: ['192.0.2.1'] })
      const refused = { active: true, apiKey, limits: [], refused: { code: 'address_not_allowed' } }
      expect(await client.verify({ key, ip: '198.51.100.1' })).toEqual(refused)
      expect(await client.verify({ key })).toEqual(refused)
      expect(await client.verify({ key, ip: '192.0.2.1' })).not.toHaveProperty('refused')
    })

    it('says what the key lacks', async () => {
      const { client, keys } = await verifier()
      const { key, apiKey } = await keys.issue({ ...NAME, permissions: READ })
      const answer = await client.verify({ key, permissions: { projects: ['read', 'write'] } })
      const refused = { code: 'insufficient_permissions', missing: { projects: ['write'] } }
      expect(answer).toEqual({ active: true, apiKey, limits: [], refused })
      const either = await client.verify({ key, permissions: [{ billing: ['read'] }, READ] })
      expect(either).not.toHaveProperty('refused')
    })

    it('charges where it is told to, and says when a limit is exhausted', async () => {
      const { client, keys } = await verifier()
      const limit = { ...PER_MINUTE, limit: 5 }
      const { key, apiKey } = await keys.issue({ ...NAME, rateLimits: [limit] })
      const first = await client.verify({ key, charge: true, cost: 3 })
      expect(first).toMatchObject({
        active: true,
        limits: [{ name: 'minute', remaining: 2, exceeded: false }],
      })
      expect(await client.verify({ key, charge: true })).toMatchObject({ limits: [{ remaining: 1 }] })
      const refused = await client.verify({ key, charge: true, cost: 2 })
      expect(refused).toMatchObject({
        active: true,
        apiKey: { id: apiKey.id },
        limits: [{ name: 'minute', exceeded: true }],
        refused: { code: 'rate_limited', retryAfterMs: 60_000, exceeded: ['minute'] },
      })
    })

    it('says that the quota is exhausted, and never comes back', async () => {
      const { client, keys } = await verifier()
      const { key } = await keys.issue({ ...NAME, quota: { remaining: 1 } })
      expect(await client.verify({ key, charge: true })).not.toHaveProperty('refused')
      // More than there ever was: no other process can hold it.
      expect(await client.verify({ key, charge: true, cost: 2 })).toMatchObject({
        active: true,
        refused: { code: 'quota_exceeded', retryAfterMs: null, exceeded: ['quota'] },
      })
    })

    it('tells nothing more of bad keys where there were too many of them, and all of good ones', async () => {
      const { client, keys } = await verifier({ requestLimit: { invalidKeys: 1 } })
      const { key } = await keys.issue(NAME)
      await client.verify({ key: 'nonsense' })
      expect(await client.verify({ key: 'nonsense' })).toEqual({
        active: false,
        refused: { code: 'too_many_failures', retryAfterMs: 60_000 },
      })
      expect(await client.verify({ key })).toMatchObject({ active: true })
    })

    it('fails where the service cannot tell, and never says that a key is not active', async () => {
      const { client, keys, store } = await verifier()
      const { key } = await keys.issue(NAME)
      // From here on the service knows the key of the client by heart.
      await client.verify({ key: 'nonsense' })
      store.fail('find', rejects(new Error('the database is away')))
      const error = await refusalOf(client.verify({ key }))
      expect(error).toMatchObject({ code: 'unavailable', responseStatus: 503 })
    })
  })
})
