import { randomUUID } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import { Cluster as Cluster5, Redis as Redis5 } from 'ioredis5'
import { createApiKeys, memoryStore, type RateLimiter } from 'latchkey'
import {
  type NodeRedisClient,
  type RedisClient,
  type RedisRateLimiterOptions,
  redisRateLimiter,
} from 'latchkey/redis'
import { createClient, createCluster, RESP_TYPES } from 'redis'
import { createClient as createClient5, createCluster as createCluster5 } from 'redis5'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { periodAt } from '../../lib/core/limits/calendar.ts'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import type { CompiledLimit } from '../../lib/core/limits/rate-limit.ts'
import type { LimitAnswer, LimitRequest } from '../../lib/core/limits/rate-limiter.ts'
import { giveBack } from '../support/give-back.ts'
import { clusterOptions, connecting } from '../support/node-redis.ts'
import { NAME } from '../support/test-keys.ts'

const DAY = 86_400_000
const none = limits()
const minute = limits({ limit: 3, windowMs: 60_000 })
const three = limits(
  { limit: 100, windowMs: 60_000 },
  { limit: 600, windowMs: 60_000, burst: 20 },
  { limit: 1_000, per: 'day' },
)

let redis: Redis

beforeAll(() => {
  redis = new Redis(inject('redisUrl'))
})
afterAll(() => redis.disconnect())

function limits(...given: object[]): readonly CompiledLimit[] {
  return compileRateLimits(
    'rateLimits',
    given.map((limit, i) => ({ name: `l${i}`, ...limit })),
  )
}

/** A limiter with a key of its own; it fails rather than falls back, so that nothing is admitted unseen. */
function setUp(options: RedisRateLimiterOptions = {}, client: RedisClient | NodeRedisClient = redis) {
  const keyPrefix = randomUUID()
  const given = { keyPrefix, timeoutMs: 5_000, onUnavailable: 'closed' as const, ...options }
  const limiter = redisRateLimiter(client, given)
  return {
    limiter,
    key: `${keyPrefix}:{lineage}`,
    /** The same hash by another process. */
    another: () => redisRateLimiter(client, given),
    check: (request: Partial<LimitRequest> = {}) => ask(limiter, request),
  }
}

async function ask(limiter: RateLimiter, request: Partial<LimitRequest> = {}): Promise<LimitAnswer> {
  return limiter.check({
    lineageId: 'lineage',
    keyId: 'key',
    version: 1,
    fresh: true,
    cost: 1,
    limits: none,
    retainMs: 10_000,
    ...request,
  })
}

/** The client, and how many calls it was asked for. */
function counted(client: RedisClient) {
  let calls = 0
  return {
    get calls() {
      return calls
    },
    client: {
      eval: (...args: Parameters<RedisClient['eval']>) => {
        calls += 1
        return client.eval(...args)
      },
      evalsha: (...args: Parameters<RedisClient['evalsha']>) => {
        calls += 1
        return client.evalsha(...args)
      },
    },
  }
}

describe('options', () => {
  it.each<[string, unknown, string]>([
    ['keyPrefix', { keyPrefix: '' }, 'keyPrefix'],
    ['keyPrefix', { keyPrefix: 'a{b}' }, 'keyPrefix'],
    ['keyPrefix', { keyPrefix: 'x'.repeat(101) }, 'keyPrefix'],
    ['timeoutMs', { timeoutMs: 0 }, 'timeoutMs'],
    ['timeoutMs', { timeoutMs: 1.5 }, 'timeoutMs'],
    ['onUnavailable', { onUnavailable: 'fail' }, 'onUnavailable'],
    ['onUnavailable', { onUnavailable: null }, 'onUnavailable'],
    ['onUnavailable', { onUnavailable: { default: 'fail', limits: {} } }, 'onUnavailable.default'],
    ['onUnavailable', { onUnavailable: { limits: { day: 'fail' } } }, 'onUnavailable.limits.day'],
    ['onUnavailable', { onUnavailable: { default: 'open' } }, 'onUnavailable.limits'],
    ['onUnavailable', { onUnavailable: { limit: {} } }, 'limits'],
    ['denials', { denials: { maxEntries: 0 } }, 'denials.maxEntries'],
    ['denials', { denials: { maxAgeMs: -1 } }, 'denials.maxAgeMs'],
    [
      'denials',
      { denials: { maxAgeMs: 0 } },
      'denials.maxAgeMs" must be a positive integer, received 0; to switch it off, set "denials',
    ],
    ['denials', { denials: 0 }, 'denials" must be an object or false, received 0'],
    ['an unknown one', { timeout: 100 }, 'timeoutMs'],
  ])('that are wrong are refused by name: %s', (_what, options, named) => {
    expect(() => redisRateLimiter(redis, options as never)).toThrow(TypeError)
    expect(() => redisRateLimiter(redis, options as never)).toThrow(`"${named}`)
  })

  it('need a client that can run scripts', () => {
    for (const client of [undefined, null, {}, { eval() {} }, 'redis://localhost']) {
      expect(() => redisRateLimiter(client as never)).toThrow(
        '"client" must be a client of ioredis 5 or 6, or of node-redis 5 or 6: it has no method',
      )
    }
  })
})

