import { createHmac } from 'node:crypto'
import { type ApiKeysOptions, LatchkeyError, memoryStore } from 'latchkey'
import { plainTextFormat } from 'latchkey/import'
import { describe, expect, it } from 'vitest'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { answers, hangs, recordingStore, rejects } from '../support/recording-store.ts'
import { createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const SECRET = 'the secret that every process has to have'
const pepper = (secret: string | Uint8Array = SECRET, id = '2026') => ({ id, secret })
const UNAVAILABLE = expect.objectContaining({ code: 'unavailable', status: 503 })
const WRONG = expect.objectContaining({ ok: false, code: 'invalid_key', reason: 'wrong_secret' })
const VALID = expect.objectContaining({ ok: true })
const NOT_MIGRATED = new LatchkeyError('not_migrated', 'a table is missing')

type Options = Partial<Omit<ApiKeysOptions, 'clock' | 'store'>>

/** Processes that share a store. */
function shareStore() {
  const clock = fakeClock()
  const inner = memoryStore()
  // Counts of use would agree on something too.
  const usage = { keepDays: 0 }
  const start = (options: Options = {}) =>
    createTestKeys({ clock, store: recordingStore(inner), peppers: [pepper()], usage, ...options })
  return { clock, inner, start }
}

type Process = ReturnType<ReturnType<typeof shareStore>['start']>

const driftsOf = ({ eventsOf }: Process) =>
  eventsOf('fault').filter(({ error }) => (error as { code?: string }).code === 'configuration_drift')

/** Keys of 0.2: records in a store that has no agreements. */
async function issueBeforeAgreements(inner: ReturnType<typeof memoryStore>) {
  const { agree: _agree, ...old } = inner
  const { keys } = createTestKeys({
    store: old as ReturnType<typeof recordingStore>,
    peppers: [pepper()],
  })
  return keys.issue(NAME)
}

describe('a process that has another secret under the id of a pepper', () => {
  it.each<[string, string | Uint8Array]>([
    ['another text', 'another secret, which is as long as that'],
    ['a newline behind it', `${SECRET}\n`],
    ['a carriage return behind it', `${SECRET}\r`],
    ['a byte order mark before it', `\ufeff${SECRET}`],
    ['the base64 of it', Buffer.from(SECRET).toString('base64')],
    ['the bytes that its hex stands for', Buffer.from('ab'.repeat(32), 'hex')],
  ])('as %s: answers 503, tells of the pepper, and counts no failed attempt', async (_what, secret) => {
    const { start } = shareStore()
    const { key } = await start().keys.issue(NAME)
    const drifted = start({ peppers: [pepper(secret)], failedAttempts: { limit: 2 } })
    for (let i = 0; i < 5; i++) {
      await expect(drifted.keys.verify(key, { ip: '192.0.2.1' })).rejects.toEqual(UNAVAILABLE)
    }
    await settle()
    expect(drifted.eventsOf('address.blocked')).toEqual([])
    expect(drifted.eventsOf('key.refused')).toEqual([])
    expect(driftsOf(drifted)).toHaveLength(5)
    const [{ operation, error }] = driftsOf(drifted) as [ReturnType<typeof driftsOf>[0]]
    expect(operation).toBe('digest')
    expect(String(error)).toContain('the pepper "2026"')
    expect(JSON.stringify(drifted.events) + String(error)).not.toContain(
      Buffer.from(secret).toString().trim(),
    )
  })

  it('issues, rotates and imports no key, and stores nothing', async () => {
    const { start } = shareStore()
    const good = start()
    const { apiKey } = await good.keys.issue(NAME)
    const drifted = start({
      peppers: [pepper(`${SECRET}\n`)],
      formats: [plainTextFormat()],
    })
    const imported = { format: 'plain-text', key: 'k3v9-of-another-product-0123456789', ...NAME }
    for (const work of [
      () => drifted.keys.issue(NAME),
      () => drifted.keys.rotate(apiKey.id),
      () => drifted.keys.import(imported),
      () => drifted.keys.importAll([imported]),
    ]) {
      await expect(work()).rejects.toEqual(UNAVAILABLE)
    }
    expect(drifted.store.calls('insert')).toBe(0)
    expect((await good.keys.list()).apiKeys).toHaveLength(1)
    expect(driftsOf(drifted)).toHaveLength(4)
  })

  it('takes no stored key for another one while it imports', async () => {
    const { start } = shareStore()
    const formats = [plainTextFormat()]
    const imported = { format: 'plain-text', key: 'k3v9-of-another-product-0123456789', ...NAME }
    await start({ formats }).keys.import(imported)
    // It makes digests under a pepper of its own, and reads those under the one that differs.
    const drifted = start({ formats, peppers: [pepper('p'.repeat(32), 'new'), pepper(`${SECRET}\n`)] })
    await expect(drifted.keys.importAll([imported], { onDuplicate: 'skip' })).rejects.toEqual(UNAVAILABLE)
    const good = start({ formats, peppers: [pepper('p'.repeat(32), 'new'), pepper()] })
    expect(await good.keys.importAll([imported], { onDuplicate: 'skip' })).toMatchObject({ duplicates: 1 })
  })

  it('is found out under a pepper that only verifies, while others go on', async () => {
    const { start } = shareStore()
    const old = await start({ peppers: [pepper(SECRET, 'old')] }).keys.issue(NAME)
    const next = pepper('n'.repeat(32), 'new')
    const drifted = start({ peppers: [next, pepper(`${SECRET} `, 'old')] })
    await expect(drifted.keys.verify(old.key)).rejects.toEqual(UNAVAILABLE)
    expect(String(driftsOf(drifted)[0]?.error)).toContain('"old"')
    const issued = await drifted.keys.issue(NAME)
    expect(await drifted.keys.verify(issued.key)).toEqual(VALID)
    const wrong = forgeKey(issued.key, { secret: 'x'.repeat(43) })
    expect(await drifted.keys.verify(wrong)).toEqual(WRONG)
  })

  it('upgrades no digest', async () => {
    const { start } = shareStore()
    const plain = await start({ digest: 'sha256' }).keys.issue(NAME)
    await start().keys.issue(NAME)
    const drifted = start({ peppers: [pepper(`${SECRET}\n`)], upgradeDigests: true })
    expect(await drifted.keys.verify(plain.key)).toEqual(VALID)
    await settle()
    expect(drifted.store.calls('replaceDigest')).toBe(0)
    expect(driftsOf(drifted).length).toBeGreaterThan(0)
  })

  it('still calls a mistyped key malformed, without asking the store', async () => {
    const { start } = shareStore()
    const { key } = await start().keys.issue(NAME)
    const drifted = start({ peppers: [pepper(`${SECRET}\n`)] })
    await expect(drifted.keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    drifted.store.forgetCalls()
    const mistyped = key.slice(0, -1) + (key.endsWith('0') ? '1' : '0')
    expect(await drifted.keys.verify(mistyped)).toMatchObject({ ok: false, reason: 'malformed' })
    expect(drifted.store.calls()).toBe(0)
  })

  it('asks the store once in a while, not with every key', async () => {
    const { start, clock } = shareStore()
    const { key } = await start().keys.issue(NAME)
    const drifted = start({ peppers: [pepper(`${SECRET}\n`)] })
    const verifyTen = () => Promise.allSettled(Array.from({ length: 10 }, () => drifted.keys.verify(key)))
    await verifyTen()
    await verifyTen()
    expect(drifted.store.calls('agree')).toBeLessThanOrEqual(2)
    await clock.advance(10_000)
    const before = drifted.store.calls('agree')
    await verifyTen()
    expect(drifted.store.calls('agree')).toBeGreaterThan(before)
  })
})

describe('a process that has the same secret', () => {
  it('calls a wrong secret wrong, and asks the store once for good', async () => {
    const { start, clock } = shareStore()
    const { key } = await start().keys.issue(NAME)
    const good = start()
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    for (let i = 0; i < 3; i++) {
      expect(await good.keys.verify(wrong)).toEqual(WRONG)
      await clock.advance(3_600_000)
    }
    expect(good.store.calls('agree')).toBe(1)
  })

  it('pays nothing where a key is right, once it has said so', async () => {
    const { start } = shareStore()
    const good = start()
    const { key } = await good.keys.issue(NAME)
    await good.keys.verify(key)
    good.store.forgetCalls()
    for (let i = 0; i < 10; i++) expect(good.keys.verifyEager(key)).toEqual(VALID)
    expect(good.store.calls()).toBe(0)
  })

  it('keeps a check value that is no digest of a key and not the secret', async () => {
    const { start } = shareStore()
    const good = start()
    await good.keys.issue(NAME)
    const value = createHmac('sha256', SECRET).update('latchkey pepper check v1').digest('base64url')
    expect(good.store.argumentsOf('agree')).toEqual([['pepper:2026', { value, replace: false }]])
  })

  it('may give the secret as bytes or as text', async () => {
    const { start } = shareStore()
    const { key } = await start().keys.issue(NAME)
    const good = start({ peppers: [pepper(Buffer.from(SECRET))] })
    expect(await good.keys.verify(forgeKey(key, { secret: 'x'.repeat(43) }))).toEqual(WRONG)
    expect(await good.keys.issue(NAME)).toBeDefined()
  })

  it('asks nothing where digests need no pepper', async () => {
    const { start } = shareStore()
    const plain = start({ digest: 'sha256' })
    const { key } = await plain.keys.issue(NAME)
    expect(await plain.keys.verify(forgeKey(key, { secret: 'x'.repeat(43) }))).toEqual(WRONG)
    expect(plain.store.calls('agree')).toBe(0)
  })
})

describe('who is first', () => {
  it('is one of two processes that start at once, and the other issues nothing', async () => {
    const { start } = shareStore()
    const both = [start(), start({ peppers: [pepper(`${SECRET}\n`)] })]
    const outcomes = await Promise.allSettled(both.map(({ keys }) => keys.issue(NAME)))
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(both.map((one) => driftsOf(one).length).sort()).toEqual([0, 1])
  })

  it('is whoever verifies a key of an earlier release, not whoever cannot', async () => {
    const { start, inner } = shareStore()
    const { key } = await issueBeforeAgreements(inner)
    const drifted = start({ peppers: [pepper(`${SECRET}\n`)] })
    // Nobody knows yet who is right.
    expect(await drifted.keys.verify(key)).toEqual(WRONG)
    const good = start()
    expect(await good.keys.verify(key)).toEqual(VALID)
    await settle()
    await expect(drifted.keys.verify(key)).rejects.toEqual(UNAVAILABLE)
    expect(await good.keys.issue(NAME)).toBeDefined()
    expect(driftsOf(good)).toEqual([])
  })

  it('says so once, by a key that is revoked too', async () => {
    const { start, inner } = shareStore()
    const { key, apiKey } = await issueBeforeAgreements(inner)
    const good = start()
    await good.keys.revoke(apiKey.id)
    for (let i = 0; i < 3; i++) expect(await good.keys.verify(key)).toMatchObject({ reason: 'revoked' })
    await settle()
    expect(good.store.calls('agree')).toBe(1)
    await expect(start({ peppers: [pepper(`${SECRET}\n`)] }).keys.verify(key)).rejects.toEqual(UNAVAILABLE)
  })

  it('is believed by a look that began before', async () => {
    const { start, inner } = shareStore()
    const early = await issueBeforeAgreements(inner)
    const drifted = start({ peppers: [pepper(`${SECRET}\n`)] })
    const held = drifted.store.hold('agree')
    const looking = drifted.keys.verify(early.key)
    await held.reached
    const { key } = await start().keys.issue(NAME)
    const verifying = drifted.keys.verify(key)
    held.release()
    expect(await looking).toEqual(WRONG)
    await expect(verifying).rejects.toEqual(UNAVAILABLE)
  })
})

describe('an operator', () => {
  it('settles it where the wrong one was first, and good processes go on without a restart', async () => {
    const { start, inner, clock } = shareStore()
    const { key } = await issueBeforeAgreements(inner)
    const drifted = start({ peppers: [pepper(`${SECRET}\n`)] })
    await drifted.keys.issue(NAME)
    const good = start()
    // Keys go on working where the secret proves right; that others differ is told.
    expect(await good.keys.verify(key)).toEqual(VALID)
    await settle()
    expect(driftsOf(good)).toHaveLength(1)
    await expect(good.keys.issue(NAME)).rejects.toEqual(UNAVAILABLE)
    const third = start()
    await expect(third.keys.issue(NAME)).rejects.toEqual(UNAVAILABLE)
    await good.keys.acceptConfiguration({ pepper: '2026' }, { by: 'u_admin' })
    expect(good.eventsOf('configuration.accepted')).toEqual([
      {
        type: 'configuration.accepted',
        at: expect.any(Date),
        accepted: { pepper: '2026' },
        by: 'u_admin',
      },
    ])
    expect(await good.keys.issue(NAME)).toBeDefined()
    await clock.advance(10_000)
    expect(await third.keys.issue(NAME)).toBeDefined()
    const started = start({ peppers: [pepper(`${SECRET}\n`)] })
    await expect(started.keys.verify(key)).rejects.toEqual(UNAVAILABLE)
  })

  it('is told what is wrong with the call, and where it cannot be made', async () => {
    const { start } = shareStore()
    const { keys, store } = start()
    for (const [given, message] of [
      [{}, '"accepted" must name'],
      [{ pepper: '2026', rateLimiter: true }, '"accepted" must name exactly one of'],
      [{ pepper: undefined }, '"pepper" must be a non-empty string'],
      [{ invalidation: 1 }, '"invalidation" must be true'],
      [{ peper: '2026' }, 'did you mean "pepper"'],
      [{ pepper: '2025' }, '"pepper" must be the id of a configured pepper'],
      [{ pepper: '' }, '"pepper" must be a non-empty string'],
      [{ rateLimiter: false }, '"rateLimiter" must be true'],
      [{ rateLimiter: true }, '"rateLimiter" has no setting'],
      [{ invalidation: true }, '"invalidation" has no setting'],
    ] as const) {
      await expect(keys.acceptConfiguration(given as never)).rejects.toThrow(message)
    }
    expect(store.calls('agree')).toBe(0)
    store.fail('agree', rejects(new Error('connection refused')))
    await expect(keys.acceptConfiguration({ pepper: '2026' })).rejects.toEqual(UNAVAILABLE)
  })
})

describe('where the store cannot be asked', () => {
  it.each([
    ['fails', rejects(new Error('connection refused'))],
    ['answers what it must not', answers(7)],
    ['answers a proposal with nothing', answers(null)],
  ])('since it %s: a wrong key is a 503, no key is issued, and a good key works', async (how, fault) => {
    const { start } = shareStore()
    const { key } = await start().keys.issue(NAME)
    const unhandled = watchUnhandled()
    const good = start()
    good.store.fail('agree', fault)
    expect(await good.keys.verify(key)).toEqual(VALID)
    await expect(good.keys.issue(NAME)).rejects.toEqual(UNAVAILABLE)
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    // To a mere look, null is an answer.
    if (how !== 'answers a proposal with nothing') {
      await expect(good.keys.verify(wrong)).rejects.toEqual(UNAVAILABLE)
    }
    expect(good.eventsOf('fault').map(({ operation }) => operation)).toContain('store')
    good.store.heal()
    expect(await good.keys.verify(wrong)).toEqual(WRONG)
    expect(await good.keys.issue(NAME)).toBeDefined()
    expect(await unhandled()).toEqual([])
  })

  it('since it is silent: a wrong key is a 503 after timeoutMs, for all who wait', async () => {
    const { start, clock } = shareStore()
    const { key } = await start().keys.issue(NAME)
    const good = start({ timeoutMs: 500 })
    expect(await good.keys.verify(key)).toEqual(VALID)
    await settle()
    const waiting = start({ timeoutMs: 500 })
    waiting.store.fail('agree', hangs)
    const wrong = Array.from({ length: 3 }, (_, i) => forgeKey(key, { secret: `${i}`.repeat(43) }))
    const outcomes = Promise.allSettled(wrong.map((one) => waiting.keys.verify(one)))
    await clock.advance(500)
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
  })

  it('does not ask with every good key a store that fails', async () => {
    const { start, inner, clock } = shareStore()
    const { key } = await issueBeforeAgreements(inner)
    const good = start()
    good.store.fail('agree', rejects(new Error('connection refused')))
    for (let i = 0; i < 20; i++) expect(await good.keys.verify(key)).toEqual(VALID)
    expect(good.store.calls('agree')).toBe(1)
    good.store.heal()
    await clock.advance(10_000)
    expect(await good.keys.verify(key)).toEqual(VALID)
    await settle()
    await expect(start({ peppers: [pepper(`${SECRET}\n`)] }).keys.verify(key)).rejects.toEqual(UNAVAILABLE)
  })

  it.each([
    ['not_migrated', NOT_MIGRATED],
    ['read_only', new LatchkeyError('read_only')],
  ])('since it is %s: goes on unchecked, says so, and asks again later', async (code, error) => {
    const { start, clock } = shareStore()
    const { key } = await start().keys.issue(NAME)
    const good = start()
    good.store.fail('agree', rejects(error))
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    for (let i = 0; i < 5; i++) {
      expect(await good.keys.verify(key)).toEqual(VALID)
      await settle()
      expect(await good.keys.verify(wrong)).toEqual(WRONG)
      expect(await good.keys.issue(NAME)).toBeDefined()
    }
    expect(good.store.calls('agree')).toBe(1)
    expect(good.eventsOf('fault')).toMatchObject([{ operation: 'store', error: { code } }])
    good.store.heal()
    await clock.advance(60_000)
    expect(await good.keys.verify(wrong)).toEqual(WRONG)
    expect(good.store.calls('agree')).toBe(2)
  })

  it('since it lacks the capability: goes on as before there was one', async () => {
    const { inner } = shareStore()
    const { key } = await issueBeforeAgreements(inner)
    const { agree: _agree, ...bare } = recordingStore(inner)
    const drifted = createTestKeys({ store: bare as never, peppers: [pepper(`${SECRET}\n`)] })
    expect(await drifted.keys.verify(key)).toEqual(WRONG)
    expect(await drifted.keys.issue(NAME)).toBeDefined()
    expect(drifted.eventsOf('fault')).toEqual([])
    await expect(drifted.keys.acceptConfiguration({ pepper: '2026' })).rejects.toMatchObject({
      code: 'unsupported',
    })
  })
})
