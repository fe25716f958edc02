import { type ApiKeys, memoryRateLimiter, type VerifyResult } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { answers, hangs, recordingStore, rejects, throws } from '../support/recording-store.ts'
import { ALICE, createTestKeys } from '../support/test-keys.ts'

const NAME = { owner: ALICE, name: 'CI' }
const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })
const HOUR = 3_600_000

const verifyTimes = (keys: ApiKeys, key: string, times: number) =>
  Promise.all(Array.from({ length: times }, () => keys.verify(key)))
const countAdmitted = (results: VerifyResult[]) => results.filter(({ ok }) => ok).length

describe('a store that cannot reserve', () => {
  const failure = new Error('deadlock')
  const FAULTS = {
    rejects: rejects(failure),
    throws: throws(failure),
    'answers undefined': answers(undefined),
    'answers true': answers(true),
    'answers an empty object': answers({}),
    'grants more than was asked for': answers({
      epoch: 1,
      allotted: 1e6,
      granted: 1e6,
      remaining: 0,
      nextRefillAt: null,
    }),
    'grants less than nothing': answers({
      epoch: 1,
      allotted: 0,
      granted: -1,
      remaining: 5,
      nextRefillAt: null,
    }),
    'tells of units as text': answers({
      epoch: 1,
      allotted: 5,
      granted: '5',
      remaining: 0,
      nextRefillAt: null,
    }),
    'tells of a refill as text': answers({
      epoch: 1,
      allotted: 5,
      granted: 5,
      remaining: 0,
      nextRefillAt: '2030-01-01',
    }),
  }
  for (const [title, fault] of Object.entries(FAULTS)) {
    it(`${title}: unavailable, not admitted, and fine again afterwards`, async () => {
      const { keys, store, eventsOf } = createTestKeys()
      const { key } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
      store.fail('reserveQuota', fault)
      await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
      expect(eventsOf('fault')).toMatchObject([{ operation: 'store' }])
      store.heal()
      expect(countAdmitted(await verifyTimes(keys, key, 7))).toBe(5)
    })
  }

  it('grants units of an epoch that is over: they are worth nothing in the next', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    const late = { epoch: 1, allotted: 50, granted: 50, remaining: 0, nextRefillAt: null }
    store.fail('reserveQuota', answers(late))
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    store.heal()
    expect((await keys.get(apiKey.id))?.quota?.remaining).toBe(5)
    expect(countAdmitted(await verifyTimes(keys, key, 7))).toBe(5)
  })

  it('hangs: everybody who waits is unavailable after timeoutMs', async () => {
    const { keys, store, clock } = createTestKeys({ timeoutMs: 700 })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    store.fail('reserveQuota', hangs)
    const results = Promise.allSettled([keys.verify(key), keys.verify(key), keys.verify(key)])
    await clock.advance(5_000)
    for (const result of await results) expect(result).toMatchObject({ reason: UNAVAILABLE })
  })

  it('is refused by name where a quota is to be set', async () => {
    const store = { ...recordingStore(), reserveQuota: undefined }
    const { keys } = createTestKeys({ store: store as never })
    const UNSUPPORTED = expect.objectContaining({
      code: 'unsupported',
      status: 501,
      message: expect.stringMatching(/"quota".*"reserveQuota"/),
    })
    await expect(keys.issue({ ...NAME, quota: { remaining: 5 } })).rejects.toEqual(UNSUPPORTED)
    expect(store.calls('insert')).toBe(0)
    const { apiKey } = await keys.issue({ ...NAME, quota: null })
    await expect(keys.update(apiKey.id, { quota: { remaining: 5 } })).rejects.toEqual(UNSUPPORTED)
    expect(await keys.get(apiKey.id)).toMatchObject({ quota: null, version: 1 })
  })
})

