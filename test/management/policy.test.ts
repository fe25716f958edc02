import fc from 'fast-check'
import type { ApiKey, Permissions } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { type Actor, checkActor } from '../../lib/management/actor.ts'
import type { ClientFields } from '../../lib/management/client-fields.ts'
import { keyActorId } from '../../lib/management/key-actor-id.ts'
import { type Action, decide, resolvePolicy } from '../../lib/management/policy.ts'
import { apiKeyAt } from '../support/api-key.ts'

const DAY = 86_400_000
const NOW = Date.UTC(2026, 5, 15)
const later = (ms: number) => new Date(NOW + ms)
const keyWith = (members: Partial<ApiKey> = {}) => apiKeyAt(NOW, members)

/** JSON as a client sends it: `__proto__` is a member like any other. */
const json = (text: string) => JSON.parse(text)

const OWNERS = {
  user: { type: 'user', id: 'u_1' },
  organization: { type: 'organization', id: 'o_1' },
  service: { type: 'service', id: 's_1' },
}
const ALL_OWNERS = Object.values(OWNERS)
const OPEN = resolvePolicy()
const READ = { projects: ['read'] }

/** What comes out, in one word: `ok`, or the code. */
function outcome(decision: ReturnType<typeof decide>): string {
  return decision.ok ? 'ok' : decision.code
}

function ask(actor: Actor, action: Action, key: ApiKey | null, change: unknown, fields: ClientFields = {}) {
  return decide(actor, action, key, change, resolvePolicy({ clientFields: fields }), NOW)
}

const ACTIONS: readonly Action[] = [
  'list',
  'issue',
  'read',
  'update',
  'enable',
  'disable',
  'rotate',
  'revoke',
  'revoke_all',
  'erase',
]

const ABOUT_A_KEY: readonly Action[] = ['read', 'update', 'enable', 'disable', 'rotate', 'revoke']

/** An innocent change for each action, about the owner of the key. */
function changeFor(action: Action, owner: object): unknown {
  if (action === 'issue') return { owner, name: 'CI' }
  if (action === 'list' || action === 'revoke_all' || action === 'erase') return { owner }
  return action === 'update' ? { name: 'other' } : null
}

function owning(...can: ('read' | 'create' | 'update' | 'revoke')[]): Actor {
  return checkActor({ id: 'u_1', owners: ALL_OWNERS.map((owner) => ({ ...owner, can })) })
}

const ACTORS: Record<string, Actor> = {
  'nobody in particular': checkActor({ id: 'x' }),
  'of another owner': checkActor({ id: 'x', owners: [{ type: 'user', id: 'u_2' }], grantable: READ }),
  'of another type': checkActor({ id: 'x', owners: [{ type: 'team', id: 'u_1' }], grantable: READ }),
  'owner, can nothing': owning(),
  'owner, can read': owning('read'),
  'owner, can create': owning('create'),
  'owner, can update': owning('update'),
  'owner, can revoke': owning('revoke'),
  'owner, create+update': owning('create', 'update'),
  'owner, in two entries': checkActor({
    id: 'u_1',
    owners: ALL_OWNERS.flatMap((owner) => [
      { ...owner, can: ['read'] },
      { ...owner, can: ['revoke'] },
    ]),
  }),
  owner: checkActor({ id: 'u_1', owners: ALL_OWNERS }),
  'owner that grants read': checkActor({ id: 'u_1', owners: ALL_OWNERS, grantable: READ }),
  admin: checkActor({ id: 'root', admin: true }),
  'admin that grants read': checkActor({ id: 'root', admin: true, grantable: READ }),
  'admin that grants nothing': checkActor({ id: 'root', admin: true, grantable: {} }),
  'admin that also owns': checkActor({
    id: 'root',
    admin: true,
    owners: ALL_OWNERS.map((owner) => ({ ...owner, can: ['read'] })),
  }),
}

/**
 * The table, by hand. `.` may, `-` not permitted, `0` there is no such key, `P` permissions exceeded; the key has the permission that
 * is granted as READ; the second mark of a pair is for a key that may do more.
 */
const TABLE = `
                            list issue read update enable disable rotate revoke revoke_all erase
nobody in particular        --   --    00   00     00     00      00     00     --         --
of another owner            --   --    00   00     00     00      00     00     --         --
of another type             --   --    00   00     00     00      00     00     --         --
owner, can nothing          --   --    --   --     --     --      --     --     --         --
owner, can read             ..   --    ..   --     --     --      --     --     --         --
owner, can create           --   ..    --   --     --     --      --     --     --         --
owner, can update           --   --    --   ..     PP     ..      --     --     --         --
owner, can revoke           --   --    --   --     --     --      --     ..     ..         --
owner, create+update        --   ..    --   ..     PP     ..      PP     --     --         --
owner, in two entries       ..   --    ..   --     --     --      --     ..     ..         --
owner                       ..   ..    ..   ..     PP     ..      PP     ..     ..         --
owner that grants read      ..   ..    ..   ..     .P     ..      .P     ..     ..         --
admin                       ..   ..    ..   ..     ..     ..      ..     ..     ..         ..
admin that grants read      ..   ..    ..   ..     .P     ..      .P     ..     ..         ..
admin that grants nothing   ..   ..    ..   ..     PP     ..      PP     ..     ..         ..
admin that also owns        ..   ..    ..   ..     ..     ..      ..     ..     ..         ..
`

const MARKS: Record<string, string> = {
  '.': 'ok',
  '-': 'not_permitted',
  '0': 'not_found',
  P: 'permissions_exceeded',
}

const rows = TABLE.trim()
  .split('\n')
  .slice(1)
  .map((line) => [line.slice(0, 28).trim(), line.slice(28).trim().split(/\s+/)] as const)

