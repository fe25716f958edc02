import { type KeyRecord, memoryRateLimiter } from 'latchkey'
import { expect, it } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { answers, recordingStore } from '../support/recording-store.ts'
import { ALICE, createTestKeys } from '../support/test-keys.ts'

const NAME = { owner: ALICE, name: 'CI' }
const UNAVAILABLE = expect.objectContaining({ code: 'unavailable' })

it('does not call a key idle that was used and written down a moment ago', async () => {
  const { keys, clock } = createTestKeys()
  const { key } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
  await clock.advance(51_000)
  expect(await keys.verify(key)).toMatchObject({ ok: true }) // timer set: written at 61 s
  await clock.advance(8_000)
  expect(await keys.verify(key)).toMatchObject({ ok: true }) // 59 s: read again, lastUsedAt still null
  await clock.advance(3_000)
  expect(await keys.verify(key)).toMatchObject({ ok: true }) // 62 s, last used at 59 s
})

it('admits 100 concurrent calls against 1,000 units in blocks of 1', async () => {
  const { keys } = createTestKeys({ quotaBlockSize: 1 })
  const { key } = await keys.issue({ ...NAME, quota: { remaining: 1_000 } })
  const results = await Promise.allSettled(Array.from({ length: 100 }, () => keys.verify(key)))
  expect(results.filter(({ status }) => status === 'rejected')).toEqual([])
})

it('does not carry units over when a quota is removed and set again within a millisecond', async () => {
  const { keys } = createTestKeys({ quotaBlockSize: 10 })
  const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
  await keys.verify(key)
  await keys.update(apiKey.id, { quota: null })
  await keys.update(apiKey.id, { quota: { remaining: 5 } })
  const results = await Promise.all(Array.from({ length: 20 }, () => keys.verify(key)))
  expect(results.filter(({ ok }) => ok)).toHaveLength(5)
})

it('still admits when a quota is set anew by a machine whose clock is a little behind', async () => {
  const { keys, clock } = createTestKeys({ quotaBlockSize: 10 })
  const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
  await keys.verify(key)
  await keys.update(apiKey.id, { quota: null })
  clock.set(clock.now() - 2_000)
  await keys.update(apiKey.id, { quota: { remaining: 5 } })
  expect(await keys.verify(key)).toMatchObject({ ok: true })
})

it('does not mistake what hangs off a prototype for a record', async () => {
  const { keys, store } = createTestKeys()
  const { key, apiKey } = await keys.issue(NAME)
  const record = (await store.find({ id: apiKey.id })) as KeyRecord
  store.fail('find', answers(Object.create(record)))
  const outcome = await keys.verify(key).catch((error) => error)
  if (!outcome.ok) expect(outcome).toEqual(UNAVAILABLE)
})

it('shows nothing of a record that is not a member of it', async () => {
  const { keys, store } = createTestKeys()
  const { key, apiKey } = await keys.issue(NAME)
  const record = (await store.find({ id: apiKey.id })) as KeyRecord
  store.fail('find', answers({ ...record, key_hash: 'secret column' }))
  expect(JSON.stringify(await keys.verify(key))).not.toContain('secret column')
})

it('answers unavailable for addresses that are none', async () => {
  const { keys, store } = createTestKeys()
  const { key, apiKey } = await keys.issue(NAME)
  const record = (await store.find({ id: apiKey.id })) as KeyRecord
  store.fail('find', answers({ ...record, allowedIps: ['anywhere'] }))
  await expect(keys.verify(key, { ip: '192.0.2.1' })).rejects.toEqual(UNAVAILABLE)
})

it('answers unavailable where find throws what only insert may throw', async () => {
  const { keys, store } = createTestKeys()
  const { key } = await keys.issue(NAME)
  const { LatchkeyError } = await import('latchkey')
  store.fail('find', () => Promise.reject(new LatchkeyError('duplicate_key')))
  await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
})

