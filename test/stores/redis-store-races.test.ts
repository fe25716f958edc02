import { randomInt } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { createApiKeys, type KeyRecord, type KeyStore } from 'latchkey'
import { type RedisStoreClient, redisRateLimiter, redisStore } from 'latchkey/redis'
import { describe, expect, it } from 'vitest'
import { createRedisStore } from '../../lib/stores/redis/redis-store.ts'
import { at, lease, quota, record } from '../support/key-records.ts'
import { newPrefix, SERVERS } from '../support/redis-store.ts'

const SEED = Number(process.env.MODEL_SEED ?? randomInt(2 ** 31))
const RUNS = Number(process.env.MODEL_RUNS ?? 60)
const TIMES = { openMs: 60_000, strayMs: 3_600_000 }

/** Whoever has been answered says what is to be sent next, before anything else is sent. */
const schedulers = fc.scheduler({
  act: async (send) => {
    await send()
    await setImmediate()
  },
})

describe.each(SERVERS)('%s', (_name, connect) => {
  const idsOf = (records: readonly KeyRecord[]) => records.map(({ id }) => id)
  const list = async (store: KeyStore, filter = {}) => idsOf(await store.list(filter, { limit: 1_000 }))
  const setUp = () => {
    const keyPrefix = newPrefix()
    return Array.from({ length: 5 }, () => redisStore(connect(), { keyPrefix })) as [Required<KeyStore>]
  }

  it('lets one of many batches win that overlap, whatever their order, and adds nothing of the others', async () => {
    const stores = setUp()
    const batchOf = (i: number) => {
      const shared = [record({ id: 'x', lookup: 'f:x' }), record({ id: 'y' }), record({ id: 'z' })]
      return [record({ id: `${i}` }), ...(i % 2 ? shared : shared.toReversed())]
    }
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => (stores[i % 5] as KeyStore).insert(batchOf(i))),
    )
    const winners = outcomes.flatMap(({ status }, i) => (status === 'fulfilled' ? [`${i}`] : []))
    expect(winners).toHaveLength(1)
    for (const one of outcomes) {
      if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'duplicate_key' })
    }
    expect(await list(stores[0])).toEqual([...winners, 'x', 'y', 'z'])
  })

  it('lets one of 50 changes of a version win, and loses neither a use nor a new digest', async () => {
    const stores = setUp()
    await stores[0].insert([record({ id: 'a', lookup: 'f:a', lineageId: 'l', quota: quota(1_000) })])
    const use = { id: 'a', count: 1, lastUsedAt: at(9), lastUsedIp: '192.0.2.1' }
    const outcomes = await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const store = stores[i % 5] as Required<KeyStore>
        const digest = i === 7 && store.replaceDigest('a', '$sha256$a', '$sha256$b')
        const change = { name: `${i}`, quota: { remaining: i }, updatedAt: at(1) }
        const [outcome] = await Promise.all([store.update('a', 1, change), store.recordUsage([use]), digest])
        return outcome
      }),
    )
    expect(outcomes.filter((outcome) => outcome === 'conflict')).toHaveLength(49)
    const winner = outcomes.indexOf('updated')
    expect(await stores[0].find({ id: 'a' })).toMatchObject({
      name: `${winner}`,
      version: 2,
      quota: { remaining: winner },
      usageCount: 50,
      lastUsedIp: '192.0.2.1',
      digest: '$sha256$b',
    })
    expect(await list(stores[0], { name: `${winner}` })).toEqual(['a'])
    expect(await list(stores[0], { name: 'CI' })).toEqual([])
  })

  it('keeps the quota of a lineage whose last key is purged while a successor comes, or gives it up whole', async () => {
    const stores = setUp()
    const ended = { revokedAt: at(0), lineageId: 'l' }
    for (let round = 0; round < 10; round += 1) {
      await stores[0].insert([record({ id: 'old', quota: quota(9), ...ended })])
      await lease(stores[0], 'l', 1)
      const [, ...purged] = await Promise.all([
        stores[0].insert([record({ id: 'new', quota: quota(9), ...ended })]),
        ...stores.map((store) => store.purge(['old'], at(1))),
      ])
      expect(purged.toSorted()).toEqual([0, 0, 0, 0, 1])
      expect([8, 9]).toContain((await stores[0].find({ id: 'new' }))?.quota?.remaining)
      expect(await lease(stores[0], 'l', 1)).toBe(1)
      expect(await stores[0].purge(['new'], at(1))).toBe(1)
      expect(await lease(stores[0], 'l', 1)).toBeNull()
    }
  })

  it('shows every resolved insertion to a listing that begins then, in full pages', async () => {
    const [one, other] = setUp() as unknown as [Required<KeyStore>, Required<KeyStore>]
    const owner = { type: 'user', id: 'busy' }
    let inserted = 0
    await Promise.all(
      Array.from({ length: 4 }, async (_, writer) => {
        for (let i = 0; i < 15; i += 1) {
          const batch = [record({ id: `${writer}-${i}`, owner }), record({ id: `${writer}-${i}'`, owner })]
          await one.insert(batch)
          inserted += 2
          const before = inserted
          const listed = await list(other, { owners: [owner] })
          expect(listed).toEqual(expect.arrayContaining(idsOf(batch)))
          expect(listed.length).toBeGreaterThanOrEqual(before)
          expect(new Set(listed).size).toBe(listed.length)
        }
      }),
    )
    expect(await one.list({ owners: [owner] }, { limit: 100 })).toHaveLength(100)
    expect(await list(one, { owners: [owner] })).toHaveLength(120)
  })

  it(`holds whatever the order in which commands arrive (MODEL_SEED=${SEED})`, async () => {
    const isNotThere = (found: unknown) => found === null
    await fc.assert(
      fc.asyncProperty(schedulers, async (scheduler) => {
        const keyPrefix = newPrefix()
        const real = connect()
        const inOrder = redisStore(real, { keyPrefix })
        const store = createRedisStore(scheduled(real, scheduler), { keyPrefix }, TIMES)
        await inOrder.insert([
          record({ id: 'r', lookup: 'f:r', lineageId: 'l', quota: quota(10) }),
          record({ id: 's', lineageId: 'l' }),
          record({ id: 'gone', lineageId: 'l', revokedAt: at(0) }),
        ])
        const settle = (work: Promise<unknown>) => work.catch((error: { code?: string }) => error.code)
        const renamed = { name: 'renamed', updatedAt: at(1) }
        const work = [
          settle(store.insert([record({ id: 'x', lookup: 'f:x' }), record({ id: 'y', lineageId: 'l' })])),
          settle(store.insert([record({ id: 'y' }), record({ id: 'x' }), record({ id: 'z' })])),
          store.update('r', 1, { ...renamed, quota: { remaining: 30 } }),
          store.update('r', 1, { name: 'other', updatedAt: at(2), quota: { remaining: 40 } }),
          store.update('s', 1, { updatedAt: at(3), quota: { remaining: 50 } }),
          store.find({ id: 'r' }),
          store.list({ lineageId: 'l' }, { limit: 10 }),
          store.purge(['gone'], at(1)),
          lease(store, 'l', 3),
        ] as const
        // It ends when nobody sends anything any more.
        const all = Promise.all(work)
        await scheduler.waitFor(all)
        const [first, second, one, other, third, , , purged] = await all

        expect([first, second].toSorted()).toEqual(['duplicate_key', undefined])
        const there = await Promise.all(['x', 'y', 'z'].map((id) => inOrder.find({ id })))
        expect(there.map(isNotThere)).toEqual([false, false, second !== undefined])
        expect(await list(inOrder)).toEqual(['r', 's', 'x', 'y', ...(second === undefined ? ['z'] : [])])
        expect([one, other].toSorted()).toEqual(['conflict', 'updated'])
        expect(third).toBe('updated')
        expect(purged).toBe(1)
        const name = one === 'updated' ? 'renamed' : 'other'
        expect(await list(inOrder, { name })).toEqual(['r'])
        expect(await list(inOrder, { name: name === 'other' ? 'renamed' : 'other' })).toEqual([])
        const wanted = one === 'updated' ? 30 : 40
        const left = (await inOrder.find({ id: 'r' }))?.quota
        expect([wanted, wanted - 3, 50, 47]).toContain(left?.remaining)
        expect((await inOrder.find({ id: 's' }))?.quota).toEqual(left)
      }),
      { seed: SEED, numRuns: RUNS },
    )
  })

  it(`purges no key that is seen in use (MODEL_SEED=${SEED})`, async () => {
    await fc.assert(
      fc.asyncProperty(schedulers, async (scheduler) => {
        const keyPrefix = newPrefix()
        const inOrder = redisStore(connect(), { keyPrefix })
        const store = createRedisStore(scheduled(connect(), scheduler), { keyPrefix }, TIMES)
        await inOrder.insert([record({ id: 'idle', idleExpiryMs: 10 })])
        const use = async () => {
          await store.recordUsage([{ id: 'idle', count: 1, lastUsedAt: at(15), lastUsedIp: null }])
          return store.find({ id: 'idle' })
        }
        const all = Promise.all([store.purge(['idle'], at(20)), use()])
        await scheduler.waitFor(all)
        const [purged, seen] = await all
        if (seen) expect(purged).toBe(0)
        expect(await list(inOrder)).toEqual(purged === 1 ? [] : ['idle'])
      }),
      { seed: SEED, numRuns: RUNS },
    )
  })

  it(`lists a key by the name it has, whoever renames it in between (MODEL_SEED=${SEED})`, async () => {
    await fc.assert(
      fc.asyncProperty(schedulers, async (scheduler) => {
        const keyPrefix = newPrefix()
        const inOrder = redisStore(connect(), { keyPrefix })
        const store = createRedisStore(scheduled(connect(), scheduler), { keyPrefix }, TIMES)
        await inOrder.insert([record({ id: 'r' })])
        const rename = async (version: number, name: string) => {
          while ((await store.find({ id: 'r' }))?.version !== version) {
            // Whoever comes before has not come yet.
          }
          return store.update('r', version, { name, updatedAt: at(version) })
        }
        const all = Promise.all([rename(1, 'other'), rename(2, 'CI'), rename(3, 'other'), rename(4, 'CI')])
        await scheduler.waitFor(all)
        expect(await all).toEqual(['updated', 'updated', 'updated', 'updated'])
        expect(await list(inOrder, { name: 'CI' })).toEqual(['r'])
        expect(await list(inOrder, { name: 'other' })).toEqual([])
      }),
      { seed: SEED, numRuns: RUNS },
    )
  })

  describe('with keys', () => {
    const prefixed = () => {
      const keyPrefix = newPrefix()
      const make = () =>
        createApiKeys({
          store: redisStore(connect(), { keyPrefix }),
          rateLimiter: redisRateLimiter(connect(), { keyPrefix, timeoutMs: 5_000 }),
          prefix: 'acme',
          rateLimits: [{ name: 'minute', limit: 100, windowMs: 60_000 }],
        })
      return [make(), make()] as const
    }
    const owner = { type: 'user', id: 'u_1' }

    it('verifies what another process has issued, rotated and revoked', async () => {
      const [one, other] = prefixed()
      const { key, apiKey } = await one.issue({ owner, name: 'CI', quota: { remaining: 5 } })
      expect(await other.verify(key)).toMatchObject({ ok: true })
      const rotated = await other.rotate(apiKey.id, { graceMs: 60_000 })
      expect(await one.verify(rotated.key)).toMatchObject({ ok: true })
      expect(await one.verify(key)).toMatchObject({ ok: true })
      expect(await one.get(rotated.apiKey.id)).toMatchObject({ quota: { remaining: 2 } })
      await one.revoke(apiKey.id)
      expect(await other.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
      expect(await other.verify(rotated.key)).toMatchObject({ ok: true })
    })

    it('leaves an owner no key that was rotated while all of them were revoked', async () => {
      for (let round = 0; round < 5; round += 1) {
        const [one, other] = prefixed()
        const issued = await Promise.all([1, 2, 3].map((i) => one.issue({ owner, name: `${i}` })))
        const [, ...rotations] = await Promise.allSettled([
          other.revokeOwner(owner),
          ...issued.map(({ apiKey }) => one.rotate(apiKey.id, { graceMs: 60_000 })),
        ])
        const given = issued.map(({ key }) => key)
        for (const rotation of rotations) {
          if (rotation.status === 'fulfilled') given.push((rotation.value as { key: string }).key)
        }
        for (const key of given) {
          expect(await one.verify(key)).toMatchObject({ ok: false, code: 'invalid_key' })
          expect(await other.verify(key)).toMatchObject({ ok: false, code: 'invalid_key' })
        }
      }
    })
  })
})

/** The client, which sends one command at a time, in the order of the scheduler, and waits for its reply. */
function scheduled(client: RedisStoreClient, scheduler: fc.Scheduler): RedisStoreClient {
  // A failure is carried as a value: the scheduler would leave a copy of it unhandled.
  const send = scheduler.scheduleFunction(async (...args: Parameters<RedisStoreClient['evalsha']>) => {
    const [outcome] = await Promise.allSettled([client.evalsha(...args)])
    return outcome
  })
  return {
    isCluster: client.isCluster === true,
    get slots() {
      return client.slots ?? []
    },
    eval: (...args) => client.eval(...args),
    evalsha: async (...args) => {
      const outcome = await send(...args)
      if (outcome.status === 'rejected') throw outcome.reason
      return outcome.value
    },
    pipeline: (commands) => client.pipeline(commands),
  }
}