/** Makes no difference here: what a state forbids is for `keys` to say, at the moment of the change. */
const STATES: Partial<ApiKey>[] = [
  {},
  { enabled: false },
  { expiresAt: later(-1) },
  { revokedAt: later(-1) },
  { rotatedTo: 'K0000000000000002', expiresAt: later(DAY) },
]

describe('who may do what', () => {
  it('is tabled for every actor and every action', () => {
    expect(rows.map(([name]) => name)).toEqual(Object.keys(ACTORS))
    for (const [, cells] of rows) expect(cells).toHaveLength(ACTIONS.length)
    expect(TABLE.trim().split('\n')[0]?.trim().split(/\s+/)).toEqual(ACTIONS)
  })

  describe.each(rows)('%s', (name, cells) => {
    it.each(ACTIONS.map((action, i) => [action, cells[i] as string] as const))('%s: %s', (action, cell) => {
      for (const owner of ALL_OWNERS) {
        for (const state of STATES) {
          const found = [READ, { projects: ['read', 'write'] }].map((permissions) => {
            const key = ABOUT_A_KEY.includes(action) ? keyWith({ owner, permissions, ...state }) : null
            return outcome(ask(ACTORS[name] as Actor, action, key, changeFor(action, owner)))
          })
          expect(found).toEqual([...cell].map((mark) => MARKS[mark]))
        }
      }
    })
  })

  it.each(ABOUT_A_KEY)('answers an unknown key and a stranger’s alike: %s', (action) => {
    const strangers = ['nobody in particular', 'of another owner', 'of another type']
    for (const name of strangers) {
      const actor = ACTORS[name] as Actor
      const unknown = ask(actor, action, null, { nonsense: 1 })
      expect(unknown).toEqual({ ok: false, code: 'not_found' })
      expect(ask(actor, action, keyWith(), { nonsense: 1 })).toEqual(unknown)
    }
    expect(outcome(ask(ACTORS.admin as Actor, action, null, null))).toBe('not_found')
  })

  it.each([
    ['lists', 'list'],
    ['issues for', 'issue'],
    ['revokes all of', 'revoke_all'],
  ] as const)('never %s an owner that is not the actor’s', (_what, action) => {
    const change = changeFor(action, { type: 'user', id: 'u_2' })
    const refused = { ok: false, code: 'not_permitted', field: 'owner' }
    expect(ask(ACTORS.owner as Actor, action, null, change)).toMatchObject(refused)
    expect(outcome(ask(ACTORS.admin as Actor, action, null, change))).toBe('ok')
  })

  it.each([
    ['an owner', 'owner', 'not_permitted'],
    ['nobody in particular', 'nobody in particular', 'not_permitted'],
    ['an admin', 'admin', 'ok'],
    ['an admin that grants nothing', 'admin that grants nothing', 'ok'],
  ])('what somebody has issued is revoked at once by an admin only: %s', (_what, name, expected) => {
    expect(outcome(ask(ACTORS[name] as Actor, 'revoke_all', null, { createdBy: 'u_1' }))).toBe(expected)
  })

  it('revokes nothing where it is told neither an owner nor a creator', () => {
    for (const name of ['admin', 'owner', 'admin that also owns']) {
      for (const change of [null, {}, { reason: 'x' }]) {
        expect(outcome(ask(ACTORS[name] as Actor, 'revoke_all', null, change))).toBe('invalid_request')
      }
    }
  })

  it('erases an owner for an admin only, who has to name it', () => {
    const change = { owner: { type: 'user', id: 'u_2' }, knownAs: null }
    expect(ask(ACTORS['admin that grants nothing'] as Actor, 'erase', null, change)).toEqual({
      ok: true,
      change,
    })
    for (const given of [null, {}, { knownAs: 'u_2' }]) {
      expect(ask(ACTORS['admin that also owns'] as Actor, 'erase', null, given)).toMatchObject({
        code: 'invalid_request',
        field: 'owner',
      })
    }
    for (const given of [{ owner: 'u_2' }, { ...change, knownAs: '' }, { ...change, knownAs: 7 }]) {
      expect(ask(ACTORS.admin as Actor, 'erase', null, given)).toMatchObject({ code: 'invalid_request' })
    }
    expect(ask(ACTORS.owner as Actor, 'erase', null, { nonsense: 1 })).toEqual({
      ok: false,
      code: 'not_permitted',
    })
  })

  it('revokes what somebody has issued of an owner where it may revoke that owner’s keys', () => {
    const change = { owner: OWNERS.user, createdBy: 'u_9', reason: 'left' }
    for (const name of ['admin', 'owner', 'owner, can revoke']) {
      expect(ask(ACTORS[name] as Actor, 'revoke_all', null, change)).toEqual({ ok: true, change })
    }
    expect(ask(ACTORS['of another owner'] as Actor, 'revoke_all', null, change)).toEqual({
      ok: false,
      code: 'not_permitted',
      field: 'owner',
      accepted: 'an owner with whose keys you may "revoke"',
    })
    expect(ask(ACTORS['owner, can update'] as Actor, 'revoke_all', null, change)).toMatchObject({
      code: 'not_permitted',
    })
  })

  it('reads nothing of what it has just issued where it can only create', () => {
    const actor = owning('create')
    expect(outcome(ask(actor, 'issue', null, { owner: OWNERS.user, name: 'n' }))).toBe('ok')
    expect(outcome(ask(actor, 'read', keyWith({ createdBy: 'u_1' }), null))).toBe('not_permitted')
  })
})

