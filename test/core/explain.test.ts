import { type ApiKeyEvent, type Explanation, memoryRateLimiter, type RateLimiter } from 'latchkey'
import { plainTextFormat } from 'latchkey/import'
import { describe, expect, it, vi } from 'vitest'
import { settle } from '../support/fake-clock.ts'
import { issueKey, issueWarmKey } from '../support/issue-key.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys, forgeKey, partsOf } from '../support/test-keys.ts'

const IP = '10.0.0.1'
/** How long after its idle expiry a key works on. */
const SLACK_MS = 15_000
const MINUTE = { name: 'minute', limit: 3, windowMs: 60_000 }
const OLD = 'old_abcdefghijklmnopqrst'
const FORMATS = [plainTextFormat({ shape: /^old_[a-z]{20}$/ })]

/** The steps by name: their outcomes, or one of their members. */
function stepsOf(explanation: Explanation): Record<string, string> {
  return Object.fromEntries(explanation.steps.map(({ step, outcome }) => [step, outcome]))
}

function stepOf({ steps }: Explanation, name: string) {
  return steps.find(({ step }) => step === name)
}

const wrongFor = (key: string) => forgeKey(key, { secret: 'x'.repeat(43) })
const unknownTo = (key: string) => forgeKey(key, { keyId: 'A'.repeat(16) })

describe('what refuses a key', () => {
  const FLAWS = [
    ['prefix', 'prefix_not_accepted', 'The call does not accept the prefix of the key.'],
    ['secret', 'wrong_secret', 'There is a key with this id, but it has another secret.'],
    ['revocation', 'revoked', /^The key was revoked on 20\d\d-.+Z\.$/],
    ['enabled', 'disabled', 'The key is disabled.'],
    ['expiry', 'expired', /^The key expired on 20\d\d-.+Z\.$/],
    ['idle_expiry', 'idle', /^The key expired for lack of use on 20\d\d-.+Z\.$/],
    ['owner', 'owner_inactive', 'The owner of the key may use no keys.'],
    ['address', 'address_not_allowed', 'The key may not be used from the address.'],
    ['permissions', 'insufficient_permissions', 'The key lacks permissions that the call needs.'],
    [
      'quota',
      'quota_exceeded',
      /^0 units of the quota are left, and the call needs 1\. The same call can never pass\.$/,
    ],
    [
      'rate_limits',
      'rate_limited',
      /^Limit "day" has 0 units left, and the call needs 1\. The same call may pass in \d+ seconds\.$/,
    ],
  ] as const
  const names = FLAWS.map(([, flaw]) => flaw)

  /** Explains a key that has all of these flaws at once. */
  async function explainWith(flaws: readonly string[]) {
    const has = (flaw: (typeof names)[number]) => flaws.includes(flaw)
    let isActive = true
    const isOwnerActive = vi.fn(() => isActive)
    const { keys, clock } = createTestKeys({ isOwnerActive, ownerMaxAgeMs: false })
    const { key, apiKey } = await issueKey(keys, {
      allowedIps: has('address_not_allowed') ? ['10.0.0.0/8'] : null,
      expiresAt: has('expired') ? new Date(clock.now() + 60_000) : null,
      idleExpiryMs: has('idle') ? 60_000 : null,
      rateLimits: has('rate_limited') ? [{ name: 'day', limit: 1, windowMs: 86_400_000 }] : [],
      quota: has('quota_exceeded') ? { remaining: 1 } : null,
    })
    expect(await keys.verify(key, { ip: IP })).toMatchObject({ ok: true })
    await clock.advance(61_000 + SLACK_MS)
    if (has('disabled')) await keys.disable(apiKey.id)
    if (has('revoked')) await keys.revoke(apiKey.id)
    isActive = !has('owner_inactive')
    isOwnerActive.mockClear()
    const text = has('wrong_secret') ? wrongFor(key) : key
    const explanation = await keys.explain(
      { key: text },
      {
        ip: '192.0.2.1',
        ...(has('prefix_not_accepted') && { prefix: 'other' }),
        ...(has('insufficient_permissions') && { permissions: { projects: ['read'] } }),
      },
    )
    return { explanation, isOwnerActive }
  }

  for (const [i, [step, flaw, message]] of FLAWS.entries()) {
    it(`${flaw} is told alone, and before all that is in the way besides`, async () => {
      const isInvalid = ![
        'address_not_allowed',
        'insufficient_permissions',
        'quota_exceeded',
        'rate_limited',
      ].includes(flaw)
      const expected = isInvalid ? { outcome: 'invalid_key', reason: flaw } : { outcome: flaw, reason: null }
      const alone = await explainWith([flaw])
      expect(alone.explanation).toMatchObject(expected)
      expect(stepOf(alone.explanation, step)).toMatchObject({
        outcome: 'refused',
        message: expect.stringMatching(message),
      })
      const refused = alone.explanation.steps.filter(({ outcome }) => outcome === 'refused')
      expect(refused.map((one) => one.step)).toEqual([step])
      const all = await explainWith(names.slice(i))
      expect(all.explanation).toMatchObject(expected)
      const refusedToo = all.explanation.steps.filter(({ outcome }) => outcome === 'refused')
      expect(refusedToo[0]?.step).toBe(step)
      // What the record says is told to the end; nobody is asked for a key that is refused anyway.
      const told = FLAWS.slice(i).map(([name]) => name)
      const isAsked = (name: string) => name === step || !['owner', 'quota', 'rate_limits'].includes(name)
      const isSkipped = (name: string) => !isAsked(name) && !(step === 'quota' && name === 'rate_limits')
      expect(refusedToo.map((one) => one.step)).toEqual(told.filter((name) => !isSkipped(name)))
      for (const name of told.filter(isSkipped)) {
        expect(stepOf(all.explanation, name)).toMatchObject({
          outcome: 'skipped',
          message: expect.stringMatching(/refused before/),
        })
      }
      const asksOwner = ['owner', 'address', 'permissions', 'quota', 'rate_limits'].includes(step)
      expect(all.isOwnerActive).toHaveBeenCalledTimes(asksOwner ? 1 : 0)
    })
  }

  it('is nothing for a key without any of these flaws', async () => {
    const { explanation } = await explainWith([])
    expect(explanation).toMatchObject({ outcome: 'admitted', reason: null, retryAfterMs: null })
    expect(stepsOf(explanation)).toEqual({
      format: 'passed',
      prefix: 'passed',
      failed_attempts: 'passed',
      record: 'passed',
      secret: 'passed',
      revocation: 'passed',
      enabled: 'passed',
      expiry: 'passed',
      idle_expiry: 'passed',
      owner: 'passed',
      address: 'passed',
      permissions: 'passed',
      quota: 'passed',
      rate_limits: 'passed',
    })
  })
})

