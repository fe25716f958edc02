import {
  type ApiKeys,
  type IssueOptions,
  memoryRateLimiter,
  type RateLimit,
  type RateLimiter,
  type VerifiedKey,
  type VerifyOptions,
} from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { issueKey } from '../support/issue-key.ts'
import { createTestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const UNAVAILABLE = expect.objectContaining({ code: 'unavailable', status: 503 })
const FAILURE = new Error('connection refused')
const DAY_MS = 86_400_000
const WINDOW: RateLimit = { name: 'window', limit: 10, windowMs: 60_000 }
const BUCKET: RateLimit = { name: 'bucket', limit: 60, windowMs: 60_000, burst: 10 }
const DAY: RateLimit = { name: 'day', limit: 10, per: 'day', timeZone: 'Europe/Berlin' }

async function admit(keys: ApiKeys, key: string, options?: VerifyOptions): Promise<VerifiedKey> {
  const result = await keys.verify(key, options)
  if (!result.ok) throw new Error(`refused as ${result.code}`)
  return result
}

/** What is left of each limit and of the quota. */
async function leftOf(keys: ApiKeys, key: string): Promise<Record<string, number>> {
  const { limits } = await admit(keys, key, { cost: 0 })
  return Object.fromEntries(limits.map(({ name, remaining }) => [name, remaining]))
}

/** A key that has spent `cost`. */
async function spend(given: Partial<IssueOptions>, cost = 4) {
  const test = createTestKeys()
  const { key, apiKey } = await issueKey(test.keys, given)
  const result = await admit(test.keys, key, { cost })
  return { ...test, key, apiKey, result, left: () => leftOf(test.keys, key) }
}

describe('a refund of something that no verification has returned', () => {
  const LOOKALIKES: Record<string, (result: VerifiedKey) => unknown> = {
    nothing: () => undefined,
    null: () => null,
    'a text': () => 'result',
    'an object': () => ({ ok: true }),
    'a copy': (result) => ({ ...result }),
    'a copy by way of JSON': (result) => JSON.parse(JSON.stringify(result)),
    'a structured clone': (result) => structuredClone(result),
    'an heir of it': (result) => Object.create(result),
    'the promise of it': (result) => Promise.resolve(result),
  }
  it.each(Object.entries(LOOKALIKES))('is a mistake: %s', async (_what, make) => {
    const { keys, result, left } = await spend({ rateLimits: [WINDOW] })
    const refunding = keys.refund(make(result) as VerifiedKey)
    await expect(refunding).rejects.toThrow(TypeError)
    await expect(refunding).rejects.toThrow('"result" must be what "verify" returned when it admitted a key')
    expect(await left()).toEqual({ window: 6 })
    expect(await keys.refund(result)).toBe(true)
  })

  it('is a mistake: a refusal', async () => {
    const { keys, key, left } = await spend({ rateLimits: [WINDOW] })
    const refused = await keys.verify(key, { cost: 7 })
    expect(refused).toMatchObject({ code: 'rate_limited' })
    await expect(keys.refund(refused as never)).rejects.toThrow(TypeError)
    expect(await left()).toEqual({ window: 6 })
  })

  it('is a mistake: what keys with another limiter have returned, and those can still give it back', async () => {
    const other = createTestKeys()
    const { keys, result, left } = await spend({ rateLimits: [WINDOW] })
    await expect(other.keys.refund(result)).rejects.toThrow(TypeError)
    expect(await left()).toEqual({ window: 6 })
    expect(await keys.refund(result)).toBe(true)
    expect(await left()).toEqual({ window: 10 })
  })
})

describe('a refund that the limiter does not make', () => {
  it('is unsupported where the limiter cannot give back', async () => {
    const { settle: _settle, ...rateLimiter } = memoryRateLimiter()
    const { keys } = createTestKeys({ rateLimiter })
    const { key } = await issueKey(keys, { rateLimits: [WINDOW] })
    const result = await admit(keys, key)
    await expect(keys.refund(result)).rejects.toMatchObject({ code: 'unsupported', status: 501 })
  })

  const FAULTS: Record<string, () => unknown> = {
    throws: () => {
      throw FAILURE
    },
    rejects: () => Promise.reject(FAILURE),
    hangs: () => new Promise(() => {}),
  }
  it.each(Object.entries(FAULTS))(
    'is unavailable where the limiter %s, and what was spent stays spent',
    async (_how, fault) => {
      const unhandled = watchUnhandled()
      const { keys, limiter, clock, result, left, eventsOf } = await spend({ rateLimits: [WINDOW] })
      const refund = vi.spyOn(limiter as Required<RateLimiter>, 'settle').mockImplementation(fault as never)
      const refunding = expect(keys.refund(result)).rejects.toEqual(UNAVAILABLE)
      await clock.advance(5_000)
      await refunding
      expect(eventsOf('fault')).toMatchObject([{ operation: 'rate_limiter' }])
      // It may have arrived: a second try could give back twice.
      refund.mockRestore()
      expect(await keys.refund(result)).toBe(false)
      expect(await left()).toEqual({ window: 6 })
      expect(await unhandled()).toEqual([])
    },
  )
})

describe('a refund of nothing', () => {
  it.each<[string, Partial<IssueOptions>, number]>([
    ['where the call only looked', { rateLimits: [WINDOW], quota: { remaining: 10 } }, 0],
    ['where the key has neither limits nor quota', {}, 4],
  ])('is false: %s', async (_title, given, cost) => {
    const { keys, limiter, result } = await spend(given, cost)
    const refund = vi.spyOn(limiter as Required<RateLimiter>, 'settle')
    expect(await keys.refund(result)).toBe(false)
    expect(refund).not.toHaveBeenCalled()
  })

  it('is false: what bounded revocation admitted without asking', async () => {
    const { keys } = createTestKeys({ revocation: 'bounded' })
    const { key } = await issueKey(keys)
    expect(await keys.refund(await admit(keys, key))).toBe(false)
  })

  it('is false: the second time', async () => {
    const { keys, result, left } = await spend({ rateLimits: [WINDOW] })
    const refunds = await Promise.all(Array.from({ length: 5 }, () => keys.refund(result)))
    expect(refunds).toEqual([true, false, false, false, false])
    expect(await keys.refund(result)).toBe(false)
    expect(await left()).toEqual({ window: 10 })
  })
})

describe('a refund', () => {
  it.each<[string, Partial<IssueOptions>, Record<string, number>]>([
    ['a window', { rateLimits: [WINDOW] }, { window: 10 }],
    ['a bucket', { rateLimits: [BUCKET] }, { bucket: 10 }],
    ['a calendar period', { rateLimits: [DAY] }, { day: 10 }],
    ['a quota', { quota: { remaining: 10 } }, { quota: 10 }],
    [
      'all of them',
      { rateLimits: [WINDOW, BUCKET, DAY], quota: { remaining: 10 } },
      { window: 10, bucket: 10, day: 10, quota: 10 },
    ],
  ])('gives back to %s what the call has spent, and no more', async (_what, given, full) => {
    const { keys, key, result, left } = await spend(given)
    const names = Object.keys(full)
    expect(await left()).toEqual(Object.fromEntries(names.map((name) => [name, 6])))
    await admit(keys, key, { cost: 5 })
    expect(await keys.verify(key, { cost: 4 })).toMatchObject({ ok: false })
    expect(await keys.refund(result)).toBe(true)
    expect(await left()).toEqual(Object.fromEntries(names.map((name) => [name, 5])))
    expect(await keys.verify(key, { cost: 5 })).toMatchObject({ ok: true })
    expect(await keys.verify(key)).toMatchObject({ ok: false })
  })

  it('gives nothing back to a window that has ended, nor to the one after it', async () => {
    const { keys, key, clock, result, left } = await spend({ rateLimits: [WINDOW] })
    await clock.advance(60_000)
    await admit(keys, key, { cost: 7 })
    await keys.refund(result)
    expect(await left()).toEqual({ window: 3 })
  })

  it('gives nothing back to a day that has ended, nor to the one after it', async () => {
    const { keys, key, clock, result, left } = await spend({ rateLimits: [DAY] })
    await clock.advance(DAY_MS)
    await admit(keys, key, { cost: 7 })
    await keys.refund(result)
    expect(await left()).toEqual({ day: 3 })
  })

  it('gives back to a bucket only what has not leaked since', async () => {
    const { keys, key, clock, result, left } = await spend({ rateLimits: [BUCKET] })
    // A second call of 6: the bucket leaks one unit a second, whosoever it was.
    await admit(keys, key, { cost: 6 })
    await clock.advance(3_000)
    expect(await left()).toEqual({ bucket: 3 })
    await keys.refund(result)
    expect(await left()).toEqual({ bucket: 4 })
  })

  it('adds nothing to a quota that was set anew since', async () => {
    const { keys, apiKey, result, left } = await spend({ quota: { remaining: 10 } })
    await keys.update(apiKey.id, { quota: { remaining: 3 } })
    await keys.refund(result)
    expect(await left()).toEqual({ quota: 3 })
  })

  it('adds nothing to a quota that was refilled since', async () => {
    const refill = { amount: 10, per: 'day' } as const
    const { keys, key, clock, result, left } = await spend({ quota: { remaining: 10, refill } })
    await clock.advance(DAY_MS)
    await admit(keys, key, { cost: 3 })
    await keys.refund(result)
    expect(await left()).toEqual({ quota: 7 })
  })

  it('adds nothing to a quota that was refilled while the limiter’s answer was under way', async () => {
    const clock = fakeClock(Date.UTC(2026, 0, 15, 23, 59, 59))
    const inner = memoryRateLimiter({ clock })
    const rateLimiter = { ...inner, check: vi.fn<RateLimiter['check']>(inner.check) }
    const { keys } = createTestKeys({ clock, rateLimiter })
    const refill = { amount: 10, per: 'day' } as const
    const { key } = await issueKey(keys, { quota: { remaining: 10, refill } })
    await admit(keys, key)
    let answer = () => {}
    rateLimiter.check.mockImplementationOnce((request) => {
      const decided = inner.check(request)
      return new Promise((resolve) => {
        answer = () => resolve(decided)
      })
    })
    const charging = admit(keys, key, { cost: 4 })
    await clock.advance(1_000)
    await admit(keys, key, { cost: 3 })
    answer()
    await keys.refund(await charging)
    expect(await leftOf(keys, key)).toEqual({ quota: 7 })
  })

  it('reaches the limits that a rotated key shares with its successor', async () => {
    const { keys, apiKey, result } = await spend({ rateLimits: [WINDOW] })
    const successor = await keys.rotate(apiKey.id)
    expect(await leftOf(keys, successor.key)).toEqual({ window: 6 })
    await keys.refund(result)
    expect(await leftOf(keys, successor.key)).toEqual({ window: 10 })
  })

  it('is made by any keys that share the limiter, once', async () => {
    const { keys, limiter, store, clock, result, left } = await spend({ rateLimits: [WINDOW] })
    const other = createTestKeys({ store, clock, rateLimiter: limiter })
    const made = [await other.keys.refund(result), await keys.refund(result)]
    expect(made.filter(Boolean)).toHaveLength(1)
    expect(await left()).toEqual({ window: 10 })
  })

  it('does not follow what somebody does to the result', async () => {
    const { keys, result, left } = await spend({ rateLimits: [WINDOW] })
    Object.assign(result, { limits: [], cost: 100, ok: false })
    expect(await keys.refund(result)).toBe(true)
    expect(await left()).toEqual({ window: 10 })
  })
})
