import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { memoryRateLimiter, type RateLimiter } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import type { LimitAnswer, LimitRequest } from '../../lib/core/limits/rate-limiter.ts'
import { importRelease } from '../support/old-release.ts'
import { timedRedis } from '../support/redis-time.ts'

const HOUR = 3_600_000
const DAY = 86_400_000
const T0 = Date.UTC(2026, 0, 15, 12)

let redis: Redis

beforeAll(() => {
  redis = new Redis(inject('redisUrl'))
})
afterAll(() => redis.disconnect())

interface World {
  readonly limiter: RateLimiter
  pass(ms: number): Promise<void>
}

const worlds: [string, () => Promise<World>][] = [
  [
    'in memory',
    async () => {
      let now = T0
      const limiter = memoryRateLimiter({ clock: { now: () => now } })
      return {
        limiter,
        async pass(ms) {
          now += ms
        },
      }
    },
  ],
  [
    'in Redis',
    async () => {
      let now = T0
      const timed = timedRedis(redis, `clock-${randomUUID()}`)
      await timed.setTime(now)
      return {
        limiter: limiterOn(timed),
        async pass(ms) {
          now += ms
          await timed.setTime(now)
        },
      }
    },
  ],
]

/** The same limits, as those of an owner. */
for (const [name, setUp] of [...worlds]) {
  worlds.push([
    `${name}, of an owner`,
    async () => {
      const { limiter, pass } = await setUp()
      const check: RateLimiter['check'] = ({ limits, ...request }) =>
        limiter.check({
          ...request,
          owner: '4:user:u_1',
          limits: limits.map((limit) => ({ ...limit, isOwners: true })),
        })
      return { limiter: { ...limiter, check }, pass }
    },
  ])
}

function limiterOn(client: Parameters<typeof redisRateLimiter>[0], keyPrefix: string = randomUUID()) {
  return redisRateLimiter(client, {
    keyPrefix,
    onUnavailable: 'closed',
    timeoutMs: 10_000,
    denials: false,
  })
}

const limitsOf = (...limits: object[]) => compileRateLimits('rateLimits', limits)

async function ask(limiter: RateLimiter, limits: LimitRequest['limits'], cost = 1): Promise<LimitAnswer> {
  const request = { lineageId: 'l', keyId: 'k', version: 1, fresh: true, cost, limits, retainMs: 1_000 * DAY }
  return limiter.check(request)
}

async function remaining(limiter: RateLimiter, limits: LimitRequest['limits']): Promise<number | undefined> {
  const answer = await ask(limiter, limits, 0)
  return answer.outcome === 'admitted' ? answer.limits[0]?.remaining : undefined
}

describe.each(worlds)('what is counted of a key, %s', (_where, setUp) => {
  const short = (name: string, windowMs = 1) => ({ name, limit: 9, windowMs })
  const names = (count: number, from = 0) => Array.from({ length: count }, (_, i) => `l${from + i}`)
  const long = [
    { name: 'day', limit: 100, per: 'day' },
    { name: 'month', limit: 100, per: 'month' },
    { name: 'years', limit: 100, windowMs: 1_000 * DAY },
    { name: 'slow', limit: 1, windowMs: 300 * DAY, burst: 100 },
  ]

  it('is dropped once it has ended, and only then, however many limits come and go', async () => {
    const { limiter, pass } = await setUp()
    await ask(limiter, limitsOf(...long), 40)
    for (let round = 0; round < 60; round++) {
      await pass(2)
      const some = names(15, 15 * round).map((name) => short(name))
      expect(await ask(limiter, limitsOf(...some))).toMatchObject({ outcome: 'admitted' })
    }
    for (const limit of long) expect(await remaining(limiter, limitsOf(limit))).toBe(60)
  })

  it('is at most 256 limits that run: another one is refused, and none of them is forgotten', async () => {
    const { limiter, pass } = await setUp()
    await ask(limiter, limitsOf(...long), 40)
    for (let round = 0; round < 63; round++) {
      const some = names(4, 4 * round).map((name) => short(name, HOUR))
      expect(await ask(limiter, limitsOf(...some), 2)).toMatchObject({ outcome: 'admitted' })
    }
    const another = limitsOf(short('l0', HOUR), short('another', HOUR))
    expect(await ask(limiter, another)).toEqual({
      outcome: 'limited',
      retryAfterMs: HOUR,
      limits: [
        expect.objectContaining({ name: 'l0', remaining: 7, exceeded: false }),
        expect.objectContaining({ name: 'another', remaining: 0, exceeded: true, resetMs: HOUR }),
      ],
    })
    expect(await ask(limiter, another, 0)).toMatchObject({ outcome: 'admitted' })
    for (const limit of long) expect(await remaining(limiter, limitsOf(limit))).toBe(60)
    expect(await remaining(limiter, limitsOf(short('l0', HOUR)))).toBe(7)
    await pass(HOUR)
    expect(await ask(limiter, another)).toMatchObject({ outcome: 'admitted' })
  })
})

