import fc from 'fast-check'
import { memoryRateLimiter, type RateLimiter } from 'latchkey'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import { chargeMeter, type Meter, readMeter } from '../../lib/core/limits/meter.ts'
import type { CompiledLimit } from '../../lib/core/limits/rate-limit.ts'
import type { LimitRequest } from '../../lib/core/limits/rate-limiter.ts'
import { giveBack } from '../support/give-back.ts'
import { heapGrowth } from '../support/heap-growth.ts'

const DAY = 86_400_000
const T0 = Date.UTC(2026, 0, 15, 12)
const FOREVER = 10_000 * DAY

function setUp() {
  let now = T0
  const limiter = memoryRateLimiter({ clock: { now: () => now } })
  return {
    limiter,
    get now() {
      return now
    },
    pass: (ms: number) => {
      now += ms
    },
    /** One call; what is not given is a fresh record of version 1 without limits that spends 1. */
    check: (request: Partial<LimitRequest> = {}) => answerOf(limiter, request),
  }
}

function answerOf(limiter: RateLimiter, request: Partial<LimitRequest>) {
  const answer = limiter.check({
    lineageId: 'lineage',
    keyId: 'key',
    version: 1,
    fresh: true,
    cost: 1,
    limits: [],
    retainMs: 10_000,
    ...request,
  })
  if ('then' in answer) throw new Error('the memory limiter answers at once')
  return answer
}

const limits = (...given: object[]): readonly CompiledLimit[] =>
  compileRateLimits(
    'rateLimits',
    given.map((limit, i) => ({ name: `l${i}`, ...limit })),
  )

const minute = limits({ limit: 3, windowMs: 60_000 })

describe('a call that is refused', () => {
  it('spends nothing on the limits that would have let it pass', () => {
    const { check } = setUp()
    const both = limits(
      { limit: 100, windowMs: 60_000 },
      { limit: 10, burst: 2, windowMs: 60_000 },
      { limit: 50, per: 'day' },
    )
    for (let i = 0; i < 2; i++) expect(check({ limits: both }).outcome).toBe('admitted')
    for (let i = 0; i < 20; i++) {
      expect(check({ limits: both })).toMatchObject({
        outcome: 'limited',
        retryAfterMs: 6_000,
        limits: [
          { remaining: 98, exceeded: false },
          { remaining: 0, exceeded: true },
          { remaining: 48, exceeded: false },
        ],
      })
    }
  })

  it('waits for the slowest limit, and for nothing where one can never pass', () => {
    const { check } = setUp()
    const both = limits({ limit: 3, windowMs: 1_000 }, { limit: 3, windowMs: 5_000 })
    check({ limits: both, cost: 3 })
    expect(check({ limits: both })).toMatchObject({ outcome: 'limited', retryAfterMs: 5_000 })
    expect(check({ limits: both, cost: 4 })).toMatchObject({ outcome: 'limited', retryAfterMs: null })
  })

  it('is not refused for as long as its clock was wrong', () => {
    const { check, pass } = setUp()
    const three = limits({ limit: 3, windowMs: 60_000 }, { limit: 3, burst: 3, windowMs: 60_000 })
    check({ limits: three, cost: 3 })
    pass(-DAY)
    expect(check({ limits: three })).toMatchObject({ outcome: 'limited', retryAfterMs: 60_000 })
    pass(60_000)
    expect(check({ limits: three, cost: 3 }).outcome).toBe('admitted')
  })
})

describe('a look', () => {
  it('spends nothing and passes where nothing is left', () => {
    const { check } = setUp()
    expect(check({ limits: minute, cost: 0 })).toMatchObject({
      outcome: 'admitted',
      limits: [{ remaining: 3, resetMs: null }],
    })
    check({ limits: minute, cost: 3 })
    for (let i = 0; i < 5; i++) {
      expect(check({ limits: minute, cost: 0 })).toMatchObject({
        outcome: 'admitted',
        limits: [{ remaining: 0, exceeded: false, resetMs: 60_000 }],
      })
    }
  })

  it('opens no window', () => {
    const { check, pass } = setUp()
    check({ limits: minute, cost: 0 })
    pass(30_000)
    check({ limits: minute, cost: 3 })
    pass(30_000)
    expect(check({ limits: minute }).outcome).toBe('limited')
  })
})

