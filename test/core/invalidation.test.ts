import { type ApiKeys, memoryStore } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { fakeInvalidation } from '../support/fake-invalidation.ts'
import { recordingStore } from '../support/recording-store.ts'
import { ALICE, createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const UNAVAILABLE = expect.objectContaining({ code: 'unavailable', status: 503 })
const FAILURE = new Error('connection refused')
const VALID = expect.objectContaining({ ok: true })
const REVOKED = { ok: false, code: 'invalid_key', reason: 'revoked' }

type Options = Parameters<typeof createTestKeys>[0]

/** Two processes that have the store and messages in common, and a limiter each, which knows nothing of the other. */
function startTwo(options: Options = {}) {
  const clock = fakeClock()
  const inner = memoryStore()
  const invalidation = fakeInvalidation()
  const shared = { clock, invalidation, ...options }
  const here = createTestKeys({ ...shared, store: recordingStore(inner) })
  const there = createTestKeys({ ...shared, store: recordingStore(inner) })
  return { clock, invalidation, here, there }
}

/** The same with a key that both have at hand. */
async function shareKey(options?: Options) {
  const both = startTwo(options)
  const issued = await both.here.keys.issue(NAME)
  for (const { keys, store } of [both.here, both.there]) {
    expect(await keys.verify(issued.key)).toEqual(VALID)
    store.forgetCalls()
  }
  return { ...both, ...issued }
}

describe('a change that cannot be published', () => {
  const FAULTS: Record<string, () => unknown> = {
    throws: () => {
      throw FAILURE
    },
    rejects: () => Promise.reject(FAILURE),
  }
  it.each(Object.entries(FAULTS))('where it %s: resolves all the same, and says so', async (_how, fault) => {
    const { here, there, invalidation, clock, key, apiKey } = await shareKey()
    const unhandled = watchUnhandled()
    vi.spyOn(invalidation, 'publish').mockImplementation(fault as never)
    expect(await here.keys.revoke(apiKey.id)).toMatchObject({ revokedAt: expect.any(Date) })
    expect(here.eventsOf('fault')).toEqual([
      { type: 'fault', at: expect.any(Date), operation: 'invalidation', error: FAILURE },
    ])
    expect(here.eventsOf('key.revoked')).toHaveLength(1)
    expect(here.eventsOf('change.delayed')).toEqual([])
    expect(await here.keys.verify(key)).toEqual(REVOKED)
    // The bound is what it was: the age of the cache.
    await clock.advance(5_000)
    expect(await there.keys.verify(key)).toEqual(REVOKED)
    expect(await unhandled()).toEqual([])
  })

  it('where it hangs: resolves after timeoutMs', async () => {
    const { here, invalidation, clock, apiKey } = await shareKey({ timeoutMs: 500 })
    vi.spyOn(invalidation, 'publish').mockImplementation(() => new Promise(() => {}))
    let isRevoked = false
    const revoking = here.keys.revoke(apiKey.id).then(() => {
      isRevoked = true
    })
    await clock.advance(499)
    expect(isRevoked).toBe(false)
    await clock.advance(1)
    await revoking
    expect(here.eventsOf('fault')).toMatchObject([{ operation: 'invalidation' }])
  })
})

describe('a change', () => {
  const CHANGES: Record<string, (keys: ApiKeys, id: string) => Promise<unknown>> = {
    update: (keys, id) => keys.update(id, { name: 'CD' }),
    disable: (keys, id) => keys.disable(id),
    revoke: (keys, id) => keys.revoke(id),
    rotate: (keys, id) => keys.rotate(id),
    invalidateOwner: (keys) => keys.invalidateOwner(ALICE),
    revokeOwner: (keys) => keys.revokeOwner(ALICE),
  }
  it.each(Object.entries(CHANGES))('by %s is published once it is committed', async (_name, change) => {
    const { here, invalidation, apiKey } = await shareKey()
    const versions: unknown[] = []
    const publish = vi.spyOn(invalidation, 'publish').mockImplementation(async () => {
      versions.push((await here.keys.get(apiKey.id))?.version)
    })
    await change(here.keys, apiKey.id)
    expect(publish.mock.calls).toEqual([[[{ keyId: apiKey.id, version: 2 }]]])
    expect(versions).toEqual([2])
  })

  it('of many keys is published page by page', async () => {
    const { here, invalidation } = startTwo()
    const issued = await Promise.all(Array.from({ length: 501 }, () => here.keys.issue(NAME)))
    await here.keys.revokeOwner(ALICE)
    expect(invalidation.published.map(({ length }) => length)).toEqual([500, 1])
    expect(new Set(invalidation.published.flat().map(({ keyId }) => keyId))).toEqual(
      new Set(issued.map(({ apiKey }) => apiKey.id)),
    )
  })

  it('is published at once also where the limiter cannot be told', async () => {
    const { here, there, clock, key, apiKey } = await shareKey()
    vi.spyOn(here.limiter, 'raiseVersions').mockImplementation(() => Promise.reject(FAILURE))
    const revoking = here.keys.revoke(apiKey.id)
    await settle()
    expect(await there.keys.verify(key)).toEqual(REVOKED)
    await clock.advance(5_000)
    await revoking
  })

  it('is not what issuing a key is', async () => {
    const { here, invalidation } = startTwo()
    await here.keys.issue(NAME)
    expect(invalidation.published).toEqual([])
  })
})

describe('a process that hears of a change', () => {
  it('refuses the older version at once', async () => {
    const { here, there, key, apiKey } = await shareKey()
    await here.keys.revoke(apiKey.id)
    expect(await there.keys.verify(key)).toEqual(REVOKED)
  })

  it('would otherwise admit it until its cache has aged', async () => {
    const { here, there, invalidation, clock, key, apiKey } = await shareKey()
    vi.spyOn(invalidation, 'publish').mockReturnValue(undefined)
    await here.keys.revoke(apiKey.id)
    await clock.advance(4_999)
    expect(await there.keys.verify(key)).toEqual(VALID)
    await clock.advance(1)
    expect(await there.keys.verify(key)).toEqual(REVOKED)
  })

  it('does not admit by a load that was under way', async () => {
    const { here, there } = startTwo()
    const { key, apiKey } = await here.keys.issue(NAME)
    const load = there.store.hold('find')
    const verifying = there.keys.verify(key)
    await load.reached
    await here.keys.revoke(apiKey.id)
    load.release()
    expect(await verifying).toEqual(REVOKED)
    expect(await there.keys.verify(key)).toEqual(REVOKED)
  })

  it('asks about the owner again whose keys were invalidated', async () => {
    let isActive = true
    const { here, there, key } = await shareKey({ isOwnerActive: () => isActive, ownerMaxAgeMs: 60_000 })
    isActive = false
    expect(await there.keys.verify(key)).toEqual(VALID)
    await here.keys.invalidateOwner(ALICE)
    expect(await there.keys.verify(key)).toMatchObject({ reason: 'owner_inactive' })
  })

  it('reads nothing again for a version that it has, for an older one, or for a key that it has not', async () => {
    const { there, invalidation, key, apiKey } = await shareKey()
    invalidation.publish([
      { keyId: apiKey.id, version: 1 },
      { keyId: apiKey.id, version: 0 },
      { keyId: 'A'.repeat(16), version: 7 },
    ])
    expect(await there.keys.verify(key)).toEqual(VALID)
    expect(there.store.calls()).toBe(0)
  })

  it('can be made unable to verify a key by a version that there is not, and never to admit or refuse it', async () => {
    const { there, invalidation, key, apiKey } = await shareKey()
    const other = await there.keys.issue(NAME)
    invalidation.publish([{ keyId: apiKey.id, version: 1_000 }])
    await expect(there.keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(await there.keys.verify(other.key)).toEqual(VALID)
  })
})

describe('a process that may have missed changes', () => {
  it('reads every key again, also one that there was not', async () => {
    const { here, there, invalidation, key, apiKey } = await shareKey()
    const unknown = forgeKey(key, { keyId: 'A'.repeat(16) })
    expect(await there.keys.verify(unknown)).toMatchObject({ reason: 'unknown' })
    vi.spyOn(invalidation, 'publish').mockReturnValue(undefined)
    await here.keys.revoke(apiKey.id)
    there.store.forgetCalls()
    for (const listener of invalidation.listeners) listener.missed()
    expect(await there.keys.verify(key)).toEqual(REVOKED)
    expect(await there.keys.verify(unknown)).toMatchObject({ reason: 'unknown' })
    expect(there.store.calls('find')).toBe(2)
  })

  it.each([
    ['a key', false],
    ['the lack of a key', true],
  ])('does not keep %s that is being read', async (_what, isUnknown) => {
    const { here, there, invalidation } = startTwo()
    const { key } = await here.keys.issue(NAME)
    const presented = isUnknown ? forgeKey(key, { keyId: 'A'.repeat(16) }) : key
    const load = there.store.hold('find')
    const verifying = there.keys.verify(presented)
    await load.reached
    for (const listener of invalidation.listeners) listener.missed()
    load.release()
    await verifying
    there.store.forgetCalls()
    await there.keys.verify(presented)
    expect(there.store.calls('find')).toBe(1)
    await there.keys.verify(presented)
    expect(there.store.calls('find')).toBe(1)
  })

  it('does not admit by a load that was under way whoever asks afterwards', async () => {
    const { here, there, invalidation, clock } = startTwo()
    const { key, apiKey } = await here.keys.issue(NAME)
    // The limiter there knows the version that is about to be left behind.
    expect(await there.keys.verify(key)).toEqual(VALID)
    await clock.advance(5_000)
    const load = there.store.hold('find')
    const verifying = there.keys.verify(key)
    await load.reached
    vi.spyOn(invalidation, 'publish').mockReturnValue(undefined)
    await here.keys.revoke(apiKey.id)
    for (const listener of invalidation.listeners) listener.missed()
    const asked = there.keys.verify(key)
    load.release()
    expect(await asked).toEqual(REVOKED)
    await verifying
  })

  it('reports why, where that is known', async () => {
    const { there, invalidation } = startTwo()
    for (const listener of invalidation.listeners) listener.missed()
    expect(there.events).toEqual([])
    for (const listener of invalidation.listeners) listener.missed(FAILURE)
    expect(there.events).toEqual([
      { type: 'fault', at: expect.any(Date), operation: 'invalidation', error: FAILURE },
    ])
  })
})

describe('close()', () => {
  it('ends the listening, and waits for that', async () => {
    let isStopped = false
    const listen = vi.fn(() => async () => {
      await settle()
      isStopped = true
    })
    const { keys } = createTestKeys({ invalidation: { publish() {}, listen } })
    expect(listen).toHaveBeenCalledTimes(1)
    await keys.close()
    expect(isStopped).toBe(true)
  })

  it('ends it for its own process only', async () => {
    const { here, there, invalidation, key, apiKey } = await shareKey()
    expect(invalidation.listeners.size).toBe(2)
    await there.keys.close()
    await there.keys.close()
    expect(invalidation.listeners.size).toBe(1)
    await here.keys.revoke(apiKey.id)
    expect(await here.keys.verify(key)).toEqual(REVOKED)
  })
})