describe('a text', () => {
  it.each([
    ['that is no key', (_key: string) => 'junk', 'shape'],
    ['that is empty', () => '', 'shape'],
    ['that has lost its last character', (key: string) => key.slice(0, -1), 'shape'],
    [
      'of which a character was mistyped',
      (key: string) => key.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a')),
      'checksum',
    ],
    ['with a blank before the key', (key: string) => ` ${key}`, 'white_space'],
    ['with a line break after the key', (key: string) => `${key}\n`, 'white_space'],
    ['with a blank after an imported key', () => `${OLD} `, 'white_space'],
  ])('%s is malformed, and the store is not asked', async (_what, textOf, flaw) => {
    const { keys, store } = createTestKeys({ formats: FORMATS })
    const { key } = await issueKey(keys)
    store.forgetCalls()
    const explanation = await keys.explain({ key: textOf(key) })
    expect(explanation).toMatchObject({
      outcome: 'invalid_key',
      reason: 'malformed',
      apiKey: null,
      limits: [],
    })
    expect(stepOf(explanation, 'format')).toMatchObject({ outcome: 'refused', read: { flaw } })
    const others = explanation.steps.slice(1)
    expect(others).toHaveLength(13)
    for (const step of others) {
      expect(step).toMatchObject({ outcome: 'skipped', message: 'The text is not that of a key.', read: {} })
    }
    expect(store.calls()).toBe(0)
  })

  it('of a key that does not exist is unknown', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const explanation = await keys.explain({ key: unknownTo(key) })
    expect(explanation).toMatchObject({ outcome: 'invalid_key', reason: 'unknown', apiKey: null })
    expect(stepsOf(explanation)).toMatchObject({ format: 'passed', record: 'refused', secret: 'skipped' })
  })

  it('of an imported key is explained by its record, prefix and all', async () => {
    const { keys } = createTestKeys({ formats: FORMATS })
    const apiKey = await keys.import({ format: 'plain-text', key: OLD, owner: ALICE, name: 'old' })
    const explanation = await keys.explain({ key: OLD }, { prefix: 'other' })
    expect(explanation).toMatchObject({
      outcome: 'invalid_key',
      reason: 'prefix_not_accepted',
      apiKey: { id: apiKey.id },
    })
    expect(explanation.steps.map(({ step }) => step).slice(0, 5)).toEqual([
      'format',
      'failed_attempts',
      'record',
      'secret',
      'prefix',
    ])
    expect(stepOf(explanation, 'format')?.read).toEqual({ kind: 'imported' })
  })

  it('with a wrong secret shows the key whose id it names, and what else is in its way', async () => {
    const { keys } = createTestKeys()
    const { key, apiKey } = await issueKey(keys)
    await keys.disable(apiKey.id)
    const explanation = await keys.explain({ key: wrongFor(key) })
    expect(explanation).toMatchObject({
      reason: 'wrong_secret',
      apiKey: { id: apiKey.id, status: 'disabled' },
    })
    expect(stepsOf(explanation)).toMatchObject({ secret: 'refused', enabled: 'refused' })
  })

  it('appears in no step, and neither does the digest', async () => {
    const { keys, store, events } = createTestKeys({ formats: FORMATS })
    const { key, apiKey } = await issueKey(keys)
    await keys.import({ format: 'plain-text', key: OLD, owner: ALICE, name: 'old' })
    const { digest } = (await store.find({ id: apiKey.id })) as { digest: string }
    const old = await store.find({
      lookups: [FORMATS[0]?.lookup(OLD) as string].map((lookup) => `plain-text:${lookup}`),
    })
    const texts = [key, wrongFor(key), unknownTo(key), ` ${key}`, key.slice(0, -1), OLD, `${OLD} `]
    const shown: string[] = []
    for (const text of texts)
      shown.push(JSON.stringify(await keys.explain({ key: text }, { prefix: [key, 'acme_test'] })))
    const all = shown.join() + JSON.stringify(events)
    const secrets = [
      key,
      wrongFor(key),
      partsOf(key).secret,
      'x'.repeat(43),
      OLD,
      digest.split('$')[2],
      old?.digest.split('$')[2],
    ]
    expect(old).not.toBeNull()
    for (const secret of [...secrets, old?.lookup]) expect(all).not.toContain(secret)
    expect(all).toContain('"scheme":"sha256"')
  })
})

