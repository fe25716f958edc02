import { memoryRateLimiter } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, forgeKey, NAME, partsOf } from '../support/test-keys.ts'

const ID = 'abcdefgh12345678'
const DUPLICATE = expect.objectContaining({ name: 'LatchkeyError', code: 'duplicate_key', status: 409 })
const CONFLICT = expect.objectContaining({ name: 'LatchkeyError', code: 'conflict' })
const WRONG = [
  '',
  'short',
  'abcdefgh123456789',
  'abcdefgh1234567_',
  'abcdefgh1234567\n',
  'äbcdefgh12345678',
  7,
  null,
]

/** What became of calls at the same time. */
async function race<T>(calls: readonly Promise<T>[]) {
  const settled = await Promise.allSettled(calls)
  return {
    won: settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : [])),
    lost: settled.flatMap((one) => (one.status === 'rejected' ? [one.reason] : [])),
  }
}

describe('issue with an id', () => {
  it.each(WRONG)('refuses %j, by name, and stores nothing', async (id) => {
    const { keys, store } = createTestKeys()
    const refused = expect(keys.issue({ ...NAME, id: id as string })).rejects
    await refused.toThrow(/^"id" must be 16 letters and digits, received (?!.*abcdefgh)/)
    expect(store.calls()).toBe(0)
  })

  it('has one winner of those that ask at once, and its key alone works', async () => {
    const { keys, eventsOf } = createTestKeys()
    const owners = [ALICE, BOB, ALICE, BOB, ALICE]
    const { won, lost } = await race(owners.map((owner, i) => keys.issue({ owner, name: `${i}`, id: ID })))
    expect(won).toHaveLength(1)
    expect(lost).toEqual(Array(4).fill(DUPLICATE))
    expect(won[0]?.apiKey.id).toBe(ID)
    expect(await keys.verify(won[0]?.key ?? '')).toMatchObject({ ok: true, apiKey: won[0]?.apiKey })
    expect((await keys.list()).apiKeys).toMatchObject([{ id: ID, name: won[0]?.apiKey.name }])
    expect(eventsOf('key.issued')).toHaveLength(1)
  })

  it('fails with duplicate_key where the key is there already, whatever has become of it', async () => {
    const { keys } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, id: ID })
    expect(partsOf(key).keyId).toBe(ID)
    await expect(keys.issue({ owner: BOB, name: 'other', id: ID })).rejects.toEqual(DUPLICATE)
    await keys.revoke(apiKey.id)
    await expect(keys.issue({ ...NAME, id: ID })).rejects.toEqual(DUPLICATE)
    expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
  })

  it('tells the truth where the store loses its reply, of its own key and of another', async () => {
    const { keys, store } = createTestKeys()
    store.fail('insert', async (work) => {
      await work()
      throw new Error('connection reset')
    })
    const { key } = await keys.issue({ ...NAME, id: ID })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    // Another call finds the id taken, and hears nothing: it must not take the key that is there for its own.
    store.fail('insert', rejects(new Error('connection reset')))
    await expect(keys.issue({ ...NAME, id: ID })).rejects.toMatchObject({ code: 'unavailable' })
    store.heal()
    await expect(keys.issue({ ...NAME, id: ID })).rejects.toEqual(DUPLICATE)
    expect((await keys.list()).apiKeys).toHaveLength(1)
  })

  it('takes an id again whose key was purged, and inherits nothing of that one', async () => {
    const clock = fakeClock()
    const rateLimiter = memoryRateLimiter({ clock })
    const { keys } = createTestKeys({
      clock,
      rateLimiter,
      ownerPermissions: ({ id }) => (id === ALICE.id ? {} : null),
    })
    const settings = {
      id: ID,
      permissions: { a: ['x'] },
      rateLimits: [{ name: 'day', limit: 3, windowMs: 86_400_000 }],
      quota: { remaining: 5 },
    }
    const first = await keys.issue({ ...NAME, ...settings })
    await keys.verify(first.key, { cost: 3 })
    // A version that was raised often, within a moment, is not to outlive the key.
    for (let i = 0; i < 5; i++) await keys.update(ID, { name: `${i}` })
    await keys.verify(first.key, { cost: 0 })
    await keys.revoke(ID)
    await keys.verify(first.key)
    await clock.advance(10)
    expect(await keys.purge({ endedBefore: new Date(clock.now()) })).toBe(1)
    const { key, apiKey } = await keys.issue({ owner: BOB, name: 'second', ...settings })
    const verified = await keys.verify(key, { permissions: { a: ['x'] }, cost: 3 })
    expect(verified).toMatchObject({ ok: true, apiKey: { id: ID, owner: BOB } })
    expect(await keys.get(ID)).toMatchObject({ quota: { remaining: 2 } })
    expect(apiKey.lineageId).not.toBe(first.apiKey.lineageId)
    expect(await keys.verify(first.key)).toMatchObject({ reason: 'wrong_secret' })
    await keys.revoke(ID)
    expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
  })

  it('gives a key that works at once, though its id was unknown here, or is just found to be', async () => {
    const { keys, store } = createTestKeys()
    const { key: other } = await keys.issue(NAME)
    const unknown = forgeKey(other, { keyId: ID })
    expect(await keys.verify(unknown)).toMatchObject({ reason: 'unknown' })
    const late = 'ABCDEFGH12345678'
    const reading = store.hold('find')
    const underWay = keys.verify(forgeKey(other, { keyId: late }))
    await reading.reached
    const issued = [await keys.issue({ ...NAME, id: ID }), await keys.issue({ ...NAME, id: late })]
    // One more asks while that read is under way, which knows nothing of the key.
    const meanwhile = keys.verify(issued[1]?.key ?? '')
    reading.release()
    expect(await underWay).toMatchObject({ reason: 'unknown' })
    expect(await meanwhile).toMatchObject({ ok: true })
    for (const { key } of issued) expect(await keys.verify(key)).toMatchObject({ ok: true })
  })
})

