import type { ApiKey, KeyRecord, KeySettings, Permissions, QuotaRefill } from 'latchkey'
import type { Actor, ActorOwner, ClientFields } from 'latchkey/management'
import { describe, expect, it } from 'vitest'
import { createManagement, DAY, type GivenKey, later, USER } from '../support/ask-management.ts'

/** What the key holds: only some of it may be granted by those who may not grant all. */
const HELD = { projects: ['read'], billing: ['*'] }
const SOME = { projects: ['read', 'write'] }
const READ = { projects: ['read'] }

const owner = (more: Partial<ActorOwner & Actor> = {}): Actor => ({ id: 'u_1', owners: [USER], ...more })
const admin = (more: Partial<Actor> = {}): Actor => ({ id: 'root', admin: true, ...more })

interface Relation {
  readonly as: Actor
  readonly fields?: ClientFields
  /** Whether the actor may make the key freer, and whether it may once the key can do no more than `READ`. */
  readonly grants: { readonly all: boolean; readonly read: boolean }
}

const ALL = { all: true, read: true }
const PART = { all: false, read: true }
const NONE = { all: false, read: false }

/** How the actor stands to what the key holds. */
const RELATIONS: Readonly<Record<string, Relation>> = {
  'may grant all of it': { as: owner({ grantable: HELD }), grants: ALL },
  'may grant some of it': { as: owner({ grantable: SOME }), grants: PART },
  'may grant less of an action': { as: owner({ grantable: { '*': ['read'] } }), grants: PART },
  'may grant nothing': { as: owner(), grants: NONE },
  'may grant it to keys of another owner': {
    as: owner({ owners: [USER, { type: 'user', id: 'u_2', grantable: HELD }] }),
    grants: NONE,
  },
  'may grant it by an entry that only reads and revokes': {
    as: owner({ owners: [{ ...USER, can: ['read', 'revoke'], grantable: HELD }, USER] }),
    grants: NONE,
  },
  'may grant all of it, above what clients may set': {
    as: owner({ grantable: HELD }),
    fields: { permissions: SOME },
    grants: PART,
  },
  'is an admin': { as: admin(), grants: ALL },
  'is an admin, above what clients may set': { as: admin(), fields: { permissions: SOME }, grants: ALL },
  'is an admin that may grant some of it': { as: admin({ grantable: SOME }), grants: PART },
}

const MINUTE = { name: 'minute', limit: 100, windowMs: 60_000 }
const HOUR = { name: 'hour', limit: 1_000, windowMs: 3_600_000 }
const BUCKET = { name: 'burst', limit: 10, windowMs: 1_000, burst: 20 }
const DAILY = { name: 'daily', limit: 1_000, per: 'day' } as const
const quota = (remaining: number, refill: QuotaRefill | null = null) => ({ quota: { remaining, refill } })

type Row = readonly [field: string, direction: string, before: GivenKey, change: Partial<KeySettings>]

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
  [
    'rateLimits',
    'one that counts less',
    { rateLimits: [MINUTE] },
    { rateLimits: [{ ...MINUTE, only: 'named' }] },
  ],
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
  ['quota', 'none', quota(5), { quota: null }],
  ['quota', 'more', quota(5), quota(6)],
  ['quota', 'more, for one that is used up', quota(0), quota(1)],
  ['quota', 'a refill', quota(5), quota(5, { amount: 1, everyMs: DAY })],
  ['quota', 'a larger refill', quota(5, { amount: 5, per: 'day' }), quota(5, { amount: 6, per: 'day' })],
  [
    'quota',
    'a sooner refill',
    quota(5, { amount: 5, everyMs: DAY }),
    quota(5, { amount: 5, everyMs: DAY - 1 }),
  ],
  [
    'quota',
    'a daily for a monthly refill',
    quota(5, { amount: 5, per: 'month' }),
    quota(5, { amount: 5, per: 'day' }),
  ],
  [
    'quota',
    'a refill by the calendar',
    quota(5, { amount: 5, everyMs: 28 * DAY }),
    quota(5, { amount: 5, per: 'month' }),
  ],
  [
    'quota',
    'a refill in another zone',
    quota(5, { amount: 5, per: 'day' }),
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
  ['quota', 'less', quota(5), quota(4)],
  ['quota', 'the same', quota(5, { amount: 5, per: 'day' }), quota(5, { amount: 5, per: 'day' })],
  ['quota', 'one for none', { quota: null }, quota(1e6, { amount: 1e6, everyMs: 1_000 })],
  ['quota', 'no refill', quota(5, { amount: 5, per: 'day' }), quota(5)],
  ['quota', 'a smaller refill', quota(5, { amount: 5, per: 'day' }), quota(5, { amount: 4, per: 'day' })],
  [
    'quota',
    'a rarer refill',
    quota(5, { amount: 5, everyMs: DAY }),
    quota(5, { amount: 5, everyMs: DAY + 1 }),
  ],
  [
    'quota',
    'a monthly for a daily refill',
    quota(5, { amount: 5, per: 'day' }),
    quota(5, { amount: 5, per: 'month', timeZone: 'UTC' }),
  ],
]

