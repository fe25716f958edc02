import {
  type ApiKey,
  type ApiKeyEvent,
  isLatchkeyError,
  type KeyRecord,
  LatchkeyError,
  memoryRateLimiter,
  memoryStore,
  type Owner,
} from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { answers, hangs, recordingStore, rejects, type StoreFault } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, partsOf, type TestKeys } from '../support/test-keys.ts'

const NAME = { owner: ALICE, name: 'CI' }
/** How long uses in another process may go unnoticed: written within 10 s, read within 5 s. */
const SLACK_MS = 15_000
const DAY = 86_400_000
const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })
const NOT_FOUND = expect.objectContaining({ name: 'LatchkeyError', code: 'not_found', status: 404 })
const OTHER_VERSION = expect.objectContaining({
  name: 'LatchkeyError',
  code: 'precondition_failed',
  status: 412,
})
const CONFLICT = expect.objectContaining({ name: 'LatchkeyError', code: 'conflict', status: 409 })

/** Each call must reject with a TypeError that names the option, and must leave the store alone. */
async function expectRefused({ store }: TestKeys, calls: readonly [() => Promise<unknown>, string][]) {
  store.forgetCalls()
  for (const [call, named] of calls) {
    const error = await call().then(
      () => 'accepted',
      (thrown) => thrown,
    )
    expect(error, named).toBeInstanceOf(TypeError)
    expect(error.message).toContain(`"${named}"`)
  }
  const changes = (['insert', 'update', 'purge', 'replaceDigest'] as const).map((method) =>
    store.calls(method),
  )
  expect(changes).toEqual([0, 0, 0, 0])
}

describe('issue', () => {
  it('refuses each wrong argument by name', async () => {
    const test = createTestKeys()
    const issue = (change: object) => () => test.keys.issue({ ...NAME, ...change } as never)
    await expectRefused(test, [
      [() => test.keys.issue(undefined as never), 'options'],
      [() => test.keys.issue(null as never), 'options'],
      [issue({ permision: {} }), 'permision'],
      [issue({ digest: '$sha256$x' }), 'digest'],
      [issue({ version: 7 }), 'version'],
      [issue({ owner: undefined }), 'owner'],
      [issue({ owner: 'u_1' }), 'owner'],
      [issue({ owner: { type: '', id: 'u' } }), 'owner.type'],
      [issue({ owner: { type: 'user', id: 7 } }), 'owner.id'],
      [issue({ owner: { type: 'user', id: 'x'.repeat(256) } }), 'owner.id'],
      [issue({ owner: { ...ALICE, name: 'Alice' } }), 'owner'],
      [issue({ name: undefined }), 'name'],
      [issue({ name: '' }), 'name'],
      [issue({ name: 'x'.repeat(256) }), 'name'],
      [issue({ by: '' }), 'by'],
      [issue({ by: 7 }), 'by'],
      [issue({ by: 'u_1', createdBy: 'u_1' }), 'createdBy'],
      [issue({ createdBy: '' }), 'createdBy'],
      [issue({ createdBy: 7 }), 'createdBy'],
      [issue({ prefix: 'acme-live' }), 'prefix'],
      [issue({ prefix: '' }), 'prefix'],
      [issue({ permissions: ['read'] }), 'permissions'],
      [issue({ permissions: null }), 'permissions'],
      [issue({ permissions: { projects: 'read' } }), 'permissions.projects'],
      [issue({ permissions: { projects: ['re ad'] } }), 'permissions.projects'],
      [issue({ rateLimits: {} }), 'rateLimits'],
      [issue({ rateLimits: [{ name: 'minute', limit: 0, windowMs: 1 }] }), 'rateLimits[0].limit'],
      [issue({ rateLimits: [{ name: 'minute', limit: 1 }] }), 'rateLimits[0].windowMs'],
      [issue({ quota: 5 }), 'quota'],
      [issue({ quota: { remaining: -1 } }), 'quota.remaining'],
      [issue({ quota: { remaining: 1, refill: { amount: 1, everyMs: 1 } } }), 'quota.refill.everyMs'],
      [issue({ allowedIps: '10.0.0.1' }), 'allowedIps'],
      [issue({ allowedIps: ['10.0.0.0/33'] }), 'allowedIps[0]'],
      [issue({ expiresAt: '2030-01-01' }), 'expiresAt'],
      [issue({ expiresAt: new Date('never') }), 'expiresAt'],
      [issue({ expiresAt: new Date(test.clock.now()) }), 'expiresAt'],
      [issue({ idleExpiryMs: 59_999 }), 'idleExpiryMs'],
      [issue({ metadata: [] }), 'metadata'],
      [issue({ metadata: null }), 'metadata'],
      [issue({ metadata: { big: 1n } }), 'metadata'],
    ])
    expect(test.events).toEqual([])
  })

  it('is unavailable where the store is, and says duplicate_key where that is what it met', async () => {
    const { keys, store, clock, events } = createTestKeys()
    store.fail('insert', rejects(new Error('read only')))
    await expect(keys.issue(NAME)).rejects.toEqual(UNAVAILABLE)
    store.fail('insert', hangs)
    const hanging = expect(keys.issue(NAME)).rejects.toEqual(UNAVAILABLE)
    await clock.advance(5_000)
    await hanging
    store.heal()
    const { apiKey } = await keys.issue(NAME)
    const record = (await store.find({ id: apiKey.id })) as KeyRecord
    store.fail('insert', () => memoryStoreWith(record).then((other) => other.insert([record])))
    await expect(keys.issue(NAME)).rejects.toMatchObject({ code: 'duplicate_key', status: 409 })
    expect(events.filter(({ type }) => type === 'key.issued')).toHaveLength(1)
  })

  it('gives a key of its own prefix, id and secret, and a view that shows what was set', async () => {
    const { keys, clock, events } = createTestKeys()
    const at = new Date(clock.now())
    const expiresAt = new Date(clock.now() + DAY)
    const given = {
      owner: { type: 'organization', id: 'o_1' },
      name: 'Deploys',
      createdBy: 'u_alice',
      prefix: 'acme_live',
      permissions: { projects: ['read', 'read', 'write'] },
      rateLimits: [{ name: 'minute', limit: 5, windowMs: 60_000 }],
      quota: { remaining: 10, refill: { amount: 10, everyMs: DAY } },
      allowedIps: ['10.0.0.0/8'],
      expiresAt,
      idleExpiryMs: 60_000,
      metadata: { team: 'core' },
    }
    const { createdBy, ...rest } = given
    const { key, apiKey } = await keys.issue({ ...rest, by: createdBy })
    const { prefix, keyId, secret } = partsOf(key)
    expect([prefix, secret.length]).toEqual(['acme_live', 43])
    const expected = {
      id: keyId,
      lineageId: keyId,
      hint: `acme_live_${keyId}`,
      ...given,
      permissions: { projects: ['read', 'write'] },
      quota: { ...given.quota, nextRefillAt: new Date(clock.now() + DAY) },
      enabled: true,
      createdAt: at,
      updatedAt: at,
      usageCount: 0,
      lastUsedAt: null,
      lastUsedIp: null,
      revokedAt: null,
      revokedBy: null,
      revokedReason: null,
      rotatedFrom: null,
      rotatedTo: null,
      version: 1,
      status: 'active',
    }
    expect(apiKey).toEqual(expected)
    expect(await keys.get(keyId)).toEqual(expected)
    expect(events).toEqual([
      { type: 'key.issued', at, keyId, owner: given.owner, by: 'u_alice', before: null, apiKey: expected },
    ])
  })

  it('has the defaults that its options name', async () => {
    const { keys } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    expect(partsOf(key).prefix).toBe('acme_test')
    expect(apiKey).toMatchObject({
      createdBy: null,
      permissions: {},
      rateLimits: null,
      quota: null,
      allowedIps: null,
      expiresAt: null,
      idleExpiryMs: null,
      metadata: {},
    })
  })

  it('never gives the same key twice', async () => {
    const { keys } = createTestKeys()
    const issued = await Promise.all(Array.from({ length: 200 }, () => keys.issue(NAME)))
    expect(new Set(issued.map(({ key }) => partsOf(key).keyId)).size).toBe(200)
    expect(new Set(issued.map(({ key }) => partsOf(key).secret)).size).toBe(200)
  })

  it('keeps no more of the key than a digest, and copies what it was given', async () => {
    const { keys, store } = createTestKeys()
    const permissions = { projects: ['read'] }
    const metadata = { tags: ['a'] }
    const { key, apiKey } = await keys.issue({ ...NAME, permissions, metadata })
    permissions.projects.push('write')
    metadata.tags.push('b')
    expect(await keys.get(apiKey.id)).toMatchObject({
      permissions: { projects: ['read'] },
      metadata: { tags: ['a'] },
    })
    expect(JSON.stringify(store.argumentsOf('insert'))).not.toContain(partsOf(key).secret)
  })

  it('lets a key inherit the current default limits, or have none, or its own', async () => {
    const minute = { name: 'minute', limit: 1, windowMs: 60_000 }
    const { keys } = createTestKeys({ rateLimits: [minute] })
    const inheriting = await keys.issue(NAME)
    const unlimited = await keys.issue({ ...NAME, rateLimits: [] })
    const own = await keys.issue({ ...NAME, rateLimits: [{ ...minute, limit: 2 }] })
    const admitted = async (key: string) => {
      const results = await Promise.all([1, 2, 3].map(() => keys.verify(key)))
      return results.filter(({ ok }) => ok).length
    }
    expect(await admitted(inheriting.key)).toBe(1)
    expect(await admitted(unlimited.key)).toBe(3)
    expect(await admitted(own.key)).toBe(2)
  })
})

