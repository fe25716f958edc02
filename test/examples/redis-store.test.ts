import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import type { KeyRecord, KeyStore } from 'latchkey'
import { storeConformance } from 'latchkey/testing'
import { afterAll, beforeEach, describe, expect, inject, it, test } from 'vitest'
import { sharedStore } from '../../examples/redis/shared-store.ts'
import { at, lease, leased, quota, record } from '../support/key-records.ts'

const CONNECTIONS = 5

const connections = Array.from({ length: CONNECTIONS }, () => new Redis(inject('redisUrl')))
const [redis] = connections as [Redis]
const hashes: string[] = []
afterAll(async () => {
  if (hashes.length > 0) await redis.del(hashes)
  for (const connection of connections) connection.disconnect()
})

function newHash(): string {
  const hash = `redis-store-test:${randomUUID()}`
  hashes.push(hash)
  return hash
}

storeConformance({ test, assert, without: ['addUsage'] }, () => sharedStore(redis, newHash()))

it('takes a command that its client sends twice, since the reply was lost, for one', async () => {
  const twice = Object.assign(Object.create(redis) as Redis, {
    async eval(...args: Parameters<Redis['eval']>) {
      await redis.eval(...args)
      return redis.eval(...args)
    },
  })
  const store = sharedStore(twice, newHash()) as Required<KeyStore>
  await store.insert([record({ id: 'a', quota: quota(5) })])
  expect(await store.swapQuota('a', quota(5), leased(quota(5), 2))).toEqual({ swapped: true })
  expect(await store.update('a', 1, { name: 'new', updatedAt: at(1) })).toBe('updated')
  await store.recordUsage([{ id: 'a', count: 1, lastUsedAt: at(2), lastUsedIp: null }])
  expect(await store.find({ id: 'a' })).toMatchObject({ usageCount: 1, version: 2 })
})

describe('several processes, each with a connection of its own', () => {
  let hash: string
  let stores: Required<KeyStore>[]
  beforeEach(() => {
    hash = newHash()
    stores = connections.map((connection) => sharedStore(connection, hash) as Required<KeyStore>)
  })

  const storeOf = (i: number) => stores[i % CONNECTIONS] as Required<KeyStore>
  /** Calls `run` so many times at once, each time with the store of another process. */
  const atOnce = <T>(count: number, run: (store: Required<KeyStore>, i: number) => Promise<T>) =>
    Promise.allSettled(Array.from({ length: count }, (_, i) => run(storeOf(i), i)))
  const find = async (id: string) => (await storeOf(0).find({ id })) as KeyRecord

  it('see what another has written', async () => {
    await storeOf(0).insert([record({ id: 'a' })])
    expect(await storeOf(1).find({ lookups: ['a'] })).toEqual(record({ id: 'a' }))
    await storeOf(2).update('a', 1, { name: 'new', updatedAt: at(1) })
    expect(await storeOf(3).list({ name: 'new' }, { limit: 1 })).toHaveLength(1)
  })

  it('let one of many win that insert the same key at once, with all of its records', async () => {
    const inserted = await atOnce(20, (store, i) =>
      store.insert([record({ id: `${i}` }), record({ id: 'a' })]),
    )
    const winners = inserted.flatMap(({ status }, i) => (status === 'fulfilled' ? [`${i}`] : []))
    expect(winners).toHaveLength(1)
    const listed = await storeOf(1).list({}, { limit: 100 })
    expect(listed.map(({ id }) => id)).toEqual([...winners, 'a'])
  })

  it('let one of many win that change the same version at once', async () => {
    await storeOf(0).insert([record({ id: 'a' })])
    for (let version = 1; version <= 5; version += 1) {
      const change = (i: number) => ({ name: `${i}`, quota: { remaining: i }, updatedAt: at(version) })
      const outcomes = await atOnce(20, (store, i) => store.update('a', version, change(i)))
      const values = outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value : outcome))
      expect(values.filter((value) => value === 'updated')).toHaveLength(1)
      expect(values.filter((value) => value === 'conflict')).toHaveLength(19)
      const winner = values.indexOf('updated')
      expect(await find('a')).toMatchObject({ name: `${winner}`, quota: { remaining: winner } })
    }
    expect(await find('a')).toMatchObject({ version: 6 })
  })

  it('lose no use, and let no use or new digest stand in the way of a change', async () => {
    await storeOf(0).insert([record({ id: 'a', quota: quota(1_000) })])
    const use = (i: number) => ({ id: 'a', count: 1, lastUsedAt: at(i), lastUsedIp: `192.0.2.${i}` })
    const [changed, ...others] = await atOnce(41, (store, i): Promise<unknown> => {
      if (i === 0) return store.update('a', 1, { name: 'new', updatedAt: at(1) })
      if (i === 1) return store.replaceDigest('a', '$sha256$a', '$sha256$b')
      return i <= 20 ? store.recordUsage([use(i), use(i)]) : lease(store, 'a', 10)
    })
    expect(changed).toMatchObject({ value: 'updated' })
    expect(others.filter(({ status }) => status === 'rejected')).toEqual([])
    const quotaLeft = { remaining: 800, allotted: 200 }
    expect(await find('a')).toMatchObject({ usageCount: 38, version: 2, name: 'new', quota: quotaLeft })
    expect(await find('a')).toMatchObject({
      digest: '$sha256$b',
      lastUsedAt: at(20),
      lastUsedIp: '192.0.2.20',
    })
  })

  it('hand out a quota to 50 at once without a unit too many', async () => {
    await storeOf(0).insert([record({ id: 'a', quota: quota(201) })])
    const leases = await atOnce(50, (store) => lease(store, 'a', 7))
    const granted = leases.map((one) => (one.status === 'fulfilled' ? (one.value ?? 0) : NaN))
    expect(granted.reduce((sum, units) => sum + units, 0)).toBe(201)
    expect(granted.filter((units) => units === 7)).toHaveLength(28)
  })

  it('purge once, whenever a successor comes in between, and leave nothing behind', async () => {
    const ended = { revokedAt: at(0), lineageId: 'l' }
    for (let round = 0; round < 10; round += 1) {
      await storeOf(0).insert([record({ id: 'old', quota: quota(9), ...ended })])
      const [inserted, ...purged] = await atOnce(5, (store, i): Promise<unknown> => {
        return i === 0 ? store.insert([record({ id: 'new', ...ended })]) : store.purge(['old'], at(1))
      })
      expect(inserted).toMatchObject({ status: 'fulfilled' })
      expect(purged.map((one) => one.status === 'fulfilled' && one.value).toSorted()).toEqual([0, 0, 0, 1])
      // Whether the successor has the quota depends on who was first; that it can be purged does not.
      expect([null, 1]).toContain(await lease(storeOf(1), 'l', 1))
      expect(await storeOf(2).purge(['new'], at(1))).toBe(1)
      expect(await redis.hlen(hash)).toBe(0)
    }
  })
})
