import {
  type ApiKeys,
  type ApiKeysOptions,
  memoryRateLimiter,
  memoryStore,
  type QuotaRecord,
  type QuotaSwap,
  type RateLimiter,
  type VerifiedKey,
  type VerifyResult,
} from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import {
  answers,
  hangs,
  type RecordingStore,
  recordingStore,
  rejects,
  throws,
} from '../support/recording-store.ts'
import { ALICE, createTestKeys } from '../support/test-keys.ts'

const NAME = { owner: ALICE, name: 'CI' }
const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })
const HOUR = 3_600_000
const LEASE_MS = 5_000

const verifyTimes = (keys: ApiKeys, key: string, times: number) =>
  Promise.all(Array.from({ length: times }, () => keys.verify(key)))
const countAdmitted = (results: VerifyResult[]) => results.filter(({ ok }) => ok).length

async function remainingOf(store: RecordingStore, id: string): Promise<number | undefined> {
  return (await store.find({ id }))?.quota?.remaining
}

/** Several processes over one store, each with a limiter of its own. */
function createProcesses(count: number, options: Partial<ApiKeysOptions> = {}) {
  const clock = fakeClock()
  const inner = memoryStore()
  const processes = Array.from({ length: count }, () =>
    createTestKeys({ ...(options as object), clock, store: recordingStore(inner) }),
  )
  return { clock, store: recordingStore(inner), processes }
}

describe('a store that cannot swap', () => {
  const quota = { epoch: 1, allotted: 5, remaining: 0, refill: null, nextRefillAt: null }
  const FAULTS = {
    rejects: rejects(new Error('deadlock')),
    throws: throws(new Error('deadlock')),
    'answers undefined': answers(undefined),
    'answers true': answers(true),
    'answers an empty object': answers({}),
    'answers a swap that is neither made nor refused': answers({ swapped: 'yes' }),
    'refuses without saying what is there': answers({ swapped: false }),
    'tells of units as text': answers({ swapped: false, current: { ...quota, remaining: '5' } }),
    'tells of less than nothing': answers({ swapped: false, current: { ...quota, remaining: -5 } }),
    'tells of a refill as text': answers({
      swapped: false,
      current: { ...quota, nextRefillAt: '2030-01-01' },
    }),
  }
  for (const [title, fault] of Object.entries(FAULTS)) {
    it(`${title}: unavailable, not admitted, and fine again afterwards`, async () => {
      const { keys, store, eventsOf } = createTestKeys()
      const { key } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
      store.fail('swapQuota', fault)
      await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
      expect(eventsOf('fault')).toMatchObject([{ operation: 'store' }])
      store.heal()
      expect(countAdmitted(await verifyTimes(keys, key, 7))).toBe(5)
    })
  }

  it('refuses for ever what is as expected: unavailable, after so many tries', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    store.fail('swapQuota', async (_work, _lineageId, expected) => ({ swapped: false, current: expected }))
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(store.calls('swapQuota')).toBeLessThanOrEqual(100)
  })

  it('hangs: everybody who waits is unavailable after timeoutMs, with one fault', async () => {
    const { keys, store, clock, eventsOf } = createTestKeys({ timeoutMs: 700 })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    store.fail('swapQuota', hangs)
    const results = Promise.allSettled([keys.verify(key), keys.verify(key), keys.verify(key)])
    await clock.advance(5_000)
    for (const result of await results) expect(result).toMatchObject({ reason: UNAVAILABLE })
    expect(eventsOf('fault').length).toBeLessThanOrEqual(2)
  })

  it('goes away: the lease goes on, then calls are unavailable', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 1_000 } })
    await verifyTimes(keys, key, 10)
    await keys.verify(key)
    for (const method of ['swapQuota', 'find'] as const) store.fail(method, rejects(new Error('down')))
    // Twice the ten of before, less the one that took the lease.
    expect(countAdmitted(await verifyTimes(keys, key, 20))).toBe(20)
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
  })

  it('is refused by name where a quota is to be set', async () => {
    const store = { ...recordingStore(), swapQuota: undefined }
    const { keys } = createTestKeys({ store: store as never })
    const UNSUPPORTED = expect.objectContaining({
      code: 'unsupported',
      status: 501,
      message: expect.stringMatching(/"quota".*"swapQuota"/),
    })
    await expect(keys.issue({ ...NAME, quota: { remaining: 5 } })).rejects.toEqual(UNSUPPORTED)
    expect(store.calls('insert')).toBe(0)
    const { apiKey } = await keys.issue({ ...NAME, quota: null })
    await expect(keys.update(apiKey.id, { quota: { remaining: 5 } })).rejects.toEqual(UNSUPPORTED)
    expect(await keys.get(apiKey.id)).toMatchObject({ quota: null, version: 1 })
  })
})

