import type { KeyRecord } from '../core/keys/record.ts'
import { keyRecord } from './key-records.ts'
import { atOnce, quote, type StoreCases, type StoreTest } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'

export const INSERT_CASES: StoreCases = {
  'adds all of the records': async ({ store, ids, find, same }) => {
    await store.insert([keyRecord({ id: 'b' }), keyRecord({ id: 'a', lookup: 'lookup of a' })])
    same(await ids(), ['a', 'b'], 'insert adds every record of the batch')
    same(await find('b'), keyRecord({ id: 'b' }), 'insert keeps every member of a record')
  },

  'adds nothing for an empty batch': async ({ store, ids, same }) => {
    await store.insert([])
    same(await ids(), [], 'insert of no records resolves and adds none')
  },

  'adds none of the records if an id exists': (test) =>
    refuses(test, [keyRecord({ id: 'new' }), keyRecord({ id: 'old', lookup: 'other' })]),

  'adds none of the records if a lookup exists': (test) =>
    refuses(test, [keyRecord({ id: 'new' }), keyRecord({ id: 'other', lookup: 'old' })]),

  'adds none of the records if the first already exists': (test) =>
    refuses(test, [keyRecord({ id: 'old' }), keyRecord({ id: 'new' }), keyRecord({ id: 'other' })]),

  'adds none of the records if an id is twice in the batch': (test) =>
    refuses(test, [keyRecord({ id: 'new' }), keyRecord({ id: 'new', lookup: 'other' })]),

  'adds none of the records if a lookup is twice in the batch': (test) =>
    refuses(test, [keyRecord({ id: 'new' }), keyRecord({ id: 'other', lookup: 'new' })]),

  'adds none of the records if one cannot be stored': async ({ store, ids, find, same, has, rejects }) => {
    const broken = keyRecord({ id: 'b', metadata: unreadable() })
    const batch = [keyRecord({ id: 'a' }), broken, keyRecord({ id: 'c' })]
    await rejects(() => store.insert(batch), 'insert rejects if it cannot store a record')
    const promise =
      'insert adds all of the records or none: if reading the metadata of one throws, none is added'
    same(await ids(), [], promise)
    same(
      await store.find({ lookups: ['a', 'b', 'c'] }),
      null,
      'insert adds none of the records, and none of their lookups',
    )
    await store.insert([keyRecord({ id: 'a', name: 'again' })])
    has(await find('a'), { name: 'again' }, 'a failed insert does not block a later one')
  },

  'lets one of 50 concurrent inserts of the same id win': (test) =>
    oneWins(test, (i) => keyRecord({ id: 'a', lookup: `lookup ${i}`, name: `${i}` })),

  'lets one of 50 concurrent inserts of the same lookup win': (test) =>
    oneWins(test, (i) => keyRecord({ id: `a${i}`, lookup: 'lookup', name: `${i}` })),

  'adds every record of 50 concurrent inserts': async ({ store, ids, same }) => {
    await atOnce(50, (i) => store.insert([keyRecord({ id: `a${i}` }), keyRecord({ id: `b${i}` })]))
    const expected = Array.from({ length: 50 }, (_, i) => [`a${i}`, `b${i}`]).flat()
    same(await ids(), expected.sort(), 'concurrent inserts lose none of their records')
  },

  'treats texts as equal only if they are identical': async ({ store, same, ids }) => {
    for (const text of DISTINCT_TEXTS) {
      await store.insert([keyRecord({ id: text, lookup: text })]).catch((error: unknown) => {
        const problem = `ids and lookups are compared by code point: ${quote(text)} is not there yet`
        throw new Error(problem, { cause: error })
      })
    }
    const expected = [...DISTINCT_TEXTS].sort()
    same((await ids()).sort(), expected, 'ids that differ in any code point are different keys')
  },
}

/** Metadata that no store can read, let alone keep. */
export function unreadable(): KeyRecord['metadata'] {
  return {
    get unreadable() {
      throw new Error('this cannot be read')
    },
  }
}

async function refuses({ store, ids, same, has, find, rejects }: StoreTest, batch: KeyRecord[]) {
  await store.insert([keyRecord({ id: 'old', name: 'first' })])
  const promise = 'insert rejects if an id or a lookup exists, in the store or in the batch'
  await rejects(() => store.insert(batch), promise, 'duplicate_key')
  same(await ids(), ['old'], 'insert adds all of the records or none: a duplicate keeps out the whole batch')
  const found = await store.find({ lookups: ['new', 'other'] })
  same(found, null, 'insert adds all of the records or none: nothing of the batch can be found')
  has(await find('old'), { name: 'first', lookup: 'old' }, 'insert never changes a record that exists')
}

async function oneWins({ store, same, holds, list }: StoreTest, recordOf: (i: number) => KeyRecord) {
  // Each batch holds a record of its own, which must share its fate.
  const inserted = Array.from({ length: 50 }, (_, i) =>
    store.insert([keyRecord({ id: `own ${i}` }), recordOf(i)]),
  )
  const outcomes = await Promise.allSettled(inserted)
  const winners = outcomes.flatMap(({ status }, i) => (status === 'fulfilled' ? [`${i}`] : []))
  same(winners.length, 1, 'of inserts of the same key at once exactly one resolves')
  const found = await list()
  const names = found.filter(({ id }) => !id.startsWith('own')).map(({ name }) => name)
  same(names, winners, 'the stored records are those of the one insert that resolved')
  const others = found.filter(({ id }) => id.startsWith('own')).map(({ id }) => id.slice(4))
  holds(
    others.length === 1 && others[0] === winners[0],
    'insert adds all of the records or none, even with concurrent inserts',
  )
}
