import type { QuotaSwap } from '../core/keys/key-store.ts'
import { type QuotaRecord, startQuota } from '../core/limits/quota.ts'
import { unreadable } from './insert-cases.ts'
import { at, keyRecord, newQuota } from './key-records.ts'
import { atOnce, quote, type StoreCases, type StoreTest } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'
import { vandalise } from './value-cases.ts'

export const QUOTA_CASES: StoreCases = {
  'returns null if there is no quota or no such lineage': async ({ store, find, same, has }) => {
    await store.insert([keyRecord({ id: 'a' })])
    for (const lineageId of ['a', 'nobody']) {
      same(
        await store.swapQuota(lineageId, newQuota(1), leased(newQuota(1), 1)),
        { swapped: false, current: null },
        'swapQuota swaps nothing and returns null if the lineage has no quota',
      )
    }
    has(await find('a'), { quota: null }, 'a key without a quota has none: null')
  },

  'swaps the quota if it is as expected': async ({ store, find, has, same }) => {
    const quota = newQuota(10)
    await store.insert([keyRecord({ id: 'a', lineageId: 'l', quota })])
    const steps = [leased(quota, 4), leased(quota, 10), { ...leased(quota, 10), remaining: 6 }]
    for (const [i, next] of steps.entries()) {
      const promise = 'swapQuota replaces the quota if epoch, allotted and remaining are as expected'
      same(
        await store.swapQuota('l', i === 0 ? quota : (steps[i - 1] as QuotaRecord), next),
        SWAPPED,
        promise,
      )
      has(await find('a'), { quota: next, version: 1, updatedAt: at(0) }, 'and nothing else of the key')
    }
  },

  'leaves the quota alone and returns it if any number differs': async ({ store, read, same }) => {
    const quota = leased(newQuota(10), 4)
    await store.insert([keyRecord({ id: 'a', quota })])
    const others = [
      { epoch: quota.epoch + 1 },
      { epoch: quota.epoch - 1 },
      { allotted: 5 },
      { remaining: 7 },
      { allotted: 0, remaining: 10 },
    ]
    for (const other of others) {
      const promise = 'swapQuota that finds another quota changes nothing and returns the current one'
      const result = await store.swapQuota('a', { ...quota, ...other }, leased(quota, 1))
      same(result, { swapped: false, current: quota }, promise)
      same((await read('a')).quota, quota, promise)
    }
    const moved = leased(quota, 2)
    await store.swapQuota('a', quota, moved)
    const promise = 'swapQuota returns the current quota, not an earlier one'
    same(await store.swapQuota('a', quota, leased(quota, 1)), { swapped: false, current: moved }, promise)
  },

  'moves units once, however often the same swap is sent': async ({ store, read, same }) => {
    const quota = newQuota(10)
    await store.insert([keyRecord({ id: 'a', quota })])
    const next = leased(quota, 4)
    const results = await atOnce(50, () => store.swapQuota('a', quota, next))
    same(
      results.filter(({ swapped }) => swapped).length,
      1,
      'one of 50 equal concurrent swaps is made: no other call may believe that it has the units',
    )
    const others = results.filter(({ swapped }) => !swapped)
    same(
      others,
      Array(49).fill({ swapped: false, current: next }),
      'the other calls return the current quota',
    )
    same((await read('a')).quota, next, 'units are moved once')
  },

  'loses none of 50 concurrent swaps with retries': async ({ store, read, same }) => {
    const quota = newQuota(500)
    await store.insert([keyRecord({ id: 'a', quota })])
    await atOnce(50, async (i) => {
      let current = quota
      // Each time somebody else was faster, and 50 are at it.
      for (let tries = 0; tries < MAX_TRIES; tries += 1) {
        // Half of them take 7 units, half give 3 of 7 back.
        const next =
          i % 2 === 0 ? leased(current, 7) : { ...leased(current, 7), remaining: current.remaining - 4 }
        const result = await store.swapQuota('a', current, next)
        if (result.swapped) return
        current = result.current as QuotaRecord
      }
    })
    const expected = { ...quota, allotted: 350, remaining: 500 - 25 * 7 - 25 * 4 }
    same((await read('a')).quota, expected, 'swapQuota is one atomic step: no swap overwrites another')
  },

  'begins a new epoch by a swap, and makes no older swap after it': async ({ store, read, same }) => {
    const quota = { ...newQuota(5, 60_000), remaining: 0, allotted: 5 }
    await store.insert([keyRecord({ id: 'a', quota })])
    const refilled = { ...newQuota(5, 60_000), epoch: quota.epoch + 1, nextRefillAt: at(120_000) }
    same(await store.swapQuota('a', quota, refilled), SWAPPED, 'a refill is a swap: each happens once')
    for (const next of [refilled, { ...quota, remaining: 5 }]) {
      const promise = 'what is written late for an epoch that is over changes nothing'
      same(await store.swapQuota('a', quota, next), { swapped: false, current: refilled }, promise)
    }
    same((await read('a')).quota, refilled, 'the new epoch is as it was written, with its next refill')
  },

  'keeps every kind of refill, and numbers beyond 32 bits': async ({ store, find, same }) => {
    const refills = [
      null,
      { amount: 1_000_000_000_000, everyMs: 3_660 * 86_400_000 },
      { amount: 5, per: 'day' },
      { amount: 5, per: 'month', timeZone: 'America/New_York' },
    ] as const
    for (const [i, refill] of refills.entries()) {
      const quota = startQuota({ remaining: 1_000_000_000_000, refill }, null, at(0))
      await store.insert([keyRecord({ id: `k${i}`, quota })])
      const found = (await find(`k${i}`))?.quota as QuotaRecord
      same(found, quota, 'a quota is kept with its refill, number by number')
      const next = leased(found, 999_999_999_999)
      same(await store.swapQuota(`k${i}`, found, next), SWAPPED, 'a quota may hold 10^12 units')
      same((await find(`k${i}`))?.quota, next, 'a quota is kept with its refill, number by number')
    }
  },

  'swaps several quotas together, if the store can': async ({ store, find, same }) => {
    if (!store.swapQuotas) return
    const quota = newQuota(10)
    const ids = ['c', 'a', 'b']
    await store.insert(ids.map((id) => keyRecord({ id, quota })))
    const moved = leased(quota, 4)
    await store.swapQuota('a', quota, moved)
    const swap = (lineageId: string) => ({ lineageId, expected: quota, next: leased(quota, 3) })
    same(
      await store.swapQuotas([...ids.map(swap), swap('nobody')]),
      [SWAPPED, { swapped: false, current: moved }, SWAPPED, { swapped: false, current: null }],
      'each swap succeeds or fails independently, and its result has the same place',
    )
    for (const id of ids)
      same((await find(id))?.quota, id === 'a' ? moved : leased(quota, 3), 'as it was answered')
    same(await store.swapQuotas([]), [], 'no swaps have no results')
  },

  'swaps concurrent batches, in any order': async ({ store, find, same }) => {
    const quota = newQuota(1_000)
    await store.insert(['a', 'b'].map((id) => keyRecord({ id, quota })))
    await atOnce(20, async (i) => {
      const open = new Map(['a', 'b'].map((lineageId) => [lineageId, quota]))
      for (let tries = 0; open.size > 0 && tries < MAX_TRIES; tries += 1) {
        const swaps = [...open].map(([lineageId, expected]) => ({
          lineageId,
          expected,
          next: leased(expected, 1),
        }))
        // In either order: who locks one after the other must not end in a deadlock.
        if (i % 2 === 0) swaps.reverse()
        const results = await swapTogether(store, swaps)
        for (const [n, result] of results.entries()) {
          const { lineageId } = swaps[n] as QuotaSwap
          if (result.swapped) open.delete(lineageId)
          else open.set(lineageId, result.current as QuotaRecord)
        }
      }
    })
    for (const id of ['a', 'b'])
      same((await find(id))?.quota, leased(quota, 20), 'no swap overwrites another')
  },

  'keeps one quota for all keys of a lineage: a successor joins it': async ({
    store,
    find,
    list,
    has,
    same,
  }) => {
    await store.insert([keyRecord({ id: 'a', lineageId: 'l', quota: newQuota(10) })])
    await store.swapQuota('l', newQuota(10), leased(newQuota(10), 4))
    await store.insert([keyRecord({ id: 'b', lineageId: 'l', quota: newQuota(999) })])
    const promise =
      'a record whose lineage has a quota joins it, and its own is ignored: no rotation refills a quota'
    const quota = leased(newQuota(10), 4)
    for (const id of ['a', 'b']) has(await find(id), { quota }, promise)
    has(await store.find({ lookups: ['b'] }), { quota }, promise)
    same(
      (await list()).map((found) => found.quota?.remaining),
      [6, 6],
      'list returns the quota of the lineage',
    )
  },

  'keeps the first quota of a batch for the whole lineage': async ({ store, find, has }) => {
    const records = [5, 7].map((units) =>
      keyRecord({ id: `k${units}`, lineageId: 'l', quota: newQuota(units) }),
    )
    await store.insert(records)
    for (const id of ['k5', 'k7']) has(await find(id), { quota: newQuota(5) }, 'a lineage has one quota')
  },

  'finds the quota only by the exact lineage': async ({ store, same }) => {
    const lineages = DISTINCT_TEXTS
    await store.insert(
      lineages.map((text, i) => keyRecord({ id: `k${i}`, lineageId: text, quota: newQuota(i + 1) })),
    )
    for (const [i, text] of lineages.entries()) {
      const promise = `lineages are compared by code point: ${quote(text)} has its own quota`
      const quota = newQuota(i + 1)
      same(await store.swapQuota(text, quota, leased(quota, i + 1)), SWAPPED, promise)
    }
  },

  'sets a new quota, with a higher epoch, by a change of any key of the lineage': async ({
    store,
    read,
    same,
    has,
    find,
  }) => {
    const [a, b] = ['a', 'b'].map((id) => keyRecord({ id, lineageId: 'l', quota: newQuota(10) }))
    await store.insert([a, b] as never)
    await store.swapQuota('l', newQuota(10), leased(newQuota(10), 4))
    await store.update('b', 1, { quota: { remaining: 50 }, updatedAt: at(0) })
    const promise = 'what the lineage has becomes startQuota(quota, existing, updatedAt)'
    const expected = startQuota({ remaining: 50 }, leased(newQuota(10), 4), at(0))
    same((await read('a')).quota, expected, promise)
    await store.update('a', 1, { name: 'unrelated', updatedAt: at(1) })
    same((await read('b')).quota, expected, 'a change without "quota" leaves the quota as it is')
    const refill = { amount: 3, per: 'day' } as const
    await store.update('a', 2, { quota: { remaining: 3, refill }, updatedAt: at(2) })
    same((await read('b')).quota, startQuota({ remaining: 3, refill }, expected, at(2)), promise)
    has(await find('a'), { version: 3 }, 'setting the quota is one change of the key')
    has(
      await find('b'),
      { version: 2 },
      'setting the quota by one key leaves the versions of the others alone',
    )
  },

  'removes the quota by null, and keeps its epoch': async ({ store, read, same, holds }) => {
    await store.insert([keyRecord({ id: 'a', lineageId: 'l', quota: newQuota(10) })])
    await store.insert([keyRecord({ id: 'b', lineageId: 'l' })])
    await store.update('a', 1, { quota: { remaining: 10 }, updatedAt: at(5) })
    const quota = (await read('b')).quota as QuotaRecord
    await store.update('b', 1, { quota: null, updatedAt: at(6) })
    for (const id of ['a', 'b'])
      same((await read(id)).quota, null, '"quota: null" removes that of the lineage')
    same(
      await store.swapQuota('l', quota, leased(quota, 1)),
      { swapped: false, current: null },
      'a quota that was removed takes part in no swap: null',
    )
    await store.insert([keyRecord({ id: 'c', lineageId: 'l', quota: newQuota(99) })])
    same((await read('c')).quota, null, 'what was removed stays removed: no late successor brings it back')
    // A clock that was set back must not begin an epoch that limiters know already.
    await store.update('b', 2, { quota: { remaining: 5 }, updatedAt: at(-1_000) })
    const again = (await read('a')).quota
    holds(
      (again?.epoch ?? 0) > quota.epoch,
      'a new quota has a higher epoch than the removed one, whatever the clock says',
    )
    same(again?.remaining, 5, 'a new quota has its own units')
  },

  'keeps the quota when a change loses its race or cannot be stored': async ({
    store,
    read,
    same,
    rejects,
  }) => {
    await store.insert([keyRecord({ id: 'a', quota: newQuota(10) })])
    const lost = await store.update('a', 2, { quota: { remaining: 99 }, updatedAt: at(0) })
    same(lost, 'conflict', 'update returns "conflict" if the version differs')
    same(
      (await read('a')).quota,
      newQuota(10),
      'update that returns "conflict" has changed nothing, the quota included',
    )
    const broken = { quota: { remaining: 99 }, metadata: unreadable(), updatedAt: at(0) }
    await rejects(() => store.update('a', 1, broken), 'update rejects if it cannot store the change')
    same((await read('a')).quota, newQuota(10), 'update makes all of a change or nothing, the quota included')
  },

  'keeps the quota of the winning change, version after version': async ({ store, same, read }) => {
    await store.insert([keyRecord({ id: 'a', quota: newQuota(1) })])
    for (let version = 1; version <= 3; version += 1) {
      const change = (i: number) => ({ name: `${i}`, quota: { remaining: i }, updatedAt: at(version) })
      const outcomes = await atOnce(50, (i) => store.update('a', version, change(i)))
      const winner = outcomes.indexOf('updated')
      const { name, quota } = await read('a')
      const promise = 'update sets the key and the quota in one step: both are those of the change that won'
      same([name, quota?.remaining], [`${winner}`, winner], promise)
    }
  },

  'loses no unit if a change sets the quota during swaps': async ({ store, same, read }) => {
    const quota = newQuota(1_000)
    await store.insert([keyRecord({ id: 'a', quota })])
    const lease = async () => {
      let current = quota
      for (let tries = 0; tries < MAX_TRIES; tries += 1) {
        const result = await store.swapQuota('a', current, leased(current, 10))
        if (result.swapped) return current.epoch
        current = result.current as QuotaRecord
      }
      return null
    }
    const [changed, ...epochs] = await Promise.all([
      store.update('a', 1, { quota: { remaining: 500 }, updatedAt: at(1) }),
      ...Array.from({ length: 49 }, lease),
    ])
    same(changed, 'updated', 'swaps leave the version alone and block no change')
    const found = (await read('a')).quota
    const allotted = 10 * epochs.filter((epoch) => epoch === found?.epoch).length
    const promise = 'within an epoch, what was leased and what remains are what there was'
    same([found?.allotted, found?.remaining], [allotted, 500 - allotted], promise)
  },

  'leaves nothing behind if an insert fails': async ({ store, read, same, rejects }) => {
    await store.insert([keyRecord({ id: 'old' })])
    const batch = [keyRecord({ id: 'a', quota: newQuota(5) }), keyRecord({ id: 'old' })]
    await rejects(() => store.insert(batch), 'insert rejects a duplicate', 'duplicate_key')
    const broken = [
      keyRecord({ id: 'a', quota: newQuota(5) }),
      keyRecord({ id: 'b', metadata: unreadable() }),
    ]
    await rejects(() => store.insert(broken), 'insert rejects if it cannot store a record')
    await store.insert([keyRecord({ id: 'a' })])
    same((await read('a')).quota, null, 'insert adds all or nothing, the quota included')
  },

  'keeps the quota as long as one key of its lineage is left': async ({ store, same }) => {
    const ended = { lineageId: 'l', revokedAt: at(0) }
    await store.insert([
      keyRecord({ id: 'a', quota: newQuota(5), ...ended }),
      keyRecord({ id: 'b', ...ended }),
    ])
    await store.purge(['a'], at(10))
    const promise = 'purge leaves the quota to the keys of the lineage that are left'
    const next = leased(newQuota(5), 1)
    same(await store.swapQuota('l', newQuota(5), next), SWAPPED, promise)
    await store.purge(['b'], at(10))
    same(
      await store.swapQuota('l', next, newQuota(5)),
      GONE,
      'the quota goes with the last key of its lineage',
    )
  },

  'keeps the quota for a successor inserted while the last key is purged': async (test) => {
    for (let round = 0; round < 10; round += 1) await purgeBesideSuccessor(test, round)
  },

  'copies quotas in and out': async ({ store, find, same }) => {
    const quota = newQuota(5, 60_000)
    await store.insert([keyRecord({ id: 'a', quota })])
    vandalise(quota)
    same((await find('a'))?.quota, newQuota(5, 60_000), 'a store keeps copies of what it is handed')
    const change = { quota: { remaining: 3, refill: { amount: 3, everyMs: 5_000 } }, updatedAt: at(1) }
    await store.update('a', 1, change)
    const set = (await find('a'))?.quota as QuotaRecord
    vandalise(change)
    const next = leased(set, 1)
    await store.swapQuota('a', set, next)
    const before = await find('a')
    vandalise(next)
    vandalise((await store.swapQuota('a', newQuota(9), newQuota(9))) as object)
    vandalise((await store.find({ id: 'a' })) as object)
    same(await find('a'), before, 'a store keeps copies, and hands out copies')
  },
}

