import { memoryStore } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { rejects } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, NAME, type TestKeys } from '../support/test-keys.ts'

const UNAVAILABLE = expect.objectContaining({ code: 'unavailable' })
const REFUSED = expect.objectContaining({ ok: false, code: 'invalid_key' })
const IP = '203.0.113.9'

/** Two processes that share a store and a limiter. */
function startTwo() {
  const here = createTestKeys()
  const there = createTestKeys({ clock: here.clock, store: here.store, rateLimiter: here.limiter })
  return { here, there }
}

/** What Alice leaves behind: keys in every state, a lineage, and her traces on keys of Bob. */
async function leaveTraces({ keys, clock }: TestKeys) {
  const issue = (name: string, settings = {}) =>
    keys.issue({ owner: ALICE, name, createdBy: ALICE.id, ...settings })
  const [active, disabled, expired, revoked, rotated] = await Promise.all([
    issue('laptop', { quota: { remaining: 5 } }),
    issue('phone'),
    issue('old', { expiresAt: new Date(clock.now() + 1) }),
    issue('lost'),
    issue('ci'),
  ])
  await keys.disable(disabled.apiKey.id)
  await keys.revoke(revoked.apiKey.id)
  const successor = await keys.rotate(rotated.apiKey.id)
  const issued = await keys.issue({ owner: BOB, name: 'made by Alice', createdBy: ALICE.id })
  await keys.verify(issued.key, { ip: IP })
  const stopped = await keys.issue({ owner: BOB, name: 'stopped by Alice', createdBy: BOB.id })
  await keys.verify(stopped.key, { ip: '192.0.2.1' })
  await keys.revoke(stopped.apiKey.id, { by: ALICE.id, reason: 'leaked' })
  await keys.verify(active.key, { ip: IP })
  await keys.flush()
  await clock.advance(10)
  return { own: [active, disabled, expired, revoked, rotated, successor], issued, stopped }
}

