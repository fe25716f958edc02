import type { KeyFilter } from '../core/keys/key-store.ts'
import type { KeyRecord } from '../core/keys/record.ts'
import { at, keyRecord } from './key-records.ts'
import { idsOf } from './list-pages.ts'
import {
  idsEndedBefore,
  idsExpiringBefore,
  idsWithStatus,
  MOMENTS,
  STATUSES,
  statusGrid,
} from './status-grid.ts'
import { quote, type StoreCases } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'

export const LIST_FILTER_CASES: StoreCases = {
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
      const promise = `list returns the keys that match every member of the filter: ${JSON.stringify(filter)}`
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
      const promise = `list returns, page by page, the keys that match every member of the filter: ${JSON.stringify(filter)}`
      same(idsOf(seen), expected, promise)
    }
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
        const promise = `list finds the status that keyStatus returns for the same moment: ${is} at ${moment.toISOString()}`
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
    const promise = 'list returns, page by page, the keys that match every member of the filter'
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
