import { type ApiKey, keyStatus } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { ALICE, createTestKeys, NAME } from '../support/test-keys.ts'

const HOUR = 3_600_000

describe('the status of a key', () => {
  it('is that of the moment at which it was read', async () => {
    const { keys, clock } = createTestKeys()
    const { apiKey } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + HOUR) })
    const statusNow = async () => (await keys.get(apiKey.id))?.status
    expect([apiKey.status, await statusNow()]).toEqual(['active', 'active'])
    await clock.advance(HOUR - 1)
    expect(await statusNow()).toBe('active')
    await clock.advance(1)
    expect(await statusNow()).toBe('expired')
    // What was read stays as it was.
    expect(apiKey.status).toBe('active')
    expect(keyStatus(apiKey, new Date(clock.now()))).toBe('expired')
  })

  it('is what every change makes of it, in its answer and in its event', async () => {
    const { keys, clock, eventsOf } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const { id } = apiKey
    expect((await keys.disable(id)).status).toBe('disabled')
    expect((await keys.enable(id)).status).toBe('active')
    expect((await keys.update(id, { name: 'new' })).status).toBe('active')
    const { apiKey: successor, previous } = await keys.rotate(id, { graceMs: 0 })
    expect([successor.status, previous.status]).toEqual(['active', 'expired'])
    expect((await keys.revoke(successor.id)).status).toBe('revoked')
    expect(eventsOf('key.disabled')).toMatchObject([
      { before: { status: 'active' }, apiKey: { status: 'disabled' } },
    ])
    expect(eventsOf('key.rotated')).toMatchObject([
      { before: { status: 'active' }, apiKey: { status: 'expired' }, successor: { status: 'active' } },
    ])
    const { apiKey: late } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1) })
    await clock.advance(1)
    const revived = await keys.update(late.id, { expiresAt: null })
    expect(revived.status).toBe('active')
    expect(eventsOf('key.updated').at(-1)).toMatchObject({ before: { status: 'expired' } })
  })

  it.each(['active', 'disabled', 'expired', 'revoked'] as const)(
    'is %s of every key that a list of that status shows, idle ones too',
    async (status) => {
      const { keys, clock } = createTestKeys()
      const issue = (idleExpiryMs: number | null, expiresAt: Date | null = null) =>
        keys.issue({ ...NAME, idleExpiryMs, expiresAt })
      await issue(null)
      await issue(HOUR)
      await issue(null, new Date(clock.now() + HOUR))
      await keys.disable((await issue(null)).apiKey.id)
      await keys.revoke((await issue(null)).apiKey.id)
      await clock.advance(HOUR)
      const { apiKeys } = await keys.list({ status })
      expect(apiKeys).toHaveLength(status === 'expired' ? 2 : 1)
      expect(new Set(apiKeys.map((apiKey) => apiKey.status))).toEqual(new Set([status]))
    },
  )

  it('is taken for no setting', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    await expect(keys.update(apiKey.id, { status: 'revoked' } as never)).rejects.toThrow('"status"')
    expect(await keys.get(apiKey.id)).toEqual(apiKey)
  })
})

describe('a verified key', () => {
  async function verified(keys: ReturnType<typeof createTestKeys>['keys'], key: string): Promise<ApiKey> {
    const result = await keys.verify(key)
    if (!result.ok) throw new Error(result.code)
    return result.apiKey
  }

  it('is active, and one object for as long as its record is held', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const first = await verified(keys, key)
    expect(first.status).toBe('active')
    expect(await verified(keys, key)).toBe(first)
  })

  it('is active where only uses that are not written yet keep it from being idle', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    await clock.advance(60_000)
    expect((await keys.get(apiKey.id))?.status).toBe('expired')
    expect((await verified(keys, key)).status).toBe('active')
  })

  it('is active with the permissions of its owner, and where it is refused for its limits', async () => {
    const { keys } = createTestKeys({ ownerPermissions: () => ({ projects: ['read'] }) })
    const rateLimits = [{ name: 'minute', limit: 1, windowMs: 60_000 }]
    const { key } = await keys.issue({ owner: ALICE, name: 'CI', permissions: { '*': ['*'] }, rateLimits })
    expect(await verified(keys, key)).toMatchObject({ status: 'active', permissions: { projects: ['read'] } })
    expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited', apiKey: { status: 'active' } })
  })
})
