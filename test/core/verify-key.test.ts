import { inspect } from 'node:util'
import {
  type ApiKeyEvent,
  isLatchkeyError,
  type KeyRecord,
  memoryRateLimiter,
  memoryStore,
  type Permissions,
  type RateLimiter,
  type VerifyOptions,
  type VerifyResult,
} from 'latchkey'
import { plainTextFormat } from 'latchkey/import'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { answers, hangs, recordingStore, rejects, throws } from '../support/recording-store.ts'
import { ALICE, createTestKeys, forgeKey, partsOf } from '../support/test-keys.ts'

const NAME = { owner: ALICE, name: 'CI' }
/** How long after its idle expiry a key works on: uses elsewhere are written within 10 s and read within 5 s. */
const SLACK_MS = 15_000
const UNAVAILABLE = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })
const MINUTE = { name: 'minute', limit: 3, windowMs: 60_000 }
const PEPPER = { id: 'p1', secret: 'a pepper of no less than thirty-two bytes' }

const unhandled: unknown[] = []
const onUnhandled = (reason: unknown) => void unhandled.push(reason)
beforeEach(() => void process.on('unhandledRejection', onUnhandled))
afterEach(async () => {
  await settle()
  await settle()
  process.off('unhandledRejection', onUnhandled)
  expect(unhandled.splice(0)).toEqual([])
})

describe('the order of the steps', () => {
  const STEPS = [
    ['malformed', 'invalid_key'],
    ['prefix_not_accepted', 'invalid_key'],
    ['wrong_secret', 'invalid_key'],
    ['revoked', 'invalid_key'],
    ['disabled', 'invalid_key'],
    ['expired', 'invalid_key'],
    ['idle', 'invalid_key'],
    ['owner_inactive', 'invalid_key'],
    ['address_not_allowed', 'address_not_allowed'],
    ['insufficient_permissions', 'insufficient_permissions'],
    ['quota_exceeded', 'quota_exceeded'],
    ['rate_limited', 'rate_limited'],
  ] as const
  const names = STEPS.map(([flaw]) => flaw)

  /** Verifies a key that has all of these flaws at once. */
  async function verifyWith(flaws: readonly string[]): Promise<VerifyResult> {
    const has = (flaw: (typeof names)[number]) => flaws.includes(flaw)
    let isActive = true
    const { keys, clock } = createTestKeys({ isOwnerActive: () => isActive, ownerMaxAgeMs: false })
    const { key, apiKey } = await keys.issue({
      ...NAME,
      allowedIps: has('address_not_allowed') ? ['10.0.0.0/8'] : null,
      expiresAt: has('expired') ? new Date(clock.now() + 60_000) : null,
      idleExpiryMs: has('idle') ? 60_000 : null,
      rateLimits: has('rate_limited') ? [{ name: 'day', limit: 1, windowMs: 86_400_000 }] : [],
      quota: has('quota_exceeded') ? { remaining: 1 } : null,
    })
    expect(await keys.verify(key, { ip: '10.0.0.1' })).toMatchObject({ ok: true })
    await clock.advance(61_000 + SLACK_MS)
    if (has('disabled')) await keys.disable(apiKey.id)
    if (has('revoked')) await keys.revoke(apiKey.id)
    isActive = !has('owner_inactive')
    const claimed = has('wrong_secret') ? forgeKey(key, { secret: 'x'.repeat(43) }) : key
    return keys.verify(has('malformed') ? `${claimed}?` : claimed, {
      ip: '192.0.2.1',
      ...(has('prefix_not_accepted') && { prefix: 'other' }),
      ...(has('insufficient_permissions') && { permissions: { projects: ['read'] } }),
    })
  }

  for (const [i, [flaw, code]] of STEPS.entries()) {
    it(`refuses ${flaw} alone, and before everything that comes later`, async () => {
      const expected = code === 'invalid_key' ? { ok: false, code, reason: flaw } : { ok: false, code: flaw }
      expect(await verifyWith([flaw])).toMatchObject(expected)
      expect(await verifyWith(names.slice(i))).toMatchObject(expected)
    })
  }

  it('admits a key without any of these flaws', async () => {
    expect(await verifyWith([])).toMatchObject({ ok: true })
  })

  it('refuses a prefix that is not accepted before it asks whether there is such a key', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    const unknown = forgeKey(key, { keyId: 'A'.repeat(16) })
    expect(await keys.verify(unknown, { prefix: 'other' })).toMatchObject({ reason: 'prefix_not_accepted' })
    expect(await keys.verify(unknown, { prefix: 'acme_test' })).toMatchObject({ reason: 'unknown' })
    expect(store.calls()).toBe(1)
  })
})

describe('a mistyped key of another prefix', () => {
  it.each(['cold', 'held'])('is malformed, where the record is %s', async (record) => {
    const { keys, eventsOf } = createTestKeys()
    const { key } = await keys.issue(NAME)
    if (record === 'held') await keys.verify(key)
    const mistyped = key.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a'))
    expect(await keys.verify(mistyped, { prefix: 'other' })).toMatchObject({ reason: 'malformed' })
    expect(await keys.verify(key, { prefix: 'other' })).toMatchObject({ reason: 'prefix_not_accepted' })
    expect(eventsOf('key.refused')).toMatchObject([{ keyId: null }, { keyId: expect.any(String) }])
  })
})

describe('a malformed key', () => {
  it('is refused without any I/O, whatever it is', async () => {
    const { keys, store, limiter, eventsOf } = createTestKeys()
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    const check = vi.spyOn(limiter, 'check')
    const { prefix, keyId, secret } = partsOf(key)
    const malformed: unknown[] = [
      '',
      ' ',
      'acme_test',
      keyId,
      `${key} `,
      ` ${key}`,
      `${key}\n`,
      key.slice(0, -1),
      key.slice(0, -1) + (key.endsWith('0') ? '1' : '0'),
      key.toLowerCase(),
      key.replace(prefix, 'acme-test'),
      key.replace(prefix, 'acme_live'),
      `${key}${key}`,
      forgeKey(key, { keyId: `${keyId}0` }),
      forgeKey(key, { secret: secret.slice(1) }),
      forgeKey(key, { prefix: '' }),
      forgeKey(key, { prefix: '1acme' }),
      forgeKey(key, { prefix: 'acme_' }),
      forgeKey(key, { prefix: 'a'.repeat(33) }),
      forgeKey(key, { secret: `é${secret.slice(1)}` }),
      forgeKey(key, { keyId: "' OR 1=1 --aaaaa" }),
      'x'.repeat(10_000_000),
      '\0',
      '🔑'.repeat(40),
      undefined,
      null,
      0,
      Number.NaN,
      true,
      Symbol('key'),
      1n,
      {},
      [],
      [key],
      { toString: () => key, length: key.length },
      new String(key),
      Buffer.from(key),
      () => key,
    ]
    for (const value of malformed) {
      expect(await keys.verify(value as string)).toEqual({
        ok: false,
        code: 'invalid_key',
        reason: 'malformed',
      })
    }
    expect(store.calls()).toBe(0)
    expect(check).not.toHaveBeenCalled()
    const refusals = eventsOf('key.refused')
    expect(refusals).toHaveLength(malformed.length)
    expect(refusals[0]).toMatchObject({ reason: 'malformed', keyId: null, owner: null, ip: null })
  })

  it('has the test write checksums as the library does', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    expect(forgeKey(key, {})).toBe(key)
  })
})

