import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel'
import {
  LatchkeyError,
  memoryRateLimiter,
  type RateLimiter,
  type UsageMessage,
  type VerifyMessage,
  type VerifyStartMessage,
} from 'latchkey'
import { remoteApiKeys } from 'latchkey/remote'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { listenToChannels } from '../support/listen-to-channels.ts'
import { answers, hangs, recordingStore, rejects } from '../support/recording-store.ts'
import { createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const DURATION = expect.any(Number)
const MINUTE = { name: 'minute', limit: 1, windowMs: 60_000 }

type Ready = ReturnType<typeof createTestKeys> & { key: string; id: string }
type Options = NonNullable<Parameters<typeof createTestKeys>[0]>

async function start(options: Options = {}, settings = {}): Promise<Ready> {
  const made = createTestKeys(options)
  const { key, apiKey } = await made.keys.issue({ ...NAME, ...settings })
  return { ...made, key, id: apiKey.id }
}

/** A limiter that asks somebody, as that of Redis does. */
function remoteLimiter(check: RateLimiter['check'], members: Partial<RateLimiter> = {}): RateLimiter {
  return { ...memoryRateLimiter(), ...members, check }
}

describe('latchkey:verify', () => {
  const REFUSALS: readonly [
    string,
    Partial<VerifyMessage>,
    (ready: Ready) => Promise<unknown>,
    Options?,
    object?,
  ][] = [
    [
      'a text that is no key',
      { outcome: 'invalid_key', step: 'parse', reason: 'malformed' },
      ({ keys }) => keys.verify('x'),
    ],
    [
      'a key of another prefix',
      { outcome: 'invalid_key', step: 'parse', reason: 'prefix_not_accepted' },
      ({ keys, key }) => keys.verify(key, { prefix: 'other' }),
    ],
    [
      'a key that does not exist',
      { outcome: 'invalid_key', step: 'record', reason: 'unknown' },
      ({ keys, key }) => keys.verify(forgeKey(key, { keyId: 'A'.repeat(16) })),
    ],
    [
      'a wrong secret',
      { outcome: 'invalid_key', step: 'digest', reason: 'wrong_secret' },
      ({ keys, key }) => keys.verify(forgeKey(key, { secret: 'A'.repeat(43) })),
    ],
    [
      'a revoked key',
      { outcome: 'invalid_key', step: 'status', reason: 'revoked' },
      async ({ keys, key, id }) => {
        await keys.revoke(id)
        await keys.verify(key)
      },
    ],
    [
      'a key of an inactive owner',
      { outcome: 'invalid_key', step: 'owner', reason: 'owner_inactive' },
      ({ keys, key }) => keys.verify(key),
      { isOwnerActive: () => false },
    ],
    [
      'an address that is not allowed',
      { outcome: 'address_not_allowed', step: 'address', reason: null },
      ({ keys, key }) => keys.verify(key, { ip: '203.0.113.9' }),
      {},
      { allowedIps: ['192.0.2.0/24'] },
    ],
    [
      'missing permissions',
      { outcome: 'insufficient_permissions', step: 'permissions', reason: null },
      ({ keys, key }) => keys.verify(key, { permissions: { projects: ['read'] } }),
    ],
    [
      'a quota that is used up',
      { outcome: 'quota_exceeded', step: 'quota', reason: null },
      ({ keys, key }) => keys.verify(key),
      {},
      { quota: { remaining: 0 } },
    ],
    [
      'a rate limit',
      { outcome: 'rate_limited', step: 'rate_limits', reason: null },
      async ({ keys, key }) => {
        await keys.verify(key)
        await keys.verify(key)
      },
      { rateLimits: [MINUTE] },
    ],
    [
      'an address that is blocked',
      { outcome: 'too_many_failures', step: 'failed_attempts', reason: null },
      async ({ keys, key }) => {
        const ip = '203.0.113.9'
        await keys.verify(forgeKey(key, { secret: 'A'.repeat(43) }), { ip })
        await settle()
        await keys.verify(forgeKey(key, { keyId: 'B'.repeat(16) }), { ip })
      },
      { failedAttempts: { limit: 1, windowMs: 60_000 } as never },
    ],
  ]

  it.each(REFUSALS)(
    'tells outcome, step and reason of %s',
    async (_what, expected, act, options, settings) => {
      const ready = await start(options, settings)
      const heard = listenToChannels('latchkey:verify')
      await act(ready)
      expect(heard.on('latchkey:verify').at(-1)).toEqual({ ...expected, durationMs: DURATION, start: null })
    },
  )

  const FAULTS: readonly [
    string,
    string | null,
    (ready: Ready) => void | Promise<void>,
    Options?,
    object?,
  ][] = [
    ['the store', 'record', ({ store }) => store.fail('find', rejects(new Error('down')))],
    ['a record that is none', 'record', ({ store }) => store.fail('find', answers({}))],
    [
      'the rate limiter',
      'rate_limits',
      () => {},
      { rateLimiter: remoteLimiter(() => Promise.reject(new Error('down'))) },
    ],
    ['isOwnerActive', 'owner', () => {}, { isOwnerActive: () => Promise.reject(new Error('down')) }],
    [
      'the store of a quota',
      'quota',
      ({ store }) => store.fail('swapQuota', rejects(new Error('down'))),
      {},
      { quota: { remaining: 5 } },
    ],
    ['close()', null, ({ keys }) => keys.close()],
  ]

  it.each(FAULTS)(
    'tells that %s failed, and at which step',
    async (_what, step, breakIt, options, settings) => {
      const ready = await start(options, settings)
      await breakIt(ready)
      const heard = listenToChannels('latchkey:verify')
      await expect(ready.keys.verify(ready.key)).rejects.toMatchObject({ code: 'unavailable' })
      expect(heard.on('latchkey:verify')).toEqual([
        { outcome: 'unavailable', step, reason: null, durationMs: DURATION, start: null },
      ])
    },
  )

  it('tells of wrong calls, which still throw what they threw', async () => {
    const { keys, key } = await start()
    const heard = listenToChannels('latchkey:verify')
    await expect(keys.verify(key, { ip: 7 as never })).rejects.toThrow(TypeError)
    expect(() => keys.verifyEager(key, { costs: 1 } as never)).toThrow('costs')
    expect(heard.on('latchkey:verify').map(({ outcome, step }) => [outcome, step])).toEqual([
      ['failed', null],
      ['failed', null],
    ])
  })

  it('tells of admitted keys, of those in memory as of others, and changes no result', async () => {
    const { keys, key } = await start()
    const heard = listenToChannels('latchkey:verify')
    const first = await keys.verify(key)
    const second = keys.verifyEager(key)
    expect(first).toMatchObject({ ok: true })
    // A key in memory is verified at once, measured or not.
    expect(second).toMatchObject({ ok: true })
    expect(await keys.refund(first as never)).toBe(false)
    expect(heard.on('latchkey:verify')).toHaveLength(2)
    for (const message of heard.on('latchkey:verify')) {
      expect(message).toEqual({
        outcome: 'admitted',
        step: null,
        reason: null,
        durationMs: DURATION,
        start: null,
      })
      expect(message.durationMs).toBeGreaterThanOrEqual(0)
    }
  })

  it('measures the time that a verification takes', async () => {
    const { keys, key, store } = await start()
    let now = 1_000
    vi.spyOn(performance, 'now').mockImplementation(() => now)
    store.fail('find', async (work) => {
      now += 250
      return work()
    })
    const heard = listenToChannels('latchkey:verify', 'latchkey:dependency')
    await keys.verify(key)
    expect(heard.on('latchkey:verify')).toMatchObject([{ durationMs: 250 }])
    expect(heard.on('latchkey:dependency')).toContainEqual(
      expect.objectContaining({ method: 'find', durationMs: 250 }),
    )
  })

  it('tells of verifications through another service', async () => {
    const client = { verify: async () => Promise.reject(new Error('down')) }
    const keys = remoteApiKeys(client, { onEvent: () => {} })
    const { key } = await start()
    const heard = listenToChannels('latchkey:verify', 'latchkey:dependency')
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    await keys.verify('x')
    expect(heard.on('latchkey:verify').map(({ outcome, step }) => [outcome, step])).toEqual([
      ['unavailable', 'record'],
      ['invalid_key', 'parse'],
    ])
    expect(heard.on('latchkey:dependency')).toEqual([
      { operation: 'remote', method: null, outcome: 'failed', durationMs: DURATION },
    ])
  })
})

describe('latchkey:verify:start', () => {
  /** Subscribes until the test has ended. */
  function onStart(listener: (message: VerifyStartMessage) => void): void {
    const hear = (message: unknown) => listener(message as VerifyStartMessage)
    subscribe('latchkey:verify:start', hear)
    onTestFinished(() => void unsubscribe('latchkey:verify:start', hear))
  }

  it('is silent while nobody hears how verifications end', async () => {
    const { keys, key } = await start()
    const starts: unknown[] = []
    onStart((message) => starts.push(message))
    await keys.verify(key)
    expect(starts).toEqual([])
  })

  it('names the beginning that an end belongs to', async () => {
    const { keys, key } = await start()
    const starts: unknown[] = []
    const heard = listenToChannels('latchkey:verify')
    onStart((message) => starts.push(message))
    await Promise.all([keys.verify(key), keys.verify('x'), keys.verify(key)])
    expect(new Set(starts).size).toBe(3)
    const ends = heard.on('latchkey:verify').map((message) => message.start)
    expect(new Set(ends)).toEqual(new Set(starts))
  })

  it('runs the verification inside what subscribers ask for, once, the first of them outermost', async () => {
    const { keys, key, store } = await start()
    const order: string[] = []
    listenToChannels('latchkey:verify')
    for (const name of ['a', 'b']) {
      onStart(({ runInside }) =>
        runInside((verify) => {
          order.push(`${name} begins`)
          verify()
          verify()
          order.push(`${name} ends`)
        }),
      )
    }
    store.fail('find', (work) => {
      order.push('find')
      return work()
    })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(order).toEqual(['a begins', 'b begins', 'find', 'b ends', 'a ends'])
  })

  it.each([
    [
      'throws before it verifies',
      () => {
        throw new Error('mine')
      },
    ],
    [
      'throws after it has verified',
      (verify: () => void) => {
        verify()
        throw new Error('mine')
      },
    ],
    ['forgets to verify', () => {}],
    ['verifies later too', (verify: () => void) => void Promise.resolve().then(verify)],
  ])('survives a subscriber that %s', async (_what, run) => {
    const { keys, key, store } = await start()
    listenToChannels('latchkey:verify')
    onStart(({ runInside }) => runInside(run))
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await settle()
    expect(store.calls('find')).toBe(1)
    store.fail('find', rejects(new Error('down')))
    const other = forgeKey(key, { keyId: 'A'.repeat(16) })
    await expect(keys.verify(other)).rejects.toMatchObject({ code: 'unavailable' })
    await expect(keys.verify(key, { ip: 7 as never })).rejects.toThrow(TypeError)
  })
})

describe('latchkey:dependency', () => {
  it('tells which method of the store answered, failed or took too long', async () => {
    const { keys, store, clock, id } = await start({ timeoutMs: 1_000 })
    const heard = listenToChannels('latchkey:dependency')
    await keys.get(id)
    store.fail('find', rejects(new Error('down')))
    await expect(keys.get(id)).rejects.toMatchObject({ code: 'unavailable' })
    store.fail('find', hangs)
    const late = keys.get(id)
    late.catch(() => {})
    await clock.advance(1_000)
    await expect(late).rejects.toMatchObject({ code: 'unavailable' })
    expect(heard.on('latchkey:dependency')).toEqual(
      ['ok', 'failed', 'timed_out'].map((outcome) => ({
        operation: 'store',
        method: 'find',
        outcome,
        durationMs: DURATION,
      })),
    )
  })

  it('takes a refusal by the store for an answer', async () => {
    const { keys, store } = await start()
    store.fail('insert', rejects(new LatchkeyError('duplicate_key')))
    const heard = listenToChannels('latchkey:dependency')
    await expect(keys.issue(NAME)).rejects.toBeInstanceOf(LatchkeyError)
    const inserts = heard.on('latchkey:dependency').filter(({ method }) => method === 'insert')
    expect(inserts.length).toBeGreaterThan(0)
    expect(inserts.every(({ outcome }) => outcome === 'ok')).toBe(true)
  })

  it.each([
    ['with a deadline of its own', { timeoutMs: 100 }],
    ['without one', {}],
  ])('tells once how long a rate limiter took that is asked elsewhere, %s', async (_what, members) => {
    const inner = memoryRateLimiter()
    let isDown = false
    const rateLimiter = remoteLimiter(async (request) => {
      if (isDown) throw new Error('down')
      return inner.check(request)
    }, members)
    const { keys, key } = await start({ rateLimiter })
    const heard = listenToChannels('latchkey:dependency')
    await keys.verify(key)
    isDown = true
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    const ofLimiter = heard.on('latchkey:dependency').filter(({ operation }) => operation === 'rate_limiter')
    expect(ofLimiter.map(({ method, outcome }) => [method, outcome])).toEqual([
      ['check', 'ok'],
      ['check', 'failed'],
    ])
  })

  it('tells of the hooks about owners, and of writes', async () => {
    const { keys, key } = await start({ isOwnerActive: async () => true })
    const heard = listenToChannels('latchkey:dependency')
    await keys.verify(key)
    await keys.flush()
    const told = heard.on('latchkey:dependency').map(({ operation, method }) => [operation, method])
    expect(told).toEqual(
      expect.arrayContaining([
        ['owner_status', null],
        ['usage', 'recordUsage'],
      ]),
    )
  })
})

describe('latchkey:cache', () => {
  it('tells what was known of a key', async () => {
    const { keys, key } = await start()
    const heard = listenToChannels('latchkey:cache')
    const unknown = forgeKey(key, { keyId: 'A'.repeat(16) })
    for (const one of [key, key, unknown, unknown, 'x']) await keys.verify(one)
    expect(heard.on('latchkey:cache').map(({ result }) => result)).toEqual(['miss', 'hit', 'miss', 'absent'])
  })

  it('tells that a record was outdated, since another process has changed the key', async () => {
    const clock = fakeClock()
    const rateLimiter = memoryRateLimiter({ clock })
    const store = recordingStore()
    const { keys, key, id } = await start({ clock, store, rateLimiter })
    await keys.verify(key)
    await createTestKeys({ clock, store, rateLimiter }).keys.revoke(id)
    const heard = listenToChannels('latchkey:cache')
    expect(await keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
    expect(heard.on('latchkey:cache').map(({ result }) => result)).toEqual(['hit', 'outdated'])
  })
})

const sortByKind = (told: readonly UsageMessage[]) => [...told].sort((a, b) => (a.kind < b.kind ? -1 : 1))

describe('latchkey:usage', () => {
  it('tells how long the oldest use had waited, and goes on counting while writes fail', async () => {
    const { keys, key, store, clock } = await start({ usage: { flushMs: 10_000 } })
    await keys.verify(key)
    await keys.flush()
    const heard = listenToChannels('latchkey:usage')
    await keys.verify(key)
    await clock.advance(4_000)
    await keys.verify(key)
    await keys.flush()
    expect(sortByKind(heard.on('latchkey:usage'))).toEqual([
      { kind: 'counts', outcome: 'written', lagMs: 4_000 },
      { kind: 'last_use', outcome: 'written', lagMs: 4_000 },
    ])
    heard.forget()
    store.fail('recordUsage', rejects(new Error('down')))
    await keys.verify(key)
    await clock.advance(25_000)
    await keys.verify(key)
    store.heal()
    await clock.advance(5_000)
    const told = heard.on('latchkey:usage').filter(({ kind }) => kind === 'last_use')
    expect(told.map(({ outcome, lagMs }) => [outcome, lagMs])).toEqual([
      ['failed', 10_000],
      ['failed', 20_000],
      ['written', 30_000],
    ])
  })

  it('tells how late counts are while they cannot be written', async () => {
    const { keys, key, store, clock } = await start({ usage: { flushMs: 10_000 } })
    store.fail('addUsage', rejects(new Error('down')))
    const heard = listenToChannels('latchkey:usage')
    await keys.verify(key)
    await clock.advance(5_000)
    await keys.verify(key)
    await clock.advance(5_000)
    store.heal()
    await clock.advance(20_000)
    const told = heard.on('latchkey:usage').filter(({ kind }) => kind === 'counts')
    expect(told.map(({ outcome, lagMs }) => [outcome, lagMs])).toEqual([
      ['failed', 10_000],
      ['written', 30_000],
    ])
  })

  it('is silent where there is nothing to write', async () => {
    const { keys } = await start()
    const heard = listenToChannels('latchkey:usage')
    await keys.flush()
    expect(heard.on('latchkey:usage')).toEqual([])
  })
})

describe('latchkey:fault and latchkey:limiter', () => {
  it('tell of faults by operation and code, also where nobody has a listener of events', async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const ready = await start({ onEvent: undefined as never })
    ready.store.fail('find', rejects(new LatchkeyError('not_migrated')))
    const heard = listenToChannels('latchkey:fault')
    await expect(ready.keys.verify(ready.key)).rejects.toMatchObject({ code: 'unavailable' })
    ready.store.fail('find', rejects(new Error('down')))
    await expect(ready.keys.verify(ready.key)).rejects.toMatchObject({ code: 'unavailable' })
    expect(heard.on('latchkey:fault')).toEqual([
      { operation: 'store', code: 'not_migrated' },
      { operation: 'store', code: null },
    ])
  })

  it('tell when the rate limiter is suspended, and when it is not any more', async () => {
    let tell: (event: never) => void = () => {}
    const rateLimiter = {
      ...memoryRateLimiter(),
      listen(listener: typeof tell) {
        tell = listener
        return () => {}
      },
    } as RateLimiter
    createTestKeys({ rateLimiter })
    const heard = listenToChannels('latchkey:limiter')
    tell({ type: 'suspended', error: new Error('down') } as never)
    tell({ type: 'resumed', afterMs: 5 } as never)
    expect(heard.on('latchkey:limiter')).toEqual([{ state: 'suspended' }, { state: 'resumed' }])
  })
})

const ALL = [
  'latchkey:verify:start',
  'latchkey:verify',
  'latchkey:dependency',
  'latchkey:cache',
  'latchkey:usage',
  'latchkey:fault',
  'latchkey:limiter',
] as const

describe('every channel', () => {
  it('names no key, no id, no owner and no address', async () => {
    const heard = listenToChannels(...ALL)
    const { keys, key, id, store } = await start({}, { allowedIps: ['192.0.2.1'] })
    await keys.verify(key, { ip: '192.0.2.1' })
    await keys.verify(key, { ip: '203.0.113.9' })
    await keys.verify(forgeKey(key, { secret: 'A'.repeat(43) }))
    store.fail('find', rejects(new Error(`no connection for ${key}`)))
    await keys.verify(forgeKey(key, { keyId: 'A'.repeat(16) })).catch(() => {})
    await keys.flush()
    const text = heard.text()
    expect(text.length).toBeGreaterThan(500)
    for (const secret of [key, id, key.slice(-49, -6), NAME.owner.id, '192.0.2.1', '203.0.113.9', 'AAAA']) {
      expect(text).not.toContain(secret)
    }
  })

  it('costs no reading of the time while nobody subscribes', async () => {
    const { keys, key } = await start()
    await keys.verify(key)
    expect(ALL.map((name) => channel(name).hasSubscribers)).toEqual(ALL.map(() => false))
    const read = vi.spyOn(performance, 'now')
    for (let i = 0; i < 10; i++) keys.verifyEager(key)
    expect(read).not.toHaveBeenCalled()
  })
})