describe('an id', () => {
  it('is explained as its key with the right secret would be', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const { apiKey } = await issueKey(keys)
    const explanation = await keys.explain({ id: apiKey.id }, { permissions: { projects: ['read'] } })
    expect(explanation).toMatchObject({ outcome: 'insufficient_permissions', apiKey: { id: apiKey.id } })
    expect(stepsOf(explanation)).toMatchObject({ format: 'skipped', secret: 'skipped', prefix: 'passed' })
    expect(stepOf(explanation, 'permissions')?.read).toEqual({
      required: { projects: ['read'] },
      held: {},
      missing: { projects: ['read'] },
    })
  })

  it.each(['', 'nobody', 'A'.repeat(16), 'a b', 'x'.repeat(300)])(
    'that no key has is unknown: %s',
    async (id) => {
      const { keys } = createTestKeys()
      expect(await keys.explain({ id })).toMatchObject({
        outcome: 'invalid_key',
        reason: 'unknown',
        apiKey: null,
      })
    },
  )

  it('is unknown where it is the text of a key, which the store never sees', async () => {
    const { keys, store } = createTestKeys({ formats: FORMATS })
    const { key } = await issueKey(keys)
    store.forgetCalls()
    expect(await keys.explain({ id: key })).toMatchObject({ reason: 'unknown' })
    expect(store.calls()).toBe(0)
  })

  it('is unknown if its key was purged meanwhile, whoever has its lookup now', async () => {
    const { keys, store } = createTestKeys()
    const { apiKey } = await issueKey(keys)
    const record = await store.find({ id: apiKey.id })
    store.fail('find', async (_work, by) =>
      'id' in (by as object) ? record : { ...record, id: 'another', lineageId: 'another' },
    )
    expect(await keys.explain({ id: apiKey.id })).toMatchObject({ reason: 'unknown', apiKey: null })
  })
})