describe('spending a quota', () => {
  for (const quotaBlockSize of [1, 7, 100]) {
    it(`admits exactly 20 of 50 concurrent calls against 20 units, in blocks of ${quotaBlockSize}`, async () => {
      const { keys, store } = createTestKeys({ quotaBlockSize })
      const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
      const results = await verifyTimes(keys, key, 50)
      expect(countAdmitted(results)).toBe(20)
      expect(results.filter((result) => !result.ok && result.code === 'quota_exceeded')).toHaveLength(30)
      expect((await keys.get(apiKey.id))?.quota?.remaining).toBe(0)
      expect(store.calls('reserveQuota')).toBeLessThanOrEqual(Math.ceil(20 / quotaBlockSize) + 1)
    })

    it(`admits exactly the quota over two processes, in blocks of ${quotaBlockSize}`, async () => {
      const clock = fakeClock()
      const store = recordingStore()
      // Each process counts for itself here: the store alone must keep the sum.
      const processes = [1, 2].map(() => createTestKeys({ clock, store, quotaBlockSize }))
      const [here, there] = processes.map(({ keys }) => keys) as [ApiKeys, ApiKeys]
      const { key } = await here.issue({ ...NAME, quota: { remaining: 200 } })
      let admitted = 0
      for (let i = 0; i < 15; i++) {
        const results = await Promise.all([verifyTimes(here, key, 10), verifyTimes(there, key, 10)])
        admitted += countAdmitted(results.flat())
      }
      expect(admitted).toBe(200)
    })
  }

  it('writes to the store with every call at a block size of 1, and once per 100 calls at 100', async () => {
    for (const [quotaBlockSize, reservations] of [
      [1, 100],
      [100, 1],
    ] as const) {
      const { keys, store } = createTestKeys({ quotaBlockSize })
      const { key } = await keys.issue({ ...NAME, quota: { remaining: 1_000 } })
      for (let i = 0; i < 100; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
      expect(store.calls('reserveQuota')).toBe(reservations)
    }
  })

  it('takes a cost larger than a block, and refuses one larger than what remains', async () => {
    const { keys, store } = createTestKeys({ quotaBlockSize: 10 })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 50 } })
    expect(await keys.verify(key, { cost: 35 })).toMatchObject({ ok: true })
    expect(store.calls('reserveQuota')).toBe(1)
    expect(await keys.verify(key, { cost: 16 })).toMatchObject({ code: 'quota_exceeded' })
    expect(await keys.verify(key, { cost: 15 })).toMatchObject({ ok: true, limits: [{ remaining: 0 }] })
  })

  it('spends the units at hand together with those in the store', async () => {
    const { keys } = createTestKeys({ quotaBlockSize: 10 })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 12 } })
    expect(await keys.verify(key, { cost: 3 })).toMatchObject({ ok: true })
    expect(await keys.verify(key, { cost: 9 })).toMatchObject({ ok: true, limits: [{ remaining: 0 }] })
  })

  it('costs no store call per denied request once it is exhausted', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 2 } })
    await verifyTimes(keys, key, 3)
    store.forgetCalls()
    for (let i = 0; i < 20; i++) expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded' })
    expect(store.calls()).toBe(0)
  })

  it('does not touch the store for a call that costs nothing', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    expect(await keys.verify(key, { cost: 0 })).toMatchObject({ ok: true, limits: [{ remaining: 5 }] })
    expect(store.calls('reserveQuota')).toBe(0)
  })

  it('loses at most the block that was moved when a process ends, and grants nothing anew', async () => {
    const clock = fakeClock()
    const store = recordingStore()
    const crashed = createTestKeys({ clock, store, quotaBlockSize: 10 })
    const { key } = await crashed.keys.issue({ ...NAME, quota: { remaining: 25 } })
    await crashed.keys.verify(key)
    const { keys } = createTestKeys({ clock, store, quotaBlockSize: 10 })
    expect(countAdmitted(await verifyTimes(keys, key, 40))).toBe(15)
  })
})

describe('get()', () => {
  it('counts units that were moved and not spent as remaining', async () => {
    const { keys, store } = createTestKeys({ quotaBlockSize: 10 })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 25 } })
    await verifyTimes(keys, key, 3)
    expect((await store.find({ id: apiKey.id }))?.quota).toMatchObject({ remaining: 15, allotted: 10 })
    expect((await keys.get(apiKey.id))?.quota).toEqual({ remaining: 22, refill: null, nextRefillAt: null })
    expect((await keys.list()).apiKeys[0]?.quota?.remaining).toBe(22)
  })

  it('is unavailable where the limiter cannot tell, rather than wrong', async () => {
    const { keys, limiter } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 25 } })
    await keys.verify(key)
    vi.spyOn(limiter, 'unspentQuota').mockRejectedValue(new Error('connection refused') as never)
    await expect(keys.get(apiKey.id)).rejects.toEqual(UNAVAILABLE)
  })
})