describe('a refund', () => {
  const spent = (world: ReturnType<typeof setUp>, limit: object, cost: number) => {
    const [compiled] = limits(limit)
    const answer = world.check({ limits: [compiled as CompiledLimit], cost })
    const chargedAt = answer.outcome === 'admitted' ? answer.chargedAt : null
    expect(chargedAt).toBe(world.now)
    return {
      remaining: () => {
        const look = world.check({ limits: [compiled as CompiledLimit], cost: 0 })
        return look.outcome === 'admitted' ? look.limits[0]?.remaining : look.outcome
      },
      refund: () =>
        giveBack(world.limiter, {
          lineageId: 'lineage',
          cost,
          chargedAt: chargedAt as number,
          limits: [compiled as CompiledLimit],
        }),
    }
  }

  it('gives nothing back to a window or period that has ended since', () => {
    for (const limit of [
      { limit: 9, windowMs: 60_000 },
      { limit: 9, per: 'day' },
    ]) {
      const world = setUp()
      const charge = spent(world, limit, 4)
      world.pass(DAY)
      world.check({ limits: limits(limit), cost: 3 })
      charge.refund()
      expect(charge.remaining()).toBe(6)
    }
  })

  it('gives back what was spent to one that has not', () => {
    for (const limit of [
      { limit: 9, windowMs: 60_000 },
      { limit: 9, per: 'day' },
    ]) {
      const world = setUp()
      const charge = spent(world, limit, 4)
      world.pass(59_999)
      charge.refund()
      expect(charge.remaining()).toBe(9)
    }
  })

  it('gives back to a bucket only what cannot have leaked since', () => {
    const world = setUp()
    const charge = spent(world, { limit: 60, windowMs: 60_000, burst: 10 }, 6)
    expect(charge.remaining()).toBe(4)
    world.pass(2_000)
    expect(charge.remaining()).toBe(6)
    charge.refund()
    expect(charge.remaining()).toBe(10)
    const late = spent(world, { limit: 60, windowMs: 60_000, burst: 10 }, 3)
    world.pass(3_000)
    world.check({ limits: limits({ limit: 60, windowMs: 60_000, burst: 10 }), cost: 5 })
    late.refund()
    expect(late.remaining()).toBe(5)
  })

  it('of a lineage that nothing is kept of does nothing', () => {
    const { limiter, check } = setUp()
    giveBack(limiter, { lineageId: 'nobody', cost: 4, chargedAt: T0, limits: minute })
    expect(check({ lineageId: 'nobody', limits: minute, cost: 4 }).outcome).toBe('limited')
  })
})

describe('the version of a record', () => {
  const stale = { outcome: 'stale' }

  it('is stale where a higher one is kept, fresh or not, and spends nothing', () => {
    const { check, limiter } = setUp()
    limiter.raiseVersions([{ lineageId: 'lineage', keyId: 'key', version: 3 }], 10_000)
    for (const fresh of [false, true]) {
      for (const version of [1, 2]) expect(check({ version, fresh, limits: minute })).toEqual(stale)
    }
    expect(check({ version: 3, fresh: false, limits: minute })).toMatchObject({ limits: [{ remaining: 2 }] })
  })

  it('raises the kept one where it is higher, fresh or not', () => {
    const { check } = setUp()
    check({ version: 1 })
    expect(check({ version: 5, fresh: false }).outcome).toBe('admitted')
    expect(check({ version: 4, fresh: true })).toEqual(stale)
  })

  it('is stale where none is kept and the record is not fresh; a fresh one sets it', () => {
    const { check } = setUp()
    expect(check({ fresh: false })).toEqual(stale)
    expect(check({ fresh: false })).toEqual(stale)
    expect(check({ fresh: true }).outcome).toBe('admitted')
    expect(check({ fresh: false }).outcome).toBe('admitted')
  })

  it('is set by a fresh record that a limit then refuses', () => {
    const { check } = setUp()
    expect(check({ limits: minute, cost: 9 }).outcome).toBe('limited')
    expect(check({ fresh: false }).outcome).toBe('admitted')
  })

  it('is never lowered', () => {
    const { check, limiter } = setUp()
    limiter.raiseVersions([{ lineageId: 'lineage', keyId: 'key', version: 7 }], 10_000)
    limiter.raiseVersions([{ lineageId: 'lineage', keyId: 'key', version: 2 }], 10_000)
    expect(check({ version: 6 })).toEqual(stale)
  })

  it('belongs to its key: relatives have their own', () => {
    const { check, limiter } = setUp()
    limiter.raiseVersions(
      [
        { lineageId: 'lineage', keyId: 'old', version: 9 },
        { lineageId: 'other', keyId: 'key', version: 9 },
      ],
      10_000,
    )
    expect(check({ version: 1 }).outcome).toBe('admitted')
    expect(check({ version: 1, keyId: 'old' })).toEqual(stale)
    expect(check({ version: 1, lineageId: 'other' })).toEqual(stale)
  })
})