describe('whose keys are listed', () => {
  const user = { ...OWNERS.user, can: ['create'] }
  const organization = { ...OWNERS.organization, can: ['read'] }

  it.each([
    ['everybody’s, for an admin', { id: 'a', admin: true }, null],
    ['everybody’s, for an admin that owns some', { id: 'a', admin: true, owners: [OWNERS.user] }, null],
    [
      'those that the actor may read, each owner once',
      { id: 'a', owners: [user, organization, organization] },
      [OWNERS.organization],
    ],
    ['those of every owner', { id: 'a', owners: ALL_OWNERS }, ALL_OWNERS],
  ])('%s', (_what, actor, owners) => {
    expect(ask(checkActor(actor), 'list', null, null)).toEqual({ ok: true, change: { owners } })
  })

  it('those of the one that is asked for', () => {
    const decision = ask(ACTORS.owner as Actor, 'list', null, { owner: OWNERS.service })
    expect(decision).toEqual({ ok: true, change: { owners: [OWNERS.service] } })
  })

  it('of one owner at a time where there are more than a hundred', () => {
    const owners = Array.from({ length: 101 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
    const many = checkActor({ id: 'a', owners })
    expect(ask(many, 'list', null, null)).toMatchObject({ code: 'invalid_request', field: 'owner' })
    expect(outcome(ask(many, 'list', null, { owner: owners[100] }))).toBe('ok')
    expect(outcome(ask(checkActor({ id: 'a', owners: owners.slice(1) }), 'list', null, null))).toBe('ok')
  })
})

describe('the owner of a new key', () => {
  const one = checkActor({
    id: 'a',
    owners: [
      { ...OWNERS.user, can: ['read'] },
      { ...OWNERS.organization, can: ['create'] },
    ],
  })

  it.each([
    ['has to be named where there are several', ACTORS.owner as Actor],
    ['has to be named by an admin without owners', ACTORS.admin as Actor],
  ])('%s', (_what, actor) => {
    const decision = ask(actor, 'issue', null, { name: 'n' })
    expect(decision).toMatchObject({ ok: false, code: 'invalid_request', field: 'owner' })
  })

  it.each([
    ['a text', 'u_1'],
    ['null', null],
    ['no type', { id: 'u_1' }],
    ['an empty id', { type: 'user', id: '' }],
    ['a number as id', { type: 'user', id: 1 }],
    ['a further member', { ...OWNERS.user, can: ['read'] }],
    ['a prototype', json('{"__proto__":{"type":"user","id":"u_1"}}')],
    ['a prototype beside', json('{"type":"user","id":"u_1","__proto__":{"admin":true}}')],
    ['a constructor', json('{"type":"user","id":"u_1","constructor":{"prototype":{"admin":true}}}')],
  ])('is refused as %s', (_what, owner) => {
    const decision = ask(ACTORS.owner as Actor, 'issue', null, { name: 'n', owner })
    expect(decision).toMatchObject({ ok: false, code: 'invalid_request' })
    expect(decision).toHaveProperty('field', expect.stringMatching(/^owner/))
    expect(({} as { admin?: boolean }).admin).toBeUndefined()
  })

  it('is not one where the actor can only read', () => {
    const decision = ask(one, 'issue', null, { name: 'n', owner: OWNERS.user })
    expect(decision).toMatchObject({ ok: false, code: 'not_permitted', field: 'owner' })
  })

  it('is the only one for which the actor can issue', () => {
    const decision = ask(one, 'issue', null, { name: 'n' })
    expect(decision).toEqual({ ok: true, change: { name: 'n', owner: OWNERS.organization } })
  })
})

describe('what no request may name', () => {
  it.each([
    ['update', { owner: OWNERS.service }, 'owner'],
    ['update', { createdBy: 'me' }, 'createdBy'],
    ['update', { prefix: 'acme_live' }, 'prefix'],
    ['issue', { name: 'n', createdBy: 'me' }, 'createdBy'],
  ] as const)('%s: %j', (action, change, field) => {
    for (const actor of [ACTORS.owner as Actor, ACTORS.admin as Actor]) {
      const key = action === 'update' ? keyWith() : null
      const decision = ask(actor, action, key, { owner: OWNERS.user, ...change }, { prefix: ['acme_live'] })
      const code = { ok: false, code: 'field_not_allowed' }
      expect(decision).toMatchObject(action === 'update' ? code : { ...code, field })
    }
  })

  it.each([
    ['issue', { id: 'K0000000000000009' }],
    ['issue', { enabled: true }],
    ['issue', { permision: {} }],
    ['issue', json('{"__proto__":{"admin":true}}')],
    ['issue', { constructor: 1 }],
    ['update', { enabled: true }],
    ['update', { version: 7 }],
    ['update', { revokedAt: null }],
    ['update', { lineageId: 'x' }],
    ['update', json('{"__proto__":{"permissions":{"*":["*"]}}}')],
    ['rotate', { permissions: {} }],
    ['rotate', { owner: OWNERS.service }],
    ['revoke', { by: 'somebody' }],
    ['revoke_all', { all: true }],
    ['enable', { force: true }],
    ['disable', { reason: 'x' }],
    ['read', { fields: '*' }],
    ['list', { createdBy: 'u_2' }],
  ] as const)('%s: %j', (action, change) => {
    for (const actor of [ACTORS.owner as Actor, ACTORS.admin as Actor]) {
      const decision = ask(actor, action, ABOUT_A_KEY.includes(action) ? keyWith() : null, change)
      expect(decision).toMatchObject({ ok: false, code: 'invalid_request', field: Object.keys(change)[0] })
      expect(decision).toHaveProperty('accepted')
    }
  })

  it.each([[[]], ['text'], [7], [true], [new Date(NOW)], [new Map()]])('is no object: %j', (change) => {
    for (const action of ACTIONS) {
      const key = ABOUT_A_KEY.includes(action) ? keyWith() : null
      expect(outcome(ask(ACTORS.admin as Actor, action, key, change))).toBe('invalid_request')
    }
  })

  it.each([
    ['issue', null],
    ['issue', { owner: OWNERS.user }],
    ['issue', { owner: OWNERS.user, name: '' }],
    ['issue', { owner: OWNERS.user, name: 7 }],
    ['issue', { owner: OWNERS.user, name: 'n', prefix: 'a b' }],
    ['issue', { owner: OWNERS.user, name: 'n', prefix: null }],
    ['update', null],
    ['update', {}],
    ['update', { name: undefined }],
    ['update', { expiresAt: '2030-01-01' }],
    ['update', { expiresAt: later(0) }],
    ['update', { idleExpiryMs: 59_999 }],
    ['update', { rateLimits: [{ name: 'm', limit: 0, windowMs: 1 }] }],
    ['update', { rateLimits: [{ name: 'm', limit: 1, windowMs: 1, extra: 1 }] }],
    ['update', { quota: { remaining: -1 } }],
    ['update', { allowedIps: ['nowhere'] }],
    ['update', { permissions: { 'a b': ['read'] } }],
    ['update', { permissions: json('{"__proto__":{"a":["read"]}}') }],
    ['update', { metadata: [] }],
    ['rotate', { graceMs: -1 }],
    ['rotate', { graceMs: 366 * DAY + 1 }],
    ['revoke', { reason: 'x'.repeat(1_001) }],
  ] as const)('is missing or malformed, for an admin as well: %s %j', (action, change) => {
    const key = action === 'issue' ? null : keyWith()
    expect(outcome(ask(ACTORS.admin as Actor, action, key, change))).toBe('invalid_request')
  })

  it('says which member is wrong and what it should be, and never what it was', () => {
    const change = { rateLimits: [{ name: 'm', limit: 'acme_secret', windowMs: 1 }] }
    const decision = ask(ACTORS.admin as Actor, 'update', keyWith(), change)
    expect(decision).toEqual({
      ok: false,
      code: 'invalid_request',
      field: 'rateLimits[0].limit',
      accepted: 'an integer from 1 to 1000000000000',
    })
  })
})

describe('what is granted for one owner', () => {
  const WRITE = { projects: ['write'] }
  const [strong, weak, usual] = [
    { type: 'team', id: 'strong' },
    { type: 'team', id: 'weak' },
    { type: 'team', id: 'usual' },
  ] as const
  const actor = checkActor({
    id: 'u_1',
    owners: [{ ...strong, grantable: { projects: ['read', 'write'] } }, { ...weak, grantable: {} }, usual],
    grantable: READ,
  })
  const outcomes = (who: Actor, permissions: Permissions) =>
    [strong, weak, usual].map((owner) => {
      const key = keyWith({ owner, permissions })
      const expired = keyWith({ owner, permissions, expiresAt: new Date(1) })
      return [
        ask(who, 'issue', null, { name: 'n', owner, permissions }),
        ask(who, 'update', keyWith({ owner, permissions: {} }), { permissions }),
        ask(who, 'update', expired, { expiresAt: null }),
        ask(who, 'enable', key, null),
        ask(who, 'rotate', key, null),
      ].map(outcome)
    })
  const each = (text: string) => Array(5).fill(text)

  it('is granted for no other', () => {
    expect(outcomes(actor, WRITE)).toEqual([
      each('ok'),
      each('permissions_exceeded'),
      each('permissions_exceeded'),
    ])
    expect(outcomes(actor, READ)).toEqual([each('ok'), each('permissions_exceeded'), each('ok')])
  })

  it('adds up where an owner is named twice', () => {
    const twice = checkActor({
      id: 'u_1',
      owners: [
        { ...strong, grantable: READ },
        { ...strong, grantable: { '*': ['write'] } },
        { ...weak, grantable: WRITE },
        weak,
        usual,
      ],
      grantable: READ,
    })
    const both = { projects: ['read', 'write'] }
    expect(outcomes(twice, both)).toEqual([each('ok'), each('ok'), each('permissions_exceeded')])
    expect(outcomes(twice, { reports: ['read'] })[0]).toEqual(each('permissions_exceeded'))
  })

  it('adds up for what each entry may be used for, and for nothing else', () => {
    const entries = (...of: { can: ('read' | 'create' | 'update')[]; grantable?: Permissions }[]) =>
      checkActor({ id: 'u_1', owners: of.map((entry) => ({ ...strong, ...entry })), grantable: READ })
    const [first] = outcomes(
      entries({ can: ['read'], grantable: WRITE }, { can: ['create', 'update'] }),
      WRITE,
    )
    expect(first).toEqual(each('permissions_exceeded'))
    const usualForReaders = entries({ can: ['read'] }, { can: ['create', 'update'], grantable: WRITE })
    expect(outcomes(usualForReaders, READ)[0]).toEqual(each('permissions_exceeded'))
    expect(outcomes(usualForReaders, WRITE)[0]).toEqual(each('ok'))
    const creates = entries({ can: ['create'], grantable: WRITE }, { can: ['update'], grantable: READ })
    const exceeded = 'permissions_exceeded'
    expect(outcomes(creates, WRITE)[0]).toEqual(['ok', exceeded, exceeded, exceeded, exceeded])
    expect(outcomes(creates, READ)[0]).toEqual([exceeded, 'ok', 'ok', 'ok', exceeded])
    const says = entries(
      { can: ['create'], grantable: READ },
      { can: ['create'], grantable: { projects: ['read'] } },
    )
    expect(ask(says, 'issue', null, { name: 'n', owner: strong, permissions: WRITE })).toMatchObject({
      accepted: 'permissions within {"projects":["read"]}',
    })
  })

  it('takes nothing from an admin, and gives one more where it is bounded', () => {
    const owners = [
      { ...strong, grantable: WRITE },
      { ...weak, grantable: {} },
    ]
    expect(outcomes(checkActor({ id: 'root', admin: true, owners }), WRITE)).toEqual(
      Array(3).fill(each('ok')),
    )
    const bounded = checkActor({ id: 'root', admin: true, owners, grantable: READ })
    expect(outcomes(bounded, WRITE)).toEqual([
      each('ok'),
      each('permissions_exceeded'),
      each('permissions_exceeded'),
    ])
    expect(outcomes(bounded, READ)).toEqual(Array(3).fill(each('ok')))
  })
})

/** An owner that may grant to read and write projects, and the key that it changes. */
const CLIENT = checkActor({
  id: 'u_1',
  owners: [OWNERS.user],
  grantable: { projects: ['read', 'write'], reports: ['*'] },
})

const MINUTE = { name: 'minute', limit: 100, windowMs: 60_000 }
const BURST = { name: 'burst', limit: 10, windowMs: 1_000, burst: 20 }
const DAILY = { name: 'daily', limit: 1_000, per: 'day' } as const
const CEILINGS = [MINUTE, BURST, DAILY]
const with_ = (limit: object, change: object) => ({ ...limit, ...change })

type Row = [
  what: string,
  fields: ClientFields,
  field: string,
  value: unknown,
  atIssue: string,
  atUpdate?: string,
]

const no = 'field_not_allowed'
const over = 'ceiling_exceeded'
const perm = 'permissions_exceeded'

/** By hand: a field, its policy, its value, what comes of it at issue and at update of a key that has none of it. */
const FIELDS: Row[] = [
  // by default
  ['permissions that may be granted', {}, 'permissions', { projects: ['read'] }, 'ok'],
  ['permissions that may not be', {}, 'permissions', { projects: ['admin'] }, perm],
  ['every action, where some may be granted', {}, 'permissions', { projects: ['*'] }, perm],
  ['every action, where it may be granted', {}, 'permissions', { reports: ['*'] }, 'ok'],
  ['an action on everything', {}, 'permissions', { '*': ['read'] }, perm],
  ['a permission on the prototype', {}, 'permissions', json('{"__proto__":["read"]}'), perm],
  ['a permission on a constructor', {}, 'permissions', { constructor: ['read'] }, perm],
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
  ['metadata named like a prototype', {}, 'metadata', json('{"__proto__":{"admin":true}}'), 'ok'],
  ['a prefix', {}, 'prefix', 'acme', no],
  // closed
  ['permissions, closed', { permissions: false }, 'permissions', { projects: ['read'] }, no],
  ['no permissions, closed', { permissions: false }, 'permissions', {}, no],
  ['an end, closed', { expiresAt: false }, 'expiresAt', later(DAY), no],
  ['no end, closed', { expiresAt: false }, 'expiresAt', null, no],
  ['idleness, closed', { idleExpiryMs: false }, 'idleExpiryMs', 60_000, no],
  ['addresses, closed', { allowedIps: false }, 'allowedIps', ['192.0.2.1'], no],
  ['metadata, closed', { metadata: false }, 'metadata', {}, no],
  ['a malformed value, closed', { metadata: false }, 'metadata', 7, no],
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
    [{ name: 'x', limit: 9e9, windowMs: 1 }, with_(MINUTE, { limit: 99 })],
    'ok',
  ],
  ['a higher limit', { rateLimits: [MINUTE] }, 'rateLimits', [with_(MINUTE, { limit: 101 })], over],
  ['a shorter window', { rateLimits: [MINUTE] }, 'rateLimits', [with_(MINUTE, { windowMs: 59_999 })], over],
  ['a longer window', { rateLimits: [MINUTE] }, 'rateLimits', [with_(MINUTE, { windowMs: 60_001 })], over],
  ['a limit of another name', { rateLimits: [MINUTE] }, 'rateLimits', [with_(MINUTE, { name: 'm' })], over],
  ['a bucket for a window', { rateLimits: [MINUTE] }, 'rateLimits', [with_(MINUTE, { burst: 1 })], over],
  ['a wider bucket', { rateLimits: [BURST] }, 'rateLimits', [with_(BURST, { burst: 21 })], over],
  ['a narrower bucket', { rateLimits: [BURST] }, 'rateLimits', [with_(BURST, { burst: 1 })], 'ok'],
  [
    'a bucket that refills sooner',
    { rateLimits: [BURST] },
    'rateLimits',
    [with_(BURST, { limit: 11 })],
    over,
  ],
  ['the same zone, named', { rateLimits: [DAILY] }, 'rateLimits', [with_(DAILY, { timeZone: 'UTC' })], 'ok'],
  ['another zone', { rateLimits: [DAILY] }, 'rateLimits', [with_(DAILY, { timeZone: 'Asia/Tokyo' })], over],
  ['another period', { rateLimits: [DAILY] }, 'rateLimits', [with_(DAILY, { per: 'month' })], over],
  // quota
  ['a quota at its ceiling', { quota: { maxRemaining: 100 } }, 'quota', { remaining: 100 }, 'ok'],
  ['a quota above it', { quota: { maxRemaining: 100 } }, 'quota', { remaining: 101 }, over],
  ['no quota at all', { quota: { maxRemaining: 100 } }, 'quota', null, over, 'ok'],
  [
    'a refill where there is to be none',
    { quota: { maxRemaining: 100 } },
    'quota',
    { remaining: 1, refill: { amount: 1, everyMs: 400 * DAY } },
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
  // ends: the key at update was made ten days ago and never expires
  ['an end at its ceiling', { expiresAt: { maxMs: 30 * DAY } }, 'expiresAt', later(30 * DAY), 'ok'],
  ['an end above it', { expiresAt: { maxMs: 30 * DAY } }, 'expiresAt', later(30 * DAY + 1), over],
  ['no end under a ceiling', { expiresAt: { maxMs: 30 * DAY } }, 'expiresAt', null, over, 'ok'],
  ['idleness at its ceiling', { idleExpiryMs: { maxMs: 60_000 } }, 'idleExpiryMs', 60_000, 'ok'],
  ['idleness above it', { idleExpiryMs: { maxMs: 60_000 } }, 'idleExpiryMs', 60_001, over],
  ['no idleness under it', { idleExpiryMs: { maxMs: 60_000 } }, 'idleExpiryMs', null, over, 'ok'],
]

describe('what a client may set', () => {
  it('covers every field', () => {
    const names = new Set(FIELDS.map(([, , field]) => field))
    expect([...names].sort()).toEqual(Object.keys({ ...OPEN.clientFields, name: 1 }).sort())
  })

  it.each(FIELDS)('at issue: %s', (_what, fields, field, value, expected) => {
    const decision = ask(CLIENT, 'issue', null, { name: 'n', [field]: value }, fields)
    expect(outcome(decision)).toBe(expected)
    if (!decision.ok) expect(decision.field).toMatch(new RegExp(`^${field}`))
    if (decision.ok) expect(JSON.stringify(decision.change)).toContain(`"${field}":`)
  })

  it.each(FIELDS.filter(([, , field]) => field !== 'prefix'))(
    'at update: %s',
    (_what, fields, field, value, atIssue, atUpdate = atIssue) => {
      const decision = ask(CLIENT, 'update', keyWith(), { [field]: value }, fields)
      expect(outcome(decision)).toBe(atUpdate)
      if (!decision.ok) expect(decision.field).toMatch(new RegExp(`^${field}`))
      if (decision.ok) expect(Object.keys(decision.change)).toEqual([field])
    },
  )

  it.each(FIELDS)('binds no admin: %s', (_what, fields, field, value, expected) => {
    const admin = ACTORS['admin that also owns'] as Actor
    const change = { name: 'n', owner: OWNERS.user, [field]: value }
    const malformed = field === 'metadata' && typeof value === 'number'
    expect(outcome(ask(admin, 'issue', null, change, fields))).toBe(malformed ? 'invalid_request' : 'ok')
    expect(expected).toBeTypeOf('string')
  })

  it.each([
    ['among those to choose from', 'acme_live', 'ok'],
    ['not among them', 'acme_root', over],
  ])('a prefix %s', (_what, prefix, expected) => {
    const change = { name: 'n', prefix }
    expect(outcome(ask(CLIENT, 'issue', null, change, { prefix: ['acme_test', 'acme_live'] }))).toBe(expected)
  })

  it('says what would be accepted, of each that is beyond its ceiling', () => {
    const beyond = FIELDS.filter(([, , , , expected]) => expected === over || expected === perm)
    for (const [, fields, field, value] of beyond) {
      const decision = ask(CLIENT, 'issue', null, { name: 'n', [field]: value }, fields)
      expect(decision).toHaveProperty('accepted', expect.stringMatching(/./))
    }
  })
})

describe('what a client leaves out', () => {
  const CEILED: ClientFields = {
    expiresAt: { maxMs: 30 * DAY },
    idleExpiryMs: { maxMs: DAY },
    quota: { maxRemaining: 100, maxRefillAmount: 50 },
    rateLimits: CEILINGS,
    permissions: READ,
    prefix: ['acme_live'],
  }

  it('becomes the most that may be set, on a new key', () => {
    expect(ask(CLIENT, 'issue', null, { name: 'n' }, CEILED)).toEqual({
      ok: true,
      change: {
        name: 'n',
        owner: OWNERS.user,
        expiresAt: later(30 * DAY),
        idleExpiryMs: DAY,
        quota: { remaining: 100, refill: null },
      },
    })
  })

  it('stays what it is, on a key that is there', () => {
    const decision = ask(CLIENT, 'update', keyWith(), { name: 'n' }, CEILED)
    expect(decision).toEqual({ ok: true, change: { name: 'n' } })
  })

  it('is not filled in for an admin', () => {
    const change = { name: 'n', owner: OWNERS.user }
    expect(ask(ACTORS.admin as Actor, 'issue', null, change, CEILED)).toEqual({ ok: true, change })
  })
})

describe('a change of a key that is beyond a ceiling', () => {
  const wide = keyWith({
    permissions: { billing: ['*'], projects: ['read'] },
    rateLimits: [{ ...MINUTE, limit: 5_000 }],
    quota: { remaining: 5_000, refill: null, nextRefillAt: null },
    expiresAt: later(400 * DAY),
    idleExpiryMs: 90 * DAY,
  })
  const fields: ClientFields = {
    permissions: READ,
    rateLimits: [MINUTE],
    quota: { maxRemaining: 100 },
    expiresAt: { maxMs: 30 * DAY },
    idleExpiryMs: { maxMs: 7 * DAY },
  }

  it.each([
    ['permissions beside those it has', { permissions: { ...wide.permissions, projects: ['write'] } }, perm],
    ['more of what it has', { permissions: { billing: ['*'], projects: ['*'] } }, perm],
    ['other limits, still too high', { rateLimits: [{ ...MINUTE, limit: 4_999 }] }, over],
    ['the quota anew', { quota: { remaining: 5_000 } }, over],
    ['no quota', { quota: null }, perm],
    ['another end, still too late', { expiresAt: later(30 * DAY + 1) }, over],
    ['no end', { expiresAt: null }, perm],
    ['another idleness, still too long', { idleExpiryMs: 89 * DAY }, over],
    ['no idleness', { idleExpiryMs: null }, perm],
  ])('may not set %s', (_what, change, code) => {
    expect(outcome(ask(CLIENT, 'update', wide, change, fields))).toBe(code)
    // A key that holds nothing may be made freer, as far as the ceilings.
    const bare = { ...wide, permissions: {} }
    if (!('permissions' in change)) expect(outcome(ask(CLIENT, 'update', bare, change, fields))).toBe(over)
  })

  it.each([
    ['the permissions it has', { permissions: wide.permissions }],
    ['less of a star', { permissions: { billing: ['read', 'pay'] } }],
    ['no permissions', { permissions: {} }],
    ['the limits it has', { rateLimits: wide.rateLimits }],
    ['the end it has', { expiresAt: later(400 * DAY) }],
    ['the idleness it has', { idleExpiryMs: 90 * DAY }],
    ['an end within the ceiling', { expiresAt: later(30 * DAY) }],
    ['a smaller quota', { quota: { remaining: 100 } }],
  ])('may set %s', (_what, change) => {
    expect(ask(CLIENT, 'update', wide, change, fields)).toMatchObject({ ok: true })
  })

  it('prolongs nothing by being made again and again', () => {
    const key = keyWith({ createdAt: later(-10 * DAY), expiresAt: later(5 * DAY) })
    const ask30 = (expiresAt: Date) => outcome(ask(CLIENT, 'update', key, { expiresAt }, fields))
    expect(ask30(later(20 * DAY))).toBe('ok')
    expect(ask30(later(20 * DAY + 1))).toBe(over)
  })

  it('says that no time is left for a key that is older than it may become', () => {
    const key = keyWith({ createdAt: later(-40 * DAY), expiresAt: later(-DAY) })
    const decision = ask(CLIENT, 'update', key, { expiresAt: later(1) }, fields)
    expect(decision).toMatchObject({ code: over, accepted: 'nothing: no time is left' })
  })
})

describe('a key that may do more than the actor can grant', () => {
  const billing = { permissions: { billing: ['*'] } }

  it.each([
    ['is not handed out by rotation', 'rotate', {}, null],
    ['is not enabled again', 'enable', { enabled: false }, null],
    ['is not brought back from expiry', 'update', { expiresAt: later(-1) }, { expiresAt: later(DAY) }],
    ['is not kept from expiry for good', 'update', { expiresAt: later(-1) }, { expiresAt: null }],
    [
      'is not brought back from idleness',
      'update',
      { idleExpiryMs: DAY, createdAt: later(-2 * DAY) },
      { idleExpiryMs: 9 * DAY },
    ],
  ] as const)('%s', (_what, action, state, change) => {
    const key = keyWith({ ...billing, ...state })
    expect(ask(CLIENT, action, key, change)).toMatchObject({ code: perm, field: 'permissions' })
    expect(outcome(ask(ACTORS.admin as Actor, action, key, change))).toBe('ok')
    expect(outcome(ask(ACTORS['admin that grants read'] as Actor, action, key, change))).toBe(perm)
  })

  it.each([
    ['is renamed', 'update', {}, { name: 'other' }],
    ['ends sooner', 'update', {}, { expiresAt: later(DAY) }],
    ['is stopped', 'disable', {}, null],
    ['is revoked', 'revoke', {}, { reason: 'leaked' }],
    [
      'comes back from expiry with less',
      'update',
      { expiresAt: later(-1) },
      { expiresAt: later(DAY), permissions: READ },
    ],
  ] as const)('%s all the same', (_what, action, state, change) => {
    const key = keyWith({ permissions: { billing: ['*'], projects: ['read'] }, ...state })
    expect(ask(CLIENT, action, key, change)).toEqual({ ok: true, change: change ?? {} })
  })
})

describe('the successor of a key', () => {
  const fields: ClientFields = { expiresAt: { maxMs: 30 * DAY } }

  it.each([
    ['no end', null],
    ['an end above the ceiling', later(30 * DAY + 1)],
    ['the end of a key that lasts longer', later(400 * DAY)],
  ])('may not be given %s', (_what, expiresAt) => {
    const key = keyWith({ expiresAt: later(400 * DAY) })
    expect(outcome(ask(CLIENT, 'rotate', key, { expiresAt }, fields))).toBe(over)
    expect(outcome(ask(ACTORS.admin as Actor, 'rotate', key, { expiresAt }, fields))).toBe('ok')
  })

  it('may not be given an end by a client that may set none', () => {
    const decision = ask(CLIENT, 'rotate', keyWith(), { expiresAt: later(DAY) }, { expiresAt: false })
    expect(decision).toMatchObject({ ok: false, code: no, field: 'expiresAt' })
    expect(outcome(ask(CLIENT, 'rotate', keyWith(), { graceMs: 0 }, { expiresAt: false }))).toBe('ok')
  })

  it.each([
    ['the longest, where the key never expires', null, later(30 * DAY)],
    ['the longest, where the key lasts longer', later(31 * DAY), later(30 * DAY)],
    ['what the key has, where that is sooner', later(29 * DAY), undefined],
  ])('has %s', (_what, expiresAt, expected) => {
    const change = expected && { expiresAt: expected }
    const key = keyWith({ expiresAt })
    expect(ask(CLIENT, 'rotate', key, null, fields)).toEqual({ ok: true, change: change ?? {} })
  })

  it('counts its time anew, however old the key is', () => {
    const key = keyWith({ createdAt: later(-300 * DAY), expiresAt: later(DAY) })
    const change = { graceMs: 0, expiresAt: later(30 * DAY) }
    expect(ask(CLIENT, 'rotate', key, change, fields)).toEqual({ ok: true, change })
  })
})

describe('a key as an actor', () => {
  it('is named in a way that no actor of an application can be', () => {
    expect(keyActorId(keyWith())).toBe('key:K0000000000000001')
    expect(() => checkActor({ id: 'key:K0000000000000001' })).toThrow('"actor.id" must not begin with "key:"')
    const ids = ['x'.repeat(255), `${'x'.repeat(254)}y`].map((id) => keyActorId(keyWith({ id })))
    expect(new Set(ids).size).toBe(2)
    for (const id of ids) expect(id.length).toBeLessThanOrEqual(255)
  })
})

describe('whatever is asked', () => {
  const NAMES = ['projects', 'reports', 'billing', '*', '__proto__', 'constructor']
  const DEEDS = ['read', 'write', '*', '__proto__']
  const permissions = fc
    .uniqueArray(fc.tuple(fc.constantFrom(...NAMES), fc.subarray(DEEDS)), { selector: ([name]) => name })
    .map((entries) => Object.fromEntries(entries) as Permissions)

  /** Every single deed on every single thing, worked out one by one, by no function of the library. */
  const THINGS = [...NAMES.filter((name) => name !== '*'), 'anything else']
  const SINGLE = THINGS.flatMap((thing) =>
    ['read', 'write', '__proto__', 'any other'].map((deed) => [thing, deed] as const),
  )
  function allows(held: Permissions, thing: string, deed: string): boolean {
    return Object.entries(held).some(
      ([name, deeds]) => (name === thing || name === '*') && deeds.some((one) => one === deed || one === '*'),
    )
  }

  it('no key ends with more than it had and the actor may grant, under the ceiling', () => {
    const actor = fc.record({ admin: fc.boolean(), grantable: fc.option(permissions, { nil: undefined }) })
    const ceiling = fc.oneof(fc.constant(true), permissions)
    const property = (
      { admin, grantable }: { admin: boolean; grantable: Permissions | undefined },
      had: Permissions | null,
      wanted: Permissions,
      top: Permissions | boolean,
    ) => {
      const who = checkActor({ id: 'u_1', owners: [OWNERS.user], admin, ...(grantable && { grantable }) })
      const policy = { permissions: top }
      const decision =
        had === null
          ? ask(who, 'issue', null, { name: 'n', owner: OWNERS.user, permissions: wanted }, policy)
          : ask(who, 'update', keyWith({ permissions: had }), { permissions: wanted }, policy)
      const got = decision.ok ? (decision.change as { permissions: Permissions }).permissions : (had ?? {})
      for (const [thing, deed] of SINGLE.filter(([thing, deed]) => allows(got, thing, deed))) {
        const isGranted = grantable ? allows(grantable, thing, deed) : admin
        const isUnder = admin || top === true || allows(top as Permissions, thing, deed)
        expect(allows(had ?? {}, thing, deed) || (isGranted && isUnder)).toBe(true)
      }
      // Nor is what may be had refused: each deed that is asked for is had, or may be granted.
      const fine = Object.entries(wanted).every(([name, deeds]) =>
        deeds.every((deed) => {
          const held = (by: Permissions) =>
            [name, '*'].some((n) =>
              Object.entries(by).some(([m, d]) => m === n && (d.includes(deed) || d.includes('*'))),
            )
          return (
            held(had ?? {}) ||
            ((grantable ? held(grantable) : admin) && (admin || top === true || held(top as Permissions)))
          )
        }),
      )
      expect(decision.ok).toBe(fine)
    }
    fc.assert(fc.property(actor, fc.option(permissions), permissions, ceiling, property), { numRuns: 2_000 })
  })

  it('nothing is thrown, nothing is polluted, and what is permitted names nothing unknown', () => {
    const member = fc.constantFrom(
      ...['owner', 'name', 'permissions', 'rateLimits', 'quota', 'allowedIps', 'expiresAt', 'idleExpiryMs'],
      ...['metadata', 'prefix', 'graceMs', 'reason', 'createdBy', '__proto__', 'constructor', 'ok'],
    )
    const value = fc.oneof(
      fc.jsonValue(),
      permissions,
      fc.constantFrom<unknown>(null, undefined, OWNERS.user, [MINUTE], { remaining: 5 }, later(DAY), [
        '192.0.2.1',
      ]),
    )
    const change = fc.oneof(
      fc.jsonValue().map((json) => JSON.parse(JSON.stringify(json))),
      fc.array(fc.tuple(member, value), { maxLength: 5 }).map((entries) => Object.fromEntries(entries)),
    )
    const actors = [...Object.values(ACTORS), CLIENT]
    const fields: ClientFields[] = [
      {},
      { permissions: READ, rateLimits: CEILINGS, quota: { maxRemaining: 9 }, expiresAt: { maxMs: DAY } },
      { permissions: false, expiresAt: false, idleExpiryMs: false, metadata: false, allowedIps: false },
      { idleExpiryMs: { maxMs: DAY }, prefix: ['acme'], rateLimits: [MINUTE] },
    ]
    const before = Object.getOwnPropertyNames(Object.prototype).length
    fc.assert(
      fc.property(
        fc.constantFrom(...actors),
        fc.constantFrom(...ACTIONS),
        fc.option(fc.constantFrom(keyWith(), keyWith({ owner: OWNERS.service, expiresAt: later(-1) }))),
        change,
        fc.constantFrom(...fields),
        (actor, action, key, change, policy) => {
          const decision = ask(actor, action, key, change, policy)
          expect(Object.getPrototypeOf(decision)).toBe(Object.prototype)
          if (!decision.ok) {
            // Who is told which member is wrong is told what would be right.
            if (decision.field !== undefined) expect(decision.accepted).toMatch(/./)
            return
          }
          expect(Object.getPrototypeOf(decision.change)).toBe(Object.prototype)
          const names = Object.keys(decision.change)
          expect(
            names.filter((name) => ['createdBy', '__proto__', 'constructor', 'ok'].includes(name)),
          ).toEqual(action === 'revoke_all' && names.includes('createdBy') ? ['createdBy'] : [])
        },
      ),
      { numRuns: 5_000 },
    )
    expect(Object.getOwnPropertyNames(Object.prototype)).toHaveLength(before)
  })

  it('the change that is decided upon is a copy, which nobody changes afterwards', () => {
    const change = {
      permissions: { projects: ['read'] },
      metadata: { deep: { a: 1 } },
      allowedIps: ['192.0.2.1'],
    }
    const decision = ask(CLIENT, 'update', keyWith(), change)
    change.permissions.projects.push('admin')
    change.metadata.deep.a = 2
    change.allowedIps.push('0.0.0.0/0')
    expect(decision).toEqual({
      ok: true,
      change: {
        permissions: { projects: ['read'] },
        metadata: { deep: { a: 1 } },
        allowedIps: ['192.0.2.1'],
      },
    })
  })
})