/** The field of `minute`. */
const METER = 'xwl0 window 60000'

describe('a value that is not ours', () => {
  const admitted = { outcome: 'admitted' }

  it.each<[string, (key: string) => Promise<unknown>]>([
    ['the key holds a string', (key) => redis.set(key, 'x')],
    ['the key holds a list', (key) => redis.rpush(key, 'x')],
    ['a meter is text', (key) => redis.hset(key, METER, 'unlimited')],
    ['a meter is cut off', (key) => redis.hset(key, METER, Buffer.alloc(23))],
    ['a meter is not a number', (key) => redis.hset(key, METER, doubles(Number.NaN, 1, 2))],
    ['a meter is negative', (key) => redis.hset(key, METER, doubles(-5, 1, 2))],
    ['a meter is infinite', (key) => redis.hset(key, METER, doubles(1, Number.POSITIVE_INFINITY, 2))],
    [
      'the end of a meter is infinite',
      (key) => redis.hset(key, METER, doubles(1, 2, Number.POSITIVE_INFINITY)),
    ],
    ['a version is text', (key) => redis.hset(key, 'vkey', '1')],
    ['a version is not a number', (key) => redis.hset(key, 'vkey', doubles(Number.NaN, 1))],
    ['its lifetime is text', (key) => redis.hset(key, 'x', 'for ever')],
    ['its lifetime is infinite', (key) => redis.hset(key, 'x', 'inf')],
  ])('is a fault and never an admission: %s', async (_what, spoil) => {
    const { check, key } = setUp()
    await spoil(key)
    await expect(check({ limits: minute })).rejects.toThrow(/WRONGTYPE|LATCHKEY/)
    await redis.del(key)
    expect(await check({ limits: minute })).toMatchObject(admitted)
  })

  it('is counted by this process alone where that is the policy, and told of', async () => {
    const { key, limiter } = setUp({ onUnavailable: 'local' })
    const happenings: unknown[] = []
    limiter.listen?.((happening) => happenings.push(happening))
    await redis.set(key, 'x')
    for (let i = 0; i < 3; i++) expect(await ask(limiter, { limits: minute })).toMatchObject(admitted)
    expect(await ask(limiter, { limits: minute })).toMatchObject({ outcome: 'limited' })
    expect(happenings).toEqual([{ type: 'fault', error: expect.any(Error) }])
  })

  it('under one key is no reason to give up on the server', async () => {
    const { limiter, key, check } = setUp({ onUnavailable: 'local' })
    const happenings: { type: string }[] = []
    limiter.listen?.((happening) => happenings.push(happening))
    await redis.set(key, 'x')
    for (let i = 0; i < 50; i++) await check({ limits: minute })
    expect(happenings.map(({ type }) => type)).not.toContain('suspended')
    expect(await check({ lineageId: 'another', limits: minute })).toMatchObject({
      ...admitted,
      chargedAt: expect.any(Number),
    })
  })

  it('of the server is a fault', async () => {
    const answers = [
      null,
      'OK',
      [],
      [1],
      [1, 'now'],
      [1, 2, null],
      [Number.NaN, 1],
      { 0: 1, length: 2 },
      [1, 2],
      [1, 2, 3],
      [1, 2, 3, 4, 5],
    ]
    for (const answer of answers) {
      const client = { eval: async () => answer, evalsha: async () => answer }
      await expect(setUp({}, client).check({ limits: minute })).rejects.toThrow(/no answer|Unexpected reply/)
    }
  })
})