describe('a lineage', () => {
  it('counts all its keys together, and no others', () => {
    const { check } = setUp()
    for (const keyId of ['a', 'b', 'c']) check({ keyId, limits: minute })
    expect(check({ keyId: 'd', limits: minute }).outcome).toBe('limited')
    expect(check({ lineageId: 'other', limits: minute }).outcome).toBe('admitted')
  })

  it('lets keys with another window not restart each other’s count', () => {
    const { check } = setUp()
    const hour = limits({ limit: 3, windowMs: 3_600_000 })
    let admitted = 0
    for (let i = 0; i < 20; i++) {
      if (check({ keyId: 'old', limits: minute }).outcome === 'admitted') admitted++
      if (check({ keyId: 'new', limits: hour }).outcome === 'admitted') admitted++
    }
    expect(admitted).toBe(6)
  })

  it('keeps what was used where the number of a limit changes', () => {
    const { check } = setUp()
    check({ limits: minute, cost: 3 })
    expect(check({ limits: limits({ limit: 2, windowMs: 60_000 }) }).outcome).toBe('limited')
    expect(check({ limits: limits({ limit: 5, windowMs: 60_000 }) })).toMatchObject({
      limits: [{ remaining: 1 }],
    })
  })
})

describe('what is kept', () => {
  afterEach(() => void vi.useRealTimers())

  /** As many calls of others as it takes to look at everything that is kept. */
  function churn({ check }: ReturnType<typeof setUp>, calls: number) {
    for (let i = 0; i < calls; i++) check({ lineageId: 'busy' })
  }

  it('is swept once it has run out, and not before', () => {
    const world = setUp()
    const lineages = Array.from({ length: 500 }, (_, i) => `lineage ${i}`)
    for (const lineageId of lineages) world.check({ lineageId, retainMs: 10_000 })
    const known = () =>
      lineages.filter(
        (lineageId) => world.check({ lineageId, fresh: false, retainMs: 0 }).outcome === 'admitted',
      )
    world.pass(9_999)
    churn(world, 1_000)
    expect(known()).toHaveLength(500)
    world.pass(1)
    churn(world, 1_000)
    expect(known()).toHaveLength(0)
  })

  it.each([
    ['a window', { limit: 3, windowMs: 90 * DAY }, 90 * DAY],
    ['a bucket', { limit: 1, burst: 3, windowMs: 30 * DAY }, 30 * DAY],
    ['a calendar month', { limit: 3, per: 'month' }, 16.5 * DAY],
    ['the longest window', { limit: 3, windowMs: 3_660 * DAY }, 3_660 * DAY],
  ])('counts for months: %s', (_what, limit, waitMs) => {
    const world = setUp()
    const slow = limits(limit)
    world.check({ limits: slow, cost: 3, retainMs: 1_000 })
    world.pass(waitMs - 1)
    churn(world, 100)
    const early = world.check({ limits: slow })
    // A bucket’s level is a fraction: after months its wait may be rounded up by one more.
    expect(early).toMatchObject({
      outcome: 'limited',
      retryAfterMs: expect.toSatisfy((ms) => ms === 1 || ms === 2),
    })
    world.pass(1)
    expect(world.check({ limits: slow })).toMatchObject({ outcome: 'admitted' })
  })

  it('keeps a version that was raised for as long as was asked, and never shorter than before', () => {
    const world = setUp()
    const mark = { lineageId: 'lineage', keyId: 'key', version: 4 }
    world.limiter.raiseVersions([mark], 20_000)
    world.limiter.raiseVersions([mark], 1)
    world.pass(19_999)
    churn(world, 100)
    expect(world.check({ version: 3, fresh: true }).outcome).toBe('stale')
  })

  it('is swept also where versions are raised and nothing is checked', () => {
    const world = setUp()
    world.limiter.raiseVersions([{ lineageId: 'lineage', keyId: 'key', version: 4 }], 1_000)
    world.pass(1_000)
    for (let i = 0; i < 100; i++) {
      world.limiter.raiseVersions([{ lineageId: `other${i}`, keyId: 'key', version: 1 }], 1)
      world.pass(1)
    }
    expect(world.check({ version: 3, fresh: true }).outcome).toBe('admitted')
  })

  it('is bounded for keys whose limits change all the time', async () => {
    const { check, pass } = setUp()
    const month = { limit: 9_000, per: 'month' }
    const growth = await heapGrowth(() => {
      for (let i = 0; i < 6_000; i++) {
        const given = Array.from({ length: 15 }, (_, j) => ({
          name: `j${15 * i + j}`,
          limit: 9,
          windowMs: 1,
        }))
        const request = { lineageId: `lineage${i % 150}`, limits: limits(month, ...given) }
        expect(check(request).outcome).toBe('admitted')
        pass(1)
      }
    })
    expect(growth).toBeLessThan(4)
    expect(check({ lineageId: 'lineage0', limits: limits(month), cost: 0 })).toMatchObject({
      limits: [{ remaining: 9_000 - 40 }],
    })
  })

  it('is bounded for a key that is rotated all the time, and holds the versions that matter', async () => {
    const { check, limiter, pass } = setUp()
    const growth = await heapGrowth(() => {
      for (let i = 0; i < 50_000; i++) {
        limiter.raiseVersions([{ lineageId: 'lineage', keyId: `key${i}`, version: 2 }], 100)
        pass(1)
      }
    })
    expect(growth).toBeLessThan(1)
    for (let i = 49_901; i < 50_000; i++) expect(check({ keyId: `key${i}` }).outcome).toBe('stale')
  })

  it('is forgotten where that is asked for', () => {
    const { check, limiter } = setUp()
    check({ limits: minute, cost: 3 })
    check({ lineageId: 'other', limits: minute, cost: 3 })
    limiter.forget?.('lineage')
    limiter.forget?.('nobody')
    expect(check({ limits: minute, cost: 3 }).outcome).toBe('admitted')
    expect(check({ lineageId: 'other', limits: minute }).outcome).toBe('limited')
  })

  it('sets no timer, whatever the window', () => {
    vi.useFakeTimers()
    const limiter = memoryRateLimiter()
    const before = process.getActiveResourcesInfo()
    const slow = limits(
      { limit: 3, windowMs: 3_660 * DAY },
      { limit: 3, burst: 1, windowMs: 1_000 },
      { limit: 3, per: 'month' },
    )
    for (let i = 0; i < 100; i++) answerOf(limiter, { lineageId: `${i}`, limits: slow })
    limiter.raiseVersions([{ lineageId: 'l', keyId: 'k', version: 2 }], 1_000)
    expect(vi.getTimerCount()).toBe(0)
    expect(process.getActiveResourcesInfo()).toEqual(before)
  })
})

