import type { ApiKey } from 'latchkey'
import type { Action, Actor, ClientFields } from 'latchkey/management'
import { describe, expect, it } from 'vitest'
import {
  createManagement,
  DAY,
  type GivenKey,
  later,
  type Management,
  USER,
} from '../support/ask-management.ts'

/** JSON as a client sends it: `__proto__` is a member like any other. */
const json = (text: string) => JSON.parse(text)

const READ = { projects: ['read'] }
const ADMIN: Actor = { id: 'root', admin: true, owners: [{ ...USER, can: ['read'] }] }

/** An owner that may grant to read and write projects, and the key that it changes. */
const CLIENT: Actor = {
  id: 'u_1',
  owners: [USER],
  grantable: { projects: ['read', 'write'], reports: ['*'] },
}

const MINUTE = { name: 'minute', limit: 100, windowMs: 60_000 }
const BURST = { name: 'burst', limit: 10, windowMs: 1_000, burst: 20 }
const DAILY = { name: 'daily', limit: 1_000, per: 'day' } as const
const NAMED = { ...MINUTE, only: 'named' } as const
const PARALLEL = { name: 'parallel', concurrent: 5, maxHeldMs: 30_000 }
const CEILINGS = [MINUTE, BURST, DAILY]

type Row = readonly [
  what: string,
  fields: ClientFields,
  field: keyof ClientFields | 'name',
  value: unknown,
  atIssue: string,
  atUpdate?: string,
]

const no = 'field_not_allowed'
const over = 'ceiling_exceeded'
const perm = 'permissions_exceeded'
/** Refused before the policy is asked, to an admin as well. */
const bad = 'invalid_request'

