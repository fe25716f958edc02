import type { KeyPosition, KeyStore } from '../core/keys/key-store.ts'
import { at, keyRecord } from './key-records.ts'
import { idsOf, pages } from './list-pages.ts'
import { quote, type StoreCases } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'

export const LIST_ORDER_CASES: StoreCases = {
  'returns an empty list if there is nothing': async ({ list, same }) => {
    same(await list(), [], 'list of an empty store is empty')
    const after = { createdAt: at(0), id: 'a' }
    same(await list({ name: 'CI' }, 10, after), [], 'list of an empty store is empty')
  },

  'orders by creation, then by id, whatever the order of insertion': async (test) => {
    const { store, ids, same } = test
    await insertInDisorder(store)
    const expected = ['z', 'B', 'a', 'b', 'x', 'y']
    same(await ids(), expected, 'list orders by createdAt to the millisecond, then by id')
    for (const limit of [1, 2, 3, 5, 6, 7]) {
      const seen = await pages(test, limit)
      same(seen.flat(), expected, `list begins right after "after": pages of ${limit} show every key once`)
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
    await insertInDisorder(store)
    const expected = ['y', 'x', 'b', 'a', 'B', 'z']
    const promise = 'list with "order: newest" orders by createdAt, then by id, both descending'
    same(idsOf(await list({}, 10, undefined, 'newest')), expected, promise)
    for (const limit of [1, 2, 3, 5, 6, 7]) {
      const seen = await pages(test, limit, undefined, {}, 'newest')
      const paged = `list with "order: newest" begins right after "after": pages of ${limit} show every key once`
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
}

/** Inserts keys in another order than a list has: some are as old as others, and later changes come in reverse. */
async function insertInDisorder(store: KeyStore): Promise<void> {
  const created: [string, number][] = [
    ['b', 2],
    ['z', 1],
    ['a', 2],
    ['B', 2],
    ['y', 1_001],
    ['x', 1_000],
  ]
  for (const [id, ms] of created) {
    await store.insert([keyRecord({ id, createdAt: at(ms), updatedAt: at(-ms) })])
  }
}

function spelledOut(texts: readonly string[]): string[] {
  return texts.map(quote)
}
