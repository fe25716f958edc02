import {
  type ApiKeys,
  type Cost,
  type IssueOptions,
  memoryRateLimiter,
  type RateLimit,
  type RateLimiter,
  type VerifiedKey,
} from 'latchkey'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { SettleAnswer, SettleRequest } from '../../lib/core/limits/rate-limiter.ts'
import { fakeClock } from '../support/fake-clock.ts'
import { issueKey } from '../support/issue-key.ts'
import { createTestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const MINUTE: RateLimit = { name: 'minute', limit: 10, windowMs: 60_000 }
const TOKENS: RateLimit = { name: 'tokens', limit: 1_000, windowMs: 60_000, only: 'named' }
const EXPORTS: RateLimit = { name: 'exports', limit: 2, per: 'day', only: 'named' }
const BUCKET: RateLimit = { name: 'bucket', limit: 60, windowMs: 60_000, burst: 60 }
const TOKENS_BUCKET: RateLimit = {
  name: 'tokens',
  limit: 1_000,
  windowMs: 60_000,
  burst: 1_000,
  only: 'named',
}
const DAY_MS = 86_400_000
const DAILY = { rateLimits: [{ name: 'tokens', limit: 10_000, per: 'month', only: 'named' }] as const }
const ALL = [MINUTE, TOKENS, EXPORTS]

async function admit(keys: ApiKeys, key: string, cost: Cost = 1): Promise<VerifiedKey> {
  const result = await keys.verify(key, { cost })
  if (!result.ok) throw new Error(`refused as ${result.code}`)
  return result
}

/** A key that has made a call. */
async function call(cost: Cost, given: Partial<IssueOptions> = {}, rateLimiter?: RateLimiter) {
  const test = createTestKeys({ rateLimits: ALL, ...(rateLimiter && { rateLimiter }) })
  const { key, apiKey } = await issueKey(test.keys, given)
  const result = await admit(test.keys, key, cost)
  async function left(): Promise<Record<string, number>> {
    const { limits } = await admit(test.keys, key, 0)
    return Object.fromEntries(limits.map(({ name, remaining }) => [name, remaining]))
  }
  return {
    ...test,
    key,
    apiKey,
    result,
    left,
    ask: (asked?: Cost) => test.keys.verify(key, asked === undefined ? {} : { cost: asked }),
    settle: (settled: Cost) => test.keys.settle(result, settled),
  }
}

describe('a settlement that is wrong', () => {
  it.each<[string, unknown, string]>([
    ['below zero', -1, '"cost" must be a'],
    ['a fraction', { tokens: 1.5 }, '"cost.tokens" must be a'],
    ['a text', '5', '"cost" must be an integer'],
    ['of a limit that nobody has', { token: 5 }, '"cost" names the limit "token"'],
    [
      'of a limit that the call did not name',
      { tokens: 5, exports: 1 },
      '"cost.exports" must be a limit that the call',
    ],
  ])('changes nothing: %s', async (_what, cost, message) => {
    const { settle, left } = await call({ tokens: 100 })
    await expect(settle(cost as Cost)).rejects.toThrow(TypeError)
    await expect(settle(cost as Cost)).rejects.toThrow(message)
    expect(await left()).toEqual({ minute: 9, tokens: 900, exports: 2 })
  })

  it.each<[string, Cost, string]>([
    ['a limit that the call did not name', { tokens: 5_000 }, '"cost.tokens" must be a limit that the call'],
    ['a limit that nobody has', { nonsense: 5 }, '"cost" names the limit "nonsense"'],
  ])('is an error even if the call counted on nothing: %s', async (_what, cost, message) => {
    const { settle, left } = await call(1, { rateLimits: [TOKENS] })
    await expect(settle(cost)).rejects.toThrow(TypeError)
    await expect(settle(cost)).rejects.toThrow(message)
    expect(await left()).toEqual({ tokens: 1_000 })
  })

  it('names a limit that nobody has, for a key without limits', async () => {
    const { keys } = createTestKeys({ rateLimits: [], revocation: 'bounded' })
    const { key } = await issueKey(keys)
    const result = await admit(keys, key)
    await expect(keys.settle(result, { tokens: 5 })).rejects.toThrow('"cost" names the limit "tokens"')
    expect(await keys.settle(result, 5)).toEqual([])
    expect(await keys.refund(result)).toBe(false)
  })

  it('is one of a call that was refused', async () => {
    const { keys, ask, left } = await call({ tokens: 900 })
    const refused = await ask({ tokens: 101 })
    expect(refused).toMatchObject({ code: 'rate_limited' })
    await expect(keys.settle(refused as never, 5)).rejects.toThrow('"result" must be what "verify" returned')
    expect(await left()).toEqual({ minute: 9, tokens: 100, exports: 2 })
  })

  it('is one by keys with another limiter', async () => {
    const { result, left } = await call({ tokens: 900 })
    const other = createTestKeys({ rateLimits: ALL })
    await expect(other.keys.settle(result, 5)).rejects.toThrow('different rate limiter')
    expect(await left()).toEqual({ minute: 9, tokens: 100, exports: 2 })
  })

  it('is unsupported by a limiter that cannot settle', async () => {
    const { settle: _settle, ...rateLimiter } = memoryRateLimiter()
    const { settle } = await call(1, {}, rateLimiter)
    await expect(settle(5)).rejects.toMatchObject({
      code: 'unsupported',
      message: '"settle" and "refund" need a limiter with "settle"',
    })
  })

  it('is nothing by a limiter that cannot settle, where nothing was counted', async () => {
    const { settle: _settle, ...rateLimiter } = memoryRateLimiter()
    const { keys } = createTestKeys({ rateLimiter })
    const { key } = await issueKey(keys)
    const result = await keys.verify(key)
    expect(result.ok && (await keys.refund(result))).toBe(false)
  })
})

describe('a settlement', () => {
  it.each<[string, Cost, Cost, Record<string, number>]>([
    ['less of what it names', { tokens: 500 }, { tokens: 120 }, { minute: 9, tokens: 880 }],
    ['more of what it names', { tokens: 500 }, { tokens: 620 }, { minute: 9, tokens: 380 }],
    ['nothing of what it names', { tokens: 500 }, { tokens: 0 }, { minute: 9, tokens: 1_000 }],
    ['what it named with 0', { tokens: 0 }, { tokens: 620 }, { minute: 9, tokens: 380 }],
    ['the same', { tokens: 500 }, { tokens: 500, minute: 1 }, { minute: 9, tokens: 500 }],
    ['other limits too', { tokens: 500 }, { tokens: 400, minute: 3 }, { minute: 7, tokens: 600 }],
    ['a number, and leaves named ones', { tokens: 500 }, 4, { minute: 6, tokens: 500 }],
    ['nothing at all', { tokens: 500 }, 0, { minute: 10, tokens: 1_000 }],
    ['less than a number', 5, 2, { minute: 8, tokens: 1_000 }],
  ])('makes a call cost %s', async (_what, cost, settled, expected) => {
    const { settle, left } = await call(cost)
    const limits = await settle(settled)
    expect(await left()).toEqual({ ...expected, exports: 2 })
    for (const { name, remaining } of limits) expect(remaining).toBe(expected[name])
    expect(limits.length).toBeGreaterThan(0)
  })

  it('replaces the one before, in both directions', async () => {
    const { settle, left } = await call({ tokens: 100 })
    for (const tokens of [400, 50, 300, 0, 700, 650]) {
      await settle({ tokens })
      expect(await left()).toMatchObject({ tokens: 1_000 - tokens })
    }
  })

  it('is made as if it came alone where many come at once', async () => {
    const { settle, keys, result, left } = await call({ tokens: 100 }, { quota: { remaining: 5_000 } })
    const costs = [300, 20, 800, 20, 450].map((tokens) => ({ tokens, quota: 2 * tokens }))
    await Promise.all(costs.map(settle))
    expect(await left()).toEqual({ minute: 9, tokens: 550, exports: 2, quota: 4_100 })
    const refunds = await Promise.all([keys.refund(result), keys.refund(result)])
    expect(refunds).toEqual([true, false])
    expect(await left()).toEqual({ minute: 10, tokens: 1_000, exports: 2, quota: 5_000 })
    await settle({ tokens: 10 })
    expect(await left()).toMatchObject({ minute: 10, tokens: 990 })
  })

  it('beyond a limit has the key refused until it is within the limit again', async () => {
    const { settle, ask, clock } = await call({ tokens: 500 })
    expect(await settle({ tokens: 1_700 })).toMatchObject([
      { remaining: 9 },
      { remaining: 0, resetMs: 60_000 },
    ])
    await clock.advance(20_000)
    expect(await ask({ tokens: 0 })).toMatchObject({ code: 'rate_limited', retryAfterMs: 40_000 })
    expect(await ask()).toMatchObject({ ok: true })
    await clock.advance(40_000)
    expect(await ask({ tokens: 1_000 })).toMatchObject({ ok: true })
  })

  it('leaves a debt on a bucket for as long as it takes', async () => {
    const { settle, ask, clock } = await call(1, { rateLimits: [BUCKET] })
    await settle(6_000)
    await clock.advance(3_600_000)
    const waitMs = (6_000 - 3_600 + 1 - 60) * 1_000
    expect(await ask()).toMatchObject({ code: 'rate_limited', retryAfterMs: waitMs })
    await clock.advance(waitMs - 1)
    expect(await ask()).toMatchObject({ code: 'rate_limited', retryAfterMs: 1 })
    await clock.advance(1)
    expect(await ask()).toMatchObject({ ok: true })
  })

  it('charges the current window after the one of the call, and gives nothing back to one that has ended', async () => {
    const { settle, ask, clock, left } = await call({ tokens: 500 })
    await clock.advance(130_000)
    await ask({ tokens: 10 })
    await settle({ tokens: 200 })
    expect(await left()).toMatchObject({ tokens: 990 })
    // The 500 of the first window stay charged there.
    await settle({ tokens: 700 })
    expect(await left()).toMatchObject({ tokens: 790 })
    // The latest charge goes first, and that is of this window.
    await settle({ tokens: 600 })
    expect(await left()).toMatchObject({ tokens: 890 })
    await settle(0)
    expect(await left()).toMatchObject({ tokens: 990 })
  })

  it.each<[string, RateLimit, number, number[], number]>([
    ['a window that has ended', TOKENS, 61_000, [100, 200, 300, 400, 500], 1_000],
    ['a window that has ended, and more', TOKENS, 61_000, [100, 200, 700, 100, 700], 800],
    ['a window that runs', TOKENS, 1_000, [100, 200, 300, 400, 500], 500],
    ['a bucket that has refilled', TOKENS_BUCKET, 24_000, [100, 500], 900],
    ['a bucket that has refilled in part', TOKENS_BUCKET, 12_000, [0, 100, 300, 500], 700],
    ['a bucket that has refilled by fractions', TOKENS_BUCKET, 100, [100, 500], 501],
  ])(
    'charges nothing twice that could not be given back: %s',
    async (_what, limit, waitMs, costs, expected) => {
      const { settle, left, clock } = await call({ tokens: 500 }, { rateLimits: [limit] })
      await clock.advance(waitMs)
      for (const tokens of costs) await settle({ tokens })
      expect(await left()).toEqual({ tokens: expected })
    },
  )

  it.each([[[0]], [[400, 250, 100, 0, 0]]])(
    'gives back of a bucket what has not leaked, in steps or at once: %j',
    async (costs) => {
      const { settle, ask, left, clock } = await call({ tokens: 500 }, { rateLimits: [TOKENS_BUCKET] })
      await clock.advance(12_000)
      await ask({ tokens: 400 })
      for (const tokens of costs) await settle({ tokens })
      // 200 have leaked, so at most 300 of the 500 come back.
      expect(await left()).toEqual({ tokens: 600 })
    },
  )

  it('gives back what one at the same time charges, in whatever window that is', async () => {
    const { settle, left, clock } = await call({ tokens: 500 })
    await clock.advance(130_000)
    await Promise.all([settle({ tokens: 900 }), settle({ tokens: 500 })])
    expect(await left()).toMatchObject({ tokens: 1_000 })
  })

  it('opens no window where it gives back', async () => {
    const { settle, keys, key, clock } = await call({ tokens: 500 })
    await clock.advance(60_000)
    expect(await settle({ tokens: 1 })).toMatchObject([
      { resetMs: null },
      { remaining: 1_000, resetMs: null },
    ])
    expect((await admit(keys, key, 0)).limits).toMatchObject([{ resetMs: null }, { resetMs: null }, {}])
  })

  it('of a call that only looked is nothing', async () => {
    const { settle, left } = await call(0)
    expect(await settle({ tokens: 100 })).toEqual([])
    expect(await left()).toEqual({ minute: 10, tokens: 1_000, exports: 2 })
  })

  it('knows names of the service that the key has no limits of', async () => {
    const { settle, left } = await call({ tokens: 10 }, { rateLimits: [MINUTE] })
    expect(await settle({ tokens: 10_000 })).toMatchObject([{ name: 'minute' }])
    expect(await left()).toEqual({ minute: 9 })
  })
})

describe('a settlement of a quota', () => {
  it('takes and gives back units of the store', async () => {
    const { settle, keys, key, left, store } = await call(1, { rateLimits: [], quota: { remaining: 1_000 } })
    await settle({ quota: 400 })
    expect(await left()).toEqual({ quota: 600 })
    await settle({ quota: 150 })
    expect(await left()).toEqual({ quota: 850 })
    await keys.close()
    const after = createTestKeys({ store })
    expect((await after.keys.verify(key, { cost: 0 })) as object).toMatchObject({
      limits: [{ remaining: 850 }],
    })
  })

  it('takes all that is left where it costs more, and gives back no more than it took', async () => {
    const { settle, ask, left } = await call(1, { rateLimits: [], quota: { remaining: 100 } })
    await ask(20)
    await settle({ quota: 500 })
    expect(await left()).toEqual({ quota: 0 })
    expect(await ask()).toMatchObject({ code: 'quota_exceeded' })
    await settle({ quota: 50 })
    expect(await left()).toEqual({ quota: 30 })
    await settle(0)
    expect(await left()).toEqual({ quota: 80 })
  })

  it('gives nothing back to one that was set anew', async () => {
    const { settle, keys, apiKey, left } = await call(30, { rateLimits: [], quota: { remaining: 100 } })
    await keys.update(apiKey.id, { quota: { remaining: 40 } })
    await settle({ quota: 10 })
    expect(await left()).toEqual({ quota: 40 })
  })

  it.each<[string, number, number]>([
    ['none is left', 99, 1],
    ['few are left', 90, 50],
  ])('takes what others have given back since it heard that %s', async (_what, taken, asked) => {
    const first = createTestKeys({ quotaLeaseMs: 60_000 })
    const second = createTestKeys({
      clock: first.clock,
      store: first.store,
      rateLimiter: first.limiter,
      quotaLeaseMs: 60_000,
    })
    const { key, apiKey } = await issueKey(first.keys, { quota: { remaining: 100 } })
    const result = await admit(first.keys, key, { quota: 1 })
    await first.keys.flush()
    const other = await admit(second.keys, key, { quota: taken })
    await second.keys.flush()
    expect(await first.keys.verify(key, { cost: { quota: asked } })).toMatchObject({
      code: 'quota_exceeded',
    })
    await second.keys.refund(other)
    await second.keys.flush()
    await first.keys.settle(result, { quota: 50 })
    await first.keys.flush()
    expect((await first.keys.get(apiKey.id))?.quota?.remaining).toBe(50)
  })

  it.each([true, false])(
    'takes nothing twice that it could not give back: refilled by a call before: %s',
    async (isCalled) => {
      const refill = { amount: 100, per: 'day' } as const
      const given = { rateLimits: [], quota: { remaining: 100, refill } }
      const { settle, ask, clock, left } = await call(50, given)
      await clock.advance(DAY_MS)
      if (isCalled) await ask(1)
      await settle({ quota: 10 })
      await settle({ quota: 50 })
      await settle({ quota: 60 })
      expect(await left()).toEqual({ quota: isCalled ? 89 : 90 })
    },
  )

  it('settles what a call named with 0', async () => {
    const { settle, left } = await call({ quota: 0 }, { rateLimits: [], quota: { remaining: 100 } })
    await settle({ quota: 25 })
    expect(await left()).toEqual({ quota: 75 })
  })
})

describe('a settlement without an answer', () => {
  /** A limiter that makes each change once, as one in Redis does, and may lose what comes or what it answers. */
  function lossyLimiter(clock = fakeClock()) {
    const inner = memoryRateLimiter({ clock })
    const answers = new Map<string, SettleAnswer>()
    const sent: SettleRequest[] = []
    const world = { lose: 'nothing' as 'nothing' | 'calls' | 'answers' }
    const rateLimiter: RateLimiter = {
      ...inner,
      async settle(request) {
        sent.push(request)
        if (world.lose === 'calls') throw new Error('connection refused')
        const answer = answers.get(request.id) ?? inner.settle(request)
        answers.set(request.id, answer)
        if (world.lose === 'answers') throw new Error('connection lost')
        return answer
      },
    }
    return { clock, rateLimiter, sent, answers, world }
  }

  async function lossy() {
    const { clock, rateLimiter, sent, world } = lossyLimiter()
    const test = createTestKeys({ rateLimits: ALL, rateLimiter, clock })
    const { key } = await issueKey(test.keys)
    const result = await admit(test.keys, key, { tokens: 500 })
    const left = async () => (await admit(test.keys, key, 0)).limits[1]?.remaining
    return { ...test, sent, world, result, left }
  }

  it.each(['calls', 'answers'] as const)('is sent again and made once: lost %s', async (lose) => {
    const unhandled = watchUnhandled()
    const { keys, clock, sent, world, result, left } = await lossy()
    world.lose = lose
    await expect(keys.settle(result, { tokens: 800 })).rejects.toMatchObject({ code: 'unavailable' })
    await clock.advance(3_000)
    world.lose = 'nothing'
    await clock.advance(1_000)
    expect(await left()).toBe(200)
    expect(sent.length).toBeGreaterThan(2)
    expect(new Set(sent.map(({ id }) => id)).size).toBe(1)
    const times = sent.length
    await clock.advance(120_000)
    expect(sent).toHaveLength(times)
    expect(await unhandled()).toEqual([])
  })

  it('does not change what the next one does', async () => {
    const { keys, clock, world, result, left } = await lossy()
    world.lose = 'calls'
    await expect(keys.settle(result, { tokens: 800 })).rejects.toMatchObject({ code: 'unavailable' })
    world.lose = 'nothing'
    await keys.settle(result, { tokens: 100 })
    await clock.advance(5_000)
    expect(await left()).toBe(900)
  })

  it('is given up after a minute, with an event', async () => {
    const { keys, clock, sent, world, result, eventsOf } = await lossy()
    world.lose = 'calls'
    await expect(keys.settle(result, { tokens: 800 })).rejects.toMatchObject({ code: 'unavailable' })
    expect(eventsOf('fault')).toHaveLength(1)
    for (let second = 0; second < 59; second++) await clock.advance(1_000)
    expect(eventsOf('fault')).toHaveLength(1)
    for (let second = 0; second < 5; second++) await clock.advance(1_000)
    expect(eventsOf('fault')).toHaveLength(2)
    expect(String(eventsOf('fault')[1]?.error)).toContain('given up')
    const times = sent.length
    world.lose = 'nothing'
    await clock.advance(120_000)
    expect(sent).toHaveLength(times)
  })

  describe('that was made, whose id the limiter has forgotten after two minutes', () => {
    /** A limiter that can fall silent. */
    async function forgetful(count: number) {
      const clock = fakeClock()
      const { rateLimiter, answers, world } = lossyLimiter(clock)
      const silence: RateLimiter = {
        ...rateLimiter,
        settle: (request) => (silent ? new Promise(() => {}) : rateLimiter.settle?.(request)) as never,
      }
      let silent = false
      const test = createTestKeys({ rateLimits: ALL, rateLimiter: silence, clock })
      const issued = await Promise.all(Array.from({ length: count }, () => issueKey(test.keys, DAILY)))
      const results = await Promise.all(issued.map(({ key }) => admit(test.keys, key, { tokens: 500 })))
      world.lose = 'answers'
      await Promise.all(results.map((result) => test.keys.settle(result, { tokens: 800 }).catch(() => {})))
      world.lose = 'nothing'
      const used = async () => {
        const looks = await Promise.all(issued.map(({ key }) => admit(test.keys, key, 0)))
        return [...new Set(looks.map(({ limits }) => 10_000 - (limits[0]?.remaining ?? 0)))]
      }
      return {
        ...test,
        results,
        used,
        fall: (isSilent: boolean) => {
          silent = isSilent
        },
        forget: () => answers.clear(),
        givenUp: () =>
          test.eventsOf('fault').filter(({ error }) => String(error).includes('given up')).length,
      }
    }

    it('is not made again: many of them, after a long silence', async () => {
      const { clock, fall, forget, used, givenUp } = await forgetful(50)
      fall(true)
      for (let second = 0; second < 125; second++) await clock.advance(1_000)
      forget()
      fall(false)
      for (let second = 0; second < 10; second++) await clock.advance(1_000)
      expect(await used()).toEqual([800])
      expect(givenUp()).toBe(50)
    })

    it('is not made again: after the process stood still', async () => {
      const { clock, forget, used, givenUp } = await forgetful(2)
      clock.set(clock.now() + 122_000)
      forget()
      await clock.advance(1)
      expect(await used()).toEqual([800])
      expect(givenUp()).toBe(2)
    })

    it('is not made again: by the next settlement, or by flush()', async () => {
      const { keys, clock, forget, used, results, givenUp } = await forgetful(2)
      clock.set(clock.now() + 122_000)
      forget()
      await Promise.all(results.map((result) => keys.settle(result, {})))
      await keys.flush()
      expect(await used()).toEqual([800])
      expect(givenUp()).toBe(2)
    })

    it('is not made again: after the clock was set back', async () => {
      const { clock, forget, used, givenUp } = await forgetful(2)
      clock.set(clock.now() - 3_600_000)
      const started = performance.now()
      vi.spyOn(performance, 'now').mockImplementation(() => started + 122_000)
      onTestFinished(() => void vi.restoreAllMocks())
      forget()
      await clock.advance(3_600_000 + 2_000)
      expect(await used()).toEqual([800])
      expect(givenUp()).toBe(2)
    })
  })

  describe('that was given up', () => {
    /** Beside other work of 400, a call that has cost 100. */
    async function start() {
      const test = await lossy()
      const { keys, clock, world } = test
      const { key } = await issueKey(keys, DAILY)
      const result = await admit(keys, key, { tokens: 100 })
      await admit(keys, key, { tokens: 400 })
      const used = async () => 10_000 - ((await admit(keys, key, 0)).limits[0]?.remaining ?? 0)
      const fail = (tokens: number) => keys.settle(result, { tokens }).catch(() => {})
      async function pass(seconds: number) {
        for (let second = 0; second < seconds; second++) await clock.advance(1_000)
      }
      world.lose = 'calls'
      return {
        ...test,
        result,
        used,
        fail,
        pass,
        settle: (tokens: number) => keys.settle(result, { tokens }),
      }
    }

    it('gives back nothing that it has not charged', async () => {
      const { keys, world, result, used, fail, pass } = await start()
      await fail(400)
      await pass(70)
      world.lose = 'nothing'
      expect(await keys.refund(result)).toBe(true)
      expect(await used()).toBe(400)
    })

    it('is given up before a later one that gives it back', async () => {
      const { world, used, fail, pass } = await start()
      await fail(400)
      await pass(50)
      await fail(100)
      await pass(15)
      world.lose = 'nothing'
      await pass(5)
      expect(await used()).toBe(500)
    })

    it('is not charged again where it was to give back', async () => {
      const { keys, world, result, used, settle, pass } = await start()
      await expect(keys.refund(result)).rejects.toMatchObject({ code: 'unavailable' })
      await pass(70)
      world.lose = 'nothing'
      await settle(100)
      expect(await used()).toBe(500)
      await settle(150)
      expect(await used()).toBe(550)
    })

    it('is not charged again where it was made', async () => {
      const { world, used, fail, settle, pass } = await start()
      world.lose = 'answers'
      await fail(300)
      world.lose = 'calls'
      await pass(55)
      await fail(400)
      await pass(10)
      world.lose = 'nothing'
      await pass(5)
      expect(await used()).toBe(800)
      await settle(450)
      expect(await used()).toBe(850)
      await settle(400)
      expect(await used()).toBe(800)
    })

    it('because too many wait is as much in doubt', async () => {
      const { keys, world, result, used } = await start()
      const { key } = await issueKey(keys, {
        rateLimits: [{ name: 'tokens', limit: 2_000, windowMs: 60_000 }],
      })
      const others = await Promise.all(Array.from({ length: 1_000 }, () => admit(keys, key)))
      await Promise.all(others.map((other) => keys.settle(other, 2).catch(() => {})))
      await keys.settle(result, { tokens: 400 }).catch(() => {})
      world.lose = 'nothing'
      await keys.refund(result)
      expect(await used()).toBe(400)
    })
  })

  it('is sent again by flush() and close()', async () => {
    const { keys, world, result, left } = await lossy()
    world.lose = 'answers'
    await expect(keys.settle(result, { tokens: 800 })).rejects.toMatchObject({ code: 'unavailable' })
    const flushed = keys.flush()
    await expect(flushed).rejects.toMatchObject({ code: 'unavailable' })
    world.lose = 'nothing'
    await keys.flush()
    expect(await left()).toBe(200)
    world.lose = 'calls'
    await expect(keys.settle(result, { tokens: 100 })).rejects.toMatchObject({ code: 'unavailable' })
    expect(await left()).toBe(200)
    world.lose = 'nothing'
    await keys.close()
    await expect(keys.settle(result, { tokens: 100 })).resolves.toMatchObject([{}, { remaining: 900 }])
  })

  it('keeps a bounded number of them', async () => {
    const { keys, world, sent, eventsOf } = await lossy()
    const { key } = await issueKey(keys, { rateLimits: [{ name: 'tokens', limit: 2_000, windowMs: 60_000 }] })
    const results = await Promise.all(Array.from({ length: 1_100 }, () => admit(keys, key)))
    world.lose = 'calls'
    await Promise.all(results.map((result) => keys.settle(result, 2).catch(() => {})))
    expect(sent).toHaveLength(1_100)
    const givenUp = eventsOf('fault').filter(({ error }) => String(error).includes('given up'))
    expect(givenUp).toHaveLength(100)
  })

  it('is unavailable where the limiter answers something else', async () => {
    const { keys, rateLimiter, result } = await lossy().then((test) => ({
      ...test,
      rateLimiter: test.limiter,
    }))
    for (const answer of [
      undefined,
      {},
      { limits: [], settledAt: 1 },
      { limits: [{}, {}], made: [[1], []], settledAt: Number.NaN },
      { limits: [{}, {}], made: [[1]], settledAt: 1 },
      { limits: [{}, {}], made: [[], []], settledAt: 1 },
      { limits: [{}, {}], made: [['1'], []], settledAt: 1 },
    ]) {
      vi.spyOn(rateLimiter as Required<RateLimiter>, 'settle').mockImplementationOnce(() => answer as never)
      await expect(keys.settle(result, 5)).rejects.toMatchObject({ code: 'unavailable' })
    }
  })
})
