import type { ApiKey } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { compileRateLimits, type RateLimit } from '../../lib/core/limits/rate-limit.ts'
import { type Actor, checkActor } from '../../lib/management/actor.ts'
import type { ClientFields } from '../../lib/management/client-fields.ts'
import { type Action, decide, resolvePolicy } from '../../lib/management/policy.ts'
import { apiKeyAt } from '../support/api-key.ts'
import { createWorld, ROUTERS } from '../support/management-world.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const DAY = 86_400_000
const NOW = Date.UTC(2026, 5, 15)
const later = (ms: number) => new Date(NOW + ms)

const OWNER = { type: 'user', id: 'u_1' }
/** What the key holds: only some of it may be granted by those who may not grant all. */
const HELD = { projects: ['read'], billing: ['*'] }
const SOME = { projects: ['read', 'write'] }

const keyWith = (members: Partial<ApiKey>) => apiKeyAt(NOW, { permissions: HELD, ...members })

const owner = (more: object = {}) => checkActor({ id: 'u_1', owners: [{ ...OWNER, ...more }] })
const admin = (more: object = {}) => checkActor({ id: 'root', admin: true, ...more })

/** How the actor stands to what the key holds, and whether it may make the key freer. */
const RELATIONS: readonly (readonly [string, Actor, ClientFields, 'ok' | 'permissions_exceeded'])[] = [
  ['may grant all of it', owner({ grantable: HELD }), {}, 'ok'],
  ['may grant some of it', owner({ grantable: SOME }), {}, 'permissions_exceeded'],
  ['may grant less of an action', owner({ grantable: { '*': ['read'] } }), {}, 'permissions_exceeded'],
  ['may grant nothing', owner(), {}, 'permissions_exceeded'],
  [
    'may grant it to keys of another owner',
    checkActor({ id: 'u_1', owners: [OWNER, { type: 'user', id: 'u_2', grantable: HELD }] }),
    {},
    'permissions_exceeded',
  ],
  [
    'may grant it by an entry that only reads and revokes',
    checkActor({ id: 'u_1', owners: [{ ...OWNER, can: ['read', 'revoke'], grantable: HELD }, OWNER] }),
    {},
    'permissions_exceeded',
  ],
  [
    'may grant all of it, above what clients may set',
    owner({ grantable: HELD }),
    { permissions: SOME },
    'permissions_exceeded',
  ],
  ['is an admin', admin(), {}, 'ok'],
  ['is an admin, above what clients may set', admin(), { permissions: SOME }, 'ok'],
  ['is an admin that may grant some of it', admin({ grantable: SOME }), {}, 'permissions_exceeded'],
]

const MINUTE = { name: 'minute', limit: 100, windowMs: 60_000 }
const HOUR = { name: 'hour', limit: 1_000, windowMs: 3_600_000 }
const BUCKET = { name: 'burst', limit: 10, windowMs: 1_000, burst: 20 }
const DAILY = { name: 'daily', limit: 1_000, per: 'day' } as const
const quotaOf = (remaining: number, refill: object | null = null) =>
  ({ quota: { remaining, refill, nextRefillAt: null } }) as unknown as Partial<ApiKey>
const quota = (remaining: number, refill: object | null = null) => ({ quota: { remaining, refill } })

type Row = readonly [field: string, direction: string, before: Partial<ApiKey>, change: object]

