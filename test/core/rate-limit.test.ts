import fc from 'fast-check'
import { createApiKeys, memoryRateLimiter, memoryStore, type RateLimit } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import { chargeMeter, limitState, type Meter, readMeter } from '../../lib/core/limits/meter.ts'
import type { CompiledLimit } from '../../lib/core/limits/rate-limit.ts'

const DAY = 86_400_000
const T0 = Date.UTC(2026, 0, 15, 12)

const limitOf = (given: object) =>
  compileRateLimits('rateLimits', [{ name: 'l', ...given }])[0] as CompiledLimit
const window = (limit: number, windowMs = 1_000) => limitOf({ limit, windowMs })
const bucket = (limit: number, burst: number, windowMs = 1_000) => limitOf({ limit, burst, windowMs })
const daily = (limit: number, timeZone = 'UTC') => limitOf({ limit, per: 'day', timeZone })
const monthly = (limit: number, timeZone = 'UTC') => limitOf({ limit, per: 'month', timeZone })

/** A limit with its meter, as a limiter keeps it: a refused call leaves nothing behind. */
function counter(first: CompiledLimit) {
  let limit = first
  let kept: Meter | undefined
  return {
    change: (next: CompiledLimit) => {
      limit = next
    },
    spend(now: number, cost = 1): boolean {
      const { fits, meter } = readMeter(limit, kept, cost, now)
      if (fits) kept = chargeMeter(limit, meter, cost)
      return fits
    },
    read: (now: number, cost = 1) => readMeter(limit, kept, cost, now),
    stateAt: (now: number) => limitState(limit, readMeter(limit, kept, 0, now).meter, false, now),
  }
}

describe('a limit that is exhausted', () => {
  it.each([
    ['a window', window(3), 1_000],
    ['a bucket', bucket(10, 3), 100],
    ['a day', daily(3), DAY / 2],
    ['a month', monthly(3), 16.5 * DAY],
  ])('refuses until the very millisecond it says: %s', (_what, limit, waitMs) => {
    const calls = counter(limit)
    for (let i = 0; i < 3; i++) expect(calls.spend(T0)).toBe(true)
    expect(calls.read(T0)).toMatchObject({ fits: false, retryAfterMs: waitMs })
    expect(calls.spend(T0)).toBe(false)
    expect(calls.spend(T0 + waitMs - 1)).toBe(false)
    expect(calls.spend(T0 + waitMs)).toBe(true)
  })

  it.each([
    ['a window', window(3)],
    ['a bucket whose limit is larger', bucket(10, 3)],
    ['a bucket whose limit is smaller', bucket(1, 3)],
    ['a day', daily(3)],
    ['a month', monthly(3)],
  ])('says that a cost beyond its size never passes: %s', (_what, limit) => {
    const calls = counter(limit)
    expect(calls.read(T0, 4)).toMatchObject({ fits: false, retryAfterMs: null })
    expect(calls.spend(T0, 3)).toBe(true)
    expect(calls.read(T0, 4).retryAfterMs).toBeNull()
    expect(calls.read(T0, 1).retryAfterMs).toBeGreaterThan(0)
  })

  it('lets a call without cost pass', () => {
    const calls = counter(window(1))
    calls.spend(T0)
    expect(calls.read(T0, 0)).toMatchObject({ fits: true, retryAfterMs: 0 })
  })

  it('tells the exact wait, whatever was spent before', () => {
    const limits = fc.oneof(
      fc
        .tuple(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 5_000 }))
        .map(([n, ms]) => window(n, ms)),
      fc
        .tuple(
          fc.integer({ min: 1, max: 50 }),
          fc.integer({ min: 1, max: 50 }),
          fc.integer({ min: 1, max: 5_000 }),
        )
        .map(([n, burst, ms]) => bucket(n, burst, ms)),
      fc.integer({ min: 1, max: 50 }).map((n) => daily(n, 'Europe/Berlin')),
      fc.integer({ min: 1, max: 50 }).map((n) => monthly(n)),
    )
    fc.assert(
      fc.property(limits, calls(20), fc.integer({ min: 1, max: 60 }), (limit, trace, cost) => {
        const calls = counter(limit)
        let now = T0
        for (const call of trace) {
          now += call.afterMs
          calls.spend(now, call.cost)
        }
        const { fits, retryAfterMs } = calls.read(now, cost)
        expect(retryAfterMs === null).toBe(cost > limit.capacity)
        if (fits || retryAfterMs === null) return
        expect(calls.read(now + retryAfterMs, cost).fits).toBe(true)
        if (limit.kind !== 'bucket') expect(calls.read(now + retryAfterMs - 1, cost).fits).toBe(false)
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('what is admitted', () => {
  it('is at most `limit` for each window, which opens with a call', () => {
    const numbers = fc.tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 300 }))
    fc.assert(
      fc.property(numbers, calls(100), ([limit, windowMs], trace) => {
        const admitted = admittedOf(window(limit, windowMs), trace)
        for (let i = 0; i < admitted.length; ) {
          const opensAt = admitted[i]?.at as number
          const inside = admitted.slice(i).filter(({ at }) => at < opensAt + windowMs)
          expect(sum(inside)).toBeLessThanOrEqual(limit)
          i += inside.length
        }
      }),
      { numRuns: 500 },
    )
  })

  it('is at most `burst + limit` in any stretch of a bucket’s window', () => {
    const size = fc.integer({ min: 1, max: 20 })
    fc.assert(
      fc.property(
        size,
        size,
        fc.integer({ min: 1, max: 300 }),
        calls(100),
        (limit, burst, windowMs, trace) => {
          const admitted = admittedOf(bucket(limit, burst, windowMs), trace)
          for (const { at: from } of admitted) {
            const stretch = admitted.filter(({ at }) => at >= from && at <= from + windowMs)
            expect(sum(stretch)).toBeLessThanOrEqual(burst + limit)
          }
        },
      ),
      { numRuns: 500 },
    )
  })

  it('is at most `limit` for each calendar day', () => {
    const hours = calls(60, 12 * 3_600_000)
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 10 }), hours, (limit, trace) => {
        const perDay = new Map<string, number>()
        for (const { at, cost } of admittedOf(daily(limit, '+01:00'), trace)) {
          const day = new Date(at + 3_600_000).toISOString().slice(0, 10)
          perDay.set(day, (perDay.get(day) ?? 0) + cost)
        }
        for (const total of perDay.values()) expect(total).toBeLessThanOrEqual(limit)
      }),
    )
  })

  it('uses all there is: as much as was asked, where that fits', () => {
    const calls = counter(bucket(10, 5))
    expect(calls.spend(T0, 5)).toBe(true)
    expect(calls.spend(T0 + 50, 1)).toBe(false)
    expect(calls.spend(T0 + 100, 1)).toBe(true)
    expect(calls.spend(T0 + 600, 5)).toBe(true)
    expect(calls.spend(T0 + 99_999, 5)).toBe(true)
    expect(calls.spend(T0 + 99_999, 1)).toBe(false)
  })
})

