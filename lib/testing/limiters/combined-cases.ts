import { DAY, HOUR, type LimiterCases, limitsOf, MINUTE, SECOND } from './limiter-test.ts'

const THREE = limitsOf(
  { name: 'minute', limit: 100, windowMs: MINUTE },
  { name: 'burst', limit: 10, windowMs: MINUTE, burst: 2 },
  { name: 'day', limit: 50, per: 'day' },
)
const TWO = limitsOf(
  { name: 'calls', limit: 10, windowMs: MINUTE },
  { name: 'tokens', limit: 100, windowMs: HOUR, only: 'named' },
)

export const COMBINED_CASES: LimiterCases = {
  'spends on all limits or on none': async ({ admits, refuses, left, same }) => {
    for (let i = 0; i < 2; i++) await admits({ limits: THREE }, 'a call that fits all limits is admitted')
    for (let i = 0; i < 5; i++) {
      const { limits } = await refuses({ limits: THREE }, 'one limit is enough to refuse a call')
      same(
        limits.map(({ remaining, exceeded }) => [remaining, exceeded]),
        [
          [98, false],
          [0, true],
          [48, false],
        ],
        'a refused call spends nothing, and says which limits refuse it',
      )
    }
    same(await left({ limits: THREE }), [98, 0, 48], 'a refused call spends nothing')
  },

  'waits for the slowest limit that refuses': async ({ admits, refuses, same }) => {
    const limits = limitsOf(
      { name: 'a', limit: 3, windowMs: 30 * SECOND },
      { name: 'b', limit: 3, windowMs: 50 * SECOND },
      { name: 'c', limit: 9, windowMs: DAY },
    )
    await admits({ limits, cost: 3 }, 'a call that fits all limits is admitted')
    const { retryAfterMs } = await refuses({ limits }, 'a call beyond a limit is refused')
    same(retryAfterMs, 50 * SECOND, '"retryAfterMs" is the longest wait of the limits that refuse')
  },

  'says that a cost never fits': async ({ refuses, same }) => {
    const never = async (cost: number) =>
      (await refuses({ limits: THREE, cost }, 'it is refused')).retryAfterMs
    same(await never(3), null, '"retryAfterMs" is null if the cost is more than the burst of a bucket')
    same(await never(101), null, '"retryAfterMs" is null if the cost is more than the number of a limit')
  },

  'admits a call without limits': async ({ admits, same }) => {
    same((await admits({}, 'a call without limits is admitted')).limits, [], 'it has no states')
  },

  'only looks if the cost is 0': async ({ admits, left, same }) => {
    same(await left({ limits: THREE }), [100, 2, 50], 'a look spends nothing')
    await admits({ limits: THREE, cost: 2 }, 'a call that fits all limits is admitted')
    for (let i = 0; i < 3; i++) same(await left({ limits: THREE }), [98, 0, 48], 'a look spends nothing')
  },

  'spends a cost for each limit': async ({ admits, refuses, left, same }) => {
    await admits({ limits: TWO, cost: 1, costs: [1, 60] }, 'a call that fits all limits is admitted')
    same(await left({ limits: TWO }), [9, 40], '"costs" are the units of each limit')
    const { limits } = await refuses({ limits: TWO, cost: 1, costs: [1, 41] }, 'it does not fit')
    const exceeded = limits.map((limit) => limit.exceeded)
    same(exceeded, [false, true], 'each limit is asked for its own cost')
    same(await left({ limits: TWO }), [9, 40], 'a refused call spends nothing')
  },

  'needs room for one unit where a named cost is 0': async ({ admits, refuses, left, same }) => {
    for (let i = 0; i < 3; i++) {
      await admits({ limits: TWO, cost: 1, costs: [1, 0] }, 'a named cost of 0 spends nothing')
    }
    same(await left({ limits: TWO }), [7, 100], 'a named cost of 0 spends nothing')
    await admits({ limits: TWO, cost: 1, costs: [1, 100] }, 'a call that fits all limits is admitted')
    const { retryAfterMs } = await refuses(
      { limits: TWO, cost: 0, costs: [0, 0] },
      'a named cost of 0 is refused if nothing is left: it is no look',
    )
    same(retryAfterMs, HOUR, 'it waits until there is room for one unit')
  },

  'counts as many limits as a key may have': async ({ admits, left, same }) => {
    const limits = limitsOf(
      ...Array.from({ length: 16 }, (_, i) => ({ name: `l${i}`, limit: 10 + i, windowMs: MINUTE + i })),
    )
    await admits({ limits, cost: 4 }, 'a call that fits all limits is admitted')
    const expected = limits.map(({ limit }) => limit - 4)
    same(await left({ limits }), expected, 'each of 16 limits is counted, and answered in order')
  },
}
