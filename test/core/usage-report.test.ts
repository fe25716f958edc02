import { describe, expect, it, vi } from 'vitest'
import {
  type ApiKeysOptions,
  createApiKeys,
  type KeyStore,
  type PermissionRequirement,
  type UsageBatch,
} from '../../lib/index.ts'
import { memoryRateLimiter } from '../../lib/rate-limits/memory.ts'
import { memoryStore } from '../../lib/stores/memory.ts'
import { fakeClock } from '../../lib/testing/fake-clock.ts'

const OWNER = { type: 'user', id: 'u_1' }
const NOON = Date.UTC(2026, 5, 15, 12, 30)
const HOUR = 3_600_000
const DAY = 24 * HOUR

function setUp(options: Partial<ApiKeysOptions> = {}, store: KeyStore = memoryStore()) {
  const clock = fakeClock(NOON)
  const events: { type: string }[] = []
  const keys = createApiKeys({
    store,
    rateLimiter: memoryRateLimiter({ clock }),
    prefix: 'acme',
    clock,
    onEvent: (event) => events.push(event),
    ...options,
  })
  return { keys, clock, store, events }
}

async function issue(keys: ReturnType<typeof setUp>['keys'], settings: object = {}) {
  const { key, apiKey } = await keys.issue({ owner: OWNER, name: 'CI', ...settings })
  return { key, id: apiKey.id }
}

