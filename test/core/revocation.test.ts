import { memoryStore, type RateLimiter } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { fakeInvalidation } from '../support/fake-invalidation.ts'
import { recordingStore } from '../support/recording-store.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const VALID = expect.objectContaining({ ok: true })
const REVOKED = { ok: false, code: 'invalid_key', reason: 'revoked' }

type Options = Parameters<typeof createTestKeys>[0]

const BOUNDED = { revocation: 'bounded', cache: { maxAgeMs: 3_000 } } as const
const LIMITS = { rateLimits: [{ name: 'minute', limit: 3, windowMs: 60_000 }] }

/** Two processes on one store and one limiter. */
function startBounded(options: Options = {}) {
  const clock = fakeClock()
  const inner = memoryStore()
  const here = createTestKeys({ ...BOUNDED, ...options, clock, store: recordingStore(inner) })
  const shared = { ...BOUNDED, ...options, clock, rateLimiter: here.limiter }
  const there = createTestKeys({ ...shared, store: recordingStore(inner) })
  const check = vi.spyOn(here.limiter as { check: RateLimiter['check'] }, 'check')
  return { clock, here, there, check }
}

describe('bounded revocation', () => {
  it('verifies a key without limits and quota on its own', async () => {
    const { here, check } = startBounded()
    const { key } = await here.keys.issue(NAME)
    for (const options of [{}, { cost: 0 }, { cost: 5 }, {}]) {
      expect(await here.keys.verify(key, options)).toEqual({
        ok: true,
        apiKey: expect.anything(),
        limits: [],
      })
    }
    expect(check).not.toHaveBeenCalled()
  })

  it.each([
    ['limits of its own', LIMITS, {}],
    ['default limits', {}, LIMITS],
    ['a quota', { quota: { remaining: 3 } }, {}],
  ])('asks the limiter about a key that has %s', async (_what, settings, options) => {
    const { here, check } = startBounded(options)
    const { key } = await here.keys.issue({ ...NAME, ...settings })
    for (let i = 0; i < 3; i++) expect(await here.keys.verify(key)).toEqual(VALID)
    expect(await here.keys.verify(key)).toMatchObject({ ok: false })
    expect(check.mock.calls.length).toBeGreaterThanOrEqual(4)
  })

  it('asks the limiter about every key unless it was chosen', async () => {
    const { here, check } = startBounded({ revocation: 'exact' })
    const { key } = await here.keys.issue(NAME)
    await here.keys.verify(key)
    expect(check).toHaveBeenCalledTimes(1)
  })

  it('refuses a key that another process has revoked once the cache has aged, and not later', async () => {
    const { here, there, clock } = startBounded()
    const { key, apiKey } = await here.keys.issue(NAME)
    expect(await there.keys.verify(key)).toEqual(VALID)
    await here.keys.revoke(apiKey.id)
    expect(await here.keys.verify(key)).toEqual(REVOKED)
    await clock.advance(2_999)
    expect(await there.keys.verify(key)).toEqual(VALID)
    await clock.advance(1)
    expect(await there.keys.verify(key)).toEqual(REVOKED)
  })

  it('refuses a key that another process has revoked once the cache has aged, though a load takes longer', async () => {
    const { here, there, clock } = startBounded()
    const { key, apiKey } = await here.keys.issue(NAME)
    const load = there.store.hold('find')
    const first = there.keys.verify(key)
    await load.reached
    await here.keys.revoke(apiKey.id)
    await clock.advance(3_000)
    const asked = there.keys.verify(key)
    load.release()
    expect(await asked).toEqual(REVOKED)
    await first
  })

  it('refuses a key with limits at once, in every process that shares the limiter', async () => {
    const { here, there } = startBounded(LIMITS)
    const { key, apiKey } = await here.keys.issue(NAME)
    expect(await there.keys.verify(key)).toEqual(VALID)
    await here.keys.revoke(apiKey.id)
    expect(await there.keys.verify(key)).toEqual(REVOKED)
  })

  it('refuses a key at once where a message tells of it', async () => {
    const { here, there } = startBounded({ invalidation: fakeInvalidation() })
    const { key, apiKey } = await here.keys.issue(NAME)
    expect(await there.keys.verify(key)).toEqual(VALID)
    await here.keys.revoke(apiKey.id)
    expect(await there.keys.verify(key)).toEqual(REVOKED)
  })

  it('refuses imported keys at once where they were revoked, though they are more than are held', async () => {
    const formats = [{ name: 'legacy', lookup: (key: string) => /^(old-\d)-/.exec(key)?.[1] ?? null }]
    const { keys } = createTestKeys({ ...BOUNDED, formats, cache: { ...BOUNDED.cache, maxEntries: 2 } })
    const texts = [1, 2, 3, 4, 5].map((n) => `old-${n}-${'x'.repeat(40)}`)
    for (const key of texts) await keys.import({ ...NAME, format: 'legacy', key })
    for (const key of texts) expect(await keys.verify(key)).toEqual(VALID)
    await keys.revokeOwner(NAME.owner)
    for (const key of texts.toReversed()) expect(await keys.verify(key)).toEqual(REVOKED)
  })

  it('works on while the limiter fails', async () => {
    const { here, check } = startBounded()
    const { key } = await here.keys.issue(NAME)
    check.mockImplementation(() => Promise.reject(new Error('connection refused')))
    expect(await here.keys.verify(key)).toEqual(VALID)
  })

  it('counts uses all the same', async () => {
    const { here } = startBounded()
    const { key, apiKey } = await here.keys.issue(NAME)
    await here.keys.verify(key)
    await here.keys.verify(key, { cost: 0 })
    await here.keys.close()
    expect(await here.store.find({ id: apiKey.id })).toMatchObject({ usageCount: 1 })
  })
})