describe('a swap whose outcome is not known', () => {
  it('is sent again, byte by byte, and counts once where it had been made', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
    // Applied, and its reply is lost.
    store.fail('swapQuota', async (work) => {
      await work()
      throw new Error('connection reset')
    })
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    const [first, second] = store.argumentsOf('swapQuota')
    expect(second).toEqual(first)
    store.heal()
    // The unit of the first call is given up: nobody can say whether it was taken.
    expect(countAdmitted(await verifyTimes(keys, key, 30))).toBe(19)
    expect(await remainingOf(store, apiKey.id)).toBe(0)
  })

  it('is made by being sent again where it had not been: nothing is lost', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
    store.fail('swapQuota', rejects(new Error('connection refused')))
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    store.heal()
    expect(countAdmitted(await verifyTimes(keys, key, 30))).toBe(20)
  })

  it('is not claimed where another process has made an equal one', async () => {
    const { processes } = createProcesses(2)
    const [here, there] = processes as [ReturnType<typeof createTestKeys>, ReturnType<typeof createTestKeys>]
    const { key } = await here.keys.issue({ ...NAME, quota: { remaining: 20 } })
    here.store.fail('swapQuota', rejects(new Error('connection refused')))
    await expect(here.keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(await there.keys.verify(key)).toMatchObject({ ok: true })
    here.store.heal()
    expect(countAdmitted(await verifyTimes(here.keys, key, 30))).toBe(19)
  })

  it('adds nothing where it gave back, was not made, and somebody else was faster', async () => {
    const { clock, store, processes } = createProcesses(2)
    const [here, there] = processes as [ReturnType<typeof createTestKeys>, ReturnType<typeof createTestKeys>]
    const { key, apiKey } = await here.keys.issue({ ...NAME, quota: { remaining: 1_000 } })
    await verifyTimes(here.keys, key, 10)
    await here.keys.verify(key)
    const held = 1_000 - 11 - ((await remainingOf(store, apiKey.id)) as number)
    expect(held).toBe(20)
    here.store.fail('swapQuota', rejects(new Error('connection refused')))
    await clock.advance(LEASE_MS)
    expect(await there.keys.verify(key)).toMatchObject({ ok: true })
    await there.keys.close()
    here.store.heal()
    await clock.advance(2 * LEASE_MS)
    // What was offered is given up, and nothing is made of it.
    expect(await remainingOf(store, apiKey.id)).toBe(1_000 - 11 - 1 - held)
  })

  it('is settled by an answer that comes late', async () => {
    const { keys, store, clock } = createTestKeys({ timeoutMs: 700 })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
    const held = store.hold('swapQuota')
    const call = expect(keys.verify(key, { cost: 8 })).rejects.toEqual(UNAVAILABLE)
    await held.reached
    await clock.advance(700)
    await call
    held.release()
    await settle()
    expect(store.calls('swapQuota')).toBe(1)
    expect((await keys.get(apiKey.id))?.quota?.remaining).toBe(20)
    expect(countAdmitted(await verifyTimes(keys, key, 30))).toBe(20)
  })
})