const FREER: readonly Row[] = [
  ['expiresAt', 'later', { expiresAt: later(DAY) }, { expiresAt: later(DAY + 1) }],
  ['expiresAt', 'none', { expiresAt: later(DAY) }, { expiresAt: null }],
  ['expiresAt', 'revived', { expiresAt: later(-1) }, { expiresAt: later(1) }],
  ['expiresAt', 'revived for good', { expiresAt: later(-1) }, { expiresAt: null }],
  ['idleExpiryMs', 'longer', { idleExpiryMs: DAY }, { idleExpiryMs: DAY + 1 }],
  ['idleExpiryMs', 'none', { idleExpiryMs: DAY }, { idleExpiryMs: null }],
  ['idleExpiryMs', 'revived', { idleExpiryMs: DAY }, { idleExpiryMs: 20 * DAY }],
  ['allowedIps', 'everywhere', { allowedIps: ['192.0.2.1'] }, { allowedIps: null }],
  ['allowedIps', 'more', { allowedIps: ['192.0.2.1'] }, { allowedIps: ['192.0.2.1', '192.0.2.2'] }],
  ['allowedIps', 'other', { allowedIps: ['192.0.2.1'] }, { allowedIps: ['192.0.2.2'] }],
  ['allowedIps', 'a wider block', { allowedIps: ['192.0.2.0/24'] }, { allowedIps: ['192.0.2.0/23'] }],
  ['allowedIps', 'the next block', { allowedIps: ['192.0.2.0/25'] }, { allowedIps: ['192.0.2.128/25'] }],
  ['allowedIps', 'a wider block, IPv6', { allowedIps: ['2001:db8::/64'] }, { allowedIps: ['2001:db8::/63'] }],
  ['allowedIps', 'every IPv6 address', { allowedIps: ['0.0.0.0/0'] }, { allowedIps: ['::/0'] }],
  [
    'allowedIps',
    'a wider block, mapped',
    { allowedIps: ['192.0.2.0/24'] },
    { allowedIps: ['::ffff:0:0/96'] },
  ],
  ['allowedIps', 'some for none', { allowedIps: [] }, { allowedIps: ['192.0.2.1'] }],
  ['rateLimits', 'higher', { rateLimits: [MINUTE] }, { rateLimits: [{ ...MINUTE, limit: 101 }] }],
  ['rateLimits', 'a wider burst', { rateLimits: [BUCKET] }, { rateLimits: [{ ...BUCKET, burst: 21 }] }],
  ['rateLimits', 'a faster bucket', { rateLimits: [BUCKET] }, { rateLimits: [{ ...BUCKET, limit: 11 }] }],
  ['rateLimits', 'fewer', { rateLimits: [MINUTE, HOUR] }, { rateLimits: [MINUTE] }],
  ['rateLimits', 'none', { rateLimits: [HOUR] }, { rateLimits: [] }],
  ['rateLimits', 'none for the default', { rateLimits: null }, { rateLimits: [] }],
  ['rateLimits', 'above the default', { rateLimits: null }, { rateLimits: [{ ...MINUTE, limit: 101 }] }],
  ['rateLimits', 'a higher default', { rateLimits: [{ ...MINUTE, limit: 99 }] }, { rateLimits: null }],
  ['rateLimits', 'a default that lacks one', { rateLimits: [MINUTE, HOUR] }, { rateLimits: null }],
  [
    'rateLimits',
    'another window',
    { rateLimits: [HOUR] },
    { rateLimits: [{ ...HOUR, windowMs: 7_200_000 }] },
  ],
  ['rateLimits', 'another name', { rateLimits: [HOUR] }, { rateLimits: [{ ...HOUR, name: 'h' }] }],
  [
    'rateLimits',
    'another zone',
    { rateLimits: [DAILY] },
    { rateLimits: [{ ...DAILY, timeZone: 'Asia/Tokyo' }] },
  ],
  ['quota', 'none', quotaOf(5), { quota: null }],
  ['quota', 'more', quotaOf(5), quota(6)],
  ['quota', 'more, for one that is used up', quotaOf(0), quota(1)],
  ['quota', 'a refill', quotaOf(5), quota(5, { amount: 1, everyMs: DAY })],
  ['quota', 'a larger refill', quotaOf(5, { amount: 5, per: 'day' }), quota(5, { amount: 6, per: 'day' })],
  [
    'quota',
    'a sooner refill',
    quotaOf(5, { amount: 5, everyMs: DAY }),
    quota(5, { amount: 5, everyMs: DAY - 1 }),
  ],
  [
    'quota',
    'a daily for a monthly refill',
    quotaOf(5, { amount: 5, per: 'month' }),
    quota(5, { amount: 5, per: 'day' }),
  ],
  [
    'quota',
    'a refill by the calendar',
    quotaOf(5, { amount: 5, everyMs: 28 * DAY }),
    quota(5, { amount: 5, per: 'month' }),
  ],
  [
    'quota',
    'a refill in another zone',
    quotaOf(5, { amount: 5, per: 'day' }),
    quota(5, { amount: 5, per: 'day', timeZone: 'Asia/Tokyo' }),
  ],
  [
    'several',
    'one of them',
    { expiresAt: later(9 * DAY), allowedIps: ['192.0.2.1'] },
    { expiresAt: later(DAY), allowedIps: null },
  ],
]