describe('an unknown key', () => {
  it('is looked up once, and then refused from memory until that has aged', async () => {
    const { keys, store, clock } = createTestKeys({ cache: { negativeMaxAgeMs: 1_000 } })
    const { key } = await keys.issue(NAME)
    const unknown = forgeKey(key, { keyId: 'A'.repeat(16) })
    store.forgetCalls()
    for (let i = 0; i < 3; i++) expect(await keys.verify(unknown)).toMatchObject({ reason: 'unknown' })
    expect(store.calls()).toBe(1)
    await clock.advance(999)
    await keys.verify(unknown)
    expect(store.calls()).toBe(1)
    await clock.advance(1)
    await keys.verify(unknown)
    expect(store.calls()).toBe(2)
  })

  it('does not crowd out the memory of more than a bounded number of others', async () => {
    const { keys, store } = createTestKeys({ cache: { negativeMaxEntries: 2, maxEntries: 2 } })
    const { key } = await keys.issue(NAME)
    const [a, b, c] = ['A', 'B', 'C'].map((letter) => forgeKey(key, { keyId: letter.repeat(16) }))
    await keys.verify(key)
    store.forgetCalls()
    for (const unknown of [a, b, c, c, b]) await keys.verify(unknown as string)
    expect(store.calls('find')).toBe(3)
    await keys.verify(a as string)
    expect(store.calls('find')).toBe(4)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(store.calls('find')).toBe(4)
  })

  it('is not remembered where negativeMaxAgeMs is false', async () => {
    const { keys, store } = createTestKeys({ cache: { negativeMaxAgeMs: false } })
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    const unknown = forgeKey(key, { keyId: 'A'.repeat(16) })
    await keys.verify(unknown)
    await keys.verify(unknown)
    expect(store.calls('find')).toBe(2)
  })
})

describe('a wrong secret for a known id', () => {
  it('is refused, and the right key keeps working, in whatever order they come', async () => {
    const { keys, store, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    const verifyInTurn = async () => {
      for (const presented of [wrong, key, wrong, wrong, key]) {
        expect(await keys.verify(presented)).toMatchObject(
          presented === key ? { ok: true } : { ok: false, code: 'invalid_key', reason: 'wrong_secret' },
        )
      }
    }
    await verifyInTurn()
    store.forgetCalls()
    await verifyInTurn()
    expect(store.calls()).toBe(0)
    expect(eventsOf('key.refused')[0]).toMatchObject({
      reason: 'wrong_secret',
      keyId: apiKey.id,
      owner: ALICE,
    })
  })

  it('is told apart by its last character', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const { secret } = partsOf(key)
    const wrong = secret.slice(0, -1) + (secret.endsWith('a') ? 'b' : 'a')
    expect(await keys.verify(forgeKey(key, { secret: wrong }))).toMatchObject({ reason: 'wrong_secret' })
  })

  it('is refused under another prefix than the one it was issued with', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    expect(await keys.verify(forgeKey(key, { prefix: 'acme_live' }))).toMatchObject({
      reason: 'wrong_secret',
    })
  })

  it('is refused under bcrypt too, and never delays the right key', async () => {
    const { keys } = createTestKeys({ digest: { scheme: 'bcrypt', cost: 4 } })
    const { key } = await keys.issue(NAME)
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    expect(await keys.verify(wrong)).toMatchObject({ reason: 'wrong_secret' })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(await keys.verify(wrong)).toMatchObject({ reason: 'wrong_secret' })
  })
})

describe('an ended key', () => {
  it('is refused from the very moment it expires', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 60_000) })
    await clock.advance(59_999)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await clock.advance(1)
    expect(await keys.verify(key)).toMatchObject({ reason: 'expired' })
  })

  it('is refused once it was idle for long enough, counted from its last use', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    for (let i = 0; i < 3; i++) {
      await clock.advance(59_000)
      expect(await keys.verify(key)).toMatchObject({ ok: true })
    }
    await clock.advance(60_000 + SLACK_MS - 1)
    expect(await keys.verify(key, { prefix: 'other' })).toMatchObject({ ok: false })
    await clock.advance(1)
    expect(await keys.verify(key)).toMatchObject({ reason: 'idle' })
  })

  it('is not idle before uses in another process can be known here', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    await clock.advance(60_000 + SLACK_MS - 1)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('counts a use that is not written down yet against idleness', async () => {
    const { keys, store, clock, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    store.fail('recordUsage', rejects(new Error('read only')))
    for (let minute = 0; minute < 3; minute++) {
      await clock.advance(45_000)
      expect(await keys.verify(key)).toMatchObject({ ok: true })
    }
    expect(eventsOf('fault').length).toBeGreaterThan(0)
    expect(await keys.get(apiKey.id)).toMatchObject({ lastUsedAt: null })
  })

  it('counts idleness of a key that was never used from its issue', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    await clock.advance(60_000 + SLACK_MS)
    expect(await keys.verify(key)).toMatchObject({ reason: 'idle' })
  })

  it('is refused at the next request after revoke, disable and update resolve', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, permissions: { projects: ['read'] } })
    const needed = { permissions: { projects: ['read'] } }
    expect(await keys.verify(key, needed)).toMatchObject({ ok: true })
    await keys.disable(apiKey.id)
    expect(await keys.verify(key, needed)).toMatchObject({ reason: 'disabled' })
    await keys.enable(apiKey.id)
    expect(await keys.verify(key, needed)).toMatchObject({ ok: true })
    await keys.update(apiKey.id, { permissions: {} })
    expect(await keys.verify(key, needed)).toMatchObject({ code: 'insufficient_permissions' })
    await keys.revoke(apiKey.id)
    expect(await keys.verify(key, needed)).toMatchObject({ reason: 'revoked' })
    store.forgetCalls()
    expect(await keys.verify(key, needed)).toMatchObject({ reason: 'revoked' })
    expect(store.calls()).toBe(0)
  })
})

describe('a restriction to prefixes', () => {
  it('accepts the prefixes it names and no others', async () => {
    const { keys } = createTestKeys()
    const live = await keys.issue({ ...NAME, prefix: 'acme_live' })
    const test = await keys.issue(NAME)
    expect(await keys.verify(live.key)).toMatchObject({ ok: true })
    expect(await keys.verify(live.key, { prefix: 'acme_live' })).toMatchObject({ ok: true })
    expect(await keys.verify(live.key, { prefix: ['acme_test', 'acme_live'] })).toMatchObject({ ok: true })
    expect(await keys.verify(live.key, { prefix: 'acme' })).toMatchObject({ reason: 'prefix_not_accepted' })
    expect(await keys.verify(test.key, { prefix: ['acme_live'] })).toMatchObject({
      code: 'invalid_key',
      reason: 'prefix_not_accepted',
    })
  })
})

describe('a client address', () => {
  it('must be known and allowed where the key has a list', async () => {
    const { keys, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue({ ...NAME, allowedIps: ['192.0.2.0/24', '2001:db8::/32'] })
    for (const ip of ['192.0.2.7', '::ffff:192.0.2.7', '2001:db8::1']) {
      expect(await keys.verify(key, { ip })).toMatchObject({ ok: true })
    }
    for (const ip of ['192.0.3.1', '2001:db9::1', '::1', 'nonsense', undefined]) {
      const refused = await keys.verify(key, { ip })
      expect(refused).toMatchObject({ ok: false, code: 'address_not_allowed', apiKey: { id: apiKey.id } })
    }
    expect(eventsOf('key.refused')[0]).toMatchObject({
      code: 'address_not_allowed',
      reason: null,
      keyId: apiKey.id,
      owner: ALICE,
      ip: '192.0.3.1',
    })
  })

  it('is said to be missing where it cannot be read, and not where it is another', async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { keys, eventsOf } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, allowedIps: ['192.0.2.0/24'] })
    for (const ip of ['192.0.3.1', 'nonsense', undefined]) await keys.verify(key, { ip })
    expect(eventsOf('address.missing')).toMatchObject([
      { neededFor: 'allowedIps', found: 'no address' },
      { neededFor: 'allowedIps', found: 'nothing' },
    ])
  })

  it('does not matter where the key has no list', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    expect(await keys.verify(key, { ip: 'nonsense' })).toMatchObject({ ok: true })
  })
})