describe('a changed limit', () => {
  it.each([
    ['a window', window(10), window(4), window(12)],
    ['a bucket', bucket(1, 10), bucket(1, 4), bucket(1, 12)],
    ['a day', daily(10), daily(4), daily(12)],
    ['a month', monthly(10), monthly(4), monthly(12)],
  ])('keeps what was used where its number changes: %s', (_what, before, lower, higher) => {
    const calls = counter(before)
    calls.spend(T0, 8)
    calls.change(lower)
    expect(calls.spend(T0)).toBe(false)
    expect(calls.stateAt(T0).remaining).toBe(0)
    calls.change(higher)
    // A bucket that was only looked at has lost nothing.
    expect(calls.stateAt(T0).remaining).toBe(4)
  })

  it.each([
    ['its window', window(10), window(10, 2_000)],
    ['its kind, to a bucket', window(10), bucket(10, 10)],
    ['its kind, to a calendar', window(10), daily(10)],
    ['its kind, from a bucket', bucket(10, 10), window(10)],
    ['the speed of its bucket', bucket(10, 10), bucket(10, 10, 2_000)],
    ['its period', daily(10), monthly(10)],
    ['its time zone', daily(10), daily(10, '+01:00')],
  ])('starts again where %s changes', (_what, before, after) => {
    const calls = counter(before)
    calls.spend(T0, 10)
    calls.change(after)
    expect(calls.spend(T0, 10)).toBe(true)
    expect(calls.spend(T0)).toBe(false)
  })
})

