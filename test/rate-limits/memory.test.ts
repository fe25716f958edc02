import { memoryRateLimiter, type RateLimiter } from 'latchkey'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import type { CompiledLimit } from '../../lib/core/limits/rate-limit.ts'
import type { LimitRequest } from '../../lib/core/limits/rate-limiter.ts'
import { heapGrowth } from '../support/heap-growth.ts'

const DAY = 86_400_000
const T0 = Date.UTC(2026, 0, 15, 12)

function setUp() {
  let now = T0
  const limiter = memoryRateLimiter({ clock: { now: () => now } })
  return {
    limiter,
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
