import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import {
  type ApiKeys,
  type ApiKeysOptions,
  createApiKeys,
  type KeyStore,
  type QuotaRecord,
  type RateLimiter,
} from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { migrate, postgresStore } from 'latchkey/sql'
import { Pool } from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { importRelease } from '../support/old-release.ts'
import { createPostgres, type TestDatabase } from '../support/sql-databases.ts'
import { NAME } from '../support/test-keys.ts'
import { watchStores } from '../support/watch-stores.ts'

/** What this test uses of release 0.2. */
interface OldRelease {
  createApiKeys(options: ApiKeysOptions): ApiKeys
  postgresStore(pool: Pool): KeyStore
  redisRateLimiter(client: Redis, options: object): OldLimiter
}

interface OldLimiter extends RateLimiter {
  /** The units that stores have handed to Redis, and nobody has spent. */
  unspentQuota(lineageId: string, epoch: number): Promise<number>
}

const MINUTE = 60_000
const STEP_MS = 5_000
/** A Redis that is slow fails a call rather than counts it elsewhere. */
const LIMITER = { timeoutMs: 10_000, onUnavailable: 'closed' } as const

describe('release 0.2 and this one, over one PostgreSQL and one Redis', () => {
  let database: TestDatabase
  let old: OldRelease
  const redis = new Redis(inject('redisUrl'))
  const pools: Pool[] = []
  beforeAll(async () => {
    database = await createPostgres()
    const doors = ['index', 'sql', 'redis'].map((door) => importRelease<object>('0.2.0', door))
    old = Object.assign({}, ...(await Promise.all(doors)))
  })
  afterAll(async () => {
    redis.disconnect()
    await Promise.all(pools.map((pool) => pool.end()))
    await database?.remove()
  })

  it('spend no unit twice in an hour of a deploy, refill once, and lose what 0.2 had handed to Redis', async () => {
    const { startOld, startNew, pass, now, oldLimiter, quotaOf } = await open()
    let [one, other] = [startOld(), startOld()]
    const others = [startNew(), startNew()]
    const once = await one.issue({ ...NAME, quota: { remaining: 5_000 } })
    const refill = { amount: 300, everyMs: 10 * MINUTE }
    const refilled = await firstOf(others).issue({ ...NAME, quota: { remaining: 300, refill } })
    const started = now()
    const epoch = (await quotaOf(refilled.apiKey.id)).epoch
    let spentOnce = 0
    const spentByEpoch = new Map<number, number>()
    let lost = 0
    while (now() - started < 60 * MINUTE) {
      for (const keys of [one, other, ...others]) {
        spentOnce += await verifyTimes(keys, once.key, 2)
        const admitted = await verifyTimes(keys, refilled.key, 1)
        const current = (await quotaOf(refilled.apiKey.id)).epoch
        spentByEpoch.set(current, (spentByEpoch.get(current) ?? 0) + admitted)
      }
      await pass(STEP_MS)
      if (now() - started === 20 * MINUTE) {
        await one.close()
        one = startNew()
      }
      if (now() - started === 40 * MINUTE) {
        await other.close()
        other = startNew()
        const { lineageId } = once.apiKey
        lost = await oldLimiter.unspentQuota(lineageId, (await quotaOf(once.apiKey.id)).epoch)
      }
    }
    for (let admitted = 1; admitted > 0; ) {
      admitted = await verifyTimes(one, once.key, 100)
      spentOnce += admitted
      await pass(STEP_MS)
    }
    expect(lost).toBeGreaterThan(0)
    expect(lost).toBeLessThanOrEqual(100)
    expect(spentOnce).toBe(5_000 - lost)

    const epochs = [...spentByEpoch.keys()]
    expect(epochs).toEqual(Array.from({ length: epochs.length }, (_, i) => epoch + i))
    // The last period has begun, or has just ended.
    expect(epochs.length).toBeGreaterThanOrEqual(6)
    expect(epochs.length).toBeLessThanOrEqual(7)
    for (const admitted of spentByEpoch.values()) expect(admitted).toBeLessThanOrEqual(300)
    await Promise.all([one, other, ...others].map((keys) => keys.close()))
  }, 240_000)

  it('verify the keys of one another, and refuse those that the other has revoked at their next use', async () => {
    const { startOld, startNew } = await open()
    const pairs = [
      [startOld(), startNew()],
      [startNew(), startOld()],
    ] as const
    for (const [one, other] of pairs) {
      const { key, apiKey } = await one.issue({ ...NAME, quota: { remaining: 1_000 } })
      expect(await other.verify(key)).toMatchObject({ ok: true, apiKey: { id: apiKey.id } })
      const rotated = await other.rotate(apiKey.id, { graceMs: MINUTE })
      for (const each of [key, rotated.key]) expect(await one.verify(each)).toMatchObject({ ok: true })
      await one.revoke(rotated.apiKey.id)
      expect(await other.verify(rotated.key)).toMatchObject({ ok: false, reason: 'revoked' })
      await other.update(apiKey.id, { quota: { remaining: 2 } })
      const admitted = (await verifyTimes(one, key, 5)) + (await verifyTimes(other, key, 5))
      expect(admitted).toBeLessThanOrEqual(2)
      expect(admitted).toBeGreaterThan(0)
    }
    await Promise.all(pairs.flat().map((keys) => keys.close()))
  })

  async function open() {
    const clock = fakeClock()
    const { watch, pass } = watchStores()
    const keyPrefix = `rolling-${randomUUID()}`
    const options = {
      prefix: 'acme_test',
      rateLimits: [{ name: 'minute', limit: 100_000, windowMs: MINUTE }],
      clock,
    }
    const connect = () => {
      const pool = new Pool({ connectionString: database.url, max: 4 })
      pools.push(pool)
      return pool
    }
    const store = postgresStore(connect())
    await migrate(store)
    const oldLimiter = old.redisRateLimiter(redis, { ...LIMITER, keyPrefix })
    return {
      now: clock.now,
      pass: (ms: number) => pass(clock, ms),
      oldLimiter,
      startOld: () =>
        old.createApiKeys({
          ...options,
          store: watch(old.postgresStore(connect())),
          rateLimiter: old.redisRateLimiter(redis, { ...LIMITER, keyPrefix }),
        }),
      startNew: () =>
        createApiKeys({
          ...options,
          store: watch(postgresStore(connect())),
          rateLimiter: redisRateLimiter(redis, { ...LIMITER, keyPrefix }),
        }),
      async quotaOf(id: string): Promise<QuotaRecord> {
        const quota = (await store.find({ id }))?.quota
        if (!quota) throw new Error('the key has no quota')
        return quota
      },
    }
  }
})

function firstOf(processes: readonly ApiKeys[]): ApiKeys {
  return processes[0] as ApiKeys
}

async function verifyTimes(keys: ApiKeys, key: string, times: number): Promise<number> {
  const results = await Promise.all(Array.from({ length: times }, () => keys.verify(key)))
  return results.filter(({ ok }) => ok).length
}
