import type { HourlyCount, UsageCount } from '../core/usage/usage-counts.ts'
import { at, keyRecord, T0 } from './key-records.ts'
import { lifecycleKeys } from './lifecycle-cases.ts'
import { atOnce, type StoreCases, type StoreTest } from './store-test.ts'

const HOUR_MS = 3_600_000
const H0 = Math.floor(T0 / HOUR_MS)
const OWNER = { type: 'user', id: 'u_1' }
const KEEP = { keepDays: 3_650 }

export const USAGE_COUNT_CASES: StoreCases = {
  'adds counts by key, hour and counter': async (test) => {
    const { store, same } = test
    await store.insert([keyRecord({ id: 'a' }), keyRecord({ id: 'b' })])
    await add(test, 1, [
      count('a', 0, 'admitted', 2),
      count('b', 0, 'admitted', 5),
      count('a', 30, 'units:x', 7),
    ])
    await add(test, 2, [count('a', 0, 'admitted', 3), count('a', 0, 'refused:expired', 1)])
    const promise = 'readUsage returns what was added to one key, by hour and counter'
    const expected = [of(0, 'admitted', 5), of(0, 'refused:expired', 1), of(30, 'units:x', 7)]
    same(await read(test, { keyId: 'a' }), expected, promise)
    same(await read(test, { keyId: 'b' }), [of(0, 'admitted', 5)], promise)
    same(await read(test, { keyId: 'c' }), [], 'nothing is counted of a key that does not exist')
  },

  'adds a batch once, and none of a writer that has gone on': async (test) => {
    const { store, same } = test
    await store.insert([keyRecord({ id: 'a' })])
    await add(test, 1, [count('a', 0, 'admitted', 1)])
    await add(test, 1, [count('a', 0, 'admitted', 1)])
    await add(test, 2, [count('a', 0, 'admitted', 10)])
    await add(test, 1, [count('a', 0, 'admitted', 1)])
    await store.addUsage({ writer: 'other', number: 1, ...KEEP, counts: [count('a', 0, 'admitted', 100)] })
    same(await read(test, { keyId: 'a' }), [of(0, 'admitted', 111)], 'a batch that comes again adds nothing')
  },

  'adds one batch that comes 20 times at once a single time': async (test) => {
    const { store, same } = test
    await store.insert([keyRecord({ id: 'a' })])
    // Some may fail, as two of them begin a writer: whoever fails is sent again.
    const sent = await Promise.allSettled(
      Array.from({ length: 20 }, () => add(test, 1, [count('a', 0, 'admitted', 1)])),
    )
    if (sent.some(({ status }) => status === 'rejected')) await add(test, 1, [count('a', 0, 'admitted', 1)])
    same(await read(test, { keyId: 'a' }), [of(0, 'admitted', 1)], 'a batch that comes again adds nothing')
  },

  'adds batches of 20 writers at once, in either order of keys': async (test) => {
    const { store, same } = test
    await store.insert([keyRecord({ id: 'a' }), keyRecord({ id: 'b' })])
    await atOnce(20, (i) => {
      const counts = [count('a', 0, 'admitted', 1), count('b', 1, 'admitted', 2)]
      const batch = { number: 1, ...KEEP, counts: i % 2 === 0 ? counts : counts.reverse() }
      return store.addUsage({ writer: `w${i}`, ...batch })
    })
    const promise = 'counts add: concurrent batches lose none of them, and no batch fails'
    same(await read(test, { keyId: 'a' }), [of(0, 'admitted', 20)], promise)
    same(await read(test, { owner: OWNER }), [of(0, 'admitted', 20), of(1, 'admitted', 40)], promise)
  },

  'adds what is counted of keys to their owner, but no permissions': async (test) => {
    const { store, same } = test
    const owner = { type: 'organization', id: 'u_1' }
    await store.insert([keyRecord({ id: 'a' }), keyRecord({ id: 'b' }), keyRecord({ id: 'c', owner })])
    const used = ['a', 'b', 'c'].map((id) => count(id, 2, 'admitted', 1))
    await add(test, 1, [...used, count('a', 2, 'permission:projects read', 4)])
    same(await read(test, { owner: OWNER }), [of(2, 'admitted', 2)], 'readUsage of an owner has all its keys')
    same(await read(test, { owner }), [of(2, 'admitted', 1)], 'owners of another type are others')
    const permissions = await read(test, { keyId: 'a' }, 0, 48, 'permissions')
    same(permissions, [of(2, 'permission:projects read', 4)], 'permissions are counted by key')
    same(await read(test, { owner: OWNER }, 0, 48, 'permissions'), [], 'permissions are counted by key')
    same(
      await read(test, { keyId: 'a' }),
      [of(2, 'admitted', 1)],
      'counts of permissions are read by themselves',
    )
  },

  'reads the hours that are asked for, and no others': async (test) => {
    const { store, same } = test
    await store.insert([keyRecord({ id: 'a' })])
    const hours = [-1, 0, 11, 12, 23, 24, 8_000]
    await add(
      test,
      1,
      hours.map((hour) => count('a', hour, 'admitted', 1)),
    )
    const promise = 'readUsage returns hours from fromHour to before toHour'
    const found = async (from: number, to: number) =>
      (await read(test, { keyId: 'a' }, from, to)).map(({ hour }) => hour - H0)
    same(await found(0, 24), [0, 11, 12, 23], promise)
    same(await found(11, 12), [11], promise)
    same(await found(-1, 8_001), hours, promise)
    same(await found(13, 13), [], promise)
  },

  'gives units back, and leaves out what adds up to nothing': async (test) => {
    const { store, same } = test
    await store.insert([keyRecord({ id: 'a' })])
    await add(test, 1, [count('a', 0, 'units:x', 5), count('a', 1, 'units:x', 5)])
    await add(test, 2, [count('a', 0, 'units:x', -5), count('a', 1, 'units:x', -7)])
    same(await read(test, { keyId: 'a' }), [of(1, 'units:x', -2)], 'counts add, negative ones too')
  },

  'leaves out keys that are gone, and counts the others of a batch': async (test) => {
    const { store, same } = test
    await store.insert([keyRecord({ id: 'a' })])
    await add(test, 1, [
      count('gone', 0, 'admitted', 9),
      count('a', 0, 'admitted', 1),
      count('A', 0, 'admitted', 9),
    ])
    same(
      await read(test, { keyId: 'a' }),
      [of(0, 'admitted', 1)],
      'a key that is gone does not lose the others',
    )
    same(await read(test, { keyId: 'gone' }), [], 'nothing is counted of a key that is gone')
    same(await read(test, { owner: OWNER }), [of(0, 'admitted', 1)], 'an owner has the use of its keys alone')
  },

  'removes the counts of purged keys, and keeps those of their owner': async (test) => {
    const { store, same } = test
    await store.insert([keyRecord({ id: 'a', revokedAt: at(0) }), keyRecord({ id: 'b' })])
    await add(test, 1, [count('a', 0, 'admitted', 1), count('b', 0, 'admitted', 2)])
    await store.purge(['a', 'b'], at(1))
    same(await read(test, { keyId: 'a' }), [], 'purge removes what was counted of a key')
    same(
      await read(test, { keyId: 'b' }),
      [of(0, 'admitted', 2)],
      'a key that is not purged keeps its counts',
    )
    same(
      await read(test, { owner: OWNER }),
      [of(0, 'admitted', 3)],
      'an owner keeps what purged keys have used',
    )
  },

  'removes the counts of an owner, or those from before an hour': async (test) => {
    const { store, same } = test
    const owner = { type: 'user', id: 'u_2' }
    await store.insert([keyRecord({ id: 'a' }), keyRecord({ id: 'b', owner })])
    const days = [0, 24, 48].flatMap((hour) => [
      count('a', hour, 'admitted', 1),
      count('b', hour, 'admitted', 1),
    ])
    await add(test, 1, days)
    await store.removeUsage({ owner: OWNER })
    same(await read(test, { owner: OWNER }, -48, 96), [], 'removeUsage removes the counts of an owner')
    same((await read(test, { owner }, -48, 96)).length, 3, 'removeUsage leaves other owners alone')
    same((await read(test, { keyId: 'a' }, -48, 96)).length, 3, 'removeUsage of an owner leaves keys alone')
    const midnight = Math.floor(H0 / 24) * 24 + 24
    await store.removeUsage({ beforeHour: midnight })
    const left = [of(24, 'admitted', 1), of(48, 'admitted', 1)]
    same(await read(test, { keyId: 'b' }, -48, 96), left, 'removeUsage removes what is older than an hour')
    same(await read(test, { owner }, -48, 96), left, 'removeUsage removes what is older, of owners too')
    await add(test, 2, [count('b', 24, 'admitted', 1)])
    same((await read(test, { keyId: 'b' }, -48, 96))[0], of(24, 'admitted', 2), 'counting goes on afterwards')
  },

  'keeps ids and owners apart that look alike': async (test) => {
    const { store, same } = test
    const owners = [
      OWNER,
      { type: 'user:u', id: '1' },
      { type: 'user', id: 'U_1' },
      { type: 'user', id: 'u_1 ' },
    ]
    await store.insert(owners.map((owner, i) => keyRecord({ id: `{key} ${i}`, owner })))
    await add(
      test,
      1,
      owners.map((_owner, i) => count(`{key} ${i}`, 0, 'admitted', i + 1)),
    )
    for (const [i, owner] of owners.entries()) {
      const expected = [of(0, 'admitted', i + 1)]
      same(await read(test, { owner }), expected, 'owners are compared by type and id, to the letter')
      same(await read(test, { keyId: `{key} ${i}` }), expected, 'keys are compared by id, to the letter')
    }
  },
}

