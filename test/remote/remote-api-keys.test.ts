import { inspect } from 'node:util'
import type { ApiKeyEvent, VerifyResult } from 'latchkey'
import {
  ApiKeysClientError,
  createApiKeysClient,
  type Verification,
  type VerifyKeyRequest,
} from 'latchkey/client'
import { betterAuthFormat } from 'latchkey/import'
import { type RemoteApiKeys, type RemoteApiKeysOptions, remoteApiKeys } from 'latchkey/remote'
import { describe, expect, it } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { createWorld } from '../support/management-world.ts'
import { ALICE, createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const READ = { projects: ['read'] }
const MINUTE = { name: 'minute', limit: 3, windowMs: 60_000 }

/**
 * Keys, and a verifier that asks about them through a client that a test can hold up, break, and make tell anything. What it
 * answers is what `POST /verify` does.
 */
function createService(options: RemoteApiKeysOptions = {}, settings = {}) {
  const clock = fakeClock()
  const service = createTestKeys({ clock, ...settings })
  const asked: VerifyKeyRequest[] = []
  const events: ApiKeyEvent[] = []
  let answer = tell
  const client = {
    verify(request: VerifyKeyRequest): Promise<Verification> {
      asked.push(request)
      return answer(request)
    },
  }
  const remote = remoteApiKeys(client, { clock, onEvent: (event) => void events.push(event), ...options })

  async function tell({ key, charge, cost = 1, ...rest }: VerifyKeyRequest): Promise<Verification> {
    const result = await service.keys.verify(key, { ...rest, cost: charge ? cost : 0 })
    return toVerification(result)
  }

  return {
    ...service,
    remote,
    asked,
    seen: events,
    tell,
    answer(with_: (request: VerifyKeyRequest) => Promise<Verification>) {
      answer = with_
    },
  }
}

function toVerification(result: VerifyResult): Verification {
  if (result.ok) return { active: true, apiKey: result.apiKey, limits: result.limits }
  switch (result.code) {
    case 'invalid_key':
      return { active: false }
    case 'too_many_failures':
      return { active: false, refused: { code: result.code, retryAfterMs: result.retryAfterMs } }
    case 'address_not_allowed':
      return { active: true, apiKey: result.apiKey, limits: [], refused: { code: result.code } }
    case 'insufficient_permissions':
      return {
        active: true,
        apiKey: result.apiKey,
        limits: [],
        refused: { code: result.code, missing: result.missing },
      }
    default: {
      const { code, apiKey, limits, retryAfterMs } = result
      const exceeded = limits.filter((limit) => limit.exceeded).map(({ name }) => name)
      const shown = apiKey === undefined ? {} : { apiKey }
      return { active: true, ...shown, limits, refused: { code, retryAfterMs, exceeded } }
    }
  }
}

const codeOf = (result: VerifyResult) => (result.ok ? 'ok' : result.code)

/** What `verify` failed with. */
async function failureOf(verified: Promise<VerifyResult>): Promise<unknown> {
  return verified.then(
    (result) => ({ admitted: codeOf(result) }),
    (error: unknown) => error,
  )
}

const unavailable = expect.objectContaining({ name: 'LatchkeyError', code: 'unavailable', status: 503 })

/** Holds back what the service says from now on, as it said it; the function that it returns lets go. */
function holdAnswers(service: Pick<ReturnType<typeof createService>, 'answer' | 'tell'>): () => void {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  service.answer(async (request) => {
    const said = await service.tell(request)
    await released
    return said
  })
  return release
}

describe('a key that needs no question', () => {
  it.each([
    ['is empty', ''],
    ['is of no shape', 'sk_live_51Habc'],
    ['is a JWT', 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln'],
    ['is longer than any', 'x'.repeat(100_000)],
    ['is no text', 42 as never],
    ['is nothing', undefined as never],
  ])('is refused without asking when it %s', async (_what, key) => {
    const { remote, asked, seen } = createService()
    expect(await remote.verify(key)).toEqual({ ok: false, code: 'invalid_key', reason: 'malformed' })
    expect(asked).toEqual([])
    expect(seen).toMatchObject([{ type: 'key.refused', code: 'invalid_key', reason: 'malformed' }])
  })

  it('is refused without asking when its checksum is wrong, or its prefix is not accepted', async () => {
    const { keys, remote, asked } = createService()
    const { key } = await keys.issue(NAME)
    const wrong = key.slice(0, -1) + (key.endsWith('a') ? 'b' : 'a')
    expect(await remote.verify(wrong)).toMatchObject({ reason: 'malformed' })
    expect(await remote.verify(key, { prefix: ['other', 'more'] })).toMatchObject({
      code: 'invalid_key',
      reason: 'prefix_not_accepted',
    })
    expect(asked).toEqual([])
    expect(codeOf(await remote.verify(key, { prefix: ['other', 'acme_test'] }))).toBe('ok')
  })

  it('throws a TypeError for options that are wrong, as local keys do', async () => {
    const { keys, remote } = createService()
    const { key } = await keys.issue(NAME)
    await expect(remote.verify(key, { cost: -1 })).rejects.toThrow(TypeError)
    await expect(remote.verify(key, { permission: READ } as never)).rejects.toThrow(/did you mean/)
  })
})

describe('a service that does not answer well', () => {
  const failures: readonly (readonly [string, () => Promise<unknown>])[] = [
    ['cannot be reached', () => Promise.reject(new ApiKeysClientError('unavailable'))],
    [
      'refuses the key of this program',
      () => Promise.reject(new ApiKeysClientError('invalid_key', { responseStatus: 401 })),
    ],
    [
      'has been asked too often',
      () => Promise.reject(new ApiKeysClientError('too_many_requests', { responseStatus: 429 })),
    ],
    ['makes the client throw', () => Promise.reject(new TypeError('fetch is not a function'))],
    ['answers nothing', () => Promise.resolve(undefined)],
    ['answers null', () => Promise.resolve(null)],
    ['says that a key is good and not which', () => Promise.resolve({ active: true, limits: [] })],
    ['says so of a refused one', () => Promise.resolve({ active: true, refused: { code: 'rate_limited' } })],
  ]

  it.each(failures)(
    'is unavailable when it %s: the key is neither refused nor admitted',
    async (_w, answer) => {
      const { keys, remote, seen, ...service } = createService()
      const { key } = await keys.issue(NAME)
      service.answer(answer as never)
      expect(await failureOf(remote.verify(key))).toEqual(unavailable)
      expect(seen).toMatchObject([{ type: 'fault', operation: 'remote' }])
      service.answer(service.tell)
      expect(codeOf(await remote.verify(key))).toBe('ok')
    },
  )

  it('is unavailable when a client throws at once', async () => {
    const remote = remoteApiKeys({
      verify: () => {
        throw new Error('no client')
      },
    })
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    expect(await failureOf(remote.verify(key))).toEqual(unavailable)
  })

  it('does not take what is said of another key', async () => {
    const { keys, remote, tell, ...service } = createService()
    const mine = await keys.issue(NAME)
    const other = await keys.issue(NAME)
    service.answer(() => tell({ key: other.key }))
    expect(await failureOf(remote.verify(mine.key))).toEqual(unavailable)
  })

  it.each([
    ['revoked', { revokedAt: new Date(0) }],
    ['disabled', { enabled: false }],
    ['expired', { expiresAt: new Date(0) }],
  ])('does not admit a key that is shown as %s', async (reason, members) => {
    const { keys, remote, seen, ...service } = createService()
    const { key, apiKey } = await keys.issue(NAME)
    service.answer(async () => ({ active: true, apiKey: { ...apiKey, ...members }, limits: [] }))
    expect(await remote.verify(key)).toEqual({ ok: false, code: 'invalid_key', reason })
    expect(seen).toMatchObject([{ reason, keyId: apiKey.id, owner: ALICE }])
  })

  it('uses what it knows for as long as it would anyhow, and nothing afterwards', async () => {
    const { keys, remote, clock, ...service } = createService({ cacheMs: 1_000 })
    const { key } = await keys.issue(NAME)
    await remote.verify(key)
    service.answer(() => Promise.reject(new Error('away')))
    await clock.advance(999)
    expect(codeOf(await remote.verify(key))).toBe('ok')
    await clock.advance(1)
    expect(await failureOf(remote.verify(key))).toEqual(unavailable)
  })

  it('holds up no more than maxPending questions, and answers what it knows meanwhile', async () => {
    const { keys, remote, asked, ...service } = createService({ maxPending: 2 })
    const issued = await Promise.all([1, 2, 3, 4].map(() => keys.issue(NAME)))
    const [known, ...others] = issued.map(({ key }) => key) as [string, string, string, string]
    await remote.verify(known)
    const release = holdAnswers(service)
    const waiting = [remote.verify(others[0]), remote.verify(others[1])]
    expect(await failureOf(remote.verify(others[2]))).toEqual(unavailable)
    expect(codeOf(await remote.verify(known))).toBe('ok')
    expect(asked).toHaveLength(3)
    release()
    expect((await Promise.all(waiting)).map(codeOf)).toEqual(['ok', 'ok'])
    expect(codeOf(await remote.verify(others[2]))).toBe('ok')
  })
})

describe('the bound of an answer', () => {
  it('refuses a revoked key once the answer is as old as cacheMs', async () => {
    const { keys, remote, clock, asked } = createService({ cacheMs: 1_000 })
    const { key, apiKey } = await keys.issue(NAME)
    await remote.verify(key)
    await keys.revoke(apiKey.id)
    await clock.advance(1_000)
    expect(await remote.verify(key)).toEqual({ ok: false, code: 'invalid_key', reason: 'inactive' })
    expect(asked).toHaveLength(2)
  })

  it('counts from when the service was asked, however late it answers', async () => {
    const { keys, remote, clock, ...service } = createService({ cacheMs: 1_000 })
    const { key } = await keys.issue(NAME)
    const release = holdAnswers(service)
    const first = remote.verify(key)
    await clock.advance(900)
    release()
    expect(codeOf(await first)).toBe('ok')
    await clock.advance(99)
    expect(codeOf(await remote.verify(key))).toBe('ok')
    expect(service.asked).toHaveLength(1)
    await clock.advance(1)
    await remote.verify(key)
    expect(service.asked).toHaveLength(2)
  })

  it('is over when the clock was set back', async () => {
    const { keys, remote, clock, asked } = createService()
    const { key } = await keys.issue(NAME)
    await remote.verify(key)
    clock.set(clock.now() - 1)
    await remote.verify(key)
    expect(asked).toHaveLength(2)
  })

  it('begins anew after the clock was set back', async () => {
    const { keys, remote, clock, asked } = createService()
    const { key } = await keys.issue(NAME)
    await remote.verify(key)
    clock.set(clock.now() - 3_600_000)
    for (let i = 0; i < 3; i++) expect(codeOf(await remote.verify(key))).toBe('ok')
    expect(asked).toHaveLength(2)
  })

  it('is half the time in which the key becomes idle, where that is less: it is in use', async () => {
    const { keys, remote, clock } = createService({ cacheMs: 300_000 }, { usage: { flushMs: 1_000 } })
    const { key } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    for (let i = 0; i < 60; i++) {
      expect(codeOf(await remote.verify(key))).toBe('ok')
      await clock.advance(10_000)
    }
  })

  it('is nothing at all with cacheMs false: every request asks, also at the same moment', async () => {
    const { keys, remote, asked } = createService({ cacheMs: false })
    const { key } = await keys.issue(NAME)
    await Promise.all([remote.verify(key), remote.verify(key)])
    await remote.verify(key)
    expect(asked).toHaveLength(3)
  })

  it('is 5 seconds unless it is given', async () => {
    const { keys, remote, clock, asked } = createService()
    const { key } = await keys.issue(NAME)
    await remote.verify(key)
    await clock.advance(4_999)
    await remote.verify(key)
    expect(asked).toHaveLength(1)
    await clock.advance(1)
    await remote.verify(key)
    expect(asked).toHaveLength(2)
  })

  it('holds for bad keys too: one that is enabled again works within it', async () => {
    const { keys, remote, clock, asked } = createService({ cacheMs: 1_000 })
    const { key, apiKey } = await keys.issue(NAME)
    await keys.disable(apiKey.id)
    await remote.verify(key)
    await keys.enable(apiKey.id)
    expect(await remote.verify(key)).toMatchObject({ reason: 'inactive' })
    expect(asked).toHaveLength(1)
    await clock.advance(1_000)
    expect(codeOf(await remote.verify(key))).toBe('ok')
  })

  it('ends when all answers are forgotten, for those under way too', async () => {
    const { keys, remote, ...service } = createService()
    const { key, apiKey } = await keys.issue(NAME)
    const release = holdAnswers(service)
    const early = remote.verify(key)
    await keys.revoke(apiKey.id)
    remote.clear()
    service.answer(service.tell)
    expect(await remote.verify(key)).toMatchObject({ reason: 'inactive' })
    release()
    await early
    expect(await remote.verify(key)).toMatchObject({ reason: 'inactive' })
  })

  it('keeps what was asked for later, whichever answer comes last', async () => {
    const { keys, remote, clock, ...service } = createService({ charge: true })
    const { key, apiKey } = await keys.issue(NAME)
    const release = holdAnswers(service)
    const early = remote.verify(key)
    await clock.advance(10)
    await keys.revoke(apiKey.id)
    service.answer(service.tell)
    await remote.verify(key)
    release()
    await early
    expect(await remote.verify(key, { cost: 0 })).toMatchObject({ reason: 'inactive' })
    expect(service.asked).toHaveLength(2)
  })

  it('does not outlast the expiry of the key', async () => {
    const { keys, remote, clock } = createService()
    const { key } = await keys.issue({ ...NAME, expiresAt: new Date(clock.now() + 1_000) })
    const result = await remote.verify(key)
    // What an application does to a date changes nothing.
    if (result.ok) result.apiKey.expiresAt?.setTime(Number.MAX_SAFE_INTEGER)
    await clock.advance(999)
    expect(codeOf(await remote.verify(key))).toBe('ok')
    await clock.advance(1)
    expect(await remote.verify(key)).toMatchObject({ reason: 'expired' })
  })

  it('is not shortened by a flood of bad keys', async () => {
    const { keys, remote, asked } = createService({ maxEntries: 2 })
    const { key } = await keys.issue(NAME)
    await remote.verify(key)
    for (let i = 0; i < 20; i++) {
      await remote.verify(forgeKey(key, { secret: String(i).padStart(43, 'x') }))
    }
    expect(asked).toHaveLength(21)
    expect(codeOf(await remote.verify(key))).toBe('ok')
    expect(asked).toHaveLength(21)
  })
})

describe('a key that is known', () => {
  it('is decided at once, without a promise', async () => {
    const { keys, remote } = createService()
    const { key, apiKey } = await keys.issue(NAME)
    await remote.verify(key)
    expect(remote.verifyEager(key)).toEqual({ ok: true, apiKey, limits: [] })
  })

  it('is held up to what each route asks of it', async () => {
    const { keys, remote, asked } = createService()
    const { key, apiKey } = await keys.issue({ ...NAME, permissions: READ })
    await remote.verify(key)
    expect(await remote.verify(key, { permissions: { projects: ['write'] } })).toEqual({
      ok: false,
      code: 'insufficient_permissions',
      apiKey,
      missing: { projects: ['write'] },
    })
    expect(codeOf(await remote.verify(key, { permissions: READ }))).toBe('ok')
    expect(await remote.verify(key, { prefix: 'other' })).toMatchObject({ reason: 'prefix_not_accepted' })
    expect(asked).toHaveLength(1)
  })

  it('is refused from an address that it may not be used from, and passes from another', async () => {
    const { keys, remote, asked, seen } = createService()
    const { key, apiKey } = await keys.issue({ ...NAME, allowedIps: ['192.0.2.0/24'] })
    for (const ip of ['198.51.100.1', undefined, 'unknown', 'fe80::1%a\r\nb']) {
      const result = await remote.verify(key, ip === undefined ? {} : { ip })
      expect(result, String(ip)).toEqual({ ok: false, code: 'address_not_allowed', apiKey })
    }
    expect(codeOf(await remote.verify(key, { ip: '192.0.2.7' }))).toBe('ok')
    expect(codeOf(await remote.verify(key, { ip: '::ffff:192.0.2.7' }))).toBe('ok')
    expect(asked).toEqual([{ key, ip: '198.51.100.1' }])
    expect(seen[0]).toMatchObject({ code: 'address_not_allowed', keyId: apiKey.id, ip: '198.51.100.1' })
  })

  it('is asked about without an address that is none', async () => {
    const { keys, remote, asked } = createService({ cacheMs: false })
    const { key } = await keys.issue(NAME)
    for (const ip of ['unknown', '::1%a b', 'x'.repeat(255)]) await remote.verify(key, { ip })
    expect(asked).toEqual([{ key }, { key }, { key }])
  })

  it('is not in anything that can be looked at, nor is it shown by an event', async () => {
    const { keys, remote, seen, ...service } = createService()
    const { key } = await keys.issue(NAME)
    await remote.verify(key)
    await remote.verify(forgeKey(key, { secret: 'x'.repeat(43) }))
    service.answer(() => Promise.reject(new Error('away')))
    remote.clear()
    const error = await failureOf(remote.verify(key))
    const texts = inspect([remote, seen, error], { depth: 20, showHidden: true })
    expect(texts).not.toContain(key.slice(-49))
  })
})

describe('many who ask at once', () => {
  it('share one question about a key', async () => {
    const { keys, remote, asked } = createService()
    const { key } = await keys.issue(NAME)
    const results = await Promise.all(Array.from({ length: 200 }, () => remote.verify(key)))
    expect(new Set(results.map(codeOf))).toEqual(new Set(['ok']))
    expect(asked).toHaveLength(1)
  })

  it('share its failure, which nobody remembers', async () => {
    const { keys, remote, asked, ...service } = createService()
    const { key } = await keys.issue(NAME)
    service.answer(() => Promise.reject(new Error('away')))
    const failures = await Promise.all([1, 2, 3].map(() => failureOf(remote.verify(key))))
    expect(failures).toEqual([unavailable, unavailable, unavailable])
    expect(asked).toHaveLength(1)
    service.answer(service.tell)
    expect(codeOf(await remote.verify(key))).toBe('ok')
  })

  it('do not wait for a question that is older than an answer may be', async () => {
    const { keys, remote, clock, ...service } = createService({ cacheMs: 1_000 })
    const { key, apiKey } = await keys.issue(NAME)
    const release = holdAnswers(service)
    const early = remote.verify(key)
    await keys.revoke(apiKey.id)
    await clock.advance(1_000)
    service.answer(service.tell)
    expect(await remote.verify(key)).toMatchObject({ reason: 'inactive' })
    release()
    await early
    expect(await remote.verify(key)).toMatchObject({ reason: 'inactive' })
  })

  it('share it also where each comes from an address of its own', async () => {
    const { keys, remote, asked } = createService({ maxPending: 2 })
    const { key } = await keys.issue({ ...NAME, allowedIps: ['192.0.2.0/25'] })
    const results = await Promise.all(
      Array.from({ length: 200 }, (_, i) => remote.verify(key, { ip: `192.0.2.${i}` })),
    )
    expect(results.map(codeOf)).toEqual(
      Array.from({ length: 200 }, (_, i) => (i < 128 ? 'ok' : 'address_not_allowed')),
    )
    expect(asked).toHaveLength(1)
  })

  it('ask for themselves where what is said is said of an address', async () => {
    const { keys, remote, ...service } = createService()
    const { key } = await keys.issue(NAME)
    service.answer(async (request) =>
      request.ip === '192.0.2.66'
        ? { active: false, refused: { code: 'too_many_failures', retryAfterMs: 7_000 } }
        : service.tell(request),
    )
    const results = await Promise.all([
      remote.verify(key, { ip: '192.0.2.66' }),
      remote.verify(key, { ip: '192.0.2.1' }),
    ])
    expect(results[0]).toEqual({ ok: false, code: 'too_many_failures', retryAfterMs: 7_000 })
    expect(results.map(codeOf)).toEqual(['too_many_failures', 'ok'])
  })
})

describe('guessing', () => {
  const options = { failedAttempts: { limit: 3, windowMs: 60_000 } }
  const flood = async (remote: RemoteApiKeys, key: string, ip: string) => {
    for (let i = 0; i < 3; i++) {
      await remote.verify(forgeKey(key, { secret: String(i).padStart(43, 'x') }), { ip })
    }
    // Nobody waits for the counting.
    await settle()
  }

  it('ends here before the service is asked, for the address that guesses', async () => {
    const { keys, remote, asked, seen } = createService(options)
    const { key } = await keys.issue(NAME)
    const unseen = await keys.issue(NAME)
    await flood(remote, key, '192.0.2.66')
    expect(await remote.verify(unseen.key, { ip: '192.0.2.66' })).toEqual({
      ok: false,
      code: 'too_many_failures',
      retryAfterMs: 60_000,
    })
    expect(asked).toHaveLength(3)
    expect(seen).toContainEqual(expect.objectContaining({ type: 'address.blocked', address: '192.0.2.66' }))
    expect(codeOf(await remote.verify(unseen.key, { ip: '192.0.2.1' }))).toBe('ok')
  })

  it('does not shut out a good key behind the same address, also when its answer has aged', async () => {
    const { keys, remote, clock } = createService(options)
    const { key } = await keys.issue(NAME)
    await remote.verify(key, { ip: '192.0.2.66' })
    await flood(remote, key, '192.0.2.66')
    expect(codeOf(await remote.verify(key, { ip: '192.0.2.66' }))).toBe('ok')
    await clock.advance(6_000)
    expect(codeOf(await remote.verify(key, { ip: '192.0.2.66' }))).toBe('ok')
  })

  it('is answered as over local keys: known bad keys of a blocked address are not told of either', async () => {
    const { keys, remote } = createService(options)
    const local = createTestKeys(options).keys
    const { key } = await keys.issue(NAME)
    const bad = forgeKey(key, { keyId: 'x'.repeat(16) })
    const codes: string[] = []
    const expected: string[] = []
    for (let i = 0; i < 6; i++) {
      codes.push(codeOf(await remote.verify(bad, { ip: '192.0.2.66' })))
      expected.push(codeOf(await local.verify(bad, { ip: '192.0.2.66' })))
      await settle()
    }
    expect(codes).toEqual(expected)
    expect(new Set(codes)).toEqual(new Set(['invalid_key', 'too_many_failures']))
  })

  it('is counted here also where the service tells nothing any more', async () => {
    const { keys, remote, asked, seen, ...service } = createService(options)
    const { key } = await keys.issue(NAME)
    service.answer(async () => ({
      active: false,
      refused: { code: 'too_many_failures', retryAfterMs: 7_000 },
    }))
    await flood(remote, key, '192.0.2.66')
    expect(seen).toContainEqual(expect.objectContaining({ type: 'address.blocked', address: '192.0.2.66' }))
    expect(await remote.verify(key, { ip: '192.0.2.66' })).toMatchObject({ retryAfterMs: 60_000 })
    expect(asked).toHaveLength(3)
  })

  it('passes on that the service has blocked an address, and remembers nothing of the key', async () => {
    const { keys, remote, asked } = createService({}, options)
    const { key } = await keys.issue(NAME)
    const guessed = await keys.issue(NAME)
    await flood(remote, guessed.key, '192.0.2.66')
    expect(codeOf(await remote.verify(key, { ip: '192.0.2.66' }))).toBe('too_many_failures')
    expect(asked).toHaveLength(4)
    expect(codeOf(await remote.verify(key, { ip: '192.0.2.1' }))).toBe('ok')
  })
})

describe('with charge', () => {
  it('asks for every call, with all that is asked of the key, and shows the limits', async () => {
    const { keys, remote, asked } = createService({ charge: true })
    const { key } = await keys.issue({ ...NAME, permissions: READ, rateLimits: [MINUTE] })
    const options = { permissions: READ, ip: '192.0.2.1', prefix: 'acme_test', cost: 2 }
    const result = await remote.verify(key, options)
    expect(result).toMatchObject({ ok: true, limits: [{ name: 'minute', remaining: 1 }] })
    expect(asked).toEqual([{ key, charge: true, ...options }])
    expect(await remote.verify(key)).toMatchObject({ ok: true, limits: [{ remaining: 0 }] })
    const refused = await remote.verify(key)
    expect(refused).toMatchObject({
      code: 'rate_limited',
      retryAfterMs: 60_000,
      limits: [{ name: 'minute', exceeded: true }],
      apiKey: { owner: ALICE },
    })
    expect(asked).toHaveLength(3)
  })

  it('passes a cost by the names of limits on', async () => {
    const { keys, remote, asked } = createService({ charge: true })
    const tokens = { name: 'tokens', limit: 10, windowMs: 60_000, only: 'named' } as const
    const { key } = await keys.issue({ ...NAME, rateLimits: [MINUTE, tokens] })
    expect(await remote.verify(key, { cost: { tokens: 6 } })).toMatchObject({
      limits: [{ remaining: 2 }, { name: 'tokens', remaining: 4 }],
    })
    expect(await remote.verify(key, { cost: { tokens: 5 } })).toMatchObject({ code: 'rate_limited' })
    expect(asked).toMatchObject([{ charge: true, cost: { tokens: 6 } }, {}])
    await expect(remote.verify(key, { cost: { tokens: -1 } })).rejects.toThrow('"cost.tokens" must be')
  })

  it('passes every refusal on as local keys would', async () => {
    const { keys, remote } = createService({ charge: true })
    const { key } = await keys.issue({
      ...NAME,
      permissions: READ,
      allowedIps: ['192.0.2.1'],
      quota: { remaining: 1 },
    })
    const ip = '192.0.2.1'
    const wrong = { permissions: { projects: ['write'] }, ip }
    expect(await remote.verify(key, wrong)).toEqual(await keys.verify(key, wrong))
    expect(await remote.verify(key, { ip: '192.0.2.2' })).toEqual(await keys.verify(key, { ip: '192.0.2.2' }))
    expect(codeOf(await remote.verify(key, { ip }))).toBe('ok')
    expect(await remote.verify(key, { ip })).toEqual(await keys.verify(key, { ip }))
    expect(codeOf(await remote.verify(key, { ip }))).toBe('quota_exceeded')
  })

  it('answers from the cache what costs nothing', async () => {
    const { keys, remote, asked } = createService({ charge: true })
    const { key } = await keys.issue({ ...NAME, rateLimits: [MINUTE] })
    expect(codeOf(await remote.verify(key, { cost: 0 }))).toBe('ok')
    expect(codeOf(await remote.verify(key, { cost: 0 }))).toBe('ok')
    expect(asked).toEqual([{ key }])
  })

  it('fails when the service is away, whatever is known', async () => {
    const { keys, remote, ...service } = createService({ charge: true })
    const { key } = await keys.issue({ ...NAME, rateLimits: [MINUTE] })
    await remote.verify(key)
    service.answer(() => Promise.reject(new Error('away')))
    expect(await failureOf(remote.verify(key))).toEqual(unavailable)
  })

  it('gives nothing back, and says so', async () => {
    const { keys, remote } = createService({ charge: true })
    const { key } = await keys.issue(NAME)
    const result = await remote.verify(key)
    await expect(remote.refund?.(result as never)).rejects.toMatchObject({ code: 'unsupported' })
    await expect(remote.settle?.(result as never, 5)).rejects.toMatchObject({ code: 'unsupported' })
    expect(createService().remote).not.toHaveProperty('refund')
    expect(createService().remote).not.toHaveProperty('settle')
  })

  it('spends nothing without it', async () => {
    const { keys, remote } = createService({ cacheMs: false })
    const { key } = await keys.issue({ ...NAME, rateLimits: [MINUTE] })
    for (let i = 0; i < 5; i++)
      expect(await remote.verify(key, { cost: 3 })).toMatchObject({ ok: true, limits: [] })
    expect(await keys.verify(key)).toMatchObject({ limits: [{ remaining: 2 }] })
  })
})

describe('keys of other products', () => {
  const format = betterAuthFormat()
  const foreign = 'a'.repeat(64)

  it('are asked about where their format is given, and are keys to a middleware', async () => {
    const { keys, remote, asked } = createService({ formats: [format] }, { formats: [format] })
    await keys.import({ format: format.name, key: foreign, owner: ALICE, name: 'old' })
    expect(remote.isImportedKey?.(foreign)).toBe(true)
    expect(remote.isImportedKey?.('short')).toBe(false)
    expect(codeOf(await remote.verify(foreign))).toBe('ok')
    expect(await remote.verify(foreign, { prefix: 'acme_test' })).toMatchObject({
      code: 'invalid_key',
      reason: 'prefix_not_accepted',
    })
    expect(asked).toHaveLength(1)
  })

  it('are refused without asking where it is not', async () => {
    const { remote, asked } = createService()
    expect(await remote.verify(foreign)).toMatchObject({ reason: 'malformed' })
    expect(remote.isImportedKey).toBeUndefined()
    expect(asked).toEqual([])
  })

  it('are unavailable where the format throws', async () => {
    const broken = { name: 'broken', lookup: () => fail() }
    const fail = (): string => {
      throw new Error('broken')
    }
    const { remote } = createService({ formats: [broken] })
    expect(await failureOf(remote.verify(foreign))).toEqual(unavailable)
    expect(remote.isImportedKey?.(foreign)).toBe(true)
  })
})

describe('options', () => {
  const client = { verify: async (): Promise<Verification> => ({ active: false }) }

  it.each([
    ['"client" must have a method "verify"', undefined, {}],
    ['"client" must have a method "verify"', {}, {}],
    ['has no option "cacheMS"; did you mean "cacheMs"?', client, { cacheMS: 1 }],
    ['"cacheMs" must be a positive integer or false, received 0', client, { cacheMs: 0 }],
    ['"cacheMs" must be a positive integer or false, received -1', client, { cacheMs: -1 }],
    [
      '"cacheMs" must be an integer from 1 to 86400000, or false, received NaN',
      client,
      { cacheMs: Number.NaN },
    ],
    [
      '"cacheMs" must be an integer from 1 to 86400000, or false, received Inf',
      client,
      { cacheMs: Infinity },
    ],
    ['"cacheMs" must be an integer from 1 to 86400000, or false, received null', client, { cacheMs: null }],
    ['"maxEntries" must be a positive integer', client, { maxEntries: 0 }],
    ['"maxPending" must be a positive integer', client, { maxPending: 0 }],
    ['"charge" must be true or false', client, { charge: 'yes' }],
    ['"prefix" must be 1 to 32 letters', client, { prefix: 'acme_' }],
    ['"formats" must be an array', client, { formats: {} }],
    ['"failedAttempts" must be true, false or an object', client, { failedAttempts: 3 }],
    // What reads as no is not a no.
    ['"failedAttempts" must be true, false or an object', client, { failedAttempts: null }],
    ['"rateLimiter" must have a method "check"', client, { rateLimiter: {} }],
    ['"onEvent" must be a function', client, { onEvent: [] }],
    ['"clock.now" must be a function', client, { clock: {} }],
  ])('says that %s', (message, given, options) => {
    expect(() => remoteApiKeys(given as never, options as never)).toThrow(message)
  })

  it('tell the prefix on, by which bearer tokens are recognised', () => {
    expect(remoteApiKeys(client, { prefix: 'acme' }).prefix).toBe('acme')
    expect(remoteApiKeys(client)).not.toHaveProperty('prefix')
  })
})

describe('the status of a key', () => {
  it('is active, whether or not the service says so', async () => {
    const { keys, port, clock } = await createWorld()
    const { key: own } = await keys.issue({ ...NAME, permissions: { 'api-keys': ['verify'] } })
    // By the uses that are written, which come late, it is idle.
    const { key } = await keys.issue({ ...NAME, idleExpiryMs: 60_000 })
    await clock.advance(60_000)
    for (const isEarlier of [false, true]) {
      const client = createApiKeysClient({
        baseUrl: `http://127.0.0.1:${port}/api-keys`,
        key: own,
        async fetch(url, init) {
          const answer = (await (await fetch(url, init)).json()) as { apiKey: { status?: string } }
          expect(answer.apiKey.status).toBe('active')
          if (isEarlier) delete answer.apiKey.status
          return Response.json(answer)
        },
      })
      const remote = remoteApiKeys(client)
      const [first, remembered] = [await remote.verify(key), await remote.verify(key)]
      expect([first, remembered]).toMatchObject(Array(2).fill({ ok: true, apiKey: { status: 'active' } }))
    }
  })
})