describe('rotate with a successorId', () => {
  it.each(WRONG)('refuses %j, by name, and changes nothing', async (successorId) => {
    const { keys, store } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    store.forgetCalls()
    const refused = expect(keys.rotate(apiKey.id, { successorId: successorId as string })).rejects
    await refused.toThrow(/^"successorId" must be 16 letters and digits/)
    expect(store.calls()).toBe(0)
  })

  it('has one winner of those that ask at once; its successor works, and the key ends with its grace', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    const { won, lost } = await race([1, 2, 3].map(() => keys.rotate(apiKey.id, { successorId: ID })))
    expect(won).toHaveLength(1)
    expect(lost).toEqual(Array(2).fill(DUPLICATE))
    expect(await keys.verify(won[0]?.key ?? '')).toMatchObject({
      ok: true,
      apiKey: { id: ID, lineageId: apiKey.id },
    })
    expect(await keys.get(apiKey.id)).toMatchObject({ rotatedTo: ID })
    expect((await keys.list()).apiKeys).toHaveLength(2)
    await clock.advance(86_400_000)
    expect(await keys.verify(key)).toMatchObject({ reason: 'expired' })
    expect(await keys.verify(won[0]?.key ?? '')).toMatchObject({ ok: true })
  })

  it('says duplicate_key to a repetition, and conflict to anything else, whatever has become of the keys', async () => {
    const { keys, clock } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    await keys.rotate(apiKey.id, { successorId: ID, graceMs: 1_000 })
    const expectTold = async () => {
      await expect(keys.rotate(apiKey.id, { successorId: ID })).rejects.toEqual(DUPLICATE)
      await expect(keys.rotate(apiKey.id, { successorId: 'x'.repeat(16) })).rejects.toEqual(CONFLICT)
      await expect(keys.rotate(apiKey.id)).rejects.toEqual(CONFLICT)
    }
    await expectTold()
    await clock.advance(1_000)
    await expectTold()
    await keys.revoke(ID)
    await keys.revoke(apiKey.id)
    await expectTold()
    expect((await keys.list()).apiKeys).toHaveLength(2)
  })

  it('leaves the key alone where the id is that of another key', async () => {
    const { keys } = createTestKeys()
    await keys.issue({ owner: BOB, name: 'other', id: ID })
    const { key, apiKey } = await keys.issue(NAME)
    for (const successorId of [ID, apiKey.id]) {
      await expect(keys.rotate(apiKey.id, { successorId })).rejects.toEqual(DUPLICATE)
    }
    expect(await keys.get(apiKey.id)).toEqual(apiKey)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(await keys.get(ID)).toMatchObject({ owner: BOB, revokedAt: null })
  })

  it('may be tried again where a race was lost', async () => {
    const { keys, store } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const held = store.hold('find')
    const rotating = keys.rotate(apiKey.id, { successorId: ID })
    await held.reached
    await keys.update(apiKey.id, { name: 'renamed' })
    held.release()
    await expect(rotating).rejects.toEqual(CONFLICT)
    const { key } = await keys.rotate(apiKey.id, { successorId: ID })
    expect(await keys.verify(key)).toMatchObject({ ok: true, apiKey: { id: ID, name: 'renamed' } })
  })
})
