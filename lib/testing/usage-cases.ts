import type { UsageDelta } from '../core/keys/key-store.ts'
import { at, keyRecord } from './key-records.ts'
import { idleGrid, idsEndedBefore, idsWithStatus, MOMENTS, STATUSES } from './status-grid.ts'
import { atOnce, type StoreCases } from './store-test.ts'
import { vandalise } from './value-cases.ts'

export const USAGE_CASES: StoreCases = {
  'adds counts, batch by batch and within one': async ({ store, find, has }) => {
    await store.insert([keyRecord({ id: 'a', usageCount: 100 }), keyRecord({ id: 'b' })])
    await store.recordUsage([use('a', 2, 10), use('b', 1, 1), use('a', 3, 5)])
    await store.recordUsage([use('a', 4, 1)])
    await store.recordUsage([])
    const promise = 'recordUsage adds counts to what was there, and lastUsedAt takes the later of both'
    has(await find('a'), { usageCount: 109, lastUsedAt: at(10) }, promise)
    has(await find('b'), { usageCount: 1, lastUsedAt: at(1) }, promise)
  },

  'ignores keys that are gone': async ({ store, find, ids, has, same }) => {
    await store.insert([keyRecord({ id: 'a' })])
    await store.recordUsage([use('gone', 9, 10), use('a', 1, 1), use('A', 5, 9), use('gone too', 1, 1)])
    has(await find('a'), { usageCount: 1 }, 'recordUsage of a key that is gone does not lose the others')
    same(await ids(), ['a'], 'recordUsage never brings a key back')
  },

  'keeps the latest use together with its own address': async ({ store, find, has }) => {
    await store.insert([keyRecord({ id: 'a' })])
    const promise = 'lastUsedAt keeps the later of both times, with its address'
    await store.recordUsage([use('a', 1, 10, '192.0.2.1')])
    await store.recordUsage([use('a', 1, 9, '192.0.2.2')])
    has(await find('a'), { lastUsedAt: at(10), lastUsedIp: '192.0.2.1' }, promise)
    await store.recordUsage([
      use('a', 1, 8, '192.0.2.3'),
      use('a', 1, 12, '2001:db8::1'),
      use('a', 1, 11, null),
    ])
    has(await find('a'), { lastUsedAt: at(12), lastUsedIp: '2001:db8::1' }, promise)
    await store.recordUsage([use('a', 0, 13, null)])
    has(await find('a'), { lastUsedAt: at(13), lastUsedIp: null, usageCount: 5 }, `${promise}, known or not`)
  },

  'touches neither the version nor the time of the last change': async ({ store, find, same }) => {
    const stored = keyRecord({ id: 'a' })
    await store.insert([stored])
    await store.recordUsage([use('a', 1, 10)])
    const promise = 'recordUsage changes usageCount, lastUsedAt and lastUsedIp, and nothing else'
    same(await find('a'), { ...stored, usageCount: 1, lastUsedAt: at(10) }, promise)
  },

  'adds the counts of 50 concurrent batches': async ({ store, find, has }) => {
    await store.insert([keyRecord({ id: 'a' }), keyRecord({ id: 'b' })])
    // The keys in either order: who locks one after the other must not end in a deadlock.
    await atOnce(50, (i) => {
      const batch = [use('a', 1, i, `192.0.2.${i}`), use('b', 2, 50 - i)]
      return store.recordUsage(i % 2 === 0 ? batch : batch.reverse())
    })
    const promise = 'counts add: concurrent batches lose none of them, and no batch fails'
    has(await find('a'), { usageCount: 50, lastUsedAt: at(49), lastUsedIp: '192.0.2.49' }, promise)
    has(await find('b'), { usageCount: 100, lastUsedAt: at(50) }, promise)
  },

  'takes a batch of 500 keys, and counts beyond 32 bits': async ({ store, list, same }) => {
    const keys = Array.from({ length: 500 }, (_, i) => keyRecord({ id: `k${1_000 + i}` }))
    for (let from = 0; from < 500; from += 100) await store.insert(keys.slice(from, from + 100))
    const batch = keys.map(({ id }, i) => use(id, 2 ** 31 + i, i))
    await store.recordUsage(batch)
    await store.recordUsage(batch)
    const counts = (await list()).map(({ usageCount }) => usageCount)
    const expected = batch.map(({ count }) => 2 * count)
    same(counts, expected, 'recordUsage takes the collected uses of a process, 500 keys at a time')
  },

  'neither blocks a change nor undoes it': async ({ store, find, same }) => {
    const writes = [
      (id: string) => atOnce(20, (i) => store.recordUsage([use(id, 1, i + 1)])),
      (id: string) => store.update(id, 1, { revokedAt: at(7), updatedAt: at(7) }),
      (id: string) => store.replaceDigest(id, 'old', 'new'),
    ]
    // Each of them is called first once, and last once.
    for (const first of writes.keys()) {
      const id = `k${first}`
      const stored = keyRecord({ id, digest: 'old' })
      await store.insert([stored])
      const inTurn = [...writes.slice(first), ...writes.slice(0, first)]
      const answers = (await Promise.all(inTurn.map((write) => write(id)))).filter(
        (answer) => !Array.isArray(answer),
      )
      const promise = 'a change, a new digest and uses at the same time are all kept, and none undoes another'
      same(new Set(answers), new Set(['updated', true]), promise)
      const expected = { digest: 'new', revokedAt: at(7), updatedAt: at(7), version: 2 }
      same(await find(id), { ...stored, ...expected, usageCount: 20, lastUsedAt: at(20) }, promise)
    }
  },

  'copies what it is given': async ({ store, find, same }) => {
    await store.insert([keyRecord({ id: 'a' })])
    const delta = use('a', 1, 8)
    await store.recordUsage([delta])
    const before = await find('a')
    vandalise(delta)
    same(await find('a'), before, 'a store keeps copies: what a caller does later changes nothing in it')
  },

  'makes list and purge respect idleness, to the millisecond': async ({ store, ids, same }) => {
    const grid = idleGrid()
    for (let from = 0; from < grid.length; from += 60) await store.insert(grid.slice(from, from + 60))
    for (const moment of MOMENTS) {
      for (const is of STATUSES) {
        const promise = `list decides the status as keyStatus does: ${is} at ${moment.toISOString()}`
        same(await ids({ status: { is, at: moment } }), idsWithStatus(grid, is, moment), promise)
      }
      const ended = await ids({ endedBefore: moment })
      const promise = '"endedBefore" counts idleness, from "lastUsedAt" or "createdAt", whichever is later'
      same(ended, idsEndedBefore(grid, moment), `${promise}: ${moment.toISOString()}`)
    }
    let left = grid
    for (const moment of MOMENTS) {
      const gone = [...idsWithStatus(left, 'expired', moment), ...idsWithStatus(left, 'revoked', moment)]
      const all = grid.map(({ id }) => id)
      const promise = `purge removes what is idle too long at ${moment.toISOString()}, and no key that is not`
      same(await store.purge(all, moment), gone.length, promise)
      left = left.filter(({ id }) => !gone.includes(id))
      same(
        await ids(),
        left.map(({ id }) => id),
        promise,
      )
    }
  },

  'keeps a key that is used before the purge': async ({ store, ids, same }) => {
    const keys = Array.from({ length: 10 }, (_, i) => keyRecord({ id: `k${i}`, idleExpiryMs: 10 }))
    await store.insert(keys)
    await store.recordUsage([use('k3', 1, 5), use('k7', 1, 0), use('k8', 1, 1)])
    const all = keys.map(({ id }) => id)
    same(await store.purge(all, at(10)), 8, 'idleness counts from the last use that was recorded')
    same(await ids(), ['k3', 'k8'], 'idleness counts from the last use that was recorded')
  },
}

function use(id: string, count: number, ms: number, lastUsedIp: string | null = null): UsageDelta {
  return { id, count, lastUsedAt: at(ms), lastUsedIp }
}