describe('a refill', () => {
  const quota = { remaining: 3, refill: { amount: 10, everyMs: HOUR } }

  it('that is due is carried out before anything is spent', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota })
    expect(countAdmitted(await verifyTimes(keys, key, 5))).toBe(3)
    await clock.advance(HOUR - 1)
    expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded', retryAfterMs: 1 })
    await clock.advance(1)
    expect(await keys.verify(key)).toMatchObject({ ok: true, limits: [{ remaining: 9, resetMs: HOUR }] })
  })

  it('happens once, however many calls find it due', async () => {
    const { keys, clock, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota })
    await verifyTimes(keys, key, 3)
    await clock.advance(2.5 * HOUR)
    store.forgetCalls()
    expect(countAdmitted(await verifyTimes(keys, key, 30))).toBe(10)
    expect(store.calls('reserveQuota')).toBeLessThanOrEqual(2)
    expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded', retryAfterMs: HOUR / 2 })
  })

  it('happens once over two processes that share a limiter', async () => {
    const clock = fakeClock()
    const store = recordingStore()
    const rateLimiter = memoryRateLimiter({ clock })
    const processes = [1, 2].map(() => createTestKeys({ clock, store, rateLimiter }).keys)
    const [here, there] = processes as [ApiKeys, ApiKeys]
    const { key } = await here.issue({ ...NAME, quota })
    for (const keys of processes) await verifyTimes(keys, key, 3)
    await clock.advance(HOUR)
    const results = await Promise.all([verifyTimes(here, key, 30), verifyTimes(there, key, 30)])
    expect(countAdmitted(results.flat())).toBe(10)
  })

  it('makes the units of the time before it worthless: they do not add up', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota })
    await keys.verify(key)
    await clock.advance(HOUR)
    expect(countAdmitted(await verifyTimes(keys, key, 30))).toBe(10)
    expect((await keys.get(apiKey.id))?.quota?.remaining).toBe(0)
  })

  it('that fails is unavailable, and carried out the next time', async () => {
    const { keys, clock, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota })
    await verifyTimes(keys, key, 3)
    await clock.advance(HOUR)
    store.fail('reserveQuota', rejects(new Error('deadlock')))
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    store.heal()
    expect(countAdmitted(await verifyTimes(keys, key, 30))).toBe(10)
  })
})

describe('setting a quota anew', () => {
  it('is effective at once, also through the other keys of the lineage', async () => {
    const { keys } = createTestKeys()
    const first = await keys.issue({ ...NAME, quota: { remaining: 2 } })
    const second = await keys.rotate(first.apiKey.id)
    const third = await keys.rotate(second.apiKey.id)
    const all = [first, second, third]
    for (const [i, target] of all.entries()) {
      for (const { key } of all) await verifyTimes(keys, key, 10)
      for (const { key } of all) expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded' })
      await keys.update(target.apiKey.id, { quota: { remaining: 3 } })
      // The key it was set on comes last: what it tells the limiter must not be what helps the others.
      for (const { key } of [...all.slice(i + 1), ...all.slice(0, i + 1)]) {
        expect(await keys.verify(key)).toMatchObject({ ok: true })
      }
    }
  })

  it('replaces what was left, units in the limiter included', async () => {
    const { keys } = createTestKeys({ quotaBlockSize: 10 })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 50 } })
    await keys.verify(key)
    const updated = await keys.update(apiKey.id, { quota: { remaining: 4 } })
    expect(updated.quota?.remaining).toBe(4)
    expect(countAdmitted(await verifyTimes(keys, key, 20))).toBe(4)
  })

  it('works after it was removed', async () => {
    const { keys, clock } = createTestKeys({ quotaBlockSize: 10 })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    await verifyTimes(keys, key, 2)
    await keys.update(apiKey.id, { quota: null })
    const unlimited = await verifyTimes(keys, key, 20)
    expect(countAdmitted(unlimited)).toBe(20)
    expect(unlimited[0]).toMatchObject({ limits: [] })
    await clock.advance(1)
    await keys.update(apiKey.id, { quota: { remaining: 5 } })
    expect(countAdmitted(await verifyTimes(keys, key, 20))).toBe(5)
  })

  it('does not let a reservation that was under way for the old quota grant of the new one', async () => {
    const { keys, store } = createTestKeys({ quotaBlockSize: 10 })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 50 } })
    const held = store.hold('reserveQuota')
    const underWay = keys.verify(key)
    await held.reached
    await keys.update(apiKey.id, { quota: { remaining: 4 } })
    held.release()
    const first = await underWay
    await settle()
    const rest = await verifyTimes(keys, key, 20)
    expect(countAdmitted([first, ...rest])).toBe(4)
  })
})