describe('get', () => {
  it('answers null for an unknown id, and is unavailable where the store is', async () => {
    const { keys, store } = createTestKeys()
    expect(await keys.get('nobody')).toBeNull()
    store.fail('find', rejects(new Error('down')))
    await expect(keys.get('nobody')).rejects.toEqual(UNAVAILABLE)
    store.fail('find', answers(undefined))
    await expect(keys.get('nobody')).rejects.toEqual(UNAVAILABLE)
  })

  it('refuses what is no text, and finds nothing under a text that can be no id', async () => {
    const test = createTestKeys()
    await expectRefused(test, [[() => test.keys.get(undefined as never), 'id']])
    for (const id of ['', 'x'.repeat(256)]) {
      expect(await test.keys.get(id)).toBeNull()
      await expect(test.keys.revoke(id)).rejects.toMatchObject({ code: 'not_found', status: 404 })
    }
    expect(test.store.calls()).toBe(0)
  })

  it('gives a frozen view without digest and lookup, safe to serialise', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue({ ...NAME, permissions: { projects: ['read'] }, metadata: { a: {} } })
    const got = (await keys.get(apiKey.id)) as ApiKey
    for (const part of [apiKey, got, got.owner, got.permissions, got.permissions.projects, got.metadata]) {
      expect(Object.isFrozen(part)).toBe(true)
    }
    expect(Object.keys(got)).not.toEqual(expect.arrayContaining(['digest']))
    expect(Object.keys(got)).not.toEqual(expect.arrayContaining(['lookup']))
    expect(JSON.stringify(got)).not.toContain('sha256')
  })
})

describe('list', () => {
  it('refuses each wrong argument by name', async () => {
    const test = createTestKeys()
    const list = (options: unknown) => () => test.keys.list(options as never)
    await expectRefused(test, [
      [list(null), 'options'],
      [list({ limits: 5 }), 'limits'],
      [list({ limit: 0 }), 'limit'],
      [list({ limit: 1_001 }), 'limit'],
      [list({ limit: '5' }), 'limit'],
      [list({ owner: 'u_1' }), 'owner'],
      [list({ createdBy: '' }), 'createdBy'],
      [list({ name: 7 }), 'name'],
      [list({ status: 'idle' }), 'status'],
      [list({ cursor: 7 }), 'cursor'],
      [list({ cursor: null }), 'cursor'],
    ])
    expect(test.store.calls()).toBe(0)
  })

  it.each(['', 'x', 'bnVsbA', 'W10', 'WzEsMl0', 'WzFlMzAsImEiXQ'])(
    'refuses the cursor %j, which is none',
    async (cursor) => {
      const { keys, store } = createTestKeys()
      await expect(keys.list({ cursor })).rejects.toMatchObject({ code: 'invalid_cursor', status: 400 })
      expect(store.calls()).toBe(0)
    },
  )

  it('is unavailable where the store is, or answers nonsense', async () => {
    const { keys, store } = createTestKeys()
    await keys.issue(NAME)
    for (const fault of [
      rejects(new Error('down')),
      answers(undefined),
      answers([{}]),
      answers(Array(60).fill(null)),
    ]) {
      store.fail('list', fault)
      await expect(keys.list()).rejects.toEqual(UNAVAILABLE)
    }
  })

  it('pages through all keys in the order of their creation, each once, while others are issued', async () => {
    const { keys, clock } = createTestKeys()
    for (let i = 0; i < 23; i++) {
      await keys.issue({ ...NAME, name: `key ${i}` })
      // Several share a moment, so that the order must not hang on the time alone.
      if (i % 4 === 0) await clock.advance(1)
    }
    const seen: ApiKey[] = []
    let cursor: string | undefined
    do {
      const page = await keys.list({ limit: 5, ...(cursor && { cursor }) })
      expect(page.apiKeys.length).toBeLessThanOrEqual(5)
      seen.push(...page.apiKeys)
      cursor = page.nextCursor
      if (seen.length === 10) await clock.advance(1).then(() => keys.issue({ ...NAME, name: 'late' }))
    } while (cursor)
    expect(seen).toHaveLength(24)
    expect(new Set(seen.map(({ id }) => id)).size).toBe(24)
    expect(seen.map(({ createdAt }) => createdAt.getTime())).toEqual(
      seen.map(({ createdAt }) => createdAt.getTime()).sort((a, b) => a - b),
    )
    expect(seen.at(-1)?.name).toBe('late')
  })

  it('has no next page behind a last page that is full', async () => {
    const { keys } = createTestKeys()
    for (let i = 0; i < 4; i++) await keys.issue(NAME)
    const { nextCursor } = await keys.list({ limit: 2 })
    expect(await keys.list({ limit: 2, cursor: nextCursor as string })).not.toHaveProperty('nextCursor')
    expect(await keys.list({ limit: 4 })).not.toHaveProperty('nextCursor')
  })

  it('shows 50 keys unless told otherwise', async () => {
    const { keys } = createTestKeys()
    for (let i = 0; i < 51; i++) await keys.issue(NAME)
    expect((await keys.list()).apiKeys).toHaveLength(50)
    expect((await keys.list({ limit: 1_000 })).apiKeys).toHaveLength(51)
  })

  it('filters by owner, creator, name and status, and by all of them together', async () => {
    const { keys, clock } = createTestKeys()
    const issue = async (change: object) => (await keys.issue({ ...NAME, ...change })).apiKey.id
    const active = await issue({ createdBy: 'admin' })
    const bobs = await issue({ owner: BOB, name: 'Bob' })
    const organizations = await issue({ owner: { type: 'organization', id: ALICE.id } })
    const disabled = await issue({})
    const expired = await issue({ expiresAt: new Date(clock.now() + 1_000) })
    const idle = await issue({ idleExpiryMs: 60_000, createdBy: 'admin' })
    const revoked = await issue({ expiresAt: new Date(clock.now() + 1_000) })
    await keys.disable(disabled)
    await keys.revoke(revoked)
    await clock.advance(60_000)
    const idsOf = async (filter: object) => (await keys.list(filter)).apiKeys.map(({ id }) => id).sort()
    expect(await idsOf({ owner: BOB })).toEqual([bobs])
    expect(await idsOf({ name: 'Bob' })).toEqual([bobs])
    expect(await idsOf({ name: 'bob' })).toEqual([])
    expect(await idsOf({ createdBy: 'admin' })).toEqual([active, idle].sort())
    expect(await idsOf({ status: 'active' })).toEqual([active, bobs, organizations].sort())
    expect(await idsOf({ status: 'disabled' })).toEqual([disabled])
    expect(await idsOf({ status: 'expired' })).toEqual([expired, idle].sort())
    expect(await idsOf({ status: 'revoked' })).toEqual([revoked])
    expect(await idsOf({ owner: ALICE, createdBy: 'admin', status: 'expired' })).toEqual([idle])
    expect(await idsOf({ owner: BOB, status: 'expired' })).toEqual([])
  })
})

