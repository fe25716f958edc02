import {
  type ApiKeysOptions,
  LatchkeyError,
  memoryRateLimiter,
  memoryStore,
  type RateLimiter,
} from 'latchkey'
import { redisInvalidation, redisRateLimiter } from 'latchkey/redis'
import { describe, expect, it } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { fakeInvalidation } from '../support/fake-invalidation.ts'
import { recordingStore, rejects } from '../support/recording-store.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

type Options = Partial<Omit<ApiKeysOptions, 'clock' | 'store'>>

/** Processes that share a store, or have one each. */
function shareStore() {
  const clock = fakeClock()
  const inner = memoryStore()
  // Counts of use would agree on something too.
  const usage = { keepDays: 0 }
  const start = (options: Options, store = recordingStore(inner)) =>
    createTestKeys({ clock, store, usage, ...options })
  return { clock, start }
}

const limiter = (sharedAs?: string): { rateLimiter: RateLimiter } => ({
  rateLimiter: { ...memoryRateLimiter(), ...(sharedAs !== undefined && { sharedAs }) },
})
const channel = (sharedAs: string) => ({ invalidation: { ...fakeInvalidation(), sharedAs } })

/** What a process reports once it has issued and verified a key. */
async function faultsOf({ keys, eventsOf }: ReturnType<ReturnType<typeof shareStore>['start']>) {
  const { key } = await keys.issue(NAME)
  expect(await keys.verify(key)).toMatchObject({ ok: true })
  await settle()
  return eventsOf('fault').map(({ operation, error }) => [operation, (error as LatchkeyError).code])
}

describe('processes that share a store', () => {
  it.each([
    ['another key prefix', limiter('keyPrefix "a"'), limiter('keyPrefix "b"'), 'rate_limiter'],
    ['a key prefix in another case', limiter('keyPrefix "a"'), limiter('keyPrefix "A"'), 'rate_limiter'],
    ['another channel', channel('channel "a"'), channel('channel "b"'), 'invalidation'],
  ])('and have %s: the second says so, once, and both go on', async (_what, one, other, operation) => {
    const { start, clock } = shareStore()
    expect(await faultsOf(start(one))).toEqual([])
    const second = start(other)
    expect(await faultsOf(second)).toEqual([[operation, 'configuration_drift']])
    await clock.advance(3_600_000)
    expect(await faultsOf(second)).toHaveLength(1)
    const [fault] = second.eventsOf('fault')
    expect(String(fault?.error)).toMatch(/(keyPrefix|channel) "[bA]".*keys\.acceptConfiguration/)
  })

  it('and agree: nothing is said, and the store is asked once', async () => {
    const { start, clock } = shareStore()
    const same = { ...limiter('keyPrefix "a"'), ...channel('channel "a"') }
    for (const one of [start(same), start(same)]) {
      expect(await faultsOf(one)).toEqual([])
      await clock.advance(3_600_000)
      expect(await faultsOf(one)).toEqual([])
      expect(one.store.calls('agree')).toBe(2)
    }
  })

  it('are noticed by one that only revokes', async () => {
    const { start } = shareStore()
    const one = start(limiter('keyPrefix "a"'))
    const { key, apiKey } = await one.keys.issue(NAME)
    await one.keys.verify(key)
    const admin = start(limiter('keyPrefix "b"'))
    await admin.keys.revoke(apiKey.id)
    await settle()
    expect(admin.eventsOf('fault')).toMatchObject([{ operation: 'rate_limiter' }])
  })

  it('and count in memory have nothing to agree on', async () => {
    const { start } = shareStore()
    const first = start(limiter('keyPrefix "a"'))
    expect(await faultsOf(first)).toEqual([])
    const second = start(limiter())
    expect(await faultsOf(second)).toEqual([])
    expect(second.store.calls('agree')).toBe(0)
  })
})

describe('applications with a store each', () => {
  it('say nothing, whatever they have on one Redis', async () => {
    const { start } = shareStore()
    const [one, other] = [recordingStore(memoryStore()), recordingStore(memoryStore())]
    expect(await faultsOf(start({ ...limiter('keyPrefix "a"'), ...channel('channel "a"') }, one))).toEqual([])
    expect(await faultsOf(start({ ...limiter('keyPrefix "b"'), ...channel('channel "b"') }, other))).toEqual(
      [],
    )
  })
})

describe('an operator who has changed it for good', () => {
  it('says so once, and processes that start then say nothing', async () => {
    const { start } = shareStore()
    const [old, next] = [
      { ...limiter('keyPrefix "a"'), ...channel('channel "a"') },
      { ...limiter('keyPrefix "b"'), ...channel('channel "b"') },
    ]
    await faultsOf(start(old))
    const { keys } = start(next)
    await keys.acceptConfiguration({ rateLimiter: true })
    await keys.acceptConfiguration({ invalidation: true })
    expect(await faultsOf(start(next))).toEqual([])
    expect(await faultsOf(start(old))).toHaveLength(2)
  })
})

describe('where the store cannot be asked', () => {
  it.each([
    ['fails', new Error('connection refused')],
    ['is not migrated', new LatchkeyError('not_migrated')],
  ])('since it %s: keys work, and it is asked again later', async (_how, error) => {
    const { start, clock } = shareStore()
    await faultsOf(start(limiter('keyPrefix "a"')))
    const second = start(limiter('keyPrefix "b"'))
    second.store.fail('agree', rejects(error))
    const { key } = await second.keys.issue(NAME)
    for (let i = 0; i < 5; i++) {
      expect(await second.keys.verify(key)).toMatchObject({ ok: true })
      await settle()
    }
    expect(second.store.calls('agree')).toBe(1)
    expect(second.eventsOf('fault')).toMatchObject([{ operation: 'store' }])
    second.store.heal()
    await clock.advance(60_000)
    await second.keys.verify(key)
    await settle()
    expect(second.eventsOf('fault')).toMatchObject([{ operation: 'store' }, { operation: 'rate_limiter' }])
  })

  it('since it lacks the capability: nothing is said', async () => {
    const { agree: _agree, ...bare } = recordingStore()
    const { start } = shareStore()
    expect(await faultsOf(start(limiter('keyPrefix "a"'), bare as never))).toEqual([])
    expect(await faultsOf(start(limiter('keyPrefix "b"'), bare as never))).toEqual([])
  })
})

describe('what Redis is shared as', () => {
  const client = {
    eval: async () => {},
    evalsha: async () => {},
    publish: async () => {},
    duplicate: () => client,
  }

  it.each([
    [redisRateLimiter(client as never), 'keyPrefix "latchkey"'],
    [redisRateLimiter(client as never, { keyPrefix: 'acme' }), 'keyPrefix "acme"'],
    [redisInvalidation(client as never), 'channel "latchkey:changes"'],
    [redisInvalidation(client as never, { channel: 'c'.repeat(100) }), `channel "${'c'.repeat(100)}"`],
  ])('is its prefix or its channel', ({ sharedAs }, expected) => {
    expect(sharedAs).toBe(expected)
  })

  it.each([
    ['rateLimiter', limiter('')],
    ['rateLimiter', limiter('x'.repeat(256))],
    ['invalidation', { invalidation: { ...fakeInvalidation(), sharedAs: 7 as never } }],
  ])('of a %s of your own is a text', (name, options) => {
    expect(() => shareStore().start(options)).toThrow(`"${name}.sharedAs" must be`)
  })
})
