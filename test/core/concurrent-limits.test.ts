import {
  type ApiKeys,
  type Cost,
  createApiKeys,
  type IssueOptions,
  memoryRateLimiter,
  memoryStore,
  type RateLimit,
  type RateLimiter,
  type ServiceRateLimit,
} from 'latchkey'
import { describe, expect, it } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { issueKey } from '../support/issue-key.ts'
import { createTestKeys } from '../support/test-keys.ts'

const PARALLEL: RateLimit = { name: 'parallel', concurrent: 2, maxHeldMs: 10_000 }
const MINUTE: RateLimit = { name: 'minute', limit: 3, windowMs: 60_000 }

async function setUp(rateLimits: ServiceRateLimit[], given: Partial<IssueOptions> = {}) {
  const test = createTestKeys({ rateLimits })
  const { key, apiKey } = await issueKey(test.keys, given)
  const ask = (cost?: Cost) => test.keys.verify(key, cost === undefined ? {} : { cost })
  const take = async (cost?: Cost) => {
    const result = await ask(cost)
    if (!result.ok) throw new Error(`refused as ${result.code}`)
    return result
  }
  const free = async (name = 'parallel') =>
    (await test.keys.limits(apiKey.id))?.find((limit) => limit.name === name)?.remaining
  return { ...test, key, apiKey, ask, take, free }
}

describe('a limit on calls under way that is wrong', () => {
  it.each<[string, object, string]>([
    ['of no place', { concurrent: 0 }, '.concurrent" must be'],
    ['of a fraction', { concurrent: 1.5 }, '.concurrent" must be'],
    ['of a text', { concurrent: '2' }, '.concurrent" must be'],
    ['of too many places', { concurrent: 10_001 }, '.concurrent" must be'],
    ['held too briefly', { concurrent: 2, maxHeldMs: 999 }, '.maxHeldMs" must be'],
    ['held too long', { concurrent: 2, maxHeldMs: 3_600_001 }, '.maxHeldMs" must be'],
    ['with a number of units', { concurrent: 2, limit: 5 }, '.limit" cannot be combined with "concurrent"'],
    ['with a window', { concurrent: 2, windowMs: 5 }, '.windowMs" cannot be combined with "concurrent"'],
    ['with a burst', { concurrent: 2, burst: 5 }, '.burst" cannot be combined with "concurrent"'],
    ['with a period', { concurrent: 2, per: 'day' }, '.per" cannot be combined with "concurrent"'],
    ['held, but a window', { limit: 2, windowMs: 1_000, maxHeldMs: 5_000 }, 'allowed only with "concurrent"'],
  ])('is a mistake: %s', async (_what, members, message) => {
    const limit = { name: 'parallel', ...members } as RateLimit
    expect(() => createTestKeys({ rateLimits: [limit] })).toThrow(message)
    const { keys } = createTestKeys()
    await expect(issueKey(keys, { rateLimits: [limit] })).rejects.toThrow(message)
  })

  it('is a fault where the limiter cannot give places back', async () => {
    const { release: _none, ...rateLimiter } = memoryRateLimiter()
    const { keys } = createTestKeys({ rateLimiter, rateLimits: [PARALLEL] })
    const { key } = await issueKey(keys)
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unsupported' })
  })
})

