import { HOUR, type LimiterCases, limitsOf, MINUTE } from './limiter-test.ts'

const owner = '4:user:u_1'
const LIMITS = limitsOf(
  { name: 'own', limit: 5, windowMs: MINUTE },
  { name: 'team', limit: 20, windowMs: HOUR, scope: 'owner' },
)
const TEAM = LIMITS.filter(({ isOwners }) => isOwners)
const one = { lineageId: 'one', owner, limits: LIMITS }
const two = { lineageId: 'two', owner, limits: LIMITS }

export const OWNER_CASES: LimiterCases = {
  'counts all keys of an owner together, and the limits of each key apart': async (test) => {
    const { admits, left, same } = test
    await admits({ ...one, cost: 3 }, 'a call that fits all limits is admitted')
    await admits({ ...two, cost: 2 }, 'a call that fits all limits is admitted')
    same(await left(one), [2, 15], "an owner's limit counts all keys of the owner")
    same(await left(two), [3, 15], "an owner's limit counts all keys of the owner")
  },

  'counts other owners apart': async ({ admits, left, same }) => {
    await admits({ ...one, cost: 3 }, 'a call that fits all limits is admitted')
    for (const other of ['4:user:u_2', '5:group:u_1']) {
      same(await left({ lineageId: 'other', owner: other, limits: LIMITS }), [5, 20], 'owners count apart')
    }
  },

  'decides the limits of a key and of its owner together': async ({ admits, refuses, left, same }) => {
    const states = async (call: typeof one) =>
      (await refuses(call, 'one limit is enough to refuse a call')).limits.map(({ exceeded }) => exceeded)
    for (const lineageId of ['a', 'b', 'c']) {
      await admits({ ...one, lineageId, cost: 5 }, 'a call that fits all limits is admitted')
    }
    same(await states({ ...one, lineageId: 'a' }), [true, false], "a key's own limit refuses it")
    await admits({ ...one, lineageId: 'd', cost: 5 }, 'a call that fits all limits is admitted')
    same(await states({ ...one, lineageId: 'e' }), [false, true], "an owner's limit refuses every key")
    same(await left({ ...one, lineageId: 'e' }), [5, 0], 'a refused call spends nothing')
  },

  'lets the flood of an exhausted key use nothing of its owner': async (test) => {
    const { admits, refuses, drain, left, same } = test
    await admits({ ...one, cost: 5 }, 'a call that fits all limits is admitted')
    const flood = Array.from({ length: 30 }, () => refuses(one, 'an exhausted key is refused'))
    for (let i = 0; i < 5; i++) await admits(two, 'no sibling of a key that floods is refused')
    await Promise.all(flood)
    same(await left(two), [0, 10], 'a refused call spends nothing')
    same(await drain({ ...one, limits: TEAM }), 10, 'a refused call spends nothing')
  },

  'counts for an owner whatever limits its keys have': async ({ admits, refuses, left, same }) => {
    const plain = { lineageId: 'plain', owner, limits: TEAM }
    await admits({ ...one, cost: 5 }, 'a call that fits all limits is admitted')
    await admits({ ...plain, cost: 15 }, 'a call that fits all limits is admitted')
    await refuses(two, "an owner's limit holds for every key")
    same(await left(plain), [0], "an owner's limit counts all keys of the owner")
  },

  'spends nothing of an owner for a stale record': async ({ limiter, isStale, left, same }) => {
    await limiter.raiseVersions([{ lineageId: 'one', keyId: 'k', version: 2, owner }], HOUR)
    await isStale(one, 'raiseVersions with an owner reaches calls with that owner')
    same(await left(two), [5, 20], 'a stale call spends nothing')
  },
}
