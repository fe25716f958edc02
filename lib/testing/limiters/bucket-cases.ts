import { createRandom } from '../random.ts'
import {
  byKeyAndByOwner,
  type Call,
  DAY,
  HOUR,
  type LimiterCases,
  type LimiterTest,
  limitsOf,
  MINUTE,
  SECOND,
} from './limiter-test.ts'

/** A bucket that leaks one unit a second, unless another rate is given. */
const bucket = (burst: number, limit = 60) => limitsOf({ name: 'bucket', limit, windowMs: MINUTE, burst })

export const BUCKET_CASES: LimiterCases = {
  'admits its burst, and then what leaks': async ({ admits, refuses, drain, left, pass, same }) => {
    const limits = bucket(10)
    same(await drain({ limits }), 10, 'a bucket admits as many calls at once as its burst')
    await pass(3 * SECOND)
    same(await left({ limits }), [3], 'a bucket leaks "limit" units in "windowMs"')
    await refuses({ limits, cost: 4 }, 'a bucket admits no more than has leaked')
    await admits({ limits, cost: 3 }, 'a bucket admits what has leaked')
    await pass(DAY)
    same(await drain({ limits }), 10, 'a bucket never holds more than its burst')
  },

  'tells the exact wait': async ({ admits, refuses, pass, same }) => {
    const limits = bucket(7, 7)
    await admits({ limits, cost: 7 }, 'a call that fits is admitted')
    await pass(SECOND)
    const { retryAfterMs } = await refuses({ limits, cost: 3 }, 'a full bucket refuses')
    same(retryAfterMs, Math.ceil((3 * MINUTE) / 7) - SECOND, 'a refused call waits until its cost has leaked')
    await pass((retryAfterMs ?? 1) - 1)
    const early = await refuses({ limits, cost: 3 }, 'a bucket admits nothing before its cost has leaked')
    same(early.retryAfterMs, 1, 'a refused call waits until its cost has leaked')
    await pass(1)
    await admits({ limits, cost: 3 }, 'a call that has waited as told is admitted')
  },

  'admits what it says remains, and no more, though what leaks are fractions': async (test) => {
    const random = createRandom(1)
    for (let i = 0; i < 10; i++) {
      const call = { lineageId: `l${i}`, limits: bucket(1 + random.below(97), 1 + random.below(97)) }
      for (let step = 0; step < 8; step++) {
        const [remaining = 0] = await test.left(call)
        await test.refuses({ ...call, cost: remaining + 1 }, 'a bucket admits no more than it says remains')
        await test.admits({ ...call, cost: remaining }, 'a bucket admits what it says remains')
        await test.pass(1 + random.below(2 * SECOND))
      }
    }
  },

  'adds up fractions without an error': async (test) => {
    const limit = { name: 'bucket', limit: 6, windowMs: MINUTE, burst: 20 }
    for (const call of byKeyAndByOwner(limit)) await addsUpTenths(test, call)
  },

  'keeps what was used as its burst goes down and up again': async (test) => {
    const { admits, refuses, left, drain, same } = test
    await admits({ limits: bucket(50), cost: 49 }, 'a call that fits is admitted')
    for (let i = 0; i < 3; i++) {
      await refuses({ limits: bucket(1) }, 'what was used counts against a lower burst')
      same(await left({ limits: bucket(1) }), [0], 'nothing remains of a lower burst')
      same(await left({ limits: bucket(50) }), [1], 'no level is clamped to the burst of a reader')
    }
    same(await drain({ limits: bucket(50) }), 1, 'no level is clamped to the burst of a reader')
  },

  'keeps a debt until it is paid, and tells the true wait': async (test) => {
    const { admits, ask, refuses, pass, same } = test
    await admits({ limits: bucket(6_000), cost: 6_000 }, 'a call that fits is admitted')
    await pass(HOUR)
    const waitMs = (6_000 - 3_600 - 59) * SECOND
    const { retryAfterMs, limits } = await refuses({ limits: bucket(60) }, 'a debt is kept until it is paid')
    same(retryAfterMs, waitMs, 'a refused call waits until the debt is paid')
    same(limits[0]?.resetMs, waitMs, '"resetMs" is the time until "remaining" grows')
    await pass(waitMs - 1)
    await refuses({ limits: bucket(60) }, 'a debt is kept until it is paid')
    await pass(1)
    same((await ask({ limits: bucket(60) })).outcome, 'admitted', 'a debt that is paid is forgotten')
  },

  'is changed only by calls that it admits': async ({ admits, left, refuses, pass, same }) => {
    const [slow, fast] = [bucket(10, 10), bucket(10, 60_000)]
    await admits({ limits: slow, cost: 10 }, 'a call that fits is admitted')
    for (let i = 0; i < 10; i++) {
      await pass(3 * SECOND)
      await left({ limits: fast })
      await refuses({ limits: fast, cost: 11 }, 'more than the burst never fits')
    }
    same(await left({ limits: slow }), [5], 'looks and refusals at another rate leave the level as it is')
  },

  'leaks at a rate between those of its readers, if they differ': async (test) => {
    const random = createRandom(2)
    const readers = [bucket(1_000, 60), bucket(1_000, 240)]
    let [slow, fast] = [0, 0]
    for (let step = 0; step < 60; step++) {
      const [gap, cost, limits] = [random.below(5 * SECOND), random.below(12), random.of(readers)]
      await test.pass(gap)
      slow = Math.max(0, slow - gap / SECOND) + cost
      fast = Math.max(0, fast - (4 * gap) / SECOND) + cost
      await test.admits({ limits, cost }, 'a call that fits is admitted')
      const [left = 0] = await test.left({ limits })
      const isBetween = left >= Math.floor(1_000 - slow - 1e-6) && left <= Math.floor(1_000 - fast + 1e-6)
      test.holds(
        isBetween,
        'a bucket leaks no slower than its slowest reader says, and no faster than its fastest',
      )
    }
  },

  'gives nothing back and blocks nobody if the clock is set back': async (test) => {
    for (const call of byKeyAndByOwner({ name: 'bucket', limit: 60, windowMs: MINUTE, burst: 3 })) {
      await test.admits({ ...call, cost: 3 }, 'a call that fits is admitted')
      await test.pass(-DAY)
      const { retryAfterMs } = await test.refuses(call, 'a clock that is set back gives nothing back')
      test.same(retryAfterMs, SECOND, 'nobody waits for as long as the clock was wrong')
      await test.pass(3 * SECOND)
      await test.admits({ ...call, cost: 3 }, 'a bucket leaks though the clock was set back')
    }
  },
}

/** A tenth of a unit leaks in a second, and no sum of tenths is exact in binary. */
async function addsUpTenths({ admits, refuses, pass }: LimiterTest, call: Call): Promise<void> {
  const random = createRandom(3)
  let tenths = 0
  for (let step = 0; step < 60; step++) {
    const seconds = 1 + random.below(30)
    await pass(seconds * SECOND)
    tenths = Math.max(0, tenths - seconds)
    const free = Math.floor((200 - tenths) / 10)
    await refuses({ ...call, cost: free + 1 }, 'a bucket admits no more than what has leaked')
    await admits({ ...call, cost: free }, 'a sum such as 15.000000000000004 refuses no call that fits')
    tenths += 10 * free
  }
}