describe('ended meters in Redis', () => {
  const mark = { lineageId: 'l', keyId: 'k', version: 1 }
  it.each<[string, (limiter: RateLimiter) => unknown]>([
    [
      'by a call',
      (limiter) => limiter.check({ ...mark, fresh: true, cost: 1, limits: [], retainMs: 100 * DAY }),
    ],
    ['by a change', (limiter) => limiter.raiseVersions([mark], 1)],
  ])('leave the hash when it is told to live longer, %s', async (_how, extend) => {
    for (const [ms, fields] of [
      [4, 37],
      [5, 4],
    ] as const) {
      const timed = timedRedis(redis, `clock-${randomUUID()}`)
      await timed.setTime(T0)
      const keyPrefix = randomUUID()
      const limiter = limiterOn(timed, keyPrefix)
      const charge = (limits: LimitRequest['limits']) =>
        limiter.check({ ...mark, fresh: true, cost: 1, limits, retainMs: 1 })
      await charge(limitsOf({ name: 'day', limit: 9, per: 'day' }, { name: 'month', limit: 9, per: 'month' }))
      for (let from = 0; from < 33; from += 11) {
        const short = Array.from({ length: 11 }, (_, i) => ({ name: `l${from + i}`, limit: 9, windowMs: 5 }))
        await charge(limitsOf(...short))
      }
      await timed.setTime(T0 + ms)
      await extend(limiter)
      const kept = await redis.hkeys(`${keyPrefix}:{l}`)
      expect(kept).toHaveLength(fields)
      expect(kept).toEqual(expect.arrayContaining(['vk', 'x', 'xcday day UTC', 'xcmonth month UTC']))
    }
  })
})

describe('0.2 beside this release, on one Redis', () => {
  const limits = limitsOf(
    { name: 'window', limit: 20, windowMs: HOUR },
    { name: 'bucket', limit: 1, windowMs: HOUR, burst: 30 },
    { name: 'day', limit: 40, per: 'day' },
  )

  async function both() {
    const { redisRateLimiter: oldLimiter } = await importRelease<{
      redisRateLimiter: typeof redisRateLimiter
    }>('0.2.0', 'redis')
    const keyPrefix = randomUUID()
    const options = {
      keyPrefix,
      onUnavailable: 'closed',
      timeoutMs: 10_000,
      // How 0.2 spells `false`.
      denials: { maxAgeMs: 0 },
    } as const
    const old = oldLimiter(redis, options)
    /** What 0.2 asks has a quota as well. */
    const oldAsk = (given: Partial<LimitRequest> = {}) => {
      const request = {
        lineageId: 'l',
        keyId: 'k',
        version: 1,
        fresh: true,
        cost: 1,
        limits,
        retainMs: 10_000,
      }
      return Promise.resolve(old.check({ ...request, ...given, quota: null } as LimitRequest))
    }
    return { old, oldAsk, next: limiterOn(redis, keyPrefix), hash: `${keyPrefix}:{l}` }
  }

  it('grants each its own limit once, in any order', async () => {
    const { oldAsk, next } = await both()
    const admitted = { old: 0, next: 0 }
    for (let i = 0; i < 60; i++) {
      if ((await oldAsk()).outcome === 'admitted') admitted.old += 1
      if ((await ask(next, limits)).outcome === 'admitted') admitted.next += 1
    }
    expect(admitted).toEqual({ old: 20, next: 20 })
  })

  it('shares versions both ways', async () => {
    const { old, oldAsk, next } = await both()
    await old.raiseVersions([{ lineageId: 'l', keyId: 'k', version: 2 }], 10_000)
    expect(await ask(next, limits)).toEqual({ outcome: 'stale' })
    await next.raiseVersions([{ lineageId: 'l', keyId: 'k', version: 3 }], 10_000)
    expect(await oldAsk({ version: 2 })).toEqual({ outcome: 'stale' })
  })

  it('neither drops what the other counts nor fails at it, however much there is', async () => {
    const { old, oldAsk, next, hash } = await both()
    await oldAsk({ cost: 11 })
    await ask(next, limits, 12)
    for (let i = 0; i < 70; i += 10) {
      const many = limitsOf(
        ...Array.from({ length: 10 }, (_, j) => ({ name: `l${i + j}`, limit: 9, windowMs: HOUR })),
      )
      await ask(next, many)
      expect(await oldAsk({ limits: i < 20 ? many : [] })).toMatchObject({ outcome: 'admitted' })
    }
    for (const limiter of [old, next]) {
      await limiter.raiseVersions([{ lineageId: 'l', keyId: 'k', version: 1 }], 1)
    }
    expect(await redis.hlen(hash)).toBeGreaterThan(90)
    expect(await oldAsk({ cost: 0 })).toMatchObject({
      limits: [{ remaining: 9 }, { remaining: 19 }, { remaining: 29 }],
    })
    expect(await ask(next, limits, 0)).toMatchObject({
      limits: [{ remaining: 8 }, { remaining: 18 }, { remaining: 28 }],
    })
  })
})
