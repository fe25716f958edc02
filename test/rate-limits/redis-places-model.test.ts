import { randomInt, randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { memoryRateLimiter, type RateLimiter } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { compileServiceLimits } from '../../lib/core/limits/compile-limits.ts'
import { times } from '../support/long-run.ts'
import { type TimedRedis, timedRedis } from '../support/redis-time.ts'

const T0 = Date.UTC(2026, 9, 24, 21)
const seed = Number(process.env.MODEL_SEED ?? randomInt(2 ** 31))

const METERED = compileServiceLimits('rateLimits', [{ name: 'minute', limit: 4, windowMs: 60_000 }])
const PLACES = [
  [{ name: 'parallel', concurrent: 2, maxHeldMs: 5_000 }],
  // The same with other numbers, as another process may have it.
  [{ name: 'parallel', concurrent: 3, maxHeldMs: 9_000 }],
  [
    { name: 'own', concurrent: 2, maxHeldMs: 7_000 },
    { name: 'parallel', concurrent: 3, maxHeldMs: 5_000, scope: 'owner' },
  ],
].map((limits) => compileServiceLimits('rateLimits', limits))

const anyStep = fc.oneof(
  fc.record({
    type: fc.constantFrom('take', 'take', 'take', 'look'),
    lineage: fc.nat({ max: 1 }),
    places: fc.nat({ max: PLACES.length - 1 }),
    isMetered: fc.boolean(),
  }),
  fc.record({ type: fc.constantFrom('release', 'renew'), which: fc.nat({ max: 5 }) }),
  fc.record({ type: fc.constant('pass' as const), ms: fc.constantFrom(0, 1, 1_000, 4_999, 5_000, 8_000) }),
)
type Step = typeof anyStep extends fc.Arbitrary<infer T> ? T : never

let redis: Redis
let timed: TimedRedis
beforeAll(() => {
  redis = new Redis(inject('redisUrl'))
  timed = timedRedis(redis, `clock-${randomUUID()}`)
})
afterAll(() => redis.disconnect())

/** What a limiter answers to each step. */
async function run(
  steps: readonly Step[],
  limiter: RateLimiter,
  setTime: (now: number) => unknown,
): Promise<unknown[]> {
  let now = T0
  await setTime(now)
  const taken: Parameters<NonNullable<RateLimiter['release']>>[0][] = []
  const answers: unknown[] = []
  for (const [i, step] of steps.entries()) {
    if ('ms' in step) {
      now += step.ms
      await setTime(now)
    } else if ('which' in step) {
      const request = taken[step.which % Math.max(1, taken.length)]
      if (!request) continue
      if (step.type === 'release') await limiter.release?.(request)
      else answers.push(await limiter.renew?.([request]))
    } else {
      const limits = PLACES[step.places] ?? []
      const owner = step.places === 2 ? 'o' : undefined
      // A key with limits of its owner is counted beside it, from zero.
      const counted = { lineageId: `${owner}${step.lineage}`, owner, limits, id: `id${i}` }
      const { lineageId, id } = counted
      const answer = await limiter.check({
        lineageId,
        owner,
        keyId: 'k',
        version: 1,
        fresh: true,
        cost: step.type === 'look' ? 0 : 1,
        limits: step.isMetered ? METERED : [],
        places: { id, limits },
        retainMs: 1_000,
      })
      if (step.type === 'take' && answer.outcome === 'admitted') taken.push(counted)
      answers.push(answer)
    }
  }
  return answers
}

it(`the script and the memory limiter count places alike (MODEL_SEED=${seed})`, async () => {
  const numRuns = times({ short: 100, soak: 1_000 })
  await fc.assert(
    fc.asyncProperty(fc.array(anyStep, { minLength: 1, maxLength: 60 }), async (steps) => {
      let now = T0
      const inMemory = memoryRateLimiter({ clock: { now: () => now } })
      const expected = await run(steps, inMemory, (time) => {
        now = time
      })
      const inRedis = redisRateLimiter(timed, {
        keyPrefix: randomUUID(),
        timeoutMs: 10_000,
        onUnavailable: 'closed',
        denials: false,
      })
      expect(await run(steps, inRedis, timed.setTime)).toEqual(expected)
    }),
    { seed, numRuns },
  )
})