/** By hand: a field, its policy, its value, what comes of it at issue and at update of a key that has none of it. */
const FIELDS: readonly Row[] = [
  // by default
  ['permissions that may be granted', {}, 'permissions', { projects: ['read'] }, 'ok'],
  ['permissions that may not be', {}, 'permissions', { projects: ['admin'] }, perm],
  ['every action, where some may be granted', {}, 'permissions', { projects: ['*'] }, perm],
  ['every action, where it may be granted', {}, 'permissions', { reports: ['*'] }, 'ok'],
  ['an action on everything', {}, 'permissions', { '*': ['read'] }, perm],
  ['a permission on the prototype', {}, 'permissions', json('{"__proto__":["read"]}'), bad],
  ['a permission on a constructor', {}, 'permissions', { constructor: ['read'] }, bad],
  ['no permissions', {}, 'permissions', {}, 'ok'],
  ['rate limits', {}, 'rateLimits', [MINUTE], no],
  ['rate limits of the service, by name', {}, 'rateLimits', null, no],
  ['a quota', {}, 'quota', { remaining: 1 }, no],
  ['no quota, by name', {}, 'quota', null, no],
  ['an end', {}, 'expiresAt', later(1_000 * DAY), 'ok'],
  ['no end', {}, 'expiresAt', null, 'ok'],
  ['idleness', {}, 'idleExpiryMs', 60_000, 'ok'],
  ['no idleness', {}, 'idleExpiryMs', null, 'ok'],
  ['addresses', {}, 'allowedIps', ['192.0.2.0/24'], 'ok'],
  ['no addresses', {}, 'allowedIps', null, 'ok'],
  ['metadata', {}, 'metadata', { a: 1 }, 'ok'],
  ['metadata named like a prototype', {}, 'metadata', json('{"__proto__":{"admin":true}}'), bad],
  ['a prefix', {}, 'prefix', 'acme', no],
  // closed
  ['permissions, closed', { permissions: false }, 'permissions', { projects: ['read'] }, no],
  ['no permissions, closed', { permissions: false }, 'permissions', {}, no],
  ['an end, closed', { expiresAt: false }, 'expiresAt', later(DAY), no],
  ['no end, closed', { expiresAt: false }, 'expiresAt', null, no],
  ['idleness, closed', { idleExpiryMs: false }, 'idleExpiryMs', 60_000, no],
  ['addresses, closed', { allowedIps: false }, 'allowedIps', ['192.0.2.1'], no],
  ['metadata, closed', { metadata: false }, 'metadata', {}, no],
  ['the name, which nothing closes', { metadata: false }, 'name', 'other', 'ok'],
  // permissions
  ['permissions below the ceiling', { permissions: READ }, 'permissions', { projects: ['read'] }, 'ok'],
  ['permissions above it', { permissions: READ }, 'permissions', { projects: ['write'] }, perm],
  [
    'permissions that may not be granted, below it',
    { permissions: { '*': ['*'] } },
    'permissions',
    { projects: ['admin'] },
    perm,
  ],
  ['permissions under an empty ceiling', { permissions: {} }, 'permissions', { projects: ['read'] }, perm],
  // rate limits
  ['limits at their ceilings', { rateLimits: CEILINGS }, 'rateLimits', CEILINGS, 'ok'],
  ['the default of the service', { rateLimits: CEILINGS }, 'rateLimits', null, 'ok'],
  ['no limits', { rateLimits: CEILINGS }, 'rateLimits', [], over],
  ['a limit left out', { rateLimits: CEILINGS }, 'rateLimits', [MINUTE, BURST], over],
  [
    'lower limits and another',
    { rateLimits: [MINUTE] },
    'rateLimits',
    [
      { name: 'x', limit: 9e9, windowMs: 1_000 },
      { ...MINUTE, limit: 99 },
    ],
    'ok',
  ],
  ['a limit that counts less', { rateLimits: [MINUTE] }, 'rateLimits', [{ ...MINUTE, only: 'named' }], over],
  ['a limit that counts more', { rateLimits: [NAMED] }, 'rateLimits', [MINUTE], 'ok'],
  ['a limit that counts as much', { rateLimits: [NAMED] }, 'rateLimits', [NAMED], 'ok'],
  ['a higher limit', { rateLimits: [MINUTE] }, 'rateLimits', [{ ...MINUTE, limit: 101 }], over],
  ['a shorter window', { rateLimits: [MINUTE] }, 'rateLimits', [{ ...MINUTE, windowMs: 59_999 }], over],
  ['a longer window', { rateLimits: [MINUTE] }, 'rateLimits', [{ ...MINUTE, windowMs: 60_001 }], over],
  ['a limit of another name', { rateLimits: [MINUTE] }, 'rateLimits', [{ ...MINUTE, name: 'm' }], over],
  ['a bucket for a window', { rateLimits: [MINUTE] }, 'rateLimits', [{ ...MINUTE, burst: 1 }], over],
  ['places, where a window is asked for', { rateLimits: [MINUTE] }, 'rateLimits', [PARALLEL], over],
  ['no places', { rateLimits: [PARALLEL] }, 'rateLimits', [], over],
  ['as many places', { rateLimits: [PARALLEL] }, 'rateLimits', [PARALLEL], 'ok'],
  ['fewer places', { rateLimits: [PARALLEL] }, 'rateLimits', [{ ...PARALLEL, concurrent: 1 }], 'ok'],
  ['more places', { rateLimits: [PARALLEL] }, 'rateLimits', [{ ...PARALLEL, concurrent: 6 }], over],
  ['places by name', { rateLimits: [PARALLEL] }, 'rateLimits', [{ ...PARALLEL, only: 'named' }], over],
  [
    'places that are held for longer',
    { rateLimits: [PARALLEL] },
    'rateLimits',
    [{ ...PARALLEL, maxHeldMs: 60_000 }],
    'ok',
  ],
  [
    'places that come free sooner',
    { rateLimits: [PARALLEL] },
    'rateLimits',
    [{ ...PARALLEL, maxHeldMs: 1_000 }],
    over,
  ],
  ['places of a window', { rateLimits: [PARALLEL] }, 'rateLimits', [{ ...PARALLEL, windowMs: 1_000 }], bad],
  ['no place at all', { rateLimits: [PARALLEL] }, 'rateLimits', [{ ...PARALLEL, concurrent: 0 }], bad],
  ['a wider bucket', { rateLimits: [BURST] }, 'rateLimits', [{ ...BURST, burst: 21 }], over],
  ['a narrower bucket', { rateLimits: [BURST] }, 'rateLimits', [{ ...BURST, burst: 1 }], 'ok'],
  ['a bucket that refills sooner', { rateLimits: [BURST] }, 'rateLimits', [{ ...BURST, limit: 11 }], over],
  ['the same zone, named', { rateLimits: [DAILY] }, 'rateLimits', [{ ...DAILY, timeZone: 'UTC' }], 'ok'],
  ['another zone', { rateLimits: [DAILY] }, 'rateLimits', [{ ...DAILY, timeZone: 'Asia/Tokyo' }], over],
  ['another period', { rateLimits: [DAILY] }, 'rateLimits', [{ ...DAILY, per: 'month' }], over],
  // quota
  ['a quota at its ceiling', { quota: { maxRemaining: 100 } }, 'quota', { remaining: 100 }, 'ok'],
  ['a quota above it', { quota: { maxRemaining: 100 } }, 'quota', { remaining: 101 }, over],
  ['no quota at all', { quota: { maxRemaining: 100 } }, 'quota', null, over, 'ok'],
  [
    'a refill where there is to be none',
    { quota: { maxRemaining: 100 } },
    'quota',
    { remaining: 1, refill: { amount: 1, everyMs: 300 * DAY } },
    over,
  ],
  [
    'a refill at its ceiling, every day',
    { quota: { maxRemaining: 100, maxRefillAmount: 50 } },
    'quota',
    { remaining: 1, refill: { amount: 50, per: 'day' } },
    'ok',
  ],
  [
    'a refill above it',
    { quota: { maxRemaining: 100, maxRefillAmount: 50 } },
    'quota',
    { remaining: 1, refill: { amount: 51, per: 'month' } },
    over,
  ],
  [
    'a refill that comes sooner than a day',
    { quota: { maxRemaining: 100, maxRefillAmount: 50 } },
    'quota',
    { remaining: 1, refill: { amount: 1, everyMs: DAY - 1 } },
    over,
  ],
  [
    'a refill that comes as soon as it may',
    { quota: { maxRemaining: 100, maxRefillAmount: 50, minRefillMs: 5_000 } },
    'quota',
    { remaining: 1, refill: { amount: 1, everyMs: 5_000 } },
    'ok',
  ],
  [
    'a refill every day where a week is the least',
    { quota: { maxRemaining: 100, maxRefillAmount: 50, minRefillMs: 7 * DAY } },
    'quota',
    { remaining: 1, refill: { amount: 1, per: 'day' } },
    over,
  ],
  [
    'a refill every month where 28 days are the least',
    { quota: { maxRemaining: 100, maxRefillAmount: 50, minRefillMs: 28 * DAY } },
    'quota',
    { remaining: 1, refill: { amount: 1, per: 'month' } },
    'ok',
  ],
  [
    'a refill every month where 29 days are the least',
    { quota: { maxRemaining: 100, maxRefillAmount: 50, minRefillMs: 29 * DAY } },
    'quota',
    { remaining: 1, refill: { amount: 1, per: 'month' } },
    over,
  ],
  // ends: the key at update was made ten days ago and never expires
  ['an end at its ceiling', { expiresAt: { maxMs: 30 * DAY } }, 'expiresAt', later(30 * DAY), 'ok'],
  ['an end above it', { expiresAt: { maxMs: 30 * DAY } }, 'expiresAt', later(30 * DAY + 1), over],
  ['no end under a ceiling', { expiresAt: { maxMs: 30 * DAY } }, 'expiresAt', null, over, 'ok'],
  ['idleness at its ceiling', { idleExpiryMs: { maxMs: 60_000 } }, 'idleExpiryMs', 60_000, 'ok'],
  ['idleness above it', { idleExpiryMs: { maxMs: 60_000 } }, 'idleExpiryMs', 60_001, over],
  ['no idleness under it', { idleExpiryMs: { maxMs: 60_000 } }, 'idleExpiryMs', null, over, 'ok'],
  // prefixes, at issue only
  [
    'a prefix among those to choose from',
    { prefix: ['acme_test', 'acme_live'] },
    'prefix',
    'acme_live',
    'ok',
  ],
  ['a prefix that is not', { prefix: ['acme_test', 'acme_live'] }, 'prefix', 'acme_root', over],
]

