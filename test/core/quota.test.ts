import fc from 'fast-check'
import {
  createApiKeys,
  memoryRateLimiter,
  memoryStore,
  type Quota,
  type QuotaRecord,
  startQuota,
} from 'latchkey'
import { describe, expect, it } from 'vitest'
import { checkQuota, decideExchange, isLaterQuota } from '../../lib/core/limits/quota.ts'

const DAY = 86_400_000
const T0 = Date.UTC(2026, 0, 15, 12)
const at = (ms: number) => new Date(T0 + ms)

/** A quota as a store keeps it, from T0, and a process that leases of it. */
function keep(quota: Quota) {
  let kept = startQuota(quota, null, at(0))
  let lease = { epoch: kept.epoch, held: 0 }
  return {
    /** Exchanges units for calls of these costs, which are spent at once; what is leased beyond is held. */
    exchange(costs: readonly number[], ms: number, maxExtra = 0) {
      const exchange = decideExchange(kept, { ...lease, costs, maxExtra }, at(ms))
      kept = exchange.next
      lease = { epoch: kept.epoch, held: exchange.granted }
      return exchange
    },
    spend(units: number) {
      lease.held -= units
    },
    get held(): number {
      return lease.held
    },
    get record(): QuotaRecord {
      return kept
    },
  }
}

describe('an exchange', () => {
  it('leases what the waiting calls cost, and nothing once there is nothing', () => {
    const quota = keep({ remaining: 250 })
    expect(quota.exchange([60, 40], 0)).toMatchObject({
      granted: 100,
      kept: 0,
      returned: 0,
      next: { remaining: 150, allotted: 100, epoch: T0 },
    })
    quota.spend(100)
    expect(quota.exchange([150], 0)).toMatchObject({ granted: 150, next: { remaining: 0, allotted: 250 } })
    quota.spend(150)
    const { record } = quota
    expect(quota.exchange([1], 999 * DAY)).toEqual({ next: record, granted: 0, kept: 0, returned: 0 })
    expect(quota.record).toBe(record)
  })

  it('passes over calls that cost more than is left, and serves those behind them', () => {
    const quota = keep({ remaining: 10 })
    expect(quota.exchange([4, 11, 6, 1], 0)).toMatchObject({ granted: 10, next: { remaining: 0 } })
  })

  it('leaves all as it is where no waiting call can be served', () => {
    const quota = keep({ remaining: 10 })
    quota.exchange([5], 0)
    const { record } = quota
    expect(quota.exchange([11], 0, 1_000)).toEqual({ next: record, granted: 5, kept: 5, returned: 0 })
  })

  it('takes no more beyond than a sixteenth of what is left', () => {
    const quota = keep({ remaining: 170 })
    expect(quota.exchange([10], 0, 1_000)).toMatchObject({
      granted: 20,
      next: { remaining: 150, allotted: 20 },
    })
    expect(keep({ remaining: 15 }).exchange([1], 0, 1_000)).toMatchObject({ granted: 1 })
    expect(keep({ remaining: 1_000_000 }).exchange([1], 0, 1_000)).toMatchObject({ granted: 1_001 })
  })

  it('spends the units that are held together with those in the store', () => {
    const quota = keep({ remaining: 12 })
    quota.exchange([5], 0)
    expect(quota.exchange([12], 0)).toEqual({
      granted: 12,
      kept: 5,
      returned: 0,
      next: { ...quota.record, remaining: 0, allotted: 12 },
    })
  })

  it('gives back what is not wanted any more, and lowers nothing that was allotted', () => {
    const quota = keep({ remaining: 10 })
    quota.exchange([6], 0)
    expect(quota.exchange([], 0)).toEqual({
      granted: 0,
      kept: 0,
      returned: 6,
      next: { ...quota.record, remaining: 10, allotted: 6 },
    })
  })

  it('always changes what the store has where a lease is renewed: others tell by it that it is', () => {
    const quota = keep({ remaining: 1_000 })
    quota.exchange([20], 0)
    const { record } = quota
    expect(quota.exchange([], 0, 20)).toMatchObject({ granted: 19, kept: 19, returned: 1 })
    expect(quota.record).not.toEqual(record)
  })

  it('leaves the record it was given alone', () => {
    const record = Object.freeze(
      startQuota({ remaining: 5, refill: { amount: 9, everyMs: 1_000 } }, null, at(0)),
    )
    decideExchange(record, { epoch: T0, held: 0, costs: [3], maxExtra: 9 }, at(5_000))
    expect(record).toEqual({
      remaining: 5,
      epoch: T0,
      allotted: 0,
      refill: { amount: 9, everyMs: 1_000 },
      nextRefillAt: at(1_000),
    })
  })

  it('makes and loses no unit, and never comes back to a state, whatever the order', () => {
    const step = fc.record({
      costs: fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 4 }),
      extra: fc.nat(30),
      spend: fc.nat(40),
      afterMs: fc.nat(3_000),
    })
    const refills = fc.option(
      fc.record({ amount: fc.integer({ min: 1, max: 60 }), everyMs: fc.constant(1_000) }),
    )
    fc.assert(
      fc.property(fc.nat(100), refills, fc.array(step), (remaining, refill, steps) => {
        const quota = keep({ remaining, refill })
        let now = 0
        for (const { costs, extra, spend, afterMs } of steps) {
          now += afterMs
          quota.spend(Math.min(spend, quota.held))
          const [before, held] = [quota.record, quota.held]
          const { next, granted, kept, returned } = quota.exchange(costs, now, extra)
          const isNewEpoch = next.epoch > before.epoch
          const available = isNewEpoch ? (refill?.amount ?? 0) : before.remaining + held
          expect(next.remaining + granted).toBe(available)
          expect(kept + returned).toBe(isNewEpoch ? 0 : held)
          expect(next.allotted).toBeGreaterThanOrEqual(isNewEpoch ? 0 : before.allotted)
          expect(next === before || isLaterQuota(next, before)).toBe(true)
        }
      }),
    )
  })
})

