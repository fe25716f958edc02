import { type ApiKeys, type Cost, type IssueOptions, memoryRateLimiter, type RateLimit } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { createTestKeys } from '../support/test-keys.ts'

const MINUTE: RateLimit = { name: 'minute', limit: 10, windowMs: 60_000 }
const TOKENS: RateLimit = { name: 'tokens', limit: 1_000, windowMs: 60_000, only: 'named' }
const EXPORTS: RateLimit = { name: 'exports', limit: 2, per: 'day', only: 'named' }

async function setUp(given: Partial<IssueOptions> = {}) {
  const test = createTestKeys({ rateLimits: [MINUTE, TOKENS, EXPORTS] })
  const { key, apiKey } = await issueKey(test.keys, given)
  const left = () => leftOf(test.keys, key)
  return {
    ...test,
    key,
    apiKey,
    left,
    ask: (cost?: Cost) => test.keys.verify(key, cost === undefined ? {} : { cost }),
  }
}

async function leftOf(keys: ApiKeys, key: string): Promise<Record<string, number>> {
  const result = await keys.verify(key, { cost: 0 })
  if (!result.ok) throw new Error(`refused as ${result.code}`)
  return Object.fromEntries(result.limits.map(({ name, remaining }) => [name, remaining]))
}

const UNTOUCHED = { minute: 10, tokens: 1_000, exports: 2 }

describe('a cost that is wrong', () => {
  it.each<[string, unknown, string]>([
    ['below zero', -1, '"cost" must be a'],
    ['a fraction', 1.5, '"cost" must be a'],
    ['no number', Number.NaN, '"cost" must be a'],
    ['without end', Infinity, '"cost" must be a'],
    ['a text', '5', '"cost" must be an integer'],
    ['null', null, '"cost" must be an integer'],
    ['a list', [5], '"cost" must be an integer'],
    ['a map', new Map([['tokens', 5]]), '"cost" must be an integer'],
    ['of a limit, below zero', { tokens: -1 }, '"cost.tokens" must be'],
    ['of a limit, a fraction', { tokens: 0.5 }, '"cost.tokens" must be'],
    ['of a limit, no number', { tokens: '5' }, '"cost.tokens" must be'],
    ['of a limit, undefined', { tokens: undefined }, '"cost.tokens" must be'],
    ['of a limit that nobody has', { token: 5 }, '"cost" names the limit "token", which neither'],
    ['of a limit and another that nobody has', { tokens: 5, token: 5 }, '"cost" names the limit "token"'],
    ['of what cannot be a limit', { 'a b': 5 }, '"cost" must have names of limits as members'],
    ['of a member of objects', { constructor: 5 }, '"cost" names the limit "constructor"'],
  ])('is a mistake that spends nothing: %s', async (_what, cost, message) => {
    const { ask, left } = await setUp()
    await expect(ask(cost as Cost)).rejects.toThrow(TypeError)
    await expect(ask(cost as Cost)).rejects.toThrow(message)
    expect(await left()).toEqual(UNTOUCHED)
  })

  it('stays what it was when it was checked, while the key is looked for', async () => {
    const { keys, key, left, store } = await setUp()
    const cost = { tokens: 100 }
    const options: { cost: Cost } = { cost }
    const load = store.hold('find')
    const verifying = keys.verify(key, options)
    await load.reached
    cost.tokens = -500
    options.cost = -500
    load.release()
    expect(await verifying).toMatchObject({ ok: true })
    expect(await left()).toEqual({ ...UNTOUCHED, minute: 9, tokens: 900 })
  })

  it('is not shown if it may be a key', async () => {
    const { ask, key } = await setUp()
    const error = await ask({ [key]: 1 }).catch((thrown: Error) => thrown)
    expect(String(error)).not.toContain(key.slice(-20))
  })
})

