import { type ApiKey, type ApiKeys, type KeyEndReason, memoryStore, type OnEndOptions } from 'latchkey'
import { plainTextFormat } from 'latchkey/import'
import { describe, expect, it, vi } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { fakeInvalidation } from '../support/fake-invalidation.ts'
import { hangs, recordingStore, rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys, NAME, type TestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

type Options = Parameters<typeof createTestKeys>[0]

/** A verified key, and why its connection was told to end. */
async function watchKey(
  world: TestKeys,
  { issue, watch }: { issue?: Partial<Parameters<ApiKeys['issue']>[0]>; watch?: OnEndOptions } = {},
) {
  const { key } = await world.keys.issue({ ...NAME, ...issue })
  const result = await world.keys.verify(key, watch)
  if (!result.ok) throw new Error(result.code)
  const { apiKey } = result
  const reasons: KeyEndReason[] = []
  const stop = world.keys.onEnd(apiKey, (reason) => reasons.push(reason), watch)
  await settle()
  return { key, apiKey, reasons, stop }
}

/** Two processes that share a store, and messages if `invalidation` is given. */
function startTwo(options: Options = {}) {
  const clock = fakeClock()
  const inner = memoryStore()
  const here = createTestKeys({ clock, ...options, store: recordingStore(inner) })
  const there = createTestKeys({ clock, ...options, store: recordingStore(inner) })
  return { clock, here, there }
}

describe('onEnd()', () => {
  const CHANGES: [string, KeyEndReason, (keys: ApiKeys, apiKey: ApiKey) => Promise<unknown>][] = [
    ['is revoked', 'revoked', (keys, { id }) => keys.revoke(id)],
    ['is disabled', 'disabled', (keys, { id }) => keys.disable(id)],
    ['is rotated without grace', 'expired', (keys, { id }) => keys.rotate(id, { graceMs: 0 })],
    ['belongs to an owner whose keys are revoked', 'revoked', (keys) => keys.revokeOwner(ALICE)],
    [
      'loses a permission',
      'insufficient_permissions',
      (keys, { id }) => keys.update(id, { permissions: { chat: ['write'] } }),
    ],
    [
      'may no longer come from the address',
      'address_not_allowed',
      (keys, { id }) => keys.update(id, { allowedIps: ['203.0.113.8'] }),
    ],
  ]
  const WATCHED = {
    issue: { permissions: { chat: ['read', 'write'] } },
    watch: { permissions: { chat: ['read'] }, ip: '203.0.113.7' },
  }

  it.each(CHANGES)('tells at once and once when a key %s here', async (_what, reason, change) => {
    const world = createTestKeys()
    const { apiKey, reasons } = await watchKey(world, WATCHED)
    await change(world.keys, apiKey)
    await settle()
    expect(reasons).toEqual([reason])
    await world.keys.revoke(apiKey.id)
    await world.clock.advance(DAY_MS)
    expect(reasons).toEqual([reason])
    expect(world.clock.waiting).toBe(0)
  })

  it.each(CHANGES)('tells at once by a message when a key %s elsewhere', async (_what, reason, change) => {
    const { here, there } = startTwo({ invalidation: fakeInvalidation() })
    const { apiKey, reasons } = await watchKey(here, WATCHED)
    await change(there.keys, apiKey)
    await settle()
    expect(reasons).toEqual([reason])
  })

  it.each(CHANGES)(
    'tells within cache.maxAgeMs when a key %s elsewhere, without messages',
    async (_what, reason, change) => {
      const { here, there, clock } = startTwo({ cache: { maxAgeMs: 8_000 } })
      const { apiKey, reasons } = await watchKey(here, WATCHED)
      await clock.advance(60_001)
      await change(there.keys, apiKey)
      await clock.advance(8_000)
      expect(reasons).toEqual([reason])
    },
  )

  it('says nothing of changes that leave the key what it needs', async () => {
    const world = createTestKeys()
    const { apiKey, reasons } = await watchKey(world, WATCHED)
    await world.keys.update(apiKey.id, {
      name: 'CD',
      permissions: { chat: ['read'] },
      allowedIps: ['203.0.113.0/24'],
    })
    await world.clock.advance(10 * MINUTE_MS)
    expect(reasons).toEqual([])
  })

  it('checks no address where none is given', async () => {
    const world = createTestKeys()
    const allowedIps = ['203.0.113.7']
    const { key } = await world.keys.issue({ ...NAME, allowedIps })
    const result = await world.keys.verify(key, { ip: '203.0.113.7' })
    if (!result.ok) throw new Error(result.code)
    const reasons: KeyEndReason[] = []
    world.keys.onEnd(result.apiKey, (reason) => reasons.push(reason))
    await settle()
    expect(reasons).toEqual([])
    await world.keys.revoke(result.apiKey.id)
    await settle()
    expect(reasons).toEqual(['revoked'])
  })

  it('tells when the record is gone', async () => {
    const { here, clock } = startTwo()
    const { apiKey, reasons } = await watchKey(here)
    here.store.fail('find', async () => null)
    await clock.advance(5_000)
    expect(reasons).toEqual(['unknown'])
    here.keys.onEnd(apiKey, (reason) => reasons.push(reason))
    here.keys.onEnd('no-such-key', (reason) => reasons.push(reason))
    await settle()
    expect(reasons).toEqual(['unknown', 'unknown', 'unknown'])
  })

  it('takes a key that was given the same id since for another one', async () => {
    const world = createTestKeys()
    const { apiKey, reasons } = await watchKey(world)
    world.keys.onEnd({ id: apiKey.id, lineageId: 'another' }, (reason) => reasons.push(reason))
    await settle()
    expect(reasons).toEqual(['unknown'])
  })

  it('takes an id, and tells of a key that has ended already, after it has returned', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    await keys.revoke(apiKey.id)
    const reasons: KeyEndReason[] = []
    keys.onEnd(apiKey.id, (reason) => reasons.push(reason))
    expect(reasons).toEqual([])
    await settle()
    expect(reasons).toEqual(['revoked'])
  })

  it('finds an imported key by its id', async () => {
    const format = plainTextFormat()
    const { here, there } = startTwo({ formats: [format], invalidation: fakeInvalidation() })
    const { id } = await there.keys.import(format.read({ key: 'k'.repeat(40), ...NAME }))
    const reasons: KeyEndReason[] = []
    here.keys.onEnd(id, (reason) => reasons.push(reason))
    await settle()
    expect(reasons).toEqual([])
    await there.keys.revoke(id)
    await settle()
    expect(reasons).toEqual(['revoked'])
  })

  it.each([
    ['an hour', HOUR_MS],
    ['90 days, more than a timer of Node can hold', 90 * DAY_MS],
  ])('tells when a key expires, after %s', async (_what, ms) => {
    const world = createTestKeys({ cache: { maxAgeMs: DAY_MS } })
    const { reasons } = await watchKey(world, {
      issue: { expiresAt: new Date(world.clock.now() + ms) },
    })
    await world.clock.advance(ms - 1)
    expect(reasons).toEqual([])
    await world.clock.advance(1)
    expect(reasons).toEqual(['expired'])
  })

  it('follows an end that is moved elsewhere', async () => {
    const { here, there, clock } = startTwo({ invalidation: fakeInvalidation() })
    const { apiKey, reasons } = await watchKey(here, {
      issue: { expiresAt: new Date(clock.now() + 10 * MINUTE_MS) },
    })
    await there.keys.update(apiKey.id, { expiresAt: new Date(clock.now() + 20 * MINUTE_MS) })
    await clock.advance(20 * MINUTE_MS - 1)
    expect(reasons).toEqual([])
    await clock.advance(1)
    expect(reasons).toEqual(['expired'])
  })

  it('tells of the old key when the grace of its rotation ends', async () => {
    const world = createTestKeys()
    const { apiKey, reasons } = await watchKey(world)
    await world.keys.rotate(apiKey.id, { graceMs: 10 * MINUTE_MS })
    await world.clock.advance(10 * MINUTE_MS - 1)
    expect(reasons).toEqual([])
    await world.clock.advance(1)
    expect(reasons).toEqual(['expired'])
  })

  it('counts no use, so that an idle key ends', async () => {
    const world = createTestKeys()
    const { apiKey, reasons } = await watchKey(world, { issue: { idleExpiryMs: HOUR_MS } })
    await world.clock.advance(HOUR_MS)
    expect(reasons).toEqual([])
    await world.clock.advance(60_000)
    expect(reasons).toEqual(['idle'])
    expect(await world.keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
  })

  it('spends nothing', async () => {
    const world = createTestKeys({ rateLimits: [{ name: 'day', limit: 2, windowMs: DAY_MS }] })
    const { key } = await watchKey(world)
    await world.clock.advance(10 * MINUTE_MS)
    expect(await world.keys.verify(key)).toMatchObject({ ok: true, limits: [{ remaining: 0 }] })
  })

  it('asks about the owner again, and about what the owner may do', async () => {
    let isActive = true
    const world = createTestKeys({ isOwnerActive: () => isActive })
    const first = await watchKey(world)
    isActive = false
    await world.clock.advance(10_000)
    expect(first.reasons).toEqual(['owner_inactive'])

    let permissions: Record<string, string[]> | null = null
    const other = createTestKeys({ ownerPermissions: () => permissions })
    const second = await watchKey(other, WATCHED)
    permissions = { chat: ['write'] }
    await other.keys.invalidateOwner(ALICE)
    await settle()
    expect(second.reasons).toEqual(['insufficient_permissions'])
  })

  it('looks again for a change that comes during a look', async () => {
    const { here, there, clock } = startTwo({ invalidation: fakeInvalidation() })
    const { apiKey, reasons } = await watchKey(here)
    const read = here.store.hold('find')
    await clock.advance(5_000)
    await read.reached
    await there.keys.revoke(apiKey.id)
    read.release()
    await settle()
    await settle()
    expect(reasons).toEqual(['revoked'])
  })

  it('looks again for a change that comes while it asks about the owner', async () => {
    const asked: ((isActive: boolean) => void)[] = []
    let isSlow = false
    const isOwnerActive = () => (isSlow ? new Promise<boolean>((resolve) => asked.push(resolve)) : true)
    const { here, there, clock } = startTwo({
      invalidation: fakeInvalidation(),
      isOwnerActive,
      ownerMaxAgeMs: false,
    })
    const { apiKey, reasons } = await watchKey(here)
    isSlow = true
    await clock.advance(5_000)
    await there.keys.revoke(apiKey.id)
    expect([asked.length, reasons]).toEqual([1, []])
    asked[0]?.(true)
    await settle()
    expect(reasons).toEqual(['revoked'])
  })

  it('looks again at every key when messages may have been lost', async () => {
    const invalidation = fakeInvalidation()
    const { here, there } = startTwo({ invalidation })
    const watched = await watchKey(here)
    vi.spyOn(invalidation, 'publish').mockReturnValue(undefined)
    await there.keys.revoke(watched.apiKey.id)
    await settle()
    expect(watched.reasons).toEqual([])
    for (const listener of invalidation.listeners) listener.missed()
    await settle()
    expect(watched.reasons).toEqual(['revoked'])
  })
})

describe('a store that cannot be read', () => {
  it.each([
    ['fails', rejects(new Error('connection refused')), 5_000],
    ['hangs', hangs, 10_000],
  ])('and %s: leaves connections open, says so, and is asked again', async (_how, fault, within) => {
    const { here, there, clock } = startTwo()
    const { apiKey, reasons } = await watchKey(here)
    here.store.fail('find', fault)
    await there.keys.revoke(apiKey.id)
    await clock.advance(60_000)
    expect(reasons).toEqual([])
    expect(here.eventsOf('fault')[0]).toMatchObject({ operation: 'store' })
    expect(here.eventsOf('fault').length).toBeLessThan(15)
    here.store.heal()
    await clock.advance(within)
    expect(reasons).toEqual(['revoked'])
  })

  it('does not keep a key alive beyond its end', async () => {
    const { here, clock } = startTwo()
    const { reasons } = await watchKey(here, { issue: { expiresAt: new Date(clock.now() + 10 * MINUTE_MS) } })
    await clock.advance(1_000)
    here.store.fail('find', rejects(new Error('connection refused')))
    await clock.advance(10 * MINUTE_MS - 1_001)
    expect(reasons).toEqual([])
    await clock.advance(1)
    expect(reasons).toEqual(['expired'])
  })
})

describe('the listeners of a key', () => {
  it('are told apart by what each needs', async () => {
    const world = createTestKeys()
    const { apiKey, reasons } = await watchKey(world, { issue: { permissions: { a: ['x'], b: ['x'] } } })
    const told: string[] = []
    for (const name of ['a', 'b']) {
      world.keys.onEnd(apiKey, (reason) => told.push(`${name} ${reason}`), { permissions: { [name]: ['x'] } })
    }
    await world.keys.update(apiKey.id, { permissions: { a: ['x'] } })
    await settle()
    expect([told, reasons]).toEqual([['b insufficient_permissions'], []])
    await world.keys.revoke(apiKey.id)
    await settle()
    expect([told, reasons]).toEqual([['b insufficient_permissions', 'a revoked'], ['revoked']])
  })

  it('do not harm each other by throwing, rejecting, or stopping one another', async () => {
    const unhandled = watchUnhandled()
    const world = createTestKeys()
    const { apiKey } = await watchKey(world)
    const told: string[] = []
    world.keys.onEnd(apiKey, () => {
      throw new Error('socket is gone')
    })
    world.keys.onEnd(apiKey, () => Promise.reject(new Error('socket is gone too')))
    world.keys.onEnd(apiKey, () => stopLast())
    world.keys.onEnd(apiKey, () => told.push('third'))
    const stopLast = world.keys.onEnd(apiKey, () => told.push('never'))
    await world.keys.revoke(apiKey.id)
    await settle()
    expect(told).toEqual(['third'])
    expect(world.eventsOf('fault').map(({ operation }) => operation)).toEqual([
      'end_listener',
      'end_listener',
    ])
    expect(await unhandled()).toEqual([])
  })

  it('cost one read of the store together, every cache.maxAgeMs at most', async () => {
    const world = createTestKeys()
    const { apiKey, reasons } = await watchKey(world)
    for (let i = 0; i < 5_000; i += 1) world.keys.onEnd(apiKey, (reason) => reasons.push(reason))
    await settle()
    world.store.forgetCalls()
    await world.clock.advance(60_000)
    expect(world.store.calls()).toBeGreaterThanOrEqual(12)
    expect(world.store.calls()).toBeLessThanOrEqual(16)
    await world.keys.revoke(apiKey.id)
    await settle()
    expect(reasons).toHaveLength(5_001)
  })

  it('cost no read of the store where the key is in use', async () => {
    const world = createTestKeys()
    const { key } = await watchKey(world)
    world.store.forgetCalls()
    for (let i = 0; i < 60; i += 1) {
      await world.keys.verify(key)
      await world.clock.advance(1_000)
    }
    const watched = world.store.calls('find')
    const alone = createTestKeys()
    const issued = await alone.keys.issue(NAME)
    for (let i = 0; i < 60; i += 1) {
      await alone.keys.verify(issued.key)
      await alone.clock.advance(1_000)
    }
    expect(watched).toBeLessThanOrEqual(alone.store.calls('find') + 4)
  })

  it('of many keys ask the store a few at a time', async () => {
    const world = createTestKeys()
    let [running, most] = [0, 0]
    for (let i = 0; i < 200; i += 1) await watchKey(world)
    world.store.fail('find', async (work) => {
      running += 1
      most = Math.max(most, running)
      await new Promise((resolve) => world.clock.setTimer(() => resolve(null), 1))
      running -= 1
      return work()
    })
    world.store.forgetCalls()
    await world.clock.advance(10_000)
    expect(world.store.calls('find')).toBeGreaterThanOrEqual(400)
    expect(most).toBe(10)
  })

  it('of a changed key are told while looks at others hang', async () => {
    const { here, there, clock } = startTwo({ invalidation: fakeInvalidation() })
    const watched = []
    for (let i = 0; i < 30; i += 1) watched.push(await watchKey(here))
    const [last] = watched.slice(-1) as [(typeof watched)[0]]
    here.store.fail('find', (work, by) =>
      lookupsIn(by).includes(last.apiKey.id) ? work() : new Promise(() => {}),
    )
    await clock.advance(5_000)
    await there.keys.revoke(last.apiKey.id)
    await settle()
    expect(last.reasons).toEqual(['revoked'])
  })

  it('leave nothing behind when they stop or are dropped', async () => {
    const world = createTestKeys({ usage: { keepDays: 0 } })
    const { stop, reasons, apiKey } = await watchKey(world)
    const stopOther = world.keys.onEnd(apiKey, (reason) => reasons.push(reason))
    stop()
    stop()
    stopOther()
    await settle()
    expect(world.clock.waiting).toBe(0)
    await world.keys.revoke(apiKey.id)
    await settle()
    expect(reasons).toEqual([])
  })

  it('are forgotten by close(), without a call', async () => {
    const world = createTestKeys()
    const { reasons, apiKey } = await watchKey(world, {
      issue: { expiresAt: new Date(world.clock.now() + HOUR_MS) },
    })
    await world.keys.close()
    expect(world.clock.waiting).toBe(0)
    await world.clock.advance(DAY_MS)
    expect(reasons).toEqual([])
    expect(() => world.keys.onEnd(apiKey, () => {})).toThrow(expect.objectContaining({ code: 'unavailable' }))
  })
})

describe('wrong arguments', () => {
  const { keys } = createTestKeys()
  it.each([
    ['no key', () => keys.onEnd(undefined as never, () => {}), '"key" must be the id of a key'],
    ['a key without a lineage', () => keys.onEnd({ id: 'x' } as never, () => {}), '"key.lineageId"'],
    ['no listener', () => keys.onEnd('x', undefined as never), '"listener" must be a function'],
    [
      'a misspelt option',
      () => keys.onEnd('x', () => {}, { permission: {} } as never),
      'did you mean "permissions"',
    ],
    [
      'permissions that require nothing',
      () => keys.onEnd('x', () => {}, { permissions: {} }),
      'at least one resource',
    ],
  ])('are a TypeError that names them: %s', (_what, call, message) => {
    expect(call).toThrow(TypeError)
    expect(call).toThrow(message)
  })
})

function lookupsIn(by: unknown): readonly string[] {
  return (by as { lookups: readonly string[] }).lookups
}
