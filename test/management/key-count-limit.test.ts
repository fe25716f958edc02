import { type ApiKey, createApiKeys } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { type CallOptions, createWorld, type World } from '../support/management-world.ts'
import { answers, rejects, type StoreFault } from '../support/recording-store.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const DAY = 86_400_000
const DOWN = rejects(new Error('down'))

/** Lets the first calls through, and then has the fault. */
function laterThan(calls: number, fault: StoreFault): StoreFault {
  let left = calls
  return (work, ...args) => {
    left -= 1
    return left >= 0 ? work() : fault(work, ...args)
  }
}

const issue = ({ call }: World, headers: CallOptions['headers'] = {}) =>
  call('POST', '/', { as: 'alice', json: { name: 'x' }, headers })
const change = ({ call }: World, { id }: ApiKey, json: object) =>
  call('PATCH', `/${id}`, { as: 'alice', json })
const rotate = ({ call }: World, { id }: ApiKey, options: CallOptions = {}) =>
  call('POST', `/${id}/rotate`, { as: 'alice', ...options })
const idsOf = async ({ keys }: World, status: 'active' | 'expired' | 'revoked') =>
  (await keys.list({ status })).apiKeys.map(({ id }) => id)

/** A key that has expired. */
async function expiredKey({ keys, clock }: World, ms = 60_000): Promise<ApiKey> {
  const { apiKey } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + ms) })
  await clock.advance(ms)
  return apiKey
}

describe('the places of an owner', () => {
  it('are not counted with false', async () => {
    const world = await createWorld({ maxKeysPerOwner: false })
    expect((await issue(world)).status).toBe(201)
  })

  it('are taken by a key in its grace although its successor is revoked', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const first = (await issue(world)).body.apiKey as ApiKey
    const rotated = await rotate(world, first, { json: { graceMs: 366 * DAY } })
    const { id } = rotated.body.apiKey as ApiKey
    await world.call('POST', `/${id}/revoke`, { as: 'alice' })
    expect((await issue(world)).body).toMatchObject({ code: 'too_many_keys' })
    expect(await idsOf(world, 'active')).toEqual([first.id])
  })

  it('are one for a key in its grace and its successor', async () => {
    const world = await createWorld({ maxKeysPerOwner: 2 })
    await rotate(world, (await issue(world)).body.apiKey as ApiKey)
    expect((await issue(world)).status).toBe(201)
    expect((await issue(world)).body).toMatchObject({ code: 'too_many_keys' })
  })

  it('are not taken twice by a successor that is brought back', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const first = (await issue(world)).body.apiKey as ApiKey
    const expiresAt = new Date(world.clock.now() + 60_000)
    const successor = (await rotate(world, first, { json: { expiresAt } })).body.apiKey as ApiKey
    await world.clock.advance(60_000)
    expect((await change(world, successor, { expiresAt: null })).status).toBe(200)
  })

  it('do not come to a key that was rotated and has expired', async () => {
    const world = await createWorld({ maxKeysPerOwner: 5 })
    const { keys, clock } = world
    const { apiKey } = await keys.issue({ ...NAME, idleExpiryMs: DAY })
    await rotate(world, apiKey, { json: { graceMs: 366 * DAY } })
    await clock.advance(2 * DAY)
    expect((await change(world, apiKey, { idleExpiryMs: null })).body).toMatchObject({ code: 'conflict' })
    expect(await idsOf(world, 'active')).toEqual([])
  })

  it('are not multiplied by rotating on behind a key in its grace that seems idle', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const { keys, clock } = world
    const issued = await keys.issue({ ...NAME, idleExpiryMs: DAY })
    const rotated = await rotate(world, issued.apiKey, { json: { graceMs: 366 * DAY } })
    const successor = rotated.body.apiKey as ApiKey
    await change(world, successor, { idleExpiryMs: null })
    await clock.advance(DAY)
    // Within the slack of what is not written down yet.
    expect((await keys.verify(issued.key)).ok).toBe(true)
    expect((await rotate(world, successor)).body).toMatchObject({ code: 'too_many_keys' })
    await keys.revoke(issued.apiKey.id)
    expect((await rotate(world, successor)).status).toBe(201)
  })

  it('are counted without reading keys that have ended', async () => {
    const world = await createWorld({ maxKeysPerOwner: 5 })
    const { keys, store } = world
    for (let i = 0; i < 3; i++) await keys.issue(NAME)
    await keys.revokeOwner(NAME.owner)
    store.forgetCalls()
    expect((await issue(world)).status).toBe(201)
    const asked = store
      .argumentsOf('list')
      .map(([filter]) => (filter as { status?: { is: string } }).status?.is)
    expect(asked).toEqual(['active', 'disabled', 'active', 'disabled', 'active'])
  })

  it('are taken by a key that another process enables amid the count', async () => {
    const one = createTestKeys()
    const world = await createWorld({ maxKeysPerOwner: 2 }, undefined, one)
    const { keys, store, limiter, clock } = one
    const other = createApiKeys({ store, rateLimiter: limiter, prefix: 'acme_test', clock })
    const { apiKey } = await keys.issue(NAME)
    await keys.disable(apiKey.id)
    store.fail(
      'list',
      // The first two are the count before.
      laterThan(2, async (work) => {
        store.heal('list')
        const read = await work()
        await other.issue(NAME)
        await other.enable(apiKey.id)
        return read
      }),
    )
    expect((await issue(world)).body).toMatchObject({ code: 'too_many_keys' })
    expect(await idsOf(world, 'active')).toHaveLength(2)
  })

  it('are not moved by enabling a key amid the count', async () => {
    const world = await createWorld({ maxKeysPerOwner: 2 })
    const { keys, store, call } = world
    const { apiKey } = await keys.issue(NAME)
    await keys.disable(apiKey.id)
    let enabled: Promise<{ status: number }> | undefined
    let wasEnabled: unknown
    store.fail(
      'list',
      laterThan(2, async (work) => {
        store.heal('list')
        enabled = call('POST', `/${apiKey.id}/enable`, { as: 'alice' })
        // Time enough for enabling, were it not to wait.
        for (let i = 0; i < 10; i++) {
          wasEnabled = (await call('GET', `/${apiKey.id}`, { as: 'alice' })).body.enabled
        }
        return work()
      }),
    )
    expect((await issue(world)).status).toBe(201)
    expect(wasEnabled).toBe(false)
    expect((await enabled)?.status).toBe(200)
    expect(await idsOf(world, 'active')).toHaveLength(2)
  })

  it('are given up with the successor of a key that was taken back', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const { keys, store } = world
    store.fail(
      'list',
      laterThan(2, async (work) => {
        store.heal('list')
        const [made] = (await keys.list()).apiKeys
        await keys.rotate(made?.id as string)
        await keys.issue(NAME)
        return work()
      }),
    )
    expect((await issue(world)).body).toMatchObject({ code: 'too_many_keys' })
    expect(await idsOf(world, 'active')).toHaveLength(1)
    expect(await idsOf(world, 'revoked')).toHaveLength(2)
  })
})