describe('update', () => {
  it('refuses each wrong argument by name', async () => {
    const test = createTestKeys()
    const { apiKey } = await test.keys.issue(NAME)
    const update = (settings: unknown, options?: unknown) => () =>
      test.keys.update(apiKey.id, settings as never, options as never)
    await expectRefused(test, [
      [() => test.keys.update(7 as never, { name: 'x' }), 'id'],
      [update(null), 'settings'],
      [update(undefined), 'settings'],
      [update({}), 'settings'],
      [update({ name: undefined }), 'settings'],
      [update({ nmae: 'x' }), 'nmae'],
      [update({ enabled: false }), 'enabled'],
      [update({ owner: BOB }), 'owner'],
      [update({ revokedAt: null }), 'revokedAt'],
      [update({ name: null }), 'name'],
      [update({ name: '' }), 'name'],
      [update({ permissions: null }), 'permissions'],
      [update({ expiresAt: new Date(test.clock.now()) }), 'expiresAt'],
      [update({ quota: { remaining: 0.5 } }), 'quota.remaining'],
      [update({ name: 'x' }, null), 'options'],
      [update({ name: 'x' }, { version: 1 }), 'version'],
      [update({ name: 'x' }, { by: '' }), 'by'],
      [update({ name: 'x' }, { by: 7 }), 'by'],
      [update({ name: 'x' }, { expectedVersion: 0 }), 'expectedVersion'],
      [update({ name: 'x' }, { expectedVersion: '1' }), 'expectedVersion'],
    ])
  })

  it('is not_found for an unknown key, conflict for a revoked one, unavailable where the store is', async () => {
    const { keys, store } = createTestKeys()
    await expect(keys.update('nobody', { name: 'x' })).rejects.toEqual(NOT_FOUND)
    const { apiKey } = await keys.issue(NAME)
    for (const fault of [rejects(new Error('down')), answers(undefined), answers(true), answers('ok')]) {
      store.fail('update', fault)
      await expect(keys.update(apiKey.id, { name: 'x' })).rejects.toEqual(UNAVAILABLE)
    }
    store.fail('update', answers('missing'))
    await expect(keys.update(apiKey.id, { name: 'x' })).rejects.toEqual(NOT_FOUND)
    store.fail('update', answers('conflict'))
    await expect(keys.update(apiKey.id, { name: 'x' })).rejects.toEqual(CONFLICT)
    expect(store.calls('update')).toBeLessThan(50)
    store.heal()
    await keys.revoke(apiKey.id)
    await expect(keys.update(apiKey.id, { name: 'x' })).rejects.toEqual(CONFLICT)
  })

  it('changes what is given, leaves what is not, and tells by whom', async () => {
    const { keys, clock, eventsOf } = createTestKeys()
    const expiresAt = new Date(clock.now() + DAY)
    const { apiKey } = await keys.issue({ ...NAME, expiresAt, metadata: { team: 'core' } })
    await clock.advance(1_000)
    const change = { name: 'renamed', permissions: { projects: ['read'] }, expiresAt: null }
    const updated = await keys.update(apiKey.id, { ...change, metadata: undefined }, { by: 'u_admin' })
    const expected = { ...apiKey, ...change, updatedAt: new Date(clock.now()), version: 2 }
    expect(updated).toEqual(expected)
    expect(await keys.get(apiKey.id)).toEqual(expected)
    expect(eventsOf('key.updated')).toEqual([
      {
        type: 'key.updated',
        changed: ['name', 'permissions', 'expiresAt'],
        at: expected.updatedAt,
        keyId: apiKey.id,
        owner: ALICE,
        by: 'u_admin',
        before: apiKey,
        apiKey: expected,
      },
    ])
    expect(Object.isFrozen(updated)).toBe(true)
  })

  it('lets 20 concurrent updates all land', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const updates = Array.from({ length: 20 }, (_, i) => keys.update(apiKey.id, { name: `name ${i}` }))
    const versions = (await Promise.all(updates)).map(({ version }) => version)
    expect(versions.sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i + 2))
    expect((await keys.get(apiKey.id))?.version).toBe(21)
  })

  it('lets exactly one of 20 land that expect the same version', async () => {
    const { keys, eventsOf } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        keys.update(apiKey.id, { name: `name ${i}` }, { expectedVersion: 1 }),
      ),
    )
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const result of results)
      if (result.status === 'rejected') expect(result.reason).toEqual(OTHER_VERSION)
    expect((await keys.get(apiKey.id))?.version).toBe(2)
    expect(eventsOf('key.updated')).toHaveLength(1)
    await expect(keys.update(apiKey.id, { name: 'x' }, { expectedVersion: 3 })).rejects.toEqual(OTHER_VERSION)
    expect(await keys.update(apiKey.id, { name: 'x' }, { expectedVersion: 2 })).toMatchObject({ version: 3 })
  })

  it('does not revive a key that is revoked between its read and its write', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    const held = store.hold('find')
    const updating = keys.update(apiKey.id, { name: 'x' })
    await held.reached
    await keys.revoke(apiKey.id, { by: 'u_admin', reason: 'leaked' })
    held.release()
    await expect(updating).rejects.toEqual(CONFLICT)
    expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
    expect(await keys.get(apiKey.id)).toMatchObject({ revokedBy: 'u_admin', revokedReason: 'leaked' })
  })

  it('is in force for the next request once it resolves', async () => {
    const { keys } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    await keys.verify(key)
    await keys.update(apiKey.id, { rateLimits: [{ name: 'day', limit: 1, windowMs: DAY }] })
    expect(await keys.verify(key)).toMatchObject({ ok: true, limits: [{ name: 'day', remaining: 0 }] })
    expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited' })
    await keys.update(apiKey.id, { rateLimits: [] })
    expect(await keys.verify(key)).toMatchObject({ ok: true, limits: [] })
  })

  it('makes an expired key work again where it moves the expiry', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1_000) })
    await clock.advance(1_000)
    expect(await keys.verify(key)).toMatchObject({ reason: 'expired' })
    await keys.update(apiKey.id, { expiresAt: null })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })
})