const AT_UPDATE = FIELDS.filter(([, , field]) => field !== 'prefix')

/**
 * What comes of setting a field, in one word; where it is refused, the refusal has to be about that field and say what would be
 * accepted, and where it is not, the key has to have it.
 */
async function set(
  { ask }: Management,
  as: Actor,
  id: string | null,
  [, clientFields, field, value]: Row,
): Promise<string> {
  const change = { [field]: value }
  const answer =
    id === null
      ? await ask({ as, action: 'issue', json: { name: 'n', owner: USER, ...change }, clientFields })
      : await ask({ as, action: 'update', id, json: change, clientFields })
  if (answer.outcome === 'ok') {
    expect((answer.body.apiKey ?? answer.body) as ApiKey).toMatchObject(asJson(change))
    return 'ok'
  }
  expect(answer.field).toMatch(new RegExp(`^${field}`))
  expect(answer.accepted).toMatch(/./)
  return answer.outcome
}

function asJson<T>(value: T): T {
  return JSON.parse(JSON.stringify(value))
}

async function outcomesOf(
  rows: readonly Row[],
  outcomeOf: (row: Row) => Promise<string>,
): Promise<Record<string, string>> {
  const outcomes: Record<string, string> = {}
  for (const row of rows) outcomes[row[0]] = await outcomeOf(row)
  return outcomes
}