/** Of what clients may set, rate limits are the ones that take ceilings: here, whatever is asked for is at them. */
function fieldsFor({ rateLimits }: Partial<KeySettings>): ClientFields {
  return {
    quota: { maxRemaining: 1e12, maxRefillAmount: 1e12, minRefillMs: 1_000 },
    rateLimits: rateLimits?.length ? rateLimits : [MINUTE],
  }
}

/** No limits and no quota at all are above every ceiling, where one is. */
function isAboveCeilings({ rateLimits, quota }: Partial<KeySettings>): boolean {
  return rateLimits?.length === 0 || quota === null
}

const titleOf = ([field, direction]: Row) => `${field}: ${direction}`

describe.each(Object.entries(RELATIONS))('an actor that %s', (_relation, { as, fields, grants }) => {
  const { give, ask, keys } = createManagement({ rateLimits: [MINUTE] })

  /** What comes of a change of a key that was given so; where the key is too much to grant, also what would loosen it. */
  async function outcomeOf(before: GivenKey, json: Partial<KeySettings>): Promise<string> {
    const { id } = await give({ permissions: HELD, ...before })
    const clientFields = { ...fieldsFor(json), ...fields }
    const { outcome, field, accepted } = await ask({ as, action: 'update', id, json, clientFields })
    return outcome === 'permissions_exceeded'
      ? `${field}${/, to loosen .*$/.exec(accepted ?? '')?.[0]}`
      : outcome
  }

  it('makes a key freer, or not', async () => {
    const outcomes: Record<string, string> = {}
    const expected: Record<string, string> = {}
    for (const row of FREER) {
      const [field, , before, change] = row
      outcomes[titleOf(row)] = await outcomeOf(before, change)
      const isRefused = isAboveCeilings(change) && as.admin !== true
      const loosened = field === 'several' ? 'allowedIps' : field
      expected[titleOf(row)] = !grants.all
        ? `permissions, to loosen "${loosened}"`
        : isRefused
          ? 'ceiling_exceeded'
          : 'ok'
    }
    expect(outcomes).toEqual(expected)
  })

  it('makes a key no freer, which takes no permission', async () => {
    const outcomes: Record<string, string> = {}
    for (const row of NO_FREER) outcomes[titleOf(row)] = await outcomeOf(row[2], row[3])
    expect(outcomes).toEqual(Object.fromEntries(NO_FREER.map((row) => [titleOf(row), 'ok'])))
  })

  it('makes a key freer that keeps only what may be granted', async () => {
    const before = { allowedIps: ['192.0.2.1'], expiresAt: later(DAY) }
    const change = { allowedIps: null, expiresAt: null }
    const refused = 'permissions, to loosen "allowedIps"'
    expect(await outcomeOf(before, { ...change, permissions: READ })).toBe(grants.read ? 'ok' : refused)
    expect(await outcomeOf({ ...before, permissions: {} }, change)).toBe('ok')
  })

  it('lets a key work anew, or not, and does all that makes it no freer', async () => {
    const outcomes: Record<string, string> = {}
    for (const action of ['enable', 'rotate', 'read', 'disable', 'revoke'] as const) {
      const { id } = await give({ permissions: HELD })
      if (action === 'enable') await keys.disable(id)
      const answer = await ask({ as, action, id, ...(fields && { clientFields: fields }) })
      outcomes[action] = answer.outcome
      // There is no setting to leave alone.
      expect(answer.accepted ?? '').not.toContain('to loosen')
    }
    const anew = grants.all ? 'ok' : 'permissions_exceeded'
    expect(outcomes).toEqual({ enable: anew, rotate: anew, read: 'ok', disable: 'ok', revoke: 'ok' })
  })
})