describe('a clock that was set back', () => {
  const hour = 3_600_000
  it.each([
    ['a window', window(3, 60_000), 60_000],
    ['a bucket', bucket(3, 3, 60_000), 20_000],
    ['a day', daily(3), DAY / 2],
  ])('gives nothing back and stretches nothing beyond its length: %s', (_what, limit, longestMs) => {
    const now = T0 - 365 * DAY
    const full = chargeMeter(limit, readMeter(limit, undefined, 3, T0).meter, 3)
    const read = readMeter(limit, full, 1, now)
    expect(read.fits).toBe(false)
    expect(read.retryAfterMs).toBe(longestMs)
    expect(limitState(limit, read.meter, true, now).resetMs).toBe(longestMs)
    expect(readMeter(limit, read.meter, 1, now + longestMs).fits).toBe(true)
  })

  it('does not make a later day pay for an earlier one', () => {
    const day = daily(3)
    const tomorrow = chargeMeter(day, readMeter(day, undefined, 1, T0 + DAY).meter, 1)
    const today = chargeMeter(day, readMeter(day, tomorrow, 2, T0 + hour).meter, 2)
    expect(readMeter(day, today, 3, T0 + DAY).fits).toBe(true)
  })
})

describe('the state of a limit', () => {
  it('is full and has no end before the first call', () => {
    const untouched = { remaining: 3, resetMs: null, exceeded: false, type: 'rate_limit', name: 'l' }
    expect(counter(window(3)).stateAt(T0)).toEqual({ ...untouched, limit: 3, windowMs: 1_000 })
    expect(counter(bucket(7, 3)).stateAt(T0)).toEqual({ ...untouched, limit: 7, windowMs: 1_000 })
    expect(counter(daily(3)).stateAt(T0)).toEqual({ ...untouched, limit: 3, windowMs: DAY })
    expect(counter(monthly(3)).stateAt(T0)).toEqual({ ...untouched, limit: 3, windowMs: 31 * DAY })
  })

  it.each([
    ['a window, until it ends', window(10), 400, 7, 600],
    ['a bucket, until the next whole call', bucket(10, 10), 150, 8, 50],
    ['a bucket that has just got a call back', bucket(10, 10), 200, 9, 100],
    ['a day, until midnight', daily(10), 3_600_000, 7, 11 * 3_600_000],
    ['a month, until the first', monthly(10), DAY, 7, 15.5 * DAY],
  ])('tells what is left and how long to wait: %s', (_what, limit, afterMs, remaining, resetMs) => {
    const calls = counter(limit)
    calls.spend(T0, 3)
    expect(calls.stateAt(T0 + afterMs)).toMatchObject({ remaining, resetMs })
  })

  it('tells the length of the day that it is', () => {
    const berlin = counter(daily(5, 'Europe/Berlin'))
    expect(berlin.stateAt(Date.UTC(2026, 2, 29, 12)).windowMs).toBe(23 * 3_600_000)
    expect(berlin.stateAt(Date.UTC(2026, 9, 25, 12)).windowMs).toBe(25 * 3_600_000)
  })
})

describe('how long a meter matters', () => {
  it('is until it has run empty, for every kind', () => {
    const limits = fc.oneof(
      fc
        .tuple(fc.integer({ min: 1, max: 99 }), fc.integer({ min: 1, max: 9_999 }))
        .map(([n, ms]) => window(n, ms)),
      fc
        .tuple(
          fc.integer({ min: 1, max: 99 }),
          fc.integer({ min: 1, max: 99 }),
          fc.integer({ min: 1, max: 9_999 }),
        )
        .map(([n, burst, ms]) => bucket(n, burst, ms)),
      fc.constantFrom(daily(5, 'Europe/Berlin'), monthly(5), window(1, 3_660 * DAY)),
    )
    const moment = fc.integer({ min: T0, max: T0 + 400 * DAY })
    fc.assert(
      fc.property(limits, moment, (limit, now) => {
        const full = chargeMeter(
          limit,
          readMeter(limit, undefined, limit.capacity, now).meter,
          limit.capacity,
        )
        expect(full.until).toBeGreaterThan(now)
        expect(readMeter(limit, full, 0, full.until - 1).meter.used).toBeGreaterThan(0)
        expect(readMeter(limit, full, 0, full.until).meter.used).toBe(0)
      }),
    )
  })
})

