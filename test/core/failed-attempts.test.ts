import bcrypt from 'bcrypt'
import { memoryRateLimiter, memoryStore, type RateLimiter, type VerifyOptions } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import type { LimitAnswer, LimitRequest } from '../../lib/core/limits/rate-limiter.ts'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { heapGrowth } from '../support/heap-growth.ts'
import { issueKey, issueWarmKey } from '../support/issue-key.ts'
import { recordingStore } from '../support/recording-store.ts'
import { createTestKeys, forgeKey, type TestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const ADDRESS = '203.0.113.7'
const ELSEWHERE = '198.51.100.1'
const FROM_HERE = { ip: ADDRESS }
const FROM_ELSEWHERE = { ip: ELSEWHERE }
const LIMIT = 3
const WINDOW_MS = 60_000
const BLOCKED = { ok: false, code: 'too_many_failures' }
const MALFORMED = { ok: false, code: 'invalid_key', reason: 'malformed' }
const HOUR = { name: 'hour', limit: 10, windowMs: 3_600_000 }

type Options = Parameters<typeof createTestKeys>[0]

/** Keys that block an address for a minute after its third invalid key. */
const start = (options: Options = {}) => createTestKeys({ failedAttempts: { limit: LIMIT }, ...options })

/** Verifies keys that are none, one after the other. */
async function fail({ keys }: Pick<TestKeys, 'keys'>, times = LIMIT, options: VerifyOptions = FROM_HERE) {
  for (let i = 0; i < times; i++) {
    expect(await keys.verify('junk', options)).toEqual(MALFORMED)
    await settle()
  }
}

const unknownTo = (key: string) => forgeKey(key, { keyId: 'A'.repeat(16) })
const wrongFor = (key: string) => forgeKey(key, { secret: 'x'.repeat(43) })

/** A memory limiter whose counting of addresses is done by `count`; `calls` are the requests for it. */
function limiterThatCounts(
  count: (request: LimitRequest) => unknown,
): RateLimiter & { calls: LimitRequest[] } {
  const inner = memoryRateLimiter()
  const calls: LimitRequest[] = []
  return {
    ...inner,
    calls,
    check(request) {
      if (!request.lineageId.startsWith('failed ')) return inner.check(request)
      calls.push(request)
      return count(request) as LimitAnswer
    },
  }
}

describe('an address that has sent too many invalid keys', () => {
  it('is refused every key that was not verified here lately, and the store is not asked', async () => {
    const test = start()
    const { keys, store, eventsOf } = test
    const { key: cold } = await issueKey(keys)
    const { key: warm } = await issueWarmKey(keys)
    await fail(test)
    store.forgetCalls()
    for (const key of [unknownTo(cold), wrongFor(cold), wrongFor(warm), cold]) {
      expect(await keys.verify(key, FROM_HERE)).toEqual({ ...BLOCKED, retryAfterMs: WINDOW_MS })
    }
    expect(store.calls()).toBe(0)
    expect(eventsOf('key.refused').slice(LIMIT)).toEqual(
      Array(4).fill({
        type: 'key.refused',
        at: expect.any(Date),
        code: 'too_many_failures',
        reason: null,
        keyId: null,
        owner: null,
        ip: ADDRESS,
      }),
    )
  })

  it('is refused a key that is known not to exist, as one of which nobody knows', async () => {
    const test = start()
    const { key } = await issueKey(test.keys)
    expect(await test.keys.verify(unknownTo(key), FROM_ELSEWHERE)).toMatchObject({ reason: 'unknown' })
    await fail(test)
    expect(await test.keys.verify(unknownTo(key), FROM_HERE)).toMatchObject(BLOCKED)
  })

  it('is told of a malformed key that it is invalid, and nothing is counted any more', async () => {
    const test = start()
    await fail(test)
    const check = vi.spyOn(test.limiter, 'check')
    await fail(test, 20)
    expect(check).not.toHaveBeenCalled()
  })

  it('is reported once for each block', async () => {
    const test = start()
    const { key } = await issueKey(test.keys)
    await test.clock.advance(500)
    await fail(test, LIMIT + 5)
    await test.keys.verify(key, FROM_HERE)
    const blocked = { type: 'address.blocked', at: new Date(test.clock.now()), address: ADDRESS }
    expect(test.eventsOf('address.blocked')).toEqual([{ ...blocked, forMs: WINDOW_MS }])
    await test.clock.advance(WINDOW_MS)
    await fail(test)
    expect(test.eventsOf('address.blocked')).toHaveLength(2)
  })

  it('is looked at again from the moment the window ends, and counted anew', async () => {
    const test = start()
    const { key } = await issueKey(test.keys)
    await fail(test)
    await test.clock.advance(WINDOW_MS - 1)
    expect(await test.keys.verify(key, FROM_HERE)).toEqual({ ...BLOCKED, retryAfterMs: 1 })
    await test.clock.advance(1)
    await fail(test, LIMIT - 1)
    expect(await test.keys.verify(unknownTo(key), FROM_HERE)).toMatchObject({ reason: 'unknown' })
    await settle()
    expect(await test.keys.verify(unknownTo(key), FROM_HERE)).toMatchObject(BLOCKED)
  })

  it('is blocked for what is left of the window that its first invalid key has opened', async () => {
    const test = start({ failedAttempts: { limit: LIMIT, windowMs: 90_000 } })
    const { key } = await issueKey(test.keys)
    await fail(test, 1)
    await test.clock.advance(40_000)
    await fail(test, LIMIT - 1)
    expect(await test.keys.verify(key, FROM_HERE)).toEqual({ ...BLOCKED, retryAfterMs: 50_000 })
    expect(test.eventsOf('address.blocked')).toMatchObject([{ forMs: 50_000 }])
  })

  it('is not blocked for longer than a window by a clock that is set back', async () => {
    const test = start()
    const { key } = await issueKey(test.keys)
    await fail(test)
    await test.clock.advance(WINDOW_MS / 2)
    test.clock.set(test.clock.now() - WINDOW_MS / 4)
    expect(await test.keys.verify(key, FROM_HERE)).toEqual({ ...BLOCKED, retryAfterMs: 45_000 })
    test.clock.set(test.clock.now() - 86_400_000)
    expect(await test.keys.verify(key, FROM_HERE)).toMatchObject({ ok: true })
  })

  it('is one of maxEntries that are remembered, and is counted anew once it was forgotten for others', async () => {
    const test = start({ failedAttempts: { limit: LIMIT, maxEntries: 2 } })
    const { key } = await issueKey(test.keys)
    const addresses = ['192.0.2.1', '192.0.2.2', '192.0.2.3']
    for (const ip of addresses) await fail(test, LIMIT, { ip })
    for (const ip of addresses.slice(1)) {
      expect(await test.keys.verify(unknownTo(key), { ip })).toMatchObject(BLOCKED)
    }
    const ip = addresses[0] as string
    expect(await test.keys.verify(unknownTo(key), { ip })).toMatchObject({ reason: 'unknown' })
    await settle()
    expect(await test.keys.verify(key, { ip })).toMatchObject({ ok: true })
    await fail(test, LIMIT - 1, { ip })
    expect(await test.keys.verify(unknownTo(key), { ip })).toMatchObject(BLOCKED)
  })
})

describe('an invalid key', () => {
  const KINDS: Record<string, (test: TestKeys) => Promise<{ key: string; options?: VerifyOptions }>> = {
    malformed: async () => ({ key: 'junk' }),
    'malformed, for a key that is known here': async ({ keys }) => ({
      key: `${(await issueWarmKey(keys)).key.slice(0, -6)}000000`,
    }),
    unknown: async ({ keys }) => ({ key: unknownTo((await issueKey(keys)).key) }),
    wrong_secret: async ({ keys }) => ({ key: wrongFor((await issueKey(keys)).key) }),
    'wrong_secret, for a key that is known here': async ({ keys }) => ({
      key: wrongFor((await issueWarmKey(keys)).key),
    }),
    revoked: async ({ keys }) => {
      const { key, apiKey } = await issueKey(keys)
      await keys.revoke(apiKey.id)
      return { key }
    },
    disabled: async ({ keys }) => {
      const { key, apiKey } = await issueKey(keys)
      await keys.disable(apiKey.id)
      return { key }
    },
    expired: async ({ keys, clock }) => {
      const { key } = await issueKey(keys, { expiresAt: new Date(clock.now() + 1) })
      await clock.advance(1)
      return { key }
    },
    prefix_not_accepted: async ({ keys }) => ({
      key: (await issueKey(keys)).key,
      options: { prefix: 'other' },
    }),
  }

  it.each(Object.entries(KINDS))('counts, whatever makes it invalid: %s', async (kind, given) => {
    const test = start()
    const { key, options } = await given(test)
    const { key: cold } = await issueKey(test.keys)
    for (let i = 0; i < LIMIT; i++) {
      expect(test.eventsOf('address.blocked')).toEqual([])
      expect(await test.keys.verify(key, { ...FROM_HERE, ...options })).toEqual({
        ok: false,
        code: 'invalid_key',
        reason: kind.split(',')[0],
      })
      await settle()
    }
    expect(test.eventsOf('address.blocked')).toHaveLength(1)
    expect(await test.keys.verify(cold, FROM_HERE)).toMatchObject(BLOCKED)
  })

  it('of an owner who is not active counts too', async () => {
    const test = start({ isOwnerActive: () => false })
    const { key } = await issueKey(test.keys)
    for (let i = 0; i < LIMIT; i++) {
      expect(await test.keys.verify(key, FROM_HERE)).toMatchObject({ reason: 'owner_inactive' })
      await settle()
    }
    expect(test.eventsOf('address.blocked')).toHaveLength(1)
  })

  it.each([
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['203.0.113.7', '::FFFF:CB00:7107'],
    ['2001:db8::1', '2001:db8:0:0:ffff:ffff:ffff:ffff'],
    ['2001:db8:a:b::', '2001:DB8:A:B:1::%eth0'],
  ])('blocks the client, by whichever of its addresses it comes: %s, then %s', async (ip, other) => {
    const test = start()
    const { key } = await issueKey(test.keys)
    await fail(test, LIMIT, { ip })
    expect(await test.keys.verify(key, { ip: other })).toMatchObject(BLOCKED)
  })

  it.each([
    ['203.0.113.7', '203.0.113.8'],
    ['203.0.113.7', '::203.0.113.7'],
    ['2001:db8::1', '2001:db8:0:1::1'],
    ['2001:db8:a:b::', '2001:db8:a:c::'],
    ['203.0.113.7', undefined],
    ['203.0.113.7', 'nonsense'],
  ])('blocks nobody else: %s, then %s', async (ip, other) => {
    const test = start()
    const { key } = await issueKey(test.keys)
    await fail(test, LIMIT, { ip })
    expect(await test.keys.verify(key, { ip: other })).toMatchObject({ ok: true })
  })

  it.each([
    ['without an address', {}],
    ['from what is no address', { ip: 'nonsense' }],
    ['from an address with a port that is none', { ip: '203.0.113.7:65536' }],
  ])('%s is counted against nobody, and says so', async (_title, options) => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const test = start()
    const check = vi.spyOn(test.limiter, 'check')
    await fail(test, 2 * LIMIT, options)
    expect(check).not.toHaveBeenCalled()
    expect(test.eventsOf('address.missing')).toEqual(
      Array(2 * LIMIT).fill({
        type: 'address.missing',
        at: expect.any(Date),
        neededFor: 'failedAttempts',
        found: 'ip' in options ? 'no address' : 'nothing',
      }),
    )
    expect(warned.mock.calls).toEqual([
      [expect.stringMatching(/"failedAttempts".*"trust proxy"/), { code: 'LATCHKEY_NO_ADDRESS' }],
    ])
    const { key } = await issueKey(test.keys)
    expect(await test.keys.verify(key, options)).toMatchObject({ ok: true })
    expect(test.eventsOf('address.missing')).toHaveLength(2 * LIMIT)
  })

  it('is counted for its own address only', async () => {
    const test = start()
    for (const ip of [ADDRESS, ELSEWHERE, '2001:db8::1', '2001:db8:0:1::1']) {
      await fail(test, LIMIT - 1, { ip })
    }
    expect(test.eventsOf('address.blocked')).toEqual([])
  })

  it('that comes seldom never adds up to a block', async () => {
    const test = start()
    for (let i = 0; i < 10; i++) {
      await fail(test, LIMIT - 1)
      await test.clock.advance(WINDOW_MS)
    }
    expect(test.eventsOf('address.blocked')).toEqual([])
  })

  it.each([
    ['100 times within a minute', true, 100, 60_000],
    ['100 times within a minute, unless told otherwise', {}, 100, 60_000],
    ['as often as is allowed, in a window of its own', { limit: 2, windowMs: 5_000 }, 2, 5_000],
    ['once', { limit: 1 }, 1, 60_000],
  ])('blocks its address where it comes %s', async (_title, failedAttempts, limit, windowMs) => {
    const test = createTestKeys({ failedAttempts })
    const { key } = await issueKey(test.keys)
    await fail(test, limit - 1)
    expect(test.eventsOf('address.blocked')).toEqual([])
    await fail(test, 1)
    expect(await test.keys.verify(key, FROM_HERE)).toEqual({ ...BLOCKED, retryAfterMs: windowMs })
  })

  it.each([undefined, false])('blocks nobody where failedAttempts is %s', async (failedAttempts) => {
    const test = createTestKeys(failedAttempts === undefined ? {} : { failedAttempts })
    const { key } = await issueKey(test.keys)
    const check = vi.spyOn(test.limiter, 'check')
    await fail(test, 200)
    expect(check).not.toHaveBeenCalled()
    expect(await test.keys.verify(key, FROM_HERE)).toMatchObject({ ok: true })
  })
})