describe('spending a quota', () => {
  for (const quotaBlockSize of [0, 1, 7, 1_000]) {
    it(`admits exactly 20 of 50 concurrent calls against 20 units, with blocks of ${quotaBlockSize}`, async () => {
      const { keys, store } = createTestKeys({ quotaBlockSize })
      const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
      const results = await verifyTimes(keys, key, 50)
      expect(countAdmitted(results)).toBe(20)
      expect(results.filter((result) => !result.ok && result.code === 'quota_exceeded')).toHaveLength(30)
      expect((await keys.get(apiKey.id))?.quota?.remaining).toBe(0)
      expect(store.calls('swapQuota')).toBe(1)
    })

    it(`admits exactly the quota over two processes, with blocks of ${quotaBlockSize}`, async () => {
      const { processes, clock } = createProcesses(2, { quotaBlockSize })
      const [here, there] = processes.map(({ keys }) => keys) as [ApiKeys, ApiKeys]
      const { key } = await here.issue({ ...NAME, quota: { remaining: 200 } })
      let admitted = 0
      for (let i = 0; i < 15; i++) {
        const results = await Promise.all([verifyTimes(here, key, 10), verifyTimes(there, key, 10)])
        admitted += countAdmitted(results.flat())
        await clock.advance(1_000)
      }
      expect(admitted).toBe(200)
    })
  }

  it('admits the first calls that come together, cold: 250 take one swap', async () => {
    const { processes } = createProcesses(4)
    const [first] = processes as [ReturnType<typeof createTestKeys>]
    const { key } = await first.keys.issue({ ...NAME, quota: { remaining: 1_000 } })
    const results = await Promise.all(processes.map(({ keys }) => verifyTimes(keys, key, 250)))
    expect(countAdmitted(results.flat())).toBe(1_000)
    const swaps = processes.flatMap(({ store }) => store.argumentsOf('swapQuota'))
    expect(new Set(swaps.map(([, , next]) => (next as QuotaRecord).allotted)).size).toBe(4)
  })

  it('writes to the store with every call where nothing is leased ahead', async () => {
    const { keys, store } = createTestKeys({ quotaBlockSize: 0 })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 1_000 } })
    for (let i = 0; i < 100; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(store.calls('swapQuota')).toBe(100)
  })

  it('leases more the more is used: a busy key writes ever less', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 1_000_000 } })
    for (let i = 0; i < 10_000; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(store.calls('swapQuota')).toBeLessThan(20)
  })

  it('takes no block ahead for a key that is used once in a while', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 1_000 } })
    for (let i = 0; i < 5; i++) {
      await keys.verify(key)
      expect(await remainingOf(store, apiKey.id)).toBe(999 - i)
      await clock.advance(2 * LEASE_MS)
    }
    expect(store.calls('swapQuota')).toBe(5)
  })

  it('takes a cost larger than a block, and refuses one larger than what remains', async () => {
    const { keys, store } = createTestKeys({ quotaBlockSize: 10 })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 50 } })
    expect(await keys.verify(key, { cost: 35 })).toMatchObject({ ok: true })
    expect(store.calls('swapQuota')).toBe(1)
    expect(await keys.verify(key, { cost: 16 })).toMatchObject({ code: 'quota_exceeded' })
    expect(await keys.verify(key, { cost: 15 })).toMatchObject({ ok: true, limits: [{ remaining: 0 }] })
  })

  it('serves small calls that wait behind one that is too dear', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 10 } })
    const results = await Promise.all([11, 4, 6].map((cost) => keys.verify(key, { cost })))
    expect(results.map(({ ok }) => ok)).toEqual([false, true, true])
  })

  it('spends the units at hand together with those in the store', async () => {
    const { keys } = createTestKeys({ quotaBlockSize: 10 })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 12 } })
    expect(await keys.verify(key, { cost: 3 })).toMatchObject({ ok: true })
    expect(await keys.verify(key, { cost: 9 })).toMatchObject({ ok: true, limits: [{ remaining: 0 }] })
  })

  it('does not touch the store for a call that costs nothing', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    expect(await keys.verify(key, { cost: 0 })).toMatchObject({ ok: true, limits: [{ remaining: 5 }] })
    expect(store.calls('swapQuota')).toBe(0)
  })

  it('needs no limits, and no limiter that others share', async () => {
    for (const revocation of ['exact', 'bounded'] as const) {
      const { keys } = createTestKeys({ revocation })
      const { key } = await keys.issue({ ...NAME, quota: { remaining: 3 } })
      expect(countAdmitted(await verifyTimes(keys, key, 5))).toBe(3)
    }
  })

  it('loses at most the lease when a process crashes, and grants nothing anew', async () => {
    const { processes } = createProcesses(2)
    const [crashed, next] = processes as [
      ReturnType<typeof createTestKeys>,
      ReturnType<typeof createTestKeys>,
    ]
    const { key } = await crashed.keys.issue({ ...NAME, quota: { remaining: 25 } })
    for (let i = 0; i < 3; i++) await crashed.keys.verify(key)
    const held =
      ((await crashed.keys.list()).apiKeys[0]?.quota?.remaining ?? 0) -
      ((await next.keys.list()).apiKeys[0]?.quota?.remaining ?? 0)
    expect(countAdmitted(await verifyTimes(next.keys, key, 40))).toBe(22 - held)
  })
})