describe('permissions', () => {
  it('are refused with exactly those that are missing', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, permissions: { projects: ['read'], reports: ['*'] } })
    const needed = { projects: ['read', 'write'], reports: ['export'], users: ['list'] }
    expect(await keys.verify(key, { permissions: needed })).toMatchObject({
      ok: false,
      code: 'insufficient_permissions',
      missing: { projects: ['write'], users: ['list'] },
    })
  })

  it('are satisfied by any one of several alternatives, or else the nearest is listed', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, permissions: { projects: ['read'] } })
    const either: Permissions[] = [{ users: ['list'] }, { projects: ['read'] }]
    expect(await keys.verify(key, { permissions: either })).toMatchObject({ ok: true })
    const neither: Permissions[] = [{ users: ['list', 'write'] }, { projects: ['read', 'write'] }]
    const refused = await keys.verify(key, { permissions: neither })
    expect(refused).toMatchObject({ missing: { projects: ['write'] } })
    expect(refused).not.toHaveProperty('missing.users')
  })

  it('are not found on the prototype of a key’s permissions', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    for (const resource of ['constructor', 'toString', 'hasOwnProperty']) {
      const refused = await keys.verify(key, { permissions: { [resource]: ['name'] } })
      expect(refused).toMatchObject({ code: 'insufficient_permissions' })
    }
  })
})

describe('rate limits and quota', () => {
  it('refuse with how long to wait, and with null where waiting does not help', async () => {
    const { keys, clock } = createTestKeys({ rateLimits: [MINUTE] })
    const { key } = await keys.issue(NAME)
    await keys.verify(key, { cost: 3 })
    await clock.advance(10_000)
    const refused = await keys.verify(key)
    expect(refused).toMatchObject({ ok: false, code: 'rate_limited', retryAfterMs: 50_000 })
    expect(refused).toHaveProperty('limits', [
      expect.objectContaining({ name: 'minute', limit: 3, remaining: 0, resetMs: 50_000, exceeded: true }),
    ])
    expect(await keys.verify(key, { cost: 4 })).toMatchObject({ code: 'rate_limited', retryAfterMs: null })
    await clock.advance(49_999)
    expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited', retryAfterMs: 1 })
    await clock.advance(1)
    expect(await keys.verify(key)).toMatchObject({ ok: true, limits: [{ remaining: 2, exceeded: false }] })
  })

  it('refuse an exhausted quota with the time of its refill, and with null where there is none', async () => {
    const { keys, clock } = createTestKeys()
    const finite = await keys.issue({ ...NAME, quota: { remaining: 2 } })
    const refilled = await keys.issue({
      ...NAME,
      quota: { remaining: 2, refill: { amount: 2, everyMs: 3_600_000 } },
    })
    for (const { key } of [finite, refilled]) await keys.verify(key, { cost: 2 })
    // Until a lease time has passed another process might give units back.
    await clock.advance(1_000)
    for (const { key } of [finite, refilled]) {
      expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded', retryAfterMs: 5_000 })
    }
    await clock.advance(5_000)
    const quota = { type: 'quota', name: 'quota', remaining: 0, exceeded: true }
    expect(await keys.verify(finite.key)).toMatchObject({
      ok: false,
      code: 'quota_exceeded',
      retryAfterMs: null,
      limits: [{ ...quota, limit: null, resetMs: null }],
    })
    expect(await keys.verify(refilled.key)).toMatchObject({
      code: 'quota_exceeded',
      retryAfterMs: 3_594_000,
      limits: [{ ...quota, limit: 2, resetMs: 3_594_000 }],
    })
    expect(await keys.verify(refilled.key, { cost: 3 })).toMatchObject({
      code: 'quota_exceeded',
      retryAfterMs: null,
    })
  })

  it('charge an admitted call its cost, once, on every limit and on the quota', async () => {
    const { keys } = createTestKeys()
    const hour = { name: 'hour', limit: 50, windowMs: 3_600_000 }
    const day = { name: 'day', limit: 100, per: 'day' } as const
    const { key } = await keys.issue({ ...NAME, rateLimits: [hour, day], quota: { remaining: 200 } })
    const remaining = async (cost: number) => {
      const result = await keys.verify(key, { cost })
      return result.ok ? result.limits.map((limit) => limit.remaining) : result.code
    }
    expect(await remaining(0)).toEqual([50, 100, 200])
    expect(await remaining(1)).toEqual([49, 99, 199])
    expect(await remaining(5)).toEqual([44, 94, 194])
    expect(await remaining(0)).toEqual([44, 94, 194])
    expect(await remaining(45)).toBe('rate_limited')
    expect(await remaining(44)).toEqual([0, 50, 150])
    expect(await remaining(0)).toEqual([0, 50, 150])
  })

  it('admit exactly as many of 50 concurrent calls as the limit allows', async () => {
    const { keys } = createTestKeys({ rateLimits: [{ ...MINUTE, limit: 20 }] })
    const { key } = await keys.issue(NAME)
    const results = await Promise.all(Array.from({ length: 50 }, () => keys.verify(key)))
    expect(results.filter(({ ok }) => ok)).toHaveLength(20)
    expect(results.filter((result) => !result.ok && result.code === 'rate_limited')).toHaveLength(30)
  })

  it('take a cost of wrong kind for the mistake it is', async () => {
    const { keys, limiter } = createTestKeys({ rateLimits: [MINUTE] })
    const { key } = await keys.issue(NAME)
    const check = vi.spyOn(limiter, 'check')
    for (const cost of [-1, 0.5, Number.NaN, Infinity, '1', null]) {
      await expect(keys.verify(key, { cost: cost as number })).rejects.toThrow(/"cost"/)
      expect(() => keys.verifyEager(key, { cost: cost as number })).toThrow(TypeError)
    }
    expect(check).not.toHaveBeenCalled()
  })
})