describe('failedAttempts', () => {
  it.each([
    ['yes', '"failedAttempts" must be true, false or an object'],
    [[], '"failedAttempts" must be true, false or an object'],
    [{ limit: 0 }, '"failedAttempts.limit" must be'],
    [{ windowMs: 999 }, '"failedAttempts.windowMs" must be'],
    [{ maxEntries: 0 }, '"failedAttempts.maxEntries" must be'],
    [{ maxAddresses: 5 }, '"failedAttempts" has no option "maxAddresses": it is called "maxEntries" now'],
    [{ limits: 5 }, '"failedAttempts" has no option "limits"; did you mean "limit"?'],
  ])('is refused where it is wrong, by name: %j', (failedAttempts, message) => {
    expect(() => createTestKeys({ failedAttempts: failedAttempts as never })).toThrow(message)
  })
})

describe('a good key', () => {
  it('keeps working from a blocked address, where it was verified here lately', async () => {
    const test = start()
    const { key } = await issueWarmKey(test.keys)
    await fail(test)
    expect(await test.keys.verify(unknownTo(key), FROM_HERE)).toMatchObject(BLOCKED)
    expect(await test.keys.verify(key, FROM_HERE)).toMatchObject({ ok: true })
  })

  it('keeps working from a blocked address for as long as the address is blocked', async () => {
    const test = start()
    const { key } = await issueWarmKey(test.keys)
    await fail(test)
    for (let second = 0; second < 59; second++) {
      expect(await test.keys.verify(key, FROM_HERE), `after ${second} s`).toMatchObject({ ok: true })
      await test.clock.advance(1_000)
    }
    expect(await test.keys.verify(unknownTo(key), FROM_HERE)).toMatchObject(BLOCKED)
  })

  it('that nobody used here is refused to a blocked address only', async () => {
    const test = start()
    const { key } = await issueKey(test.keys)
    await fail(test)
    expect(await test.keys.verify(key, FROM_HERE)).toMatchObject(BLOCKED)
    expect(await test.keys.verify(key, FROM_ELSEWHERE)).toMatchObject({ ok: true })
    expect(await test.keys.verify(key, FROM_HERE)).toMatchObject({ ok: true })
  })

  it('has nothing counted against it by those who guess at its secret', async () => {
    const test = start({ rateLimits: [HOUR] })
    const { key, apiKey } = await issueWarmKey(test.keys)
    const check = vi.spyOn(test.limiter, 'check')
    for (let i = 1; i <= 50; i++) {
      await test.keys.verify(wrongFor(key), { ip: `192.0.2.${i % 5}` })
      await settle()
    }
    expect(test.eventsOf('address.blocked')).toHaveLength(5)
    for (const [request] of check.mock.calls) expect(JSON.stringify(request)).not.toContain(apiKey.id)
    expect(await test.keys.verify(key, FROM_HERE)).toMatchObject({ ok: true, limits: [{ remaining: 9 }] })
    expect(await test.keys.verify(key, { ip: '192.0.2.1' })).toMatchObject({ limits: [{ remaining: 8 }] })
  })

  const REFUSALS: Record<string, { given: Parameters<typeof issueKey>[1]; asked?: VerifyOptions }> = {
    insufficient_permissions: { given: {}, asked: { permissions: { projects: ['read'] } } },
    address_not_allowed: { given: { allowedIps: [ELSEWHERE] } },
    rate_limited: { given: { rateLimits: [HOUR] }, asked: { cost: 11 } },
    quota_exceeded: { given: { quota: { remaining: 0 } } },
  }
  it.each(Object.entries(REFUSALS))('that is refused as %s is no failed attempt', async (code, one) => {
    const test = start()
    const { key } = await issueKey(test.keys, one.given)
    for (let i = 0; i < 2 * LIMIT; i++) {
      expect(await test.keys.verify(key, { ...FROM_HERE, ...one.asked })).toMatchObject({ code })
      await settle()
    }
    expect(test.eventsOf('address.blocked')).toEqual([])
  })

  it('is no failed attempt, however often it is used', async () => {
    const test = start()
    const { key } = await issueKey(test.keys)
    for (let i = 0; i < 2 * LIMIT; i++) await test.keys.verify(key, FROM_HERE)
    await fail(test, LIMIT - 1)
    expect(test.eventsOf('address.blocked')).toEqual([])
  })
})

