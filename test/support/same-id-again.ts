import type { ImportedKey, KeyFormat, RateLimiter } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { type FakeClock, fakeClock } from './fake-clock.ts'
import { ALICE, BOB, createTestKeys, NAME, type TestKeys } from './test-keys.ts'

const ID = 'abcdefgh12345678'
export const KEY = 'k3v9x2m4'.repeat(5)
export const legacy: KeyFormat = {
  name: 'legacy',
  lookup: (key) => (/^[a-z0-9]{40}$/.test(key) ? key.slice(0, 8) : null),
}
/** A second one makes a lookup of several texts of every read. */
export const another: KeyFormat = {
  name: 'another',
  lookup: (key) => (key.length === 40 ? key.slice(-8) : null),
}
export const IMPORTED: ImportedKey = { format: 'legacy', key: KEY, owner: ALICE, name: 'old' }

/** How a key with the id comes to be, and its text. */
const BEGINNINGS: Record<string, (keys: TestKeys['keys']) => Promise<string>> = {
  issued: async (keys) => (await keys.issue({ ...NAME, id: ID })).key,
  imported: async (keys) => {
    await keys.import({ ...IMPORTED, id: ID })
    return KEY
  },
  'imported with many': async (keys) => {
    await keys.importAll([{ ...IMPORTED, id: ID }])
    return KEY
  },
  'a successor': async (keys) => {
    const { apiKey } = await keys.issue({ owner: BOB, name: 'first' })
    return (await keys.rotate(apiKey.id, { successorId: ID })).key
  },
}
const PAIRS = Object.keys(BEGINNINGS).flatMap((first) => Object.keys(BEGINNINGS).map((next) => [first, next]))

/** Ends a key and purges it, every process having seen it at its latest. */
async function endAndPurge({ keys, clock }: TestKeys, key: string, everywhere: readonly TestKeys[]) {
  for (let i = 0; i < 5; i++) await keys.update(ID, { name: `${i}` })
  for (const one of everywhere) await one.keys.verify(key)
  await keys.revoke(ID)
  for (const one of everywhere) expect(await one.keys.verify(key)).toMatchObject({ reason: 'revoked' })
  clock.set(clock.now() + 10)
  expect(await keys.purge({ endedBefore: new Date(clock.now()) })).toBe(1)
}

/** Tells what becomes of an id whose key was purged, where this limiter counts. */
export function describeSameIdAgain(createLimiter: (clock: FakeClock) => RateLimiter): void {
  describe('an id whose key was purged', () => {
    function start(beside?: TestKeys) {
      const clock = beside?.clock ?? fakeClock()
      const rateLimiter = beside?.limiter ?? createLimiter(clock)
      return createTestKeys({
        ...(beside && { store: beside.store }),
        clock,
        rateLimiter,
        formats: [legacy, another],
      })
    }

    it.each(PAIRS)('was %s, and works at once where it is %s', async (first, next) => {
      const world = start()
      await endAndPurge(world, (await BEGINNINGS[first]?.(world.keys)) ?? '', [world])
      const key = (await BEGINNINGS[next]?.(world.keys)) ?? ''
      expect(await world.keys.verify(key)).toMatchObject({ ok: true, apiKey: { id: ID } })
      await world.keys.update(ID, { name: 'renamed' })
      expect(await world.keys.verify(key)).toMatchObject({ ok: true, apiKey: { name: 'renamed' } })
      await world.keys.revoke(ID)
      expect(await world.keys.verify(key)).toMatchObject({ reason: 'revoked' })
    })

    it('works in every process once its cache has aged, whichever of them remembers', async () => {
      const here = start()
      const there = start(here)
      await endAndPurge(here, (await BEGINNINGS.issued?.(here.keys)) ?? '', [here, there])
      await there.keys.import({ ...IMPORTED, id: ID })
      for (const { keys } of [there, here]) expect(await keys.verify(KEY)).toMatchObject({ ok: true })
      here.clock.set(here.clock.now() + 10_000)
      for (const { keys } of [there, here]) expect(await keys.verify(KEY)).toMatchObject({ ok: true })
    })

    it('inherits no limit, no quota and no last use', async () => {
      const world = start()
      const { keys, clock } = world
      const settings = {
        id: ID,
        rateLimits: [{ name: 'day', limit: 3, windowMs: 86_400_000 }],
        quota: { remaining: 3 },
        idleExpiryMs: 60_000,
      }
      await keys.import({ ...IMPORTED, ...settings })
      for (let i = 0; i < 3; i++) expect(await keys.verify(KEY)).toMatchObject({ ok: true })
      await endAndPurge(world, KEY, [])
      const long = new Date(clock.now() - 86_400_000)
      await keys.import({ ...IMPORTED, ...settings, createdAt: long })
      expect(await keys.verify(KEY)).toMatchObject({ reason: 'idle' })
      await keys.update(ID, { idleExpiryMs: null })
      for (let i = 0; i < 3; i++) expect(await keys.verify(KEY)).toMatchObject({ ok: true })
      expect(await keys.verify(KEY)).toMatchObject({ ok: false })
    })

    it('begins above what this process remembers, though the clock was set back', async () => {
      const world = start()
      const { keys, clock } = world
      await endAndPurge(world, (await BEGINNINGS.issued?.(keys)) ?? '', [world])
      clock.set(clock.now() - 3_600_000)
      await keys.import({ ...IMPORTED, id: ID })
      expect(await keys.verify(KEY)).toMatchObject({ ok: true })
    })
  })
}
