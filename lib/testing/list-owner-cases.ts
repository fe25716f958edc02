import { comparePositions, type KeyFilter } from '../core/keys/key-store.ts'
import { isOwnedBy, type KeyRecord } from '../core/keys/record.ts'
import { at, keyRecord } from './key-records.ts'
import { idsOf, pages } from './list-pages.ts'
import type { StoreCases } from './store-test.ts'

export const LIST_OWNER_CASES: StoreCases = {
  'mixes the keys of several owners in one order, page by page': async (test) => {
    const records = [USER_A, ORGANIZATION_A, USER_B, ORGANIZATION_B].flatMap((owner, i) =>
      Array.from({ length: 8 }, (_, n) =>
        keyRecord({
          id: `k${100 + ((5 * n + i) % 8) * 10 + i}`,
          createdAt: at((n + i) >> 1),
          owner,
          name: n % 2 === 0 ? 'nightly' : 'CI',
          createdBy: n % 4 < 2 ? 'admin' : null,
          enabled: n < 6,
        }),
      ),
    )
    await test.store.insert(records)
    const sorted = records.toSorted(comparePositions)
    const status = { is: 'active', at: at(5) } as const
    const others: [Omit<KeyFilter, 'owners'>, (record: KeyRecord) => boolean][] = [
      [{}, () => true],
      [{ name: 'nightly' }, ({ name }) => name === 'nightly'],
      [{ createdBy: 'admin' }, ({ createdBy }) => createdBy === 'admin'],
      [{ status }, ({ enabled }) => enabled],
      [
        { status, name: 'CI', createdBy: 'admin' },
        ({ enabled, name, createdBy }) => enabled && name === 'CI' && createdBy === 'admin',
      ],
    ]
    const lists = [
      [USER_A, ORGANIZATION_B],
      [ORGANIZATION_B, ORGANIZATION_A, USER_A],
      [USER_B, NOBODY, USER_A],
      [NOBODY],
    ]
    for (const owners of lists) {
      for (const [other, has] of others) {
        const expected = sorted
          .filter((record) => isOwnedBy(record, owners) && has(record))
          .map(({ id }) => id)
        for (const limit of [1, 3, 7, 100]) {
          const seen = await pages(test, limit, undefined, { owners, ...other })
          const asked = JSON.stringify({ owners, ...other })
          const promise = `list mixes the keys of all owners in the order of (createdAt, id), ${limit} a page: ${asked}`
          test.same(seen.flat(), expected, promise)
        }
        const newest = await pages(test, 3, undefined, { owners, ...other }, 'newest')
        const promise = 'list with "order: newest" mixes the keys of all owners in the opposite order'
        test.same(newest.flat(), expected.toReversed(), promise)
      }
    }
  },

  'lists the keys of 100 owners': async ({ store, list, same }) => {
    const owners = Array.from({ length: 100 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
    const all = Array.from({ length: 300 }, (_, i) =>
      keyRecord({
        id: `k${100 + i}`,
        createdAt: at(i >> 1),
        owner: { type: 'user', id: `u_${i % 3 === 0 ? 5 : (7 * i) % 110}` },
      }),
    )
    await store.insert(all)
    const expected = idsOf(all.filter((record) => isOwnedBy(record, owners)))
    const found = await list({ owners }, 200)
    same(idsOf(found), expected.slice(0, 200), 'list returns the first keys of up to 100 owners')
    const rest = idsOf(await list({ owners }, 200, found.at(-1)))
    same(rest, expected.slice(200), 'list goes on after "after" with the keys of up to 100 owners')
  },
}

const USER_A = { type: 'user', id: 'a' }
const USER_B = { type: 'user', id: 'b' }
const ORGANIZATION_A = { type: 'organization', id: 'a' }
const ORGANIZATION_B = { type: 'organization', id: 'b' }
const NOBODY = { type: 'user', id: 'nobody' }
