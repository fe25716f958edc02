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