describe('a refill', () => {
  const refill = { amount: 10, everyMs: 60_000 }

  it('does not come a millisecond early', () => {
    const quota = keep({ remaining: 0, refill })
    expect(quota.exchange([5], 59_999)).toMatchObject({
      granted: 0,
      next: { epoch: T0, nextRefillAt: at(60_000) },
    })
    expect(quota.exchange([5], 60_000)).toMatchObject({
      granted: 5,
      next: { epoch: T0 + 1, remaining: 5, allotted: 5, nextRefillAt: at(120_000) },
    })
  })

  it('tops up to its amount and adds nothing beyond it', () => {
    const quota = keep({ remaining: 7, refill })
    expect(quota.exchange([10], 60_000)).toMatchObject({ granted: 10, next: { allotted: 10, remaining: 0 } })
  })

  it('comes once, however often it is asked for', () => {
    const quota = keep({ remaining: 0, refill })
    const granted = [60_000, 60_000, 61_000, 119_999].map((ms) => {
      const exchange = quota.exchange([10], ms)
      quota.spend(exchange.granted)
      return exchange.granted
    })
    expect(granted).toEqual([10, 0, 0, 0])
    expect(quota.exchange([10], 120_000).granted).toBe(10)
  })

  it('counts once where several were missed, and stays in step', () => {
    const quota = keep({ remaining: 0, refill })
    expect(quota.exchange([10], 60_000 * 1_000 + 17)).toMatchObject({
      granted: 10,
      next: { epoch: T0 + 1, nextRefillAt: at(60_000 * 1_001) },
    })
  })

  it.each([10, 11, 1_000])('takes nothing away where %i are left, and only moves on', (remaining) => {
    const quota = keep({ remaining: remaining + 3, refill })
    quota.exchange([3], 0)
    quota.spend(3)
    expect(quota.exchange([1], 60_000)).toMatchObject({
      granted: 1,
      next: { epoch: T0, allotted: 4, remaining: remaining - 1, nextRefillAt: at(120_000) },
    })
  })

  it('counts the units that are offered: it takes none of them away where there are enough', () => {
    const quota = keep({ remaining: 14, refill })
    quota.exchange([5], 0)
    expect(quota.exchange([6], 60_000)).toMatchObject({
      granted: 6,
      kept: 5,
      next: { epoch: T0, remaining: 8, nextRefillAt: at(120_000) },
    })
  })

  it('begins a new epoch, in which what was leased before is worth nothing', () => {
    const quota = keep({ remaining: 10, refill })
    quota.exchange([6], 0)
    quota.spend(3)
    expect(quota.exchange([1], 60_000)).toMatchObject({
      granted: 1,
      kept: 0,
      returned: 0,
      next: { epoch: T0 + 1, allotted: 1, remaining: 9 },
    })
  })

  it('is not made for nobody', () => {
    const quota = keep({ remaining: 10, refill })
    const { record } = quota
    expect(quota.exchange([], 60_000).next).toBe(record)
    expect(quota.exchange([11], 60_000).next).toBe(record)
  })

  it.each([
    ['day', 'UTC', '2026-01-16T00:00:00.000Z', '2026-01-17T00:00:00.000Z'],
    ['day', undefined, '2026-01-16T00:00:00.000Z', '2026-01-17T00:00:00.000Z'],
    ['day', 'Asia/Tokyo', '2026-01-15T15:00:00.000Z', '2026-01-16T15:00:00.000Z'],
    ['month', 'UTC', '2026-02-01T00:00:00.000Z', '2026-03-01T00:00:00.000Z'],
    ['month', 'Europe/Berlin', '2026-01-31T23:00:00.000Z', '2026-02-28T23:00:00.000Z'],
  ] as const)('comes at the beginning of every %s in %s', (per, timeZone, first, second) => {
    const quota = keep({ remaining: 0, refill: { amount: 4, per, ...(timeZone && { timeZone }) } })
    const due = new Date(first).getTime() - T0
    expect(quota.record.nextRefillAt?.toISOString()).toBe(first)
    expect(quota.exchange([4], due - 1).granted).toBe(0)
    expect(quota.exchange([4], due)).toMatchObject({ granted: 4, next: { nextRefillAt: new Date(second) } })
    quota.spend(4)
    expect(quota.exchange([4], due).granted).toBe(0)
  })
})

