import { type ApiKey, memoryRateLimiter, type Permissions } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { recordingStore } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, NAME } from '../support/test-keys.ts'

const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })
const READ_AND_WRITE = { projects: ['read', 'write'] }
const READ = { projects: ['read'] }

type Hook = (owner: { readonly id: string }) => unknown

/** Keys whose owners hold what `ownerPermissions` answers. */
const setUp = (ownerPermissions: Hook, options: Parameters<typeof createTestKeys>[0] = {}) =>
  createTestKeys({ ownerPermissions: ownerPermissions as () => null, ...options })

describe('ownerPermissions', () => {
  const FAULTS: Record<string, Hook> = {
    throws: () => {
      throw new Error('no database')
    },
    rejects: () => Promise.reject(new Error('no database')),
    'answers undefined': () => undefined,
    'answers true': () => true,
    'answers text': async () => 'projects:read',
    'answers a list': () => ['projects'],
    'answers a Map': () => new Map([['projects', ['read']]]),
    'answers an action that is no list': () => ({ projects: 'read' }),
    'answers a star inside a name': () => ({ 'proj*': ['read'] }),
    'answers a promise in a list': () => ({ projects: [Promise.resolve('read')] }),
  }
  for (const [title, fault] of Object.entries(FAULTS)) {
    it(`${title}: unavailable, and asked again the next time`, async () => {
      let broken = true
      const { keys, eventsOf } = setUp((owner) => (broken ? fault(owner) : null))
      const { key } = await keys.issue(NAME)
      await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
      expect(eventsOf('fault')).toMatchObject([{ operation: 'owner_status' }])
      broken = false
      expect(await keys.verify(key)).toMatchObject({ ok: true })
    })
  }

  it.each([
    ['isOwnerActive', { isOwnerActive: () => 'yes' as never }, /"isOwnerActive" must return true or false/],
    ['ownerPermissions', { ownerPermissions: () => 'read' as never }, /"ownerPermissions" must be/],
  ])('is named in the fault where it answers what it may not: %s', async (_name, options, message) => {
    const { keys, eventsOf } = createTestKeys(options)
    const { key } = await keys.issue(NAME)
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(eventsOf('fault')).toMatchObject([
      { operation: 'owner_status', error: { message: expect.stringMatching(message) } },
    ])
  })

  it('hangs: unavailable after timeoutMs, the time of isOwnerActive included', async () => {
    const isOwnerActive = vi.fn(() => new Promise<boolean>(() => {}))
    const { keys, clock } = setUp(() => new Promise(() => {}), { isOwnerActive })
    const { key } = await keys.issue(NAME)
    for (const answer of [() => new Promise<boolean>(() => {}), async () => true]) {
      isOwnerActive.mockImplementation(answer)
      const verification = expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
      await clock.advance(5_000)
      await verification
    }
  })

  it('fails once it was answered: the answer does not outlive its age', async () => {
    let broken = false
    const { keys, clock } = setUp(() => (broken ? Promise.reject(new Error('down')) : READ), {
      ownerMaxAgeMs: 2_000,
    })
    const { key } = await keys.issue({ ...NAME, permissions: READ })
    await keys.verify(key, { permissions: READ })
    broken = true
    await clock.advance(1_999)
    expect(await keys.verify(key, { permissions: READ })).toMatchObject({ ok: true })
    await clock.advance(1)
    await expect(keys.verify(key, { permissions: READ })).rejects.toEqual(UNAVAILABLE)
  })

  it('is not asked about an owner who may use no keys', async () => {
    const ask = vi.fn(() => READ)
    const { keys } = setUp(ask, { isOwnerActive: () => false })
    const { key } = await keys.issue(NAME)
    expect(await keys.verify(key)).toMatchObject({ reason: 'owner_inactive' })
    expect(ask).not.toHaveBeenCalled()
  })

  it.each<[string, Permissions, Permissions | null, Permissions]>([
    ['nothing, where the owner holds nothing', READ_AND_WRITE, {}, {}],
    ['what both may do', READ_AND_WRITE, { projects: ['write', 'purge'] }, { projects: ['write'] }],
    ['what the owner may do, where the key may do all', { '*': ['*'] }, READ, READ],
    ['what it is permitted, where the owner may do all', READ, { '*': ['*'] }, READ],
    ['what it is permitted, where the owner is not restricted', READ_AND_WRITE, null, READ_AND_WRITE],
  ])('lets a key do %s', async (_title, permissions, held, effective) => {
    const { keys } = setUp(() => held)
    const { key, apiKey } = await keys.issue({ ...NAME, permissions })
    // The second time from what is remembered.
    for (const _time of [1, 2]) {
      const result = await keys.verify(key)
      expect(result).toMatchObject({ ok: true, apiKey: { permissions: effective } })
      expect('apiKey' in result && Object.keys(result.apiKey?.permissions ?? {})).toEqual(
        Object.keys(effective),
      )
      for (const action of ['read', 'write']) {
        const asked = await keys.verify(key, { permissions: { projects: [action] } })
        expect(asked.ok).toBe(effective.projects?.includes(action) ?? false)
      }
    }
    expect((await keys.get(apiKey.id))?.permissions).toEqual(permissions)
    expect((await keys.list()).apiKeys[0]?.permissions).toEqual(permissions)
  })

  it('shows the key of a refusal as its owner may use it, and what that lacks', async () => {
    const { keys, eventsOf } = setUp(() => READ, { rateLimits: [{ name: 'm', limit: 1, windowMs: 60_000 }] })
    const permissions = READ_AND_WRITE
    const { key } = await keys.issue({ ...NAME, permissions, allowedIps: ['192.0.2.1'] })
    const ip = '192.0.2.1'
    const shown = { apiKey: { permissions: READ } }
    expect(await keys.verify(key)).toMatchObject({ code: 'address_not_allowed', ...shown })
    expect(await keys.verify(key, { ip, permissions })).toMatchObject({
      code: 'insufficient_permissions',
      missing: { projects: ['write'] },
      ...shown,
    })
    await keys.verify(key, { ip })
    expect(await keys.verify(key, { ip })).toMatchObject({ code: 'rate_limited', ...shown })
    expect(eventsOf('key.refused').map(({ owner }) => owner)).toEqual([ALICE, ALICE, ALICE])
  })

  it('gives a key that is frozen, and made once for as long as the answer holds', async () => {
    const held = { projects: ['read'] }
    const { keys, clock } = setUp(() => held, { ownerMaxAgeMs: 60_000 })
    const { key } = await keys.issue({ ...NAME, permissions: READ_AND_WRITE })
    const keyOf = async () => {
      const result = await keys.verify(key)
      return result.ok ? result.apiKey : null
    }
    const first = await keyOf()
    expect(await keyOf()).toBe(first)
    expect(() => ((first as ApiKey).permissions as { projects: string[] }).projects.push('write')).toThrow(
      TypeError,
    )
    expect(Object.isFrozen(first)).toBe(true)
    held.projects.push('write')
    // The record is read again, with its later uses: the answer is the one that is remembered.
    await clock.advance(20_000)
    await keyOf()
    const later = await keyOf()
    expect(later).not.toBe(first)
    expect(later).toMatchObject({ permissions: READ, usageCount: 2 })
    expect(Object.isFrozen(later)).toBe(true)
  })

  it('is asked with the owner, once for all who wait, and again after ownerMaxAgeMs, together with isOwnerActive', async () => {
    const ask = vi.fn(async () => READ)
    const isOwnerActive = vi.fn(async () => true)
    const { keys, clock } = setUp(ask, { isOwnerActive, ownerMaxAgeMs: 2_000 })
    const { key } = await keys.issue({ ...NAME, permissions: READ })
    await Promise.all(Array.from({ length: 20 }, () => keys.verify(key, { permissions: READ })))
    expect(ask.mock.calls).toEqual([[ALICE]])
    await clock.advance(1_999)
    await keys.verify(key)
    expect([ask, isOwnerActive].map(({ mock }) => mock.calls.length)).toEqual([1, 1])
    await clock.advance(1)
    await keys.verify(key)
    expect([ask, isOwnerActive].map(({ mock }) => mock.calls.length)).toEqual([2, 2])
  })

  it('keeps the answers for two keys of one owner, and those for two owners, apart', async () => {
    const { keys } = setUp(({ id }) => (id === ALICE.id ? READ : { projects: ['write'] }))
    const permissions = { projects: ['*'] }
    const issued = [
      await keys.issue({ owner: ALICE, name: 'a', permissions }),
      await keys.issue({ owner: BOB, name: 'b', permissions }),
      await keys.issue({ owner: ALICE, name: 'c', permissions: { reports: ['*'] } }),
    ]
    const results = await Promise.all(issued.map(({ key }) => keys.verify(key)))
    expect(results.map((result) => 'apiKey' in result && result.apiKey?.permissions)).toEqual([
      READ,
      { projects: ['write'] },
      {},
    ])
  })

  it('leaves the permissions that are stored to an update and to a successor', async () => {
    const { keys, eventsOf } = setUp(() => READ)
    const { apiKey } = await keys.issue({ ...NAME, permissions: READ_AND_WRITE })
    const { key, apiKey: successor, previous } = await keys.rotate(apiKey.id)
    for (const one of [successor, previous, await keys.get(successor.id)]) {
      expect(one?.permissions).toEqual(READ_AND_WRITE)
    }
    expect(eventsOf('key.rotated')).toMatchObject([{ successor: { permissions: READ_AND_WRITE } }])
    expect(await keys.verify(key, { permissions: READ_AND_WRITE })).toMatchObject({ ok: false })
    expect((await keys.update(successor.id, { name: 'renamed' })).permissions).toEqual(READ_AND_WRITE)
  })
})