describe('a limit on calls under way', () => {
  it('refuses a call too many, and asks to come again in a second', async () => {
    const { ask, take } = await setUp([PARALLEL])
    await take()
    await take()
    expect(await ask()).toMatchObject({
      code: 'rate_limited',
      retryAfterMs: 1_000,
      limits: [
        { type: 'concurrent', name: 'parallel', limit: 2, remaining: 0, exceeded: true, resetMs: null },
      ],
    })
  })

  it('lets the next one in once a place is given back', async () => {
    const { keys, ask, take } = await setUp([PARALLEL])
    const [first] = [await take(), await take()]
    expect(await keys.release(first)).toBe(true)
    expect(await ask()).toMatchObject({ ok: true, limits: [{ remaining: 0 }] })
    expect(await ask()).toMatchObject({ ok: false })
  })

  it('gives a place back only once, also if asked twice at once', async () => {
    const { keys, take, free } = await setUp([PARALLEL])
    const [first] = [await take(), await take()]
    const answers = await Promise.all([keys.release(first), keys.release(first)])
    expect(answers.sort()).toEqual([false, true])
    expect(await keys.release(first)).toBe(false)
    expect(await free()).toBe(1)
  })

  it('gives back nothing for what it has not admitted', async () => {
    const { keys, take, apiKey, free } = await setUp([PARALLEL])
    const result = await take()
    const copy = { ok: true as const, apiKey, limits: result.limits }
    await expect(keys.release(copy)).rejects.toThrow(TypeError)
    const other = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'x' })
    await expect(other.release(result)).rejects.toThrow(TypeError)
    expect(await free()).toBe(1)
    expect(keys.keep(copy)).toBe(false)
  })

  it('spends nothing of other limits when it refuses, and takes no place when they do', async () => {
    const { keys, ask, take, free } = await setUp([PARALLEL, MINUTE])
    const first = await take()
    await take()
    expect(await ask()).toMatchObject({ ok: false, limits: [{ name: 'minute', exceeded: false }, {}] })
    await keys.release(first)
    await keys.release(await take())
    expect(await free('minute')).toBe(0)
    expect(await ask()).toMatchObject({
      code: 'rate_limited',
      limits: [
        { name: 'minute', exceeded: true },
        { name: 'parallel', exceeded: false },
      ],
    })
    expect(await free()).toBe(1)
  })

  it('puts back what a refused call would have cost of the quota', async () => {
    const { ask, take, free } = await setUp([{ ...PARALLEL, concurrent: 1 } as RateLimit], {
      quota: { remaining: 5 },
    })
    await take(2)
    expect(await ask(2)).toMatchObject({ code: 'rate_limited' })
    expect(await free('quota')).toBe(3)
  })

  it('takes no place when the quota refuses', async () => {
    const { ask, free } = await setUp([PARALLEL], { quota: { remaining: 0 } })
    expect(await ask()).toMatchObject({ code: 'quota_exceeded' })
    expect(await free()).toBe(2)
  })

  it('takes one place whatever a call costs, and none if it only looks', async () => {
    const { ask, take, free } = await setUp([PARALLEL])
    await take(50)
    expect(await free()).toBe(1)
    await take(1)
    expect(await ask(0)).toMatchObject({ ok: true, limits: [{ name: 'parallel', remaining: 0 }] })
    expect(await free()).toBe(0)
  })

  it('counts only what names it, if it says so', async () => {
    const { ask, take, free } = await setUp([{ ...PARALLEL, name: 'exports', concurrent: 1, only: 'named' }])
    await take()
    expect(await free('exports')).toBe(1)
    await take({ exports: 1 })
    expect(await ask({ exports: 1 })).toMatchObject({ code: 'rate_limited' })
    expect(await ask()).toMatchObject({ ok: true, limits: [] })
    expect(await ask({ exports: 0 })).toMatchObject({ ok: true, limits: [] })
    await expect(ask({ exports: 2 })).rejects.toThrow('"cost.exports" must be 0 or 1')
  })

  it('spares a call that names it with 0', async () => {
    const { take, free } = await setUp([PARALLEL, MINUTE])
    await take({ parallel: 0 })
    expect(await free()).toBe(2)
    expect(await free('minute')).toBe(2)
  })

  it('is none of what settling changes', async () => {
    const { keys, take, free } = await setUp([PARALLEL, MINUTE])
    const result = await take()
    expect(await keys.settle(result, { minute: 2 })).toMatchObject([{ name: 'minute', remaining: 1 }])
    await expect(keys.settle(result, { parallel: 0 })).rejects.toThrow('"cost.parallel" must be a limit that')
    expect(await keys.refund(result)).toBe(true)
    expect(await free()).toBe(1)
  })

  it('counts the keys of an owner together, whatever limits they have', async () => {
    const { keys, take, ask } = await setUp([{ ...PARALLEL, scope: 'owner' }])
    const { key } = await issueKey(keys, { rateLimits: [] })
    const first = await take()
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(await ask()).toMatchObject({ code: 'rate_limited' })
    expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited' })
    await keys.release(first)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('counts a key together with its successor', async () => {
    const { keys, apiKey, take } = await setUp([PARALLEL])
    await take()
    await take()
    const { key } = await keys.rotate(apiKey.id)
    expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited' })
  })
})