describe('enable and disable', () => {
  it('refuse each wrong argument by name', async () => {
    const test = createTestKeys()
    const { apiKey } = await test.keys.issue(NAME)
    const { enable, disable } = test.keys
    await expectRefused(
      test,
      [enable, disable].flatMap((change): [() => Promise<unknown>, string][] => [
        [() => change(7 as never), 'id'],
        [() => change(apiKey.id, { reason: 'x' } as never), 'reason'],
        [() => change(apiKey.id, { by: '' }), 'by'],
        [() => change(apiKey.id, null as never), 'options'],
      ]),
    )
  })

  it('are not_found for an unknown key and conflict for a revoked one', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    await keys.revoke(apiKey.id)
    for (const change of [keys.enable, keys.disable]) {
      await expect(change('nobody')).rejects.toEqual(NOT_FOUND)
      await expect(change(apiKey.id)).rejects.toEqual(CONFLICT)
    }
  })

  it('change the key once and tell of it; again, they change nothing', async () => {
    const { keys, events } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    expect(await keys.enable(apiKey.id)).toMatchObject({ enabled: true, version: 1 })
    expect(await keys.disable(apiKey.id, { by: 'u_admin' })).toMatchObject({ enabled: false, version: 2 })
    expect(await keys.disable(apiKey.id)).toMatchObject({ enabled: false, version: 2 })
    expect(await keys.enable(apiKey.id, { by: 'u_bob' })).toMatchObject({ enabled: true, version: 3 })
    expect(events.slice(1)).toMatchObject([
      { type: 'key.disabled', by: 'u_admin', keyId: apiKey.id, owner: ALICE, apiKey: { enabled: false } },
      { type: 'key.enabled', by: 'u_bob', keyId: apiKey.id, owner: ALICE, apiKey: { enabled: true } },
    ])
  })
})

