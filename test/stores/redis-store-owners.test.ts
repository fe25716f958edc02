import fc from 'fast-check'
import type { KeyPosition, KeyRecord, KeyStore, Owner } from 'latchkey'
import { type RedisStoreClient, redisStore } from 'latchkey/redis'
import { describe, expect, it } from 'vitest'
import { at, record } from '../support/key-records.ts'
import { newPrefix, SERVERS } from '../support/redis-store.ts'

const ownerOf = (i: number): Owner => ({ type: 'user', id: `u_${i}` })
const idsOf = (records: readonly KeyRecord[]) => records.map(({ id }) => id)

/** The client, with something done before each read of an index of an owner, and nothing while it is done. */
function betweenReads(client: RedisStoreClient, act: (key: string) => Promise<void>): RedisStoreClient {
  let last: Promise<unknown> = Promise.resolve()
  return {
    isCluster: client.isCluster === true,
    get slots() {
      return client.slots ?? []
    },
    eval: async (...args) => client.eval(...args),
    async evalsha(...args) {
      const key = String(args[2])
      if (!key.includes(':o:')) return client.evalsha(...args)
      const read = last.then(() => act(key)).then(() => client.evalsha(...args))
      last = read.catch(() => {})
      return read
    },
    pipeline: (commands) => client.pipeline(commands),
  }
}

async function listAll(
  store: KeyStore,
  owners: readonly Owner[],
  limit: number,
  order?: 'newest',
): Promise<string[]> {
  const seen: string[] = []
  for (let after: KeyPosition | undefined; ; ) {
    const page = await store.list({ owners }, { limit, ...(after && { after }), ...(order && { order }) })
    seen.push(...idsOf(page))
    if (page.length < limit) return seen
    after = page.at(-1)
  }
}

describe.each(SERVERS)('a listing of several owners in Redis on %s', (_name, connect) => {
  /** A store to add keys to, each a millisecond after the one before. */
  function setUp() {
    const keyPrefix = newPrefix()
    const store = redisStore(connect(), { keyPrefix })
    let count = 0
    const add = async (owner: number) => {
      count += 1
      await store.insert([record({ id: `k${1_000 + count}`, createdAt: at(count), owner: ownerOf(owner) })])
    }
    const over = (act: (key: string) => Promise<void>) =>
      redisStore(betweenReads(connect(), act), { keyPrefix })
    return { keyPrefix, store, add, over }
  }

  it('leaves no gap where keys are added between two of its reads, more than one read returns', async () => {
    const { store, add, over } = setUp()
    const owners = Array.from({ length: 12 }, (_, i) => ownerOf(i))
    const read: string[] = []
    const reading = over(async (key) => {
      read.push(key)
      if (read.length !== 2) return
      const first = owners.findIndex(({ id }) => read[0]?.includes(`"${id}"`))
      for (let i = 0; i < 30; i += 1) await add(first)
      for (let i = 0; i < 12; i += 1) await add(i)
    })
    const seen = idsOf(await reading.list({ owners }, { limit: 50 }))
    const all = idsOf(await store.list({}, { limit: 50 }))
    expect(seen).toEqual(all.slice(0, seen.length))
    expect(seen.length > 30).toBe(read.length > 1)
  })

  it('shows every key once, and none late, while others are added between its reads', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(3), { maxLength: 30 }),
        fc.array(fc.array(fc.nat(3), { maxLength: 3 }), { maxLength: 20 }),
        fc.integer({ min: 1, max: 12 }),
        async (before, late, limit) => {
          const { store, add, over } = setUp()
          for (const owner of before) await add(owner)
          const reading = over(async () => {
            for (const owner of late.shift() ?? []) await add(owner)
          })
          const seen = await listAll(reading, [0, 1, 2, 3].map(ownerOf), limit)
          const all = idsOf(await store.list({}, { limit: 200 }))
          // No gap: what was seen is the beginning of what there is.
          expect(seen).toEqual(all.slice(0, seen.length))
          expect(seen.length).toBeGreaterThanOrEqual(before.length)
        },
      ),
      { numRuns: 40 },
    )
  })

  it('shows every key once, the newest first, while others are added between its reads', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(3), { maxLength: 30 }),
        fc.array(fc.array(fc.nat(3), { maxLength: 3 }), { maxLength: 20 }),
        fc.integer({ min: 1, max: 12 }),
        async (before, late, limit) => {
          const { store, add, over } = setUp()
          for (const owner of before) await add(owner)
          const there = idsOf(await store.list({}, { limit: 200 }))
          const reading = over(async () => {
            for (const owner of late.shift() ?? []) await add(owner)
          })
          const seen = await listAll(reading, [0, 1, 2, 3].map(ownerOf), limit, 'newest')
          expect(seen).toEqual([...new Set(seen)].sort().reverse())
          expect(seen.filter((id) => there.includes(id))).toEqual(there.toReversed())
        },
      ),
      { numRuns: 40 },
    )
  })

  it('reads on in few steps where one of 50 owners has most of the keys', async () => {
    const { keyPrefix, store } = setUp()
    const all = Array.from({ length: 600 }, (_, i) =>
      record({ id: `k${1_000 + i}`, createdAt: at(i), owner: ownerOf(i % 50 === 0 ? 3 : 7) }),
    )
    await store.insert(all)
    const owners = Array.from({ length: 50 }, (_, i) => ownerOf(i))
    let reads = 0
    const client = betweenReads(connect(), async () => {
      reads += 1
    })
    const found = await redisStore(client, { keyPrefix }).list({ owners }, { limit: 600 })
    expect(idsOf(found)).toEqual(idsOf(all))
    // In a Cluster each index is read by itself, and twice where it has ended.
    expect(reads).toBeLessThan(client.isCluster ? 700 : 7)
  })
})