describe('what a client may set', () => {
  it('is tabled for every field', () => {
    const fields: Record<keyof Required<ClientFields> | 'name', true> = {
      name: true,
      permissions: true,
      rateLimits: true,
      quota: true,
      expiresAt: true,
      idleExpiryMs: true,
      allowedIps: true,
      metadata: true,
      prefix: true,
    }
    expect([...new Set(FIELDS.map(([, , field]) => field))].sort()).toEqual(Object.keys(fields).sort())
  })

  it('is as the table says, at issue', async () => {
    const management = createManagement()
    const outcomes = await outcomesOf(FIELDS, (row) => set(management, CLIENT, null, row))
    expect(outcomes).toEqual(Object.fromEntries(FIELDS.map(([what, , , , atIssue]) => [what, atIssue])))
  })

  it('is as the table says, at update, which changes nothing else', async () => {
    const management = createManagement()
    const outcomes = await outcomesOf(AT_UPDATE, async (row) => {
      const before = await management.give()
      const outcome = await set(management, CLIENT, before.id, row)
      const after = (await management.keys.get(before.id)) as ApiKey
      const { version, updatedAt, status } = after
      expect(after).toEqual({ ...before, version, updatedAt, status, [row[2]]: after[row[2]] })
      return outcome
    })
    expect(outcomes).toEqual(
      Object.fromEntries(AT_UPDATE.map(([what, , , , atIssue, atUpdate = atIssue]) => [what, atUpdate])),
    )
  })

  it('binds no admin', async () => {
    const management = createManagement()
    const outcomes = await outcomesOf(FIELDS, (row) => set(management, ADMIN, null, row))
    expect(outcomes).toEqual(
      Object.fromEntries(FIELDS.map(([what, , , , atIssue]) => [what, atIssue === bad ? bad : 'ok'])),
    )
  })

  it('is refused by its name where it is closed, whatever its value', async () => {
    const { give, ask } = createManagement()
    const { id } = await give()
    const question = { id, json: { allowedIps: ['nowhere'] }, clientFields: { allowedIps: false } }
    expect(await ask({ as: CLIENT, action: 'update', ...question })).toMatchObject({
      outcome: no,
      field: 'allowedIps',
    })
    expect(await ask({ as: ADMIN, action: 'update', ...question })).toMatchObject({ outcome: bad })
  })
})

describe('what a client leaves out', () => {
  const clientFields: ClientFields = {
    expiresAt: { maxMs: 30 * DAY },
    idleExpiryMs: { maxMs: DAY },
    quota: { maxRemaining: 100, maxRefillAmount: 50 },
    rateLimits: CEILINGS,
    permissions: READ,
    prefix: ['acme_live'],
  }
  const untouched = {
    rateLimits: null,
    permissions: {},
    prefix: 'acme_test',
    metadata: {},
    allowedIps: null,
    expiresAt: null,
    idleExpiryMs: null,
    quota: null,
  }

  it('becomes the most that may be set, on a new key', async () => {
    const { ask } = createManagement()
    const { body } = await ask({ as: CLIENT, action: 'issue', json: { name: 'n' }, clientFields })
    expect(body.apiKey).toEqual({
      ...(body.apiKey as object),
      ...untouched,
      owner: USER,
      expiresAt: later(30 * DAY).toISOString(),
      idleExpiryMs: DAY,
      quota: { remaining: 100, refill: null, nextRefillAt: null },
    })
  })

  it('stays what it is, on a key that is there', async () => {
    const { give, ask } = createManagement()
    const { id } = await give()
    const { body } = await ask({ as: CLIENT, action: 'update', id, json: { name: 'n' }, clientFields })
    expect(body).toEqual({ ...body, ...untouched, name: 'n' })
  })

  it('is not filled in for an admin', async () => {
    const { ask } = createManagement()
    const { body } = await ask({ as: ADMIN, action: 'issue', json: { name: 'n', owner: USER }, clientFields })
    expect(body.apiKey).toEqual({ ...(body.apiKey as object), ...untouched })
  })
})