const NO_FREER: readonly Row[] = [
  ['name', 'another', {}, { name: 'other' }],
  ['metadata', 'other', {}, { metadata: { a: 1 } }],
  ['permissions', 'the same', {}, { permissions: HELD }],
  ['permissions', 'fewer', {}, { permissions: { billing: ['read'] } }],
  ['expiresAt', 'sooner', { expiresAt: later(DAY) }, { expiresAt: later(DAY - 1) }],
  ['expiresAt', 'the same', { expiresAt: later(DAY) }, { expiresAt: later(DAY) }],
  ['expiresAt', 'none still', { expiresAt: null }, { expiresAt: null }],
  ['expiresAt', 'one for none', { expiresAt: null }, { expiresAt: later(9_000 * DAY) }],
  ['idleExpiryMs', 'shorter', { idleExpiryMs: 20 * DAY }, { idleExpiryMs: DAY }],
  ['idleExpiryMs', 'the same', { idleExpiryMs: DAY }, { idleExpiryMs: DAY }],
  ['idleExpiryMs', 'one for none', { idleExpiryMs: null }, { idleExpiryMs: 1_000 * DAY }],
  ['allowedIps', 'the same', { allowedIps: ['192.0.2.1'] }, { allowedIps: ['192.0.2.1'] }],
  ['allowedIps', 'fewer', { allowedIps: ['192.0.2.1', '192.0.2.2'] }, { allowedIps: ['192.0.2.2'] }],
  [
    'allowedIps',
    'a narrower block',
    { allowedIps: ['192.0.2.0/24'] },
    { allowedIps: ['192.0.2.128/25', '192.0.2.7'] },
  ],
  [
    'allowedIps',
    'the same block, written otherwise',
    { allowedIps: ['192.0.2.0/24'] },
    { allowedIps: ['192.0.2.9/24', '::ffff:192.0.2.0/120'] },
  ],
  [
    'allowedIps',
    'IPv4 of everything',
    { allowedIps: ['::/0'] },
    { allowedIps: ['0.0.0.0/0', '2001:db8::1'] },
  ],
  ['allowedIps', 'some for everywhere', { allowedIps: null }, { allowedIps: ['0.0.0.0/0'] }],
  ['allowedIps', 'none', { allowedIps: ['192.0.2.1'] }, { allowedIps: [] }],
  ['rateLimits', 'lower', { rateLimits: [MINUTE] }, { rateLimits: [{ ...MINUTE, limit: 99 }] }],
  ['rateLimits', 'a narrower burst', { rateLimits: [BUCKET] }, { rateLimits: [{ ...BUCKET, burst: 1 }] }],
  [
    'rateLimits',
    'the same, in another order',
    { rateLimits: [MINUTE, HOUR] },
    { rateLimits: [HOUR, MINUTE] },
  ],
  ['rateLimits', 'a further one', { rateLimits: [MINUTE] }, { rateLimits: [MINUTE, DAILY] }],
  ['rateLimits', 'some for none', { rateLimits: [] }, { rateLimits: [{ ...MINUTE, limit: 1e12 }] }],
  ['rateLimits', 'the default for none', { rateLimits: [] }, { rateLimits: null }],
  ['rateLimits', 'the default still', { rateLimits: null }, { rateLimits: null }],
  ['rateLimits', 'a lower default', { rateLimits: [{ ...MINUTE, limit: 101 }] }, { rateLimits: null }],
  ['rateLimits', 'below the default', { rateLimits: null }, { rateLimits: [{ ...MINUTE, limit: 99 }, HOUR] }],
  ['quota', 'less', quotaOf(5), quota(4)],
  ['quota', 'the same', quotaOf(5, { amount: 5, per: 'day' }), quota(5, { amount: 5, per: 'day' })],
  ['quota', 'one for none', { quota: null }, quota(1e6, { amount: 1e6, everyMs: 1_000 })],
  ['quota', 'no refill', quotaOf(5, { amount: 5, per: 'day' }), quota(5)],
  ['quota', 'a smaller refill', quotaOf(5, { amount: 5, per: 'day' }), quota(5, { amount: 4, per: 'day' })],
  [
    'quota',
    'a rarer refill',
    quotaOf(5, { amount: 5, everyMs: DAY }),
    quota(5, { amount: 5, everyMs: DAY + 1 }),
  ],
  [
    'quota',
    'a monthly for a daily refill',
    quotaOf(5, { amount: 5, per: 'day' }),
    quota(5, { amount: 5, per: 'month', timeZone: 'UTC' }),
  ],
]