it('takes a refill by the calendar for one of UTC where a store names no zone', async () => {
  const { give, outcomeOf, store } = createManagement()
  const { id } = await give({ permissions: HELD, ...quota(5, { amount: 5, per: 'day' }) })
  store.fail('find', async (work) => {
    const record = (await work()) as KeyRecord
    return { ...record, quota: { ...record.quota, refill: { amount: 5, per: 'day' } } }
  })
  const change = (timeZone: string) => {
    const json = quota(5, { amount: 4, per: 'day', timeZone })
    return outcomeOf({ as: owner(), action: 'update', id, json, clientFields: fieldsFor({}) })
  }
  expect(await change('Asia/Tokyo')).toBe('permissions_exceeded')
  expect(await change('UTC')).toBe('ok')
})

describe('what needs two abilities', () => {
  it('takes the permission to grant by each of them', async () => {
    const rotate = async (create: Permissions, update: Permissions) => {
      const { give, outcomeOf } = createManagement()
      const { id } = await give({ permissions: HELD })
      const owners: ActorOwner[] = [
        { ...USER, can: ['create'], grantable: create },
        { ...USER, can: ['update'], grantable: update },
      ]
      return outcomeOf({ as: owner({ owners }), action: 'rotate', id })
    }
    expect(await rotate(HELD, SOME)).toBe('permissions_exceeded')
    expect(await rotate(SOME, HELD)).toBe('permissions_exceeded')
    expect(await rotate(HELD, HELD)).toBe('ok')
  })
})

describe('a quota that a key shares with its successor', () => {
  const as = owner({ grantable: SOME })
  const more = { quota: { remaining: 1_000 } }

  async function rotated() {
    const management = createManagement()
    const { id } = await management.give({ permissions: { billing: ['*'] }, quota: { remaining: 3 } })
    const { apiKey: successor, previous } = await management.keys.rotate(id)
    const change = ({ id }: ApiKey, json: object) =>
      management.outcomeOf({
        as,
        action: 'update',
        id,
        json,
        clientFields: { quota: { maxRemaining: 1_000 } },
      })
    return { ...management, successor, previous, change }
  }

  it('is not raised through the old key by who may not grant what the new one holds', async () => {
    const { keys, clock, successor, previous, change } = await rotated()
    await change(previous, { permissions: {} })
    expect(await change(previous, more)).toBe('permissions_exceeded')
    await clock.advance(2 * DAY)
    expect(await change(previous, more)).toBe('permissions_exceeded')
    expect(await change(previous, { quota: { remaining: 2 } })).toBe('ok')
    expect((await keys.get(successor.id))?.quota?.remaining).toBe(2)
  })

  it('is not raised through the new key while the old one works and holds more', async () => {
    const { clock, successor, change } = await rotated()
    await change(successor, { permissions: {} })
    expect(await change(successor, more)).toBe('permissions_exceeded')
    await clock.advance(2 * DAY)
    expect(await change(successor, more)).toBe('ok')
  })

  it('is raised where the other key is revoked', async () => {
    const { keys, successor, previous, change } = await rotated()
    await change(previous, { permissions: {} })
    await keys.revoke(successor.id)
    expect(await change(previous, more)).toBe('ok')
  })
})