describe('what a step has read', () => {
  it('says who revoked a key, and why', async () => {
    const { keys, clock } = createTestKeys()
    const { key, apiKey } = await issueKey(keys)
    await keys.revoke(apiKey.id, { by: 'u_admin', reason: 'leaked' })
    expect(stepOf(await keys.explain({ key }), 'revocation')?.read).toEqual({
      revokedAt: new Date(clock.now()).toISOString(),
      revokedBy: 'u_admin',
      revokedReason: 'leaked',
    })
  })

  it('says by when a key has to be used, later for uses that are not written yet', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await issueKey(keys, { idleExpiryMs: 60_000 })
    await clock.advance(30_000)
    await keys.verify(key)
    const endsAt = new Date(clock.now() + 60_000 + SLACK_MS).toISOString()
    expect(stepOf(await keys.explain({ key }), 'idle_expiry')).toMatchObject({
      message: `Unless it is used, the key expires on ${endsAt}.`,
      read: { idleExpiryMs: 60_000, endsAt },
    })
  })

  it('says which addresses a key has, and that the call has none', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys, { allowedIps: ['10.0.0.0/8'] })
    expect(stepOf(await keys.explain({ key }), 'address')).toMatchObject({
      outcome: 'refused',
      message: 'The key may be used from some addresses only, and the call has no address.',
      read: { ip: null, allowedIps: ['10.0.0.0/8'] },
    })
    const mapped = await keys.explain({ key }, { ip: `::ffff:${IP}` })
    expect(stepOf(mapped, 'address')).toMatchObject({ outcome: 'passed', read: { ip: IP } })
  })

  it('says what the owner lacks', async () => {
    const { keys } = createTestKeys({ ownerPermissions: () => ({ projects: ['read'] }) })
    const { key } = await issueKey(keys, { permissions: { projects: ['read', 'write'] } })
    const explanation = await keys.explain({ key }, { permissions: { projects: ['write'] } })
    expect(explanation).toMatchObject({
      outcome: 'insufficient_permissions',
      apiKey: { permissions: { projects: ['read'] } },
    })
    expect(stepOf(explanation, 'permissions')?.read).toMatchObject({
      held: { projects: ['read'] },
      missing: { projects: ['write'] },
    })
  })

  it('does not call permissions enough where the owner was not asked', async () => {
    const { keys } = createTestKeys({ ownerPermissions: () => ({}) })
    const { key, apiKey } = await issueKey(keys, { permissions: { projects: ['read'] } })
    await keys.revoke(apiKey.id)
    const explanation = await keys.explain({ key }, { permissions: { projects: ['read'] } })
    expect(stepsOf(explanation)).toMatchObject({ owner: 'skipped', permissions: 'skipped' })
  })

  it('is frozen, and stays as it is when the caller changes what it asked for', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const permissions = { projects: ['read'] }
    const explanation = await keys.explain({ key }, { permissions })
    permissions.projects.push('write')
    expect(Object.isFrozen(permissions)).toBe(false)
    expect(stepOf(explanation, 'permissions')?.read.required).toEqual({ projects: ['read'] })
    expect(() => Object.assign(explanation.steps[0] as object, { outcome: 'refused' })).toThrow(TypeError)
  })
})