describe('usage', () => {
  it.each([
    [{}, '"options" must have either "key" or "owner"'],
    [{ key: 'a', owner: OWNER }, '"options" must have either "key" or "owner"'],
    [{ key: 7 }, '"key" must be'],
    [{ owner: { type: 'user' } }, '"owner'],
    [{ key: 'a', by: 'week' }, '"by" must be'],
    [{ key: 'a', timeZone: 'Mars/Base' }, '"timeZone" must be an IANA time zone'],
    [{ key: 'a', from: new Date(NOON), to: new Date(NOON) }, '"from" must be before "to"'],
    [{ key: 'a', from: 'yesterday' }, '"from" must be'],
    [
      { key: 'a', by: 'hour', from: new Date(NOON - 367 * DAY) },
      '"from" must be at most 8784 hours before "to"',
    ],
    [{ key: 'a', from: new Date(NOON - 2_000 * DAY) }, '"from" must be at most 1830 days before "to"'],
    [{ key: 'a', until: new Date() }, 'until'],
  ])('refuses %j', async (options, message) => {
    const { keys } = setUp()
    await expect(keys.usage(options as never)).rejects.toThrow(message)
  })

  it('is refused where the store cannot count, which verifies all the same', async () => {
    const { addUsage: _a, readUsage: _b, removeUsage: _c, ...bare } = memoryStore()
    const { keys } = setUp({}, bare)
    const { key, id } = await issue(keys)
    expect((await keys.verify(key)).ok).toBe(true)
    await expect(keys.usage({ key: id })).rejects.toMatchObject({ code: 'unsupported' })
  })

  it('refuses a store that has only some of the methods that count', () => {
    const { removeUsage: _removed, ...store } = memoryStore()
    expect(() => setUp({}, store)).toThrow('removeUsage')
  })

  it('counts nothing for keys that are not proven', async () => {
    const { keys } = setUp()
    const { key, id } = await issue(keys)
    const other = (await issue(keys)).key
    // The id of one key with the secret of another has a wrong checksum; a wrong secret with a right one takes more.
    await keys.verify(`${key.slice(0, -60)}${other.slice(-60)}`)
    await keys.verify(key.slice(0, -1))
    expect((await keys.usage({ key: id })).total).toEqual({
      admitted: 0,
      refused: 0,
      refusedBy: {},
      units: {},
    })
  })

  it('counts refusals by reason, once the key is proven', async () => {
    const { keys, clock } = setUp({ rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }] })
    const permissions = { projects: ['read'] }
    const { key, id } = await issue(keys, {
      permissions,
      allowedIps: ['192.0.2.0/24'],
      expiresAt: new Date(NOON + HOUR),
    })
    const ip = '192.0.2.1'
    await keys.verify(key, { ip })
    await keys.verify(key, { ip })
    await keys.verify(key, { ip: '198.51.100.1' })
    await keys.verify(key, { ip, permissions: { projects: ['write'] } })
    await keys.disable(id)
    await keys.verify(key, { ip })
    await clock.advance(2 * HOUR)
    await keys.enable(id)
    await keys.verify(key, { ip })
    await keys.revoke(id)
    await keys.verify(key, { ip })
    expect((await keys.usage({ key: id, by: 'hour' })).total).toEqual({
      admitted: 1,
      refused: 6,
      refusedBy: {
        rate_limited: 1,
        address_not_allowed: 1,
        insufficient_permissions: 1,
        disabled: 1,
        expired: 1,
        revoked: 1,
      },
      units: { minute: 1 },
    })
  })

  it('counts units by limit, after settlements and refunds, and looks as nothing', async () => {
    const rateLimits = [
      { name: 'minute', limit: 100, windowMs: 60_000 },
      { name: 'tokens', limit: 10_000, windowMs: 60_000, only: 'named' as const },
    ]
    const { keys } = setUp({ rateLimits })
    const { key, id } = await issue(keys, { quota: { remaining: 1_000 } })
    const first = await keys.verify(key, { cost: { tokens: 500 } })
    const second = await keys.verify(key, { cost: 7 })
    await keys.verify(key, { cost: 0 })
    if (!first.ok || !second.ok) throw new Error('refused')
    await keys.settle(first, { tokens: 80 })
    expect((await keys.usage({ key: id })).total).toMatchObject({
      admitted: 2,
      units: { minute: 8, tokens: 80, quota: 8 },
    })
    await keys.refund(second)
    const { total } = await keys.usage({ key: id })
    expect(total).toMatchObject({ admitted: 2, units: { minute: 1, tokens: 80, quota: 1 } })
  })

  it('counts limits by any name that a limit may have', async () => {
    const names = ['constructor', '__proto__', 'toString']
    const { keys } = setUp({ rateLimits: names.map((name) => ({ name, limit: 10, windowMs: 60_000 })) })
    const { key, id } = await issue(keys)
    await keys.verify(key)
    const { units } = (await keys.usage({ key: id })).total
    expect(Object.entries(units).sort()).toEqual(names.map((name) => [name, 1]).sort())
  })

  it('lists every hour, also those without use, and ends with the current one', async () => {
    const { keys, clock } = setUp()
    const { key, id } = await issue(keys)
    await keys.verify(key)
    await clock.advance(2 * HOUR)
    await keys.verify(key)
    await keys.verify(key)
    const { buckets, startsAt, endsAt } = await keys.usage({
      key: id,
      by: 'hour',
      from: new Date(NOON - HOUR),
    })
    expect(startsAt).toEqual(new Date(NOON - 90 * 60_000))
    expect(endsAt).toEqual(new Date(NOON + 150 * 60_000))
    expect(buckets.map(({ admitted }) => admitted)).toEqual([0, 1, 0, 2])
    expect(buckets[1]).toMatchObject({
      startsAt: new Date(NOON - 30 * 60_000),
      endsAt: new Date(NOON + 30 * 60_000),
    })
  })

  it('counts days of a time zone, of 23 and 25 hours too', async () => {
    const { keys, clock } = setUp()
    const { key, id } = await issue(keys)
    // Until 23:30 in Berlin, then half past midnight.
    await clock.advance(9 * HOUR)
    await keys.verify(key)
    await clock.advance(HOUR)
    await keys.verify(key)
    const asked = { key: id, from: new Date(NOON), timeZone: 'Europe/Berlin' }
    const { buckets } = await keys.usage(asked)
    expect(buckets.map(({ admitted }) => admitted)).toEqual([1, 1])
    expect((await keys.usage({ ...asked, timeZone: 'UTC' })).buckets.map(({ admitted }) => admitted)).toEqual(
      [2],
    )
    const spring = { key: id, from: new Date('2026-03-28T12:00:00Z'), to: new Date('2026-03-30T12:00:00Z') }
    const lengths = (await keys.usage({ ...spring, timeZone: 'Europe/Berlin' })).buckets.map(
      ({ startsAt, endsAt }) => (endsAt.getTime() - startsAt.getTime()) / HOUR,
    )
    expect(lengths).toEqual([24, 23, 24])
  })

  it('adds up the keys of an owner, purged ones too, until the owner is erased', async () => {
    const { keys, clock } = setUp()
    const [a, b] = [await issue(keys), await issue(keys)]
    for (const { key } of [a, a, b]) await keys.verify(key)
    await keys.flush()
    await keys.revoke(a.id)
    await clock.advance(60_000)
    await keys.purge({ ids: [a.id] })
    expect((await keys.usage({ owner: OWNER })).total.admitted).toBe(3)
    expect((await keys.usage({ key: a.id })).total.admitted).toBe(0)
    await keys.erase(OWNER)
    expect((await keys.usage({ owner: OWNER })).total.admitted).toBe(0)
  })

  it('adds nothing for an owner who was erased while counts were waiting', async () => {
    const { keys, store } = setUp()
    const other = setUp({}, store)
    const { key } = await issue(keys)
    await other.keys.verify(key)
    await keys.erase(OWNER)
    await other.keys.flush()
    expect((await keys.usage({ owner: OWNER })).total.admitted).toBe(0)
  })

  it('writes a batch again that failed, unchanged, and counts it once', async () => {
    const memory = memoryStore()
    const sent: UsageBatch[] = []
    const replies = ['lost', 'refused', 'well', 'well']
    const store = {
      ...memory,
      async addUsage(batch: UsageBatch) {
        sent.push(structuredClone(batch))
        const reply = replies.shift()
        if (reply === 'refused') throw new Error('away')
        await memory.addUsage?.(batch)
        if (reply === 'lost') throw new Error('the reply was lost')
      },
    }
    const { keys, events } = setUp({}, store)
    const { key, id } = await issue(keys)
    await keys.verify(key)
    await expect(keys.flush()).rejects.toMatchObject({ code: 'unavailable' })
    await keys.verify(key)
    await expect(keys.flush()).rejects.toMatchObject({ code: 'unavailable' })
    await keys.flush()
    expect(sent.map(({ number }) => number)).toEqual([1, 1, 1, 2])
    expect(sent[1]).toEqual(sent[0])
    expect((await keys.usage({ key: id })).total.admitted).toBe(2)
    expect(events.filter(({ type }) => type === 'fault')).toHaveLength(2)
  })

  it('drops what waits longer than a day, and says so', async () => {
    const store = { ...memoryStore(), addUsage: () => Promise.reject(new Error('away')) }
    const { keys, clock, events } = setUp({}, store)
    const { key } = await issue(keys)
    await keys.verify(key)
    await keys.flush().catch(() => {})
    await clock.advance(25 * HOUR)
    await keys.flush()
    expect(events).toContainEqual(
      expect.objectContaining({
        operation: 'usage',
        error: expect.objectContaining({ message: expect.stringContaining('1 counts of use were dropped') }),
      }),
    )
  })

  it('keeps at most maxEntries keys in memory, and says what it dropped', async () => {
    const { keys, events } = setUp({ usage: { maxEntries: 1 } })
    const [a, b] = [await issue(keys), await issue(keys)]
    await keys.verify(a.key)
    await keys.verify(b.key)
    await keys.flush()
    expect((await keys.usage({ owner: OWNER })).total.admitted).toBe(1)
    const dropped = expect.objectContaining({
      message: expect.stringContaining('1 counts of use were dropped'),
    })
    expect(events).toContainEqual(expect.objectContaining({ operation: 'usage', error: dropped }))
  })

  it('counts and asks the store for nothing with keepDays 0', async () => {
    const store = {
      ...memoryStore(),
      addUsage: vi.fn(),
      readUsage: vi.fn(async () => []),
      removeUsage: vi.fn(),
    }
    const { keys } = setUp({ usage: { keepDays: 0 } }, store)
    const { key, id } = await issue(keys)
    await keys.verify(key)
    await keys.close()
    expect(store.addUsage).not.toHaveBeenCalled()
    await expect(keys.usage({ key: id })).rejects.toMatchObject({ code: 'unsupported' })
    await expect(keys.unusedPermissions(id)).rejects.toMatchObject({ code: 'unsupported' })
  })

  it('removes what is older than keepDays', async () => {
    const { keys, clock } = setUp({ usage: { keepDays: 2 } })
    const { key, id } = await issue(keys)
    await keys.verify(key)
    await keys.flush()
    await clock.advance(4 * DAY)
    await keys.verify(key)
    await keys.flush()
    expect((await keys.usage({ key: id })).total.admitted).toBe(1)
  })

  it('makes no call to the store while a request is verified', async () => {
    const memory = memoryStore()
    const addUsage = vi.fn(memory.addUsage as NonNullable<KeyStore['addUsage']>)
    const { keys } = setUp({}, { ...memory, addUsage })
    const { key } = await issue(keys)
    for (let i = 0; i < 100; i += 1) await keys.verify(key)
    expect(addUsage).not.toHaveBeenCalled()
    await keys.close()
    expect(addUsage).toHaveBeenCalledTimes(1)
  })
})

