import { keyRecord } from './key-records.ts'
import { atOnce, quote, type StoreCases } from './store-test.ts'

export const DIGEST_CASES: StoreCases = {
  'returns false if the digest differs or there is no key': async ({ store, find, same }) => {
    const stored = keyRecord({ id: 'a', digest: 'old' })
    await store.insert([stored])
    for (const expected of ['older', 'OLD', 'old ', '', 'new', '%']) {
      const promise = `replaceDigest returns false unless the digest is exactly the expected one: ${quote(expected)}`
      same(await store.replaceDigest('a', expected, 'new'), false, promise)
    }
    same(
      await store.replaceDigest('b', 'old', 'new'),
      false,
      'replaceDigest returns false if there is no key',
    )
    same(await find('a'), stored, 'replaceDigest that returns false has changed nothing')
  },

  'replaces only the digest and keeps the version': async ({ store, find, same }) => {
    const [stored, other] = [keyRecord({ id: 'a', digest: 'old' }), keyRecord({ id: 'b', digest: 'old' })]
    await store.insert([stored, other])
    same(
      await store.replaceDigest('a', 'old', 'new'),
      true,
      'replaceDigest returns true if it has replaced the digest',
    )
    same(await find('a'), { ...stored, digest: 'new' }, 'replaceDigest leaves all but the digest as it is')
    same(await find('b'), other, 'replaceDigest changes no other key')
  },

  'lets one of 50 concurrent calls win': async ({ store, find, same }) => {
    await store.insert([keyRecord({ id: 'a', digest: 'old' })])
    const outcomes = await atOnce(50, (i) => store.replaceDigest('a', 'old', `new ${i}`))
    const winners = outcomes.flatMap((won, i) => (won === true ? [`new ${i}`] : []))
    same(
      winners.length,
      1,
      'replaceDigest is one compare-and-swap: exactly one of 50 concurrent calls returns true',
    )
    same(outcomes.filter((won) => won === false).length, 49, 'a losing call returns false')
    same((await find('a'))?.digest, winners[0], 'the stored digest is that of the call that returned true')
  },
}