describe('a cost', () => {
  it('says which limit refuses, and when the call may pass', async () => {
    const { keys, clock } = createTestKeys({
      rateLimits: [MINUTE, { name: 'day', limit: 100, windowMs: 86_400_000 }],
    })
    const { key } = await issueKey(keys)
    await keys.verify(key)
    await clock.advance(20_000)
    const explanation = await keys.explain({ key }, { cost: 3 })
    expect(explanation).toMatchObject({
      outcome: 'rate_limited',
      retryAfterMs: 40_000,
      limits: [
        { name: 'minute', remaining: 2, exceeded: true },
        { name: 'day', remaining: 99, exceeded: false },
      ],
    })
    expect(stepOf(explanation, 'rate_limits')).toMatchObject({
      message:
        'Limit "minute" has 2 units left, and the call needs 3. Limit "day" has 99 units left, and the call needs 3. ' +
        'The same call may pass in 40 seconds.',
      read: { exceeded: ['minute'] },
    })
    expect(await keys.explain({ key }, { cost: 2 })).toMatchObject({
      outcome: 'admitted',
      retryAfterMs: null,
    })
  })

  it('never passes where it is wider than a limit', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const { key } = await issueKey(keys)
    const explanation = await keys.explain({ key }, { cost: 4 })
    expect(explanation).toMatchObject({ outcome: 'rate_limited', retryAfterMs: null })
    expect(stepOf(explanation, 'rate_limits')?.message).toMatch(/can never pass\.$/)
  })

  it('waits for a bucket until all it needs has leaked', async () => {
    const { keys, clock } = createTestKeys({
      rateLimits: [{ name: 'bucket', limit: 60, windowMs: 60_000, burst: 10 }],
    })
    const { key } = await issueKey(keys)
    await keys.verify(key, { cost: 10 })
    await clock.advance(2_500)
    const explanation = await keys.explain({ key }, { cost: 5 })
    expect(explanation).toMatchObject({
      outcome: 'rate_limited',
      retryAfterMs: 2_500,
      limits: [{ remaining: 2 }],
    })
    await clock.advance(2_499)
    expect(await keys.explain({ key }, { cost: 5 })).toMatchObject({
      outcome: 'rate_limited',
      retryAfterMs: 1,
    })
    await clock.advance(1)
    expect(await keys.explain({ key }, { cost: 5 })).toMatchObject({ outcome: 'admitted' })
  })

  it('of 0 is refused by nothing, and shows every limit', async () => {
    const { keys } = createTestKeys({
      rateLimits: [MINUTE, { name: 'tokens', limit: 9, windowMs: 60_000, only: 'named' }],
    })
    const { key } = await issueKey(keys, { quota: { remaining: 0 } })
    expect(await keys.explain({ key }, { cost: 0 })).toMatchObject({
      outcome: 'admitted',
      limits: [{ name: 'minute' }, { name: 'tokens' }, { name: 'quota', remaining: 0, exceeded: false }],
    })
  })

  it('says whether a place is free', async () => {
    const { keys } = createTestKeys({ rateLimits: [{ name: 'parallel', concurrent: 1 }] })
    const { key } = await issueKey(keys)
    const free = await keys.explain({ key })
    expect(free).toMatchObject({ outcome: 'admitted', limits: [{ name: 'parallel', remaining: 1 }] })
    expect(stepOf(free, 'rate_limits')?.message).toBe('Limit "parallel" has 1 free, and the call needs 1.')
    await keys.verify(key)
    expect(await keys.explain({ key })).toMatchObject({
      outcome: 'rate_limited',
      retryAfterMs: 1_000,
      limits: [{ name: 'parallel', remaining: 0, exceeded: true }],
    })
    expect(await keys.explain({ key }, { cost: 0 })).toMatchObject({
      outcome: 'admitted',
      limits: [{ name: 'parallel', remaining: 0, exceeded: false }],
    })
  })

  it('says when a quota is filled up again, and what the limits would say', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const { key } = await issueKey(keys, { quota: { remaining: 2, refill: { amount: 5, everyMs: 60_000 } } })
    const explanation = await keys.explain({ key }, { cost: 4 })
    expect(explanation).toMatchObject({ outcome: 'quota_exceeded', retryAfterMs: 60_000 })
    expect(stepOf(explanation, 'quota')?.read).toEqual({ needed: 4, remaining: 2, refillInMs: 60_000 })
    expect(stepsOf(explanation)).toMatchObject({ quota: 'refused', rate_limits: 'refused' })
  })

  it('finds units that this process has leased, and those that a due refill will add', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await issueKey(keys, {
      quota: { remaining: 100, refill: { amount: 7, everyMs: 3_600_000 } },
    })
    for (let i = 0; i < 5; i++) await keys.verify(key)
    expect(await keys.explain({ key }, { cost: 95 })).toMatchObject({
      outcome: 'admitted',
      apiKey: { quota: { remaining: 95 } },
    })
    expect(await keys.explain({ key }, { cost: 96 })).toMatchObject({ outcome: 'quota_exceeded' })
    await keys.verify(key, { cost: 95 })
    expect(await keys.explain({ key })).toMatchObject({ outcome: 'quota_exceeded' })
    await clock.advance(3_600_000)
    expect(await keys.explain({ key }, { cost: 7 })).toMatchObject({ outcome: 'admitted' })
    expect(await keys.explain({ key }, { cost: 8 })).toMatchObject({
      outcome: 'quota_exceeded',
      retryAfterMs: null,
    })
  })

  it('shows one of two limits with the same name', async () => {
    let limit = { name: 'x', limit: 5, windowMs: 60_000 }
    const { keys } = createTestKeys({
      rateLimits: () => [{ ...limit, scope: 'owner' }],
    })
    limit = { ...limit, name: 'team' }
    const { key } = await issueKey(keys, { rateLimits: [{ name: 'own', limit: 2, windowMs: 60_000 }] })
    limit = { ...limit, name: 'own' }
    expect(await keys.explain({ key }, { cost: 3 })).toMatchObject({
      outcome: 'rate_limited',
      limits: [{ name: 'own', limit: 2, exceeded: true }],
    })
  })
})