describe('a key that is revoked while its record waits for the application', () => {
  const TEAM = { name: 'team', limit: 10, windowMs: 60_000, scope: 'owner' } as const

  /** Two processes without a cache; the function resolves the application's pending answer. */
  async function start(hooksOf: (answer: () => Promise<void>) => Options) {
    let isSlow = false
    let open = () => {}
    const answer = () => (isSlow ? new Promise<void>((resolve) => (open = resolve)) : Promise.resolve())
    const options = { cache: false, ...hooksOf(answer) } as const
    const here = createTestKeys(options)
    const { clock, store, limiter: rateLimiter } = here
    const there = createTestKeys({ ...options, clock, store, rateLimiter })
    const { key, apiKey } = await here.keys.issue(NAME)
    isSlow = true
    const verifying = here.keys.verify(key)
    await clock.advance(200)
    await there.keys.revoke(apiKey.id)
    isSlow = false
    /** The application answers, after calls of another key have made the limiter forget what has ended. */
    const answerLate = async () => {
      const other = await there.keys.issue(NAME)
      for (let i = 0; i < 32; i += 1) await there.keys.verify(other.key, { cost: 0 })
      open()
    }
    return { clock, verifying, answerLate }
  }

  const HOOKS: [string, (answer: () => Promise<void>) => Options][] = [
    [
      'planOf',
      (answer) => ({ rateLimits: { plans: { free: [TEAM] }, planOf: () => answer().then(() => 'free') } }),
    ],
    ['rateLimits', (answer) => ({ rateLimits: () => answer().then(() => [TEAM]) })],
    ['isOwnerActive', (answer) => ({ isOwnerActive: () => answer().then(() => true) })],
    ['ownerPermissions', (answer) => ({ ownerPermissions: () => answer().then(() => null) })],
  ]

  it.each(HOOKS)('is refused, however slow %s is within its deadline', async (_name, hooksOf) => {
    const { clock, verifying, answerLate } = await start(hooksOf)
    await clock.advance(4_700)
    await answerLate()
    expect(await verifying).toEqual(REVOKED)
  })

  it.each(HOOKS)('is refused, though the process stood still while it asked %s', async (_name, hooksOf) => {
    const { clock, verifying, answerLate } = await start(hooksOf)
    // No timer runs meanwhile, so no deadline ends the wait.
    clock.set(clock.now() + 600_000)
    await answerLate()
    expect(await verifying).toEqual(REVOKED)
  })
})
