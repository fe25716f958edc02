import type { KeyChange } from '../core/keys/key-store.ts'
import type { KeyRecord } from '../core/keys/record.ts'
import { unreadable } from './insert-cases.ts'
import { at, keyRecord } from './key-records.ts'
import { atOnce, type StoreCases, type StoreTest } from './store-test.ts'

export const UPDATE_CASES: StoreCases = {
  'changes nothing for an unknown key': (test) => changesNothing(test, 'b', 3, 'missing'),
  'changes nothing for an older version': (test) => changesNothing(test, 'a', 2, 'conflict'),
  'changes nothing for a later version': (test) => changesNothing(test, 'a', 4, 'conflict'),

  'changes the given members, raises the version by one and leaves the rest': async ({
    store,
    find,
    same,
  }) => {
    const [stored, other] = [keyRecord({ id: 'a', version: 3 }), keyRecord({ id: 'b', version: 3 })]
    await store.insert([stored, other])
    const change = { name: 'new', enabled: false, rateLimits: [], updatedAt: at(5) }
    same(
      await store.update('a', 3, change),
      'updated',
      'update returns "updated" if the version is as expected',
    )
    const promise =
      'update changes the members given, makes the version expectedVersion + 1 and leaves the rest'
    same(await find('a'), { ...stored, ...change, version: 4 }, promise)
    same(await find('b'), other, 'update changes no other key')
  },

  'can change and clear every member of a change': async ({ store, find, same }) => {
    const stored = keyRecord({ id: 'a' })
    await store.insert([stored])
    let expected: KeyRecord = stored
    for (const [i, change] of CHANGES.entries()) {
      const full = { ...change, updatedAt: at(i + 1) }
      same(await store.update('a', i + 1, full), 'updated', 'update makes every change that the port has')
      expected = { ...expected, ...full, version: i + 2 }
      same(await find('a'), expected, `update changes exactly what is given: ${Object.keys(change)}`)
    }
  },

  'raises the version even if only the time is given': async ({ store, find, same }) => {
    await store.insert([keyRecord({ id: 'a' })])
    same(await store.update('a', 1, { updatedAt: at(0) }), 'updated', 'a change without members is a change')
    const promise =
      'a change without members still raises the version: what others hold is stale from then on'
    same(await find('a'), keyRecord({ id: 'a', version: 2 }), promise)
  },

  'lets one of 50 concurrent calls win, version after version': async ({ store, same, has, find }) => {
    await store.insert([keyRecord({ id: 'a' })])
    for (let version = 1; version <= 5; version += 1) {
      const outcomes = await atOnce(50, (i) =>
        store.update('a', version, { name: `${i}`, updatedAt: at(version) }),
      )
      const winners = outcomes.flatMap((outcome, i) => (outcome === 'updated' ? [`${i}`] : []))
      same(winners.length, 1, 'update is one compare-and-swap: of 50 at once exactly one wins each version')
      const losers = outcomes.filter((outcome) => outcome === 'conflict')
      same(losers.length, 49, 'a call that loses the race for a version returns "conflict"')
      const promise = 'the stored change is that of the call that returned "updated"'
      has(await find('a'), { name: winners[0] as string, version: version + 1 }, promise)
    }
  },

  'loses none of 20 concurrent changes, each made after reading the last': async (test) => {
    const { store, read, same } = test
    await store.insert([keyRecord({ id: 'a', permissions: {} })])
    const resources = Array.from({ length: 20 }, (_, i) => `r${i}`)
    await Promise.all(resources.map((resource) => allow(test, resource)))
    const { version, permissions } = await read('a')
    const promise = 'update is one compare-and-swap: no other change overwrites one that returned "updated"'
    same(Object.keys(permissions).sort(), resources.sort(), promise)
    same(version, 21, 'each change raises the version by one')
  },

  'neither fails because of a new digest nor undoes it': async ({ store, has, find, same }) => {
    for (let round = 0; round < 10; round += 1) {
      const id = `k${round}`
      await store.insert([keyRecord({ id, digest: 'old' })])
      const outcomes = await Promise.all([
        store.update(id, 1, { name: 'new', updatedAt: at(1) }),
        store.replaceDigest(id, 'old', 'new'),
        store.update(id, 1, { name: 'new', updatedAt: at(1) }),
      ])
      const promise = 'a change and a new digest at once: both are made, and neither takes back the other'
      same([...outcomes].sort(), ['conflict', true, 'updated'].sort(), promise)
      has(await find(id), { name: 'new', digest: 'new', version: 2 }, promise)
    }
  },

  'never clears a revocation': async ({ store, has, find }) => {
    await store.insert([keyRecord({ id: 'a' })])
    const revocation = { revokedAt: at(1), revokedBy: 'admin', revokedReason: 'leaked' }
    await store.update('a', 1, { ...revocation, updatedAt: at(1) })
    has(await find('a'), revocation, 'a revocation is kept with its time, person and reason')
    await store.update('a', 2, { revokedAt: null, updatedAt: at(2) })
    has(await find('a'), { revokedAt: at(1) }, 'update never clears revokedAt, whatever it is told')
    await store.update('a', 3, { enabled: true, expiresAt: null, updatedAt: at(3) })
    has(await find('a'), { revokedAt: at(1) }, 'update never clears revokedAt by a change of something else')
  },

  'changes nothing if it cannot store the change': async ({ store, find, same, rejects }) => {
    await store.insert([keyRecord({ id: 'a' })])
    const change: KeyChange = { name: 'new', metadata: unreadable(), updatedAt: at(1) }
    await rejects(() => store.update('a', 1, change), 'update rejects if it cannot store the change')
    same(await find('a'), keyRecord({ id: 'a' }), 'update makes all of a change or nothing')
  },

  'shows readers all of a change or none of it': async ({ store, read, same }) => {
    await store.insert([keyRecord({ id: 'a', name: '1', createdBy: null, revokedBy: '1' })])
    const look = async () => {
      const { name, revokedBy, version } = await read('a')
      same([name, revokedBy], [`${version}`, `${version}`], 'a record is read as one change has left it')
    }
    for (let version = 1; version <= 20; version += 1) {
      const next = `${version + 1}`
      const change = { name: next, revokedBy: next, updatedAt: at(version) }
      await Promise.all([look(), store.update('a', version, change), look(), look()])
    }
    await look()
  },
}