describe('a key that is brought back', () => {
  it('expires again, and is not revoked, where the store cannot count', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const apiKey = await expiredKey(world)
    world.store.fail('list', laterThan(2, DOWN))
    const refused = await change(world, apiKey, { expiresAt: null, name: 'other' })
    expect(refused.body).toMatchObject({ code: 'unavailable' })
    world.store.heal()
    await world.clock.advance(1_000)
    expect(await idsOf(world, 'expired')).toEqual([apiKey.id])
    expect(await world.keys.get(apiKey.id)).toMatchObject({ name: NAME.name, revokedAt: null })
    expect((await change(world, apiKey, { expiresAt: null })).status).toBe(200)
  })

  it('is idle again at once', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const { keys, clock, store } = world
    const { apiKey } = await keys.issue({
      ...NAME,
      idleExpiryMs: DAY,
      expiresAt: new Date(clock.now() + 9 * DAY),
    })
    await clock.advance(2 * DAY)
    store.fail('list', laterThan(2, DOWN))
    await change(world, apiKey, { idleExpiryMs: null })
    store.heal()
    expect(await idsOf(world, 'expired')).toEqual([apiKey.id])
    expect(await keys.get(apiKey.id)).toMatchObject({ expiresAt: apiKey.expiresAt, idleExpiryMs: DAY })
  })

  it('expires again, and is not revoked, where another process was as quick', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const { keys, store, clock } = world
    const apiKey = await expiredKey(world)
    store.fail(
      'list',
      laterThan(2, async (work) => {
        store.heal('list')
        await keys.issue(NAME)
        return work()
      }),
    )
    expect((await change(world, apiKey, { expiresAt: null })).body).toMatchObject({ code: 'too_many_keys' })
    await clock.advance(1_000)
    expect(await idsOf(world, 'expired')).toEqual([apiKey.id])
    expect(await idsOf(world, 'active')).toHaveLength(1)
  })
})

describe('a repetition of a request that came to nothing', () => {
  const headers = { 'Idempotency-Key': 'one' }

  it('is not told that it is done where the new key could not be counted', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    world.store.fail('list', laterThan(2, DOWN))
    expect((await issue(world, headers)).status).toBe(503)
    world.store.heal()
    const again = await issue(world, headers)
    expect(again.body).toMatchObject({ code: 'conflict', accepted: 'another Idempotency-Key' })
    expect((await issue(world, { 'Idempotency-Key': 'two' })).status).toBe(201)
  })

  it('is not told that it is done where there was no room for the new key', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const { store, keys } = world
    store.fail(
      'list',
      laterThan(2, async (work) => {
        store.heal('list')
        await keys.issue(NAME)
        return work()
      }),
    )
    expect((await issue(world, headers)).body).toMatchObject({ code: 'too_many_keys' })
    expect((await issue(world, headers)).body).toMatchObject({ code: 'too_many_keys' })
  })

  it('is told that it is done where the user has revoked the key since', async () => {
    const world = await createWorld({ maxKeysPerOwner: 1 })
    const { id } = (await issue(world, headers)).body.apiKey as ApiKey
    await world.call('POST', `/${id}/revoke`, { as: 'alice' })
    expect((await issue(world, headers)).body).toMatchObject({ code: 'already_done', apiKey: { id } })
  })

  it.each([
    ['fails', DOWN],
    ['finds nothing', answers(0)],
  ])('is not told that the key was rotated where that lost a race and the purge %s', async (_what, purge) => {
    const world = await createWorld()
    const { keys, store } = world
    const { apiKey } = await keys.issue(NAME)
    store.fail('purge', purge)
    store.fail('insert', async (work) => {
      store.heal('insert')
      await keys.update(apiKey.id, { name: 'other' })
      return work()
    })
    const first = await rotate(world, apiKey, { headers })
    expect(first.status).not.toBe(201)
    expect(first.body.code).not.toBe('already_done')
    expect((await rotate(world, apiKey, { headers })).body).toMatchObject({ code: 'conflict' })
    expect(await keys.get(apiKey.id)).toMatchObject({ rotatedTo: null })
    expect((await rotate(world, apiKey)).status).toBe(201)
  })
})
