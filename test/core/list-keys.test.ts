import fc from 'fast-check'
import { type ApiKey, type ListOptions, memoryStore, type Owner } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { recordingStore, rejects } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys } from '../support/test-keys.ts'

const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })
const ownerOf = (i: number): Owner => ({ type: 'user', id: `u_${i}` })
const idsOf = (apiKeys: readonly ApiKey[]) => apiKeys.map(({ id }) => id)

type Keys = ReturnType<typeof createTestKeys>['keys']

/** Every page, up to the last. */
async function listAll(keys: Keys, options: ListOptions, onPage = async () => {}): Promise<ApiKey[]> {
  const seen: ApiKey[] = []
  for (let cursor: string | undefined; ; ) {
    const page = await keys.list({ ...options, ...(cursor && { cursor }) })
    seen.push(...page.apiKeys)
    cursor = page.nextCursor
    if (!cursor) return seen
    await onPage()
  }
}

describe('a listing of several owners', () => {
  it.each<[string, unknown, string]>([
    ['no list', ALICE, '"owners" must be an array'],
    ['null', null, '"owners" must be an array'],
    ['a wrong owner', [ALICE, { type: 'user' }], '"owners[1].id" must be'],
    ['101 owners', Array.from({ length: 101 }, (_, i) => ownerOf(i)), '"owners" must have at most 100'],
  ])('refuses %s, by name', async (_what, owners, message) => {
    const { keys, store } = createTestKeys()
    const refused = expect(keys.list({ owners: owners as Owner[] })).rejects
    await refused.toThrow(message)
    expect(store.calls()).toBe(0)
  })

  it('refuses "owner" beside it', async () => {
    const { keys } = createTestKeys()
    await expect(keys.list({ owner: ALICE, owners: [BOB] })).rejects.toThrow(
      '"owners" cannot be given together',
    )
  })

  it('shows no key at all where it names no owner', async () => {
    const { keys } = createTestKeys()
    await keys.issue({ owner: ALICE, name: 'a' })
    expect(await keys.list({ owners: [] })).toEqual({ apiKeys: [] })
  })

  it('is unavailable where its read fails, or comes out of order', async () => {
    const { keys, store, clock } = createTestKeys()
    for (const owner of [ALICE, BOB]) {
      await keys.issue({ owner, name: 'CI' })
      await clock.advance(1)
    }
    const list = () => keys.list({ owners: [ALICE, BOB], limit: 30 })
    const [first] = await store.list({ owners: [ALICE] }, { limit: 1 })
    store.fail('list', async (work) => ((await work()) as unknown[]).reverse())
    await expect(list()).rejects.toEqual(UNAVAILABLE)
    store.fail('list', async () => [first, first])
    await expect(list()).rejects.toEqual(UNAVAILABLE)
    store.fail('list', rejects(new Error('down')))
    await expect(list()).rejects.toEqual(UNAVAILABLE)
  })

  it('names an owner once, however often it was given', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue({ owner: ALICE, name: 'a' })
    await keys.issue({ owner: { type: 'organization', id: ALICE.id }, name: 'other' })
    const { apiKeys } = await keys.list({ owners: [ALICE, { ...ALICE }, BOB, ALICE] })
    expect(idsOf(apiKeys)).toEqual([apiKey.id])
  })

  it('is the listing of all, without the others, for any keys and any size of a page', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ owner: fc.nat(4), afterMs: fc.nat(1), isNamed: fc.boolean() }), {
          maxLength: 60,
        }),
        fc.uniqueArray(fc.nat(5), { maxLength: 6 }),
        fc.integer({ min: 1, max: 25 }),
        async (issued, owners, limit) => {
          const clock = fakeClock()
          const { keys } = createTestKeys({ clock })
          for (const { owner, afterMs, isNamed } of issued) {
            clock.set(clock.now() + afterMs)
            await keys.issue({ owner: ownerOf(owner), name: isNamed ? 'named' : 'other' })
          }
          const wanted = new Set(owners.map((owner) => ownerOf(owner).id))
          const all = await listAll(keys, { name: 'named' })
          const merged = await listAll(keys, { name: 'named', owners: owners.map(ownerOf), limit })
          expect(merged).toEqual(all.filter(({ owner }) => wanted.has(owner.id)))
        },
      ),
      { numRuns: 150 },
    )
  })

  it('shows every key once, and none late, while others are issued between its pages', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(3), { maxLength: 30 }),
        fc.array(fc.array(fc.nat(3), { maxLength: 3 }), { maxLength: 40 }),
        fc.integer({ min: 1, max: 12 }),
        async (issued, late, limit) => {
          const clock = fakeClock()
          const inner = memoryStore()
          const store = recordingStore(inner)
          const { keys } = createTestKeys({ clock, store })
          const issue = async (owner: number) => {
            clock.set(clock.now() + 1)
            await keys.issue({ owner: ownerOf(owner), name: 'key' })
          }
          for (const owner of issued) await issue(owner)
          const before = idsOf(await listAll(keys, {}))
          // One read after the other answers as of now, and then keys appear that it has not seen.
          let reading: Promise<unknown> = Promise.resolve()
          store.fail('list', (work) => {
            reading = reading.then(async () => {
              const answer = await work()
              for (const owner of late.shift() ?? []) await issue(owner)
              return answer
            })
            return reading
          })
          const seen = await listAll(keys, { owners: [0, 1, 2, 3].map(ownerOf), limit })
          store.heal()
          const all = idsOf(await listAll(keys, {}))
          // No gap: what was seen is the beginning of what there is.
          expect(idsOf(seen)).toEqual(all.slice(0, seen.length))
          expect(seen.length).toBeGreaterThanOrEqual(before.length)
        },
      ),
      { numRuns: 150 },
    )
  })

  it('includes what has resolved before, by a process whose clock is ahead', async () => {
    const inner = memoryStore()
    const here = createTestKeys({ store: recordingStore(inner) })
    const ahead = createTestKeys({ store: recordingStore(inner), clock: fakeClock(here.clock.now() + 5_000) })
    const { apiKey } = await ahead.keys.issue({ owner: ALICE, name: 'a' })
    const later = await here.keys.issue({ owner: BOB, name: 'b' })
    const { apiKeys } = await here.keys.list({ owners: [ALICE, BOB] })
    expect(idsOf(apiKeys)).toEqual([later.apiKey.id, apiKey.id])
  })

  it('asks the store once, and names each owner once', async () => {
    const { keys, store } = createTestKeys()
    const owners = Array.from({ length: 100 }, (_, i) => ownerOf(i))
    await keys.list({ owners: [...owners.slice(1), ownerOf(7)] })
    expect(store.argumentsOf('list')).toEqual([[{ owners: owners.slice(1) }, { limit: 51 }]])
  })
})