describe('the version', () => {
  it('is raised for many keys at once, in one call for each lineage', async () => {
    const counter = counted(redis)
    const { limiter, check } = setUp({}, counter.client)
    const marks = [1, 2, 3].map((n) => ({ lineageId: 'lineage', keyId: `key${n}`, version: n }))
    await limiter.raiseVersions([...marks, { lineageId: 'other', keyId: 'key', version: 9 }], 10_000)
    const calls = counter.calls
    await limiter.raiseVersions([...marks, { lineageId: 'other', keyId: 'key', version: 9 }], 10_000)
    expect(counter.calls - calls).toBe(2)
    expect(await check({ keyId: 'key3', version: 2 })).toEqual({ outcome: 'stale' })
    expect(await check({ lineageId: 'other', version: 8 })).toEqual({ outcome: 'stale' })
    expect(await check({ keyId: 'key2', version: 2, fresh: false })).toMatchObject({ outcome: 'admitted' })
  })

  it('that is gone with the data has cached records read again', async () => {
    const { check, key } = setUp()
    await check({ version: 4 })
    expect(await check({ version: 4, fresh: false })).toMatchObject({ outcome: 'admitted' })
    await redis.del(key)
    expect(await check({ version: 4, fresh: false })).toEqual({ outcome: 'stale' })
    expect(await check({ version: 4, fresh: true })).toMatchObject({ outcome: 'admitted' })
    expect(await check({ version: 4, fresh: false })).toMatchObject({ outcome: 'admitted' })
  })
})

describe('limits', () => {
  it('may be as large as is allowed, and counted with a client that reads no numbers', async () => {
    const client = new Redis(inject('redisUrl'), { stringNumbers: true })
    const { check } = setUp({}, client)
    const large = limits({ limit: 1e12, windowMs: 60_000 }, { limit: 1, windowMs: 3_660 * DAY, burst: 1e12 })
    expect(await check({ limits: large, cost: 999_999_999_999 })).toMatchObject({
      outcome: 'admitted',
      limits: [{ remaining: 1 }, { remaining: 1 }],
    })
    client.disconnect()
  })
})

describe('a single open window', () => {
  /** Doubles as the scripts pack them. */
  const packed = (...numbers: number[]) => {
    const bytes = Buffer.alloc(8 * numbers.length)
    for (const [i, number] of numbers.entries()) bytes.writeDoubleLE(number, 8 * i)
    return bytes
  }
  const field = 'xwl0 window 60000'

  it('costs one command with one argument', async () => {
    const sent: unknown[][] = []
    const { check } = setUp(
      {},
      {
        eval: (...args: Parameters<RedisClient['eval']>) => redis.eval(...args),
        evalsha: (...args: Parameters<RedisClient['evalsha']>) => {
          sent.push(args)
          return redis.evalsha(...args)
        },
      },
    )
    await check({ limits: minute })
    sent.length = 0
    expect(await check({ limits: minute, fresh: false })).toMatchObject({ limits: [{ remaining: 1 }] })
    expect(sent).toEqual([[expect.any(String), 1, expect.any(String), expect.any(String)]])
  })

  it.each([
    ['a b', 'a b c'],
    ['1 2 xw3 window 4', '1'],
    ['a\nb', 'a'],
    ['ключ', 'кл'],
  ])('is counted for keys with any id: %j and %j', async (keyId, other) => {
    const { check } = setUp()
    for (const remaining of [2, 1]) {
      const answer = await check({ keyId, limits: minute, fresh: remaining === 2 })
      expect(answer).toMatchObject({ outcome: 'admitted', limits: [{ remaining }] })
    }
    expect(await check({ keyId: other, limits: minute, fresh: false })).toEqual({ outcome: 'stale' })
  })

  it('has its hash live longer for a caller with an older cache', async () => {
    const { check, key } = setUp()
    await check({ limits: minute })
    await check({ limits: minute, retainMs: DAY })
    expect(await redis.pttl(key)).toBeGreaterThan(DAY)
  })

  it.each<[string, () => Record<string, Buffer | string>]>([
    ['a version of another length', () => ({ vkey: packed(1) })],
    ['a version below zero', () => ({ vkey: packed(-1, 0) })],
    ['a count of another length', () => ({ [field]: packed(1, Date.now()) })],
    ['a count below zero', () => ({ [field]: packed(-5, Date.now(), Date.now() + 60_000) })],
    ['a beginning below zero', () => ({ [field]: packed(1, -5, Date.now() + 60_000) })],
    ['an end of no hash', () => ({ [field]: packed(1, Date.now(), 2 ** 60) })],
    ['no number', () => ({ [field]: packed(Number.NaN, Date.now(), Date.now() + 60_000) })],
    ['a lifetime that is no number', () => ({ x: 'soon' })],
  ])('that somebody else has written to is a fault: %s', async (_what, values) => {
    const { check, key } = setUp()
    await check({ limits: minute })
    await redis.hset(key, values())
    await expect(check({ limits: minute })).rejects.toThrow('LATCHKEY')
  })
})

