import { type QuotaRecord, startQuota } from '../core/quota.ts'
import { unreadable } from './insert-cases.ts'
import { at, keyRecord, newQuota, T0 } from './key-records.ts'
import { atOnce, quote, type StoreCases, type StoreTest } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'
import { vandalise } from './value-cases.ts'

export const QUOTA_CASES: StoreCases = {
  'answers null where there is no quota, or no such lineage': async ({ store, find, same, has }) => {
    await store.insert([keyRecord({ id: 'a' })])
    same(
      await store.reserveQuota('a', 1, at(0)),
      null,
      'reserveQuota answers null where the lineage has no quota',
    )
    same(
      await store.reserveQuota('nobody', 1, at(0)),
      null,
      'reserveQuota answers null for an unknown lineage',
    )
    has(await find('a'), { quota: null }, 'a key without a quota has none: null')
  },

  'moves units from what remains to what is allotted': async ({ store, find, same, has }) => {
    await store.insert([keyRecord({ id: 'a', lineageId: 'l', quota: newQuota(10) })])
    const base = { epoch: T0, nextRefillAt: null }
    const steps: [number, object][] = [
      [4, { allotted: 4, granted: 4, remaining: 6 }],
      [0, { allotted: 4, granted: 0, remaining: 6 }],
      [100, { allotted: 10, granted: 6, remaining: 0 }],
      [1, { allotted: 10, granted: 0, remaining: 0 }],
    ]
    for (const [amount, expected] of steps) {
      const promise =
        'reserveQuota moves up to "amount" units from remaining to allotted, as decideReservation says'
      same(await store.reserveQuota('l', amount, at(0)), { ...base, ...expected }, promise)
    }
    has(
      await find('a'),
      { quota: { ...newQuota(0), allotted: 10 }, version: 1, updatedAt: at(0) },
      'and no more',
    )
  },

  'grants 50 at once no unit too many, and each due refill once': async ({ store, read, same }) => {
    await store.insert([keyRecord({ id: 'a', quota: newQuota(200, 60_000) })])
    const grantAll = async (ms: number) => {
      const all = await atOnce(50, () => store.reserveQuota('a', 7, at(ms)))
      return all.reduce((sum, reservation) => sum + (reservation?.granted ?? 0), 0)
    }
    const promise = 'reserveQuota is one atomic step: 50 at once are granted exactly what there is'
    same(await grantAll(0), 200, promise)
    same(await grantAll(59_999), 0, 'a refill happens at its moment, not before')
    same(
      await grantAll(180_001),
      200,
      'each refill that is due happens once, whoever asks; three missed are one',
    )
    const expected = { remaining: 0, allotted: 200, epoch: T0 + 1, nextRefillAt: at(240_000) }
    same(
      (await read('a')).quota,
      { ...expected, refill: { amount: 200, everyMs: 60_000 } },
      'a refill begins a new epoch, once, and the next one is written down',
    )
  },

  'refills at the exact millisecond': async ({ store, has }) => {
    await store.insert([keyRecord({ id: 'a', quota: newQuota(1, 1_000) })])
    await store.reserveQuota('a', 1, at(0))
    has(await store.reserveQuota('a', 1, at(999)), { granted: 0, epoch: T0 }, 'a refill is not early')
    const next = { granted: 1, epoch: T0 + 1, nextRefillAt: at(2_000) }
    has(await store.reserveQuota('a', 1, at(1_000)), next, 'a refill is due from its exact millisecond on')
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
      same((await find(`k${i}`))?.quota, quota, 'a quota is kept with its refill, number by number')
      const reserved = await store.reserveQuota(`k${i}`, 999_999_999_999, at(0))
      same(reserved?.granted, 999_999_999_999, 'a quota may hold 10^12 units')
    }
  },

  'is one for all keys of a lineage: a successor joins it': async ({ store, find, list, has, same }) => {
    await store.insert([keyRecord({ id: 'a', lineageId: 'l', quota: newQuota(10) })])
    await store.reserveQuota('l', 4, at(0))
    await store.insert([keyRecord({ id: 'b', lineageId: 'l', quota: newQuota(999) })])
    const promise =
      'a record whose lineage has a quota joins it, and its own is ignored: no rotation fills a quota up'
    const quota = { ...newQuota(6), allotted: 4 }
    for (const id of ['a', 'b']) has(await find(id), { quota }, promise)
    has(await store.find({ lookups: ['b'] }), { quota }, promise)
    same(
      (await list()).map((found) => found.quota?.remaining),
      [6, 6],
      'list answers the quota of the lineage',
    )
  },

  'is the first of a batch for all of it': async ({ store, find, has }) => {
    const records = [5, 7].map((units) =>
      keyRecord({ id: `k${units}`, lineageId: 'l', quota: newQuota(units) }),
    )
    await store.insert(records)
    for (const id of ['k5', 'k7']) has(await find(id), { quota: newQuota(5) }, 'a lineage has one quota')
  },

  'belongs to its lineage, which no other text names': async ({ store, same }) => {
    const lineages = DISTINCT_TEXTS
    await store.insert(
      lineages.map((text, i) => keyRecord({ id: `k${i}`, lineageId: text, quota: newQuota(i + 1) })),
    )
    for (const [i, text] of lineages.entries()) {
      const granted = (await store.reserveQuota(text, 1_000, at(0)))?.granted
      same(granted, i + 1, `lineages are compared by code point: ${quote(text)} has a quota of its own`)
    }
  },

  'is set anew by a change of any of its keys, with a higher epoch': async ({
    store,
    read,
    same,
    has,
    find,
  }) => {
    const [a, b] = ['a', 'b'].map((id) => keyRecord({ id, lineageId: 'l', quota: newQuota(10) }))
    await store.insert([a, b] as never)
    await store.reserveQuota('l', 4, at(0))
    await store.update('b', 1, { quota: { remaining: 50 }, updatedAt: at(0) })
    const promise = 'what the lineage has becomes startQuota(quota, existing, updatedAt)'
    const expected = startQuota({ remaining: 50 }, { ...newQuota(6), allotted: 4 }, at(0))
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

  'is removed by null, and keeps its epoch': async ({ store, read, same, holds }) => {
    await store.insert([keyRecord({ id: 'a', lineageId: 'l', quota: newQuota(10) })])
    await store.insert([keyRecord({ id: 'b', lineageId: 'l' })])
    await store.update('a', 1, { quota: { remaining: 10 }, updatedAt: at(5) })
    const { epoch } = (await read('b')).quota as QuotaRecord
    await store.update('b', 1, { quota: null, updatedAt: at(6) })
    for (const id of ['a', 'b'])
      same((await read(id)).quota, null, '"quota: null" removes that of the lineage')
    same(await store.reserveQuota('l', 1, at(6)), null, 'a quota that was removed grants nothing: null')
    await store.insert([keyRecord({ id: 'c', lineageId: 'l', quota: newQuota(99) })])
    same((await read('c')).quota, null, 'what was removed stays removed: no late successor brings it back')
    // A clock that was set back must not begin an epoch that limiters know already.
    await store.update('b', 2, { quota: { remaining: 5 }, updatedAt: at(-1_000) })
    const again = (await read('a')).quota
    holds(
      (again?.epoch ?? 0) > epoch,
      'a new quota has a higher epoch than the removed one, whatever the clock says',
    )
    same(again?.remaining, 5, 'a new quota has its own units')
  },

  'is not touched by a change that loses its race, or cannot be kept': async ({
    store,
    read,
    same,
    rejects,
  }) => {
    await store.insert([keyRecord({ id: 'a', quota: newQuota(10) })])
    const lost = await store.update('a', 2, { quota: { remaining: 99 }, updatedAt: at(0) })
    same(lost, 'conflict', 'update answers "conflict" where the version is another')
    same(
      (await read('a')).quota,
      newQuota(10),
      'update that answers "conflict" has changed nothing, the quota included',
    )
    const broken = { quota: { remaining: 99 }, metadata: unreadable(), updatedAt: at(0) }
    await rejects(() => store.update('a', 1, broken), 'update rejects where it cannot keep the change')
    same((await read('a')).quota, newQuota(10), 'update makes all of a change or nothing, the quota included')
  },

  'is that of the change which wins, version after version': async ({ store, same, read }) => {
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

  'loses no unit where it is set while units are reserved': async ({ store, same, read }) => {
    await store.insert([keyRecord({ id: 'a', quota: newQuota(1_000) })])
    const [changed, ...reserved] = await Promise.all([
      store.update('a', 1, { quota: { remaining: 500 }, updatedAt: at(1) }),
      ...Array.from({ length: 49 }, () => store.reserveQuota('a', 10, at(0))),
    ])
    same(changed, 'updated', 'reservations leave the version alone, and stand in the way of no change')
    const { quota } = await read('a')
    const inEpoch = reserved.filter((one) => one?.epoch === quota?.epoch)
    const allotted = inEpoch.reduce((sum, one) => sum + (one?.granted ?? 0), 0)
    const promise = 'within an epoch, what was granted and what remains are what there was'
    same([quota?.allotted, quota?.remaining], [allotted, 500 - allotted], promise)
  },

  'leaves nothing behind where an insert fails': async ({ store, read, same, rejects }) => {
    await store.insert([keyRecord({ id: 'old' })])
    const batch = [keyRecord({ id: 'a', quota: newQuota(5) }), keyRecord({ id: 'old' })]
    await rejects(() => store.insert(batch), 'insert rejects a duplicate', 'duplicate_key')
    const broken = [
      keyRecord({ id: 'a', quota: newQuota(5) }),
      keyRecord({ id: 'b', metadata: unreadable() }),
    ]
    await rejects(() => store.insert(broken), 'insert rejects where it cannot keep a record')
    await store.insert([keyRecord({ id: 'a' })])
    same((await read('a')).quota, null, 'insert adds all or nothing, the quota included')
  },

  'lasts as long as one key of its lineage is left': async ({ store, has, same }) => {
    const ended = { lineageId: 'l', revokedAt: at(0) }
    await store.insert([
      keyRecord({ id: 'a', quota: newQuota(5), ...ended }),
      keyRecord({ id: 'b', ...ended }),
    ])
    await store.purge(['a'], at(10))
    const promise = 'purge leaves the quota to the keys of the lineage that are left'
    has(await store.reserveQuota('l', 1, at(10)), { granted: 1, remaining: 4 }, promise)
    await store.purge(['b'], at(10))
    same(await store.reserveQuota('l', 1, at(10)), null, 'the quota goes with the last key of its lineage')
  },

  'is there for a successor that comes while the last key is purged': async (test) => {
    for (let round = 0; round < 10; round += 1) await purgeBesideSuccessor(test, round)
  },

  'is handed out and taken in as a copy': async ({ store, find, same }) => {
    const quota = newQuota(5, 60_000)
    await store.insert([keyRecord({ id: 'a', quota })])
    vandalise(quota)
    same((await find('a'))?.quota, newQuota(5, 60_000), 'a store keeps copies of what it is handed')
    const change = { quota: { remaining: 3, refill: { amount: 3, everyMs: 5_000 } }, updatedAt: at(1) }
    await store.update('a', 1, change)
    const before = await find('a')
    vandalise(change)
    vandalise((await store.reserveQuota('a', 0, at(1))) as object)
    vandalise((await store.find({ id: 'a' })) as object)
    same(await find('a'), before, 'a store keeps copies, and hands out copies')
  },
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
  same(count, 1, 'purge removes what is revoked, whoever joins the lineage meanwhile')
  const reservation = await store.reserveQuota(lineageId, 1, at(0))
  same(
    reservation?.remaining,
    8,
    'a successor has a quota: that of the lineage, or its own where there is none left',
  )
  same(await store.purge([next], at(1)), 1, 'purge removes what is revoked')
  holds(!(await ids()).includes(next), 'what is purged is gone')
  same(await store.reserveQuota(lineageId, 1, at(1)), null, 'the quota goes with the last key of its lineage')
}