const MAX_TRIES = 200
const SWAPPED = { swapped: true }
const GONE = { swapped: false, current: null }

function swapTogether(store: StoreTest['store'], swaps: readonly QuotaSwap[]) {
  if (store.swapQuotas) return store.swapQuotas(swaps)
  return Promise.all(swaps.map(({ lineageId, expected, next }) => store.swapQuota(lineageId, expected, next)))
}

/** The quota after a process has leased so many units. */
function leased(quota: QuotaRecord, units: number): QuotaRecord {
  return { ...quota, remaining: quota.remaining - units, allotted: quota.allotted + units }
}

/** Whether the successor has the quota depends on who was first; that it works and can be purged does not. */
async function purgeBesideSuccessor({ store, same, holds, ids }: StoreTest, round: number): Promise<void> {
  const [old, next, lineageId] = [`old ${round}`, `next ${round}`, `l${round}`]
  const ended = { lineageId, revokedAt: at(0) }
  await store.insert([keyRecord({ id: old, quota: newQuota(9), ...ended })])
  const [count] = await Promise.all([
    store.purge([old], at(1)),
    store.insert([keyRecord({ id: next, quota: newQuota(9), ...ended })]),
  ])
  same(count, 1, 'purge removes what is revoked, whoever joins the lineage in the meantime')
  same(
    await store.swapQuota(lineageId, newQuota(9), leased(newQuota(9), 1)),
    SWAPPED,
    'a successor has a quota: that of the lineage, or its own if there is none left',
  )
  same(await store.purge([next], at(1)), 1, 'purge removes what is revoked')
  holds(!(await ids()).includes(next), 'a purged key is gone')
  const left = leased(newQuota(9), 1)
  same(
    await store.swapQuota(lineageId, left, newQuota(9)),
    GONE,
    'the quota goes with the last key of its lineage',
  )
}
