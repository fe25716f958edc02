import { at, keyRecord } from './key-records.ts'
import { lifecycleKeys } from './lifecycle-cases.ts'
import { atOnce, quote, type StoreCases } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'

const keep = (value: string) => ({ value, replace: false })
const replace = (value: string) => ({ value, replace: true })

export const AGREEMENT_CASES: StoreCases = {
  'returns null if nothing is agreed on, and writes nothing without a proposal': async ({ store, same }) => {
    for (const promise of ['agree returns null if nothing is kept', 'agree without a proposal only reads']) {
      same(await store.agree('looked at', null), null, promise)
    }
  },

  'keeps the first proposal and returns it to every caller': async ({ store, same }) => {
    same(await store.agree('kept', keep('1')), '1', 'agree keeps a proposal if nothing is kept')
    const promise = 'agree returns the kept value, and a later proposal changes nothing'
    for (const proposal of [keep('2'), keep('1'), null])
      same(await store.agree('kept', proposal), '1', promise)
    same(await store.agree('kept too', null), null, 'agreements with other names are separate')
  },

  'lets one of 50 concurrent calls win': async ({ store, same, holds }) => {
    const answers = await atOnce(50, (i) => store.agree('raced', keep(`${i}`)))
    same(
      new Set(answers).size,
      1,
      'agree is one atomic step: of 50 concurrent calls one wins, and all return its value',
    )
    holds(typeof answers[0] === 'string', 'agree with a proposal returns a value')
    same(await store.agree('raced', null), answers[0], 'the kept value is the one that all calls returned')
  },

  'replaces the value with "replace"': async ({ store, same }) => {
    same(
      await store.agree('replaced', replace('1')),
      '1',
      'agree with "replace" keeps a value if nothing is kept',
    )
    same(
      await store.agree('replaced', replace('2')),
      '2',
      'agree with "replace" keeps the value whatever is kept',
    )
    same(await store.agree('replaced', keep('3')), '2', 'what was replaced is kept like any other')
    same(await store.agree('replaced', null), '2', 'what was replaced is gone')
  },

  'replaces with "expected" that value and no other': async ({ store, same, holds }) => {
    const swap = (expected: string, value: string) => ({ value, expected, replace: false })
    same(
      await store.agree('swapped', swap('0', '1')),
      '1',
      'agree keeps a proposal with "expected" if nothing is kept',
    )
    same(
      await store.agree('swapped', swap('0', '2')),
      '1',
      'agree keeps a value that is not the expected one',
    )
    same(await store.agree('swapped', swap('1', '2')), '2', 'agree replaces the value that is expected')
    same(await store.agree('swapped', null), '2', 'what was swapped is kept like any other')
    const answers = await atOnce(50, (i) => store.agree('swapped', swap('2', `of ${i}`)))
    same(
      new Set(answers).size,
      1,
      'a swap is one atomic step: of 50 concurrent calls one wins, and all return its value',
    )
    holds(answers[0] !== '2', 'one of the concurrent swaps wins')
    same(await store.agree('swapped', null), answers[0], 'the kept value is the one that all swaps returned')
  },

  'compares names by code point, and keeps values as they are': async ({ store, same }) => {
    for (const text of DISTINCT_TEXTS) await store.agree(text, keep(`of ${text}`))
    for (const text of DISTINCT_TEXTS) {
      same(await store.agree(text, null), `of ${text}`, `names are compared by code point: ${quote(text)}`)
    }
    const long = '\u{1f511}'.repeat(100).padEnd(255, 'x')
    same(await store.agree(long, keep(long)), long, 'a name and a value may have 255 characters')
  },

  'is separate from keys and outlives them': async ({ store, same, list }) => {
    await store.agree('outlives', keep('1'))
    same(await list(), [], 'an agreement is not a key')
    await store.insert([keyRecord({ id: 'a', revokedAt: at(0) })])
    await store.purge(['a'], at(1))
    same(await store.agree('outlives', null), '1', 'what is agreed on stays, whatever becomes of keys')
  },

  'tells a process with another secret for a pepper from a wrong key': async (test) => {
    const { same, rejects } = test
    const pepper = (secret: string) => ({ peppers: [{ id: 'p', secret: secret.repeat(32) }] })
    const right = lifecycleKeys(test, pepper('r'))
    const wrong = lifecycleKeys(test, pepper('w'))
    const { key } = await right.keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'CI' })
    const promise = 'a process with a different secret does not call a good key bad'
    await rejects(() => wrong.keys.verify(key), promise, 'unavailable')
    same((await right.keys.verify(key)).ok, true, 'a key works where the secret is the right one')
    await right.close()
    // It has told of a fault, as it has to.
    await wrong.keys.close()
  },
}
