import { byKeyAndByOwner, DAY, HOUR, type LimiterCases, limitsOf, MINUTE } from './limiter-test.ts'

const window = (limit: number, windowMs = MINUTE) => limitsOf({ name: 'window', limit, windowMs })

export const WINDOW_CASES: LimiterCases = {
  'opens with the first call, and ends to the millisecond': async (test) => {
    const { admits, refuses, left, pass, same } = test
    const limits = window(3)
    await admits({ limits, cost: 2 }, 'a call that fits is admitted')
    await pass(MINUTE / 2)
    await admits({ limits }, 'a call that fits is admitted')
    const { retryAfterMs } = await refuses({ limits }, 'a call beyond the limit is refused')
    same(retryAfterMs, MINUTE / 2, 'a refused call waits until the window ends')
    await pass(MINUTE / 2 - 1)
    await refuses({ limits }, 'a window lasts until the last millisecond')
    await pass(1)
    same(await left({ limits }), [3], 'an ended window counts nothing')
    await admits({ limits, cost: 3 }, 'the next call opens a new window')
  },

  'is not opened by a call that only looks, or that is refused': async (test) => {
    const { admits, refuses, left, pass, same } = test
    const limits = window(3)
    await left({ limits })
    await refuses({ limits, cost: 4 }, 'a call beyond the limit is refused')
    await pass(MINUTE / 2)
    await admits({ limits, cost: 3 }, 'a call that fits is admitted')
    await pass(MINUTE / 2)
    const { retryAfterMs } = await refuses({ limits }, 'only a call that spends opens a window')
    same(retryAfterMs, MINUTE / 2, 'only a call that spends opens a window')
  },

  'keeps what was used as its number goes down and up again': async (test) => {
    const { admits, refuses, left, same } = test
    await admits({ limits: window(50), cost: 49 }, 'a call that fits is admitted')
    for (let i = 0; i < 3; i++) {
      await refuses({ limits: window(1) }, 'what was used counts against a lower number')
      same(await left({ limits: window(1) }), [0], 'nothing remains of a lower number')
      same(await left({ limits: window(50) }), [1], 'a change of the number changes nothing that was used')
    }
  },

  'counts a limit of the same name and another length by itself': async ({ drain, same }) => {
    const counted = [await drain({ limits: window(3) }), await drain({ limits: window(3, HOUR) })]
    same(counted, [3, 3], 'a limit with another window has another "shape" and counts by itself')
    same(await drain({ limits: window(3) }), 0, 'and neither restarts the count of the other')
  },

  'counts all keys of a lineage together, and no others': async ({ admits, refuses }) => {
    const limits = window(3)
    for (const keyId of ['a', 'b', 'c']) await admits({ keyId, limits }, 'a call that fits is admitted')
    await refuses({ keyId: 'd', limits }, 'the keys of a lineage share their counts')
    await admits({ lineageId: 'other', limits }, 'lineages count apart')
  },

  'counts units beyond 32 bits, and for years': async ({ admits, refuses, left, pass, same }) => {
    const limits = window(1_000_000_000_000, 1_000 * DAY)
    await admits({ limits, cost: 999_999_999_999 }, 'a call that fits is admitted')
    await pass(1_000 * DAY - 1)
    same(await left({ limits }), [1], 'a window counts every unit until it ends')
    await refuses({ limits, cost: 2 }, 'a window counts every unit until it ends')
    await pass(1)
    await admits({ limits, cost: 2 }, 'a window ends')
  },

  'lasts no longer than its length if the clock is set back': async (test) => {
    for (const call of byKeyAndByOwner({ name: 'window', limit: 3, windowMs: MINUTE })) {
      await test.admits({ ...call, cost: 3 }, 'a call that fits is admitted')
      await test.pass(-DAY)
      const { retryAfterMs } = await test.refuses(call, 'a clock that is set back gives nothing back')
      const isBounded = retryAfterMs !== null && retryAfterMs <= MINUTE
      test.holds(isBounded, 'nobody waits for as long as the clock was wrong')
      await test.pass(MINUTE)
      await test.admits({ ...call, cost: 3 }, 'a window lasts no longer than its length')
    }
  },
}