describe('an owner who loses a permission', () => {
  /** Two processes on one store and one limiter, both with a key at hand and an answer that still holds. */
  async function shareKey() {
    const state: { held: Permissions } = { held: READ_AND_WRITE }
    const clock = fakeClock()
    const ownerPermissions = vi.fn(() => state.held)
    const shared = { clock, rateLimiter: memoryRateLimiter({ clock }), ownerMaxAgeMs: 60_000 }
    const store = recordingStore()
    const here = setUp(ownerPermissions, { ...shared, store }).keys
    const there = setUp(ownerPermissions, { ...shared, store }).keys
    const { key, apiKey } = await here.issue({ ...NAME, permissions: READ_AND_WRITE })
    const canWrite = async (keys: typeof here) =>
      (await keys.verify(key, { permissions: { projects: ['write'] } })).ok
    expect([await canWrite(here), await canWrite(there)]).toEqual([true, true])
    state.held = READ
    return { here, there, canWrite, clock, store, key, apiKey, state, ownerPermissions }
  }

  it.each([
    ['that has the record at hand', 0],
    ['that has let the record go, but not the answer', 6_000],
  ])('cannot use it once invalidateOwner resolves, in a process %s', async (_title, laterMs) => {
    const { here, there, canWrite, clock } = await shareKey()
    await clock.advance(laterMs)
    expect([await canWrite(here), await canWrite(there)]).toEqual([true, true])
    await here.invalidateOwner(ALICE)
    expect([await canWrite(here), await canWrite(there)]).toEqual([false, false])
  })

  it('cannot use it by a record whose read was under way when invalidateOwner resolved', async () => {
    const { here, there, canWrite, clock, store } = await shareKey()
    await clock.advance(6_000)
    const reading = store.hold('find')
    const underWay = canWrite(there)
    await reading.reached
    await here.invalidateOwner(ALICE)
    reading.release()
    expect(await underWay).toBe(false)
  })

  it('cannot use it by an answer that was under way when invalidateOwner resolved', async () => {
    const { here, there, canWrite, clock, ownerPermissions } = await shareKey()
    await clock.advance(60_000)
    let answer = (_held: Permissions) => {}
    ownerPermissions.mockImplementationOnce((() => new Promise((resolve) => (answer = resolve))) as never)
    const underWay = canWrite(there)
    await settle()
    await here.invalidateOwner(ALICE)
    answer(READ_AND_WRITE)
    expect(await underWay).toBe(false)
    expect(await canWrite(there)).toBe(false)
  })
})
