import { type ApiKeys, memoryRateLimiter, type Owner, type ServiceRateLimit } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { ALICE, BOB, createTestKeys } from '../support/test-keys.ts'

const MINUTE: ServiceRateLimit = { name: 'minute', limit: 10, windowMs: 60_000 }
const TEAM: ServiceRateLimit = { name: 'team', limit: 15, windowMs: 60_000, scope: 'owner' }
const OWN = { name: 'own', limit: 100, windowMs: 60_000 }

async function left(keys: ApiKeys, key: string): Promise<Record<string, number>> {
  const result = await keys.verify(key, { cost: 0 })
  if (!result.ok) throw new Error(`refused as ${result.code}`)
  return Object.fromEntries(result.limits.map(({ name, remaining }) => [name, remaining]))
}

describe('limits of the service that are wrong', () => {
  it.each<[string, unknown, string]>([
    ['a scope', [{ ...MINUTE, scope: 'user' }], '"rateLimits[0].scope" must be'],
    [
      'one name for a key and an owner',
      [MINUTE, { ...TEAM, name: 'minute' }],
      '"rateLimits[1].name" must be unique',
    ],
    ['too many', Array.from({ length: 17 }, (_, i) => ({ ...TEAM, name: `l${i}` })), '"rateLimits" must'],
    ['plans without an object', { plans: [], planOf: () => 'free' }, '"rateLimits.plans" must be an object'],
    ['plans without any', { plans: {}, planOf: () => 'free' }, '"rateLimits.plans" must have'],
    ['plans without a function', { plans: { free: [] } }, '"rateLimits.planOf" must be a function'],
    [
      'a limit of a plan',
      { plans: { free: [{ name: 'a' }] }, planOf: () => 'free' },
      '"rateLimits.plans.free[0].limit"',
    ],
    [
      'another member',
      { plans: { free: [] }, planOf: () => 'free', plan: 1 },
      '"rateLimits" has no option "plan"',
    ],
    ['a number', 5, '"rateLimits" must be an array, plans, or a function'],
  ])('are a mistake: %s', (_what, rateLimits, message) => {
    expect(() => createTestKeys({ rateLimits: rateLimits as never })).toThrow(TypeError)
    expect(() => createTestKeys({ rateLimits: rateLimits as never })).toThrow(message)
  })

  it.each<[string, unknown]>([
    [
      'throws',
      () => {
        throw new Error('down')
      },
    ],
    ['rejects', () => Promise.reject(new Error('down'))],
    ['answers nothing', () => undefined],
    ['answers a wrong limit', () => [{ ...MINUTE, limit: -1 }]],
    ['names no plan', { plans: { free: [] }, planOf: () => 'pro' }],
    ['names a member of objects', { plans: { free: [] }, planOf: () => 'constructor' }],
    ['cannot find the plan', { plans: { free: [] }, planOf: () => Promise.reject(new Error('down')) }],
  ])('are a fault, never an admission, if the function %s', async (_what, rateLimits) => {
    const { keys, eventsOf } = createTestKeys({ rateLimits: rateLimits as never })
    const { key } = await issueKey(keys)
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    expect(eventsOf('fault')).toMatchObject([{ operation: 'owner_limits' }])
  })

  it.each(['planOf', 'rateLimits'])('are a fault if %s changes the owner', async (name) => {
    const changed = <Answer>(owner: { id: string }, answer: Answer) => {
      owner.id = BOB.id
      return answer
    }
    const byPlan = { plans: { free: [TEAM] }, planOf: (owner: Owner) => changed(owner, 'free') }
    const byFunction = (owner: Owner) => changed(owner, [TEAM])
    const { keys, eventsOf } = createTestKeys({ rateLimits: name === 'planOf' ? byPlan : byFunction })
    const { key, apiKey } = await issueKey(keys)
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    expect(eventsOf('fault')).toMatchObject([{ operation: 'owner_limits' }])
    expect(apiKey.owner).toEqual(ALICE)
  })

  it('are a fault if the function never answers', async () => {
    const { keys, clock } = createTestKeys({ rateLimits: () => new Promise(() => {}) })
    const { key } = await issueKey(keys)
    const verifying = expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    await clock.advance(5_000)
    await verifying
  })
})