describe('any trace of calls', () => {
  const all = compileRateLimits('rateLimits', [
    { name: 'window', limit: 5, windowMs: 1_000 },
    { name: 'bucket', limit: 6, burst: 3, windowMs: 1_000 },
    { name: 'day', limit: 40, per: 'day' },
  ])
  const command = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        type: fc.constant('check' as const),
        lineageId: fc.constantFrom('a', 'b'),
        keyId: fc.constantFrom('k1', 'k2'),
        version: fc.integer({ min: 1, max: 4 }),
        fresh: fc.boolean(),
        cost: fc.nat(4),
        limits: fc.subarray([...all]),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        type: fc.constant('raise' as const),
        lineageId: fc.constantFrom('a', 'b'),
        keyId: fc.constantFrom('k1', 'k2'),
        version: fc.integer({ min: 1, max: 4 }),
      }),
    },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('pass' as const), ms: fc.nat(700) }) },
  )

  it('is answered as the model says: one decision, all or nothing', () => {
    const outcomes = new Map<string, number>()
    fc.assert(
      fc.property(fc.array(command, { minLength: 20, maxLength: 120 }), (trace) => {
        const world = setUp()
        const model = createModel()
        for (const step of trace) {
          if (step.type === 'pass') world.pass(step.ms)
          else if (step.type === 'raise') {
            world.limiter.raiseVersions([step], FOREVER)
            model.raise(step)
          } else {
            const request = { ...step, retainMs: FOREVER }
            const answer = world.check(request)
            const expected = model.check(request, world.now)
            outcomes.set(answer.outcome, (outcomes.get(answer.outcome) ?? 0) + 1)
            expect(answer.outcome).toBe(expected.outcome)
            if (answer.outcome !== 'stale') {
              expect(answer.limits.map(({ remaining }) => remaining)).toEqual(expected.remaining)
            }
          }
        }
      }),
      { numRuns: 300 },
    )
    // The traces reach every outcome, each many times.
    for (const outcome of ['admitted', 'limited', 'stale']) {
      expect(outcomes.get(outcome), outcome).toBeGreaterThan(100)
    }
  })
})