describe('revoke', () => {
  it('refuses each wrong argument by name', async () => {
    const test = createTestKeys()
    const { apiKey } = await test.keys.issue(NAME)
    const revoke = (options: unknown) => () => test.keys.revoke(apiKey.id, options as never)
    await expectRefused(test, [
      [() => test.keys.revoke(undefined as never), 'id'],
      [revoke(null), 'options'],
      [revoke({ reasons: 'x' }), 'reasons'],
      [revoke({ by: 7 }), 'by'],
      [revoke({ reason: '' }), 'reason'],
      [revoke({ reason: 'x'.repeat(1_001) }), 'reason'],
    ])
  })

  it('is not_found for an unknown key', async () => {
    const { keys } = createTestKeys()
    await expect(keys.revoke('nobody')).rejects.toEqual(NOT_FOUND)
  })

  it('is unavailable where the store is, and the key works on', async () => {
    const { keys, store, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    store.fail('update', rejects(new Error('read only')))
    await expect(keys.revoke(apiKey.id)).rejects.toEqual(UNAVAILABLE)
    expect(eventsOf('key.revoked')).toEqual([])
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('keeps when, by whom and why; the first time only', async () => {
    const { keys, clock, eventsOf } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    await clock.advance(1_000)
    const revokedAt = new Date(clock.now())
    const why = { revokedAt, revokedBy: 'u_admin', revokedReason: 'leaked', version: 2 }
    expect(await keys.revoke(apiKey.id, { by: 'u_admin', reason: 'leaked' })).toMatchObject(why)
    await clock.advance(1_000)
    expect(await keys.revoke(apiKey.id, { by: 'u_bob', reason: 'again' })).toMatchObject(why)
    expect(await keys.get(apiKey.id)).toMatchObject(why)
    expect(eventsOf('key.revoked')).toMatchObject([{ keyId: apiKey.id, by: 'u_admin', owner: ALICE }])
  })

  it('is cleared by nothing', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    const { revokedAt } = await keys.revoke(apiKey.id)
    await expect(keys.enable(apiKey.id)).rejects.toEqual(CONFLICT)
    await expect(keys.rotate(apiKey.id)).rejects.toEqual(CONFLICT)
    await expect(keys.update(apiKey.id, { expiresAt: null, quota: null })).rejects.toEqual(CONFLICT)
    await keys.invalidateOwner(ALICE)
    await store.update(apiKey.id, 2, { revokedAt: null, updatedAt: new Date() })
    expect(await keys.get(apiKey.id)).toMatchObject({ revokedAt })
    expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
  })
})

describe('rotate', () => {
  it('refuses each wrong argument by name', async () => {
    const test = createTestKeys()
    const { apiKey } = await test.keys.issue(NAME)
    const rotate = (options: unknown) => () => test.keys.rotate(apiKey.id, options as never)
    await expectRefused(test, [
      [() => test.keys.rotate(7 as never), 'id'],
      [rotate(null), 'options'],
      [rotate({ grace: 5 }), 'grace'],
      [rotate({ graceMs: -1 }), 'graceMs'],
      [rotate({ graceMs: 367 * DAY }), 'graceMs'],
      [rotate({ graceMs: null }), 'graceMs'],
      [rotate({ expiresAt: new Date(test.clock.now()) }), 'expiresAt'],
      [rotate({ expiresAt: 'tomorrow' }), 'expiresAt'],
      [rotate({ by: '' }), 'by'],
    ])
  })

  it('is not_found for an unknown key, and conflict for one that ended or was rotated', async () => {
    const { keys, clock, store } = createTestKeys()
    await expect(keys.rotate('nobody')).rejects.toEqual(NOT_FOUND)
    const issue = async (change: object) => (await keys.issue({ ...NAME, ...change })).apiKey.id
    const expired = await issue({ expiresAt: new Date(clock.now() + 1_000) })
    const idle = await issue({ idleExpiryMs: 60_000 })
    const revoked = await issue({})
    const rotated = await issue({})
    await keys.revoke(revoked)
    await keys.rotate(rotated)
    await clock.advance(60_000 + SLACK_MS)
    store.forgetCalls()
    for (const id of [expired, idle, revoked, rotated]) {
      await expect(keys.rotate(id)).rejects.toEqual(CONFLICT)
    }
    expect(store.calls('insert')).toBe(0)
  })

  it('gives a successor with the same settings in the same lineage', async () => {
    const { keys, clock, eventsOf } = createTestKeys()
    const first = await keys.issue({
      ...NAME,
      prefix: 'acme_live',
      createdBy: 'u_bob',
      permissions: { projects: ['read'] },
      rateLimits: [{ name: 'minute', limit: 5, windowMs: 60_000 }],
      allowedIps: ['10.0.0.0/8'],
      expiresAt: new Date(clock.now() + 100 * DAY),
      idleExpiryMs: 10 * DAY,
      metadata: { team: 'core' },
    })
    await keys.verify(first.key, { ip: '10.0.0.1' })
    await clock.advance(20_000)
    const at = new Date(clock.now())
    const before = await keys.get(first.apiKey.id)
    const { key, apiKey, previous } = await keys.rotate(first.apiKey.id, { by: 'u_admin' })
    const { keyId, prefix } = partsOf(key)
    expect(prefix).toBe('acme_live')
    expect(apiKey).toEqual({
      ...first.apiKey,
      id: keyId,
      hint: `acme_live_${keyId}`,
      createdBy: 'u_admin',
      createdAt: at,
      updatedAt: at,
      rotatedFrom: first.apiKey.id,
      rotatedTo: null,
      version: 1,
    })
    expect(previous).toMatchObject({
      id: first.apiKey.id,
      rotatedTo: keyId,
      expiresAt: new Date(clock.now() + DAY),
      version: 2,
    })
    expect(await keys.get(keyId)).toEqual(apiKey)
    expect(await keys.get(first.apiKey.id)).toEqual(previous)
    expect(eventsOf('key.rotated')).toEqual([
      {
        type: 'key.rotated',
        at,
        keyId: first.apiKey.id,
        owner: ALICE,
        by: 'u_admin',
        before,
        apiKey: previous,
        successor: apiKey,
      },
    ])
    expect(Object.isFrozen(apiKey) && Object.isFrozen(previous)).toBe(true)
  })

  it('ends the previous key after the grace, or at its own expiry if that is earlier', async () => {
    const { keys, clock } = createTestKeys()
    const long = await keys.issue(NAME)
    const short = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1_000) })
    const cut = await keys.issue(NAME)
    await keys.verify(cut.key)
    const successors = [
      await keys.rotate(long.apiKey.id, { graceMs: 60_000 }),
      await keys.rotate(short.apiKey.id, { graceMs: 60_000, expiresAt: null }),
      await keys.rotate(cut.apiKey.id, { graceMs: 0 }),
    ]
    expect(successors.map(({ previous }) => (previous.expiresAt as Date).getTime() - clock.now())).toEqual([
      60_000, 1_000, 0,
    ])
    expect(await keys.verify(cut.key)).toMatchObject({ reason: 'expired' })
    expect(await keys.verify(short.key)).toMatchObject({ ok: true })
    await clock.advance(1_000)
    expect(await keys.verify(short.key)).toMatchObject({ reason: 'expired' })
    await clock.advance(58_999)
    expect(await keys.verify(long.key)).toMatchObject({ ok: true })
    await clock.advance(1)
    expect(await keys.verify(long.key)).toMatchObject({ reason: 'expired' })
    for (const { key } of successors) expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('lets the successor expire with the previous key unless told otherwise', async () => {
    const { keys, clock } = createTestKeys()
    const expiresAt = new Date(clock.now() + 10 * DAY)
    const rotate = async (options: object) => {
      const { apiKey } = await keys.issue({ ...NAME, expiresAt })
      return (await keys.rotate(apiKey.id, options)).apiKey.expiresAt
    }
    const later = new Date(clock.now() + 20 * DAY)
    expect(await rotate({})).toEqual(expiresAt)
    expect(await rotate({ expiresAt: later })).toEqual(later)
    expect(await rotate({ expiresAt: null })).toBeNull()
  })

  it('shares counters and quota over the lineage: nothing doubles', async () => {
    const { keys } = createTestKeys({ quotaBlockSize: 10 })
    const day = { name: 'day', limit: 4, windowMs: DAY }
    const limited = await keys.issue({ ...NAME, rateLimits: [day] })
    await keys.verify(limited.key, { cost: 2 })
    const next = await keys.rotate(limited.apiKey.id)
    expect(await keys.verify(next.key)).toMatchObject({ ok: true, limits: [{ remaining: 1 }] })
    expect(await keys.verify(limited.key)).toMatchObject({ ok: true, limits: [{ remaining: 0 }] })
    for (const { key } of [limited, next]) {
      expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited' })
    }
    const metered = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    await keys.verify(metered.key, { cost: 2 })
    const successor = await keys.rotate(metered.apiKey.id)
    expect([successor.apiKey.quota?.remaining, successor.previous.quota?.remaining]).toEqual([3, 3])
    expect(await keys.verify(successor.key, { cost: 2 })).toMatchObject({ ok: true })
    expect(await keys.verify(metered.key)).toMatchObject({ ok: true })
    for (const { key } of [metered, successor]) {
      expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded' })
    }
  })

  it('has one winner where two race, and the loser leaves no successor behind', async () => {
    const { keys, store, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    const results = await Promise.allSettled([1, 2, 3, 4, 5].map(() => keys.rotate(apiKey.id)))
    const winners = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    expect(winners).toHaveLength(1)
    for (const result of results) if (result.status === 'rejected') expect(result.reason).toEqual(CONFLICT)
    expect(store.calls('insert')).toBe(6)
    const { apiKeys } = await keys.list()
    expect(apiKeys.map(({ id }) => id).sort()).toEqual([apiKey.id, winners[0]?.apiKey.id].sort())
    expect(eventsOf('key.rotated')).toHaveLength(1)
    for (const text of [key, winners[0]?.key]) {
      expect(await keys.verify(text as string)).toMatchObject({ ok: true })
    }
  })

  it('loses to a change that comes between, a revocation above all, and leaves no successor behind', async () => {
    const { keys, store } = createTestKeys()
    for (const change of [keys.revoke, keys.disable]) {
      const { apiKey } = await keys.issue({ owner: BOB, name: 'raced' })
      const held = store.hold('find')
      const rotating = keys.rotate(apiKey.id)
      await held.reached
      await change(apiKey.id)
      held.release()
      await expect(rotating).rejects.toEqual(CONFLICT)
      expect((await keys.get(apiKey.id))?.rotatedTo).toBeNull()
    }
    expect((await keys.list({ owner: BOB })).apiKeys).toHaveLength(2)
  })

  it('keeps a disabled key’s successor disabled', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    await keys.disable(apiKey.id)
    const { key } = await keys.rotate(apiKey.id)
    expect(await keys.verify(key)).toMatchObject({ reason: 'disabled' })
  })
})

describe('purge', () => {
  it('leaves a key that is in use, though the store takes no uses', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    store.fail('recordUsage', rejects(new Error('down')))
    for (let i = 0; i < 6; i++) {
      await clock.advance(30_000)
      expect(await keys.verify(key)).toMatchObject({ ok: true })
    }
    expect(await keys.purge({ endedBefore: new Date(clock.now()) })).toBe(0)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('refuses each wrong argument by name, before it removes anything', async () => {
    const test = createTestKeys()
    const { apiKey } = await test.keys.issue(NAME)
    await test.keys.revoke(apiKey.id)
    await test.clock.advance(1_000)
    const endedBefore = new Date(test.clock.now())
    const purge = (options: unknown) => () => test.keys.purge(options as never)
    await expectRefused(test, [
      [purge(undefined), 'options'],
      [purge({}), 'endedBefore'],
      [purge({ endedBefore: '2026-01-01' }), 'endedBefore'],
      [purge({ endedBefore: new Date('never') }), 'endedBefore'],
      [purge({ endedBefore, before: 1 }), 'before'],
      [purge({ endedBefore, by: 7 }), 'by'],
    ])
    expect(await test.keys.get(apiKey.id)).not.toBeNull()
  })

  it('removes what ended before the moment, and nothing else', async () => {
    const { keys, clock, eventsOf } = createTestKeys()
    const issue = async (change: object = {}) => (await keys.issue({ ...NAME, ...change })).apiKey.id
    const revoked = await issue()
    const expired = await issue({ expiresAt: new Date(clock.now() + 1_000) })
    const idle = await issue({ idleExpiryMs: 60_000 })
    const disabled = await issue()
    const active = await issue()
    await keys.revoke(revoked)
    await keys.disable(disabled)
    await clock.advance(100_000)
    const moment = new Date(clock.now())
    const revokedLater = await issue()
    await keys.revoke(revokedLater)
    await clock.advance(1_000)
    expect(await keys.purge({ endedBefore: moment, by: 'u_admin' })).toBe(3)
    const left = (await keys.list()).apiKeys.map(({ id }) => id).sort()
    expect(left).toEqual([disabled, active, revokedLater].sort())
    for (const id of [revoked, expired, idle]) expect(await keys.get(id)).toBeNull()
    expect(eventsOf('keys.purged')).toEqual([
      { type: 'keys.purged', at: new Date(clock.now()), count: 3, by: 'u_admin' },
    ])
  })

  it('does not remove what will only end, whatever moment it is given', async () => {
    const { keys, clock } = createTestKeys()
    await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1_000) })
    expect(await keys.purge({ endedBefore: new Date(clock.now() + DAY) })).toBe(0)
  })

  it('leaves a key that is in use and not written down yet', async () => {
    const { keys, clock } = createTestKeys({ usage: { flushMs: 30_000 } })
    const { key, apiKey } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    await clock.advance(40_000)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await clock.advance(21_000)
    expect(await keys.purge({ endedBefore: new Date(clock.now()) })).toBe(0)
    expect(await keys.get(apiKey.id)).not.toBeNull()
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('removes more than a page', async () => {
    const { keys, clock } = createTestKeys()
    const expiresAt = new Date(clock.now() + 1_000)
    for (let i = 0; i < 1_101; i++) await keys.issue({ ...NAME, expiresAt })
    await clock.advance(1_000 + SLACK_MS)
    expect(await keys.purge({ endedBefore: new Date(clock.now()) })).toBe(1_101)
    expect((await keys.list()).apiKeys).toEqual([])
  })

  it('makes its keys unknown once the caches have aged', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    await keys.verify(key)
    await keys.revoke(apiKey.id)
    await clock.advance(5_000)
    await keys.purge({ endedBefore: new Date(clock.now()) })
    expect(await keys.verify(key)).toMatchObject({ reason: 'unknown' })
  })
})

