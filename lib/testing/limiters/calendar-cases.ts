import {
  byKeyAndByOwner,
  DAY,
  HOUR,
  type LimiterCases,
  type LimiterTest,
  limitsOf,
  MINUTE,
} from './limiter-test.ts'

const day = (limit: number, timeZone?: string) =>
  limitsOf({ name: 'day', limit, per: 'day', ...(timeZone && { timeZone }) })

export const CALENDAR_CASES: LimiterCases = {
  'begins at midnight in its time zone, and ends at the next': async (test) => {
    const zones = [
      [day(2), 0],
      [day(2, '+05:30'), 18.5 * HOUR],
      [day(2, 'Asia/Tokyo'), 15 * HOUR],
      [day(2, '-03:00'), 3 * HOUR],
    ] as const
    for (const [limits, midnight] of zones) {
      const call = { lineageId: `l${midnight}`, limits }
      await passUntil(test, (at) => at % DAY === midnight)
      await test.pass(HOUR)
      await test.admits(call, 'a call that fits is admitted')
      await test.pass(22 * HOUR)
      await test.admits(call, 'a call that fits is admitted')
      const { retryAfterMs } = await test.refuses(call, 'a day lasts until midnight in its time zone')
      test.same(retryAfterMs, HOUR, 'a refused call waits until midnight in the time zone of the limit')
      await test.pass(HOUR - 1)
      await test.refuses(call, 'a day lasts until the last millisecond')
      await test.pass(1)
      await test.admits({ ...call, cost: 2 }, 'a new day begins at midnight in the time zone of the limit')
    }
  },

  'has days of 23 and of 25 hours where clocks change': async (test) => {
    const limits = day(2, 'Europe/Berlin')
    for (const [month, hours] of [
      [2, 23],
      [9, 25],
    ] as const) {
      const call = { lineageId: `l${hours}`, limits }
      // An hour before the midnight with which the last Sunday of the month begins.
      await passUntil(test, (at) => at === lastSunday(at, month) - (month === 2 ? 2 : 3) * HOUR)
      await test.admits({ ...call, cost: 2 }, 'a call that fits is admitted')
      await test.pass(HOUR)
      const { limits: states } = await test.admits({ ...call, cost: 2 }, 'a new day begins at midnight')
      const lengthMs = hours * HOUR
      test.same(states[0]?.windowMs, lengthMs, '"windowMs" is the length of this day')
      const refused = await test.refuses(call, 'a call beyond the limit is refused')
      test.same(refused.retryAfterMs, lengthMs, 'a day on which clocks change is shorter or longer')
      await test.pass(lengthMs - 1)
      await test.refuses(call, 'a day lasts until the last millisecond')
      await test.pass(1)
      await test.admits(call, 'a new day begins at midnight')
    }
  },

  'has months as long as they are': async (test) => {
    const limits = limitsOf({ name: 'month', limit: 9, per: 'month' })
    await passUntil(test, (at) => new Date(at).getUTCDate() === 1 && at % DAY === 0)
    for (let i = 0; i < 12; i++) {
      const start = new Date(test.now())
      const lengthMs = Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1) - test.now()
      await test.admits({ limits, cost: 9 }, 'a new month begins on its first day')
      await test.pass(lengthMs - 1)
      const { retryAfterMs, limits: states } = await test.refuses(
        { limits },
        'a month lasts until its last day',
      )
      test.same(retryAfterMs, 1, 'a refused call waits until the month ends')
      test.same(states[0]?.windowMs, lengthMs, '"windowMs" is the length of this month')
      await test.pass(1)
    }
  },

  'keeps what was used as its number goes down and up again': async ({ admits, refuses, left, same }) => {
    await admits({ limits: day(50), cost: 49 }, 'a call that fits is admitted')
    await refuses({ limits: day(1) }, 'what was used counts against a lower number')
    same(await left({ limits: day(1) }), [0], 'nothing remains of a lower number')
    same(await left({ limits: day(50) }), [1], 'a change of the number changes nothing that was used')
  },

  'counts each time zone by itself': async ({ drain, same }) => {
    const counted = [await drain({ limits: day(3) }), await drain({ limits: day(3, 'Europe/Berlin') })]
    same(counted, [3, 3], 'a limit in another time zone has another "shape" and counts by itself')
  },

  'gives nothing back and blocks nobody if the clock is set back into another day': async (test) => {
    for (const call of byKeyAndByOwner({ name: 'day', limit: 3, per: 'day' })) {
      await passUntil(test, (at) => at % DAY === 12 * HOUR)
      await test.admits({ ...call, cost: 3 }, 'a call that fits is admitted')
      await test.pass(-2 * DAY)
      const { retryAfterMs } = await test.refuses(call, 'a clock that is set back gives nothing back')
      test.same(retryAfterMs, 12 * HOUR, 'nobody waits for as long as the clock was wrong')
      await test.pass(12 * HOUR)
      await test.admits({ ...call, cost: 3 }, 'a day ends at its midnight')
    }
  },
}

/** Moves the time to the next moment that is wanted, of those at which a quarter of an hour begins. */
async function passUntil(test: LimiterTest, isWanted: (at: number) => boolean): Promise<void> {
  const QUARTER = 15 * MINUTE
  let at = Math.ceil(test.now() / QUARTER) * QUARTER
  while (!isWanted(at)) at += QUARTER
  await test.pass(at - test.now())
}

/** When the last Sunday of a month begins in UTC, in the year of a moment: clocks in Europe change that day. */
export function lastSunday(at: number, month: number): number {
  const last = new Date(Date.UTC(new Date(at).getUTCFullYear(), month + 1, 0))
  return last.getTime() - last.getUTCDay() * DAY
}
