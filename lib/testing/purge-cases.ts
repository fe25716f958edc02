import { at, keyRecord } from './key-records.ts'
import { idsWithStatus, MOMENTS, statusGrid } from './status-grid.ts'
import { atOnce, type StoreCases } from './store-test.ts'

export const PURGE_CASES: StoreCases = {
  'removes keys that are revoked or expired at that moment, and no living key': async ({
    store,
    ids,
    same,
  }) => {
    const grid = statusGrid()
    await store.insert(grid)
    const all = grid.map(({ id }) => id)
    let left = grid
    for (const moment of MOMENTS) {
      const living = [
        ...idsWithStatus(left, 'active', moment),
        ...idsWithStatus(left, 'disabled', moment),
      ].sort()
      const promise = `purge removes what still is revoked or expired at ${moment.toISOString()}, and returns how many`
      same(await store.purge(all, moment), left.length - living.length, promise)
      same(await ids(), living, promise)
      left = left.filter(({ id }) => living.includes(id))
    }
  },

  'counts each key once, and ignores unknown ids': async ({ store, ids, same }) => {
    const revokedAt = at(0)
    await store.insert([keyRecord({ id: 'a', revokedAt }), keyRecord({ id: 'b' })])
    same(await store.purge([], at(1)), 0, 'purge of no keys removes none')
    same(await ids(), ['a', 'b'], 'purge of no keys removes none')
    same(await store.purge(['nobody', 'a', 'a', 'A', 'b'], at(1)), 1, 'purge returns how many it has removed')
    same(await store.purge(['a'], at(1)), 0, 'purge returns how many it has removed')
    same(await ids(), ['b'], 'purge removes nothing that lives')
  },

  'removes only the given keys, and frees the id and the lookup': async ({ store, ids, has, same }) => {
    const revokedAt = at(0)
    await store.insert([keyRecord({ id: 'a', revokedAt }), keyRecord({ id: 'b', revokedAt })])
    await store.purge(['a'], at(1))
    same(await ids(), ['b'], 'purge removes those of the ids it is given, and no others')
    same(await store.find({ lookups: ['a'] }), null, 'nothing finds a purged key')
    await store.insert([keyRecord({ id: 'a' })])
    has(await store.find({ lookups: ['a'] }), { revokedAt: null }, 'the lookup of a purged key is free again')
  },

  'counts each key once when 50 callers purge at once': async ({ store, ids, same }) => {
    const doomed = Array.from({ length: 20 }, (_, i) => keyRecord({ id: `k${i}`, expiresAt: at(0) }))
    await store.insert([...doomed, keyRecord({ id: 'lives' })])
    const all = [...doomed.map(({ id }) => id), 'lives']
    const counts = await atOnce(50, () => store.purge(all, at(0)))
    const total = counts.reduce((sum, count) => sum + count, 0)
    same(total, 20, 'purge returns how many it has removed itself: of 50 at once each key is counted once')
    same(await ids(), ['lives'], 'purge removes no living key')
  },

  'removes no key that gets more time meanwhile': async ({ store, find, same }) => {
    const ids = Array.from({ length: 50 }, (_, i) => `k${i}`)
    await store.insert(ids.map((id) => keyRecord({ id, expiresAt: at(10) })))
    await Promise.all(
      ids.map(async (id, i) => {
        const prolong = () => store.update(id, 1, { expiresAt: at(1_000), updatedAt: at(5) })
        const purge = () => store.purge([id], at(10))
        // Either is called first as often.
        const [outcome, count] = await (i % 2 === 0
          ? Promise.all([prolong(), purge()])
          : Promise.all([purge(), prolong()]).then(([removed, changed]) => [changed, removed] as const))
        const promise = 'purge looks and removes in one step: a key that was given more time first stays'
        same([outcome, count], outcome === 'updated' ? ['updated', 0] : ['missing', 1], promise)
        same((await find(id))?.expiresAt ?? null, outcome === 'updated' ? at(1_000) : null, promise)
      }),
    )
  },
}