describe('a denied call spends nothing', () => {
  const LIMIT = { name: 'day', limit: 10, windowMs: 86_400_000 }

  /** A key, and its sibling that shares what it spends and stays healthy, by which the account is read. */
  async function createPair() {
    let isActive = true
    const test = createTestKeys({ isOwnerActive: () => isActive, ownerMaxAgeMs: false })
    const { keys } = test
    const first = await keys.issue({ ...NAME, rateLimits: [LIMIT], quota: { remaining: 20 } })
    const sibling = await keys.rotate(first.apiKey.id)
    const account = async () => {
      isActive = true
      const result = await keys.verify(sibling.key, { cost: 0 })
      return result.ok && result.limits.map(({ remaining }) => remaining)
    }
    const deactivate = () => {
      isActive = false
    }
    return { ...test, key: first.key, id: first.apiKey.id, sibling, account, deactivate }
  }
  type Pair = Awaited<ReturnType<typeof createPair>>

  const DENIALS: Record<string, (pair: Pair) => unknown> = {
    malformed: ({ keys, key }) => keys.verify(`${key}?`),
    prefix_not_accepted: ({ keys, key }) => keys.verify(key, { prefix: 'other' }),
    unknown: ({ keys, key }) => keys.verify(forgeKey(key, { keyId: 'A'.repeat(16) })),
    wrong_secret: ({ keys, key }) => keys.verify(forgeKey(key, { secret: 'x'.repeat(43) })),
    revoked: ({ keys, key, id }) => keys.revoke(id).then(() => keys.verify(key)),
    disabled: ({ keys, key, id }) => keys.disable(id).then(() => keys.verify(key)),
    expired: ({ keys, key, clock }) => clock.advance(86_400_000).then(() => keys.verify(key)),
    idle: async ({ keys, key, id, clock }) => {
      await keys.update(id, { idleExpiryMs: 60_000 })
      await clock.advance(60_000 + SLACK_MS)
      return keys.verify(key)
    },
    owner_inactive: ({ keys, key, deactivate }) => {
      deactivate()
      return keys.verify(key)
    },
    address_not_allowed: async ({ keys, key, id }) => {
      await keys.update(id, { allowedIps: ['10.0.0.0/8'] })
      return keys.verify(key, { ip: '192.0.2.1' })
    },
    insufficient_permissions: ({ keys, key }) => keys.verify(key, { permissions: { projects: ['read'] } }),
    rate_limited: ({ keys, key }) => keys.verify(key, { cost: 11 }),
    quota_exceeded: async ({ keys, key, id }) => {
      await keys.update(id, { quota: { remaining: 4 } })
      const refused = await keys.verify(key, { cost: 5 })
      await keys.update(id, { quota: { remaining: 20 } })
      return refused
    },
  }

  for (const [denial, deny] of Object.entries(DENIALS)) {
    it(`where it is denied as ${denial}`, async () => {
      const pair = await createPair()
      expect(await pair.account()).toEqual([10, 20])
      const refused = (await deny(pair)) as VerifyResult
      const { code, reason } = refused as { code: string; reason?: string }
      expect([refused.ok, reason ?? code]).toEqual([false, denial])
      expect(await pair.account()).toEqual([10, 20])
      expect((await pair.keys.get(pair.sibling.apiKey.id))?.quota?.remaining).toBe(20)
      await pair.keys.close()
      expect((await pair.keys.get(pair.id))?.usageCount).toBe(0)
    })
  }
})

describe('the cache', () => {
  it('loads a record once for 50 concurrent misses', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    const results = await Promise.all(Array.from({ length: 50 }, () => keys.verify(key)))
    expect(results.every(({ ok }) => ok)).toBe(true)
    expect(store.calls('find')).toBe(1)
  })

  it('loads an unknown key once for 50 concurrent misses', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    const unknown = forgeKey(key, { keyId: 'A'.repeat(16) })
    const results = await Promise.all(Array.from({ length: 50 }, () => keys.verify(unknown)))
    expect(results.filter(({ ok }) => ok)).toEqual([])
    expect(store.calls()).toBe(1)
  })

  it('answers a warm verification at once, without the store', async () => {
    const { keys, store } = createTestKeys({ rateLimits: [MINUTE] })
    const { key } = await keys.issue(NAME)
    expect(keys.verifyEager(key)).toBeInstanceOf(Promise)
    await settle()
    store.forgetCalls()
    expect(keys.verifyEager(key)).toMatchObject({ ok: true, limits: [{ remaining: 1 }] })
    expect(keys.verifyEager(`${key}?`)).toMatchObject({ reason: 'malformed' })
    expect(store.calls()).toBe(0)
  })

  it('counts the age of a record from when its read was sent', async () => {
    const { keys, store, clock } = createTestKeys({ cache: { maxAgeMs: 5_000 } })
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    const held = store.hold('find')
    const first = keys.verify(key)
    await held.reached
    await clock.advance(3_000)
    held.release()
    expect(await first).toMatchObject({ ok: true })
    await clock.advance(1_999)
    await keys.verify(key)
    expect(store.calls('find')).toBe(1)
    await clock.advance(1)
    await keys.verify(key)
    expect(store.calls('find')).toBe(2)
  })

  it('does not use a record that a clock set back makes look young', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key } = await keys.issue(NAME)
    await keys.verify(key)
    store.forgetCalls()
    clock.set(clock.now() - 86_400_000)
    await keys.verify(key)
    expect(store.calls('find')).toBe(1)
  })

  it('holds nothing where cache is false', async () => {
    const { keys, store } = createTestKeys({ cache: false })
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    for (let i = 0; i < 3; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(store.calls('find')).toBe(3)
    const unknown = forgeKey(key, { keyId: 'A'.repeat(16) })
    for (let i = 0; i < 2; i++) expect(await keys.verify(unknown)).toMatchObject({ reason: 'unknown' })
    expect(store.calls('find')).toBe(5)
  })

  it('holds maxEntries records and lets the one go that was used least lately', async () => {
    const { keys, store } = createTestKeys({ cache: { maxEntries: 2 } })
    const [a, b, c] = await Promise.all([keys.issue(NAME), keys.issue(NAME), keys.issue(NAME)])
    for (const { key } of [a, b, a, c]) await keys.verify(key)
    store.forgetCalls()
    for (const { key } of [a, c]) expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(store.calls('find')).toBe(0)
    expect(await keys.verify(b.key)).toMatchObject({ ok: true })
    expect(store.calls('find')).toBe(1)
  })

  it('is not read by management', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    await keys.verify(key)
    await store.update(apiKey.id, 1, { name: 'by another process', updatedAt: new Date() })
    expect((await keys.get(apiKey.id))?.name).toBe('by another process')
  })
})

