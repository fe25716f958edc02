import { comparePositions, type KeyFilter, type KeyPosition, type ListPage } from '../core/keys/key-store.ts'
import { isOwnedBy, type KeyRecord } from '../core/keys/record.ts'
import { at, keyRecord } from './key-records.ts'
import {
  idsEndedBefore,
  idsExpiringBefore,
  idsWithStatus,
  MOMENTS,
  STATUSES,
  statusGrid,
} from './status-grid.ts'
import { quote, type StoreCases, type StoreTest } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'

export const LIST_CASES: StoreCases = {
  'returns an empty list if there is nothing': async ({ list, same }) => {
    same(await list(), [], 'list of an empty store is empty')
    const after = { createdAt: at(0), id: 'a' }
    same(await list({ name: 'CI' }, 10, after), [], 'list of an empty store is empty')
  },

  'orders by creation, then by id, whatever the order of insertion': async (test) => {
    const { store, ids, same } = test
    const created: [string, number][] = [
      ['b', 2],
      ['z', 1],
      ['a', 2],
      ['B', 2],
      ['y', 1_001],
      ['x', 1_000],
    ]
    for (const [id, ms] of created)
      await store.insert([keyRecord({ id, createdAt: at(ms), updatedAt: at(-ms) })])
    const expected = ['z', 'B', 'a', 'b', 'x', 'y']
    same(await ids(), expected, 'list goes by createdAt to the millisecond, then by id')
    for (const limit of [1, 2, 3, 5, 6, 7]) {
      const seen = await pages(test, limit)
      same(seen.flat(), expected, `list begins right behind "after": pages of ${limit} show every key once`)
      const sizes = seen.slice(0, -1).map(({ length }) => length)
      same(new Set([...sizes, limit]).size, 1, 'list returns "limit" records if there are that many')
    }
  },

  'compares ids by code point': async (test) => {
    const { store, ids, same } = test
    for (const text of DISTINCT_TEXTS.toReversed())
      await store.insert([keyRecord({ id: text, lookup: text })])
    const promise = 'list compares ids by code point: neither by a language, nor by UTF-16 units'
    same(spelledOut(await ids()), spelledOut(DISTINCT_TEXTS), promise)
    same(
      spelledOut((await pages(test, 3)).flat()),
      spelledOut(DISTINCT_TEXTS),
      `${promise}, page by page too`,
    )
  },

  'begins after a position, whether or not a key is there': async ({ store, list, same }) => {
    await store.insert([1, 2, 3].map((ms) => keyRecord({ id: `k${ms}`, createdAt: at(ms) })))
    const positions: [KeyPosition, string[]][] = [
      [{ createdAt: at(0), id: 'zzz' }, ['k1', 'k2', 'k3']],
      [{ createdAt: at(1), id: 'k1' }, ['k2', 'k3']],
      [{ createdAt: at(1), id: 'k0' }, ['k1', 'k2', 'k3']],
      [{ createdAt: at(2), id: 'k1' }, ['k2', 'k3']],
      [{ createdAt: at(2), id: 'k2a' }, ['k3']],
      [{ createdAt: at(3), id: 'k3' }, []],
      [{ createdAt: at(9), id: 'a' }, []],
    ]
    for (const [after, expected] of positions) {
      const found = (await list({}, 10, after)).map(({ id }) => id)
      same(found, expected, 'list begins right after (createdAt, id) of "after", compared together')
    }
  },

  'reverses the order if the newest come first': async (test) => {
    const { store, list, same } = test
    const created: [string, number][] = [
      ['b', 2],
      ['z', 1],
      ['a', 2],
      ['B', 2],
      ['y', 1_001],
      ['x', 1_000],
    ]
    for (const [id, ms] of created)
      await store.insert([keyRecord({ id, createdAt: at(ms), updatedAt: at(-ms) })])
    const expected = ['y', 'x', 'b', 'a', 'B', 'z']
    const promise = 'list with "order: newest" goes by createdAt, then by id, both downwards'
    same(idsOf(await list({}, 10, undefined, 'newest')), expected, promise)
    for (const limit of [1, 2, 3, 5, 6, 7]) {
      const seen = await pages(test, limit, undefined, {}, 'newest')
      const paged = `list with "order: newest" begins right behind "after": pages of ${limit} show every key once`
      same(seen.flat(), expected, paged)
    }
    const positions: [KeyPosition, string[]][] = [
      [{ createdAt: at(9_999), id: 'a' }, expected],
      [{ createdAt: at(1_001), id: 'a' }, ['x', 'b', 'a', 'B', 'z']],
      [{ createdAt: at(1_001), id: 'z' }, expected],
      [{ createdAt: at(2), id: 'aa' }, ['a', 'B', 'z']],
      [{ createdAt: at(2), id: 'a' }, ['B', 'z']],
      [{ createdAt: at(1), id: 'z' }, []],
      [{ createdAt: at(0), id: 'z' }, []],
    ]
    for (const [after, behind] of positions) {
      const begins =
        'list with "order: newest" begins right after (createdAt, id) of "after", compared together'
      same(idsOf(await list({}, 10, after, 'newest')), behind, begins)
    }
  },

  'compares ids by code point, newest first': async (test) => {
    for (const text of DISTINCT_TEXTS) await test.store.insert([keyRecord({ id: text, lookup: text })])
    const seen = (await pages(test, 3, undefined, {}, 'newest')).flat()
    const promise = 'list with "order: newest" compares ids by code point'
    test.same(spelledOut(seen), spelledOut(DISTINCT_TEXTS.toReversed()), promise)
  },

  'returns every key once, with keys inserted and removed between the pages': async (test) => {
    const { store, same } = test
    await store.insert(Array.from({ length: 10 }, (_, i) => keyRecord({ id: `k${i}`, createdAt: at(i) })))
    const seen = await pages(test, 3, async (page) => {
      if (page > 2) return
      await store.insert([
        keyRecord({ id: `before ${page}`, createdAt: at(-page) }),
        keyRecord({ id: `behind ${page}`, createdAt: at(100 + page) }),
      ])
      // The record that the next page begins behind is gone.
      await store.update(`k${page * 3 - 1}`, 1, { revokedAt: at(0), updatedAt: at(0) })
      await store.purge([`k${page * 3 - 1}`], at(0))
    })
    const expected = [...Array.from({ length: 10 }, (_, i) => `k${i}`), 'behind 1', 'behind 2']
    same(seen.flat(), expected, 'pages keep their place while keys come and go before them')
  },

  'returns every key that stays once, while others come and go': async (test) => {
    const { store, same, holds } = test
    const staying = Array.from({ length: 30 }, (_, i) => keyRecord({ id: `stays ${i}`, createdAt: at(i) }))
    const going = staying.map((record, i) =>
      keyRecord({ ...record, id: `goes ${i}`, lookup: `goes ${i}`, revokedAt: at(0) }),
    )
    await store.insert([...staying, ...going])
    const comeAndGo = async () => {
      for (const [i, { id }] of going.entries()) {
        await store.insert([keyRecord({ id: `comes ${i}`, createdAt: at(29 - i) })])
        await store.purge([id], at(1))
      }
    }
    const [seen] = await Promise.all([pages(test, 4), comeAndGo()])
    const stayed = seen.flat().filter((id) => id.startsWith('stays'))
    const expected = staying.map(({ id }) => id)
    same(
      stayed,
      expected,
      'list returns every key that stays exactly once, in order, whatever keys come and go',
    )
    holds(new Set(seen.flat()).size === seen.flat().length, 'list shows no key twice')
  },

  'returns as many as requested': async ({ store, list, same }) => {
    const all = Array.from({ length: 1_005 }, (_, i) => keyRecord({ id: `k${1_000 + i}` }))
    for (let from = 0; from < all.length; from += 201) await store.insert(all.slice(from, from + 201))
    const found = (await list({}, 1_001)).map(({ id }) => id)
    const expected = all.slice(0, 1_001).map(({ id }) => id)
    same(found, expected, 'list returns up to 1,001 records: a shorter page means that there are no more')
  },

  'includes every completed write at once': async ({ store, ids, same }) => {
    const owner = { type: 'user', id: 'u_9' }
    for (let i = 0; i < 20; i += 1) {
      await store.insert([keyRecord({ id: `k${10 + i}`, owner })])
      const promise = 'list includes every resolved write: revoking all keys of an owner relies on it'
      same((await ids({ owners: [owner] })).length, i + 1, promise)
    }
    await store.update('k10', 1, { revokedAt: at(0), updatedAt: at(0) })
    const active = await ids({ owners: [owner], status: { is: 'active', at: at(0) } })
    same(active.length, 19, 'list filters by what has been written, not by what was there before')
  },

  'filters by every member, and by all given members together': async ({ store, ids, same }) => {
    const owner = { type: 'user', id: 'someone' }
    await store.insert([
      keyRecord({ id: 'a', owner, name: 'nightly' }),
      keyRecord({ id: 'b', owner, createdBy: 'admin' }),
      keyRecord({ id: 'c', owner: { type: 'organization', id: 'someone' }, createdBy: 'admin' }),
      keyRecord({ id: 'd', owner: { type: 'user', id: 'someone else' }, lineageId: 'a' }),
      keyRecord({ id: 'e', owner, createdBy: 'admin', enabled: false, lineageId: 'b' }),
    ])
    const active = { is: 'active', at: at(0) } as const
    const filters: [KeyFilter, string][] = [
      [{}, 'abcde'],
      [{ owners: [owner] }, 'abe'],
      [{ owners: [{ type: 'organization', id: 'someone' }] }, 'c'],
      [{ owners: [{ type: 'service', id: 'someone' }] }, ''],
      [{ createdBy: 'admin' }, 'bce'],
      [{ name: 'nightly' }, 'a'],
      [{ lineageId: 'a' }, 'ad'],
      [{ status: active }, 'abcd'],
      [{ owners: [owner], createdBy: 'admin' }, 'be'],
      [{ owners: [owner], createdBy: 'admin', status: active }, 'b'],
      [
        {
          owners: [owner],
          createdBy: 'admin',
          name: 'CI',
          lineageId: 'b',
          status: { ...active, is: 'disabled' },
        },
        'e',
      ],
      [{ createdBy: 'admin', name: 'nightly' }, ''],
      [{ createdBy: 'null' }, ''],
    ]
    for (const [filter, expected] of filters) {
      const promise = `list answers the keys for which every member of the filter holds: ${JSON.stringify(filter)}`
      same((await ids(filter)).join(''), expected, promise)
    }
  },

  'filters, then takes the page': async ({ store, list, same }) => {
    const owner = { type: 'user', id: 'mine' }
    await store.insert(
      Array.from({ length: 12 }, (_, i) =>
        keyRecord({ id: `k${10 + i}`, createdAt: at(i >> 2), ...(i % 3 === 0 && { owner }) }),
      ),
    )
    const first = await list({ owners: [owner] }, 2)
    const promise = 'list returns the first "limit" records after "after" that pass the filter'
    same(idsOf(first), ['k10', 'k13'], promise)
    const second = await list({ owners: [owner] }, 2, first[1] as KeyRecord)
    same(idsOf(second), ['k16', 'k19'], promise)
    same(await list({ owners: [owner] }, 2, second[1] as KeyRecord), [], promise)
  },

  'filters by any members together, page by page': async (test) => {
    const { store, list, same } = test
    const records = MEMBERS.reduce<Partial<KeyRecord>[]>(
      (all, { yes, no }) =>
        all.flatMap((record) => [
          { ...record, ...yes },
          { ...record, ...no },
        ]),
      [{}],
    ).map((members, i) => keyRecord({ ...members, id: `k${100 + i}`, createdAt: at(i >> 3) }))
    await store.insert(records)
    for (let asked = 0; asked < 2 ** MEMBERS.length; asked += 1) {
      const wanted = MEMBERS.filter((_, i) => asked & (1 << i))
      const filter: KeyFilter = Object.assign({}, ...wanted.map((member) => member.filter))
      const expected = idsOf(records.filter((record) => wanted.every(({ has }) => has(record))))
      const seen: KeyRecord[] = []
      for (let page = await list(filter, 10); page.length > 0 && seen.length <= records.length; ) {
        seen.push(...page)
        page = page.length < 10 ? [] : await list(filter, 10, page.at(-1) as KeyRecord)
      }
      const promise = `list answers, page by page, the keys for which every member of the filter holds: ${JSON.stringify(filter)}`
      same(idsOf(seen), expected, promise)
    }
  },

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

  'filters by identical texts only': async ({ store, ids, same }) => {
    const records = DISTINCT_TEXTS.map((text, i) =>
      keyRecord({
        id: `${100 + i}`,
        name: text,
        createdBy: text,
        lineageId: text,
        owner: { type: text, id: text },
      }),
    )
    await store.insert(records)
    for (const [i, text] of DISTINCT_TEXTS.entries()) {
      const filters: KeyFilter[] = [
        { name: text },
        { createdBy: text },
        { lineageId: text },
        { owners: [{ type: text, id: text }] },
      ]
      for (const filter of filters) {
        const promise = `list compares by code point: one key has the ${Object.keys(filter)} ${quote(text)}`
        same(await ids(filter), [`${100 + i}`], promise)
      }
    }
  },

  'filters by status, at its exact millisecond': async ({ store, ids, same }) => {
    const grid = statusGrid()
    await store.insert(grid)
    for (const moment of MOMENTS)
      for (const is of STATUSES) {
        const promise = `list decides the status as keyStatus does, at the moment it is told: ${is} at ${moment.toISOString()}`
        same(await ids({ status: { is, at: moment } }), idsWithStatus(grid, is, moment), promise)
      }
  },

  'filters by the end of a key, to the millisecond': async ({ store, ids, same }) => {
    const grid = statusGrid()
    await store.insert(grid)
    for (const moment of MOMENTS) {
      const promise = `"endedBefore" is for keys that were revoked or had expired before ${moment.toISOString()}, not at it`
      same(await ids({ endedBefore: moment }), idsEndedBefore(grid, moment), promise)
    }
  },

  'filters by "expiresAt", to the millisecond': async ({ store, list, ids, same }) => {
    const owner = { type: 'user', id: 'mine' }
    const idle = { idleExpiryMs: 1, createdAt: at(1) }
    const grid = [
      ...statusGrid().map((record, i) => ({ ...record, ...(i % 2 === 0 && { owner }) })),
      keyRecord({ ...idle, id: 'idle' }),
      keyRecord({ ...idle, id: 'idle and expiring', expiresAt: at(20), owner }),
    ]
    await store.insert(grid)
    for (const moment of MOMENTS) {
      const promise = `"expiresBefore" is for keys whose "expiresAt" is before ${moment.toISOString()}, not at it, whatever their status`
      same(await ids({ expiresBefore: moment }), idsExpiringBefore(grid, moment), promise)
    }
    const promise = 'list answers, page by page, the keys for which every member of the filter holds'
    const filter: KeyFilter = {
      owners: [owner, NOBODY],
      status: { is: 'active', at: at(0) },
      expiresBefore: at(21),
    }
    const expected = grid.filter(
      (record) =>
        record.owner === owner && record.enabled && record.revokedAt === null && record.expiresAt !== null,
    )
    const first = await list(filter, 2, undefined, 'newest')
    const rest = await list(filter, 10, first.at(-1), 'newest')
    same(idsOf([...first, ...rest]), idsOf(expected).toReversed(), promise)
  },

  'counts what it lists, if the store can count': async ({ store, ids, same }) => {
    if (!store.count) return
    const promise = 'count returns how many keys list has for the same filter'
    same(await store.count({}), 0, promise)
    const records = statusGrid().map((record, i) => ({
      ...record,
      owner: { type: i % 5 === 0 ? 'organization' : 'user', id: `u_${i % 4}` },
      name: `name ${i % 3}`,
      createdBy: i % 2 === 0 ? 'admin' : null,
      lineageId: `l${i % 6}`,
    }))
    await store.insert(records)
    const owners = Array.from({ length: 100 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
    const filters: KeyFilter[] = [
      {},
      { owners: owners.slice(0, 1) },
      { owners: owners.slice(0, 3) },
      { owners },
      { owners: [NOBODY] },
      { createdBy: 'admin' },
      { createdBy: 'nobody' },
      { name: 'name 1' },
      { lineageId: 'l2' },
      { endedBefore: at(11) },
      { expiresBefore: at(11) },
      ...STATUSES.map((is) => ({ status: { is, at: at(15) } })),
      {
        owners: owners.slice(0, 2),
        status: { is: 'active', at: at(15) },
        name: 'name 0',
        expiresBefore: at(21),
      },
    ]
    for (const filter of filters) {
      const listed = (await ids(filter)).length
      same(await store.count(filter), listed, `${promise}: ${JSON.stringify(filter)}`)
    }
    await store.purge(['g0002'], at(100))
    same(await store.count({}), records.length - 1, 'count includes every write that has resolved')
  },
}

const USER_A = { type: 'user', id: 'a' }
const USER_B = { type: 'user', id: 'b' }
const ORGANIZATION_A = { type: 'organization', id: 'a' }
const ORGANIZATION_B = { type: 'organization', id: 'b' }
const NOBODY = { type: 'user', id: 'nobody' }

/** What each member of a filter asks for, and what makes a key have that or lack it. */
const MEMBERS: readonly {
  readonly filter: KeyFilter
  readonly yes: Partial<KeyRecord>
  readonly no: Partial<KeyRecord>
  has(record: KeyRecord): boolean
}[] = [
  {
    filter: { owners: [{ type: 'user', id: 'u_2' }] },
    yes: { owner: { type: 'user', id: 'u_2' } },
    no: { owner: { type: 'user', id: 'u_3' } },
    has: ({ owner }) => owner.id === 'u_2',
  },
  {
    filter: { createdBy: 'admin' },
    yes: { createdBy: 'admin' },
    no: { createdBy: null },
    has: ({ createdBy }) => createdBy === 'admin',
  },
  {
    filter: { name: 'nightly' },
    yes: { name: 'nightly' },
    no: { name: 'daily' },
    has: ({ name }) => name === 'nightly',
  },
  {
    filter: { lineageId: 'l' },
    yes: { lineageId: 'l' },
    no: { lineageId: 'm' },
    has: ({ lineageId }) => lineageId === 'l',
  },
  {
    filter: { status: { is: 'active', at: at(5) } },
    yes: { enabled: true },
    no: { enabled: false },
    has: ({ enabled, expiresAt }) => enabled && expiresAt === null,
  },
  {
    filter: { endedBefore: at(5) },
    yes: { expiresAt: at(4) },
    no: { expiresAt: null },
    has: ({ expiresAt }) => expiresAt !== null,
  },
]

/** All pages, with something done between one and the next. */
async function pages(
  { list, holds }: StoreTest,
  limit: number,
  between?: (page: number) => Promise<unknown>,
  filter: KeyFilter = {},
  order?: ListPage['order'],
): Promise<string[][]> {
  const seen: string[][] = []
  let after: KeyPosition | undefined
  for (;;) {
    const records = await list(filter, limit, after, order)
    holds(records.length <= limit, 'list returns at most "limit" records')
    const last = records.at(-1)
    if (!last) return seen
    seen.push(idsOf(records))
    holds(seen.length < 1_000, 'list comes to an end: the page after the last record is empty')
    after = { createdAt: last.createdAt, id: last.id }
    await between?.(seen.length)
  }
}

function idsOf(records: readonly KeyRecord[]): string[] {
  return records.map(({ id }) => id)
}

function spelledOut(texts: readonly string[]): string[] {
  return texts.map(quote)
}
