import {
  type ApiKeys,
  type ApiKeysOptions,
  type IssuedKey,
  type KeyStore,
  memoryRateLimiter,
  type RateLimiter,
} from 'latchkey'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type FakeClock, fakeClock } from './fake-clock.ts'
import { type RecordingStore, recordingStore, rejects, type StoreFault } from './recording-store.ts'
import { createTestKeys, NAME } from './test-keys.ts'
import { watchStores } from './watch-stores.ts'

/** Stores that share their keys, as those of several processes do. */
export interface SharedStores {
  /** One with a connection of its own. */
  open(): KeyStore
  close(): Promise<void>
}

interface Process {
  readonly keys: ApiKeys
  readonly store: RecordingStore
  /** How many swaps the store has made for it. */
  readonly swapped: () => number
}

interface World {
  readonly clock: FakeClock
  start(options?: Partial<ApiKeysOptions> & { clock?: FakeClock }): Process
  /** Lets the time go by, and everything be done that falls due meanwhile. */
  pass(ms: number): Promise<void>
  /** The units that nobody has leased. */
  remainingOf(id: string): Promise<number>
}

const LEASE_MS = 5_000

/** The store has done it, and nobody hears of it. */
const losesReply: StoreFault = async (work) => {
  await work()
  throw new Error('the connection was closed')
}

/** The store is not reached. */
const losesCommand = rejects(new Error('connection refused'))

