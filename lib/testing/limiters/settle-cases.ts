import {
  type Call,
  HOUR,
  type LimiterCases,
  type LimiterTest,
  limitsOf,
  MINUTE,
  SECOND,
} from './limiter-test.ts'

const WINDOW = limitsOf({ name: 'window', limit: 10, windowMs: MINUTE })
const BUCKET = limitsOf({ name: 'bucket', limit: 60, windowMs: MINUTE, burst: 10 })

/** A call of this cost that is admitted; returns when it was charged. */
async function spend({ admits, now }: LimiterTest, call: Call): Promise<number> {
  const { chargedAt } = await admits(call, 'a call that fits is admitted')
  return chargedAt ?? now()
}

export const SETTLE_CASES: LimiterCases = {
  'gives back, and charges more': async (test) => {
    const { settle, left, same } = test
    const chargedAt = await spend(test, { limits: WINDOW, cost: 6 })
    const lower = await settle({ limits: WINDOW, units: -4, chargedAt })
    same(lower.made, [[4]], '"made" says how many units were given back')
    same(lower.limits[0]?.remaining, 8, 'the answer says how the limits stand')
    same(await left({ limits: WINDOW }), [8], 'units that are given back can be spent again')
    const higher = await settle({ limits: WINDOW, units: 3 })
    same(higher.made, [[3]], '"made" says how many units were charged')
    same(await left({ limits: WINDOW }), [5], 'more is charged')
  },

  'charges beyond the limit, and refuses until there is room again': async (test) => {
    const { settle, left, refuses, admits, pass, same } = test
    await spend(test, { limits: WINDOW, cost: 6 })
    await pass(20 * SECOND)
    same((await settle({ limits: WINDOW, units: 30 })).made, [[30]], 'more is charged beyond the limit')
    same(await left({ limits: WINDOW }), [0], 'nothing remains of a limit that is overdrawn')
    const { retryAfterMs } = await refuses({ limits: WINDOW }, 'a key that has overdrawn is refused')
    same(retryAfterMs, 40 * SECOND, 'the debt of a window ends with the window')
    await pass(40 * SECOND)
    await admits({ limits: WINDOW, cost: 10 }, 'the debt of a window ends with the window')
  },

  'lets a bucket pay its debt, however long that takes': async (test) => {
    const { settle, refuses, admits, pass, same } = test
    await spend(test, { limits: BUCKET, cost: 10 })
    await settle({ limits: BUCKET, units: 3_600 })
    const { retryAfterMs, limits } = await refuses({ limits: BUCKET }, 'a key that has overdrawn is refused')
    same(retryAfterMs, 3_601 * SECOND, 'a refused call waits until the debt is paid')
    same(limits[0]?.resetMs, 3_601 * SECOND, '"resetMs" is the time until "remaining" grows')
    await pass(HOUR)
    const later = await refuses({ limits: BUCKET }, 'a debt is kept until it is paid')
    same(later.retryAfterMs, SECOND, 'a debt leaks at the rate of the bucket, whatever its burst')
    await pass(SECOND)
    await admits({ limits: BUCKET }, 'a debt that is paid is forgotten')
  },

  'gives back to a bucket only what cannot have leaked since': async (test) => {
    const { settle, left, pass, same } = test
    const chargedAt = await spend(test, { limits: BUCKET, cost: 6 })
    await pass(2 * SECOND)
    await spend(test, { limits: BUCKET, cost: 5 })
    same(await left({ limits: BUCKET }), [1], 'a bucket leaks')
    const { made } = await settle({ limits: BUCKET, units: -6, chargedAt })
    same(made.flat().map(Math.round), [4], '"made" says how much was given back')
    same(await left({ limits: BUCKET }), [5], 'what has leaked is not given back once more')
  },

  'gives nothing back to a period that has ended, and charges the current one': async (test) => {
    const { settle, left, pass, same } = test
    const day = limitsOf({ name: 'day', limit: 10, per: 'day' })
    for (const [limits, lengthMs] of [
      [WINDOW, MINUTE],
      [day, 24 * HOUR],
    ] as const) {
      const chargedAt = await spend(test, { limits, cost: 4 })
      await pass(lengthMs)
      same((await settle({ limits, units: -4, chargedAt })).made, [[0]], 'an ended period takes nothing back')
      same(await left({ limits }), [10], 'a give-back that comes late opens no period')
      await spend(test, { limits, cost: 3 })
      same((await settle({ limits, units: -4, chargedAt })).made, [[0]], 'an ended period takes nothing back')
      same(await left({ limits }), [7], 'units of an ended period do not come back in another')
      await settle({ limits, units: 2 })
      same(await left({ limits }), [5], 'more is charged to the current period')
    }
  },

  'makes a change with the same name once': async (test) => {
    const { answersLater, settle, left, peer, pass, same } = test
    const chargedAt = await spend(test, { limits: WINDOW, cost: 6 })
    await pass(20 * SECOND)
    const lower = { id: 'lower', limits: WINDOW, units: -2, chargedAt }
    const first = await settle(lower)
    same(await left({ limits: WINDOW }), [6], 'less is given back')
    // An answer that comes at once cannot be lost, so nobody makes such a change again.
    if (!(await answersLater())) return
    // The second time, another window has begun.
    for (const [by, remaining] of [
      [test.limiter, 6],
      [peer, 10],
    ] as const) {
      await pass(25 * SECOND)
      const again = await settle(lower, by)
      same(again.made, first.made, 'a change that was made before answers what it did')
      same(again.settledAt, first.settledAt, 'a change that was made before answers when that was')
      same(await left({ limits: WINDOW }), [remaining], 'a change with the same name is made once')
    }
    const other = await spend(test, { limits: WINDOW, cost: 6 })
    await settle({ ...lower, id: 'another', chargedAt: other })
    same(await left({ limits: WINDOW }), [6], 'a change with another name is another change')
  },

  'makes several changes of several limits': async (test) => {
    const { settle, left, same } = test
    const limits = [...WINDOW, ...BUCKET]
    const chargedAt = await spend(test, { limits, cost: 1, costs: [5, 2] })
    const changes = [
      [
        { units: -1, chargedAt },
        { units: -2, chargedAt },
      ],
      [{ units: 4, chargedAt: 0 }],
    ]
    same((await settle({ limits, changes })).made, [[1, 2], [4]], '"made" has a number for each change')
    same(await left({ limits }), [8, 4], 'each limit is changed by its own changes')
    same((await settle({ limits, changes: [[], []] })).made, [[], []], 'a limit without changes stays')
    same(await left({ limits }), [8, 4], 'a limit without changes stays')
  },

  'charges a limit that has counted nothing yet': async ({ settle, left, same }) => {
    await settle({ limits: WINDOW, lineageId: 'new', units: 4 })
    same(await left({ limits: WINDOW, lineageId: 'new' }), [6], 'a settlement may open a window')
    await settle({ limits: WINDOW, lineageId: 'nobody', units: -4 })
    same(await left({ limits: WINDOW, lineageId: 'nobody' }), [10], 'nothing is given back to nobody')
  },

  'settles for the owner': async (test) => {
    const { settle, refuses, left, same } = test
    const owner = '4:user:u_1'
    const limits = limitsOf(
      { name: 'own', limit: 50, windowMs: MINUTE },
      { name: 'team', limit: 10, windowMs: MINUTE, scope: 'owner' },
    )
    const [one, two] = ['one', 'two'].map((lineageId) => ({ lineageId, owner, limits })) as [Call, Call]
    const chargedAt = await spend(test, { ...one, cost: 4 })
    await settle({ limits, lineageId: 'one', owner, units: 20 }, test.peer)
    same(await left(one), [26, 0], 'a settlement is charged to the key and to its owner')
    await refuses(two, "a key is refused if its sibling has overdrawn the owner's limit")
    await settle({ limits, lineageId: 'one', owner, units: -20, chargedAt })
    same(await left(two), [50, 6], 'units that are given back can be spent by every key of the owner')
  },
}
