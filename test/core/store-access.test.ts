import { type KeyStore, memoryStore } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { recordingStore } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys } from '../support/test-keys.ts'

const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })

/** Keys in a store whose `list` is another; Alice and Bob have one each, which were revoked where that is asked for. */
async function createKeysWith(list: (inner: KeyStore) => KeyStore['list'], { revoked = false } = {}) {
  const inner = memoryStore()
  const store = recordingStore({ ...inner, list: list(inner) })
  const test = createTestKeys({ store })
  for (const owner of [ALICE, BOB]) {
    const { apiKey } = await test.keys.issue({ owner, name: 'CI', createdBy: 'admin' })
    if (revoked) await test.keys.revoke(apiKey.id)
    test.clock.set(test.clock.now() + 1)
  }
  const kept = () => inner.list({}, { limit: 1_000 })
  return { ...test, kept, before: await kept() }
}

describe('a store that ignores "owners", as one that was written for "owner"', () => {
  const ignoring = (inner: KeyStore): KeyStore['list'] => {
    return ({ owners: _, ...filter }, page) => inner.list(filter, page)
  }
  type Keys = Awaited<ReturnType<typeof createKeysWith>>['keys']

  it.each<[string, (keys: Keys) => Promise<unknown>]>([
    ['list', (keys) => keys.list({ owner: ALICE })],
    ['list of several', (keys) => keys.list({ owners: [ALICE, { type: 'organization', id: BOB.id }] })],
    ['revokeOwner', (keys) => keys.revokeOwner(ALICE)],
    ['revokeCreatedBy', (keys) => keys.revokeCreatedBy('admin', { owner: ALICE })],
    ['invalidateOwner', (keys) => keys.invalidateOwner(ALICE)],
    ['erase', (keys) => keys.erase(ALICE)],
  ])('is unavailable for %s, and no key is shown or changed', async (_what, call) => {
    const { keys, kept, before, eventsOf } = await createKeysWith(ignoring)
    await expect(call(keys)).rejects.toEqual(UNAVAILABLE)
    expect(await kept()).toEqual(before)
    const error = new TypeError('the store returned a key of an owner that was not requested')
    expect(eventsOf('fault')).toMatchObject([{ operation: 'store', error }])
  })

  it('is unavailable for purge, and no key is removed', async () => {
    const { keys, kept, before } = await createKeysWith(ignoring, { revoked: true })
    await expect(keys.purge({ owner: ALICE })).rejects.toEqual(UNAVAILABLE)
    expect(await kept()).toEqual(before)
  })

  it('may answer where only this owner has keys', async () => {
    const { keys } = await createKeysWith(ignoring)
    expect((await keys.list({ owners: [ALICE, BOB] })).apiKeys).toHaveLength(2)
  })
})

describe('a store whose listing is out of order', () => {
  it('is unavailable rather than have a page miss keys', async () => {
    const { keys } = await createKeysWith(
      (inner) => async (filter, page) => (await inner.list(filter, page)).reverse(),
    )
    await expect(keys.list()).rejects.toEqual(UNAVAILABLE)
    expect((await keys.list({ owner: ALICE })).apiKeys).toHaveLength(1)
  })

  it('is unavailable rather than have a revocation go on for ever, where it begins anew', async () => {
    const { keys } = await createKeysWith(
      (inner) =>
        (filter, { limit }) =>
          inner.list(filter, { limit }),
    )
    for (let i = 0; i < 500; i++) await keys.issue({ owner: ALICE, name: `${i}` })
    await expect(keys.revokeOwner(ALICE)).rejects.toEqual(UNAVAILABLE)
  })
})

describe('a store that ignores "order", as one that was written without', () => {
  const ignoring =
    (inner: KeyStore): KeyStore['list'] =>
    (filter, { order: _, ...page }) =>
      inner.list(filter, page)

  it('is unavailable rather than show the oldest as the newest', async () => {
    const { keys, eventsOf } = await createKeysWith(ignoring)
    await expect(keys.list({ order: 'newest' })).rejects.toEqual(UNAVAILABLE)
    await expect(keys.list({ order: 'newest', limit: 1 })).rejects.toEqual(UNAVAILABLE)
    const error = new TypeError('the store returned a listing that is out of order')
    expect(eventsOf('fault')[0]).toMatchObject({ operation: 'store', error })
    expect((await keys.list({ order: 'oldest' })).apiKeys).toHaveLength(2)
  })

  it('may answer where there is nothing to put in order', async () => {
    const { keys } = await createKeysWith(ignoring)
    expect((await keys.list({ owner: ALICE, order: 'newest' })).apiKeys).toHaveLength(1)
  })
})

describe('a store that ignores "expiresBefore"', () => {
  it('is unavailable rather than show a key that lasts as one that ends', async () => {
    const { keys, clock, eventsOf } = await createKeysWith(
      (inner) =>
        ({ expiresBefore: _, ...filter }, page) =>
          inner.list(filter, page),
    )
    const expiresBefore = new Date(clock.now() + 60_000)
    await expect(keys.list({ expiresBefore })).rejects.toEqual(UNAVAILABLE)
    const error = new TypeError('the store returned a key that does not expire before the requested time')
    expect(eventsOf('fault')).toMatchObject([{ operation: 'store', error }])
    for (const { id } of (await keys.list()).apiKeys) {
      await keys.update(id, { expiresAt: new Date(clock.now() + 60_000) })
    }
    // At the moment is not before it.
    await expect(keys.list({ expiresBefore })).rejects.toEqual(UNAVAILABLE)
  })
})