describe('onAdmitted', () => {
  it('refuses what is no function', () => {
    expect(() => setUp({ onAdmitted: 'log' as never })).toThrow('"onAdmitted"')
  })

  it('hears of every admitted call that costs something, with what it was charged', async () => {
    const calls: unknown[] = []
    const rateLimits = [{ name: 'minute', limit: 10, windowMs: 60_000 }]
    const { keys } = setUp({ rateLimits, onAdmitted: (call) => calls.push(call) })
    const { key, id } = await issue(keys, { quota: { remaining: 5 } })
    await keys.verify(key, { ip: '192.0.2.1:8080' })
    await keys.verify(key, { cost: 0 })
    await keys.verify(key, { cost: { quota: 3 } })
    await keys.verify(key, { cost: 100 })
    expect(calls).toEqual([
      {
        apiKey: expect.objectContaining({ id }),
        at: new Date(NOON),
        ip: '192.0.2.1',
        units: { minute: 1, quota: 1 },
      },
      expect.objectContaining({ ip: null, units: { minute: 1, quota: 3 } }),
    ])
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('down')
      },
    ],
    ['rejects', () => Promise.reject(new Error('down'))],
  ])('admits the call and reports a fault if the listener %s', async (_how, onAdmitted) => {
    const { keys, events } = setUp({ onAdmitted })
    const { key } = await issue(keys)
    expect((await keys.verify(key)).ok).toBe(true)
    await Promise.resolve()
    expect(events).toContainEqual(expect.objectContaining({ type: 'fault', operation: 'admission_listener' }))
  })
})