describe('revoked means revoked', () => {
  it('does not admit by a load that was under way when revoke() resolved', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    const held = store.hold('find')
    const underWay = keys.verify(key)
    await held.reached
    await keys.revoke(apiKey.id)
    const joining = keys.verify(key)
    held.release()
    expect(await underWay).toMatchObject({ ok: false, reason: 'revoked' })
    expect(await joining).toMatchObject({ ok: false, reason: 'revoked' })
    expect(await keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
  })

  it('is no fault of the store where one change after the other overtakes a load', async () => {
    const { keys, store, eventsOf } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    let held = store.hold('find')
    const underWay = keys.verify(key)
    for (const name of ['one', 'two', 'three']) {
      await held.reached
      await keys.update(apiKey.id, { name })
      const next = store.hold('find')
      held.release()
      held = next
    }
    await held.reached
    held.release()
    expect(await underWay).toMatchObject({ ok: true, apiKey: { name: 'three' } })
    expect(eventsOf('fault')).toEqual([])
  })

  it('does not admit by a load under way here even where the limiter cannot be told', async () => {
    const { keys, store, limiter, clock } = createTestKeys()
    const { key, apiKey } = await keys.issue(NAME)
    vi.spyOn(limiter, 'raiseVersions').mockRejectedValue(new Error('connection refused') as never)
    const held = store.hold('find')
    const underWay = keys.verify(key)
    await held.reached
    const revoking = keys.revoke(apiKey.id)
    await settle()
    held.release()
    expect(await underWay).toMatchObject({ ok: false, reason: 'revoked' })
    await clock.advance(5_000)
    await revoking
  })

  it('does not admit by a load under way in another process when revoke() resolved', async () => {
    const clock = fakeClock()
    const rateLimiter = memoryRateLimiter({ clock })
    const inner = memoryStore()
    const here = createTestKeys({ clock, rateLimiter, store: recordingStore(inner) })
    const there = createTestKeys({ clock, rateLimiter, store: recordingStore(inner) })
    const { key, apiKey } = await here.keys.issue(NAME)
    const held = there.store.hold('find')
    const underWay = there.keys.verify(key)
    await held.reached
    await here.keys.revoke(apiKey.id)
    held.release()
    expect(await underWay).toMatchObject({ ok: false, reason: 'revoked' })
  })

  it('is true in every process that shares the limiter, at the next request', async () => {
    const clock = fakeClock()
    const rateLimiter = memoryRateLimiter({ clock })
    const store = recordingStore()
    const here = createTestKeys({ clock, rateLimiter, store })
    const there = createTestKeys({ clock, rateLimiter, store })
    const { key, apiKey } = await here.keys.issue(NAME)
    for (const { keys } of [here, there]) expect(await keys.verify(key)).toMatchObject({ ok: true })
    await here.keys.revoke(apiKey.id)
    expect(await there.keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
    expect(await here.keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
  })

  it('holds after another process disables, changes and enables a key in turn', async () => {
    const clock = fakeClock()
    const rateLimiter = memoryRateLimiter({ clock })
    const store = recordingStore()
    const here = createTestKeys({ clock, rateLimiter, store })
    const there = createTestKeys({ clock, rateLimiter, store })
    const { key, apiKey } = await here.keys.issue(NAME)
    await there.keys.verify(key)
    await here.keys.disable(apiKey.id)
    expect(await there.keys.verify(key)).toMatchObject({ reason: 'disabled' })
    await there.keys.enable(apiKey.id)
    expect(await here.keys.verify(key)).toMatchObject({ ok: true })
    await here.keys.update(apiKey.id, { allowedIps: ['10.0.0.1'] })
    expect(await there.keys.verify(key, { ip: '10.0.0.2' })).toMatchObject({ code: 'address_not_allowed' })
  })

  it('makes a store that keeps answering what was before a change a fault', async () => {
    const clock = fakeClock()
    const rateLimiter = memoryRateLimiter({ clock })
    const inner = memoryStore()
    const here = createTestKeys({ clock, rateLimiter, store: recordingStore(inner) })
    const there = createTestKeys({ clock, rateLimiter, store: recordingStore(inner) })
    const { key, apiKey } = await here.keys.issue(NAME)
    await there.store.lag()
    await here.keys.revoke(apiKey.id)
    await here.store.lag()
    expect(await here.keys.verify(key)).toMatchObject({ reason: 'revoked' })
    await expect(there.keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(there.eventsOf('fault')).toMatchObject([{ operation: 'store' }])
  })

  it('refuses within the cache’s age where the limiter shares nothing', async () => {
    const clock = fakeClock()
    const store = recordingStore()
    const here = createTestKeys({ clock, store })
    const there = createTestKeys({ clock, store })
    const { key, apiKey } = await here.keys.issue(NAME)
    await there.keys.verify(key)
    await here.keys.revoke(apiKey.id)
    await clock.advance(5_000)
    expect(await there.keys.verify(key)).toMatchObject({ reason: 'revoked' })
  })
})

describe('a store that fails', () => {
  const failure = new Error('connection refused')

  for (const [title, fault] of Object.entries({ throws: throws(failure), rejects: rejects(failure) })) {
    it(`${title}: unavailable, reported once for all who wait, and fine again afterwards`, async () => {
      const { keys, store, eventsOf } = createTestKeys()
      const { key } = await keys.issue(NAME)
      store.fail('find', fault)
      const results = await Promise.allSettled([keys.verify(key), keys.verify(key)])
      for (const result of results) {
        expect(result).toMatchObject({ status: 'rejected', reason: UNAVAILABLE })
        const { reason } = result as PromiseRejectedResult
        expect(isLatchkeyError(reason) && [reason.expose, reason.cause]).toEqual([false, failure])
        expect(reason.message).not.toContain('connection')
      }
      expect(eventsOf('fault')).toMatchObject([{ operation: 'store', error: failure }])
      expect(eventsOf('key.refused')).toEqual([])
      store.heal()
      expect(await keys.verify(key)).toMatchObject({ ok: true })
    })
  }

  it('hangs: unavailable after timeoutMs, and what it says later changes nothing', async () => {
    const { keys, store, clock, eventsOf } = createTestKeys({ timeoutMs: 700 })
    const { key } = await keys.issue(NAME)
    store.fail('find', hangs)
    let outcome: unknown
    const verification = keys.verify(key).catch((error) => {
      outcome = error
    })
    await clock.advance(699)
    expect(outcome).toBeUndefined()
    await clock.advance(1)
    await verification
    expect(outcome).toEqual(UNAVAILABLE)
    expect(eventsOf('fault')).toMatchObject([{ operation: 'store' }])
    store.heal()
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('rejects late: unavailable once, and nobody’s unhandled rejection', async () => {
    const { keys, store, clock, eventsOf } = createTestKeys({ timeoutMs: 700 })
    const { key } = await keys.issue(NAME)
    store.fail('find', () => new Promise((_, reject) => clock.setTimer(() => reject(failure), 2_000)))
    const verification = expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    await clock.advance(5_000)
    await verification
    expect(eventsOf('fault')).toHaveLength(1)
  })

  it('answers late: the answer of a read that was given up does not come back', async () => {
    const { keys, store, clock } = createTestKeys({ timeoutMs: 700 })
    const { key, apiKey } = await keys.issue(NAME)
    const held = store.hold('find')
    const verification = expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    await held.reached
    await clock.advance(700)
    await verification
    await keys.revoke(apiKey.id)
    held.release()
    await settle()
    expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
  })

  it('serves what is held while it is still young enough', async () => {
    const { keys, store, clock } = createTestKeys()
    const { key } = await keys.issue(NAME)
    await keys.verify(key)
    store.fail('find', rejects(failure))
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await clock.advance(5_000)
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
  })

  const junk = (change: object) => (record: KeyRecord) => ({ ...record, ...change })
  const NONSENSE: Record<string, (record: KeyRecord, other: KeyRecord) => unknown> = {
    undefined: () => undefined,
    false: () => false,
    true: () => true,
    zero: () => 0,
    'an empty string': () => '',
    'an empty object': () => ({}),
    'an array': (record) => [record],
    'an empty array': () => [],
    'a row as text': (record) => JSON.stringify(record),
    'dates as text': (record) => JSON.parse(JSON.stringify(record)),
    'another key’s record': (_, other) => other,
    'no digest': junk({ digest: undefined }),
    'a digest of no scheme': junk({ digest: 'deadbeef' }),
    'an empty digest': junk({ digest: '' }),
    'a digest that is cut short': (record) => ({ ...record, digest: record.digest.slice(0, -1) }),
    'a digest of a scheme to come': junk({ digest: `$argon9$${'A'.repeat(43)}` }),
    'a digest under a pepper nobody has': junk({ digest: `$hmac-sha256$p9$${'A'.repeat(43)}` }),
    'no owner': junk({ owner: null }),
    'an owner as text': junk({ owner: 'u_1' }),
    'no revokedAt': junk({ revokedAt: undefined }),
    'revokedAt as a number': junk({ revokedAt: 0 }),
    'an invalid expiry': junk({ expiresAt: new Date('never') }),
    'enabled as a number': junk({ enabled: 1 }),
    'permissions as text': junk({ permissions: '{"*":["*"]}' }),
    'permissions as a list': junk({ permissions: ['*'] }),
    'actions as text': junk({ permissions: { projects: 'read' } }),
    'limits as text': junk({ rateLimits: '[]' }),
    'limits without a window': junk({ rateLimits: [{ name: 'minute', limit: 1 }] }),
    'a limit of NaN': junk({ rateLimits: [{ name: 'minute', limit: Number.NaN, windowMs: 1 }] }),
    'addresses as text': junk({ allowedIps: '10.0.0.0/8' }),
    'a quota as a number': junk({ quota: 5 }),
    'a quota without an epoch': junk({ quota: { remaining: 5, allotted: 0, nextRefillAt: null } }),
    'a version of zero': junk({ version: 0 }),
    'a version as text': junk({ version: '1' }),
    'an idle expiry as text': junk({ idleExpiryMs: '60000' }),
    'a promise of nothing': () => Promise.resolve(),
    'a record whose owner cannot be read': (record) => {
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      return { ...record, owner: proxy }
    },
    'a record that throws when it is read': (record) =>
      Object.defineProperty({ ...record }, 'owner', {
        get() {
          throw failure
        },
      }),
  }
  for (const [title, nonsense] of Object.entries(NONSENSE)) {
    it(`answers ${title}: unavailable, never a refusal`, async () => {
      const { keys, store, eventsOf } = createTestKeys()
      const { key, apiKey } = await keys.issue(NAME)
      const other = await keys.issue(NAME)
      const record = (await store.find({ id: apiKey.id })) as KeyRecord
      const otherRecord = (await store.find({ id: other.apiKey.id })) as KeyRecord
      store.fail('find', answers(nonsense(record, otherRecord)))
      await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
      expect(eventsOf('fault')).toMatchObject([{ operation: 'store' }])
      expect(eventsOf('key.refused')).toEqual([])
      store.heal()
      expect(await keys.verify(key)).toMatchObject({ ok: true })
    })
  }
})

describe('a limiter that fails', () => {
  const failure = new Error('connection refused')
  const FAULTS: Record<string, () => unknown> = {
    throws: () => {
      throw failure
    },
    rejects: () => Promise.reject(failure),
    'answers undefined': () => undefined,
    'answers null': () => null,
    'answers true': () => true,
    'promises nonsense': async () => ({ outcome: 'fine' }),
  }
  for (const [title, fault] of Object.entries(FAULTS)) {
    it(`${title}: unavailable, never an admission`, async () => {
      const { keys, limiter, eventsOf } = createTestKeys()
      const { key } = await keys.issue(NAME)
      vi.spyOn(limiter, 'check').mockImplementation(fault as RateLimiter['check'])
      await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
      await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
      expect(eventsOf('fault')).toMatchObject([{ operation: 'rate_limiter' }, { operation: 'rate_limiter' }])
    })
  }

  it('hangs: unavailable after timeoutMs', async () => {
    const { keys, limiter, clock } = createTestKeys({ timeoutMs: 300 })
    const { key } = await keys.issue(NAME)
    vi.spyOn(limiter, 'check').mockImplementation(() => new Promise(() => {}))
    const verification = expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    await clock.advance(300)
    await verification
  })

  it('calls every record stale: unavailable after a bounded number of reads', async () => {
    const { keys, limiter, store } = createTestKeys()
    const { key } = await keys.issue(NAME)
    vi.spyOn(limiter, 'check').mockReturnValue({ outcome: 'stale' })
    store.forgetCalls()
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(store.calls('find')).toBeLessThanOrEqual(3)
  })
})

describe('isOwnerActive', () => {
  const setUp = (isOwnerActive: (owner: object) => unknown, ownerMaxAgeMs?: number) =>
    createTestKeys({
      isOwnerActive: isOwnerActive as () => boolean,
      ...(ownerMaxAgeMs !== undefined && { ownerMaxAgeMs }),
    })

  it('is asked with the owner, and its answer holds for ownerMaxAgeMs', async () => {
    const ask = vi.fn(async () => true)
    const { keys, clock } = setUp(ask, 2_000)
    const a = await keys.issue(NAME)
    await keys.verify(a.key)
    await clock.advance(1_999)
    await keys.verify(a.key)
    expect(ask.mock.calls).toEqual([[ALICE]])
    await clock.advance(1)
    await keys.verify(a.key)
    expect(ask).toHaveBeenCalledTimes(2)
  })

  it('holds a refusal no longer than that either', async () => {
    let isActive = false
    const { keys, clock, eventsOf } = setUp(() => isActive, 2_000)
    const { key } = await keys.issue(NAME)
    expect(await keys.verify(key)).toEqual({ ok: false, code: 'invalid_key', reason: 'owner_inactive' })
    expect(eventsOf('key.refused')).toMatchObject([{ owner: ALICE, reason: 'owner_inactive' }])
    isActive = true
    await clock.advance(2_000)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('is asked once for all who wait, and for each owner apart', async () => {
    const ask = vi.fn(async (owner: object) => (owner as { id: string }).id !== 'b c')
    const { keys } = setUp(ask)
    const a = await keys.issue({ owner: { type: 'a b', id: 'c' }, name: 'a' })
    const b = await keys.issue({ owner: { type: 'a', id: 'b c' }, name: 'b' })
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, i) => keys.verify(i % 2 === 0 ? a.key : b.key)),
    )
    expect(ask).toHaveBeenCalledTimes(2)
    expect(results.map(({ ok }) => ok)).toEqual(results.map((_, i) => i % 2 === 0))
  })

  it('does not hold an answer that a clock set back makes look young', async () => {
    const ask = vi.fn(() => true)
    const { keys, clock } = setUp(ask)
    const { key } = await keys.issue(NAME)
    await keys.verify(key)
    clock.set(clock.now() - 86_400_000)
    await keys.verify(key)
    expect(ask).toHaveBeenCalledTimes(2)
  })

  it('is not asked about a key that is refused anyway', async () => {
    const ask = vi.fn(() => true)
    const { keys } = setUp(ask)
    const { key, apiKey } = await keys.issue(NAME)
    await keys.verify(forgeKey(key, { secret: 'x'.repeat(43) }))
    await keys.revoke(apiKey.id)
    await keys.verify(key)
    expect(ask).not.toHaveBeenCalled()
  })

  const FAULTS: Record<string, () => unknown> = {
    throws: () => {
      throw new Error('no database')
    },
    rejects: () => Promise.reject(new Error('no database')),
    'answers undefined': () => undefined,
    'answers a user': () => ({ id: 'u_alice' }),
    'answers 1': async () => 1,
    'answers null': async () => null,
    'answers "true"': () => 'true',
  }
  for (const [title, fault] of Object.entries(FAULTS)) {
    it(`${title}: unavailable, and asked again the next time`, async () => {
      let broken = true
      const { keys, eventsOf } = setUp(() => (broken ? fault() : true))
      const { key } = await keys.issue(NAME)
      await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
      expect(eventsOf('fault')).toMatchObject([{ operation: 'owner_status' }])
      broken = false
      expect(await keys.verify(key)).toMatchObject({ ok: true })
    })
  }

  it('hangs: unavailable after timeoutMs', async () => {
    const { keys, clock } = setUp(() => new Promise(() => {}))
    const { key } = await keys.issue(NAME)
    const verification = expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    await clock.advance(5_000)
    await verification
  })

  it('is asked again once invalidateOwner resolves', async () => {
    let isActive = true
    const { keys } = setUp(() => isActive, 60_000)
    const { key } = await keys.issue(NAME)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    isActive = false
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await keys.invalidateOwner(ALICE)
    expect(await keys.verify(key)).toMatchObject({ reason: 'owner_inactive' })
  })

  it('does not admit by an answer that was under way when invalidateOwner resolved', async () => {
    const pending: ((active: boolean) => void)[] = []
    const { keys } = setUp(() => new Promise((resolve) => pending.push(resolve)))
    const { key } = await keys.issue(NAME)
    const underWay = keys.verify(key)
    await settle()
    await keys.invalidateOwner(ALICE)
    pending[0]?.(true)
    await settle()
    pending[1]?.(false)
    expect(await underWay).toMatchObject({ reason: 'owner_inactive' })
    expect(await keys.verify(key)).toMatchObject({ reason: 'owner_inactive' })
    expect(pending).toHaveLength(2)
  })
})

describe('an upgrade of digests', () => {
  const RING = { peppers: [PEPPER] }

  /** A key whose digest was made before there were peppers, and the store that holds it. */
  async function issueBefore() {
    const store = recordingStore()
    const clock = fakeClock()
    const before = createTestKeys({ store, clock })
    const issued = await before.keys.issue(NAME)
    const digest = async () => (await store.find({ id: issued.apiKey.id }))?.digest ?? ''
    return { ...issued, store, clock, before, digest, old: await digest() }
  }

  it('does not happen unless it is switched on', async () => {
    const { key, store, clock, digest, old } = await issueBefore()
    const { keys } = createTestKeys({ store, clock, ...RING })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await keys.close()
    expect(await digest()).toBe(old)
    expect(store.calls('replaceDigest')).toBe(0)
  })

  it('rewrites a digest once, by compare-and-swap, and the key keeps working', async () => {
    const { key, apiKey, store, clock, digest, old } = await issueBefore()
    const { keys, eventsOf } = createTestKeys({ store, clock, ...RING, upgradeDigests: true })
    await Promise.all(Array.from({ length: 5 }, () => keys.verify(key)))
    await settle()
    for (let i = 0; i < 3; i++) {
      expect(await keys.verify(key)).toMatchObject({ ok: true, apiKey: { version: 1 } })
      await clock.advance(5_000)
    }
    await keys.close()
    const next = await digest()
    expect(next).toMatch(/^\$hmac-sha256\$p1\$/)
    expect(store.argumentsOf('replaceDigest')).toEqual([[apiKey.id, old, next]])
    expect(eventsOf('digest.upgraded')).toMatchObject([{ keyId: apiKey.id, owner: ALICE }])
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    const after = createTestKeys({ store, clock, ...RING })
    expect(await after.keys.verify(key)).toMatchObject({ ok: true })
    expect(await after.keys.verify(wrong)).toMatchObject({ reason: 'wrong_secret' })
  })

  it('does not happen for a key that is refused', async () => {
    const { key, apiKey, store, clock, before } = await issueBefore()
    const { keys } = createTestKeys({ store, clock, ...RING, upgradeDigests: true })
    await keys.verify(forgeKey(key, { secret: 'x'.repeat(43) }))
    await keys.verify(key, { permissions: { projects: ['read'] } })
    await before.keys.revoke(apiKey.id)
    await clock.advance(5_000)
    await keys.verify(key)
    await keys.close()
    expect(store.calls('replaceDigest')).toBe(0)
  })

  it('harms nothing when it fails, and is tried again', async () => {
    const { key, store, clock, digest, old } = await issueBefore()
    const { keys, eventsOf } = createTestKeys({ store, clock, ...RING, upgradeDigests: true })
    for (const fault of [rejects(new Error('read only')), throws(new Error('read only')), answers('yes')]) {
      store.fail('replaceDigest', fault)
      // With every new copy of the record, that is, and not with every request.
      await clock.advance(5_000)
      expect(await keys.verify(key)).toMatchObject({ ok: true })
      expect(await keys.verify(key)).toMatchObject({ ok: true })
      await settle()
      expect(await digest()).toBe(old)
    }
    expect(eventsOf('fault').filter(({ operation }) => operation === 'digest_upgrade')).toHaveLength(3)
    store.fail('replaceDigest', answers(false))
    await clock.advance(5_000)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await settle()
    store.heal()
    await clock.advance(5_000)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await keys.close()
    expect(await digest()).toMatch(/^\$hmac-sha256\$/)
    expect(eventsOf('digest.upgraded')).toHaveLength(1)
  })

  it('that is confirmed late does not bring a purged key back in place of another with its id', async () => {
    const store = recordingStore()
    const { keys } = createTestKeys({ store, ...RING, upgradeDigests: true, digest: 'sha256' })
    const id = 'givenIdOfTwoKeys'
    const { key } = await keys.issue({ ...NAME, id })
    const upgrading = createTestKeys({ store, ...RING, upgradeDigests: true })
    const held = store.hold('replaceDigest')
    expect(await upgrading.keys.verify(key)).toMatchObject({ ok: true })
    await held.reached
    await upgrading.keys.revoke(id)
    await upgrading.keys.purge({ ids: [id] })
    const other = await upgrading.keys.issue({ ...NAME, owner: { type: 'user', id: 'u_bob' }, id })
    expect(await upgrading.keys.verify(other.key)).toMatchObject({ ok: true })
    held.release()
    await settle()
    expect(await upgrading.keys.verify(key)).toMatchObject({ reason: 'wrong_secret' })
    expect(await upgrading.keys.verify(other.key)).toMatchObject({ ok: true })
  })

  it('makes a key unavailable, not bad, to a process that does not know the pepper yet', async () => {
    const { key, store, clock, before } = await issueBefore()
    const { keys } = createTestKeys({ store, clock, ...RING, upgradeDigests: true })
    await keys.verify(key)
    await keys.close()
    await expect(before.keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(before.eventsOf('fault')).toMatchObject([{ operation: 'store' }])
  })

  it('goes from an older pepper to the current one', async () => {
    const store = recordingStore()
    const clock = fakeClock()
    const older = createTestKeys({ store, clock, ...RING })
    const { key, apiKey } = await older.keys.issue(NAME)
    const peppers = [{ id: 'p2', secret: 'another pepper of at least thirty-two bytes' }, PEPPER]
    const { keys } = createTestKeys({ store, clock, peppers, upgradeDigests: true })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    await keys.close()
    expect((await store.find({ id: apiKey.id }))?.digest).toMatch(/^\$hmac-sha256\$p2\$/)
  })
})

describe('what a caller is given', () => {
  it('is frozen, and mutating its dates does not change verification', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 60_000) })
    const result = await keys.verify(key)
    const apiKey = result.ok ? result.apiKey : undefined
    expect(Object.isFrozen(apiKey) && Object.isFrozen(apiKey?.owner)).toBe(true)
    apiKey?.expiresAt?.setTime(0)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    apiKey?.expiresAt?.setTime(clock.now() + 1e9)
    await clock.advance(60_000)
    expect(await keys.verify(key)).toMatchObject({ reason: 'expired' })
  })

  it('refills its quota when that is due, whatever becomes of the date that it shows', async () => {
    const { keys, clock } = createTestKeys()
    const quota = { remaining: 1, refill: { amount: 1, everyMs: 86_400_000 } }
    const { key } = await keys.issue({ ...NAME, quota })
    const first = await keys.verify(key)
    const nextRefillAt = first.ok ? first.apiKey.quota?.nextRefillAt : null
    expect(nextRefillAt).toEqual(new Date(clock.now() + 86_400_000))
    nextRefillAt?.setTime(0)
    expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded' })
    nextRefillAt?.setTime(clock.now() + 1e9)
    await clock.advance(86_400_000)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('is shown with limits of its own: what is done to them is seen nowhere else', async () => {
    const { keys } = createTestKeys({ revocation: 'bounded' })
    const { key } = await keys.issue(NAME)
    const result = await keys.verify(key)
    if (result.ok) Reflect.set(result.limits, 0, 'mine')
    expect(await keys.verify(key)).toMatchObject({ ok: true, limits: [] })
  })

  it('has neither lookup nor digest', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const result = await keys.verify(key)
    expect(JSON.stringify(result)).not.toMatch(/digest|lookup|sha256/)
  })
})

describe('options of verify', () => {
  it('are refused by name where they are wrong', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const wrong: [unknown, RegExp][] = [
      [{ permissions: 'read' }, /"permissions"/],
      [{ permissions: [] }, /"permissions"/],
      [{ permissions: { projects: [] } }, /"permissions\.projects"/],
      [{ permissions: { projects: 'read' } }, /"permissions\.projects"/],
      [{ permissions: () => ({ projects: ['read'] }) }, /"permissions"/],
      [{ ip: '' }, /"ip"/],
      [{ ip: 7 }, /"ip"/],
      [{ prefix: '' }, /"prefix" must be a prefix or a non-empty array of prefixes/],
      [{ prefix: [] }, /"prefix" must be a prefix or a non-empty array of prefixes/],
      [{ prefix: [1] }, /"prefix"/],
      [{ prefix: ['acme', ''] }, /"prefix"/],
      [{ cots: 1 }, /"options" has no option "cots"; did you mean "cost"/],
      [null, /"options" must be an object/],
      ['cost', /"options" must be an object/],
    ]
    for (const [options, message] of wrong) {
      await expect(keys.verify(key, options as VerifyOptions)).rejects.toThrow(message)
      await expect(keys.verify(key, options as VerifyOptions)).rejects.toBeInstanceOf(TypeError)
    }
  })

  it('may be undefined, each and all', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const nothing = { permissions: undefined, cost: undefined, ip: undefined, prefix: undefined }
    expect(await keys.verify(key, nothing)).toMatchObject({ ok: true })
    expect(await keys.verify(key, undefined)).toMatchObject({ ok: true })
  })
})