describe('the hash of a lineage', () => {
  it('lives twice the age of the cache, and until the last of its limits has ended', async () => {
    const untilMonthEnds = () => periodAt('month', 'UTC', Date.now()).endsAt - Date.now()
    for (const [given, leastMs] of [
      [{ limits: [], retainMs: 10_000 }, () => 10_000],
      [{ limits: limits({ limit: 1, windowMs: 3_600_000 }), retainMs: 10_000 }, () => 3_600_000],
      [{ limits: limits({ limit: 1, per: 'month' }), retainMs: 10_000 }, untilMonthEnds],
      [{ limits: limits({ limit: 1, windowMs: 60_000, burst: 60 }), cost: 60 }, () => 3_600_000],
    ] as const) {
      const { check, key } = setUp()
      await check(given)
      const ttl = await redis.pttl(key)
      expect(ttl).toBeGreaterThan(leastMs())
      expect(ttl).toBeLessThanOrEqual(2 * Math.max(leastMs(), 10_000) + DAY)
    }
  })

  it('lives no longer for a call that was refused, whatever it would have cost', async () => {
    const { check, key } = setUp()
    await check({ limits: limits({ limit: 1, windowMs: DAY, burst: 2 }), cost: 1_000, retainMs: 10_000 })
    expect(await redis.pttl(key)).toBeLessThanOrEqual(20_000)
  })

  it('is never made to live shorter', async () => {
    const { check, limiter, key } = setUp()
    await check({ limits: limits({ limit: 1, windowMs: 31 * DAY }) })
    await check({ cost: 0, retainMs: 1_000 })
    await limiter.raiseVersions([{ lineageId: 'lineage', keyId: 'key', version: 2 }], 1_000)
    expect(await redis.pttl(key)).toBeGreaterThan(31 * DAY)
  })

  it('does not grow without bound as limits change and keys are rotated', async () => {
    const { check, limiter, key } = setUp()
    for (let i = 1; i <= 300; i++) {
      const mark = { lineageId: 'lineage', keyId: `key${i}`, version: 1 }
      // Rotated long enough ago that nobody holds the old record any more, and a limit that has ended by then.
      await limiter.raiseVersions([mark], 1)
      await check({ keyId: `key${i}`, limits: limits({ name: `l${i}`, limit: 5, windowMs: 1 }), retainMs: 1 })
    }
    expect(await redis.hlen(key)).toBeLessThan(100)
  })

  it('does not grow without bound either where a limit of a month has it live long', async () => {
    const { check, key } = setUp()
    for (let i = 1; i <= 300; i++) {
      const given = limits(
        { name: 'long', limit: 999, windowMs: 31 * DAY },
        { name: `l${i}`, limit: 5, windowMs: 1 },
      )
      await check({ limits: given })
    }
    expect(await redis.hlen(key)).toBeLessThan(100)
    expect(
      await check({ limits: limits({ name: 'long', limit: 999, windowMs: 31 * DAY }), cost: 0 }),
    ).toMatchObject({
      limits: [{ remaining: 699 }],
    })
  })

  it('keeps every version that may still matter, however many there are', async () => {
    const { limiter, check } = setUp()
    const marks = Array.from({ length: 200 }, (_, i) => ({
      lineageId: 'lineage',
      keyId: `key${i}`,
      version: 2,
    }))
    for (const mark of marks) await limiter.raiseVersions([mark], 600_000)
    for (const { keyId } of marks) expect(await check({ keyId })).toEqual({ outcome: 'stale' })
  })
})