describe('the options', () => {
  it.each<[string, unknown]>([
    ['"options" must be an object, received null', null],
    ['"options" must be an object, received a string', 'redis://user:secret@host'],
    ['"options" has no option "clocks"; did you mean "clock"?', { clocks: {} }],
    ['"clock.now" must be a function, received undefined', { clock: {} }],
    ['"clock.now" must be a function, received 5', { clock: { now: 5 } }],
    ['"clock.now" must be a function, received undefined', { clock: null }],
  ])('are refused: %s', (message, options) => {
    expect(() => memoryRateLimiter(options as object)).toThrow(TypeError)
    expect(() => memoryRateLimiter(options as object)).toThrow(message)
  })
})

/** The rules of `RateLimiter`, written down once more with nothing but maps that never forget. */
function createModel() {
  const versions = new Map<string, number>()
  const meters = new Map<string, Meter>()
  const keyOf = ({ lineageId, keyId }: { lineageId: string; keyId: string }) => `${lineageId} ${keyId}`

  function raise(mark: { lineageId: string; keyId: string; version: number }) {
    versions.set(keyOf(mark), Math.max(mark.version, versions.get(keyOf(mark)) ?? 0))
  }

  function check(request: LimitRequest, now: number) {
    const { lineageId, version, fresh, cost, limits } = request
    const kept = versions.get(keyOf(request))
    if (kept === undefined ? !fresh : version < kept) return { outcome: 'stale' }
    raise(request)
    const read = (limit: CompiledLimit) =>
      readMeter(limit, meters.get(`${lineageId} ${limit.name}`), cost, now)
    const fits = limits.every((limit) => read(limit).fits)
    if (fits && cost > 0) {
      for (const limit of limits)
        meters.set(`${lineageId} ${limit.name}`, chargeMeter(limit, read(limit).meter, cost))
    }
    const remaining = limits.map((limit) => Math.max(0, Math.floor(limit.capacity - read(limit).meter.used)))
    return { outcome: fits ? 'admitted' : 'limited', remaining }
  }

  return { raise, check }
}