describe('after close()', () => {
  it('every verification is unavailable, and the store is not asked', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await keys.issue(NAME)
    await keys.verify(key)
    await keys.close()
    await keys.close()
    store.forgetCalls()
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(() => keys.verifyEager(key)).toThrow(expect.objectContaining({ code: 'unavailable' }))
    expect(store.calls()).toBe(0)
  })
})

describe('key material', () => {
  it('is in no event and no error of a whole session', async () => {
    const store = recordingStore()
    const said: unknown[] = []
    const options = { store, peppers: [PEPPER], upgradeDigests: true, rateLimits: [MINUTE] }
    const before = createTestKeys({ store })
    const { keys, events, clock } = createTestKeys(options)
    const note = async (work: Promise<unknown>) => said.push(await work.catch((error) => error))
    const secrets: string[] = [PEPPER.secret]

    const old = await before.keys.issue(NAME)
    const issued = await keys.issue({ ...NAME, quota: { remaining: 2 }, idleExpiryMs: 60_000 })
    for (const { key } of [old, issued]) {
      await note(keys.verify(key))
      await note(keys.verify(key, { ip: '192.0.2.1' }))
      await note(keys.verify(key, { permissions: { projects: ['read'] } }))
      for (let i = 0; i < 3; i++) await note(keys.verify(key))
      await note(keys.verify(forgeKey(key, { secret: partsOf(key).secret.toUpperCase() })))
      await note(keys.verify(forgeKey(key, { keyId: 'A'.repeat(16) })))
      await note(keys.verify(`${key}?`))
      await note(keys.verify(key, { prefix: 'other' }))
    }
    const rotated = await keys.rotate(issued.apiKey.id, { by: 'admin' })
    await note(keys.verify(rotated.key))
    await note(keys.rotate(issued.apiKey.id))
    await note(keys.update(rotated.apiKey.id, { allowedIps: ['10.0.0.1'] }))
    await note(keys.verify(rotated.key, { ip: '192.0.2.1' }))
    await note(keys.get(rotated.key.slice(0, 255)))
    await note(keys.revoke(rotated.key))
    await note(keys.disable(rotated.apiKey.id))
    await note(keys.verify(rotated.key))
    await note(keys.enable(rotated.apiKey.id))
    for (const record of await store.list({}, { limit: 100 })) {
      const body = record.digest.split('$').at(-1) as string
      secrets.push(body)
      store.fail('find', answers({ ...record, version: 'one' }))
      await clock.advance(6_000)
      for (const { key } of [old, issued, rotated]) await note(keys.verify(key))
      store.fail('find', answers({ ...record, digest: `$other$${body}` }))
      for (const { key } of [old, issued, rotated]) await note(keys.verify(key))
      store.heal()
    }
    await note(keys.revokeOwner(ALICE, { reason: 'left' }))
    await note(keys.verify(old.key))
    await note(keys.purge({ endedBefore: new Date(clock.now() + 1) }))
    await note(keys.close())
    await note(keys.verify(old.key))
    for (const { key } of [old, issued, rotated]) secrets.push(partsOf(key).secret, key.slice(-6))

    const everything: (ApiKeyEvent | unknown)[] = [...events, ...before.events, ...said]
    expect(new Set(events.map(({ type }) => type)).size).toBeGreaterThan(9)
    const text = inspect(everything, {
      depth: Number.POSITIVE_INFINITY,
      showHidden: true,
      maxArrayLength: null,
    })
    expect(text).toContain(issued.apiKey.id)
    for (const secret of secrets) expect(text.includes(secret), 'holds key material').toBe(false)
  })
})