/** What has to hold for quotas that processes spend together, whatever is lost, late, or sent twice. */
export function proveQuotas(create: () => Promise<SharedStores>): void {
  let stores: SharedStores
  const watched = watchStores()
  beforeAll(async () => {
    stores = await create()
  })
  afterAll(() => stores?.close())

  const open = (): World => {
    const clock = fakeClock()
    const look = stores.open()
    return {
      clock,
      start({ clock: own = clock, ...options } = {}) {
        let swapped = 0
        const inner = watched.watch(stores.open() as Required<KeyStore>)
        const swapQuota: typeof inner.swapQuota = async (...args) => {
          const result = await inner.swapQuota(...args)
          if (result.swapped) swapped += 1
          return result
        }
        const store = recordingStore({ ...inner, swapQuota })
        const { keys } = createTestKeys({ ...options, clock: own, store })
        return { keys, store, swapped: () => swapped }
      },
      pass: (ms) => watched.pass(clock, ms),
      remainingOf: async (id) => (await look.find({ id }))?.quota?.remaining ?? Number.NaN,
    }
  }

  it('admits 250 calls at once in each of 4 processes on 1,000 units, with a swap for each process', async () => {
    const { start, remainingOf } = open()
    const processes = [start(), start(), start(), start()]
    const { key, apiKey } = await firstOf(processes).keys.issue({ ...NAME, quota: { remaining: 1_000 } })
    const admitted = await Promise.all(processes.map(({ keys }) => verifyTimes(keys, key, 250)))
    expect(admitted).toEqual([250, 250, 250, 250])
    expect(sum(processes.map(({ swapped }) => swapped()))).toBeLessThanOrEqual(4)
    expect(await remainingOf(apiKey.id)).toBe(0)
    await closeAll(processes)
  })

  it('refuses nobody for longer than a lease while a slow, steady process holds units', async () => {
    const { start, pass, clock, remainingOf } = open()
    const [slow, draining] = [start(), start()]
    const { key, apiKey } = await slow.keys.issue({ ...NAME, quota: { remaining: 2_000 } })
    let admitted = 0
    let refusedSince: number | null = null
    let refusals = 0
    for (let i = 0; i < 150 && admitted < 2_000; i += 1) {
      admitted += await verifyTimes(slow.keys, key, 1)
      for (let calls = 0; calls < 25; calls += 1) {
        const { ok } = await draining.keys.verify(key)
        if (ok) {
          admitted += 1
          refusedSince = null
          continue
        }
        refusals += 1
        refusedSince ??= clock.now()
        expect(clock.now() - refusedSince).toBeLessThanOrEqual(LEASE_MS)
        break
      }
      await pass(400)
    }
    expect(admitted).toBe(2_000)
    expect(refusals).toBeGreaterThan(0)
    expect(await remainingOf(apiKey.id)).toBe(0)
    await closeAll([slow, draining])
  })

  it('moves units once where a swap is made, its reply is lost, and it is sent again twice', async () => {
    const { start, remainingOf } = open()
    const process = start()
    const { keys, store } = process
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 100 } })
    store.fail('swapQuota', losesReply)
    for (let i = 0; i < 2; i += 1) await expect(keys.verify(key)).rejects.toMatchObject({ status: 503 })
    expect(await remainingOf(apiKey.id)).toBe(99)
    store.heal()
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    const [first, second, third] = store.argumentsOf('swapQuota')
    expect([second, third]).toEqual([first, first])
    // Whether the first was made nobody can tell: its unit is given up, and the call has one of its own.
    expect(await remainingOf(apiKey.id)).toBe(98)
    await closeAll([process])
    expect(await remainingOf(apiKey.id)).toBe(98)
  })

  it('adds nothing where a return did not arrive, another process went on, and it is sent again', async () => {
    const world = open()
    const { start, pass, remainingOf } = world
    const [one, other] = [start(), start()]
    const issued = await one.keys.issue({ ...NAME, quota: { remaining: 10_000 } })
    const { key, apiKey } = issued
    const held = await leaseAhead(world, one.keys, issued)
    const before = await remainingOf(apiKey.id)
    one.store.fail('swapQuota', losesCommand)
    await pass(LEASE_MS)
    expect(one.store.calls('swapQuota')).toBeGreaterThan(2)
    expect(await other.keys.verify(key)).toMatchObject({ ok: true })
    one.store.heal()
    await pass(2 * LEASE_MS)
    // The return is refused. It might have been made before, so its units are given up.
    expect(held).toBeGreaterThan(0)
    expect(await remainingOf(apiKey.id)).toBe(before - 1)
    await closeAll([one, other])
    expect(await remainingOf(apiKey.id)).toBe(before - 1)
  })

  it('claims nothing of an equal swap that another process has made after a reply was lost', async () => {
    const { start, remainingOf } = open()
    const [one, other] = [start(), start()]
    const { key, apiKey } = await one.keys.issue({ ...NAME, quota: { remaining: 100 } })
    one.store.fail('swapQuota', losesCommand)
    await expect(one.keys.verify(key)).rejects.toMatchObject({ status: 503 })
    expect(await other.keys.verify(key)).toMatchObject({ ok: true })
    expect(other.store.argumentsOf('swapQuota')).toEqual(one.store.argumentsOf('swapQuota'))
    one.store.heal()
    expect(await one.keys.verify(key)).toMatchObject({ ok: true })
    expect(await remainingOf(apiKey.id)).toBe(98)
    await closeAll([one, other])
  })

  it('leaves a quota that was set anew as it is where units of the one before come back', async () => {
    const world = open()
    const { start, pass, remainingOf } = world
    const [one, other] = [start({ quotaBlockSize: 50 }), start()]
    const issued = await one.keys.issue({ ...NAME, quota: { remaining: 10_000 } })
    const { id } = issued.apiKey
    expect(await leaseAhead(world, one.keys, issued)).toBe(50)
    await other.keys.update(id, { quota: { remaining: 500 } })
    await pass(2 * LEASE_MS)
    expect(one.store.calls('swapQuota')).toBe(3)
    expect(await remainingOf(id)).toBe(500)
    await closeAll([one, other])
    expect(await remainingOf(id)).toBe(500)
  })

  it('loses nothing of ten clean ends amid calls at the limiter and a lease that is under way', async () => {
    const { start, remainingOf } = open()
    const issuing = start()
    const { key, apiKey } = await issuing.keys.issue({ ...NAME, quota: { remaining: 1_000 } })
    let left = 1_000
    for (let round = 0; round < 10; round += 1) {
      const limiter = heldLimiter()
      const { keys, store } = start({ rateLimiter: limiter })
      const atLimiter = verifyTimes(keys, key, 5)
      await limiter.reached(5)
      const swap = store.hold('swapQuota')
      const waiting = verifyTimes(keys, key, 20)
      await swap.reached
      const closed = keys.close()
      swap.release()
      await limiter.reached(25)
      limiter.release()
      const admitted = sum(await Promise.all([atLimiter, waiting]))
      // The limiter refuses every third.
      expect(admitted).toBe(25 - Math.floor(25 / 3))
      await closed
      left -= admitted
      expect(await remainingOf(apiKey.id)).toBe(left)
    }
    await closeAll([issuing])
  })

  it('loses what was offered or granted, whichever is more, where a process dies amid an exchange', async () => {
    const world = open()
    const { start, pass, remainingOf } = world
    // For the one that dies no time goes by.
    const [dying, other] = [start({ clock: fakeClock() }), start()]
    const issued = await other.keys.issue({ ...NAME, quota: { remaining: 10_000 } })
    const { key, apiKey } = issued
    const offered = await leaseAhead(world, dying.keys, issued)
    const before = await remainingOf(apiKey.id)
    dying.store.hold('swapQuota')
    // It holds too few for these, asks for more, and never hears of it.
    const calls = offered + 100
    void Promise.allSettled([verifyTimes(dying.keys, key, calls)])
    await expect.poll(() => dying.swapped()).toBe(3)
    const granted = before + offered - (await remainingOf(apiKey.id))
    expect(granted).toBeGreaterThan(offered)
    await pass(2 * LEASE_MS)
    let admitted = 0
    while ((await remainingOf(apiKey.id)) > 0) admitted += await verifyTimes(other.keys, key, 500)
    expect(admitted).toBeGreaterThanOrEqual(before - Math.max(offered, granted) - calls)
    expect(admitted).toBeLessThanOrEqual(before)
    await closeAll([other])
  })

  it('says to come back in a lease time, then that nothing comes, until there are new units', async () => {
    const { start, pass } = open()
    const [one, other] = [start(), start()]
    const { key, apiKey } = await one.keys.issue({ ...NAME, quota: { remaining: 3 } })
    expect(await verifyTimes(one.keys, key, 3)).toBe(3)
    const spent = { ok: false, code: 'quota_exceeded' }
    for (const { keys } of [one, other]) {
      expect(await keys.verify(key)).toMatchObject({ ...spent, retryAfterMs: LEASE_MS })
    }
    await pass(LEASE_MS)
    for (const { keys } of [one, other]) {
      expect(await keys.verify(key)).toMatchObject({ ...spent, retryAfterMs: null })
    }
    await other.keys.update(apiKey.id, { quota: { remaining: 5 } })
    expect(await other.keys.verify(key)).toMatchObject({ ok: true })
    await pass(LEASE_MS)
    expect(await one.keys.verify(key)).toMatchObject({ ok: true })
    await closeAll([one, other])
  })

  it('gives the leases of many keys back together', async () => {
    const world = open()
    const { start, pass, remainingOf } = world
    const process = start()
    const issued = await Promise.all(
      Array.from({ length: 30 }, () => process.keys.issue({ ...NAME, quota: { remaining: 10_000 } })),
    )
    await Promise.all(issued.map((one) => leaseAhead(world, process.keys, one)))
    process.store.forgetCalls()
    await pass(LEASE_MS)
    expect([process.store.calls('swapQuotas'), process.store.calls('swapQuota')]).toEqual([1, 0])
    for (const { apiKey } of issued) expect(await remainingOf(apiKey.id)).toBe(10_000 - 110)
    await closeAll([process])
  })
}