describe('revokeOwner and invalidateOwner', () => {
  it('makes known what a process that ended in between had revoked', async () => {
    const clock = fakeClock()
    const rateLimiter = memoryRateLimiter({ clock })
    const inner = memoryStore()
    const here = createTestKeys({ clock, rateLimiter, store: recordingStore(inner) })
    const there = createTestKeys({ clock, rateLimiter, store: recordingStore(inner) })
    const { key, apiKey } = await here.keys.issue(NAME)
    expect(await there.keys.verify(key)).toMatchObject({ ok: true })
    const at = new Date(clock.now())
    await inner.update(apiKey.id, 1, { revokedAt: at, updatedAt: at })
    expect(await here.keys.revokeOwner(ALICE)).toBe(0)
    expect(await there.keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
  })

  it('looks again where it found only keys that were revoked: a rotation may have added one', async () => {
    const { keys, store } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    await keys.revoke(apiKey.id)
    const listing = store.hold('list')
    const revoking = keys.revokeOwner(ALICE)
    await listing.reached
    const late = await keys.issue({ ...NAME, name: 'late' })
    listing.release()
    expect(await revoking).toBe(1)
    expect(await keys.verify(late.key)).toMatchObject({ reason: 'revoked' })
  })

  it('refuse each wrong argument by name, whether or not the owner has keys', async () => {
    const test = createTestKeys()
    await test.keys.issue(NAME)
    const { revokeOwner, invalidateOwner } = test.keys
    for (const owner of [ALICE, BOB]) {
      await expectRefused(test, [
        [() => revokeOwner('u_1' as never), 'owner'],
        [() => revokeOwner({ type: 'user' } as never), 'owner.id'],
        [() => revokeOwner(owner, null as never), 'options'],
        [() => revokeOwner(owner, { by: 7 } as never), 'by'],
        [() => revokeOwner(owner, { reason: '' }), 'reason'],
        [() => revokeOwner(owner, { why: 'x' } as never), 'why'],
        [() => invalidateOwner(undefined as never), 'owner'],
        [() => invalidateOwner({ type: '', id: 'x' }), 'owner.type'],
        [() => invalidateOwner(owner, { by: '' }), 'by'],
        [() => invalidateOwner(owner, { reason: 'x' } as never), 'reason'],
      ])
    }
  })

  it('are unavailable where the store is', async () => {
    const { keys, store } = createTestKeys()
    await keys.issue(NAME)
    for (const method of ['list', 'update'] as const) {
      store.fail(method, rejects(new Error('down')))
      await expect(keys.revokeOwner(ALICE)).rejects.toEqual(UNAVAILABLE)
      await expect(keys.invalidateOwner(ALICE)).rejects.toEqual(UNAVAILABLE)
      store.heal()
    }
  })

  it('revoke every key of the owner, and no other', async () => {
    const { keys, events, clock } = createTestKeys()
    const alices = await Promise.all([1, 2, 3].map(() => keys.issue(NAME)))
    const others = [
      await keys.issue({ owner: BOB, name: 'CI' }),
      await keys.issue({ owner: { type: 'service', id: ALICE.id }, name: 'CI' }),
    ]
    await keys.revoke((alices[0] as { apiKey: ApiKey }).apiKey.id, { reason: 'before' })
    for (const { key } of [...alices, ...others]) await keys.verify(key)
    events.length = 0
    expect(await keys.revokeOwner(ALICE, { by: 'u_admin', reason: 'left' })).toBe(2)
    for (const { key } of alices) expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
    for (const { key } of others) expect(await keys.verify(key)).toMatchObject({ ok: true })
    const reasons = (await keys.list({ owner: ALICE })).apiKeys.map(({ revokedReason }) => revokedReason)
    expect(reasons.sort()).toEqual(['before', 'left', 'left'])
    const changes = events.filter(({ type }: ApiKeyEvent) => type !== 'key.refused')
    expect(changes.map(({ type }) => type)).toEqual(['key.revoked', 'key.revoked', 'owner.revoked'])
    expect(changes.at(-1)).toEqual({
      type: 'owner.revoked',
      at: new Date(clock.now()),
      owner: ALICE,
      count: 2,
      by: 'u_admin',
    })
    expect(await keys.revokeOwner(ALICE)).toBe(0)
  })

  it('raise the version of every key of the owner that is not revoked', async () => {
    const { keys, eventsOf } = createTestKeys()
    const [a, b] = await Promise.all([keys.issue(NAME), keys.issue(NAME)])
    const bobs = await keys.issue({ owner: BOB, name: 'CI' })
    await keys.revoke(b.apiKey.id)
    expect(await keys.invalidateOwner(ALICE, { by: 'u_admin' })).toBe(1)
    const versions = [a, b, bobs].map(async ({ apiKey }) => (await keys.get(apiKey.id))?.version)
    expect(await Promise.all(versions)).toEqual([2, 2, 1])
    expect(eventsOf('owner.invalidated')).toMatchObject([{ owner: ALICE, count: 1, by: 'u_admin' }])
    expect(await keys.verify(a.key)).toMatchObject({ ok: true })
  })

  it('reach every key of an owner that has more than a page of them', async () => {
    const { keys } = createTestKeys()
    for (let i = 0; i < 501; i++) await keys.issue(NAME)
    expect(await keys.invalidateOwner(ALICE)).toBe(501)
    expect(await keys.revokeOwner(ALICE)).toBe(501)
    expect((await keys.list({ owner: ALICE, status: 'active' })).apiKeys).toEqual([])
  })

  it('comes to an end where the listing lags behind what it has revoked', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const asListed = await store.list({ owners: [ALICE] }, { limit: 10 })
    store.fail('list', answers(asListed))
    expect(await keys.revokeOwner(ALICE)).toBe(1)
    expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
  })

  it('revokes a successor too that a rotation makes while revokeOwner runs', async () => {
    const { keys, store } = createTestKeys()
    const old = await keys.issue(NAME)
    const held = store.hold('list')
    const revoking = keys.revokeOwner(ALICE)
    await held.reached
    const { key: successor } = await keys.rotate(old.apiKey.id)
    held.release()
    expect(await revoking).toBe(2)
    for (const key of [old.key, successor]) {
      expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
    }
  })

  it('go on where a key is purged while they run', async () => {
    const { keys, store, clock } = createTestKeys()
    await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1_000) })
    await clock.advance(1_000 + SLACK_MS)
    const living = await keys.issue(NAME)
    const held = store.hold('list')
    const revoking = keys.revokeOwner(ALICE)
    await held.reached
    await keys.purge({ endedBefore: new Date(clock.now()) })
    held.release()
    expect(await revoking).toBe(1)
    expect(await keys.verify(living.key)).toMatchObject({ reason: 'revoked' })
  })
})

