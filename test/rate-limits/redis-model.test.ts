import { randomInt, randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { memoryRateLimiter } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible'
import { afterAll, afterEach, beforeAll, describe, expect, inject, it, vi } from 'vitest'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import type { CompiledLimit } from '../../lib/core/limits/rate-limit.ts'
import { times } from '../support/long-run.ts'
import { type TimedRedis, timedRedis } from '../support/redis-time.ts'

const DAY = 86_400_000
/** Nothing is forgotten in the course of a trace: how long a hash lives is tested elsewhere. */
const RETAIN_MS = 1_000 * DAY
/** An hour before Berlin leaves summer time, and a day of 25 hours begins there. */
const T0 = Date.UTC(2026, 9, 24, 21)
const seed = Number(process.env.MODEL_SEED ?? randomInt(2 ** 31))
const runs = Number(process.env.MODEL_RUNS ?? times({ short: 60, soak: 400, long: 5_000 }))

const LIMITS: readonly (readonly CompiledLimit[])[] = [
  [],
  [{ name: 'minute', limit: 5, windowMs: 60_000 }],
  // The same limit with another number, and with another window.
  [{ name: 'minute', limit: 3, windowMs: 60_000 }],
  [{ name: 'minute', limit: 5, windowMs: 61_000 }],
  [{ name: 'bucket', limit: 7, windowMs: 60_000, burst: 4 }],
  // The same bucket as others read it: smaller, larger and faster, slower.
  [{ name: 'bucket', limit: 7, windowMs: 60_000, burst: 2 }],
  [{ name: 'day', limit: 6, per: 'day', timeZone: 'Europe/Berlin' }],
  [
    { name: 'window', limit: 9, windowMs: 10_000 },
    { name: 'bucket', limit: 7, windowMs: 60_000, burst: 6 },
    { name: 'day', limit: 11, per: 'day', timeZone: 'Europe/Berlin' },
    { name: 'month', limit: 20, per: 'month' },
  ],
  [{ name: 'bucket', limit: 90, windowMs: 60_000, burst: 30 }],
  [{ name: 'bucket', limit: 1, windowMs: 60_000, burst: 4 }],
].map((limits) => compileRateLimits('rateLimits', limits))

/** The same, where the owner has every other one: those come last. */
const OWNED: readonly (readonly CompiledLimit[])[] = LIMITS.map((limits) => {
  const halves = limits.map((limit, i) => ({ ...limit, isOwners: i % 2 === 0 }))
  return [...halves.filter(({ isOwners }) => !isOwners), ...halves.filter(({ isOwners }) => isOwners)]
})

interface Check {
  readonly type: 'check'
  readonly lineage: number
  readonly key: number
  readonly version: number
  readonly fresh: boolean
  readonly cost: number
  /** Costs of the limits in turn, in place of `cost`. */
  readonly costs?: readonly number[] | undefined
  readonly limits: number
}

type Step =
  | Check
  | { readonly type: 'raise'; readonly lineage: number; readonly key: number; readonly version: number }
  /** Changes what one of the latest calls has cost. */
  | { readonly type: 'settle'; readonly which: number; readonly units: readonly number[] }
  | { readonly type: 'pass'; readonly ms: number }

/** Mostly the same, so that a trace gets somewhere. */
const mostly = <T>(value: T, other: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 8, arbitrary: fc.constant(value) }, { weight: 2, arbitrary: other })
/** Keys of all but the first have limits of the owner, who is the same: every other limit of such a key. */
const lineage = fc.oneof(
  { weight: 6, arbitrary: fc.constant(0) },
  { weight: 4, arbitrary: fc.constant(1) },
  { weight: 2, arbitrary: fc.constant(2) },
)
const key = mostly(0, fc.constant(1))
const version = mostly(2, fc.integer({ min: 1, max: 4 }))

const anyCheck: fc.Arbitrary<Step> = fc.record({
  type: fc.constant('check' as const),
  lineage,
  key,
  version,
  fresh: mostly(true, fc.constant(false)),
  cost: fc.oneof(fc.constant(1), fc.integer({ min: 0, max: 6 }), fc.constant(0), fc.constant(25)),
  costs: mostly(
    undefined as readonly number[] | undefined,
    fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 4, maxLength: 4 }),
  ),
  limits: fc.integer({ min: 0, max: LIMITS.length - 1 }),
})

const anySettlement: fc.Arbitrary<Step> = fc.record({
  type: fc.constant('settle' as const),
  which: fc.nat(3),
  units: fc.array(fc.integer({ min: -8, max: 30 }), { minLength: 1, maxLength: 3 }),
})