describe('a bcrypt digest', () => {
  async function startBcrypt() {
    const test = start({ digest: { scheme: 'bcrypt', cost: 4 } })
    const compare = vi.spyOn(bcrypt, 'compare')
    const { key } = await issueKey(test.keys)
    return { ...test, key, compare }
  }

  it('is not compared for a blocked address where its key is not proven here', async () => {
    const test = await startBcrypt()
    // The record is at hand, and its key is not proven yet.
    expect(await test.keys.verify(wrongFor(test.key), FROM_ELSEWHERE)).toMatchObject({
      reason: 'wrong_secret',
    })
    test.compare.mockClear()
    await fail(test)
    expect(await test.keys.verify(wrongFor(test.key), FROM_HERE)).toMatchObject(BLOCKED)
    expect(await test.keys.verify(test.key, FROM_HERE)).toMatchObject(BLOCKED)
    expect(test.compare).not.toHaveBeenCalled()
  })

  it('keeps its key working for a blocked address once that is proven, and costs nothing any more', async () => {
    const test = await startBcrypt()
    expect(await test.keys.verify(test.key, FROM_ELSEWHERE)).toMatchObject({ ok: true })
    test.compare.mockClear()
    await fail(test)
    expect(await test.keys.verify(test.key, FROM_HERE)).toMatchObject({ ok: true })
    expect(await test.keys.verify(wrongFor(test.key), FROM_HERE)).toMatchObject(BLOCKED)
    expect(test.compare).not.toHaveBeenCalled()
  })
})

