import fc from 'fast-check'
import {
  createApiKeys,
  decideReservation,
  memoryRateLimiter,
  memoryStore,
  type Quota,
  type QuotaRecord,
  startQuota,
} from 'latchkey'
import { describe, expect, it } from 'vitest'
import { checkQuota } from '../../lib/core/quota.ts'

const DAY = 86_400_000
const T0 = Date.UTC(2026, 0, 15, 12)
const at = (ms: number) => new Date(T0 + ms)

/** A quota as a store keeps it, from T0. */
function keep(quota: Quota) {
  let kept = startQuota(quota, null, at(0))
  return {
    reserve(amount: number, ms: number) {
      const { next, reservation } = decideReservation(kept, amount, at(ms))
      kept = next
      return reservation
    },
    get record(): QuotaRecord {
      return kept
    },
  }
}

describe('a reservation', () => {
  it('hands out no more than remains, and then nothing', () => {
    const quota = keep({ remaining: 250 })
    expect(quota.reserve(100, 0)).toEqual({
      epoch: T0,
      allotted: 100,
      granted: 100,
      remaining: 150,
      nextRefillAt: null,
    })
    expect(quota.reserve(100, 0)).toMatchObject({ allotted: 200, granted: 100, remaining: 50 })
    expect(quota.reserve(100, 0)).toMatchObject({ allotted: 250, granted: 50, remaining: 0 })
    expect(quota.reserve(100, 999 * DAY)).toMatchObject({ allotted: 250, granted: 0, remaining: 0 })
  })

  it('of nothing only looks', () => {
    const quota = keep({ remaining: 5 })
    expect(quota.reserve(0, 0)).toMatchObject({ allotted: 0, granted: 0, remaining: 5 })
  })

  it('leaves the record it was given alone', () => {
    const record = Object.freeze(
      startQuota({ remaining: 5, refill: { amount: 9, everyMs: 1_000 } }, null, at(0)),
    )
    decideReservation(record, 3, at(5_000))
    expect(record).toEqual({
      remaining: 5,
      epoch: T0,
      allotted: 0,
      refill: { amount: 9, everyMs: 1_000 },
      nextRefillAt: at(1_000),
    })
  })

  it('makes and loses no unit, whatever the order', () => {
    const step = fc.record({ amount: fc.nat(40), afterMs: fc.nat(3_000) })
    const refills = fc.option(
      fc.record({ amount: fc.integer({ min: 1, max: 60 }), everyMs: fc.constant(1_000) }),
    )
    fc.assert(
      fc.property(fc.nat(100), refills, fc.array(step), (remaining, refill, steps) => {
        const quota = keep({ remaining, refill })
        let now = 0
        let granted = 0
        for (const { amount, afterMs } of steps) {
          const before = quota.record
          now += afterMs
          const reservation = quota.reserve(amount, now)
          const isNewEpoch = reservation.epoch > before.epoch
          const available = isNewEpoch ? (refill?.amount ?? 0) : before.remaining
          expect(reservation.granted).toBe(Math.min(amount, available))
          expect(reservation.remaining).toBe(available - reservation.granted)
          granted = (isNewEpoch ? 0 : granted) + reservation.granted
          expect(reservation.allotted).toBe(granted)
        }
      }),
    )
  })
})

describe('a refill', () => {
  const refill = { amount: 10, everyMs: 60_000 }

  it('does not come a millisecond early', () => {
    const quota = keep({ remaining: 0, refill })
    expect(quota.reserve(5, 59_999)).toMatchObject({ granted: 0, epoch: T0, nextRefillAt: at(60_000) })
    expect(quota.reserve(5, 60_000)).toMatchObject({ granted: 5, epoch: T0 + 1, nextRefillAt: at(120_000) })
  })

  it('tops up to its amount and adds nothing beyond it', () => {
    const quota = keep({ remaining: 7, refill })
    expect(quota.reserve(100, 60_000)).toMatchObject({ granted: 10, allotted: 10, remaining: 0 })
  })

  it('comes once, however often it is asked for', () => {
    const quota = keep({ remaining: 0, refill })
    const granted = [60_000, 60_000, 61_000, 119_999].map((ms) => quota.reserve(10, ms).granted)
    expect(granted).toEqual([10, 0, 0, 0])
    expect(quota.reserve(10, 120_000).granted).toBe(10)
  })

  it('counts once where several were missed, and stays in step', () => {
    const quota = keep({ remaining: 0, refill })
    expect(quota.reserve(100, 60_000 * 1_000 + 17)).toMatchObject({
      granted: 10,
      epoch: T0 + 1,
      nextRefillAt: at(60_000 * 1_001),
    })
  })

  it.each([10, 11, 1_000])('takes nothing away where %i remain, nor what was handed out', (remaining) => {
    const quota = keep({ remaining: remaining + 3, refill })
    quota.reserve(3, 0)
    // A new epoch would take back the units that limiters hold.
    expect(quota.reserve(0, 60_000)).toEqual({
      epoch: T0,
      allotted: 3,
      granted: 0,
      remaining,
      nextRefillAt: at(120_000),
    })
  })

  it('begins a new epoch, in which nothing is handed out yet', () => {
    const quota = keep({ remaining: 10, refill })
    quota.reserve(10, 0)
    expect(quota.reserve(0, 60_000)).toMatchObject({ epoch: T0 + 1, allotted: 0, remaining: 10 })
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
    expect(quota.reserve(9, due - 1).granted).toBe(0)
    expect(quota.reserve(9, due)).toMatchObject({ granted: 4, nextRefillAt: new Date(second) })
    expect(quota.reserve(9, due).granted).toBe(0)
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
    quota.reserve(5, 1_000)
    const { record } = quota
    const next = startQuota({ remaining: 5 }, record, at(ms))
    expect(next.epoch).toBeGreaterThan(record.epoch)
    expect(next).toMatchObject({ remaining: 5, allotted: 0 })
  })

  it('raises the epoch also where the quota was removed in between', () => {
    const quota = keep({ remaining: 0, refill: { amount: 1, everyMs: 1_000 } })
    // The fastest that epochs can rise by refills is one a second.
    for (let second = 1; second <= 100; second++) quota.reserve(1, second * 1_000)
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
    ['"quota.refill.timeZone" goes with "per"', refilled({ amount: 1, everyMs: 1_000, timeZone: 'UTC' })],
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