const anyPass: fc.Arbitrary<Step> = fc.record({
  type: fc.constant('pass' as const),
  ms: fc.oneof(
    fc.integer({ min: 1, max: 15_000 }),
    fc.integer({ min: 1, max: 40 * 3_600_000 }),
    // Right at the end of a window, and right before.
    fc.constantFrom(10_000, 60_000, 61_000, 9_999, 59_999, DAY),
    // The clock is set back.
    fc.integer({ min: -90_000, max: -1 }),
    fc.integer({ min: -2 * DAY, max: -1 }),
  ),
})

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: anyCheck },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('raise' as const), lineage, key, version }) },
  { weight: 3, arbitrary: anySettlement },
  { weight: 4, arbitrary: anyPass },
)

let redis: Redis
let timed: TimedRedis

beforeAll(() => {
  redis = new Redis(inject('redisUrl'))
  timed = timedRedis(redis, `clock-${randomUUID()}`)
})
afterAll(() => redis.disconnect())
afterEach(() => void vi.useRealTimers())

/**
 * The conformance kit compares each limiter with a model. This compares the two where the model says nothing: clocks that are set back,
 * readers that differ in the rate of a bucket, and enormous debts.
 */
describe(`the script and the memory limiter (MODEL_SEED=${seed})`, () => {
  it('answer every trace alike, in every field', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyStep, { minLength: 1, maxLength: 60 }), async (steps) => {
        const [expected, actual] = [await runOnMemory(steps), await runOnRedis(steps)]
        expect(actual).toEqual(expected)
      }),
      { seed, numRuns: runs },
    )
  })

  it.each<[string, Step[]]>([
    [
      'the clock goes back under exhausted limits',
      [1, 4, 6, 7].flatMap((limits) => [
        use(limits, 4),
        pass(-5_000),
        use(limits, 4),
        pass(5_000),
        use(limits, 4),
      ]),
    ],
    [
      'the clock goes back into another period',
      [use(6, 1), pass(DAY), use(6, 1), pass(-2 * DAY), use(6, 1), look(6)],
    ],
    [
      'a bucket has readers of many kinds',
      [
        use(8, 30),
        look(5),
        use(4, 1),
        pass(9_000),
        use(5, 1),
        use(9, 1),
        pass(15_000),
        look(9),
        use(4, 4),
        look(5),
        use(8, 20),
        pass(21_000),
        look(9),
      ],
    ],
    [
      'a give-back comes before what it gives back',
      [use(7, 3), pass(-1_000), giveBack(3), look(7), use(7, 1)],
    ],
    [
      'the clock goes back into another period before a give-back',
      [use(6, 2), pass(-DAY), giveBack(2), look(6)],
    ],
  ])('answer alike where %s', async (_what, steps) => {
    expect(await runOnRedis(steps)).toEqual(await runOnMemory(steps))
  })

  it('answer alike where a bucket leaks fractions for a long time', async () => {
    const steps: Step[] = Array.from({ length: 400 }, (_, i) =>
      i % 2 === 0
        ? { type: 'pass', ms: 1 + ((i * 7919) % 20_011) }
        : {
            type: 'check',
            lineage: 0,
            key: 0,
            version: 1,
            fresh: true,
            cost: 1 + (i % 3),
            limits: 4,
          },
    )
    expect(await runOnRedis(steps)).toEqual(await runOnMemory(steps))
  })
})

function use(limits: number, cost: number): Check {
  return { type: 'check', lineage: 0, key: 0, version: 2, fresh: true, cost, limits }
}

function look(limits: number): Check {
  return use(limits, 0)
}

function pass(ms: number): Step {
  return { type: 'pass', ms }
}

/** Some of the limits get it twice. */
function giveBack(units: number): Step {
  return { type: 'settle', which: 0, units: [-units, -units] }
}

async function runOnMemory(steps: readonly Step[]): Promise<unknown[]> {
  let now = T0
  const limiter = memoryRateLimiter({ clock: { now: () => now } })
  return run(steps, limiter, async (to) => {
    now = to
  })
}

async function runOnRedis(steps: readonly Step[]): Promise<unknown[]> {
  // Refusals that are remembered would not reach the script.
  const limiter = redisRateLimiter(timed, {
    keyPrefix: randomUUID(),
    onUnavailable: 'closed',
    timeoutMs: 10_000,
    denials: false,
  })
  return run(steps, limiter, timed.setTime)
}

