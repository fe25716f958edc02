import { atOnce } from '../store-test.ts'
import { HOUR, type LimiterCases, limitsOf, SECOND } from './limiter-test.ts'

const LIMITS = limitsOf({ name: 'hour', limit: 3, windowMs: HOUR })
const MARK = { lineageId: 'l', keyId: 'k' }

export const VERSION_CASES: LimiterCases = {
  'refuses a record older than the kept version, fresh or not, and spends nothing': async (test) => {
    const { limiter, isStale, left } = test
    await limiter.raiseVersions([{ ...MARK, version: 3 }], HOUR)
    for (const fresh of [false, true]) {
      for (const version of [1, 2]) {
        const promise = 'a record with a lower version than the kept one is stale, fresh or not'
        await isStale({ version, fresh, limits: LIMITS }, promise)
      }
    }
    test.same(await left({ version: 3, limits: LIMITS }), [3], 'a stale call spends nothing')
  },

  'checks the version of a key without limits, and of a call that only looks': async (test) => {
    await test.limiter.raiseVersions([{ ...MARK, version: 2 }], HOUR)
    await test.isStale({}, 'the version is checked without limits too')
    await test.isStale({ cost: 0, limits: LIMITS }, 'the version is checked by a look too')
  },

  'keeps a higher version that a call brings, fresh or not': async ({ admits, isStale }) => {
    await admits({ version: 1 }, 'a fresh record sets the version')
    await admits({ version: 5, fresh: false }, 'a record with a higher version raises the kept one')
    await isStale({ version: 4 }, 'a record with a higher version raises the kept one, fresh or not')
  },

  'takes a version from a fresh record only, if none is kept': async ({ admits, isStale }) => {
    for (let i = 0; i < 2; i++) {
      await isStale({ fresh: false }, 'a record from a cache is stale if no version is kept, and sets none')
    }
    await admits({ fresh: true }, 'a fresh record sets the version')
    await admits({ fresh: false }, 'a record from a cache passes once its version is kept')
  },

  'keeps the version of a call that a limit refuses': async ({ admits, refuses }) => {
    await refuses({ limits: LIMITS, cost: 9 }, 'a call that costs more than the limit is refused')
    await admits({ fresh: false }, 'a fresh record sets the version even if a limit refuses the call')
  },

  'never lowers a version': async ({ limiter, isStale }) => {
    await limiter.raiseVersions([{ ...MARK, version: 7 }], HOUR)
    await limiter.raiseVersions([{ ...MARK, version: 2 }], HOUR)
    await isStale({ version: 6 }, 'raiseVersions never lowers a kept version')
  },

  'keeps a version for each key': async ({ limiter, admits, isStale }) => {
    const marks = [
      { lineageId: 'l', keyId: 'old', version: 9 },
      { lineageId: 'other', keyId: 'k', version: 9 },
    ]
    await limiter.raiseVersions(marks, HOUR)
    await admits({ version: 1 }, 'a version is that of one key, not of its lineage')
    await isStale({ keyId: 'old' }, 'raiseVersions raises the version of every key that it names')
    await isStale({ lineageId: 'other' }, 'raiseVersions raises the version of every key that it names')
  },

  'raises a version wherever its key counts, with and without its owner': async (test) => {
    const owner = '4:user:u_1'
    for (const known of [{}, { owner }]) await test.admits(known, 'a fresh record sets the version')
    await test.limiter.raiseVersions([{ ...MARK, version: 2, owner }], HOUR)
    const promise = 'raiseVersions with an owner reaches calls with and without that owner'
    for (const known of [{}, { owner }]) await test.isStale(known, promise)
  },

  'keeps a raised version for as long as asked, and never shorter than before': async (test) => {
    await test.limiter.raiseVersions([{ ...MARK, version: 4 }], 20 * SECOND)
    await test.limiter.raiseVersions([{ ...MARK, version: 4 }], 1)
    await test.pass(20 * SECOND - 1)
    // Whatever a limiter forgets, it may do so now.
    for (let i = 0; i < 100; i++) await test.ask({ lineageId: `other${i}` })
    await test.isStale({ version: 3 }, 'raiseVersions keeps versions for "retainMs"')
  },

  'keeps the version of a call for as long as asked': async (test) => {
    await test.admits({ version: 4, retainMs: 20 * SECOND }, 'a fresh record sets the version')
    await test.admits({ version: 4, retainMs: 1 }, 'a record with the kept version passes')
    await test.pass(20 * SECOND - 1)
    for (let i = 0; i < 100; i++) await test.ask({ lineageId: `other${i}` })
    await test.isStale({ version: 3 }, '"check" keeps the version for "retainMs"')
    await test.admits({ version: 4, fresh: false }, '"check" keeps the version for "retainMs"')
  },

  'keeps the highest of versions that are raised at once, in every process': async (test) => {
    const { limiter, peer, isStale, admits } = test
    const versions = Array.from({ length: 50 }, (_, i) => ((i * 7) % 50) + 1)
    await atOnce(50, async (i) =>
      (i % 2 ? limiter : peer).raiseVersions([{ ...MARK, version: versions[i] as number }], HOUR),
    )
    for (const by of [limiter, peer]) {
      await isStale({ version: 49 }, 'the highest version stays, in every process', by)
      await admits({ version: 50, fresh: false }, 'the highest version stays, in every process', by)
    }
  },
}