describe('a call that is refused', () => {
  it('by a rate limit has spent nothing of the quota', async () => {
    const { keys, store } = createTestKeys()
    const rateLimits = [{ name: 'minute', limit: 3, windowMs: 60_000 }]
    const { key, apiKey } = await keys.issue({ ...NAME, rateLimits, quota: { remaining: 10 } })
    const results = await verifyTimes(keys, key, 10)
    expect(countAdmitted(results)).toBe(3)
    expect(results.at(-1)).toMatchObject({
      code: 'rate_limited',
      limits: [
        { name: 'minute', exceeded: true },
        { name: 'quota', exceeded: false },
      ],
    })
    expect((await keys.get(apiKey.id))?.quota?.remaining).toBe(7)
    await keys.close()
    expect(await remainingOf(store, apiKey.id)).toBe(7)
  })

  const FAULTS: Record<string, RateLimiter['check']> = {
    throws: () => {
      throw new Error('down')
    },
    rejects: () => Promise.reject(new Error('down')),
    hangs: () => new Promise(() => {}),
    'answers nonsense': () => ({ outcome: 'sure' }) as never,
    'answers nonsense later': async () => undefined as never,
  }
  it.each(Object.entries(FAULTS))(
    'by a limiter that %s has spent nothing of the quota',
    async (_how, check) => {
      const { keys, store, clock, limiter } = createTestKeys()
      const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 10 } })
      const spy = vi.spyOn(limiter, 'check').mockImplementation(check)
      const calls = expect(Promise.allSettled([keys.verify(key), keys.verify(key)])).resolves.toMatchObject([
        { reason: UNAVAILABLE },
        { reason: UNAVAILABLE },
      ])
      await clock.advance(LEASE_MS)
      await calls
      spy.mockRestore()
      await clock.advance(LEASE_MS)
      expect(await remainingOf(store, apiKey.id)).toBe(10)
    },
  )

  it('as too little is left shows how the limits stand, and spends nothing of them', async () => {
    const { keys } = createTestKeys()
    const rateLimits = [{ name: 'minute', limit: 3, windowMs: 60_000 }]
    const { key } = await keys.issue({ ...NAME, rateLimits, quota: { remaining: 1 } })
    await keys.verify(key)
    for (let i = 0; i < 5; i++) {
      expect(await keys.verify(key)).toMatchObject({
        code: 'quota_exceeded',
        limits: [
          { name: 'minute', remaining: 2, exceeded: false },
          { name: 'quota', remaining: 0, exceeded: true },
        ],
      })
    }
  })

  it('was looked up in the store after it came, while others may hold units', async () => {
    const { processes, clock } = createProcesses(2)
    const [here, there] = processes as [ReturnType<typeof createTestKeys>, ReturnType<typeof createTestKeys>]
    const { key } = await here.keys.issue({ ...NAME, quota: { remaining: 30 } })
    // The other one holds some, and this one takes the rest.
    for (let i = 0; i < 4; i++) await there.keys.verify(key)
    await verifyTimes(here.keys, key, 30)
    expect(await here.keys.verify(key)).toMatchObject({ code: 'quota_exceeded', retryAfterMs: LEASE_MS })
    await there.keys.close()
    expect(await here.keys.verify(key)).toMatchObject({ ok: true })
    await clock.advance(0)
  })

  it('costs no store call once nobody can hold units any more, but for one a lease time', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 2 } })
    await verifyTimes(keys, key, 3)
    await clock.advance(LEASE_MS)
    await keys.verify(key)
    store.forgetCalls()
    for (let i = 0; i < 20; i++) {
      expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded', retryAfterMs: null })
    }
    expect(store.calls()).toBe(0)
    await clock.advance(LEASE_MS)
    for (let i = 0; i < 20; i++) expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded' })
    expect(store.calls('find')).toBe(1)
  })

  it('is told when to try again: after a lease time, at the refill, or never', async () => {
    const { keys, clock } = createTestKeys()
    const refill = { amount: 2, everyMs: HOUR }
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 2, refill } })
    // More than there ever was: nobody can hold it.
    expect(await keys.verify(key, { cost: 3 })).toMatchObject({ retryAfterMs: null })
    await keys.verify(key, { cost: 2 })
    expect(await keys.verify(key)).toMatchObject({ retryAfterMs: LEASE_MS })
    await clock.advance(HOUR - 2_000)
    await keys.verify(key)
    expect(await keys.verify(key)).toMatchObject({ retryAfterMs: 2_000 })
    await clock.advance(2_000)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })
})