/** Those that clients may set, as far up as can be. */
const OPEN: ClientFields = {
  quota: { maxRemaining: 1e12, maxRefillAmount: 1e12, minRefillMs: 1_000 },
}

function ask(actor: Actor, fields: ClientFields, action: Action, key: ApiKey, change: object | null) {
  const policy = resolvePolicy(
    { clientFields: { ...OPEN, ...fields } },
    compileRateLimits('defaults', [MINUTE]),
  )
  return decide(actor, action, key, change, policy, NOW)
}

/** Of what clients may set, rate limits are the ones that take ceilings: here, whatever is asked for is at them. */
function ceilingsFor(change: { rateLimits?: readonly RateLimit[] | null }): ClientFields {
  const ceilings = change.rateLimits?.length ? change.rateLimits : [MINUTE]
  return { rateLimits: ceilings }
}

describe.each(RELATIONS)('an actor that %s', (_relation, actor, fields, expected) => {
  it.each(FREER)(`makes a key freer, or not: %s, %s`, (field, _direction, before, change) => {
    const decision = ask(actor, { ...ceilingsFor(change), ...fields }, 'update', keyWith(before), change)
    // No limits and no quota at all are above every ceiling, where one is.
    const { rateLimits, quota } = change as { rateLimits?: readonly unknown[]; quota?: null }
    const isAbove = rateLimits?.length === 0 || quota === null
    const allowed = isAbove && actor.admin !== true ? 'ceiling_exceeded' : 'ok'
    expect(decision.ok ? 'ok' : decision.code).toBe(expected === 'ok' ? allowed : expected)
    if (expected === 'ok') return
    const loosened = field === 'several' ? 'allowedIps' : field
    expect(decision).toMatchObject({ field: 'permissions' })
    expect(decision).toHaveProperty('accepted', expect.stringMatching(`, to loosen "${loosened}"$`))
  })

  it.each(NO_FREER)('makes a key no freer: %s, %s', (_field, _direction, before, change) => {
    const decision = ask(actor, { ...ceilingsFor(change), ...fields }, 'update', keyWith(before), change)
    expect(decision).toMatchObject({ ok: true })
  })

  it.each(['enable', 'rotate'] as const)('lets it work anew, or not: %s', (action) => {
    const key = keyWith({ enabled: false })
    const decision = ask(actor, fields, action, key, null)
    expect(decision.ok ? 'ok' : decision.code).toBe(expected)
  })

  it.each(['read', 'disable', 'revoke'] as const)('does what makes no key freer: %s', (action) => {
    expect(ask(actor, fields, action, keyWith({}), null)).toMatchObject({ ok: true })
  })

  it('makes a key freer that keeps only what may be granted', () => {
    const change = { expiresAt: null, allowedIps: null, permissions: { projects: ['read'] } }
    const key = keyWith({ expiresAt: later(DAY), allowedIps: ['192.0.2.1'] })
    const isNothing = expected !== 'ok' && !isGrantable(actor)
    expect(ask(actor, fields, 'update', key, change).ok).toBe(!isNothing)
    expect(ask(actor, fields, 'update', { ...key, permissions: {} }, { expiresAt: null }).ok).toBe(true)
  })
})

/** Whether the actor may grant at least to read projects to this owner's keys. */
function isGrantable(actor: Actor): boolean {
  const issue = { name: 'n', owner: OWNER, permissions: { projects: ['read'] } }
  return decide(actor, 'issue', null, issue, resolvePolicy(), NOW).ok
}