describe('a limit of an owner', () => {
  it('cannot be set on a key, nor a limit with its name', async () => {
    const { keys } = createTestKeys({ rateLimits: [TEAM] })
    const issuing = (rateLimits: unknown) => issueKey(keys, { rateLimits: rateLimits as never })
    await expect(issuing([{ ...OWN, scope: 'owner' }])).rejects.toThrow(
      '"rateLimits[0].scope" must be used only in',
    )
    await expect(issuing([OWN, { ...OWN, name: 'team' }])).rejects.toThrow(
      '"rateLimits[1].name" must not be the name',
    )
    const { apiKey } = await issuing([OWN])
    const changing = keys.update(apiKey.id, { rateLimits: [{ ...OWN, name: 'team' }] })
    await expect(changing).rejects.toThrow('"rateLimits[0].name" must not be the name')
  })

  it('counts all keys of the owner together, and those of no other', async () => {
    const { keys } = createTestKeys({ rateLimits: [TEAM, MINUTE] })
    const [one, two, own, other] = [
      await issueKey(keys),
      await issueKey(keys),
      await issueKey(keys, { rateLimits: [OWN] }),
      await issueKey(keys, { owner: BOB }),
    ]
    await keys.verify(one.key, { cost: 4 })
    await keys.verify(two.key, { cost: 5 })
    await keys.verify(own.key, { cost: 3 })
    expect(await left(keys, one.key)).toEqual({ minute: 6, team: 3 })
    expect(await left(keys, own.key)).toEqual({ own: 97, team: 3 })
    expect(await left(keys, other.key)).toEqual({ minute: 10, team: 15 })
    expect(await keys.verify(two.key, { cost: 4 })).toMatchObject({
      code: 'rate_limited',
      limits: [
        { name: 'minute', remaining: 5, exceeded: false },
        { name: 'team', remaining: 3, exceeded: true },
      ],
    })
    expect(await left(keys, two.key)).toEqual({ minute: 5, team: 3 })
  })

  it('holds for a key without limits, and after a rotation', async () => {
    const { keys } = createTestKeys({ rateLimits: [TEAM] })
    const { key, apiKey } = await issueKey(keys, { rateLimits: [] })
    await keys.verify(key, { cost: 10 })
    const successor = await keys.rotate(apiKey.id)
    expect(await left(keys, successor.key)).toEqual({ team: 5 })
    expect(await keys.verify(successor.key, { cost: 6 })).toMatchObject({ code: 'rate_limited' })
  })

  it('tells owners apart by type and id together', async () => {
    const { keys } = createTestKeys({ rateLimits: [TEAM] })
    const owners: Owner[] = [
      { type: 'user', id: '1' },
      { type: 'team', id: '1' },
      { type: 'user:a', id: 'b' },
      { type: 'user', id: 'a:b' },
      { type: 'user', id: '}{' },
      { type: 'user', id: '}' },
    ]
    for (const owner of owners) {
      const { key } = await issueKey(keys, { owner })
      expect(await keys.verify(key, { cost: 15 })).toMatchObject({ ok: true })
    }
  })

  it('gives units back to all keys of the owner', async () => {
    const { keys } = createTestKeys({ rateLimits: [TEAM] })
    const [one, two] = [await issueKey(keys), await issueKey(keys)]
    const result = await keys.verify(one.key, { cost: 15 })
    if (!result.ok) throw new Error(result.code)
    await keys.settle(result, 20)
    expect(await left(keys, two.key)).toEqual({ team: 0 })
    await keys.settle(result, 6)
    expect(await left(keys, two.key)).toEqual({ team: 9 })
  })

  it('may count only what a route names', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE, { ...TEAM, only: 'named' }] })
    const [one, two] = [await issueKey(keys), await issueKey(keys, { rateLimits: [OWN] })]
    await keys.verify(one.key, { cost: { team: 15 } })
    expect(await keys.verify(two.key)).toMatchObject({ ok: true, limits: [{ name: 'own' }] })
    expect(await keys.verify(two.key, { cost: { team: 0 } })).toMatchObject({ code: 'rate_limited' })
  })
})