describe('a lease', () => {
  it('that is not used goes back when it ends', async () => {
    const { keys, store, clock } = createTestKeys({ usage: { keepDays: 0 } })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 100 } })
    for (let i = 0; i < 2; i++) await keys.verify(key)
    expect(await remainingOf(store, apiKey.id)).toBeLessThan(98)
    await clock.advance(LEASE_MS)
    expect(await remainingOf(store, apiKey.id)).toBe(98)
    expect(clock.waiting).toBeLessThanOrEqual(1)
  })

  it('that is used slowly goes back too: nobody is refused for longer than a lease time', async () => {
    const { processes, clock } = createProcesses(2)
    const [slow, fast] = processes as [ReturnType<typeof createTestKeys>, ReturnType<typeof createTestKeys>]
    const { key, apiKey } = await slow.keys.issue({ ...NAME, quota: { remaining: 2_000 } })
    let refusedFor = 0
    let [admitted, refused] = [0, 0]
    for (let i = 0; i < 200; i++) {
      if ((await slow.keys.verify(key)).ok) admitted += 1
      const results = await verifyTimes(fast.keys, key, 20)
      admitted += countAdmitted(results)
      const left = ((await fast.store.find({ id: apiKey.id }))?.quota?.remaining ?? 0) > 0
      refusedFor = countAdmitted(results) < 20 && admitted < 2_000 ? refusedFor + 400 : 0
      if (refusedFor > 0) refused += 1
      expect(refusedFor).toBeLessThanOrEqual(LEASE_MS)
      expect(refusedFor > 0 && left).toBe(false)
      await clock.advance(400)
    }
    expect(admitted).toBe(2_000)
    expect(refused).toBeGreaterThan(0)
  })

  it('that is in use is renewed beside the calls, which do not wait', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 1_000_000 } })
    for (let i = 0; i < 50; i++) await keys.verify(key)
    await clock.advance(0.8 * LEASE_MS)
    store.forgetCalls()
    const held = store.hold('swapQuota')
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await held.reached
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    held.release()
    await settle()
    await clock.advance(0.5 * LEASE_MS)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(store.calls('swapQuota')).toBe(1)
  })

  it('of many keys goes back in one call of a store that can', async () => {
    const clock = fakeClock()
    const inner = memoryStore()
    const swapQuotas = vi.fn((swaps: readonly QuotaSwap[]) =>
      Promise.all(
        swaps.map(({ lineageId, expected, next }) => inner.swapQuota?.(lineageId, expected, next) as never),
      ),
    )
    const store = recordingStore({ ...inner, swapQuotas })
    const { keys } = createTestKeys({ clock, store })
    const issued = await Promise.all(
      Array.from({ length: 30 }, () => keys.issue({ ...NAME, quota: { remaining: 100 } })),
    )
    for (let i = 0; i < 2; i++) for (const { key } of issued) await keys.verify(key)
    store.forgetCalls()
    await clock.advance(LEASE_MS)
    expect(swapQuotas).toHaveBeenCalledTimes(1)
    expect(store.calls('swapQuota')).toBe(0)
    for (const { apiKey } of issued) expect(await remainingOf(store, apiKey.id)).toBe(98)
  })

  it('goes back one by one where the store fails to take them together, once it is well', async () => {
    const clock = fakeClock()
    const inner = memoryStore()
    const store = recordingStore({ ...inner, swapQuotas: () => Promise.reject(new Error('deadlock')) })
    const { keys } = createTestKeys({ clock, store })
    const issued = await Promise.all(
      Array.from({ length: 3 }, () => keys.issue({ ...NAME, quota: { remaining: 100 } })),
    )
    for (let i = 0; i < 2; i++) for (const { key } of issued) await keys.verify(key)
    await clock.advance(3 * LEASE_MS)
    for (const { apiKey } of issued) expect(await remainingOf(store, apiKey.id)).toBe(98)
  })

  it('of a key that is forgotten for others goes back', async () => {
    const { keys, store } = createTestKeys({ cache: { maxEntries: 2 } })
    const issued = []
    for (let i = 0; i < 5; i++) issued.push(await keys.issue({ ...NAME, quota: { remaining: 100 } }))
    for (const { key } of issued) for (let i = 0; i < 2; i++) await keys.verify(key)
    await settle()
    const left = await Promise.all(issued.map(({ apiKey }) => remainingOf(store, apiKey.id)))
    expect(left.slice(0, 3)).toEqual([98, 98, 98])
  })

  it('is offered once in a while to a store that hangs, and close() comes to an end', async () => {
    const { keys, store, clock } = createTestKeys({ timeoutMs: 3_000, quotaLeaseMs: 200 })
    const issued = []
    for (let i = 0; i < 6; i++) issued.push(await keys.issue({ ...NAME, quota: { remaining: 1_000 } }))
    for (const { key } of issued) for (let i = 0; i < 5; i++) await keys.verify(key)
    const last = issued.at(-1) as (typeof issued)[number]
    store.fail('swapQuota', (work, lineageId) => (lineageId === last.apiKey.lineageId ? work() : hangs(work)))
    store.forgetCalls()
    // One that is well and in use ends exchanges all the time.
    for (let i = 0; i < 60; i++) {
      await keys.verify(last.key)
      await clock.advance(100)
    }
    const hung = store.argumentsOf('swapQuota').filter(([lineageId]) => lineageId !== last.apiKey.lineageId)
    expect(hung.length).toBeLessThanOrEqual(5 * 3)
    let isClosed = false
    void keys.close().then(() => {
      isClosed = true
    })
    await clock.advance(15_000)
    expect(isClosed).toBe(true)
  })

  it('ends with its clock set back: units are neither lost nor held for ever', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 100 } })
    for (let i = 0; i < 2; i++) await keys.verify(key)
    clock.set(clock.now() - HOUR)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await clock.advance(2 * HOUR)
    expect(await remainingOf(store, apiKey.id)).toBe(97)
  })
})