describe('unusedPermissions', () => {
  const permissions = {
    projects: ['read', 'write', '*'],
    '*': ['export'],
    users: ['read'],
    'api-keys': ['verify'],
  }

  it.each([
    [{ days: 0 }, '"days" must be'],
    [{ days: 3_651 }, '"days" must be'],
    [{ day: 3 }, 'days'],
  ])('refuses %j', async (options, message) => {
    const { keys } = setUp()
    const { id } = await issue(keys)
    await expect(keys.unusedPermissions(id, options as never)).rejects.toThrow(message)
  })

  it('is null for an unknown key', async () => {
    expect(await setUp().keys.unusedPermissions('unknown')).toBeNull()
  })

  it('counts the most exact grant of each call, and refused calls not at all', async () => {
    const { keys } = setUp()
    const { key, id } = await issue(keys, { permissions })
    const requirements: PermissionRequirement[] = [
      { projects: ['read'] },
      { projects: ['archive'] },
      { reports: ['export'] },
      [{ reports: ['read'] }, { 'api-keys': ['verify'] }],
      { users: ['read'], reports: ['read'] },
    ]
    for (const required of requirements) await keys.verify(key, { permissions: required })
    const found = await keys.unusedPermissions(id)
    expect(found?.used).toEqual({ projects: ['read', '*'], '*': ['export'], 'api-keys': ['verify'] })
    expect(found?.unused).toEqual({ projects: ['write'], users: ['read'] })
  })

  it('counts a look, and what a guard reports', async () => {
    const { keys } = setUp()
    const { key, id } = await issue(keys, { permissions })
    const result = await keys.verify(key, { cost: 0, permissions: { projects: ['read'] } })
    if (!result.ok) throw new Error('refused')
    keys.report({ type: 'exercised', apiKey: result.apiKey, permissions: { users: ['read'] } })
    expect((await keys.unusedPermissions(id))?.used).toEqual({ projects: ['read'], users: ['read'] })
  })

  it('counts the grant of the key where its owner has fewer', async () => {
    const { keys } = setUp({ ownerPermissions: async () => ({ projects: ['read'] }) })
    const { key, id } = await issue(keys, { permissions: { '*': ['*'], users: ['read'] } })
    const result = await keys.verify(key, { permissions: [{ users: ['read'] }, { projects: ['read'] }] })
    if (!result.ok) throw new Error('refused')
    keys.report({ type: 'exercised', apiKey: result.apiKey, permissions: { projects: ['read'] } })
    expect((await keys.unusedPermissions(id))?.used).toEqual({ '*': ['*'] })
  })

  it('forgets uses from before, and counts those of predecessors', async () => {
    const { keys, clock } = setUp()
    const { key, id } = await issue(keys, { permissions })
    await keys.verify(key, { permissions: { users: ['read'] } })
    await clock.advance(40 * DAY)
    await keys.verify(key, { permissions: { projects: ['read'] } })
    const next = await keys.rotate(id)
    expect((await keys.unusedPermissions(next.apiKey.id))?.used).toEqual({ projects: ['read'] })
    expect((await keys.unusedPermissions(next.apiKey.id, { days: 60 }))?.used).toEqual({
      projects: ['read'],
      users: ['read'],
    })
  })

  it('watches the first 100 grants of a key, and names the others', async () => {
    const { keys } = setUp()
    const actions = Array.from({ length: 120 }, (_, i) => `a${i}`)
    const { key, id } = await issue(keys, { permissions: { x: actions } })
    await keys.verify(key, { permissions: { x: ['a0', 'a119'] } })
    const found = await keys.unusedPermissions(id)
    expect(found?.used).toEqual({ x: ['a0'] })
    expect(found?.unused.x).toHaveLength(99)
    expect(found?.unwatched.x).toEqual(actions.slice(100))
  })

  it('says since when uses are known', async () => {
    const { keys, clock } = setUp()
    const { key, id } = await issue(keys, { permissions })
    await clock.advance(5 * DAY)
    await keys.verify(key)
    await keys.flush()
    await clock.advance(40 * DAY)
    expect((await keys.unusedPermissions(id))?.since).toEqual(new Date(NOON + 15 * DAY))
    // Counting began 40 days ago, at the next full hour.
    expect((await keys.unusedPermissions(id, { days: 90 }))?.since).toEqual(
      new Date(NOON + 5 * DAY + HOUR / 2),
    )
  })
})

