import { LatchkeyError, type UsageDelta } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { settle } from '../support/fake-clock.ts'
import { hangs, type RecordingStore, recordingStore, rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys, type TestKeys } from '../support/test-keys.ts'

const NAME = { owner: ALICE, name: 'CI' }

/** A key whose first use is written already: what follows is gathered. */
async function issueUsed({ keys, store }: TestKeys) {
  const issued = await keys.issue(NAME)
  await keys.verify(issued.key, { cost: 0 })
  await settle()
  store.forgetCalls()
  return issued
}

const batchesOf = (store: RecordingStore) =>
  store.argumentsOf('recordUsage').map(([batch]) => batch as UsageDelta[])

describe('a write of uses that fails', () => {
  it('harms no verification, keeps the counts, and they arrive with the next', async () => {
    const world = createTestKeys()
    const { keys, store, clock, eventsOf } = world
    const { key, apiKey } = await issueUsed(world)
    store.fail('recordUsage', rejects(new Error('read only')))
    for (let i = 0; i < 3; i++) {
      for (let j = 0; j < 5; j++)
        expect(await keys.verify(key, { ip: '192.0.2.1' })).toMatchObject({ ok: true })
      await clock.advance(10_000)
    }
    expect(eventsOf('fault').map(({ operation }) => operation)).toEqual(['usage', 'usage', 'usage'])
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 0, lastUsedIp: null })
    store.heal()
    await clock.advance(10_000)
    expect(await keys.get(apiKey.id)).toMatchObject({
      usageCount: 15,
      lastUsedAt: new Date(clock.now() - 20_000),
      lastUsedIp: '192.0.2.1',
    })
  })

  it('does not let older uses overwrite what was seen since', async () => {
    const world = createTestKeys()
    const { keys, store, clock } = world
    const { key, apiKey } = await issueUsed(world)
    await keys.verify(key, { ip: '192.0.2.1' })
    store.fail('recordUsage', async () => {
      await keys.verify(key, { ip: '192.0.2.2' })
      throw new Error('read only')
    })
    await clock.advance(10_000)
    const lastUsedAt = new Date(clock.now())
    store.heal()
    await clock.advance(10_000)
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 2, lastUsedAt, lastUsedIp: '192.0.2.2' })
  })

  it('is not made again while it may still be carried out, and counts once when it is', async () => {
    const world = createTestKeys({ timeoutMs: 500 })
    const { keys, store, clock, eventsOf } = world
    const { key, apiKey } = await issueUsed(world)
    await keys.verify(key)
    let wake = () => {}
    const asleep = new Promise<void>((resolve) => {
      wake = resolve
    })
    store.fail('recordUsage', async (work) => {
      await asleep
      return work()
    })
    await clock.advance(10_500)
    await keys.verify(key)
    await clock.advance(30_000)
    expect(store.calls('recordUsage')).toBe(1)
    // It is said each time that it is still waited for.
    expect(eventsOf('fault').map(({ operation }) => operation)).toEqual(Array(3).fill('usage'))
    wake()
    await settle()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
    await clock.advance(10_000)
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 2 })
    expect(store.calls('recordUsage')).toBe(2)
  })

  it('after a long silence is made again without another use', async () => {
    const world = createTestKeys({ timeoutMs: 500 })
    const { keys, store, clock } = world
    const { key, apiKey } = await issueUsed(world)
    await keys.verify(key)
    let end = () => {}
    const asleep = new Promise<never>((_resolve, reject) => {
      end = () => reject(new Error('connection lost'))
    })
    store.fail('recordUsage', () => asleep)
    await clock.advance(10_500)
    store.heal()
    end()
    await settle()
    await clock.advance(10_000)
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
  })

  it('by hanging ends after timeoutMs and does not hold up close() for longer', async () => {
    const world = createTestKeys({ timeoutMs: 500 })
    const { keys, store, clock } = world
    const { key } = await issueUsed(world)
    await keys.verify(key)
    store.fail('recordUsage', hangs)
    let isClosed = false
    const closing = keys.close().then(() => {
      isClosed = true
    })
    await clock.advance(499)
    expect(isClosed).toBe(false)
    await clock.advance(1)
    await closing
  })
})