describe('limits by plan', () => {
  const plans = {
    free: [{ ...TEAM, limit: 5 }],
    pro: [{ ...TEAM, limit: 50 }, MINUTE, { name: 'exports', limit: 2, per: 'day', only: 'named' }],
  } satisfies Record<string, ServiceRateLimit[]>

  async function start() {
    const planByOwner = new Map([
      [ALICE.id as string, 'free'],
      [BOB.id as string, 'pro'],
    ])
    const planOf = vi.fn(async ({ id }: Owner) => planByOwner.get(id) ?? 'none')
    const test = createTestKeys({ rateLimits: { plans, planOf } })
    return {
      ...test,
      planByOwner,
      planOf,
      alice: await issueKey(test.keys),
      bob: await issueKey(test.keys, { owner: BOB }),
    }
  }

  it('are those of the plan that the owner has', async () => {
    const { keys, alice, bob } = await start()
    expect(await left(keys, alice.key)).toEqual({ team: 5 })
    expect(await left(keys, bob.key)).toEqual({ minute: 10, exports: 2, team: 50 })
    // The free plan has no such limit, but the service knows it.
    expect(await keys.verify(alice.key, { cost: { exports: 9 } })).toMatchObject({ ok: true })
    await expect(keys.verify(alice.key, { cost: { export: 1 } })).rejects.toThrow('names the limit "export"')
  })

  it('are asked once for as long as the record is held, and keep what was used', async () => {
    const { keys, clock, planByOwner, planOf, alice } = await start()
    for (let i = 0; i < 4; i++) await keys.verify(alice.key)
    expect(planOf).toHaveBeenCalledTimes(1)
    expect(planOf).toHaveBeenCalledWith(ALICE)
    planByOwner.set(ALICE.id, 'pro')
    expect(await left(keys, alice.key)).toEqual({ team: 1 })
    await clock.advance(5_000)
    expect(await left(keys, alice.key)).toMatchObject({ team: 46 })
    expect(planOf).toHaveBeenCalledTimes(2)
  })

  it('are asked again at once after invalidateOwner()', async () => {
    const { keys, planByOwner, alice } = await start()
    await left(keys, alice.key)
    planByOwner.set(ALICE.id, 'pro')
    await keys.invalidateOwner(ALICE)
    expect(await left(keys, alice.key)).toMatchObject({ team: 50 })
  })

  it('are shown as depending on the owner', async () => {
    const { keys } = await start()
    expect([keys.rateLimits, keys.rateLimitsVary]).toEqual([[], true])
    const fixed = createTestKeys({ rateLimits: [TEAM, MINUTE] })
    expect([fixed.keys.rateLimits, fixed.keys.rateLimitsVary]).toEqual([[TEAM, MINUTE], false])
  })
})

describe('limits by a function of the owner', () => {
  it('may differ for one owner, as an administrator has it', async () => {
    const overrides = new Map([[BOB.id as string, 500]])
    const { keys } = createTestKeys({
      rateLimits: ({ id }) => [{ ...TEAM, limit: overrides.get(id) ?? TEAM.limit }],
    })
    const [alice, bob] = [await issueKey(keys), await issueKey(keys, { owner: BOB })]
    expect(await left(keys, alice.key)).toEqual({ team: 15 })
    expect(await left(keys, bob.key)).toEqual({ team: 500 })
    // Nobody can say which names there are.
    expect(await keys.verify(bob.key, { cost: { anything: 5 } })).toMatchObject({ ok: true })
  })

  it('read one record for many calls at once', async () => {
    const rateLimits = vi.fn(async () => [TEAM])
    const { keys } = createTestKeys({ rateLimits })
    const { key } = await issueKey(keys)
    const results = await Promise.all(Array.from({ length: 20 }, () => keys.verify(key)))
    expect(results.filter(({ ok }) => ok)).toHaveLength(15)
    expect(rateLimits).toHaveBeenCalledTimes(1)
  })

  it('do not let a change be missed while the function is under way', async () => {
    let answer = (_limits: ServiceRateLimit[]) => {}
    const rateLimits = vi.fn(
      () =>
        new Promise<ServiceRateLimit[]>((resolve) => {
          answer = resolve
        }),
    )
    const { keys } = createTestKeys({ rateLimits, rateLimiter: memoryRateLimiter() })
    const { key, apiKey } = await issueKey(keys)
    const verifying = keys.verify(key)
    await vi.waitFor(() => expect(rateLimits).toHaveBeenCalledTimes(1))
    await keys.revoke(apiKey.id)
    answer([TEAM])
    await vi.waitFor(() => expect(rateLimits).toHaveBeenCalledTimes(2))
    answer([TEAM])
    expect(await verifying).toMatchObject({ code: 'invalid_key', reason: 'revoked' })
  })
})
