import type { KeyChange, KeyRecord, KeyStore } from 'latchkey'
import { type RedisStore, redisStore } from 'latchkey/redis'
import { describe, expect, it } from 'vitest'
import { createRedisStore } from '../../lib/stores/redis/redis-store.ts'
import { at, lease, quota, record } from '../support/key-records.ts'
import { counted, keysOf, newPrefix, SERVERS } from '../support/redis-store.ts'

/** An insertion that has crashed is out of the way soon, and what it left in an index is old at once. */
const SOON = { openMs: 50, strayMs: -1_000 }

const owner = { type: 'user', id: 'owner of the batch' }
const BATCH = [
  record({ id: 'a', owner, lineageId: 'l', quota: quota(5) }),
  record({ id: 'b', owner, name: 'nightly', createdBy: 'admin' }),
  record({ id: 'c', lookup: 'foreign:c', owner, lineageId: 'l', quota: quota(9) }),
]

describe.each(SERVERS)('%s', (_name, connect) => {
  /**
   * Does `work` once for each command that it sends, with a process that crashes before sending that one, and then has
   * `check` look at what is left with another process.
   */
  async function crashEverywhere(
    prepare: (store: RedisStore) => Promise<unknown>,
    work: (store: RedisStore) => Promise<unknown>,
    check: (left: { store: RedisStore; hasResolved: boolean; keyPrefix: string }) => Promise<unknown>,
  ): Promise<number> {
    for (let command = 1; ; command += 1) {
      const keyPrefix = newPrefix()
      const store = redisStore(connect(), { keyPrefix })
      await prepare(store)
      const { client } = counted(connect(), command)
      const crashing = createRedisStore(client, { keyPrefix }, SOON)
      const hasResolved = await work(crashing).then(
        () => true,
        (error) => {
          expect(error).toMatchObject({ message: 'Redis failed: the process has crashed' })
          return false
        },
      )
      await check({ store, hasResolved, keyPrefix })
      if (hasResolved) return command
    }
  }

  /** What time does to batches that nobody decides. */
  async function expire(keyPrefix: string): Promise<void> {
    const client = connect()
    for (const key of await keysOf(client, `${keyPrefix}:b`)) {
      if ((await client.get(key)) === 'open') await client.del(key)
    }
  }

  const idsOf = (records: readonly KeyRecord[]) => records.map(({ id }) => id)
  const list = async (store: KeyStore, filter = {}) => idsOf(await store.list(filter, { limit: 100 }))

  it.each([
    ['at once', false],
    ['after a while', true],
  ])(
    'adds all records of a batch or none, and stands in nobody’s way, looked at %s',
    async (_when, isLater) => {
      const outcomes = new Set<string>()
      await crashEverywhere(
        async () => {},
        (store) => store.insert(BATCH),
        async ({ store, hasResolved, keyPrefix }) => {
          if (isLater) await expire(keyPrefix)
          const found = await Promise.all(BATCH.map(({ id }) => store.find({ id })))
          const isThere = found[0] !== null
          outcomes.add(`${hasResolved ? 'resolved' : 'failed'}, ${isThere ? 'all' : 'none'}`)
          if (hasResolved) expect(isThere).toBe(true)
          const expected = BATCH.map((one) => (one.lineageId === 'l' ? { ...one, quota: quota(5) } : one))
          if (isThere) {
            expect(found).toEqual(expected)
            expect(await lease(store, 'l', 1)).toBe(1)
            await expect(store.insert(BATCH)).rejects.toMatchObject({ code: 'duplicate_key' })
          } else {
            expect(found).toEqual([null, null, null])
            expect(await store.find({ lookups: BATCH.map(({ lookup }) => lookup) })).toBeNull()
            expect(await list(store)).toEqual([])
            expect(await lease(store, 'l', 1)).toBeNull()
            await store.insert(BATCH)
          }
          for (const filter of [{}, { owners: [owner] }])
            expect(await list(store, filter)).toEqual(['a', 'b', 'c'])
          expect(await list(store, { lineageId: 'l' })).toEqual(['a', 'c'])
          expect(await list(store, { name: 'nightly' })).toEqual(['b'])
          expect(await list(store, { createdBy: 'admin' })).toEqual(['b'])
        },
      )
      expect([...outcomes]).toEqual(expect.arrayContaining(['failed, none', 'failed, all', 'resolved, all']))
    },
  )

  it('completes a change of a quota that was begun', async () => {
    const outcomes = new Set<number>()
    const change: KeyChange = { name: 'new', quota: { remaining: 50 }, updatedAt: at(1) }
    await crashEverywhere(
      (store) => store.insert(BATCH),
      (store) => store.update('a', 1, change),
      async ({ store, hasResolved }) => {
        const listed = await store.list({ lineageId: 'l' }, { limit: 9 })
        const found = (await store.find({ id: 'a' })) as KeyRecord
        outcomes.add(found.version)
        if (hasResolved) expect(found.version).toBe(2)
        const isChanged = found.version === 2
        expect(found).toMatchObject(
          isChanged
            ? { name: 'new', quota: { remaining: 50, epoch: at(1).getTime() } }
            : { name: 'CI', quota: { epoch: at(0).getTime() } },
        )
        expect((await store.find({ id: 'c' }))?.quota).toEqual(found.quota)
        expect(idsOf(listed)).toEqual(['a', 'c'])
        expect(await list(store, { name: 'new' })).toEqual(isChanged ? ['a'] : [])
        expect(await list(store, { name: 'CI' })).toEqual(isChanged ? ['c'] : ['a', 'c'])
        expect(await store.update('c', 1, { quota: { remaining: 7 }, updatedAt: at(2) })).toBe('updated')
        // Nobody does what was asked for before once more.
        expect((await store.find({ id: 'a' }))?.quota).toMatchObject({ remaining: 7, allotted: 0 })
      },
    )
    expect(outcomes).toEqual(new Set([1, 2]))
  })

  it('purges so that nothing is left that could be used, and frees what was taken', async () => {
    const ended = BATCH.map((one) => ({ ...one, revokedAt: at(0) }))
    const ids = idsOf(BATCH)
    const outcomes = new Set<number>()
    await crashEverywhere(
      (store) => store.insert(ended),
      (store) => store.purge(ids, at(1)),
      async ({ store, keyPrefix }) => {
        const left: string[] = []
        for (const { id, lookup } of BATCH) {
          const found = await store.find({ id })
          expect(await store.find({ lookups: [lookup] })).toEqual(found)
          if (!found) continue
          expect(found.revokedAt).toEqual(at(0))
          left.push(id)
        }
        outcomes.add(left.length)
        expect(await list(store, { owners: [owner] })).toEqual(left)
        expect(await store.purge(ids, at(1))).toBe(left.length)
        await store.insert(BATCH)
        expect(await list(store)).toEqual(ids)
        expect(await store.find({ lookups: ['foreign:c'] })).toMatchObject({ id: 'c', revokedAt: null })

        for (const id of ids) await store.update(id, 1, { revokedAt: at(0), updatedAt: at(0) })
        expect(await store.purge(ids, at(1))).toBe(3)
        const sweeping = createRedisStore(connect(), { keyPrefix }, SOON)
        const filters = [
          {},
          { owners: [owner] },
          { createdBy: 'admin' },
          { lineageId: 'l' },
          { lineageId: 'b' },
        ]
        for (const filter of [...filters, { name: 'CI' }, { name: 'nightly' }]) {
          expect(await list(sweeping, filter)).toEqual([])
        }
        expect(await keysOf(connect(), keyPrefix)).toEqual([])
      },
    )
    expect(outcomes.has(0)).toBe(true)
    expect(outcomes.has(3)).toBe(true)
  })
})