describe('erase', () => {
  it('leaves nothing of an owner in the store, and refuses its keys everywhere from then on', async () => {
    const { here, there } = startTwo()
    const { own, issued, stopped } = await leaveTraces(here)
    const working = [own[0], own[4], own[5]].map((one) => one?.key ?? '')
    for (const key of working) expect(await there.keys.verify(key)).toMatchObject({ ok: true })
    const before = await here.keys.get(issued.apiKey.id)
    expect(await here.keys.erase(ALICE, { by: 'u_admin' })).toEqual({ removed: 6, forgotten: 2 })
    for (const { key } of own) {
      expect(await there.keys.verify(key)).toEqual(REFUSED)
      expect(await here.keys.verify(key)).toEqual(REFUSED)
    }
    const left = await here.store.list({}, { limit: 100 })
    expect(left.map(({ owner }) => owner)).toEqual([BOB, BOB])
    expect(JSON.stringify(left)).not.toMatch(new RegExp(`${ALICE.id}|${IP}`))
    const forgotten = { createdBy: null, lastUsedIp: null, version: (before?.version ?? 0) + 1 }
    expect(await here.keys.get(issued.apiKey.id)).toEqual({
      ...before,
      ...forgotten,
      updatedAt: expect.any(Date),
    })
    expect(await here.keys.get(stopped.apiKey.id)).toMatchObject({
      createdBy: BOB.id,
      lastUsedIp: '192.0.2.1',
      revokedAt: expect.any(Date),
      revokedBy: null,
      revokedReason: 'leaked',
    })
    expect(await there.keys.verify(issued.key)).toMatchObject({ ok: true, apiKey: { createdBy: null } })
    expect(await there.keys.verify(stopped.key)).toMatchObject({ reason: 'revoked' })
  })

  it('is one event, which names the owner and nothing that was erased', async () => {
    const { here } = startTwo()
    await leaveTraces(here)
    here.events.length = 0
    await here.keys.erase(ALICE, { by: 'u_admin' })
    expect(here.events).toEqual([
      {
        type: 'owner.erased',
        at: new Date(here.clock.now()),
        owner: ALICE,
        removed: 6,
        forgotten: 2,
        complete: true,
        by: 'u_admin',
      },
    ])
  })

  it('writes no gathered use, and so no address, over what it has forgotten', async () => {
    const { here } = startTwo()
    const { issued } = await leaveTraces(here)
    await here.keys.verify(issued.key, { ip: IP })
    await here.keys.erase(ALICE)
    await here.keys.close()
    expect(await here.keys.get(issued.apiKey.id)).toMatchObject({ usageCount: 2, lastUsedIp: null })
  })

  it('is not complete where gathered uses cannot be written: they would bring an address back', async () => {
    const { here } = startTwo()
    const { issued } = await leaveTraces(here)
    here.store.fail('recordUsage', rejects(new Error('disk full')))
    await here.keys.verify(issued.key, { ip: IP })
    await expect(here.keys.erase(ALICE)).rejects.toEqual(UNAVAILABLE)
    expect(here.eventsOf('owner.erased')).toMatchObject([{ removed: 6, complete: false }])
    here.store.heal()
    await here.keys.erase(ALICE)
    await here.keys.close()
    expect(await here.keys.get(issued.apiKey.id)).toMatchObject({ createdBy: null, lastUsedIp: null })
  })

  it('revokes before it removes: a process that is not told keeps no key alive', async () => {
    const { here, there } = startTwo()
    const { key } = await here.keys.issue(NAME)
    await there.keys.verify(key)
    const held = here.store.hold('purge')
    const erasing = here.keys.erase(ALICE)
    await held.reached
    expect(await there.keys.verify(key)).toEqual(REFUSED)
    held.release()
    await erasing
  })

  it.each(['update', 'purge', 'forget'] as const)(
    'that is interrupted at %s says so, and ends its work when it is called again',
    async (method) => {
      const { here, there } = startTwo()
      const { own } = await leaveTraces(here)
      let calls = 0
      here.store.fail(method, (work) => {
        calls += 1
        return calls === 2 || method === 'purge' ? Promise.reject(new Error('away')) : work()
      })
      await expect(here.keys.erase(ALICE)).rejects.toEqual(UNAVAILABLE)
      expect(here.eventsOf('owner.erased')).toMatchObject([{ complete: false }])
      here.store.heal()
      // It makes no difference who goes on with it.
      await there.keys.erase(ALICE)
      for (const { key } of own) expect(await here.keys.verify(key)).toEqual(REFUSED)
      expect(JSON.stringify(await here.store.list({}, { limit: 100 }))).not.toContain(ALICE.id)
      expect(await here.keys.erase(ALICE)).toEqual({ removed: 0, forgotten: 0 })
    },
  )

  it('by three at once removes everything once', async () => {
    const { here, there } = startTwo()
    await leaveTraces(here)
    const all = await Promise.all([here.keys.erase(ALICE), there.keys.erase(ALICE), here.keys.erase(ALICE)])
    expect(all.reduce((sum, { removed }) => sum + removed, 0)).toBe(6)
    expect(all.reduce((sum, { forgotten }) => sum + forgotten, 0)).toBe(2)
    expect(JSON.stringify(await here.store.list({}, { limit: 100 }))).not.toContain(ALICE.id)
  })

  it('takes a key along that is issued meanwhile, and never leaves a revoked one in its place', async () => {
    const { here, there } = startTwo()
    await here.keys.issue(NAME)
    const held = here.store.hold('purge')
    const erasing = here.keys.erase(ALICE)
    await held.reached
    const { key } = await there.keys.issue(NAME)
    expect(await there.keys.verify(key)).toMatchObject({ ok: true })
    held.release()
    expect(await erasing).toEqual({ removed: 2, forgotten: 0 })
    expect(await there.keys.verify(key)).toEqual(REFUSED)
  })

  it('ends where keys appear without end', async () => {
    const { here, there } = startTwo()
    await here.keys.issue(NAME)
    here.store.fail('purge', async (work) => {
      const purged = await work()
      await there.keys.issue(NAME)
      return purged
    })
    await expect(here.keys.erase(ALICE)).rejects.toMatchObject({ code: 'conflict' })
    expect(here.eventsOf('owner.erased')).toMatchObject([{ removed: 20, complete: false }])
  })

  it.each(['find', 'insert'] as const)(
    'leaves no successor of a rotation that has come to %s',
    async (method) => {
      const { here, there } = startTwo()
      const { apiKey } = await here.keys.issue(NAME)
      const held = here.store.hold(method)
      const rotating = there.keys.rotate(apiKey.id).catch((error) => error)
      await held.reached
      await here.keys.erase(ALICE)
      held.release()
      expect(await rotating).toMatchObject({ code: 'not_found' })
      expect(await here.store.list({}, { limit: 10 })).toEqual([])
    },
  )

  it('tries again where somebody changes the key that it is to forget the owner on', async () => {
    const { here, there } = startTwo()
    const { issued } = await leaveTraces(here)
    let calls = 0
    here.store.fail('forget', async (work) => {
      calls += 1
      if (calls === 1) await there.keys.update(issued.apiKey.id, { name: 'renamed' })
      return work()
    })
    expect(await here.keys.erase(ALICE)).toEqual({ removed: 6, forgotten: 2 })
    expect(await here.keys.get(issued.apiKey.id)).toMatchObject({ name: 'renamed', createdBy: null })
  })

  it('knows the owner by another name, or by none, where the application says so', async () => {
    const { keys } = createTestKeys()
    const org = { type: 'organization', id: '7' }
    const { apiKey } = await keys.issue({ owner: BOB, name: 'by the user 7', createdBy: '7' })
    await keys.issue({ owner: org, name: 'of the organisation 7' })
    expect(await keys.erase(org, { knownAs: null })).toEqual({ removed: 1, forgotten: 0 })
    expect(await keys.get(apiKey.id)).toEqual(apiKey)
    expect(await keys.erase(ALICE, { knownAs: '7' })).toEqual({ removed: 0, forgotten: 1 })
    expect(await keys.get(apiKey.id)).toMatchObject({ createdBy: null })
  })

  it('refuses wrong arguments, and a store that cannot forget, before it changes anything', async () => {
    const { keys, store, events } = createTestKeys()
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    events.length = 0
    await expect(keys.erase({ type: 'user' } as never)).rejects.toThrow(/"owner.id"/)
    await expect(keys.erase(ALICE, { knownAs: '' })).rejects.toThrow(/"knownAs"/)
    await expect(keys.erase(ALICE, { createdBy: 'x' } as never)).rejects.toThrow(/no option "createdBy"/)
    expect(store.calls()).toBe(0)
    const lacking = createTestKeys({ store: { ...store, forget: undefined } as never })
    await expect(lacking.keys.erase(ALICE)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/"erase" .*"forget"/),
    })
    expect(events).toEqual([])
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(await lacking.keys.erase(ALICE, { knownAs: null })).toEqual({ removed: 1, forgotten: 0 })
  })
})