describe('close()', () => {
  it('gives back what was not spent, deploy after deploy', async () => {
    const clock = fakeClock()
    const store = recordingStore()
    const start = () => createTestKeys({ clock, store }).keys
    const { key, apiKey } = await start().issue({ ...NAME, quota: { remaining: 250 } })
    for (let deploy = 1; deploy <= 10; deploy++) {
      const keys = start()
      for (let i = 0; i < 3; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
      await keys.close()
      expect(await remainingOf(store, apiKey.id)).toBe(250 - 3 * deploy)
    }
  })

  it('waits for calls that are at the limiter', async () => {
    const { clock, store, processes } = createProcesses(1)
    const [{ keys, limiter }] = processes as [ReturnType<typeof createTestKeys>]
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
    let refuse = () => {}
    vi.spyOn(limiter, 'check').mockImplementation(
      () =>
        new Promise((resolve) => {
          refuse = () => resolve({ outcome: 'limited', limits: [], retryAfterMs: 1 })
        }),
    )
    const call = keys.verify(key, { cost: 7 })
    await settle()
    const closing = keys.close()
    await settle()
    refuse()
    await Promise.all([call, closing, clock.advance(0)])
    expect(await remainingOf(store, apiKey.id)).toBe(20)
  })

  it('waits for a lease that is under way, and gives it back', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
    const held = store.hold('swapQuota')
    const call = keys.verify(key)
    await held.reached
    const closing = keys.close()
    held.release()
    expect(await call).toMatchObject({ ok: true })
    await closing
    expect(await remainingOf(store, apiKey.id)).toBe(19)
  })

  it('gives back what is refunded after it', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
    const result = (await keys.verify(key, { cost: 5 })) as VerifiedKey
    await keys.close()
    expect(await remainingOf(store, apiKey.id)).toBe(15)
    expect(await keys.refund(result)).toBe(true)
    expect(await remainingOf(store, apiKey.id)).toBe(20)
  })

  it('ends though the store is away', async () => {
    const { keys, store, clock } = createTestKeys({ timeoutMs: 700 })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 20 } })
    for (let i = 0; i < 2; i++) await keys.verify(key)
    store.fail('swapQuota', hangs)
    store.fail('recordUsage', hangs)
    const closing = keys.close()
    await clock.advance(5_000)
    await closing
  })
})

describe('a store that was set back to an earlier state', () => {
  it('decides again at the next reading, though nothing was left before', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    const earlier = (await store.find({ id: apiKey.id }))?.quota as QuotaRecord
    for (let i = 0; i < 5; i++) await keys.verify(key)
    expect(await keys.verify(key)).toMatchObject({ ok: false, code: 'quota_exceeded' })
    const spent = (await store.find({ id: apiKey.id }))?.quota as QuotaRecord
    expect(await store.swapQuota(apiKey.lineageId, spent, earlier)).toEqual({ swapped: true })
    await clock.advance(LEASE_MS)
    expect(countAdmitted(await verifyTimes(keys, key, 7))).toBe(5)
  })
})

