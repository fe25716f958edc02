import { createApiKeys, type KeySelection, memoryRateLimiter, memoryStore, sanctumFormat } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { at, record } from '../support/key-records.ts'
import { answers, hangs, recordingStore, rejects } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, NAME } from '../support/test-keys.ts'

const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })
const DAY = 86_400_000

/** A store that cannot count. */
function storeWithoutCount() {
  const { count: _, ...store } = memoryStore()
  return recordingStore(store)
}

describe.each([
  ['a store that counts', () => recordingStore()],
  ['a store that only lists', storeWithoutCount],
])('the number of keys in %s', (_name, createStore) => {
  it.each<[string, unknown, string]>([
    ['a page', { limit: 10 }, '"selection" has no option "limit"'],
    ['a cursor', { cursor: 'x' }, '"selection" has no option "cursor"'],
    ['an order', { order: 'newest' }, '"selection" has no option "order"'],
    ['a misspelt name', { onwer: ALICE }, 'did you mean "owner"?'],
    ['a wrong owner', { owner: 'u_1' }, '"owner" must be'],
    ['a wrong status', { status: 'gone' }, '"status" must be "active"'],
    ['a wrong time', { expiresBefore: 1 }, '"expiresBefore" must be a valid Date'],
    ['an owner and owners', { owner: ALICE, owners: [] }, '"owners" cannot be given together with "owner"'],
  ])('is refused for %s, by name', async (_what, selection, message) => {
    const store = createStore()
    const { keys } = createTestKeys({ store })
    await expect(keys.count(selection as KeySelection)).rejects.toThrow(message)
    expect(store.calls()).toBe(0)
  })

  it('is unavailable where the store fails', async () => {
    const store = createStore()
    const { keys, eventsOf } = createTestKeys({ store })
    store.fail('list', rejects(new Error('down')))
    if ('count' in store) store.fail('count', rejects(new Error('down')))
    await expect(keys.count()).rejects.toEqual(UNAVAILABLE)
    expect(eventsOf('fault')).toMatchObject([{ operation: 'store' }])
  })

  it('is how many keys a list of the same would show', async () => {
    const { keys, clock } = createTestKeys({ store: createStore() })
    const owners = [ALICE, BOB, { type: 'organization', id: ALICE.id }]
    for (let i = 0; i < 30; i++) {
      const { apiKey } = await keys.issue({
        owner: owners[i % 3] ?? ALICE,
        name: `n${i % 4}`,
        createdBy: i % 2 === 0 ? 'admin' : null,
        expiresAt: i % 5 === 0 ? new Date(clock.now() + (i % 2 === 0 ? 1_000 : DAY)) : null,
      })
      if (i % 7 === 0) await keys.revoke(apiKey.id)
      if (i % 11 === 0) await keys.disable(apiKey.id).catch(() => {})
    }
    await clock.advance(1_000)
    const selections: KeySelection[] = [
      {},
      { owner: ALICE },
      { owners },
      { owners: [BOB, ALICE], status: 'active' },
      { createdBy: 'admin' },
      { name: 'n1' },
      { name: 'nobody’s' },
      { status: 'active' },
      { status: 'disabled' },
      { status: 'expired' },
      { status: 'revoked' },
      { expiresBefore: new Date(clock.now() + DAY) },
      { expiresBefore: new Date(clock.now() + DAY), status: 'active', owner: BOB },
    ]
    for (const selection of selections) {
      const { apiKeys } = await keys.list({ ...selection, limit: 1_000 })
      expect(await keys.count(selection), JSON.stringify(selection)).toBe(apiKeys.length)
    }
    expect(await keys.count()).toBe(30)
  })

  it('is none where no owner is named, and the store is not asked', async () => {
    const store = createStore()
    const { keys } = createTestKeys({ store })
    await keys.issue(NAME)
    store.forgetCalls()
    expect(await keys.count({ owners: [] })).toBe(0)
    expect(store.calls()).toBe(0)
  })
})

it.each([-1, 1.5, Number.NaN, '3', null, undefined])('is no count that a store answers %s', async (count) => {
  const { keys, store } = createTestKeys()
  store.fail('count', answers(count))
  await expect(keys.count()).rejects.toEqual(UNAVAILABLE)
})

it('waits for a store that counts no longer than for any other call', async () => {
  const { keys, store, clock } = createTestKeys({ timeoutMs: 1_000 })
  store.fail('count', hangs)
  const counted = expect(keys.count()).rejects.toEqual(UNAVAILABLE)
  await clock.advance(1_000)
  await counted
})

