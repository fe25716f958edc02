import type { RateLimiter, ServiceRateLimit } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { createTestKeys } from '../support/test-keys.ts'

const MINUTE: ServiceRateLimit = { name: 'minute', limit: 10, windowMs: 60_000 }
const TEAM: ServiceRateLimit = { name: 'team', limit: 100, windowMs: 60_000, scope: 'owner' }
const TOKENS: ServiceRateLimit = { name: 'tokens', limit: 50, windowMs: 60_000, only: 'named' }

async function setUp() {
  const test = createTestKeys({ rateLimits: [MINUTE, TEAM, TOKENS] })
  const { key, apiKey } = await issueKey(test.keys, { quota: { remaining: 40 } })
  return { ...test, key, id: apiKey.id }
}

describe('keys.limits()', () => {
  it('is null for an id that no key has', async () => {
    const { keys } = await setUp()
    expect(await keys.limits('nobody')).toBeNull()
  })

  it.each([undefined, null, 5, {}])('takes %j for the mistake that it is to get()', async (id) => {
    const { keys } = await setUp()
    const mistake = '"id" must be a string'
    await expect(keys.limits(id as never)).rejects.toThrow(mistake)
    await expect(keys.get(id as never)).rejects.toThrow(mistake)
  })

  it('is null for the text of a key, which the store never sees', async () => {
    const { keys, key, store } = await setUp()
    const find = vi.spyOn(store, 'find')
    expect(await keys.limits(key)).toBeNull()
    expect(find).not.toHaveBeenCalled()
  })

  it('shows every limit of the key and its owner, and the quota, and spends nothing', async () => {
    const { keys, key, id } = await setUp()
    const sibling = await issueKey(keys)
    await keys.verify(key, { cost: { tokens: 5, quota: 3 } })
    await keys.verify(sibling.key, { cost: 4 })
    for (let i = 0; i < 3; i++) {
      expect(await keys.limits(id)).toMatchObject([
        { name: 'minute', remaining: 9 },
        { name: 'tokens', remaining: 45 },
        { name: 'team', remaining: 95 },
        { name: 'quota', remaining: 37 },
      ])
    }
  })

  it('shows what settings a key has now, whatever is cached', async () => {
    const { keys, key, id, store } = await setUp()
    await keys.verify(key)
    const other = createTestKeys({ store })
    await other.keys.update(id, { rateLimits: [{ ...MINUTE, limit: 4 }], quota: null })
    expect(await keys.limits(id)).toMatchObject([
      { name: 'minute', limit: 4, remaining: 3 },
      { name: 'team' },
    ])
  })

  it.each(['disable', 'revoke'] as const)('shows those of a key after %s', async (change) => {
    const { keys, key, id } = await setUp()
    await keys.verify(key)
    await keys[change](id)
    expect(await keys.limits(id)).toMatchObject([{ remaining: 9 }, {}, {}, { remaining: 39 }])
  })

  it('asks the limiter to spend nothing and to guess nothing, of what was read just now', async () => {
    const { keys, id, limiter } = await setUp()
    const check = vi.spyOn(limiter, 'check')
    await keys.limits(id)
    expect(check.mock.calls).toMatchObject([[{ cost: 0, fresh: true, isExact: true, keyId: id }]])
    expect(check.mock.calls[0]?.[0].places).toBeUndefined()
  })

  it('shows places that are taken, and takes none', async () => {
    const EXPORTS: ServiceRateLimit = { name: 'exports', concurrent: 2 }
    const { keys, limiter } = createTestKeys({ rateLimits: [EXPORTS] })
    const { key, apiKey } = await issueKey(keys)
    await keys.verify(key)
    const check = vi.spyOn(limiter, 'check')
    for (let i = 0; i < 3; i++) {
      expect(await keys.limits(apiKey.id)).toMatchObject([{ name: 'exports', remaining: 1 }])
    }
    expect(check.mock.calls[0]?.[0].places).toMatchObject({ id: '-', limits: [{ name: 'exports' }] })
  })

  it('is null for a key that was purged while it was looked for, whoever has its lookup now', async () => {
    const { keys, id, store } = await setUp()
    const record = await store.find({ id })
    const found = (later: unknown) => async (_work: unknown, by: unknown) =>
      'id' in (by as object) ? record : later
    store.fail('find', found(null))
    expect(await keys.limits(id)).toBeNull()
    store.fail('find', found({ ...record, id: 'another', lineageId: 'another' }))
    expect(await keys.limits(id)).toBeNull()
  })

  it('reads again what the limiter knows to be old, three times at most', async () => {
    const { keys, id, limiter, eventsOf } = await setUp()
    const check = vi.spyOn(limiter, 'check')
    check
      .mockImplementationOnce(() => ({ outcome: 'stale' }))
      .mockImplementationOnce(() => ({ outcome: 'stale' }))
    expect(await keys.limits(id)).toMatchObject([{ name: 'minute', remaining: 10 }, {}, {}, {}])
    expect(eventsOf('fault')).toEqual([])
    check.mockClear().mockImplementation(() => ({ outcome: 'stale' }))
    await expect(keys.limits(id)).rejects.toMatchObject({ code: 'unavailable' })
    expect(check).toHaveBeenCalledTimes(3)
    expect(eventsOf('fault')).toMatchObject([
      {
        operation: 'store',
        error: { message: 'the store keeps returning a record older than its latest change' },
      },
    ])
  })

  it('says which of the two has failed', async () => {
    const { keys, id, limiter, eventsOf } = await setUp()
    vi.spyOn(limiter, 'check').mockImplementationOnce((() =>
      Promise.reject(new Error('down'))) as RateLimiter['check'])
    await expect(keys.limits(id)).rejects.toMatchObject({ code: 'unavailable' })
    expect(eventsOf('fault')).toMatchObject([{ operation: 'rate_limiter' }])
  })

  it('is unavailable where the limiter or the store fails', async () => {
    const { keys, id, limiter, store } = await setUp()
    vi.spyOn(limiter, 'check').mockImplementationOnce((() =>
      Promise.reject(new Error('down'))) as RateLimiter['check'])
    await expect(keys.limits(id)).rejects.toMatchObject({ code: 'unavailable' })
    vi.spyOn(limiter, 'check').mockImplementation(() => ({ outcome: 'stale' }))
    await expect(keys.limits(id)).rejects.toMatchObject({ code: 'unavailable' })
    store.fail('find', () => Promise.reject(new Error('down')))
    await expect(keys.limits(id)).rejects.toMatchObject({ code: 'unavailable' })
  })
})
