import { memoryRateLimiter } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { settle } from '../support/fake-clock.ts'
import { hangs, rejects } from '../support/recording-store.ts'
import { createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const DAY_MS = 86_400_000
const IDLE = { ...NAME, idleExpiryMs: 3 * DAY_MS }
const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })

/** Whether a promise is still waiting for something. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let isSettled = false
  const end = () => {
    isSettled = true
  }
  promise.then(end, end)
  await settle()
  return !isSettled
}

describe('a use that nobody may come back to write', () => {
  it('keeps a key from expiring that is used once a day, by processes that never see their timers', async () => {
    const { store, clock, keys: issuer } = createTestKeys()
    const { key, apiKey } = await issuer.issue(IDLE)
    for (let day = 1; day <= 10; day++) {
      await clock.advance(DAY_MS)
      const { keys } = createTestKeys({ store, clock: { ...clock, setTimer: () => () => {} } })
      expect(await keys.verify(key)).toMatchObject({ ok: true })
      await settle()
    }
    expect(await issuer.get(apiKey.id)).toMatchObject({ usageCount: 10, lastUsedAt: new Date(clock.now()) })
  })

  it('is the first of any key, with its address', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    await keys.verify(key, { ip: '192.0.2.1' })
    await settle()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1, lastUsedIp: '192.0.2.1' })
    await keys.verify(key)
    await settle()
    expect(store.calls('recordUsage')).toBe(1)
  })

  it('does not keep the answer waiting, not even behind a store that hangs', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue(IDLE)
    store.fail('recordUsage', hangs)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(keys.verifyEager(key)).toMatchObject({ ok: true })
  })

  it('is written every flushMs at most while the key is in use, and never later than that', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    for (let second = 0; second < 60; second++) {
      for (let i = 0; i < 5; i++) await keys.verify(key)
      await settle()
      const { lastUsedAt } = (await keys.get(apiKey.id)) ?? {}
      expect(clock.now() - (lastUsedAt?.getTime() ?? 0)).toBeLessThan(10_000)
      await clock.advance(1_000)
    }
    expect(store.calls('recordUsage')).toBeLessThanOrEqual(7)
  })

  it('goes together with those of the same moment, and with what is waiting', async () => {
    const { keys, store } = createTestKeys()
    const issued = await Promise.all(Array.from({ length: 20 }, () => keys.issue(NAME)))
    await Promise.all(issued.map(({ key }) => keys.verify(key)))
    await settle()
    expect(store.calls('recordUsage')).toBeLessThanOrEqual(2)
    for (const { apiKey } of issued) expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
  })

  it('is not tried again with every request where the store fails, but with the next batch', async () => {
    const { keys, store, clock, eventsOf } = createTestKeys()
    const issued = await Promise.all(Array.from({ length: 30 }, () => keys.issue(IDLE)))
    store.fail('recordUsage', rejects(new Error('read only')))
    for (const { key } of issued) {
      await keys.verify(key)
      await settle()
    }
    expect(store.calls('recordUsage')).toBe(1)
    expect(eventsOf('fault')).toHaveLength(1)
    store.heal()
    await clock.advance(10_000)
    for (const { apiKey } of issued) expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
  })
})

describe('flush', () => {
  it('writes everything that was gathered, and nothing where there is nothing', async () => {
    const { keys, store } = createTestKeys()
    await keys.flush()
    expect(store.calls()).toBe(0)
    const { key, apiKey } = await keys.issue(NAME)
    for (let i = 0; i < 7; i++) await keys.verify(key)
    await keys.flush()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 7 })
    store.forgetCalls()
    await keys.flush()
    expect(store.calls()).toBe(0)
  })

  it('by many at once, amid a write that has taken less, resolves once all of it is written', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    const held = store.hold('recordUsage')
    await keys.verify(key)
    await held.reached
    await keys.verify(key)
    const flushes = [keys.flush(), keys.flush(), keys.flush()]
    expect(await isPending(Promise.race(flushes))).toBe(true)
    held.release()
    await Promise.all(flushes)
    expect(store.calls('recordUsage')).toBe(2)
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 2 })
  })

  it('rejects where the store fails, says why in an event, and loses nothing', async () => {
    const { keys, store, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    store.fail('recordUsage', rejects(new Error('read only')))
    await keys.verify(key)
    await expect(keys.flush()).rejects.toEqual(UNAVAILABLE)
    await expect(keys.flush()).rejects.toEqual(UNAVAILABLE)
    expect(eventsOf('fault')[0]).toMatchObject({ operation: 'usage', error: { message: 'read only' } })
    store.heal()
    await keys.flush()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
  })

  it.each(['from the start', 'after a write that is late'])(
    'rejects once timeoutMs is over where the store hangs %s',
    async (when) => {
      const { keys, store, clock } = createTestKeys({ timeoutMs: 500 })
      const { key } = await keys.issue(NAME)
      store.fail('recordUsage', hangs)
      await keys.verify(key)
      if (when !== 'from the start') await clock.advance(5_000)
      const flushing = keys.flush()
      await clock.advance(499)
      expect(await isPending(flushing)).toBe(true)
      const refused = expect(flushing).rejects.toEqual(UNAVAILABLE)
      await clock.advance(1)
      await refused
    },
  )

  it('takes no longer than timeoutMs in all, though every batch is slow', async () => {
    const { keys, store, clock } = createTestKeys({ timeoutMs: 500 })
    const issued = await Promise.all(Array.from({ length: 2_000 }, () => keys.issue(NAME)))
    store.fail('recordUsage', async (work) => {
      await new Promise<void>((resolve) => void clock.setTimer(resolve, 400))
      return work()
    })
    await Promise.all(issued.map(({ key }) => keys.verify(key)))
    const refused = expect(keys.flush()).rejects.toEqual(UNAVAILABLE)
    await clock.advance(500)
    await refused
    await clock.advance(5_000)
    for (const { apiKey } of issued) expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
  })

  it('works after close(), and beside it', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    store.fail('recordUsage', rejects(new Error('read only')))
    await keys.verify(key)
    await Promise.all([keys.close(), expect(keys.flush()).rejects.toEqual(UNAVAILABLE)])
    store.heal()
    await keys.flush()
    expect(await keys.get(apiKey.id)).toMatchObject({ usageCount: 1 })
    await keys.flush()
    expect(clock.waiting).toBe(0)
  })

  it('waits for failed attempts that are being counted', async () => {
    const limiter = memoryRateLimiter()
    let answer = () => {}
    const counted = new Promise<void>((resolve) => {
      answer = resolve
    })
    const rateLimiter = {
      ...limiter,
      check: (request: Parameters<typeof limiter.check>[0]) =>
        request.keyId === '' ? counted.then(() => limiter.check(request)) : limiter.check(request),
    }
    const { keys, eventsOf } = createTestKeys({ rateLimiter, failedAttempts: { limit: 1 } })
    const { key } = await keys.issue(NAME)
    await keys.verify(forgeKey(key, { keyId: 'x'.repeat(16) }), { ip: '192.0.2.1' })
    const flushing = keys.flush()
    expect(await isPending(flushing)).toBe(true)
    answer()
    await flushing
    expect(eventsOf('address.blocked')).toHaveLength(1)
  })
})

describe('usage: { addresses: false }', () => {
  it('keeps no address, and lets go of one that was kept', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    await keys.verify(key, { ip: '192.0.2.1' })
    await keys.flush()
    expect(await keys.get(apiKey.id)).toMatchObject({ lastUsedIp: '192.0.2.1' })
    await clock.advance(1_000)
    store.forgetCalls()
    const { keys: discreet } = createTestKeys({ store, clock, usage: { addresses: false } })
    await discreet.verify(key, { ip: '192.0.2.2' })
    await discreet.close()
    expect(JSON.stringify(store.argumentsOf('recordUsage'))).not.toContain('192.0.2')
    expect(await keys.get(apiKey.id)).toMatchObject({
      usageCount: 2,
      lastUsedAt: new Date(clock.now()),
      lastUsedIp: null,
    })
  })

  it('still holds keys to their addresses, and refuses anything but a boolean', async () => {
    const { keys } = createTestKeys({ usage: { addresses: false } })
    const { key } = await keys.issue({ ...NAME, allowedIps: ['192.0.2.1'] })
    expect(await keys.verify(key, { ip: '192.0.2.2' })).toMatchObject({ code: 'address_not_allowed' })
    expect(() => createTestKeys({ usage: { addresses: 'no' as never } })).toThrow(/"usage.addresses" must be/)
  })
})
