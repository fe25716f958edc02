import { atOnce } from '../store-test.ts'
import { type LimiterCases, limitsOf, MINUTE, placesOf, SECOND } from './limiter-test.ts'

const HELD_MS = 10 * SECOND
const PARALLEL = limitsOf({ name: 'parallel', concurrent: 2, maxHeldMs: HELD_MS })
const owner = '4:user:u_1'
const BOTH = limitsOf(
  { name: 'own', concurrent: 2, maxHeldMs: HELD_MS },
  { name: 'team', concurrent: 3, maxHeldMs: HELD_MS, scope: 'owner' },
)
const [a, b, c] = ['a', 'b', 'c'].map((id) => placesOf(id, PARALLEL)) as [Places, Places, Places]
type Places = ReturnType<typeof placesOf>

export const PLACE_CASES: LimiterCases = {
  'takes a place, and refuses when all are taken': async ({ admits, refuses, left, same }) => {
    for (let i = 0; i < 3; i++) same(await left(a.call), [2], 'a call that only looks takes no place')
    const { limits } = await admits(a.call, 'a call takes a free place')
    same(limits[0]?.remaining, 1, 'the answer counts the place that was taken')
    await admits(b.call, 'a call takes a free place')
    const { retryAfterMs } = await refuses(c.call, 'a call is refused if no place is free')
    same(retryAfterMs, SECOND, 'a call that found no place may try again in a second')
    same(await left(c.call), [0], 'a call that only looks is not refused')
  },

  'gives a place back once': async ({ limiter, admits, refuses, left, same }) => {
    for (const { call } of [a, b]) await admits(call, 'a call takes a free place')
    for (let i = 0; i < 3; i++) await limiter.release(a.request)
    same(await left(a.call), [1], 'a place that is given back several times comes free once')
    await limiter.release(c.request)
    same(await left(a.call), [1], 'who holds no place gives none back')
    await admits(c.call, 'a place that was given back is free')
    await refuses(placesOf('d', PARALLEL).call, 'a call is refused if no place is free')
  },

  'takes places and units together, or neither': async ({ limiter, admits, refuses, left, same }) => {
    const limits = limitsOf({ name: 'minute', limit: 3, windowMs: MINUTE })
    for (const { call } of [a, b]) await admits({ ...call, limits }, 'a call that fits is admitted')
    const full = await refuses({ ...c.call, limits }, 'a call is refused if no place is free')
    same(
      full.limits.map(({ exceeded }) => exceeded),
      [false, true],
      'states of places come last',
    )
    same(await left({ ...c.call, limits }), [1, 0], 'a call without a place spends nothing')
    await limiter.release(a.request)
    await admits({ ...c.call, limits }, 'a call that fits is admitted')
    await limiter.release(b.request)
    await refuses({ ...b.call, limits }, 'a call beyond a rate limit is refused')
    same(await left({ ...b.call, limits }), [0, 1], 'a call that a rate limit refuses takes no place')
  },

  'takes places of the key and of its owner together, or neither': async (test) => {
    const { limiter, admits, refuses, left, same } = test
    const [one, two] = ['one', 'two'].map((lineageId) => ({ lineageId, owner })) as [object, object]
    const held = [placesOf('a', BOTH, one), placesOf('b', BOTH, one)] as const
    for (const { call } of held) await admits(call, 'a call takes free places')
    await refuses(placesOf('c', BOTH, one).call, 'a call is refused if its key has no free place')
    same(await left(placesOf('c', BOTH, two).call), [2, 1], "an owner's places are those of all its keys")
    await admits(placesOf('c', BOTH, two).call, 'a call takes free places')
    await refuses(placesOf('d', BOTH, two).call, 'a call is refused if its owner has no free place')
    same(await left(placesOf('d', BOTH, two).call), [1, 0], 'a refused call takes no place')
    await limiter.release(held[0].request)
    same(await left(placesOf('d', BOTH, one).call), [1, 1], 'places come free in all limits together')
  },

  'frees a place after maxHeldMs, and not before': async ({ admits, refuses, left, pass, same }) => {
    for (const { call } of [a, b]) await admits(call, 'a call takes a free place')
    await pass(HELD_MS - 1)
    await refuses(c.call, 'a place stays taken for "maxHeldMs"')
    await pass(1)
    same(await left(c.call), [2], 'a place that nobody has renewed comes free')
    await admits(c.call, 'a place that nobody has renewed comes free')
  },

  'keeps a place that is renewed': async ({ limiter, admits, refuses, pass, same }) => {
    for (const { call } of [a, b]) await admits(call, 'a call takes a free place')
    for (let i = 0; i < 5; i++) {
      await pass(HELD_MS - 1)
      same(await limiter.renew([a.request, b.request]), 0, 'a place that is renewed in time was not lost')
    }
    await refuses(c.call, 'a place that is renewed stays taken')
    same(await limiter.renew([]), 0, 'to renew nothing is no error')
  },

  'takes a place again that came free meanwhile, even beyond the limit': async (test) => {
    const { limiter, peer, admits, refuses, left, pass, same } = test
    for (const { call } of [a, b]) await admits(call, 'a call takes a free place')
    await pass(HELD_MS)
    await admits(c.call, 'a place that nobody has renewed comes free')
    same(await peer.renew([a.request, b.request]), 2, '"renew" says how many calls had lost a place')
    same(await left(c.call), [0], 'a call under way takes its place again')
    for (const { request } of [a, c]) {
      await refuses(placesOf('d', PARALLEL).call, 'nobody is admitted until there are fewer than the limit')
      await limiter.release(request)
    }
    await admits(placesOf('d', PARALLEL).call, 'nobody is admitted until there are fewer than the limit')
  },

  'keeps taken places as its number changes': async ({ admits, refuses, left, same }) => {
    for (const { call } of [a, b]) await admits(call, 'a call takes a free place')
    const [less, more] = [1, 4].map((concurrent) =>
      limitsOf({ name: 'parallel', concurrent, maxHeldMs: HELD_MS }),
    ) as [typeof PARALLEL, typeof PARALLEL]
    await refuses(placesOf('c', less).call, 'taken places count against a lower number')
    same(await left(placesOf('c', more).call), [2], 'taken places count against a higher number')
  },

  'takes none for a stale record': async ({ limiter, isStale, left, same }) => {
    await limiter.raiseVersions([{ lineageId: 'l', keyId: 'k', version: 2 }], MINUTE)
    await isStale(a.call, 'a record with a lower version than the kept one is stale')
    same(await left({ ...a.call, version: 2 }), [2], 'a stale call takes no place')
  },

  'gives exactly its number of places to 50 calls at once, and all come back': async (test) => {
    const { limiter, peer, ask, left, same } = test
    const limits = limitsOf({ name: 'parallel', concurrent: 20, maxHeldMs: HELD_MS })
    const by = (i: number) => (i % 2 ? peer : limiter)
    const answers = await atOnce(50, (i) => ask(placesOf(`${i}`, limits).call, by(i)))
    const admitted = answers.flatMap(({ outcome }, i) => (outcome === 'admitted' ? [i] : []))
    same(
      admitted.length,
      20,
      'of 50 calls at once by two processes, exactly as many find a place as there are',
    )
    await atOnce(20, async (i) => by(i).release(placesOf(`${admitted[i]}`, limits).request))
    same(await left(placesOf('a', limits).call), [20], 'every place comes back')
  },
}