describe('revokeCreatedBy', () => {
  it('refuses each wrong argument by name', async () => {
    const test = createTestKeys()
    await test.keys.issue({ ...NAME, createdBy: 'u_bob' })
    const { revokeCreatedBy } = test.keys
    await expectRefused(test, [
      [() => revokeCreatedBy(undefined as never), 'createdBy'],
      [() => revokeCreatedBy(''), 'createdBy'],
      [() => revokeCreatedBy(null as never), 'createdBy'],
      [() => revokeCreatedBy(ALICE as never), 'createdBy'],
      [() => revokeCreatedBy('u_bob', { by: 7 } as never), 'by'],
      [() => revokeCreatedBy('u_bob', { reason: '' }), 'reason'],
      [() => revokeCreatedBy('u_bob', { why: 'x' } as never), 'why'],
      [() => revokeCreatedBy('u_bob', { owner: 'u_1' } as never), 'owner'],
      [() => revokeCreatedBy('u_bob', { owner: { type: 'user' } } as never), 'owner.id'],
    ])
  })

  it('is unavailable where the store is', async () => {
    const { keys, store } = createTestKeys()
    await keys.issue({ ...NAME, createdBy: 'u_bob' })
    for (const method of ['list', 'update'] as const) {
      store.fail(method, rejects(new Error('down')))
      await expect(keys.revokeCreatedBy('u_bob')).rejects.toEqual(UNAVAILABLE)
      store.heal()
    }
  })

  it('revokes all that a person has issued, for whatever owner, and nothing else', async () => {
    const { keys, events, clock } = createTestKeys()
    const issue = (createdBy: string | null, owner: Owner = ALICE) =>
      keys.issue({ owner, name: 'CI', createdBy })
    const theirs = [await issue('u_bob'), await issue('u_bob', BOB)]
    const rotated = await keys.rotate((await issue('u_bob')).apiKey.id)
    const others = [await issue('U_BOB'), await issue(null, BOB), await issue('u_bob2')]
    for (const { key } of [...theirs, ...others]) await keys.verify(key)
    events.length = 0
    expect(await keys.revokeCreatedBy('u_bob', { by: 'u_admin', reason: 'left' })).toBe(4)
    for (const { key } of [...theirs, rotated]) {
      expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
    }
    for (const { key } of others) expect(await keys.verify(key)).toMatchObject({ ok: true })
    const told = events.filter(({ type }: ApiKeyEvent) => type !== 'key.refused')
    expect(told.map(({ type }) => type)).toEqual([...Array(4).fill('key.revoked'), 'creator.revoked'])
    expect(told[0]).toMatchObject({ by: 'u_admin', apiKey: { revokedReason: 'left', revokedBy: 'u_admin' } })
    expect(told.at(-1)).toEqual({
      type: 'creator.revoked',
      at: new Date(clock.now()),
      createdBy: 'u_bob',
      owner: null,
      count: 4,
      by: 'u_admin',
    })
    expect(await keys.revokeCreatedBy('u_bob')).toBe(0)
  })

  it('revokes only those of one owner where one is named', async () => {
    const { keys, eventsOf } = createTestKeys()
    const gone = await keys.issue({ ...NAME, createdBy: 'u_bob' })
    const elsewhere = await keys.issue({ owner: BOB, name: 'CI', createdBy: 'u_bob' })
    const another = await keys.issue({ ...NAME, createdBy: 'u_carol' })
    expect(await keys.revokeCreatedBy('u_bob', { owner: ALICE, by: 'u_admin' })).toBe(1)
    expect(await keys.verify(gone.key)).toMatchObject({ reason: 'revoked' })
    for (const { key } of [elsewhere, another]) expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(eventsOf('creator.revoked')).toMatchObject([{ createdBy: 'u_bob', owner: ALICE, count: 1 }])
  })

  it('looks again until nothing is left: what is issued while it runs goes too', async () => {
    const { keys, store } = createTestKeys()
    await keys.issue({ ...NAME, createdBy: 'u_bob' })
    const listing = store.hold('list')
    const revoking = keys.revokeCreatedBy('u_bob')
    await listing.reached
    const late = await keys.issue({ owner: BOB, name: 'late', createdBy: 'u_bob' })
    listing.release()
    expect(await revoking).toBe(2)
    expect(await keys.verify(late.key)).toMatchObject({ reason: 'revoked' })
  })
})

describe('the key before a change', () => {
  it('comes with every event of one, frozen and without digest and lookup; there is none of a new key', async () => {
    const { keys, events, eventsOf } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const { id } = apiKey
    const views = [apiKey]
    views.push(await keys.update(id, { name: 'renamed' }))
    views.push(await keys.disable(id))
    views.push(await keys.enable(id))
    views.push((await keys.rotate(id)).previous)
    views.push(await keys.revoke(id))
    const told = events.flatMap((event) => ('before' in event ? [event] : []))
    expect(told.map(({ type }) => type)).toEqual([
      'key.issued',
      'key.updated',
      'key.disabled',
      'key.enabled',
      'key.rotated',
      'key.revoked',
    ])
    expect(told.map(({ before }) => before)).toEqual([null, ...views.slice(0, -1)])
    expect(told.map(({ apiKey: after }) => after)).toEqual(views)
    for (const { before } of told.slice(1)) {
      expect(Object.isFrozen(before) && Object.isFrozen(before?.metadata)).toBe(true)
      expect(before).not.toHaveProperty('digest')
      expect(before).not.toHaveProperty('lookup')
    }
    // What changes nothing tells of nothing.
    await keys.revoke(id)
    expect(eventsOf('key.revoked')).toHaveLength(1)
  })

  it('comes with the keys that are revoked together', async () => {
    const { keys, eventsOf } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    await keys.revokeOwner(ALICE)
    expect(eventsOf('key.revoked')).toMatchObject([{ before: apiKey, apiKey: { version: 2 } }])
  })

  it('has the quota that it had, what the limiter holds of it included', async () => {
    const { keys, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 500 } })
    await keys.verify(key, { cost: 3 })
    await keys.update(apiKey.id, { name: 'renamed' })
    await keys.update(apiKey.id, { quota: { remaining: 7 } })
    const remaining = eventsOf('key.updated').map(({ before, apiKey: after }) => [
      before?.quota?.remaining,
      after.quota?.remaining,
    ])
    expect(remaining).toEqual([
      [497, 497],
      [497, 7],
    ])
  })
})

describe('a report', () => {
  it('of a key that was shown becomes an event, without more of the key than its id', async () => {
    const { keys, events, clock } = createTestKeys()
    const { apiKey } = await keys.issue({ ...NAME, metadata: { note: 'private' } })
    events.length = 0
    keys.report({ type: 'read', apiKey, by: 'u_admin' })
    const at = new Date(clock.now())
    expect(events).toEqual([{ type: 'key.read', at, keyId: apiKey.id, owner: ALICE, by: 'u_admin' }])
  })
})

