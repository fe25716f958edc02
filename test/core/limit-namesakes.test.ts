import express from 'express'
import type { ApiKeysOptions, ImportedKey, KeyFormat, Owner, RateLimit, ServiceRateLimit } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { describe, expect, it, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { exceeds } from '../support/problem-types.ts'
import { serve } from '../support/raw-http.ts'
import { ALICE, BOB, createTestKeys } from '../support/test-keys.ts'

const TEAM: ServiceRateLimit = { name: 'team', limit: 5, windowMs: 60_000, scope: 'owner' }
const OWN: RateLimit = { name: 'team', limit: 3, windowMs: 60_000 }
const OTHER: RateLimit = { ...OWN, name: 'other' }
const TAKEN = '"rateLimits[0].name" must not be the name of a limit that the owner has'

const legacy: KeyFormat = {
  name: 'legacy',
  lookup: (key) => (key.startsWith('legacy-') ? key : null),
}
const imported: ImportedKey = { format: 'legacy', key: 'legacy-0001', owner: ALICE, name: 'old' }

/** Only Alice has a limit of her own. */
const ofAlice = ({ id }: Owner) => (id === ALICE.id ? [TEAM] : [])

describe.each<[string, ApiKeysOptions['rateLimits']]>([
  ['a list', [TEAM]],
  ['plans', { plans: { free: [TEAM], none: [] }, planOf: () => 'free' }],
  ['a function', ofAlice],
  ['a function that takes its time', async (owner) => ofAlice(owner)],
])('a limit of a key with the name of one of its owner, set by %s', (_how, rateLimits) => {
  it('is refused when it is issued, changed or imported', async () => {
    const { keys, store } = createTestKeys({ formats: [legacy], rateLimits })
    const { apiKey } = await issueKey(keys, { rateLimits: [OTHER] })
    await expect(issueKey(keys, { rateLimits: [OWN] })).rejects.toThrow(TAKEN)
    await expect(keys.update(apiKey.id, { rateLimits: [OWN] })).rejects.toThrow(TAKEN)
    await expect(keys.import({ ...imported, rateLimits: [OWN] })).rejects.toMatchObject({
      code: 'invalid_import',
      message: TAKEN,
    })
    const skipped: number[] = []
    const rows = [
      { ...imported, rateLimits: [OWN] },
      { ...imported, rateLimits: [OTHER] },
    ]
    const onInvalid = ({ index }: { index: number }) => void skipped.push(index)
    expect(await keys.importAll(rows, { onInvalid })).toMatchObject({ imported: 1, invalid: 1 })
    expect(skipped).toEqual([0])
    const stored = await store.list({}, { limit: 10 })
    expect(stored.map((record) => record.rateLimits)).toEqual([[OTHER], [OTHER]])
  })
})

describe('a function of the owner', () => {
  it('lets keys of other owners have the name', async () => {
    const { keys } = createTestKeys({ rateLimits: ofAlice })
    const { key, apiKey } = await issueKey(keys, { owner: BOB, rateLimits: [OWN] })
    await keys.update(apiKey.id, { rateLimits: [{ ...OWN, limit: 4 }] })
    expect(await keys.verify(key)).toMatchObject({ limits: [{ name: 'team', limit: 4 }] })
  })

  it('is asked for the names only if a key is given limits', async () => {
    const rateLimits = vi.fn(ofAlice)
    const { keys } = createTestKeys({ rateLimits })
    const { apiKey } = await issueKey(keys)
    await issueKey(keys, { rateLimits: [] })
    await keys.update(apiKey.id, { name: 'renamed' })
    await keys.update(apiKey.id, { rateLimits: null })
    await expect(keys.update('nobody', { rateLimits: [OWN] })).rejects.toMatchObject({ code: 'not_found' })
    expect(rateLimits).not.toHaveBeenCalled()
    await keys.update(apiKey.id, { rateLimits: [OTHER] })
    expect(rateLimits.mock.calls).toEqual([[ALICE]])
  })

  it.each<[string, unknown]>([
    ['rejects', () => Promise.reject(new Error('down'))],
    ['answers nothing', () => undefined],
    [
      'changes the owner',
      (owner: { id: string }) => {
        owner.id = BOB.id
        return []
      },
    ],
  ])('is a fault if it %s, and then nothing is changed', async (_what, rateLimits) => {
    const { keys, store, eventsOf } = createTestKeys({ formats: [legacy], rateLimits: rateLimits as never })
    const { apiKey } = await issueKey(keys)
    const fault = { code: 'unavailable' }
    await expect(issueKey(keys, { rateLimits: [OWN] })).rejects.toMatchObject(fault)
    await expect(keys.update(apiKey.id, { rateLimits: [OWN] })).rejects.toMatchObject(fault)
    await expect(keys.import({ ...imported, rateLimits: [OWN] })).rejects.toMatchObject(fault)
    const onInvalid = vi.fn()
    await expect(keys.importAll([{ ...imported, rateLimits: [OWN] }], { onInvalid })).rejects.toMatchObject(
      fault,
    )
    expect(onInvalid).not.toHaveBeenCalled()
    expect(eventsOf('fault').map(({ operation }) => operation)).toEqual(Array(4).fill('owner_limits'))
    expect(await store.list({}, { limit: 10 })).toMatchObject([
      { id: apiKey.id, rateLimits: null, version: 1 },
    ])
  })
})

/** A key with a limit of its own, whose owner has since been given one with the same name. */
async function createNamesakes(own: readonly RateLimit[], owners: readonly ServiceRateLimit[]) {
  let answer: readonly ServiceRateLimit[] = []
  const test = createTestKeys({ rateLimits: () => answer })
  const { key, apiKey } = await issueKey(test.keys, { rateLimits: own })
  const sibling = await issueKey(test.keys)
  answer = owners
  const left = async (of = key) => {
    const result = await test.keys.verify(of, { cost: 0 })
    if (!result.ok) throw new Error(result.code)
    return result.limits.map(({ name, remaining }) => `${name} ${remaining}`)
  }
  return { ...test, key, id: apiKey.id, sibling: sibling.key, left }
}

describe('a limit of a key whose owner was given one with the same name later', () => {
  it.each([
    ['the key has less left', 3, 5],
    ['the owner has less left', 5, 3],
  ])('holds, and so does that of the owner: %s', async (_what, own, owners) => {
    const { keys, key, id, left } = await createNamesakes(
      [{ ...OWN, limit: own }],
      [{ ...TEAM, limit: owners }],
    )
    expect(await left()).toEqual(['team 3'])
    for (let i = 0; i < 3; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
    const refused = await keys.verify(key)
    expect(refused).toMatchObject({
      code: 'rate_limited',
      limits: [{ name: 'team', limit: 3, remaining: 0, exceeded: true }],
    })
    expect(await keys.limits(id)).toMatchObject([{ name: 'team', limit: 3, remaining: 0 }])
    expect(await keys.limits(id)).toHaveLength(1)
  })

  it('is charged with that of the owner by a cost that names it, and both or none are', async () => {
    const { keys, key, id, sibling, left } = await createNamesakes([OWN], [TEAM])
    await keys.verify(key, { cost: { team: 2 } })
    expect([await left(), await left(sibling)]).toEqual([['team 1'], ['team 3']])
    // The owner has room for two, the key has not; then the other way about.
    expect(await keys.verify(key, { cost: { team: 2 } })).toMatchObject({ code: 'rate_limited' })
    expect(await left(sibling)).toEqual(['team 3'])
    await keys.verify(sibling, { cost: 3 })
    expect(await keys.verify(key, { cost: { team: 1 } })).toMatchObject({ code: 'rate_limited' })
    await keys.update(id, { rateLimits: null })
    expect(await left()).toEqual(['team 0'])
  })

  it('is settled with that of the owner, and given back with it', async () => {
    const { keys, key, sibling, left } = await createNamesakes(
      [{ ...OWN, limit: 10 }],
      [{ ...TEAM, limit: 20 }],
    )
    const result = await keys.verify(key, { cost: { team: 2 } })
    if (!result.ok) throw new Error(result.code)
    expect(await keys.settle(result, { team: 7 })).toMatchObject([{ name: 'team', limit: 10, remaining: 3 }])
    expect([await left(), await left(sibling)]).toEqual([['team 3'], ['team 13']])
    await keys.refund(result)
    expect([await left(), await left(sibling)]).toEqual([['team 10'], ['team 20']])
  })

  it('takes a place of its own and one of the owner', async () => {
    const places = { name: 'parallel', maxHeldMs: 10_000 }
    const { keys, key, sibling } = await createNamesakes(
      [{ ...places, concurrent: 1 }],
      [{ ...places, concurrent: 2, scope: 'owner' }],
    )
    const one = await keys.verify(key)
    expect(one).toMatchObject({ ok: true, limits: [{ name: 'parallel', limit: 1, remaining: 0 }] })
    expect(await keys.verify(key)).toMatchObject({ limits: [{ limit: 1, exceeded: true }] })
    expect(await keys.verify(sibling)).toMatchObject({ ok: true, limits: [{ limit: 2, remaining: 0 }] })
    if (one.ok) await keys.release(one)
    for (const ok of [true, false]) expect(await keys.verify(key)).toMatchObject({ ok })
  })

  it('is one limit in the fields of a response, before and after a settlement, and in a refusal', async () => {
    const { keys, key } = await createNamesakes([OWN], [TEAM])
    const app = express()
    app.get('/', apiKeyAuth(keys), (_req, res) => void res.end())
    const ask = await serve(app)
    const line = `X-Api-Key: ${key}`
    const first = await ask('/', [line])
    expect(first.header('RateLimit')).toBe('"team";r=2;t=60')
    expect(first.header('RateLimit-Policy')).toBe('"team";q=3;w=60')
    await ask('/', [line])
    await ask('/', [line])
    const refused = await ask('/', [line])
    expect(refused.header('RateLimit')).toBe('"team";r=0;t=60')
    expect(refused.header('RateLimit-Policy')).toBe('"team";q=3;w=60')
    expect(refused.json()).toMatchObject({ code: 'rate_limited', ...exceeds(['team']) })
  })

  it('holds with that of the owner in a record that the store has got elsewhere', async () => {
    const { keys, store } = createTestKeys({ rateLimits: [TEAM] })
    const { key, apiKey } = await issueKey(keys)
    await store.update(apiKey.id, apiKey.version, { rateLimits: [OWN], updatedAt: apiKey.updatedAt })
    const sibling = await issueKey(keys)
    for (const ok of [true, true, true, false]) expect(await keys.verify(key)).toMatchObject({ ok })
    expect(await keys.verify(sibling.key)).toMatchObject({ limits: [{ limit: 5, remaining: 1 }] })
  })
})