describe('refusals that are remembered', () => {
  it('have a flood on an exhausted key cost Redis nothing', async () => {
    const counter = counted(redis)
    const { check } = setUp({}, counter.client)
    for (let i = 0; i < 4; i++) await check({ limits: minute })
    const calls = counter.calls
    for (let i = 0; i < 1_000; i++) {
      expect(await check({ limits: minute })).toMatchObject({
        outcome: 'limited',
        limits: [{ remaining: 0, exceeded: true }],
        retryAfterMs: expect.toSatisfy((ms) => ms > 50_000 && ms <= 60_000),
      })
    }
    expect(counter.calls).toBe(calls)
  })

  it('admit nobody: what may pass is asked', async () => {
    const { check, limiter } = setUp()
    await check({ limits: minute, cost: 2 })
    expect(await check({ limits: minute, cost: 2 })).toMatchObject({ outcome: 'limited' })
    // Less, a look, another key, a newer version, other limits: none of them was refused.
    expect(await check({ limits: minute, cost: 0 })).toMatchObject({ outcome: 'admitted' })
    expect(await check({ limits: minute, cost: 1 })).toMatchObject({ outcome: 'admitted' })
    expect(await check({ limits: minute })).toMatchObject({ outcome: 'limited' })
    expect(await check({ limits: [] })).toMatchObject({ outcome: 'admitted' })
    expect(await check({ keyId: 'relative', limits: [] })).toMatchObject({ outcome: 'admitted' })
    expect(await check({ limits: limits({ limit: 9, windowMs: 60_000 }) })).toMatchObject({
      outcome: 'admitted',
      limits: [{ remaining: 5 }],
    })
    await limiter.raiseVersions([{ lineageId: 'lineage', keyId: 'key', version: 2 }], 10_000)
    expect(await check({ limits: minute })).toEqual({ outcome: 'stale' })
  })

  it('end with the window, and are not held where denials is false', async () => {
    const short = limits({ limit: 1, windowMs: 50 })
    const { check } = setUp()
    await check({ limits: short })
    expect(await check({ limits: short })).toMatchObject({ outcome: 'limited' })
    await expect.poll(() => check({ limits: short })).toMatchObject({ outcome: 'admitted' })

    const counter = counted(redis)
    const without = setUp({ denials: false }, counter.client)
    for (let i = 0; i < 4; i++) await without.check({ limits: minute })
    const calls = counter.calls
    await without.check({ limits: minute })
    expect(counter.calls).toBe(calls + 1)
  })

  it('are so many as was said, and those of others are asked for again', async () => {
    const counter = counted(redis)
    const { check } = setUp({ denials: { maxEntries: 2 } }, counter.client)
    const lineages = ['a', 'b', 'c']
    for (const lineageId of lineages) for (let i = 0; i < 4; i++) await check({ lineageId, limits: minute })
    const calls = counter.calls
    for (const lineageId of ['b', 'c', 'a']) {
      expect(await check({ lineageId, limits: minute })).toMatchObject({ outcome: 'limited' })
    }
    expect(counter.calls).toBe(calls + 1)
  })

  it('are forgotten where units are given back', async () => {
    const { check, limiter } = setUp()
    const spent = await check({ limits: minute, cost: 3 })
    expect(await check({ limits: minute })).toMatchObject({ outcome: 'limited' })
    const chargedAt = spent.outcome === 'admitted' ? (spent.chargedAt as number) : 0
    await giveBack(limiter, { lineageId: 'lineage', cost: 3, chargedAt, limits: minute })
    expect(await check({ limits: minute })).toMatchObject({ outcome: 'admitted', limits: [{ remaining: 2 }] })
  })

  it('are forgotten where one arrives while units are being given back', async () => {
    const { check, limiter } = setUp()
    const spent = await check({ limits: minute, cost: 3 })
    const chargedAt = spent.outcome === 'admitted' ? (spent.chargedAt as number) : 0
    const refused = check({ limits: minute })
    const refund = giveBack(limiter, { lineageId: 'lineage', cost: 3, chargedAt, limits: minute })
    expect(await refused).toMatchObject({ outcome: 'limited' })
    await refund
    expect(await check({ limits: minute })).toMatchObject({ outcome: 'admitted', limits: [{ remaining: 2 }] })
  })
})