describe('a store that makes a change and loses its reply', () => {
  /** Does what it is asked, and fails to say so. */
  const loseReply: StoreFault = async (work) => {
    await work()
    throw new Error('connection reset')
  }

  it('is believed where it says itself that the change is not safe', async () => {
    const { keys, store } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const unconfirmed: StoreFault = async (work) => {
      await work()
      throw new LatchkeyError('unavailable', 'no replica has confirmed it')
    }
    store.fail('update', unconfirmed)
    store.fail('insert', unconfirmed)
    for (const work of [() => keys.revoke(apiKey.id), () => keys.issue(NAME)]) {
      await expect(work()).rejects.toThrow('no replica has confirmed it')
    }
  })

  it('issues the key that it keeps, and a successor too', async () => {
    const { keys, store } = createTestKeys()
    store.fail('insert', loseReply)
    const { key, apiKey } = await keys.issue(NAME)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    const successor = await keys.rotate(apiKey.id)
    expect(await keys.verify(successor.key)).toMatchObject({ ok: true })
    expect((await keys.list()).apiKeys).toHaveLength(2)
  })

  it('has the change told of like any other', async () => {
    const { keys, store, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    store.fail('update', loseReply)
    expect(await keys.revoke(apiKey.id, { by: 'u_1' })).toMatchObject({ revokedBy: 'u_1' })
    expect(eventsOf('key.revoked')).toHaveLength(1)
    expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
  })

  it('does not lose the key that a rotation made', async () => {
    const { keys, store } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    store.fail('update', loseReply)
    const rotated = await keys.rotate(apiKey.id)
    expect(await keys.verify(rotated.key)).toMatchObject({ ok: true })
  })

  it('does not lose it either where the store cannot be asked at once', async () => {
    const { keys, store } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    store.fail('update', async (work) => {
      store.heal('update')
      store.fail('find', async () => {
        store.heal('find')
        throw new Error('connection reset')
      })
      await work()
      throw new Error('connection reset')
    })
    const rotated = await keys.rotate(apiKey.id)
    expect(await keys.verify(rotated.key)).toMatchObject({ ok: true })
    expect(await keys.get(apiKey.id)).toMatchObject({ rotatedTo: rotated.apiKey.id })
  })
})

describe('a rotation that the store carries out after it was given up', () => {
  it('comes too late: the key stays as it was, and does not end without a successor', async () => {
    const { keys, store, clock } = createTestKeys({ timeoutMs: 500 })
    const { key, apiKey } = await keys.issue(NAME)
    let wake = () => {}
    const asleep = new Promise<void>((resolve) => {
      wake = resolve
    })
    store.fail('update', async (work) => {
      store.heal('update')
      await asleep
      return work()
    })
    const rotating = expect(keys.rotate(apiKey.id, { graceMs: 0 })).rejects.toEqual(UNAVAILABLE)
    await clock.advance(500)
    await rotating
    wake()
    await settle()
    expect(await keys.get(apiKey.id)).toMatchObject({ rotatedTo: null, expiresAt: null })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect((await keys.list()).apiKeys.map(({ id }) => id)).toEqual([apiKey.id])
  })
})

describe('a key that was rotated out', () => {
  it('cannot be made to last longer, and may be cut off earlier', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    await keys.rotate(apiKey.id, { graceMs: 10_000 })
    for (const expiresAt of [null, new Date(clock.now() + 10_001)]) {
      await expect(keys.update(apiKey.id, { expiresAt })).rejects.toEqual(CONFLICT)
    }
    await keys.update(apiKey.id, { name: 'old', expiresAt: new Date(clock.now() + 1) })
    await clock.advance(1)
    expect(await keys.verify(key)).toMatchObject({ reason: 'expired' })
  })

  it('draws on the quota that was set on a later key, wherever it stands in the lineage', async () => {
    const { keys } = createTestKeys()
    const a = await keys.issue({ ...NAME, quota: { remaining: 50 } })
    const b = await keys.rotate(a.apiKey.id)
    const c = await keys.rotate(b.apiKey.id, { graceMs: 0 })
    expect(await keys.verify(a.key)).toMatchObject({ ok: true })
    const updated = await keys.update(c.apiKey.id, { quota: { remaining: 0 } })
    expect(await keys.verify(a.key)).toMatchObject({ code: 'quota_exceeded' })
    expect((await keys.get(c.apiKey.id))?.version).toBe(updated.version)
  })
})

describe('a change that the limiter cannot be told of', () => {
  const MAX_AGE = 3_000

  /** A process that makes changes and cannot tell the limiter, and one that still holds the old record. */
  async function createTwo() {
    const clock = fakeClock()
    const inner = memoryStore()
    const options = { clock, cache: { maxAgeMs: MAX_AGE }, timeoutMs: 500 }
    const here = createTestKeys({ ...options, store: recordingStore(inner) })
    const there = createTestKeys({ ...options, store: recordingStore(inner) })
    const issued = await here.keys.issue(NAME)
    return { here, there, clock, ...issued }
  }

  const FAULTS: Record<string, () => never | Promise<never>> = {
    throws: () => {
      throw new Error('connection refused')
    },
    rejects: () => Promise.reject(new Error('connection refused')),
  }
  for (const [title, fault] of Object.entries(FAULTS)) {
    it(`where it ${title}: resolves only once every cache has aged, and says so`, async () => {
      const { here, there, clock, key, apiKey } = await createTwo()
      expect(await there.keys.verify(key)).toMatchObject({ ok: true })
      vi.spyOn(here.limiter, 'raiseVersions').mockImplementation(fault)
      let isRevoked = false
      const revoking = here.keys.revoke(apiKey.id).then((revoked) => {
        isRevoked = true
        return revoked
      })
      await clock.advance(MAX_AGE - 1)
      expect(isRevoked).toBe(false)
      expect(here.eventsOf('change.delayed')).toMatchObject([
        { keyIds: [apiKey.id], delayMs: MAX_AGE, error: { code: 'unavailable' } },
      ])
      expect(here.eventsOf('fault')).toMatchObject([{ operation: 'rate_limiter' }])
      expect(here.eventsOf('key.revoked')).toEqual([])
      await clock.advance(1)
      expect(await revoking).toMatchObject({ revokedAt: expect.any(Date) })
      expect(here.eventsOf('key.revoked')).toHaveLength(1)
      expect(await there.keys.verify(key)).toMatchObject({ reason: 'revoked' })
    })
  }

  it('where it hangs: counts the time it took, and no more than the cache’s age in all', async () => {
    const { here, clock, apiKey } = await createTwo()
    vi.spyOn(here.limiter, 'raiseVersions').mockImplementation(() => new Promise(() => {}))
    let isRevoked = false
    const revoking = here.keys.revoke(apiKey.id).then(() => {
      isRevoked = true
    })
    await clock.advance(MAX_AGE - 1)
    expect(isRevoked).toBe(false)
    expect(here.eventsOf('change.delayed')).toMatchObject([{ delayMs: MAX_AGE - 500 }])
    await clock.advance(1)
    await revoking
  })

  it('is refused here at once: nobody waits for the delay in the process that made it', async () => {
    const { here, clock, key, apiKey } = await createTwo()
    expect(await here.keys.verify(key)).toMatchObject({ ok: true })
    vi.spyOn(here.limiter, 'raiseVersions').mockRejectedValue(new Error('connection refused') as never)
    const revoking = here.keys.revoke(apiKey.id)
    await settle()
    expect(await here.keys.verify(key)).toMatchObject({ reason: 'revoked' })
    await clock.advance(MAX_AGE)
    await revoking
  })

  it('is made known by the same change made again', async () => {
    const clock = fakeClock()
    const store = recordingStore()
    const rateLimiter = memoryRateLimiter({ clock })
    const there = createTestKeys({ clock, store, rateLimiter })
    const { key, apiKey } = await there.keys.issue(NAME)
    await there.keys.verify(key)
    // As a process leaves it that ends between its commit and its word to the limiter.
    await store.update(apiKey.id, 1, { revokedAt: new Date(clock.now()), updatedAt: new Date(clock.now()) })
    const here = createTestKeys({ clock, store, rateLimiter })
    expect(await here.keys.revoke(apiKey.id)).toMatchObject({ version: 2 })
    expect(await there.keys.verify(key)).toMatchObject({ reason: 'revoked' })
  })
})

describe('the view of a key', () => {
  it('may have its dates changed by whoever holds it, to no effect', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 60_000) })
    apiKey.expiresAt?.setTime(0)
    const updated = await keys.update(apiKey.id, { name: 'renamed' })
    updated.expiresAt?.setTime(clock.now() + DAY)
    updated.createdAt.setTime(0)
    expect((await keys.get(apiKey.id))?.expiresAt?.getTime()).toBe(clock.now() + 60_000)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await clock.advance(60_000)
    expect(await keys.verify(key)).toMatchObject({ reason: 'expired' })
  })

  it('cannot be changed itself', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    expect(() => Object.assign(apiKey, { enabled: false })).toThrow(TypeError)
    expect(() => Object.assign(apiKey.permissions, { '*': ['*'] })).toThrow(TypeError)
  })
})

it('never names a key’s text in the error of a wrong id', async () => {
  const { keys } = createTestKeys()
  const { key } = await keys.issue(NAME)
  for (const call of [keys.revoke, keys.rotate, keys.enable, keys.disable]) {
    const error = await call(key).catch((thrown) => thrown)
    expect(isLatchkeyError(error) && error.code).toBe('not_found')
    expect(`${error.message} ${error.stack}`).not.toContain(partsOf(key).secret)
  }
})

/** A store that already has this record. */
async function memoryStoreWith(record: KeyRecord) {
  const store = memoryStore()
  await store.insert([record])
  return store
}