describe('flush()', () => {
  it('gives back units whose limiter refuses while they are under way', async () => {
    const { keys, store } = createTestKeys({ rateLimits: [{ name: 'one', limit: 1, windowMs: HOUR }] })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 100 } })
    await keys.verify(key)
    await keys.flush()
    const held = store.hold('swapQuota')
    const call = keys.verify(key)
    await held.reached
    const flushed = keys.flush()
    held.release()
    await Promise.all([call, flushed])
    expect(await remainingOf(store, apiKey.id)).toBe(99)
  })

  it('gives back what was not spent, and the keys go on', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 100 } })
    for (let i = 0; i < 2; i++) await keys.verify(key)
    expect(await remainingOf(store, apiKey.id)).toBeLessThan(98)
    await keys.flush()
    expect(await remainingOf(store, apiKey.id)).toBe(98)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('is unavailable where the store does not take it', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 100 } })
    for (let i = 0; i < 2; i++) await keys.verify(key)
    store.fail('swapQuota', rejects(new Error('down')))
    await expect(keys.flush()).rejects.toEqual(UNAVAILABLE)
  })
})

describe('get()', () => {
  it('counts units that this process holds as remaining, and knows of no others', async () => {
    const { processes } = createProcesses(2)
    const [here, there] = processes as [ReturnType<typeof createTestKeys>, ReturnType<typeof createTestKeys>]
    const { key, apiKey } = await here.keys.issue({ ...NAME, quota: { remaining: 100 } })
    for (let i = 0; i < 3; i++) await here.keys.verify(key)
    const inStore = (await remainingOf(here.store, apiKey.id)) as number
    expect(inStore).toBeLessThan(97)
    expect((await here.keys.get(apiKey.id))?.quota).toEqual({
      remaining: 97,
      refill: null,
      nextRefillAt: null,
    })
    expect((await here.keys.list()).apiKeys[0]?.quota?.remaining).toBe(97)
    expect((await there.keys.get(apiKey.id))?.quota?.remaining).toBe(inStore)
  })

  it('shows the whole quota before it is used', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue({ ...NAME, quota: { remaining: 100 } })
    expect((await keys.get(apiKey.id))?.quota?.remaining).toBe(100)
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
    expect(store.calls('swapQuota')).toBe(1)
    await clock.advance(LEASE_MS)
    expect(await keys.verify(key)).toMatchObject({
      code: 'quota_exceeded',
      retryAfterMs: HOUR / 2 - LEASE_MS,
    })
  })

  it('happens once over three processes', async () => {
    const { processes, clock } = createProcesses(3)
    const all = processes.map(({ keys }) => keys) as [ApiKeys, ApiKeys, ApiKeys]
    const { key } = await all[0].issue({ ...NAME, quota })
    for (const keys of all) await verifyTimes(keys, key, 3)
    await clock.advance(HOUR)
    const results = await Promise.all(all.map((keys) => verifyTimes(keys, key, 30)))
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

  it('takes away nothing of what is left beyond its amount, though some of it is leased', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await keys.issue({
      ...NAME,
      quota: { remaining: 100, refill: { amount: 90, everyMs: HOUR } },
    })
    await keys.verify(key)
    await clock.advance(HOUR - 1)
    // It holds units when the refill is due.
    for (let i = 0; i < 3; i++) await keys.verify(key)
    await clock.advance(1)
    expect(countAdmitted(await verifyTimes(keys, key, 120))).toBe(96)
  })

  it('that fails is unavailable, and carried out the next time', async () => {
    const { keys, clock, store } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, quota })
    await verifyTimes(keys, key, 3)
    await clock.advance(HOUR)
    store.fail('swapQuota', rejects(new Error('deadlock')))
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
      // The key it was set on comes last.
      for (const { key } of [...all.slice(i + 1), ...all.slice(0, i + 1)]) {
        expect(await keys.verify(key)).toMatchObject({ ok: true })
      }
    }
  })

  it('replaces what was left, leased units included', async () => {
    const { keys } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 50 } })
    for (let i = 0; i < 3; i++) await keys.verify(key)
    const updated = await keys.update(apiKey.id, { quota: { remaining: 4 } })
    expect(updated.quota?.remaining).toBe(4)
    expect(countAdmitted(await verifyTimes(keys, key, 20))).toBe(4)
  })

  it('is known to another process that is told of changes at its next call', async () => {
    const clock = fakeClock()
    const [inner, rateLimiter] = [memoryStore(), memoryRateLimiter({ clock })]
    const [here, there] = [1, 2].map(
      () => createTestKeys({ clock, rateLimiter, store: recordingStore(inner) }).keys,
    ) as [ApiKeys, ApiKeys]
    const { key, apiKey } = await here.issue({ ...NAME, quota: { remaining: 5 } })
    expect(countAdmitted(await verifyTimes(there, key, 6))).toBe(5)
    await clock.advance(LEASE_MS)
    expect(await there.verify(key)).toMatchObject({ code: 'quota_exceeded', retryAfterMs: null })
    await here.update(apiKey.id, { quota: { remaining: 5 } })
    expect(await there.verify(key)).toMatchObject({ ok: true })
    await here.update(apiKey.id, { quota: { remaining: 0 } })
    expect(await there.verify(key)).toMatchObject({ code: 'quota_exceeded' })
  })

  it('ends what a process has leased of the old one, which gives nothing back to the new', async () => {
    const { processes, clock, store } = createProcesses(2)
    const [here, there] = processes as [ReturnType<typeof createTestKeys>, ReturnType<typeof createTestKeys>]
    const { key, apiKey } = await here.keys.issue({ ...NAME, quota: { remaining: 800 } })
    for (let i = 0; i < 20; i++) await there.keys.verify(key)
    await here.keys.update(apiKey.id, { quota: { remaining: 7 } })
    await clock.advance(3 * LEASE_MS)
    expect(await remainingOf(store, apiKey.id)).toBe(7)
    await there.keys.close()
    expect(await remainingOf(store, apiKey.id)).toBe(7)
  })

  it('works after it was removed', async () => {
    const { keys, clock } = createTestKeys()
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

  it('that removes it lets calls pass that were waiting for units of it', async () => {
    const { processes } = createProcesses(2)
    const [here, there] = processes as [ReturnType<typeof createTestKeys>, ReturnType<typeof createTestKeys>]
    const { key, apiKey } = await here.keys.issue({ ...NAME, quota: { remaining: 5 } })
    await there.keys.verify(key, { cost: 0 })
    await here.keys.update(apiKey.id, { quota: null })
    // It still has the record with the quota.
    expect(await there.keys.verify(key)).toMatchObject({ ok: true, limits: [] })
  })

  it('leaves nothing to spend of a key that is purged', async () => {
    const { processes, clock } = createProcesses(2)
    const [here, there] = processes as [ReturnType<typeof createTestKeys>, ReturnType<typeof createTestKeys>]
    const { key, apiKey } = await here.keys.issue({ ...NAME, quota: { remaining: 5 } })
    await there.keys.verify(key, { cost: 0 })
    await here.keys.revoke(apiKey.id)
    await clock.advance(HOUR)
    await here.keys.purge({ endedBefore: new Date(clock.now()) })
    expect(await there.keys.verify(key)).toMatchObject({ code: 'invalid_key', reason: 'unknown' })
    expect(await here.keys.verify(key)).toMatchObject({ code: 'invalid_key' })
  })

  it('does not let a lease that was under way for the old quota spend of the new one', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 50 } })
    const held = store.hold('swapQuota')
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

describe('the options', () => {
  it.each([
    ['quotaBlockSize', -1],
    ['quotaBlockSize', 1.5],
    ['quotaBlockSize', '100'],
    ['quotaLeaseMs', 99],
    ['quotaLeaseMs', 600_001],
    ['quotaLeaseMs', null],
  ])('%s is refused as %s', (name, value) => {
    expect(() => createTestKeys({ [name]: value } as never)).toThrow(`"${name}" must be`)
  })

  it('quotaLeaseMs says how long a lease lasts', async () => {
    const { keys, store, clock } = createTestKeys({ quotaLeaseMs: 60_000 })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 100 } })
    for (let i = 0; i < 2; i++) await keys.verify(key)
    await clock.advance(40_000)
    expect(await remainingOf(store, apiKey.id)).toBeLessThan(98)
    await clock.advance(20_000)
    expect(await remainingOf(store, apiKey.id)).toBe(98)
  })
})