describe('uses', () => {
  it('are never written one by one', async () => {
    const world = createTestKeys()
    const { keys, store, clock } = world
    const { key, apiKey } = await issueUsed(world)
    for (let i = 0; i < 1_000; i++) await keys.verify(key)
    expect(store.calls('recordUsage')).toBe(0)
    await clock.advance(9_999)
    expect(store.calls('recordUsage')).toBe(0)
    await clock.advance(1)
    expect(batchesOf(store)).toMatchObject([[{ id: apiKey.id, count: 1_000 }]])
    await clock.advance(60_000)
    expect(store.calls('recordUsage')).toBe(1)
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1_000, version: 1 })
  })

  it('of many keys are written together, in batches of a bounded size', async () => {
    const { keys, store, clock } = createTestKeys()
    const issued = await Promise.all(Array.from({ length: 1_201 }, () => keys.issue(NAME)))
    for (const { key } of issued) await keys.verify(key)
    await keys.flush()
    store.forgetCalls()
    for (const { key } of issued) await keys.verify(key)
    await clock.advance(10_000)
    expect(batchesOf(store).map((batch) => batch.length)).toEqual([500, 500, 201])
    expect(new Set(batchesOf(store).flatMap((batch) => batch.map(({ id }) => id))).size).toBe(1_201)
  })

  it('are gathered for flushMs', async () => {
    const world = createTestKeys({ usage: { flushMs: 200 } })
    const { keys, store, clock } = world
    const { key } = await issueUsed(world)
    await keys.verify(key)
    await clock.advance(200)
    expect(store.calls('recordUsage')).toBe(1)
  })

  it('keep the latest time and its address', async () => {
    const world = createTestKeys()
    const { keys, clock, store } = world
    const { key, apiKey } = await issueUsed(world)
    await keys.verify(key, { ip: '192.0.2.1' })
    await clock.advance(2_000)
    await keys.verify(key, { ip: '192.0.2.2' })
    const lastUsedAt = new Date(clock.now())
    clock.set(clock.now() - 1_000)
    await keys.verify(key, { ip: '192.0.2.3' })
    await keys.close()
    const expected = { id: apiKey.id, count: 3, lastUsedAt, lastUsedIp: '192.0.2.2' }
    expect(batchesOf(store)).toEqual([[expected]])
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 3, lastUsedAt, lastUsedIp: '192.0.2.2' })
  })

  it('are not counted where the call is refused', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue(NAME)
    await keys.verify(key, { permissions: { projects: ['read'] } })
    await keys.verify(`${key}?`)
    await keys.close()
    expect(batchesOf(store).flat()).toEqual([])
  })

  it('are noted but not counted where the call costs nothing', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    await keys.verify(key, { cost: 0 })
    await keys.verify(key, { cost: 5 })
    await clock.advance(1_000)
    await keys.verify(key, { cost: 0 })
    await keys.close()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1, lastUsedAt: new Date(clock.now()) })
  })

  it('are written by close(), which then leaves no timer behind', async () => {
    const world = createTestKeys()
    const { keys, store, clock } = world
    const { key, apiKey } = await issueUsed(world)
    await keys.verify(key)
    await keys.close()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
    expect(store.calls('recordUsage')).toBe(1)
    expect(clock.waiting).toBe(0)
  })

  it('that a write under way does not hold are written by close() too', async () => {
    const world = createTestKeys()
    const { keys, store, clock } = world
    const { key, apiKey } = await issueUsed(world)
    await keys.verify(key)
    const held = store.hold('recordUsage')
    await clock.advance(10_000)
    await held.reached
    await keys.verify(key)
    const closing = keys.close()
    held.release()
    await closing
    await settle()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 2 })
    expect(clock.waiting).toBe(0)
  })

  it('of more than maxEntries keys are dropped, and reported', async () => {
    const { keys, store, clock, eventsOf } = createTestKeys({ usage: { maxEntries: 2 } })
    const issued = await Promise.all(Array.from({ length: 4 }, () => keys.issue(NAME)))
    for (const { key } of issued) {
      await keys.verify(key, { cost: 0 })
      await keys.flush()
    }
    store.forgetCalls()
    for (const { key } of [...issued, ...issued]) expect(await keys.verify(key)).toMatchObject({ ok: true })
    await clock.advance(10_000)
    expect(batchesOf(store)).toEqual([
      issued.slice(0, 2).map(({ apiKey }) => expect.objectContaining({ id: apiKey.id, count: 2 })),
    ])
    const [fault] = eventsOf('fault')
    expect(fault).toMatchObject({ operation: 'usage', error: { message: expect.stringMatching(/^4 uses/) } })
  })
})