/** Has a process use a key of 10,000 units so that it leases more than it spends; answers what it holds. */
async function leaseAhead(world: World, keys: ApiKeys, { key, apiKey }: IssuedKey): Promise<number> {
  // The first lease is what the calls cost. What was spent of it says how much the next one is worth.
  expect(await verifyTimes(keys, key, 100)).toBe(100)
  expect(await verifyTimes(keys, key, 10)).toBe(10)
  expect(await keys.get(apiKey.id)).toMatchObject({ quota: { remaining: 10_000 - 110 } })
  return 10_000 - 110 - (await world.remainingOf(apiKey.id))
}

async function verifyTimes(keys: ApiKeys, key: string, times: number): Promise<number> {
  const results = await Promise.all(Array.from({ length: times }, () => keys.verify(key)))
  return results.filter(({ ok }) => ok).length
}

/** A limiter whose answers are kept back until they are released, and that refuses every third call. */
function heldLimiter(): RateLimiter & { reached(calls: number): Promise<void>; release(): void } {
  const inner = memoryRateLimiter()
  let calls = 0
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  return {
    async check(request) {
      calls += 1
      const isRefused = calls % 3 === 0
      const answer = inner.check(request)
      await released
      return isRefused ? { outcome: 'limited', limits: [], retryAfterMs: 1 } : answer
    },
    raiseVersions: inner.raiseVersions,
    reached: (count) => expect.poll(() => calls).toBe(count),
    release: () => release(),
  }
}

function firstOf(processes: readonly Process[]): Process {
  return processes[0] as Process
}

async function closeAll(processes: readonly Process[]): Promise<void> {
  await Promise.all(processes.map(({ keys }) => keys.close()))
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