/** Every member that a change may have, set and cleared. */
const CHANGES: readonly Omit<KeyChange, 'updatedAt' | 'quota'>[] = [
  { name: 'new' },
  { permissions: { reports: ['read', 'write'] } },
  { permissions: {} },
  { metadata: { team: 'red' } },
  { metadata: {} },
  { enabled: false },
  { enabled: true },
  { rateLimits: [{ name: 'm', limit: 5, windowMs: 1_000 }] },
  { rateLimits: [] },
  { rateLimits: null },
  { allowedIps: [] },
  { allowedIps: null },
  { allowedIps: ['2001:db8::/32'] },
  { expiresAt: at(9) },
  { expiresAt: null },
  { idleExpiryMs: 60_000 },
  { idleExpiryMs: null },
  { rotatedTo: 'b', expiresAt: at(99) },
  { rotatedTo: null },
  { revokedAt: at(50) },
  { revokedBy: 'admin', revokedReason: 'leaked' },
  { revokedBy: null, revokedReason: null },
]

async function changesNothing(
  { store, find, ids, same }: StoreTest,
  id: string,
  version: number,
  outcome: 'conflict' | 'missing',
) {
  const stored = keyRecord({ id: 'a', version: 3 })
  await store.insert([stored])
  const change = { name: 'new', revokedAt: at(1), updatedAt: at(1) }
  const promise = `update answers "${outcome}" where the key ${outcome === 'missing' ? 'is not there' : 'has another version'}`
  same(await store.update(id, version, change), outcome, promise)
  same(await find('a'), stored, `update that answers "${outcome}" has changed nothing`)
  same(await ids(), ['a'], 'update adds no key')
}

/** Adds a permission as an administrator's program would: read, change, and again where somebody else was first. */
async function allow({ store, read, holds }: StoreTest, resource: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const { version, permissions } = await read('a')
    const change = { permissions: { ...permissions, [resource]: ['read'] }, updatedAt: at(1) }
    if ((await store.update('a', version, change)) === 'updated') return
    holds(
      attempt < 100,
      'one of several concurrent changes always wins: with 20 of them none loses 100 times',
    )
  }
}