describe('a store without recordUsage', () => {
  it('works, and refuses idle expiry by name', async () => {
    const store = { ...recordingStore(), recordUsage: undefined }
    const { keys, clock } = createTestKeys({ store: store as never, usage: { keepDays: 0 } })
    const { key, apiKey } = await keys.issue({ ...NAME, idleExpiryMs: null })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(clock.waiting).toBe(0)
    const UNSUPPORTED = expect.objectContaining({
      code: 'unsupported',
      message: expect.stringMatching(/"idleExpiryMs".*"recordUsage"/),
    })
    await expect(keys.issue({ ...NAME, idleExpiryMs: 60_000 })).rejects.toEqual(UNSUPPORTED)
    await expect(keys.update(apiKey.id, { idleExpiryMs: 60_000 })).rejects.toEqual(UNSUPPORTED)
    await keys.close()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 0, idleExpiryMs: null, version: 1 })
  })
})

describe('a use that the store cannot keep', () => {
  const UNKEPT = 'an address without its characters'

  it('goes without its address, and holds up no other', async () => {
    const { keys, store, clock, eventsOf } = createTestKeys()
    store.fail('recordUsage', async (work, batch) => {
      const isKept = (batch as UsageDelta[]).every(({ lastUsedIp }) => !lastUsedIp?.startsWith(UNKEPT))
      if (!isKept) throw new LatchkeyError('unsupported')
      return work()
    })
    const ids: string[] = []
    for (let i = 0; i < 9; i++) {
      const { key, apiKey } = await keys.issue(NAME)
      ids.push(apiKey.id)
      for (let uses = 0; uses <= i; uses++)
        await keys.verify(key, { ip: i % 4 === 2 ? `${UNKEPT} ${i}` : '192.0.2.1' })
    }
    await clock.advance(10_000)
    const used = await Promise.all(ids.map((id) => keys.get(id)))
    expect(used.map((apiKey) => apiKey?.usageCount)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(used.map((apiKey) => apiKey?.lastUsedIp === null)).toEqual(ids.map((_id, i) => i % 4 === 2))
    expect(eventsOf('fault')).toEqual([])
    const calls = store.calls('recordUsage')
    await clock.advance(60_000)
    expect(store.calls('recordUsage')).toBe(calls)
  })

  it('is given up and told, where nothing of it can be kept, and the others are counted', async () => {
    const { keys, store, clock, eventsOf } = createTestKeys()
    const issued = await Promise.all(Array.from({ length: 5 }, () => keys.issue(NAME)))
    store.fail('recordUsage', async (work, batch) => {
      if ((batch as UsageDelta[]).some(({ id }) => id === issued[1]?.apiKey.id))
        throw new LatchkeyError('unsupported')
      return work()
    })
    for (const { key } of issued) await keys.verify(key, { ip: '192.0.2.1' })
    await clock.advance(10_000)
    const used = await Promise.all(issued.map(({ apiKey }) => keys.get(apiKey.id)))
    expect(used.map((apiKey) => apiKey?.usageCount)).toEqual([1, 0, 1, 1, 1])
    expect(eventsOf('fault')).toMatchObject([
      { operation: 'usage', error: { message: expect.stringMatching(/cannot keep/) } },
    ])
    await keys.close()
    expect(eventsOf('fault')).toHaveLength(1)
  })
})