describe('one call', () => {
  it('is all that a verification sends, for three limits and the version, whatever quota the key has', async () => {
    // The limiter can send by no other way.
    const counter = counted(redis)
    const rateLimits = [
      { name: 'minute', limit: 1_000, windowMs: 60_000 },
      { name: 'burst', limit: 6_000, windowMs: 60_000, burst: 200 },
      { name: 'day', limit: 10_000, per: 'day', timeZone: 'Europe/Berlin' } as const,
    ]
    const keys = createApiKeys({
      store: memoryStore(),
      rateLimiter: redisRateLimiter(counter.client, { keyPrefix: randomUUID(), timeoutMs: 5_000 }),
      prefix: 'acme',
      rateLimits,
    })
    const { key } = await keys.issue({ ...NAME, quota: { remaining: 10_000 } })
    for (let i = 0; i < 3; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
    const before = counter.calls
    for (let i = 0; i < 20; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(counter.calls - before).toBe(20)
    await keys.close()
  })
})

/** What a client of node-redis returns instead of text and numbers. */
const typeMapping = { [RESP_TYPES.BLOB_STRING]: Buffer, [RESP_TYPES.NUMBER]: String }

describe.each<[string, () => (RedisClient | NodeRedisClient) & { disconnect(): void }]>([
  ['ioredis 6', () => new Redis(inject('redisUrl'))],
  ['ioredis 6 over RESP2', () => new Redis(inject('redisUrl'), { protocol: 2 })],
  ['ioredis 6 with automatic pipelines', () => new Redis(inject('redisUrl'), { enableAutoPipelining: true })],
  ['ioredis 6 with a key prefix of its own', () => new Redis(inject('redisUrl'), { keyPrefix: 'app:' })],
  ['ioredis 5', () => new Redis5(inject('redisUrl'))],
  ['a Cluster of ioredis 6', () => new Cluster(inject('clusterNodes'))],
  ['a Cluster of ioredis 5', () => new Cluster5(inject('clusterNodes'))],
  ['node-redis 6', () => connecting(createClient({ url: inject('redisUrl') }))],
  ['node-redis 6 over RESP2', () => connecting(createClient({ url: inject('redisUrl'), RESP: 2 }))],
  [
    'node-redis 6 that returns bytes, numbers as text, and puts a prefix before keys',
    () =>
      connecting(
        createClient({ url: inject('redisUrl'), keyPrefix: 'app:', commandOptions: { typeMapping } }),
      ),
  ],
  ['node-redis 5', () => connecting(createClient5({ url: inject('redisUrl') }))],
  ['a Cluster of node-redis 6', () => connecting(createCluster(clusterOptions(inject('clusterNodes'))))],
  ['a Cluster of node-redis 5', () => connecting(createCluster5(clusterOptions(inject('clusterNodes'))))],
])('with %s', (_name, connect) => {
  it('limits, versions and refunds hold', async () => {
    const client = connect()
    if ('connected' in client) await client.connected
    const { limiter, check } = setUp({ denials: false }, client)
    const lineages = Array.from({ length: 20 }, (_, i) => `lineage${i}`)
    for (const lineageId of lineages) {
      const [first] = await Promise.all([
        check({ lineageId, limits: three, cost: 3 }),
        check({ lineageId: `other ${lineageId}`, limits: three }),
      ])
      expect(first).toMatchObject({
        outcome: 'admitted',
        limits: [{ remaining: 97 }, { remaining: 17 }, { remaining: 997 }],
      })
      expect(await check({ lineageId, limits: three, cost: 18 })).toMatchObject({
        outcome: 'limited',
        limits: [{ exceeded: false }, { exceeded: true }, { exceeded: false }],
      })
      const chargedAt = first.outcome === 'admitted' ? (first.chargedAt as number) : 0
      await giveBack(limiter, { lineageId, cost: 3, chargedAt, limits: three })
      expect(await check({ lineageId, limits: three, cost: 0 })).toMatchObject({
        limits: [{ remaining: 100 }, { remaining: 20 }, { remaining: 1_000 }],
      })
      await limiter.raiseVersions([{ lineageId, keyId: 'key', version: 2 }], 10_000)
      expect(await check({ lineageId, limits: three })).toEqual({ outcome: 'stale' })
    }
    client.disconnect()
  })
})

function doubles(...numbers: number[]): Buffer {
  const bytes = Buffer.alloc(8 * numbers.length)
  for (const [i, number] of numbers.entries()) bytes.writeDoubleLE(number, 8 * i)
  return bytes
}