describe('setting a quota', () => {
  it('begins an epoch with nothing handed out, its first refill a full interval away', () => {
    expect(startQuota({ remaining: 5, refill: { amount: 9, everyMs: 1_000 } }, null, at(0))).toEqual({
      remaining: 5,
      epoch: T0,
      allotted: 0,
      refill: { amount: 9, everyMs: 1_000 },
      nextRefillAt: at(1_000),
    })
    expect(startQuota({ remaining: 5 }, null, at(0))).toMatchObject({ refill: null, nextRefillAt: null })
  })

  it.each([
    ['right after the one before', 0],
    ['later', 5_000],
    ['with a clock that was set back', -DAY],
  ])('raises the epoch %s', (_when, ms) => {
    const quota = keep({ remaining: 5, refill: { amount: 9, everyMs: 1_000 } })
    quota.exchange([5], 1_000)
    const { record } = quota
    const next = startQuota({ remaining: 5 }, record, at(ms))
    expect(next.epoch).toBeGreaterThan(record.epoch)
    expect(next).toMatchObject({ remaining: 5, allotted: 0 })
  })

  it('raises the epoch also where the quota was removed in between', () => {
    const quota = keep({ remaining: 0, refill: { amount: 1, everyMs: 1_000 } })
    // The fastest that epochs can rise by refills is one a second.
    for (let second = 1; second <= 100; second++) {
      quota.exchange([1], second * 1_000)
      quota.spend(1)
    }
    const removed = quota.record
    expect(removed.epoch).toBe(T0 + 100)
    expect(startQuota({ remaining: 5 }, null, at(100_001)).epoch).toBeGreaterThan(removed.epoch)
  })
})

describe('a quota of the wrong shape', () => {
  const refilled = (refill: unknown) => ({ remaining: 1, refill })
  it.each<[string, unknown]>([
    ['"quota" must be an object, received 100', 100],
    ['"quota" must be an object, received an array', [100]],
    ['"quota.remaining" must be an integer from 0', {}],
    ['"quota.remaining" must be an integer from 0', { remaining: -1 }],
    ['"quota.remaining" must be an integer from 0', { remaining: 1.5 }],
    ['"quota.remaining" must be an integer from 0', { remaining: '5' }],
    ['"quota.remaining" must be an integer from 0', { remaining: 1e13 }],
    ['"quota" has no option "limit"', { remaining: 1, limit: 1 }],
    ['"quota.refill" must be an object', refilled('daily')],
    ['"quota.refill.amount" must be a positive integer', refilled({ amount: 0, per: 'day' })],
    ['"quota.refill.amount"', refilled({ per: 'day' })],
    ['"quota.refill.per" must be "day" or "month" (or give "everyMs")', refilled({ amount: 1 })],
    ['"quota.refill.per"', refilled({ amount: 1, per: 'week' })],
    ['"quota.refill.everyMs" must be an integer from 1000', refilled({ amount: 1, everyMs: 999 })],
    ['"quota.refill.everyMs"', refilled({ amount: 1, everyMs: 3_661 * DAY })],
    ['either "everyMs" or "per", not both', refilled({ amount: 1, everyMs: 1_000, per: 'day' })],
    [
      '"quota.refill.timeZone" is allowed only with "per"',
      refilled({ amount: 1, everyMs: 1_000, timeZone: 'UTC' }),
    ],
    ['"quota.refill.timeZone" must be an IANA', refilled({ amount: 1, per: 'day', timeZone: 'Mars' })],
    ['"quota.refill" has no option "every"', refilled({ amount: 1, every: 1_000 })],
  ])('is refused: %s', async (message, quota) => {
    const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
    const issued = keys.issue({ owner: { type: 'user', id: 'u' }, name: 'n', quota: quota as Quota })
    await expect(issued).rejects.toThrow(TypeError)
    expect(() => checkQuota('quota', quota)).toThrow(message)
  })

  it('is not one with nothing left', () => {
    expect(checkQuota('quota', { remaining: 0 })).toEqual({ remaining: 0, refill: null })
    expect(checkQuota('quota', { remaining: 0, refill: { amount: 1, per: 'day' } })).toEqual({
      remaining: 0,
      refill: { amount: 1, per: 'day', timeZone: 'UTC' },
    })
  })
})