describe('rotate with onlyUsed', () => {
  it('narrows a key that is older than the days asked for, while the clock goes on', async () => {
    const clock = fakeClock(NOON)
    let ticks = 0
    const now = () => {
      ticks += 7
      return clock.now() + ticks
    }
    const { keys } = setUp({ clock: { now, setTimer: clock.setTimer } })
    const { key, id } = await issue(keys, { permissions: { projects: ['read', 'write'] } })
    await keys.verify(key)
    await keys.flush()
    await clock.advance(40 * DAY)
    await keys.verify(key, { permissions: { projects: ['read'] } })
    const { apiKey } = await keys.rotate(id, { onlyUsed: { days: 7 } })
    expect(apiKey.permissions).toEqual({ projects: ['read'] })
  })

  it('refuses what is not an option, and uses that are known for too short', async () => {
    const { keys, clock } = setUp()
    const { key, id } = await issue(keys, { permissions: { projects: ['read'] } })
    await expect(keys.rotate(id, { onlyUsed: { days: 0 } })).rejects.toThrow('"days" must be')
    await clock.advance(10 * DAY)
    await keys.verify(key)
    await expect(keys.rotate(id, { onlyUsed: {} })).rejects.toMatchObject({ code: 'conflict' })
    expect((await keys.get(id))?.rotatedTo).toBeNull()
  })

  it('gives the successor what calls needed, and what is not watched', async () => {
    const { keys, clock } = setUp()
    const actions = Array.from({ length: 101 }, (_, i) => `a${i}`)
    const first = await issue(keys, { permissions: {} })
    await keys.verify(first.key)
    await keys.flush()
    await clock.advance(HOUR)
    const { key, id } = await issue(keys, { permissions: { x: actions, y: ['read'] } })
    await keys.verify(key, { permissions: { x: ['a5'] } })
    const { apiKey } = await keys.rotate(id, { onlyUsed: {} })
    expect(apiKey.permissions).toEqual({ x: ['a5', 'a100'], y: ['read'] })
  })
})