it('names the options of verify where they are no object', async () => {
  const { keys } = createTestKeys()
  const { key } = await keys.issue(NAME)
  await expect(keys.verify(key, null as never)).rejects.toThrow(/"options"/)
  await expect(keys.verify(key, 5 as never)).rejects.toThrow(/"options"/)
})

it('answers unavailable where purge answers nonsense', async () => {
  const { keys, store, clock } = createTestKeys()
  const { apiKey } = await keys.issue(NAME)
  await keys.revoke(apiKey.id)
  store.fail('purge', answers(undefined))
  await clock.advance(1)
  await expect(keys.purge({ endedBefore: new Date(clock.now()) })).rejects.toEqual(UNAVAILABLE)
})

it('does not retry a lost digest upgrade with every request', async () => {
  const { keys: before, store, clock } = createTestKeys()
  const { key } = await before.issue(NAME)
  const peppers = [{ id: 'p1', secret: 'x'.repeat(32) }]
  const { keys } = createTestKeys({ store, clock, peppers, upgradeDigests: true })
  store.fail('replaceDigest', answers(false))
  for (let i = 0; i < 20; i++) await keys.verify(key).then(() => clock.advance(1))
  expect(store.calls('replaceDigest')).toBeLessThan(5)
})

/** Two processes on one store and one limiter, both with a key at hand whose owner was active. */
async function shareKey() {
  const state = { isActive: true }
  const clock = fakeClock()
  const shared = {
    clock,
    rateLimiter: memoryRateLimiter({ clock }),
    store: recordingStore(),
    isOwnerActive: () => state.isActive,
    ownerMaxAgeMs: 60_000,
  }
  const both = [createTestKeys(shared).keys, createTestKeys(shared).keys] as const
  const { key } = await both[0].issue(NAME)
  for (const keys of both) expect(await keys.verify(key)).toMatchObject({ ok: true })
  state.isActive = false
  for (const keys of both) expect(await keys.verify(key)).toMatchObject({ ok: true })
  return { both, key, clock }
}

it.each([
  ['that has the record at hand', 0],
  ['that has let the record go, but not the answer', 6_000],
])('asks again once invalidateOwner resolves, in a process %s', async (_title, laterMs) => {
  const { both, key, clock } = await shareKey()
  await clock.advance(laterMs)
  await both[0].invalidateOwner(ALICE)
  for (const keys of both) expect(await keys.verify(key)).toMatchObject({ reason: 'owner_inactive' })
})

it.each([
  ['a list in disguise', { toJSON: () => [1] }],
  ['nothing in disguise', { toJSON: () => undefined }],
  ['a Map', new Map([['team', 'data']])],
  ['a promise', Promise.resolve({})],
  ['nested without end', Array.from({ length: 2_000 }).reduce((inner) => ({ inner }), {})],
])('refuses metadata that is %s, by name', async (_title, metadata) => {
  const { keys, store } = createTestKeys()
  await expect(keys.issue({ ...NAME, metadata: metadata as never })).rejects.toThrow(/^"metadata" must/)
  expect(store.calls()).toBe(0)
})

it('waits at close() for what is under way, and writes down its use', async () => {
  const { keys, store } = createTestKeys()
  const { key, apiKey } = await keys.issue(NAME)
  const held = store.hold('find')
  const verifying = keys.verify(key)
  await held.reached
  const closing = keys.close()
  held.release()
  expect(await verifying).toMatchObject({ ok: true })
  await closing
  expect(await store.find({ id: apiKey.id })).toMatchObject({ usageCount: 1 })
})

it('does not wait for a silent store once for every batch of uses', async () => {
  const { keys, store, clock } = createTestKeys({ timeoutMs: 100 })
  const issued = await Promise.all(Array.from({ length: 1_200 }, () => keys.issue(NAME)))
  await Promise.all(issued.map(({ key }) => keys.verify(key)))
  await keys.flush()
  store.forgetCalls()
  await Promise.all(issued.map(({ key }) => keys.verify(key)))
  store.fail('recordUsage', () => new Promise(() => {}))
  const closing = keys.close()
  await clock.advance(100)
  await closing
  expect(store.calls('recordUsage')).toBe(1)
})