/** Plays the steps; returns every answer. */
async function run(
  steps: readonly Step[],
  limiter: ReturnType<typeof redisRateLimiter>,
  setTime: (now: number) => Promise<void>,
): Promise<unknown[]> {
  let now = T0
  const answers: unknown[] = []
  const charges: { step: Check; chargedAt: number }[] = []
  await setTime(now)
  for (const step of steps) {
    if (step.type === 'pass') {
      now += step.ms
      await setTime(now)
    } else if (step.type === 'raise') {
      await limiter.raiseVersions(
        [{ ...namesOf(step), owner: ownerOf(step), version: step.version }],
        RETAIN_MS,
      )
    } else if (step.type === 'settle') {
      const charge = charges.at(-1 - step.which)
      if (!charge) continue
      const limits = limitsOf(charge.step)
      const changes = step.units.map((units) => ({ units, chargedAt: charge.chargedAt }))
      const request = {
        lineageId: `l${charge.step.lineage}`,
        owner: ownerOf(charge.step),
        id: randomUUID(),
        limits,
        changes: limits.map((_limit, i) => changes.slice(i % 2)),
      }
      answers.push(await limiter.settle?.(request))
    } else {
      const limits = limitsOf(step)
      const answer = await limiter.check({
        ...namesOf(step),
        owner: ownerOf(step),
        version: step.version,
        fresh: step.fresh,
        cost: step.cost,
        costs: step.costs?.slice(0, limits.length),
        limits,
        retainMs: RETAIN_MS,
      })
      answers.push(answer)
      if (answer.outcome === 'admitted' && answer.chargedAt !== null) {
        charges.push({ step, chargedAt: answer.chargedAt })
      }
    }
  }
  return answers
}

function limitsOf(step: Check): readonly CompiledLimit[] {
  return (ownerOf(step) ? OWNED : LIMITS)[step.limits] ?? []
}

function ownerOf({ lineage }: { lineage: number }): string | undefined {
  return lineage > 0 ? '4:user:alice' : undefined
}

function namesOf({ lineage, key }: { lineage: number; key: number }) {
  return { lineageId: `l${lineage}`, keyId: `k${lineage}${key}` }
}

describe('a settlement', () => {
  it.each([1, 4, 6])(
    'of as much as there are numbers leaves a debt that can still be read: limit %i',
    async (limits) => {
      const most = Number.MAX_SAFE_INTEGER
      const steps: Step[] = [
        use(limits, 2),
        { type: 'settle', which: 0, units: [most, most] },
        look(limits),
        use(limits, 1),
        pass(1_000),
        { type: 'settle', which: 0, units: [most, -most] },
        look(limits),
      ]
      const answers = await runOnRedis(steps)
      expect(answers).toEqual(await runOnMemory(steps))
      expect(answers[3]).toMatchObject({ outcome: 'limited', limits: [{ remaining: 0 }] })
    },
  )
})

describe('a single window', () => {
  it('admits and counts as rate-limiter-flexible does', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'] })
    const limits = compileRateLimits('rateLimits', [{ name: 'window', limit: 4, windowMs: 10_000 }])
    const gaps = fc.array(fc.integer({ min: 0, max: 7_000 }), { minLength: 1, maxLength: 25 })
    await fc.assert(
      fc.asyncProperty(gaps, async (waits) => {
        vi.setSystemTime(T0)
        const oracle = new RateLimiterMemory({ points: 4, duration: 10 })
        const limiter = redisRateLimiter(timed, {
          keyPrefix: randomUUID(),
          denials: false,
          timeoutMs: 10_000,
        })
        for (const wait of waits) {
          vi.advanceTimersByTime(wait)
          await timed.setTime(Date.now())
          const theirs: RateLimiterRes & { refused?: boolean } = await oracle
            .consume('key')
            .catch((refusal) => ({
              ...refusal,
              refused: true,
              remainingPoints: 0,
              msBeforeNext: refusal.msBeforeNext,
            }))
          const ours = await limiter.check({
            lineageId: 'l',
            keyId: 'k',
            version: 1,
            fresh: true,
            cost: 1,
            limits,
            retainMs: RETAIN_MS,
          })
          expect(ours).toMatchObject({
            outcome: theirs.refused ? 'limited' : 'admitted',
            limits: [{ remaining: theirs.remainingPoints, resetMs: theirs.msBeforeNext }],
          })
        }
      }),
      { seed, numRuns: 60 },
    )
  })
})