it('counts page by page, 1,000 keys at a time, where the store cannot', async () => {
  const store = storeWithoutCount()
  const { keys } = createTestKeys({ store })
  await store.insert(Array.from({ length: 2_001 }, (_, i) => record({ id: `k${i}`, createdAt: at(i) })))
  expect(await keys.count()).toBe(2_001)
  expect(store.argumentsOf('list').map(([, page]) => (page as { limit: number }).limit)).toEqual([
    1_000, 1_000, 1_000,
  ])
})

describe('the number of keys by digest', () => {
  const secret = (letter: string) => letter.repeat(32)

  it('is unavailable where the store fails', async () => {
    const { keys, store } = createTestKeys()
    store.fail('list', rejects(new Error('down')))
    await expect(keys.countByDigest()).rejects.toEqual(UNAVAILABLE)
  })

  it('shows nothing of a digest that names no scheme', async () => {
    const { keys, store } = createTestKeys()
    const digests = ['acme_live_secret', '$', '$$x', '$ACME$x', `$${'a'.repeat(33)}$x`]
    await store.insert(digests.map((digest, i) => record({ id: `k${i}`, digest })))
    expect(await keys.countByDigest()).toEqual([{ scheme: 'unknown', pepper: null, count: digests.length }])
  })

  it('is by scheme and pepper, of every key that is stored', async () => {
    const store = recordingStore()
    const issueWith = async (count: number, options: Parameters<typeof createTestKeys>[0]) => {
      const { keys } = createTestKeys({ store, ...options })
      for (let i = 0; i < count; i++) {
        const { apiKey } = await keys.issue(NAME)
        // Whatever becomes of a key, its digest stays as it is.
        if (i === 0) await keys.revoke(apiKey.id)
      }
      return keys
    }
    const older = { id: '2025', secret: secret('o') }
    await issueWith(3, { digest: 'sha256' })
    await issueWith(2, { peppers: [older] })
    await issueWith(1, { digest: { scheme: 'bcrypt', cost: 4 } })
    const keys = await issueWith(4, { peppers: [{ id: '2026', secret: secret('n') }, older] })
    const counts = [
      { scheme: 'bcrypt-sha256', pepper: null, count: 1 },
      { scheme: 'hmac-sha256', pepper: '2025', count: 2 },
      { scheme: 'hmac-sha256', pepper: '2026', count: 4 },
      { scheme: 'sha256', pepper: null, count: 3 },
    ]
    expect(await keys.countByDigest()).toEqual(counts)
    expect(store.calls('count')).toBe(0)
  })

  it('takes an imported digest for one of its scheme, whatever part of the key it covers', async () => {
    const format = sanctumFormat()
    const keys = createApiKeys({
      store: memoryStore(),
      rateLimiter: memoryRateLimiter(),
      prefix: 'acme',
      formats: [format],
    })
    await keys.import(
      format.read({
        id: 7,
        tokenable_type: 'User',
        tokenable_id: 1,
        name: 'CI',
        token: 'ab'.repeat(32),
      } as never),
    )
    await keys.issue(NAME)
    expect(await keys.countByDigest()).toEqual([{ scheme: 'sha256', pepper: null, count: 2 }])
  })

  it('says when an old pepper may go, once digests were upgraded', async () => {
    const store = recordingStore()
    const older = { id: '2025', secret: secret('o') }
    const first = createTestKeys({ store, peppers: [older] })
    const { key } = await first.keys.issue(NAME)
    const peppers = [{ id: '2026', secret: secret('n') }, older]
    const { keys } = createTestKeys({ store, peppers, upgradeDigests: true })
    expect(await keys.countByDigest()).toEqual([{ scheme: 'hmac-sha256', pepper: '2025', count: 1 }])
    expect((await keys.verify(key)).ok).toBe(true)
    await keys.flush()
    expect(await keys.countByDigest()).toEqual([{ scheme: 'hmac-sha256', pepper: '2026', count: 1 }])
  })

  it('reads 1,000 keys at a time', async () => {
    const { keys, store } = createTestKeys()
    const digest = `$sha256$${'A'.repeat(43)}`
    await store.insert(
      Array.from({ length: 1_500 }, (_, i) => record({ id: `k${i}`, digest, createdAt: at(i) })),
    )
    expect(await keys.countByDigest()).toEqual([{ scheme: 'sha256', pepper: null, count: 1_500 }])
    expect(store.calls('list')).toBe(2)
  })
})