describe('a listener of events', () => {
  for (const [title, onEvent] of Object.entries({
    throws: () => {
      throw new Error('listener')
    },
    rejects: () => Promise.reject(new Error('listener')),
  })) {
    it(`that ${title} breaks no verification`, async () => {
      const { keys } = createTestKeys({ onEvent })
      const { key, apiKey } = await keys.issue(NAME)
      expect(await keys.verify(`${key}?`)).toMatchObject({ reason: 'malformed' })
      await keys.revoke(apiKey.id)
      expect(await keys.verify(key)).toMatchObject({ reason: 'revoked' })
    })
  }
})

describe('a text with the id of a key in memory', () => {
  /** As long as a native key, with its id in the same place, but in another shape. */
  const misshape = (key: string) => key.replaceAll('_', '-')

  it('is malformed if it has not the shape of a key', async () => {
    const { keys, eventsOf } = createTestKeys()
    const { key } = await keys.issue(NAME)
    await keys.verify(key)
    expect(await keys.verify(misshape(key))).toEqual({ ok: false, code: 'invalid_key', reason: 'malformed' })
    expect(eventsOf('key.refused')).toMatchObject([{ reason: 'malformed', keyId: null }])
  })

  it('may be an imported key', async () => {
    const { keys } = createTestKeys({ formats: [plainTextFormat({ shape: /^[a-z]+-/ })] })
    const { key, apiKey } = await keys.issue(NAME)
    const imported = misshape(key)
    const legacy = await keys.import({ ...NAME, name: 'legacy', key: imported, format: 'plain-text' })
    await keys.verify(key)
    expect(await keys.verify(imported)).toMatchObject({ ok: true, apiKey: { id: legacy.id } })
    expect(await keys.verify(key)).toMatchObject({ ok: true, apiKey: { id: apiKey.id } })
  })

  it('is refused for its prefix before its secret is', async () => {
    const { keys, eventsOf } = createTestKeys()
    const { key } = await keys.issue(NAME)
    await keys.verify(key)
    const wrong = forgeKey(key, { secret: '0'.repeat(43) })
    for (const text of [key, wrong]) {
      expect(await keys.verify(text, { prefix: 'other' })).toMatchObject({ reason: 'prefix_not_accepted' })
    }
    expect(await keys.verify(wrong)).toMatchObject({ reason: 'wrong_secret' })
    expect(eventsOf('key.refused').map(({ reason }) => reason)).toEqual([
      'prefix_not_accepted',
      'prefix_not_accepted',
      'wrong_secret',
    ])
  })
})