describe('counting', () => {
  const FAILURE = new Error('connection refused')
  const FAULTS: Record<string, () => unknown> = {
    throws: () => {
      throw FAILURE
    },
    rejects: () => Promise.reject(FAILURE),
    'answers undefined': () => undefined,
    'promises nonsense': async () => ({ outcome: 'fine' }),
    hangs: () => new Promise(() => {}),
  }
  it.each(Object.entries(FAULTS))(
    'by a limiter that %s is a fault beside an attempt that goes uncounted',
    async (_title, fault) => {
      const unhandled = watchUnhandled()
      const clock = fakeClock()
      const inner = memoryRateLimiter({ clock })
      let isBroken = true
      const rateLimiter = limiterThatCounts((request) => (isBroken ? fault() : inner.check(request)))
      const test = start({ clock, rateLimiter, timeoutMs: 500 })
      await fail(test, 2 * LIMIT)
      await clock.advance(500)
      expect(test.eventsOf('address.blocked')).toEqual([])
      expect(test.eventsOf('fault')[0]).toMatchObject({ operation: 'rate_limiter' })
      expect(await unhandled()).toEqual([])
      isBroken = false
      await fail(test)
      expect(test.eventsOf('address.blocked')).toHaveLength(1)
    },
  )

  it('goes on where a limiter calls a request for it stale', async () => {
    const rateLimiter = limiterThatCounts(() => ({ outcome: 'stale' }))
    const test = start({ rateLimiter })
    await fail(test, 2 * LIMIT)
    expect(rateLimiter.calls).toHaveLength(2 * LIMIT)
    expect(test.eventsOf('address.blocked')).toEqual([])
  })

  it.each([
    ['says that none is left, it is not asked again', { remaining: 0, resetMs: 5_000 }, 5_000, [2]],
    ['says nothing more, the address is blocked for a window', null, WINDOW_MS, [2]],
    [
      'knows a longer window, the address is blocked for ours',
      { remaining: 0, resetMs: 1e9 },
      WINDOW_MS,
      [2],
    ],
  ])('where a limiter refuses and %s', async (_title, state, retryAfterMs, costs) => {
    const rateLimiter = limiterThatCounts(({ cost }) =>
      cost === 1
        ? { outcome: 'admitted', limits: [{ remaining: 2, resetMs: 5_000 }] }
        : { outcome: 'limited', limits: state ? [state] : [] },
    )
    const test = start({ rateLimiter })
    const { key } = await issueKey(test.keys)
    for (let i = 0; i < 3; i++) await test.keys.verify('junk', FROM_HERE)
    await settle()
    expect(rateLimiter.calls.map(({ cost }) => cost)).toEqual([1, ...costs])
    expect(await test.keys.verify(key, FROM_HERE)).toEqual({ ...BLOCKED, retryAfterMs })
  })

  it('asks for a window that is nobody else’s, as of a record that was read just now', async () => {
    const rateLimiter = limiterThatCounts(() => ({ outcome: 'stale' }))
    await fail(start({ rateLimiter }), 1)
    expect(rateLimiter.calls).toMatchObject([
      { lineageId: `failed ${ADDRESS}`, keyId: '', version: 1, fresh: true, cost: 1, retainMs: WINDOW_MS },
    ])
  })

  it('goes on where a limiter cannot forget an address', async () => {
    const { forget, ...rest } = memoryRateLimiter()
    expect(forget).toBeTypeOf('function')
    const test = start({ rateLimiter: rest, failedAttempts: { limit: LIMIT, maxEntries: 1 } })
    await fail(test, 1, FROM_ELSEWHERE)
    await fail(test)
    expect(test.eventsOf('address.blocked')).toMatchObject([{ address: ADDRESS }])
    expect(test.eventsOf('fault')).toEqual([])
  })

  it('makes one call at a time for an address, and the next one counts what came meanwhile', async () => {
    const clock = fakeClock()
    const inner = memoryRateLimiter({ clock })
    const answers: (() => void)[] = []
    const rateLimiter = limiterThatCounts(
      (request) => new Promise((resolve) => answers.push(() => resolve(inner.check(request)))),
    )
    const test = start({ clock, rateLimiter, failedAttempts: { limit: 10 } })
    const costs = () => rateLimiter.calls.map(({ cost }) => cost)
    await fail(test, 4)
    expect(costs()).toEqual([1])
    await fail(test, 1, FROM_ELSEWHERE)
    expect(costs()).toEqual([1, 1])
    answers.shift()?.()
    await settle()
    expect(costs()).toEqual([1, 1, 3])
    await fail(test, 6)
    expect(costs()).toEqual([1, 1, 3])
    for (const answer of answers.splice(0)) answer()
    await settle()
    expect(costs()).toEqual([1, 1, 3, 6])
    expect(test.eventsOf('address.blocked')).toEqual([])
    answers.shift()?.()
    await settle()
    expect(test.eventsOf('address.blocked')).toMatchObject([{ address: ADDRESS }])
    expect(answers).toEqual([])
  })

  it('never asks for more at once than the limit, which no limiter would grant', async () => {
    const clock = fakeClock()
    const inner = memoryRateLimiter({ clock })
    const rateLimiter = limiterThatCounts((request) => inner.check(request))
    const test = start({ clock, rateLimiter })
    await Promise.all(Array.from({ length: 50 }, () => test.keys.verify('junk', FROM_HERE)))
    await settle()
    expect(Math.max(...rateLimiter.calls.map(({ cost }) => cost))).toBeLessThanOrEqual(LIMIT)
    expect(test.eventsOf('address.blocked')).toHaveLength(1)
  })

  it('keeps nobody waiting', async () => {
    const test = start({ rateLimiter: limiterThatCounts(() => new Promise(() => {})) })
    const answered = test.keys.verifyEager('junk', FROM_HERE)
    expect(answered).toEqual(MALFORMED)
  })

  it('is under way for a bounded number of addresses at a time', async () => {
    const rateLimiter = limiterThatCounts(() => new Promise(() => {}))
    const { keys } = start({ rateLimiter })
    for (let i = 0; i < 1_500; i++) {
      expect(keys.verifyEager('junk', { ip: `10.0.${i >> 8}.${i & 255}` })).toEqual(MALFORMED)
    }
    expect(rateLimiter.calls).toHaveLength(1_000)
  })

  it('is remembered for a bounded number of addresses, and costs no more memory than they do', async () => {
    const { keys } = start({
      failedAttempts: { limit: LIMIT, windowMs: 86_400_000, maxEntries: 500 },
      onEvent: () => {},
    })
    const growth = await heapGrowth(async () => {
      for (let i = 0; i < 40_000; i++) {
        keys.verifyEager('junk', { ip: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}` })
        if (i % 500 === 0) await settle()
      }
    })
    expect(growth).toBeLessThan(2)
  })

  it('is counted on while it is one of the addresses that were heard of last', async () => {
    const test = start({ failedAttempts: { limit: LIMIT, maxEntries: 2 } })
    const { key } = await issueKey(test.keys)
    await fail(test, LIMIT - 1)
    await fail(test, 1, FROM_ELSEWHERE)
    await fail(test, 1)
    expect(await test.keys.verify(key, FROM_HERE)).toMatchObject(BLOCKED)
    const [first, second, third] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((ip) => ({ ip }))
    await fail(test, LIMIT - 1, first)
    await fail(test, 1, second)
    await fail(test, 1, third)
    // The first was forgotten for the third.
    await fail(test, 1, first)
    expect(await test.keys.verify(key, first)).toMatchObject({ ok: true })
  })

  it('is waited for by close(), for no longer than a limiter may take', async () => {
    const test = start({ rateLimiter: limiterThatCounts(() => new Promise(() => {})), timeoutMs: 500 })
    await fail(test, 1)
    let isClosed = false
    const closing = test.keys.close().then(() => {
      isClosed = true
    })
    await test.clock.advance(499)
    expect(isClosed).toBe(false)
    await test.clock.advance(1)
    await closing
  })
})

describe('processes that share a limiter', () => {
  function startTwo() {
    const clock = fakeClock()
    const shared = { clock, rateLimiter: memoryRateLimiter({ clock }), store: recordingStore(memoryStore()) }
    return { clock, here: start(shared), there: start(shared) }
  }

  it('count together', async () => {
    const { here, there } = startTwo()
    const { key } = await issueKey(here.keys)
    await fail(here, LIMIT - 1)
    await fail(there, 1)
    expect(await there.keys.verify(key, FROM_HERE)).toMatchObject(BLOCKED)
    // The other process finds out by the next invalid key, and not by asking about good ones.
    expect(await here.keys.verify(key, FROM_HERE)).toMatchObject({ ok: true })
    await fail(here, 1)
    expect(await here.keys.verify(unknownTo(key), FROM_HERE)).toEqual({ ...BLOCKED, retryAfterMs: WINDOW_MS })
  })

  it('end their blocks together', async () => {
    const { here, there, clock } = startTwo()
    const { key } = await issueKey(here.keys)
    await fail(here)
    await clock.advance(20_000)
    await fail(there, 1)
    expect(await there.keys.verify(key, FROM_HERE)).toEqual({ ...BLOCKED, retryAfterMs: 40_000 })
  })

  it('know of a block also where one of them has counted many invalid keys at once', async () => {
    const { here, there } = startTwo()
    const { key } = await issueKey(here.keys)
    await Promise.all(Array.from({ length: 2 * LIMIT }, () => here.keys.verify('junk', FROM_HERE)))
    await settle()
    expect(await here.keys.verify(key, FROM_HERE)).toMatchObject(BLOCKED)
    await fail(there, 1)
    expect(await there.keys.verify(key, FROM_HERE)).toMatchObject(BLOCKED)
  })
})