/** What comes of each change of a key that is given anew for each. */
async function outcomesOfChanges(
  given: GivenKey,
  changes: Readonly<Record<string, object>>,
  clientFields: ClientFields,
): Promise<Record<string, string>> {
  const { give, outcomeOf } = createManagement()
  const outcomes: Record<string, string> = {}
  for (const [what, json] of Object.entries(changes)) {
    const { id } = await give(given)
    outcomes[what] = await outcomeOf({ as: CLIENT, action: 'update', id, json, clientFields })
  }
  return outcomes
}

describe('a change of a key that is beyond a ceiling', () => {
  const wide = {
    permissions: { billing: ['*'], projects: ['read'] },
    rateLimits: [{ ...MINUTE, limit: 5_000 }],
    quota: { remaining: 5_000 },
    expiresAt: later(400 * DAY),
    idleExpiryMs: 90 * DAY,
  }
  const clientFields: ClientFields = {
    permissions: READ,
    rateLimits: [MINUTE],
    quota: { maxRemaining: 100 },
    expiresAt: { maxMs: 30 * DAY },
    idleExpiryMs: { maxMs: 7 * DAY },
  }
  const tooMuch = {
    'other limits, still too high': { rateLimits: [{ ...MINUTE, limit: 4_999 }] },
    'the quota anew': { quota: { remaining: 5_000 } },
    'no quota': { quota: null },
    'another end, still too late': { expiresAt: later(30 * DAY + 1) },
    'no end': { expiresAt: null },
    'another idleness, still too long': { idleExpiryMs: 89 * DAY },
    'no idleness': { idleExpiryMs: null },
  }

  it('takes it no further', async () => {
    const changes = {
      ...tooMuch,
      'permissions beside those it has': { permissions: { ...wide.permissions, projects: ['write'] } },
      'more of what it has': { permissions: { billing: ['*'], projects: ['*'] } },
    }
    expect(await outcomesOfChanges(wide, changes, clientFields)).toEqual({
      'other limits, still too high': over,
      'the quota anew': over,
      'no quota': perm,
      'another end, still too late': over,
      'no end': perm,
      'another idleness, still too long': over,
      'no idleness': perm,
      'permissions beside those it has': perm,
      'more of what it has': perm,
    })
  })

  it('makes one that holds nothing freer, as far as the ceilings', async () => {
    const bare = { ...wide, permissions: {} }
    const expected = Object.fromEntries(Object.keys(tooMuch).map((what) => [what, over]))
    expect(await outcomesOfChanges(bare, tooMuch, clientFields)).toEqual(expected)
  })

  it('may leave it as it is, or bring it within', async () => {
    const changes = {
      'the permissions it has': { permissions: wide.permissions },
      'less of a star': { permissions: { billing: ['read', 'pay'] } },
      'no permissions': { permissions: {} },
      'the limits it has': { rateLimits: wide.rateLimits },
      'the end it has': { expiresAt: later(400 * DAY) },
      'the idleness it has': { idleExpiryMs: 90 * DAY },
      'an end within the ceiling': { expiresAt: later(30 * DAY) },
      'a smaller quota': { quota: { remaining: 100 } },
    }
    const expected = Object.fromEntries(Object.keys(changes).map((what) => [what, 'ok']))
    expect(await outcomesOfChanges(wide, changes, clientFields)).toEqual(expected)
  })

  it('prolongs nothing by being made again and again', async () => {
    const { give, ask } = createManagement()
    const prolong = async (given: GivenKey, expiresAt: Date) => {
      const { id } = await give(given)
      const { outcome, accepted } = await ask({
        as: CLIENT,
        action: 'update',
        id,
        json: { expiresAt },
        clientFields,
      })
      return accepted ?? outcome
    }
    const young = { expiresAt: later(5 * DAY) }
    expect(await prolong(young, later(20 * DAY))).toBe('ok')
    expect(await prolong(young, later(20 * DAY + 1))).toBe(`a time up to ${later(20 * DAY).toISOString()}`)
    const old = { issuedAt: later(-40 * DAY), expiresAt: later(-DAY) }
    expect(await prolong(old, later(1))).toBe('nothing: no time is left')
  })
})