describe('a limit that counts only what names it', () => {
  it('refuses a wrong setting by name', () => {
    for (const only of ['name', true, null]) {
      const rateLimits = [{ ...MINUTE, only }] as never
      expect(() => createTestKeys({ rateLimits })).toThrow('"rateLimits[0].only" must be')
    }
  })

  it('neither counts nor shows nor refuses other calls', async () => {
    const { ask, left } = await setUp()
    await ask({ exports: 2 })
    expect(await ask()).toMatchObject({ ok: true, limits: [{ name: 'minute', remaining: 8 }] })
    expect(await ask(3)).toMatchObject({ ok: true, limits: [{ name: 'minute', remaining: 5 }] })
    expect(await ask({})).toMatchObject({ ok: true, limits: [{ name: 'minute', remaining: 4 }] })
    expect(await left()).toEqual({ minute: 4, tokens: 1_000, exports: 0 })
  })

  it('counts what names it, and the others one unit', async () => {
    const { ask, left } = await setUp()
    const answer = await ask({ tokens: 600 })
    expect(answer).toMatchObject({
      limits: [
        { name: 'minute', remaining: 9 },
        { name: 'tokens', remaining: 400 },
      ],
    })
    expect(await ask({ tokens: 100, minute: 4, exports: 1 })).toMatchObject({ ok: true })
    expect(await left()).toEqual({ minute: 5, tokens: 300, exports: 1 })
  })

  it('refuses what it has no room for, which spends nothing of the others', async () => {
    const { ask, left } = await setUp()
    await ask({ tokens: 600 })
    expect(await ask({ tokens: 401 })).toMatchObject({
      code: 'rate_limited',
      retryAfterMs: 60_000,
      limits: [
        { name: 'minute', exceeded: false },
        { name: 'tokens', exceeded: true },
      ],
    })
    expect(await ask({ tokens: 1_001 })).toMatchObject({ code: 'rate_limited', retryAfterMs: null })
    expect(await left()).toEqual({ minute: 9, tokens: 400, exports: 2 })
  })

  it('must have room for one unit where a call costs it none', async () => {
    const { ask, clock, left } = await setUp()
    expect(await ask({ tokens: 0 })).toMatchObject({ ok: true })
    await ask({ tokens: 1_000 })
    expect(await ask({ tokens: 0 })).toMatchObject({ code: 'rate_limited', retryAfterMs: 60_000 })
    expect(await left()).toEqual({ minute: 8, tokens: 0, exports: 2 })
    await clock.advance(60_000)
    expect(await ask({ tokens: 0, minute: 0 })).toMatchObject({ ok: true })
    // Nothing was spent, so no window has opened.
    expect(await ask(0)).toMatchObject({ limits: [{ resetMs: null }, { resetMs: null }, { remaining: 2 }] })
  })

  it('holds for the limits that a key has of its own', async () => {
    const { ask, left } = await setUp({ rateLimits: [{ ...TOKENS, limit: 5 }] })
    expect(await ask({ tokens: 5 })).toMatchObject({ ok: true })
    expect(await ask({ tokens: 1 })).toMatchObject({ code: 'rate_limited' })
    // The service has such a limit, but this key has not.
    expect(await ask({ exports: 1_000_000 })).toMatchObject({ ok: true, limits: [] })
    expect(await left()).toEqual({ tokens: 0 })
  })

  it('shares the count with a limit of that name that every call counts on', async () => {
    const { keys, key, apiKey, ask, left } = await setUp({ rateLimits: [TOKENS] })
    await ask({ tokens: 300 })
    const { only: _only, ...every } = TOKENS
    await keys.update(apiKey.id, { rateLimits: [every] })
    expect(await leftOf(keys, key)).toEqual({ tokens: 700 })
    await ask()
    expect(await left()).toEqual({ tokens: 699 })
  })
})

describe('a quota', () => {
  it('costs what a cost names, and one unit otherwise', async () => {
    const { ask, left } = await setUp({ quota: { remaining: 20 } })
    await ask({ quota: 7 })
    await ask({ tokens: 100 })
    expect(await left()).toMatchObject({ minute: 8, tokens: 900, quota: 12 })
    expect(await ask({ quota: 13 })).toMatchObject({ code: 'quota_exceeded' })
    expect(await left()).toMatchObject({ minute: 8, quota: 12 })
  })

  it('must have a unit left where a call costs it none', async () => {
    const { ask, left } = await setUp({ quota: { remaining: 2 } })
    expect(await ask({ quota: 0 })).toMatchObject({ ok: true, limits: [{}, { name: 'quota', remaining: 2 }] })
    await ask({ quota: 2 })
    expect(await ask({ quota: 0 })).toMatchObject({ code: 'quota_exceeded' })
    expect(await left()).toMatchObject({ minute: 8, quota: 0 })
  })

  it('gets back the unit that had to be there where a limit refuses, or the limiter fails', async () => {
    const { ask, limiter, left } = await setUp({ quota: { remaining: 2 } })
    await ask({ quota: 0, minute: 10 })
    expect(await ask({ quota: 0 })).toMatchObject({ code: 'rate_limited' })
    vi.spyOn(limiter, 'check').mockImplementationOnce(() => {
      throw new Error('connection refused')
    })
    await expect(ask({ quota: 0 })).rejects.toMatchObject({ code: 'unavailable' })
    expect(await left()).toMatchObject({ quota: 2 })
  })
})

it('asks a limiter of a key without named limits as before', async () => {
  const rateLimiter = memoryRateLimiter()
  const check = vi.spyOn(rateLimiter, 'check')
  const { keys } = createTestKeys({ rateLimiter, rateLimits: [MINUTE] })
  const { key } = await issueKey(keys)
  await keys.verify(key, { cost: 4 })
  await keys.verify(key, { cost: { minute: 4 } })
  for (const [request] of check.mock.calls) {
    expect(request).toMatchObject({ cost: 4, costs: undefined, owner: undefined })
  }
  expect(check).toHaveBeenCalledTimes(2)
})
