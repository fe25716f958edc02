import { type ApiKeys, createApiKeys } from '../../core/api-keys.ts'
import type { ServiceRateLimit } from '../../core/limits/service-limits.ts'
import type { VerifiedKey } from '../../core/verify/verify-result.ts'
import { isLatchkeyError } from '../../errors.ts'
import { memoryStore } from '../../stores/memory.ts'
import { HOUR, type LimiterCases, type LimiterTest } from './limiter-test.ts'

/** Optional methods of a limiter: `settle`; `release` and `renew`. */
export type LimiterCapability = 'settle' | 'places'

const OWNER = { type: 'user', id: 'u_1' }
const NAME = { owner: OWNER, name: 'CI' }
const LIMITS: readonly ServiceRateLimit[] = [
  { name: 'key', limit: 5, windowMs: HOUR },
  { name: 'team', limit: 7, windowMs: HOUR, scope: 'owner' },
]

export const CORE_CASES: LimiterCases = {
  'verifies, limits and revokes keys in two processes': (test) =>
    withKeys(test, LIMITS, async ([here, there]) => {
      const { same } = test
      const { key, apiKey } = await here.issue(NAME)
      const sibling = await there.issue(NAME)
      for (const keys of [here, there, here, there, here]) {
        same((await keys.verify(key)).ok, true, 'a key verifies until a limit is used up')
      }
      const refused = await there.verify(key)
      same(!refused.ok && refused.code, 'rate_limited', 'a key is refused in every process at its limit')
      for (const keys of [here, there]) await keys.verify(sibling.key)
      const last = await here.verify(sibling.key)
      same(!last.ok && last.code, 'rate_limited', 'a key is refused at the limit of its owner')
      await here.revoke(apiKey.id)
      for (const keys of [here, there]) {
        const result = await keys.verify(key)
        same(!result.ok && result.code, 'invalid_key', 'a revoked key is refused in every process')
      }
    }),
}

export const CORE_SETTLE_CASES: LimiterCases = {
  'settles and refunds': (test) =>
    withKeys(test, LIMITS, async ([keys]) => {
      const { key } = await keys.issue(NAME)
      const result = (await keys.verify(key, { cost: 4 })) as VerifiedKey
      const stands = async () =>
        ((await keys.limits(result.apiKey.id)) ?? []).map(({ remaining }) => remaining)
      await keys.settle(result, 6)
      test.same(await stands(), [0, 1], '"settle" charges the key and its owner')
      await keys.settle(result, 1)
      test.same(await stands(), [4, 6], '"settle" gives back to the key and to its owner')
      test.same(await keys.refund(result), true, '"refund" gives back the rest')
      test.same(await stands(), [5, 7], '"refund" gives back the rest')
    }),
}

const PARALLEL: readonly ServiceRateLimit[] = [{ name: 'parallel', concurrent: 2 }]

export const CORE_PLACE_CASES: LimiterCases = {
  'releases places': (test) =>
    withKeys(test, PARALLEL, async ([here, there]) => {
      const { key } = await here.issue(NAME)
      const first = (await here.verify(key)) as VerifiedKey
      await there.verify(key)
      test.same((await here.verify(key)).ok, false, 'a call is refused if no place is free')
      test.same(await here.release(first), true, '"release" gives a place back')
      test.same((await there.verify(key)).ok, true, 'a place that was given back is free in every process')
    }),
}

/** The cases for a limiter without optional methods. */
export const MISSING_CASES: Readonly<Record<LimiterCapability, LimiterCases>> = {
  settle: {
    'createApiKeys refuses "settle" and "refund" as unsupported': (test) =>
      withKeys(test, LIMITS, async ([keys]) => {
        const { key } = await keys.issue(NAME)
        const result = (await keys.verify(key)) as VerifiedKey
        await isUnsupported(test, () => keys.settle(result, 2), '"settle" is refused rather than ignored')
        await isUnsupported(test, () => keys.refund(result), '"refund" is refused rather than ignored')
        test.same((await keys.verify(key)).ok, true, 'keys are limited without "settle"')
      }),
  },
  places: {
    'createApiKeys refuses limits with "concurrent" as unsupported': (test) =>
      withKeys(test, PARALLEL, async ([keys]) => {
        const { key } = await keys.issue(NAME)
        const promise = 'a limit that nobody can give places back to is refused rather than ignored'
        await isUnsupported(test, () => keys.verify(key), promise)
        const plain = await keys.issue({ ...NAME, rateLimits: [] })
        test.same((await keys.verify(plain.key)).ok, true, 'other keys are limited without "release"')
      }),
  },
}

/** Runs a case on two processes that share the store and the counts. */
async function withKeys(
  { limiter, peer, now, same }: LimiterTest,
  rateLimits: readonly ServiceRateLimit[],
  run: (processes: readonly [ApiKeys, ApiKeys]) => Promise<void>,
): Promise<void> {
  const store = memoryStore()
  const faults: string[] = []
  const clock = { now, setTimer: () => () => {} }
  const [here, there] = [limiter, peer].map((rateLimiter) =>
    createApiKeys({
      store,
      rateLimiter,
      rateLimits,
      prefix: 'acme',
      clock,
      onEvent(event) {
        if (event.type === 'fault') faults.push(`${event.operation}: ${event.error}`)
      },
    }),
  ) as [ApiKeys, ApiKeys]
  try {
    await run([here, there])
  } finally {
    await Promise.all([here.close(), there.close()])
  }
  same(faults, [], 'no call on a working limiter fails')
}

async function isUnsupported(
  { holds }: LimiterTest,
  work: () => Promise<unknown>,
  promise: string,
): Promise<void> {
  const [outcome] = await Promise.allSettled([work()])
  const reason: unknown = outcome.status === 'rejected' ? outcome.reason : undefined
  holds(isLatchkeyError(reason) && reason.code === 'unsupported', promise)
}