describe('limits of the wrong shape', () => {
  const right = { name: 'l', limit: 1, windowMs: 1 }
  it.each<[string, unknown]>([
    ['"rateLimits" must be an array', right],
    ['"rateLimits" must be an array', 'minute'],
    ['"rateLimits" must have at most 16 entries', Array(17).fill(right)],
    ['"rateLimits[0]" must be an object, received undefined', Array(1)],
    ['"rateLimits[0]" must be an object, received an array', [[right]]],
    ['"rateLimits[0].name"', [{ limit: 1, windowMs: 1 }]],
    ['"rateLimits[0].name"', [{ ...right, name: '' }]],
    ['"rateLimits[0].name"', [{ ...right, name: 'a b' }]],
    ['"rateLimits[0].name"', [{ ...right, name: 'a'.repeat(33) }]],
    ['"rateLimits[0].name"', [{ ...right, name: 'minute\n' }]],
    ['"rateLimits[0].name" must not be "quota"', [{ ...right, name: 'quota' }]],
    ['"rateLimits[1].name" must be unique', [right, { ...right, limit: 2 }]],
    ['"rateLimits[0].limit" must be a positive integer, received 0', [{ ...right, limit: 0 }]],
    ['"rateLimits[0].limit" must be a positive integer, received -1', [{ ...right, limit: -1 }]],
    ['"rateLimits[0].limit" must be an integer from 1', [{ ...right, limit: 1.5 }]],
    ['"rateLimits[0].limit" must be an integer from 1', [{ ...right, limit: Number.NaN }]],
    ['"rateLimits[0].limit" must be an integer from 1', [{ ...right, limit: Infinity }]],
    ['"rateLimits[0].limit" must be an integer from 1', [{ ...right, limit: 1e13 }]],
    ['"rateLimits[0].limit" must be an integer from 1', [{ ...right, limit: '10' }]],
    ['"rateLimits[0].windowMs"', [{ name: 'l', limit: 1 }]],
    ['"rateLimits[0].windowMs"', [{ ...right, windowMs: 0 }]],
    ['"rateLimits[0].windowMs"', [{ ...right, windowMs: 3_660 * DAY + 1 }]],
    ['"rateLimits[0].burst"', [{ ...right, burst: 0 }]],
    ['"rateLimits[0].burst"', [{ ...right, burst: null }]],
    ['"rateLimits[0].per" must be "day" or "month"', [{ name: 'l', limit: 1, per: 'hour' }]],
    ['"rateLimits[0].windowMs" cannot be combined with "per"', [{ ...right, per: 'day' }]],
    ['"rateLimits[0].burst" cannot be combined with "per"', [{ name: 'l', limit: 1, per: 'day', burst: 1 }]],
    ['"rateLimits[0].timeZone" is allowed only with "per"', [{ ...right, timeZone: 'UTC' }]],
    ['"rateLimits[0].timeZone" must be an IANA', [{ name: 'l', limit: 1, per: 'day', timeZone: 'Mars' }]],
    ['"rateLimits[0]" has no option "window"', [{ name: 'l', limit: 1, window: 1 }]],
    [
      '"rateLimits[0]" has no option "windowsMs"; did you mean "windowMs"?',
      [{ name: 'l', limit: 1, windowsMs: 1 }],
    ],
  ])('are refused: %s', async (message, rateLimits) => {
    const options = { store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' }
    const wrong = { rateLimits: rateLimits as RateLimit[] }
    expect(() => createApiKeys({ ...options, ...wrong })).toThrow(TypeError)
    expect(() => createApiKeys({ ...options, ...wrong })).toThrow(message)
    const issued = createApiKeys(options).issue({ owner: { type: 'user', id: 'u' }, name: 'n', ...wrong })
    await expect(issued).rejects.toThrow(message)
  })

  it.each([
    [[]],
    [[{ name: 'l', limit: 1e12, windowMs: 3_660 * DAY }]],
    [[{ name: '_-Z9', limit: 1, per: 'month' }]],
  ])('are not %j', (limits) => {
    expect(compileRateLimits('rateLimits', limits)).toHaveLength(limits.length)
  })
})

/** Calls that follow on one another; about one in five is expensive. */
function calls(maxLength: number, maxGapMs = 150) {
  const call = fc.record({
    afterMs: fc.oneof(fc.constant(0), fc.nat(maxGapMs)),
    cost: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.nat(12) }),
  })
  return fc.array(call, { maxLength })
}

function admittedOf(limit: CompiledLimit, trace: readonly { afterMs: number; cost: number }[]) {
  const calls = counter(limit)
  let at = T0
  return trace.flatMap(({ afterMs, cost }) => {
    at += afterMs
    return cost > 0 && calls.spend(at, cost) ? [{ at, cost }] : []
  })
}

function sum(calls: readonly { cost: number }[]): number {
  return calls.reduce((total, { cost }) => total + cost, 0)
}
