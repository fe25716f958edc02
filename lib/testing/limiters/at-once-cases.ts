import { atOnce } from '../store-test.ts'
import { type Call, HOUR, type LimiterCases, type LimiterTest, limitsOf } from './limiter-test.ts'

const EXACTLY = 'of 50 calls at once by two processes, exactly as many are admitted as fit'

export const AT_ONCE_CASES: LimiterCases = {
  'admits exactly the number of a window': (test) =>
    admitsExactly(test, 20, () => ({ limits: limitsOf({ name: 'window', limit: 20, windowMs: HOUR }) })),

  'admits exactly the burst of a bucket': (test) =>
    admitsExactly(test, 20, () => ({
      limits: limitsOf({ name: 'bucket', limit: 1, windowMs: HOUR, burst: 20 }),
    })),

  'admits exactly the number of a day': (test) =>
    admitsExactly(test, 20, () => ({ limits: limitsOf({ name: 'day', limit: 20, per: 'day' }) })),

  'admits exactly the number of an owner, over many keys': (test) => {
    const limits = limitsOf(
      { name: 'own', limit: 9, windowMs: HOUR },
      { name: 'team', limit: 20, windowMs: HOUR, scope: 'owner' },
    )
    return admitsExactly(test, 20, (i) => ({ lineageId: `l${i % 10}`, owner: '4:user:u_1', limits }))
  },

  'admits exactly what each of several limits allows': (test) => {
    const limits = limitsOf(
      { name: 'wide', limit: 100, windowMs: HOUR },
      { name: 'narrow', limit: 21, windowMs: HOUR },
      { name: 'bucket', limit: 1, windowMs: HOUR, burst: 40 },
    )
    return admitsExactly(test, 7, () => ({ limits, cost: 3 }), [100 - 21, 0, 40 - 21])
  },
}

/** What is asked at once may come in any order: the kit checks what was admitted, and what remains after it. */
async function admitsExactly(
  { limiter, peer, ask, left, same }: LimiterTest,
  count: number,
  callOf: (i: number) => Call & { limits: Call['limits'] },
  remaining?: readonly number[],
): Promise<void> {
  const answers = await atOnce(50, (i) => ask(callOf(i), i % 2 ? peer : limiter))
  same(answers.filter(({ outcome }) => outcome === 'admitted').length, count, EXACTLY)
  const look = await left(callOf(0), peer)
  if (remaining) same(look, remaining, 'nothing is counted twice, and nothing is lost')
  else same(look.at(-1), 0, 'nothing is counted twice, and nothing is lost')
}