describe('purge', () => {
  it('of an owner removes what has ended of its keys alone, without waiting for anything', async () => {
    const { here } = startTwo()
    const { stopped } = await leaveTraces(here)
    const { keys } = here
    expect(await keys.purge({ owner: { ...ALICE, type: 'organization' } })).toBe(0)
    expect(await keys.purge({ owner: ALICE })).toBe(1)
    await keys.revokeOwner(ALICE)
    expect(await keys.purge({ owner: ALICE })).toBe(5)
    expect((await keys.list({ owner: ALICE })).apiKeys).toEqual([])
    expect(await keys.get(stopped.apiKey.id)).not.toBeNull()
    expect(await keys.purge({ owner: BOB })).toBe(1)
    expect((await keys.list()).apiKeys).toHaveLength(1)
  })

  it('of ids removes those that have ended, and passes by what lives, is unknown, or is somebody else’s', async () => {
    const { keys, clock } = createTestKeys()
    const issued = await Promise.all([ALICE, ALICE, BOB, BOB].map((owner) => keys.issue({ ...NAME, owner })))
    const ids = issued.map(({ apiKey }) => apiKey.id)
    for (const id of [ids[0], ids[2], ids[3]]) await keys.revoke(id as string)
    const asked = { ids: [...ids, ...ids, 'nobody', '', '\0', 'x'.repeat(300)] }
    expect(await keys.purge({ ...asked, endedBefore: new Date(clock.now()) })).toBe(0)
    expect(await keys.purge({ ...asked, owner: ALICE })).toBe(1)
    expect(await keys.purge({ ids: [ids[2] as string] })).toBe(1)
    expect(await keys.purge({ ids: [] })).toBe(0)
    expect((await keys.list()).apiKeys.map(({ id }) => id).sort()).toEqual([ids[1], ids[3]].sort())
    expect(await keys.purge(asked)).toBe(1)
    expect(await keys.verify(issued[1]?.key ?? '')).toMatchObject({ ok: true })
  })

  it('removes no idle key that is in use, and a revoked one though its uses cannot be written', async () => {
    const { keys, store, clock } = createTestKeys()
    const [idle, revoked] = [await keys.issue({ ...NAME, idleExpiryMs: 60_000 }), await keys.issue(NAME)]
    store.fail('recordUsage', rejects(new Error('read only')))
    for (let i = 0; i < 3; i++) {
      await clock.advance(50_000)
      for (const { key } of [idle, revoked]) expect(await keys.verify(key)).toMatchObject({ ok: true })
    }
    await keys.revoke(revoked.apiKey.id)
    expect(await keys.purge({ owner: ALICE })).toBe(1)
    expect(await keys.purge({ ids: [idle.apiKey.id] })).toBe(0)
    expect(await keys.verify(idle.key)).toMatchObject({ ok: true })
  })

  it.each([
    [{}, '"options" must have "endedBefore", "owner" or "ids"'],
    [{ endedBefore: undefined }, '"options" must have'],
    [{ ids: 'abc' }, '"ids" must be an array'],
    [{ ids: [1] }, '"ids" must be an array of strings'],
    [{ ids: Array(10_001).fill('a') }, '"ids" must have at most 10000'],
    [{ owner: 'u_1' }, '"owner" must be'],
    [{ id: 'a' }, 'did you mean "ids"'],
    [{ endedBefore: 'yesterday' }, '"endedBefore" must be a valid Date'],
  ])('refuses %j, and removes nothing', async (options, message) => {
    const { keys } = createTestKeys({ store: Object.assign(memoryStore()) as never })
    const { apiKey } = await keys.issue(NAME)
    await keys.revoke(apiKey.id)
    await expect(keys.purge(options as never)).rejects.toThrow(message)
    expect((await keys.list()).apiKeys).toHaveLength(1)
  })
})