describe('the order of a listing', () => {
  it('is refused where it is none, by name', async () => {
    const { keys, store } = createTestKeys()
    for (const order of ['asc', 'NEWEST', null, 1])
      await expect(keys.list({ order: order as never })).rejects.toThrow(
        '"order" must be "oldest" or "newest"',
      )
    expect(store.calls()).toBe(0)
  })

  it('belongs to its cursors: one of another order is no cursor', async () => {
    const { keys } = createTestKeys()
    for (const name of ['a', 'b', 'c']) await keys.issue({ owner: ALICE, name })
    const { nextCursor: oldest } = await keys.list({ limit: 1 })
    const { nextCursor: newest } = await keys.list({ limit: 1, order: 'newest' })
    const invalid = expect.objectContaining({ code: 'invalid_cursor', status: 400 })
    const list = (order: 'oldest' | 'newest' | undefined, cursor: string | undefined) =>
      keys.list({ ...(order && { order }), cursor: cursor as string })
    await expect(list('newest', oldest)).rejects.toEqual(invalid)
    await expect(list('oldest', newest)).rejects.toEqual(invalid)
    await expect(list(undefined, newest)).rejects.toEqual(invalid)
    const foreign = Buffer.from(JSON.stringify([0, 'a'.repeat(16), 'oldest'])).toString('base64url')
    await expect(list('oldest', foreign)).rejects.toEqual(invalid)
    expect((await list('oldest', oldest)).apiKeys).toHaveLength(2)
    expect((await list(undefined, oldest)).apiKeys).toHaveLength(2)
    expect((await list('newest', newest)).apiKeys).toHaveLength(2)
  })

  it('is that of the listing before, turned round, for any keys and any size of a page', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ owner: fc.nat(3), afterMs: fc.nat(1) }), { maxLength: 40 }),
        fc.integer({ min: 1, max: 12 }),
        fc.boolean(),
        async (issued, limit, isOfSome) => {
          const clock = fakeClock()
          const { keys } = createTestKeys({ clock })
          for (const { owner, afterMs } of issued) {
            clock.set(clock.now() + afterMs)
            await keys.issue({ owner: ownerOf(owner), name: 'CI' })
          }
          const filter = isOfSome ? { owners: [ownerOf(0), ownerOf(2)] } : {}
          const oldest = await listAll(keys, { ...filter, order: 'oldest' })
          const newest = await listAll(keys, { ...filter, order: 'newest', limit })
          expect(newest).toEqual(oldest.toReversed())
        },
      ),
      { numRuns: 100 },
    )
  })
})

describe('a listing of keys that expire', () => {
  it.each([
    ['a text', '2030-01-01T00:00:00Z'],
    ['a number', 1],
    ['null', null],
    ['an invalid date', new Date(Number.NaN)],
  ])('refuses %s as the time', async (_what, expiresBefore) => {
    const { keys, store } = createTestKeys()
    const listed = keys.list({ expiresBefore: expiresBefore as never })
    await expect(listed).rejects.toThrow('"expiresBefore" must be a valid Date')
    expect(store.calls()).toBe(0)
  })

  it('shows those with an "expiresAt" before it: not at it, not by idleness, whatever their status', async () => {
    const { keys, clock } = createTestKeys()
    const soon = new Date(clock.now() + 120_000)
    const before = new Date(soon.getTime() - 1)
    const issue = (name: string, expiresAt: Date | null, idleExpiryMs: number | null = null) =>
      keys.issue({ owner: ALICE, name, expiresAt, idleExpiryMs })
    const namesOf = async (options: ListOptions) =>
      (await keys.list(options)).apiKeys.map(({ name }) => name).sort()
    await issue('soon', before)
    await issue('at that moment', soon)
    await issue('never', null)
    await issue('idle', null, 60_000)
    const revoked = await issue('revoked', before)
    await keys.revoke(revoked.apiKey.id)
    const disabled = await issue('disabled', before)
    await keys.disable(disabled.apiKey.id)
    const options = { expiresBefore: soon }
    expect(await namesOf(options)).toEqual(['disabled', 'revoked', 'soon'])
    expect(await namesOf({ ...options, status: 'active' })).toEqual(['soon'])
    expect(await namesOf({ ...options, owner: BOB })).toEqual([])
    // What becomes of the date of the caller changes nothing.
    const listed = keys.list(options)
    soon.setTime(0)
    expect((await listed).apiKeys).toHaveLength(3)
  })
})
