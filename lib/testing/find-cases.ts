import { at, keyRecord } from './key-records.ts'
import { quote, type StoreCases } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'

export const FIND_CASES: StoreCases = {
  'returns null if there is no such key': async ({ store, same }) => {
    await store.insert([keyRecord({ id: 'a', lookup: 'lookup of a' })])
    const unknown = [
      { id: 'b' },
      { id: 'lookup of a' },
      { id: '' },
      { id: '__proto__' },
      { lookups: ['a'] },
      { lookups: [] },
      { lookups: [''] },
      { lookups: ['constructor', 'b'] },
    ]
    for (const by of unknown) {
      same(await store.find(by), null, `find returns null if there is no such key: ${JSON.stringify(by)}`)
    }
  },

  'finds by id, and by any of several lookups': async ({ store, same }) => {
    const stored = keyRecord({ id: 'a', lookup: 'lookup of a' })
    await store.insert([stored, keyRecord({ id: 'b' })])
    same((await store.find({ id: 'a' }))?.id, 'a', 'find returns the record with the id')
    const lookups = ['x', 'lookup of a', 'y']
    same((await store.find({ lookups }))?.id, 'a', 'find returns the record that has one of the lookups')
    same(lookups, ['x', 'lookup of a', 'y'], 'find leaves the list of its caller as it is')
  },

  'returns the first of several, in the order of the lookups': async ({ store, same }) => {
    await store.insert([
      keyRecord({ id: 'a' }),
      keyRecord({ id: 'b', createdAt: at(-1) }),
      keyRecord({ id: 'c' }),
    ])
    const orders = [
      ['a', 'b', 'c'],
      ['b', 'a', 'c'],
      ['c', 'b', 'a'],
      ['nobody', 'c', 'a', 'c'],
    ]
    for (const lookups of orders) {
      const first = lookups.find((lookup) => lookup !== 'nobody')
      const promise = `find returns the record whose lookup comes first in the list: ${lookups}`
      same((await store.find({ lookups }))?.id, first, promise)
    }
  },

  'finds nothing by a text that only resembles a stored one': async ({ store, same }) => {
    const [kept, missing] = [0, 1].map((rest) => DISTINCT_TEXTS.filter((_, i) => i % 2 === rest)) as [
      string[],
      string[],
    ]
    await store.insert(kept.map((text) => keyRecord({ id: text })))
    for (const text of missing) {
      const promise = `find compares by code point: nothing is stored under ${quote(text)}`
      same((await store.find({ id: text }))?.id, undefined, promise)
      same((await store.find({ lookups: [text] }))?.id, undefined, promise)
    }
    for (const text of kept) {
      const promise = `find returns exactly the requested record: ${quote(text)}`
      same((await store.find({ id: text }))?.id, text, promise)
      same((await store.find({ lookups: [...missing.slice(0, 3), text] }))?.id, text, promise)
    }
  },

  'sees every completed write at once': async ({ store, has }) => {
    await store.insert([keyRecord({ id: 'a' })])
    for (let version = 1; version <= 20; version += 1) {
      const name = `version ${version + 1}`
      await store.update('a', version, { name, updatedAt: at(version) })
      const promise = 'find includes every resolved write: an older answer brings revoked keys back'
      has(await store.find({ id: 'a' }), { name, version: version + 1 }, promise)
      has(await store.find({ lookups: ['a'] }), { name, version: version + 1 }, promise)
    }
  },
}