describe('a key that may do more than the actor can grant', () => {
  const held = { permissions: { billing: ['*'], projects: ['read'] } }
  const bounded: Actor = { id: 'root', admin: true, grantable: READ }
  type Case = readonly [what: string, action: Action, given: GivenKey, change?: object]

  async function outcomesOfCases(as: Actor, cases: readonly Case[]): Promise<Record<string, string>> {
    const { give, keys, ask } = createManagement()
    const outcomes: Record<string, string> = {}
    for (const [what, action, given, change = {}] of cases) {
      const { id } = await give({ ...held, ...given })
      if (action === 'enable') await keys.disable(id)
      const { outcome, field } = await ask({ as, action, id, json: change })
      outcomes[what] = field === undefined ? outcome : `${outcome}: ${field}`
    }
    return outcomes
  }

  const all = (cases: readonly Case[], outcome: string) =>
    Object.fromEntries(cases.map(([what]) => [what, outcome]))

  it('does not come to work again, or to be known to more people', async () => {
    const cases: readonly Case[] = [
      ['is not handed out by rotation', 'rotate', {}],
      ['is not enabled again', 'enable', {}],
      ['is not brought back from expiry', 'update', { expiresAt: later(-1) }, { expiresAt: later(DAY) }],
      ['is not kept from expiry for good', 'update', { expiresAt: later(-1) }, { expiresAt: null }],
      ['is not brought back from idleness', 'update', { idleExpiryMs: DAY }, { idleExpiryMs: 19 * DAY }],
    ]
    expect(await outcomesOfCases(CLIENT, cases)).toEqual(all(cases, `${perm}: permissions`))
    expect(await outcomesOfCases(bounded, cases)).toEqual(all(cases, `${perm}: permissions`))
    expect(await outcomesOfCases(ADMIN, cases)).toEqual(all(cases, 'ok'))
  })

  it('is otherwise changed, stopped and ended all the same', async () => {
    const cases: readonly Case[] = [
      ['is renamed', 'update', {}, { name: 'other' }],
      ['ends sooner', 'update', {}, { expiresAt: later(DAY) }],
      ['is stopped', 'disable', {}],
      ['is revoked', 'revoke', {}, { reason: 'leaked' }],
      [
        'comes back from expiry with less',
        'update',
        { expiresAt: later(-1) },
        { expiresAt: later(DAY), permissions: READ },
      ],
    ]
    expect(await outcomesOfCases(CLIENT, cases)).toEqual(all(cases, 'ok'))
  })
})

describe('the successor of a key', () => {
  const clientFields: ClientFields = { expiresAt: { maxMs: 30 * DAY } }

  const { give, ask } = createManagement()

  /** When the successor expires, or why there is none. */
  async function rotate(
    given: GivenKey,
    json: object = {},
    { as = CLIENT, fields = clientFields }: { as?: Actor; fields?: ClientFields } = {},
  ) {
    const { id } = await give(given)
    const { outcome, field, body } = await ask({ as, action: 'rotate', id, json, clientFields: fields })
    return outcome === 'ok' ? (body.apiKey as { expiresAt: unknown }).expiresAt : `${outcome}: ${field}`
  }

  it('keeps to the ceiling, unless an admin says otherwise', async () => {
    const key = { expiresAt: later(400 * DAY) }
    for (const expiresAt of [null, later(30 * DAY + 1), later(400 * DAY)]) {
      expect(await rotate(key, { expiresAt })).toBe(`${over}: expiresAt`)
      expect(await rotate(key, { expiresAt }, { as: ADMIN })).toBe(expiresAt?.toISOString() ?? null)
    }
    expect(await rotate(key, {}, { as: ADMIN })).toBe(later(400 * DAY).toISOString())
  })

  it('is given no end by a client that may set none', async () => {
    const closed = { fields: { expiresAt: false } }
    expect(await rotate({}, { expiresAt: later(DAY) }, closed)).toBe(`${no}: expiresAt`)
    expect(await rotate({}, { graceMs: 0 }, closed)).toBe(null)
  })

  it('has the end of its key, or the longest that there is', async () => {
    expect(await rotate({ expiresAt: null })).toBe(later(30 * DAY).toISOString())
    expect(await rotate({ expiresAt: later(31 * DAY) })).toBe(later(30 * DAY).toISOString())
    expect(await rotate({ expiresAt: later(29 * DAY) })).toBe(later(29 * DAY).toISOString())
  })

  it('counts its time anew, however old the key is', async () => {
    const key = { issuedAt: later(-300 * DAY), expiresAt: later(DAY) }
    const expiresAt = later(30 * DAY)
    expect(await rotate(key, { graceMs: 0, expiresAt })).toBe(expiresAt.toISOString())
  })
})