describe('a place that nobody gives back', () => {
  it('comes free after maxHeldMs, not before', async () => {
    const { clock, ask, take } = await setUp([PARALLEL])
    await take()
    await take()
    await clock.advance(9_999)
    expect(await ask()).toMatchObject({ ok: false })
    await clock.advance(1)
    expect(await ask()).toMatchObject({ ok: true })
    expect(await ask()).toMatchObject({ ok: true })
    expect(await ask()).toMatchObject({ ok: false })
  })

  it('is kept as long as somebody wants it, and comes free then', async () => {
    const { keys, clock, ask, take } = await setUp([PARALLEL])
    const [first, second] = [await take(), await take()]
    expect(keys.keep(first)).toBe(true)
    expect(keys.keep(second)).toBe(true)
    for (let i = 0; i < 10; i++) await clock.advance(5_000)
    expect(await ask()).toMatchObject({ ok: false })
    await keys.release(first)
    expect(keys.keep(first)).toBe(false)
    expect(await ask()).toMatchObject({ ok: true })
    await keys.release(second)
  })

  it('is kept no longer once other keys on the same limiter have given it back', async () => {
    const { keys, clock, limiter, store, take, free } = await setUp([PARALLEL])
    const others = [1, 2].map(() =>
      createApiKeys({ store, rateLimiter: limiter, clock, prefix: 'acme_test', rateLimits: [PARALLEL] }),
    ) as [ApiKeys, ApiKeys]
    const result = await take()
    for (const some of [keys, others[0]]) expect(some.keep(result)).toBe(true)
    expect(await others[1].release(result)).toBe(true)
    expect(await keys.release(result)).toBe(false)
    await clock.advance(10_000)
    expect(await free()).toBe(2)
  })

  it('is no longer kept after close', async () => {
    const { keys, clock, limiter, store, key, take } = await setUp([PARALLEL])
    const first = await take()
    keys.keep(first)
    keys.keep(await take())
    await keys.close()
    const next = createApiKeys({
      store,
      rateLimiter: limiter,
      clock,
      prefix: 'acme_test',
      rateLimits: [PARALLEL],
    })
    expect(await next.verify(key)).toMatchObject({ ok: false })
    expect(await keys.release(first)).toBe(true)
    expect(await next.verify(key)).toMatchObject({ ok: true })
    await clock.advance(10_000)
    expect(await next.verify(key)).toMatchObject({ ok: true })
  })
})

describe('a place whose taking has no answer', () => {
  /** A limiter that fails, and takes the places all the same, so many milliseconds later. */
  async function setUpLate(lateMs: number) {
    const clock = fakeClock()
    const limiter = memoryRateLimiter({ clock })
    let fails = false
    const rateLimiter: RateLimiter = {
      ...limiter,
      check(request) {
        if (!fails || request.cost === 0) return limiter.check(request)
        clock.setTimer(() => void limiter.check(request), lateMs)
        return Promise.reject(new Error('connection lost'))
      },
    }
    const { keys } = createTestKeys({ clock, rateLimiter, rateLimits: [PARALLEL] })
    const { key, apiKey } = await issueKey(keys)
    await keys.verify(key, { cost: 0 })
    fails = true
    const free = async () => (await keys.limits(apiKey.id))?.[0]?.remaining
    return { keys, key, clock, free }
  }

  it.each([0, 500, 1_900])('comes back, even if it is taken %d ms later', async (lateMs) => {
    const { keys, key, clock, free } = await setUpLate(lateMs)
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    await clock.advance(lateMs)
    expect(await free()).toBe(1)
    for (let i = 0; i < 4; i++) await clock.advance(1_000)
    expect(await free()).toBe(2)
  })
})