describe('what needs two abilities', () => {
  it('takes the permission to grant by each of them', () => {
    for (const [create, update] of [
      [HELD, SOME],
      [SOME, HELD],
    ]) {
      const owners = [
        { ...OWNER, can: ['create'], grantable: create },
        { ...OWNER, can: ['update'], grantable: update },
      ]
      const decision = ask(checkActor({ id: 'u_1', owners }), {}, 'rotate', keyWith({}), null)
      expect(decision).toMatchObject({ code: 'permissions_exceeded' })
    }
  })
})

describe.each(ROUTERS)('a key that was lent, behind %s', (_name, build) => {
  const lent = {
    ...NAME,
    permissions: { billing: ['*'] },
    allowedIps: ['203.0.113.7'],
    idleExpiryMs: 60_000,
    rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }],
  }

  it.each([
    ['allowedIps', ['203.0.113.7', '0.0.0.0/0']],
    ['idleExpiryMs', null],
    ['rateLimits', null],
  ])('is not made freer by its owner: %s', async (field, value) => {
    const world = await createWorld({ clientFields: { rateLimits: lent.rateLimits } }, build)
    const { apiKey } = await world.keys.issue(lent)
    const change = (as: string) => world.call('PATCH', `/${apiKey.id}`, { as, json: { [field]: value } })
    expect((await change('alice')).body).toMatchObject({ status: 403, code: 'permissions_exceeded' })
    expect(await world.keys.get(apiKey.id)).toEqual(apiKey)
    expect((await change('admin')).body).toMatchObject({ [field]: value })
  })

  it('is measured by the default of the service where it inherits that', async () => {
    const { call, keys } = await createWorld(
      { clientFields: { rateLimits: [{ name: 'minute', limit: 1_000, windowMs: 60_000 }] } },
      build,
      createTestKeys({ rateLimits: [{ name: 'minute', limit: 50, windowMs: 60_000 }] }),
    )
    const { apiKey } = await keys.issue({ ...NAME, permissions: { billing: ['*'] } })
    const setLimit = async (limit: number) => {
      const rateLimits = [{ name: 'minute', limit, windowMs: 60_000 }]
      return (await call('PATCH', `/${apiKey.id}`, { as: 'alice', json: { rateLimits } })).status
    }
    expect(await setLimit(51)).toBe(403)
    expect(await setLimit(50)).toBe(200)
    expect(await setLimit(49)).toBe(200)
    expect(await setLimit(50)).toBe(403)
    expect((await call('PATCH', `/${apiKey.id}`, { as: 'alice', json: { rateLimits: null } })).status).toBe(
      403,
    )
  })
})

describe.each(ROUTERS)('a quota that a key shares with its successor, behind %s', (_name, build) => {
  const more = { quota: { remaining: 1_000 } }

  async function rotated() {
    const world = await createWorld({ clientFields: { quota: { maxRemaining: 1_000 } } }, build)
    const { apiKey } = await world.keys.issue({
      ...NAME,
      permissions: { billing: ['*'] },
      quota: { remaining: 3 },
    })
    const { apiKey: successor, previous } = await world.keys.rotate(apiKey.id)
    const change = (id: string, json: object) => world.call('PATCH', `/${id}`, { as: 'alice', json })
    return { ...world, successor, previous, change }
  }

  it('is not raised through the old key by who may not grant what the new one holds', async () => {
    const { keys, clock, successor, previous, change } = await rotated()
    await change(previous.id, { permissions: {} })
    expect((await change(previous.id, more)).body).toMatchObject({ code: 'permissions_exceeded' })
    await clock.advance(2 * DAY)
    expect((await change(previous.id, more)).body).toMatchObject({ code: 'permissions_exceeded' })
    expect((await change(previous.id, { quota: { remaining: 2 } })).status).toBe(200)
    expect((await keys.get(successor.id))?.quota?.remaining).toBe(2)
  })

  it('is not raised through the new key while the old one works and holds more', async () => {
    const { clock, successor, change } = await rotated()
    await change(successor.id, { permissions: {} })
    expect((await change(successor.id, more)).body).toMatchObject({ code: 'permissions_exceeded' })
    await clock.advance(2 * DAY)
    expect((await change(successor.id, more)).status).toBe(200)
  })

  it('is raised where the other key is revoked', async () => {
    const { keys, successor, previous, change } = await rotated()
    await change(previous.id, { permissions: {} })
    await keys.revoke(successor.id)
    expect((await change(previous.id, more)).status).toBe(200)
  })
})
