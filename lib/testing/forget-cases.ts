import type { KeyChange } from '../core/keys/key-store.ts'
import { at, keyRecord } from './key-records.ts'
import { lifecycleKeys } from './lifecycle-cases.ts'
import { atOnce, type StoreCases, type StoreTest } from './store-test.ts'

const ALICE = { type: 'user', id: 'alice' }
const BOB = { type: 'user', id: 'bob' }

const KNOWN = {
  owner: BOB,
  createdBy: 'alice',
  revokedAt: at(1),
  revokedBy: 'alice',
  revokedReason: 'leaked',
  usageCount: 3,
  lastUsedAt: at(1),
  lastUsedIp: '192.0.2.1',
  version: 3,
}

export const FORGET_CASES: StoreCases = {
  'changes nothing for an unknown key': (test) => changesNothing(test, 'b', 3, 'missing'),
  'changes nothing for an older version': (test) => changesNothing(test, 'a', 2, 'conflict'),
  'changes nothing for a later version': (test) => changesNothing(test, 'a', 4, 'conflict'),

  'clears the given members, raises the version by one and leaves the rest': async ({
    store,
    find,
    same,
  }) => {
    const [stored, other] = [keyRecord({ id: 'a', ...KNOWN }), keyRecord({ id: 'b', ...KNOWN })]
    await store.insert([stored, other])
    let expected = stored
    for (const cleared of [{ createdBy: null, lastUsedIp: null }, { revokedBy: null }] as const) {
      const forgetting = { ...cleared, updatedAt: at(expected.version) }
      const outcome = await store.forget('a', expected.version, forgetting)
      same(outcome, 'updated', 'forget returns "updated" if the version is as expected')
      expected = { ...expected, ...forgetting, version: expected.version + 1 }
      const promise =
        'forget clears the members given, makes the version expectedVersion + 1 and leaves the rest'
      same(await find('a'), expected, promise)
    }
    same(await find('b'), other, 'forget changes no other key')
  },

  'no longer lists the key by its issuer, and lists it by everything else as before': async (test) => {
    const { store, ids, same } = test
    await store.insert([keyRecord({ id: 'a', ...KNOWN }), keyRecord({ id: 'b', ...KNOWN })])
    await store.forget('a', 3, { createdBy: null, updatedAt: at(2) })
    same(await ids({ createdBy: 'alice' }), ['b'], 'a record without createdBy is listed by no createdBy')
    const others = [{}, { owners: [BOB] }, { name: 'CI' }, { status: { is: 'revoked' as const, at: at(2) } }]
    for (const filter of others) {
      same(
        await ids(filter),
        ['a', 'b'],
        `forget takes a key out of no other list: ${JSON.stringify(filter)}`,
      )
    }
    same(await ids({ lineageId: 'a' }), ['a'], 'forget takes a key out of no other list')
    same(await store.purge(['a', 'b'], at(2)), 2, 'a key with cleared members can be purged')
    same(await ids({ createdBy: 'alice' }), [], 'no list shows a purged key')
  },

  'is one compare-and-swap, like a change: neither undoes the other': async (test) => {
    const { store, read, has, same } = test
    for (let round = 0; round < 10; round += 1) {
      const id = `k${round}`
      await store.insert([keyRecord({ id, ...KNOWN })])
      const rename = () => store.update(id, 3, { name: 'new', updatedAt: at(2) })
      const forget = () => store.forget(id, 3, { createdBy: null, lastUsedIp: null, updatedAt: at(2) })
      // Either is called first as often.
      const isFirst = round % 2 === 0
      const calls = isFirst ? [forget, rename, rename] : [rename, forget, rename]
      const outcomes = await Promise.all(calls.map((call) => call()))
      const promise =
        'of concurrent changes and a forget, one wins the version, and the others return "conflict"'
      same([...outcomes].sort(), ['conflict', 'conflict', 'updated'], promise)
      const isForgotten = outcomes[isFirst ? 0 : 1] === 'updated'
      has(await read(id), { createdBy: isForgotten ? null : 'alice', version: 4 }, promise)
      await store.forget(id, 4, { createdBy: null, updatedAt: at(3) })
      same(await store.update(id, 5, { name: 'newer', updatedAt: at(4) }), 'updated', promise)
      const kept = { createdBy: null, name: 'newer', version: 6 }
      has(await read(id), kept, 'a later change does not bring back what was forgotten')
    }
  },

  'lets createApiKeys erase an owner': async (test) => {
    const { has, same, find, ids } = test
    const { keys, close } = lifecycleKeys(test)
    const own = await keys.issue({ owner: ALICE, name: 'laptop', createdBy: 'alice' })
    const next = await keys.rotate(own.apiKey.id)
    const { apiKey: given } = await keys.issue({ owner: BOB, name: 'kept', createdBy: 'alice' })
    await keys.revoke(given.id, { by: 'alice' })
    same(await keys.erase(ALICE), { removed: 2, forgotten: 1 }, 'erase returns how much it has done')
    for (const { key } of [own, next]) {
      has(await keys.verify(key), { ok: false }, 'a key of an owner that was erased is refused')
    }
    same(await ids(), [given.id], 'the keys of the owner are gone, and those of others stay')
    has(await find(given.id), { createdBy: null, revokedBy: null }, 'others no longer name the owner')
    same(await keys.erase(ALICE), { removed: 0, forgotten: 0 }, 'what is erased can be erased again')
    await close()
  },
}

export const FORGET_USAGE_CASES: StoreCases = {
  'counts every concurrent use': async ({ store, read, has }) => {
    await store.insert([keyRecord({ id: 'a', ...KNOWN })])
    const use = { id: 'a', count: 1, lastUsedAt: at(1), lastUsedIp: '192.0.2.1' }
    await Promise.all([
      atOnce(20, () => store.recordUsage([use])),
      store.forget('a', 3, { createdBy: null, lastUsedIp: null, updatedAt: at(2) }),
    ])
    has(await read('a'), { usageCount: 23, lastUsedAt: at(1), createdBy: null }, 'forget loses no use')
    await store.forget('a', 4, { lastUsedIp: null, updatedAt: at(3) })
    await store.recordUsage([{ ...use, lastUsedAt: at(4), lastUsedIp: '192.0.2.2' }])
    const promise = 'a later use brings its own address'
    has(await read('a'), { lastUsedAt: at(4), lastUsedIp: '192.0.2.2', version: 5 }, promise)
  },
}

async function changesNothing(
  { store, find, same }: StoreTest,
  id: string,
  version: number,
  outcome: 'conflict' | 'missing',
) {
  const stored = keyRecord({ id: 'a', ...KNOWN })
  await store.insert([stored])
  const forgetting: Pick<KeyChange, 'updatedAt'> = { updatedAt: at(2) }
  const promise = `forget returns "${outcome}" if the key ${outcome === 'missing' ? 'is not there' : 'has another version'}`
  same(await store.forget(id, version, { ...forgetting, createdBy: null }), outcome, promise)
  same(await find('a'), stored, `forget that returns "${outcome}" has changed nothing`)
}