describe('explaining', () => {
  const OPTIONS: Parameters<typeof createTestKeys>[0] = {
    rateLimits: [MINUTE, { name: 'parallel', concurrent: 1 }],
    failedAttempts: { limit: 2 },
  }

  it('spends nothing, and nobody can tell that it took place', async () => {
    const { keys, store, limiter, events } = createTestKeys(OPTIONS)
    const { key, apiKey } = await issueKey(keys, { quota: { remaining: 2 }, idleExpiryMs: 60_000 })
    const before = await store.find({ id: apiKey.id })
    events.length = 0
    store.forgetCalls()
    const check = vi.spyOn(limiter, 'check')
    for (let i = 0; i < 5; i++) {
      expect(await keys.explain({ key }, { ip: IP })).toMatchObject({ outcome: 'admitted' })
      expect(await keys.explain({ id: apiKey.id }, { ip: IP })).toMatchObject({ outcome: 'admitted' })
      for (const text of [wrongFor(key), unknownTo(key), 'junk']) {
        expect(await keys.explain({ key: text }, { ip: IP })).toMatchObject({ outcome: 'invalid_key' })
      }
      await settle()
    }
    await keys.flush()
    expect(check.mock.calls.every(([request]) => request.cost === 0 && request.costs === undefined)).toBe(
      true,
    )
    expect(store.calls()).toBe(store.calls('find'))
    expect(events).toEqual([])
    expect(await store.find({ id: apiKey.id })).toEqual(before)
    expect(await keys.limits(apiKey.id)).toMatchObject([{ remaining: 3 }, { remaining: 1 }, { remaining: 2 }])
    expect(await keys.verify(key, { ip: IP })).toMatchObject({ ok: true })
  })

  it('keeps no key from expiring for lack of use', async () => {
    const { keys, clock } = createTestKeys()
    const { key } = await issueKey(keys, { idleExpiryMs: 60_000 })
    for (let i = 0; i < 3; i++) {
      await clock.advance(30_000)
      await keys.explain({ key })
    }
    expect(await keys.verify(key)).toMatchObject({ reason: 'idle' })
  })

  it('upgrades no digest', async () => {
    const { store } = createTestKeys()
    const old = createTestKeys({ store })
    const { key } = await issueKey(old.keys)
    const peppers = [{ id: 'p1', secret: 'a pepper of no less than thirty-two bytes' }]
    const { keys } = createTestKeys({ store, peppers, upgradeDigests: true })
    expect(await keys.explain({ key })).toMatchObject({ outcome: 'admitted' })
    await settle()
    expect(store.calls('replaceDigest')).toBe(0)
    await keys.verify(key)
    await settle()
    expect(store.calls('replaceDigest')).toBe(1)
  })

  it('leaves the cache as it is: a blocked address is refused the key before and after', async () => {
    const { keys } = createTestKeys({ failedAttempts: { limit: 1 } })
    const { key, apiKey } = await issueKey(keys)
    await keys.verify('junk', { ip: IP })
    await settle()
    for (let i = 0; i < 2; i++) {
      for (const subject of [{ key }, { id: apiKey.id }]) {
        const explanation = await keys.explain(subject, { ip: IP })
        expect(explanation).toMatchObject({ outcome: 'too_many_failures', retryAfterMs: 60_000 })
        expect(stepOf(explanation, 'failed_attempts')).toMatchObject({
          outcome: 'refused',
          message: 'The address has sent too many invalid keys. It is blocked for another 60 seconds.',
        })
      }
      expect(await keys.verify(key, { ip: IP })).toMatchObject({ code: 'too_many_failures' })
    }
    expect(await keys.explain({ key }, { ip: '192.0.2.1' })).toMatchObject({ outcome: 'admitted' })
  })

  it('lets a blocked address use what this process has verified', async () => {
    const { keys, clock } = createTestKeys({ failedAttempts: { limit: 1 } })
    const { key, apiKey } = await issueWarmKey(keys)
    await keys.verify('junk', { ip: IP })
    await settle()
    await clock.advance(10_000)
    const explanation = await keys.explain({ key }, { ip: IP })
    expect(explanation).toMatchObject({ outcome: 'admitted' })
    expect(stepOf(explanation, 'failed_attempts')).toMatchObject({
      outcome: 'passed',
      message: expect.stringMatching(/verified it before/),
    })
    expect(await keys.explain({ id: apiKey.id }, { ip: IP })).toMatchObject({ outcome: 'admitted' })
    expect(await keys.explain({ key: wrongFor(key) }, { ip: IP })).toMatchObject({
      outcome: 'too_many_failures',
    })
    expect(await keys.verify(wrongFor(key), { ip: IP })).toMatchObject({ code: 'too_many_failures' })
  })

  it('compares no bcrypt digest for a key that is refused before', async () => {
    const { keys } = createTestKeys({ digest: { scheme: 'bcrypt', cost: 4 }, failedAttempts: { limit: 1 } })
    const { key } = await issueKey(keys)
    await keys.verify('junk', { ip: IP })
    await settle()
    const blocked = await keys.explain({ key }, { ip: IP })
    expect(stepOf(blocked, 'secret')).toMatchObject({
      outcome: 'skipped',
      message: expect.stringMatching(/Not compared/),
    })
    expect(await keys.verify(key, { ip: IP })).toMatchObject({ code: 'too_many_failures' })
    expect(await keys.explain({ key: wrongFor(key) })).toMatchObject({ reason: 'wrong_secret' })
    expect(await keys.explain({ key })).toMatchObject({ outcome: 'admitted' })
  })

  it('reads the record afresh, whatever is cached', async () => {
    const { keys, store } = createTestKeys()
    const { key, apiKey } = await issueWarmKey(keys)
    const other = createTestKeys({ store })
    await other.keys.disable(apiKey.id)
    expect(await keys.explain({ key })).toMatchObject({ reason: 'disabled', apiKey: { status: 'disabled' } })
  })

  it('fails as a verification does for a limit that nobody has, unless the key is refused before', async () => {
    const { keys } = createTestKeys(OPTIONS)
    const { key, apiKey } = await issueKey(keys)
    const asked = { cost: { tokens: 1 } }
    await expect(keys.explain({ key }, asked)).rejects.toThrow(/names the limit "tokens"/)
    await expect(keys.verify(key, asked)).rejects.toThrow(/names the limit "tokens"/)
    await keys.revoke(apiKey.id)
    expect(await keys.verify(key, asked)).toMatchObject({ reason: 'revoked' })
    expect(await keys.explain({ key }, asked)).toMatchObject({ reason: 'revoked' })
  })

  it('reads again what the limiter knows to be old, three times at most', async () => {
    const { keys, limiter, eventsOf } = createTestKeys()
    const { key } = await issueKey(keys)
    const check = vi.spyOn(limiter, 'check')
    check
      .mockImplementationOnce(() => ({ outcome: 'stale' }))
      .mockImplementationOnce(() => ({ outcome: 'stale' }))
    expect(await keys.explain({ key })).toMatchObject({ outcome: 'admitted' })
    check.mockClear().mockImplementation(() => ({ outcome: 'stale' }))
    await expect(keys.explain({ key })).rejects.toMatchObject({ code: 'unavailable' })
    expect(check).toHaveBeenCalledTimes(3)
    expect(eventsOf('fault')).toMatchObject([{ operation: 'store' }])
  })

  it('is unavailable where what it needs fails, and explains all the same what refuses before', async () => {
    let isDown = true
    const { keys, store, limiter, eventsOf } = createTestKeys({
      isOwnerActive: () => (isDown ? Promise.reject(new Error('down')) : true),
      ownerMaxAgeMs: false,
      formats: [
        {
          name: 'broken',
          lookup() {
            throw new Error('down')
          },
        },
      ],
    })
    const { key, apiKey } = await issueKey(keys)
    const unavailable = async (text: string, operation: string) => {
      const already = eventsOf('fault').length
      await expect(keys.explain({ key: text })).rejects.toMatchObject({ code: 'unavailable' })
      expect(eventsOf('fault').slice(already)).toMatchObject([{ operation }])
    }
    await unavailable(key, 'owner_status')
    isDown = false
    const check = vi
      .spyOn(limiter, 'check')
      .mockImplementation((() => Promise.reject(new Error('down'))) as RateLimiter['check'])
    await unavailable(key, 'rate_limiter')
    await unavailable('visible', 'format')
    isDown = true
    await keys.disable(apiKey.id)
    expect(await keys.explain({ key })).toMatchObject({ reason: 'disabled' })
    expect(await keys.explain({ key: 'not visible' })).toMatchObject({ reason: 'malformed' })
    expect(check).toHaveBeenCalledTimes(1)
    store.fail('find', rejects(new Error('down')))
    await unavailable(key, 'store')
  })

  it('is unsupported where the limiter has no places', async () => {
    const { release: _release, ...limiter } = memoryRateLimiter() as RateLimiter
    const { keys, store } = createTestKeys({ rateLimiter: limiter })
    const { key } = await issueKey(createTestKeys({ store }).keys, {
      rateLimits: [{ name: 'parallel', concurrent: 1 }],
    })
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unsupported' })
    await expect(keys.explain({ key })).rejects.toMatchObject({ code: 'unsupported' })
  })

  it('asks no limiter where a verification asks none', async () => {
    const { keys, limiter } = createTestKeys({ revocation: 'bounded' })
    const { key } = await issueKey(keys)
    const check = vi.spyOn(limiter, 'check')
    expect(await keys.explain({ key })).toMatchObject({ outcome: 'admitted', limits: [] })
    expect(check).not.toHaveBeenCalled()
  })

  it.each<[unknown, unknown, string]>([
    [undefined, {}, '"subject" must be an object'],
    [{}, {}, '"subject" must have either a "key" or an "id"'],
    [{ key: 'a', id: 'b' }, {}, '"subject" must have either a "key" or an "id"'],
    [{ key: 5 }, {}, '"key" must be a string'],
    [{ id: null }, {}, '"id" must be a string'],
    [{ key: 'a', prefix: 'b' }, {}, '"subject" has no option "prefix"'],
    [{ id: 'a' }, null, '"options" must be an object'],
    [{ id: 'a' }, { ips: '10.0.0.1' }, '"options" has no option "ips"; did you mean "ip"?'],
    [{ id: 'a' }, { cost: -1 }, '"cost" must be an integer'],
    [{ id: 'a' }, { permissions: {} }, '"permissions" must name at least one resource'],
    [{ id: 'a' }, { prefix: [] }, '"prefix" must be a prefix'],
  ])('refuses wrong arguments: %j, %j', async (subject, options, message) => {
    const { keys } = createTestKeys()
    const wrong = keys.explain(subject as never, options as never)
    await expect(wrong).rejects.toThrow(TypeError)
    await expect(wrong).rejects.toThrow(message)
  })

  it('is unavailable once the keys are closed, and close() waits for it', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await issueKey(keys)
    const held = store.hold('find')
    const explaining = keys.explain({ key })
    await held.reached
    let isClosed = false
    const closing = keys.close().then(() => {
      isClosed = true
    })
    await settle()
    expect(isClosed).toBe(false)
    held.release()
    expect(await explaining).toMatchObject({ outcome: 'admitted' })
    await closing
    await expect(keys.explain({ key })).rejects.toMatchObject({ code: 'unavailable' })
  })
})

describe('the report of an explanation', () => {
  it('names the key, its owner, the outcome and who asked, and nothing of the text', async () => {
    const { keys, clock, events } = createTestKeys()
    const { key, apiKey } = await issueKey(keys)
    events.length = 0
    const report = async (text: string) =>
      keys.report({ type: 'explained', explanation: await keys.explain({ key: text }), by: 'u_admin' })
    await report(wrongFor(key))
    await report('junk')
    const at = new Date(clock.now())
    const expected: ApiKeyEvent[] = [
      {
        type: 'key.explained',
        at,
        keyId: apiKey.id,
        owner: ALICE,
        outcome: 'invalid_key',
        reason: 'wrong_secret',
        by: 'u_admin',
      },
      {
        type: 'key.explained',
        at,
        keyId: null,
        owner: null,
        outcome: 'invalid_key',
        reason: 'malformed',
        by: 'u_admin',
      },
    ]
    expect(events).toEqual(expected)
  })
})