export const LIFECYCLE_COUNT_CASES: StoreCases = {
  'counts what was admitted, refused and charged, and forgets an erased owner': async (test) => {
    const { same } = test
    const { keys, close } = lifecycleKeys(test)
    const permissions = { projects: ['read', 'write'] }
    const { key, apiKey } = await keys.issue({
      owner: OWNER,
      name: 'CI',
      permissions,
      quota: { remaining: 10 },
    })
    await keys.verify(key, { permissions: { projects: ['read'] } })
    await keys.verify(key, { permissions: { users: ['read'] } })
    await keys.verify(key, { cost: { quota: 3 } })
    await keys.flush()
    const expected = {
      admitted: 2,
      refused: 1,
      refusedBy: { insufficient_permissions: 1 },
      units: { quota: 4 },
    }
    const promise = 'usage shows what the calls of a key were'
    same((await keys.usage({ key: apiKey.id })).total, expected, promise)
    same((await keys.usage({ owner: OWNER, by: 'hour' })).total, expected, promise)
    const found = await keys.unusedPermissions(apiKey.id)
    same(found?.unused, { projects: ['write'] }, 'unusedPermissions names what no call needed')
    await keys.erase(OWNER)
    same((await keys.usage({ owner: OWNER })).total.admitted, 0, 'erase removes the use of an owner')
    same((await keys.usage({ key: apiKey.id })).total.admitted, 0, 'erase removes the use of its keys')
    await close()
  },
}

function count(keyId: string, hour: number, counter: string, amount: number): UsageCount {
  return { keyId, hour: H0 + hour, counter, amount }
}

function of(hour: number, counter: string, amount: number): HourlyCount {
  return { hour: H0 + hour, counter, amount }
}

function add({ store }: StoreTest, number: number, counts: readonly UsageCount[]): Promise<void> {
  return store.addUsage({ writer: 'writer1', number, ...KEEP, counts })
}

/** The counts in order of hour and counter. */
async function read(
  { store }: StoreTest,
  subject: Parameters<StoreTest['store']['readUsage']>[0]['of'],
  from = 0,
  to = 48,
  kind: 'calls' | 'permissions' = 'calls',
): Promise<HourlyCount[]> {
  const found = await store.readUsage({ of: subject, fromHour: H0 + from, toHour: H0 + to, kind })
  return found
    .map(({ hour, counter, amount }) => ({ hour, counter, amount }))
    .sort((a, b) => a.hour - b.hour || (a.counter < b.counter ? -1 : 1))
}
