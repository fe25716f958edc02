import fc from 'fast-check'
import type { ApiKey, Permissions } from 'latchkey'
import type { Action, Actor, ActorOwner, ClientFields } from 'latchkey/management'
import { describe, expect, it } from 'vitest'
import { keyActorId } from '../../lib/management/key-actor-id.ts'
import { decide, resolvePolicy } from '../../lib/management/policy.ts'
import { apiKeyAt } from '../support/api-key.ts'
import {
  createManagement,
  DAY,
  later,
  type Management,
  NOW,
  type Question,
  USER,
} from '../support/ask-management.ts'

/** JSON as a client sends it: `__proto__` is a member like any other. */
const json = (text: string) => JSON.parse(text)

const ORGANIZATION = { type: 'organization', id: 'o_1' }
const SERVICE = { type: 'service', id: 's_1' }
const OWNERS = [USER, ORGANIZATION, SERVICE]
const STRANGER = { type: 'user', id: 'u_2' }
const EVERYBODY = [...OWNERS, STRANGER]
const READ = { projects: ['read'] }
const WRITE = { projects: ['write'] }

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
  'explain',
]

const ABOUT_A_KEY: readonly Action[] = ['read', 'update', 'enable', 'disable', 'rotate', 'revoke']

/** What is sent for it is a query. */
const isRead = (action: Action) => action === 'list' || action === 'read'

function owning(...can: NonNullable<ActorOwner['can']>): Actor {
  return { id: 'u_1', owners: OWNERS.map((owner) => ({ ...owner, can })) }
}

const ACTORS = {
  'nobody in particular': { id: 'x' },
  'of another owner': { id: 'x', owners: [STRANGER], grantable: READ },
  'of another type': { id: 'x', owners: OWNERS.map(({ id }) => ({ type: 'team', id })), grantable: READ },
  'owner, can nothing': owning(),
  'owner, can read': owning('read'),
  'owner, can create': owning('create'),
  'owner, can update': owning('update'),
  'owner, can revoke': owning('revoke'),
  'owner, create+update': owning('create', 'update'),
  'owner, in two entries': {
    id: 'u_1',
    owners: OWNERS.flatMap((owner): ActorOwner[] => [
      { ...owner, can: ['read'] },
      { ...owner, can: ['revoke'] },
    ]),
  },
  owner: { id: 'u_1', owners: OWNERS },
  'owner that grants read': { id: 'u_1', owners: OWNERS, grantable: READ },
  admin: { id: 'root', admin: true },
  'admin that grants read': { id: 'root', admin: true, grantable: READ },
  'admin that grants nothing': { id: 'root', admin: true, grantable: {} },
  'admin that also owns': {
    id: 'root',
    admin: true,
    owners: OWNERS.map((owner): ActorOwner => ({ ...owner, can: ['read'] })),
  },
} satisfies Record<string, Actor>

/**
 * The table, by hand. `.` may, `-` not permitted, `0` there is no such key, `P` permissions exceeded; the key has the permission that
 * is granted as READ; the second mark of a pair is for a key that may do more.
 */
const TABLE = `
                            list issue read update enable disable rotate revoke revoke_all erase explain
nobody in particular        --   --    00   00     00     00      00     00     --         --    --
of another owner            --   --    00   00     00     00      00     00     --         --    --
of another type             --   --    00   00     00     00      00     00     --         --    --
owner, can nothing          --   --    --   --     --     --      --     --     --         --    --
owner, can read             ..   --    ..   --     --     --      --     --     --         --    --
owner, can create           --   ..    --   --     --     --      --     --     --         --    --
owner, can update           --   --    --   ..     PP     ..      --     --     --         --    --
owner, can revoke           --   --    --   --     --     --      --     ..     ..         --    --
owner, create+update        --   ..    --   ..     PP     ..      PP     --     --         --    --
owner, in two entries       ..   --    ..   --     --     --      --     ..     ..         --    --
owner                       ..   ..    ..   ..     PP     ..      PP     ..     ..         --    --
owner that grants read      ..   ..    ..   ..     .P     ..      .P     ..     ..         --    --
admin                       ..   ..    ..   ..     ..     ..      ..     ..     ..         ..    ..
admin that grants read      ..   ..    ..   ..     .P     ..      .P     ..     ..         ..    ..
admin that grants nothing   ..   ..    ..   ..     PP     ..      PP     ..     ..         ..    ..
admin that also owns        ..   ..    ..   ..     ..     ..      ..     ..     ..         ..    ..
`

/**
 * The same of keys that hold nothing, in each state. `!` is a conflict: what a state forbids is refused after what an actor
 * may not do.
 */
const STATE_TABLE = `
                                read update enable disable rotate revoke
owner: active                   .    .      .      .       .      .
owner: disabled                 .    .      .      .       .      .
owner: expired                  .    .      .      .       !      .
owner: revoked                  .    !      !      !       !      .
owner: rotated                  .    .      .      .       !      .
owner, can nothing: active      -    -      -      -       -      -
owner, can nothing: disabled    -    -      -      -       -      -
owner, can nothing: expired     -    -      -      -       -      -
owner, can nothing: revoked     -    -      -      -       -      -
owner, can nothing: rotated     -    -      -      -       -      -
of another owner: active        0    0      0      0       0      0
of another owner: disabled      0    0      0      0       0      0
of another owner: expired       0    0      0      0       0      0
of another owner: revoked       0    0      0      0       0      0
of another owner: rotated       0    0      0      0       0      0
`

const MARKS: Readonly<Record<string, string>> = {
  ok: '.',
  not_permitted: '-',
  not_found: '0',
  permissions_exceeded: 'P',
  conflict: '!',
}

/** Lays marks out as the table by hand: each under the heading of its column. */
function layOut(head: string, rows: readonly (readonly [name: string, marks: readonly string[]])[]): string {
  const columns = [...head.matchAll(/\S+/g)].map(({ index }) => index)
  const lines = rows.map(([name, marks]) =>
    marks.reduce((line, mark, i) => line.padEnd(columns[i] as number) + mark, name),
  )
  return `\n${[head, ...lines].join('\n')}\n`
}

function headOf(table: string): string {
  return table.split('\n')[1] as string
}

/** An innocent change for each action, about this owner. */
function changeFor(action: Action, owner: object): object {
  if (action === 'issue') return { owner, name: 'CI' }
  if (action === 'list' || action === 'revoke_all' || action === 'erase') return { owner }
  if (action === 'explain') return { id: 'nobody' }
  return action === 'update' ? { name: 'other' } : {}
}

const STATES: Readonly<Record<string, (management: Management) => Promise<ApiKey>>> = {
  active: ({ give }) => give(),
  disabled: async ({ give, keys }) => keys.disable((await give()).id),
  expired: ({ give }) => give({ expiresAt: later(-1) }),
  revoked: async ({ give, keys }) => keys.revoke((await give()).id),
  rotated: async ({ give, keys }) => (await keys.rotate((await give()).id)).previous,
}

/** What comes of each question, and which member it is about. */
async function answersTo(
  { ask }: Management,
  questions: readonly (readonly [what: string, question: Question])[],
): Promise<Record<string, string>> {
  const answers: Record<string, string> = {}
  for (const [what, question] of questions) {
    const { outcome, field } = await ask(question)
    answers[what] = field === undefined ? outcome : `${outcome}: ${field}`
  }
  return answers
}

describe('who may do what', () => {
  it('is as the table says', async () => {
    const { give, outcomeOf } = createManagement()
    const owner = SERVICE
    const rows: [string, string[]][] = []
    for (const [name, as] of Object.entries(ACTORS)) {
      const marks: string[] = []
      for (const action of ACTIONS) {
        const ask = async (permissions: Permissions) => {
          const { id } = await give({ owner, permissions })
          return MARKS[await outcomeOf({ as, action, id, json: changeFor(action, owner) })] ?? '?'
        }
        marks.push((await ask(READ)) + (await ask({ projects: ['read', 'write'] })))
      }
      rows.push([name, marks])
    }
    expect(layOut(headOf(TABLE), rows)).toBe(TABLE)
  })

  it('goes before what the state of a key forbids', async () => {
    const management = createManagement()
    const rows: [string, string[]][] = []
    for (const name of ['owner', 'owner, can nothing', 'of another owner'] as const) {
      for (const [state, make] of Object.entries(STATES)) {
        const marks: string[] = []
        for (const action of ABOUT_A_KEY) {
          const { id } = await make(management)
          const json = changeFor(action, USER)
          marks.push(MARKS[await management.outcomeOf({ as: ACTORS[name], action, id, json })] ?? '?')
        }
        rows.push([`${name}: ${state}`, marks])
      }
    }
    expect(layOut(headOf(STATE_TABLE), rows)).toBe(STATE_TABLE)
  })

  it('is answered alike for an unknown key and a stranger’s', async () => {
    const { give, ask } = createManagement()
    const { id } = await give()
    for (const action of ABOUT_A_KEY) {
      for (const name of ['nobody in particular', 'of another owner', 'of another type'] as const) {
        const unknown = await ask({ as: ACTORS[name], action, id: 'K0000000000000001' })
        expect(unknown).toMatchObject({ outcome: 'not_found' })
        expect(await ask({ as: ACTORS[name], action, id })).toEqual(unknown)
      }
      expect(await ask({ as: ACTORS.admin, action, id: 'K0000000000000001' })).toMatchObject({
        outcome: 'not_found',
      })
    }
  })

  it('is refused for an owner with whose keys the actor may not, and told so', async () => {
    const { ask } = createManagement()
    for (const [action, ability] of [
      ['list', 'read'],
      ['issue', 'create'],
      ['revoke_all', 'revoke'],
    ] as const) {
      const json = changeFor(action, STRANGER)
      // With one of these owners it may do this, and with the other something else.
      const others = (['read', 'create', 'update', 'revoke'] as const).filter((other) => other !== ability)
      const half: Actor = {
        id: 'u_1',
        owners: [
          { ...USER, can: [ability] },
          { ...STRANGER, can: others },
        ],
      }
      for (const as of [ACTORS.owner, half]) {
        expect(await ask({ as, action, json })).toMatchObject({
          outcome: 'not_permitted',
          field: 'owner',
          accepted: `an owner for which you may "${ability}" keys`,
        })
      }
      expect(await ask({ as: ACTORS.admin, action, json })).toMatchObject({ outcome: 'ok' })
    }
  })

  it('lets nobody who can only create read what was just issued', async () => {
    const { ask, outcomeOf } = createManagement()
    const as = owning('create')
    const { body } = await ask({ as, action: 'issue', json: { owner: USER, name: 'n' } })
    const { id, createdBy } = body.apiKey as ApiKey
    expect(createdBy).toBe('u_1')
    expect(await outcomeOf({ as, action: 'read', id })).toBe('not_permitted')
  })
})

describe('what is let', () => {
  it('is done as it was asked for', async () => {
    const { give, ask } = createManagement()
    const { id } = await give()
    const done = async (action: Action, json: object) =>
      (await ask({ as: ACTORS.owner, action, id, json })).body
    expect(await done('update', { name: 'other' })).toMatchObject({ name: 'other' })
    const rotated = await done('rotate', { graceMs: DAY / 2, expiresAt: later(DAY) })
    expect(rotated).toMatchObject({
      apiKey: { name: 'other', expiresAt: later(DAY).toISOString() },
      previous: { expiresAt: later(DAY / 2).toISOString() },
    })
    const revoked = { revokedBy: 'u_1', revokedReason: 'leaked' }
    expect(await done('revoke', { reason: 'leaked' })).toMatchObject(revoked)
  })
})

describe('revoking many keys', () => {
  it('takes an owner, or an admin where it is by whoever has issued them', async () => {
    const management = createManagement()
    const byCreator = (name: keyof typeof ACTORS): [string, Question] => [
      `by creator: ${name}`,
      { as: ACTORS[name], action: 'revoke_all', json: { createdBy: 'u_1' } },
    ]
    const byNobody = (name: keyof typeof ACTORS): [string, Question] => [
      `by nobody: ${name}`,
      { as: ACTORS[name], action: 'revoke_all', json: { reason: 'x' } },
    ]
    const names = ['nobody in particular', 'owner', 'admin', 'admin that also owns'] as const
    const questions = [...names.map(byCreator), ...names.map(byNobody)]
    expect(await answersTo(management, questions)).toEqual({
      'by creator: nobody in particular': 'not_permitted',
      'by creator: owner': 'not_permitted: createdBy',
      'by creator: admin': 'ok',
      'by creator: admin that also owns': 'ok',
      'by nobody: nobody in particular': 'not_permitted',
      'by nobody: owner': 'invalid_request: owner',
      'by nobody: admin': 'invalid_request: owner',
      'by nobody: admin that also owns': 'invalid_request: owner',
    })
  })

  it('revokes those of an owner that somebody has issued, and says why', async () => {
    for (const name of ['admin', 'owner', 'owner, can revoke'] as const) {
      const { give, ask, keys } = createManagement()
      const { id } = await give({ createdBy: 'u_9' })
      await give({ createdBy: 'u_1' })
      await give({ createdBy: 'u_9', owner: STRANGER })
      const json = { owner: USER, createdBy: 'u_9', reason: 'left' }
      const { body } = await ask({ as: ACTORS[name], action: 'revoke_all', json })
      expect(body).toEqual({ revoked: 1 })
      expect(await keys.get(id)).toMatchObject({ revokedBy: ACTORS[name].id, revokedReason: 'left' })
    }
  })
})

describe('erasing an owner', () => {
  it('is for admins, who have to name it', async () => {
    const management = createManagement()
    const erase = (as: Actor, json: object): Question => ({ as, action: 'erase', json })
    const admin = ACTORS['admin that grants nothing']
    expect(
      await answersTo(management, [
        ['a stranger, by an admin', erase(admin, { owner: STRANGER, knownAs: null })],
        ['nobody', erase(ACTORS['admin that also owns'], {})],
        ['no owner', erase(admin, { knownAs: 'u_2' })],
        ['no more than an id', erase(admin, { owner: 'u_2' })],
        ['no name', erase(admin, { owner: STRANGER, knownAs: '' })],
        ['a number', erase(admin, { owner: STRANGER, knownAs: 7 })],
        ['its own, by an owner', erase(ACTORS.owner, { owner: USER })],
      ]),
    ).toEqual({
      'a stranger, by an admin': 'ok',
      nobody: 'invalid_request: owner',
      'no owner': 'invalid_request: owner',
      'no more than an id': 'invalid_request: owner',
      'no name': 'invalid_request: knownAs',
      'a number': 'invalid_request: knownAs',
      'its own, by an owner': 'not_permitted',
    })
  })

  it('forgets who issued keys of others, unless told of nobody', async () => {
    const { give, ask, keys } = createManagement()
    const { id } = await give({ createdBy: 'u_2' })
    const erase = (json: object) => ask({ as: ACTORS.admin, action: 'erase', json })
    await erase({ owner: STRANGER, knownAs: null })
    expect(await keys.get(id)).toMatchObject({ createdBy: 'u_2' })
    await erase({ owner: STRANGER })
    expect(await keys.get(id)).toMatchObject({ createdBy: null })
  })
})

describe('listing', () => {
  const listed = async (as: Actor, json?: object) => {
    const { give, ask } = createManagement()
    for (const [i, owner] of EVERYBODY.entries()) await give({ owner, issuedAt: later(i - DAY) })
    const { body, outcome } = await ask({ as, action: 'list', json })
    return outcome === 'ok' ? (body.apiKeys as ApiKey[]).map(({ owner }) => owner) : outcome
  }

  it('shows the keys of those whose keys the actor may read', async () => {
    const user: ActorOwner = { ...USER, can: ['create'] }
    const organization: ActorOwner = { ...ORGANIZATION, can: ['read'] }
    expect(await listed({ id: 'a', admin: true })).toEqual(EVERYBODY)
    expect(await listed({ id: 'a', admin: true, owners: [USER] })).toEqual(EVERYBODY)
    expect(await listed({ id: 'a', owners: [user, organization, organization] })).toEqual([ORGANIZATION])
    expect(await listed({ id: 'a', owners: OWNERS })).toEqual(OWNERS)
    expect(await listed({ id: 'a', owners: OWNERS }, { owner: SERVICE })).toEqual([SERVICE])
    expect(await listed({ id: 'a', owners: [user] })).toBe('not_permitted')
  })

  it('is of one owner at a time where there are more than a hundred', async () => {
    const { ask, outcomeOf } = createManagement()
    const owners = Array.from({ length: 101 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
    const many: Actor = { id: 'a', owners }
    expect(await ask({ as: many, action: 'list' })).toMatchObject({
      outcome: 'invalid_request',
      field: 'owner',
    })
    expect(await outcomeOf({ as: many, action: 'list', json: { owner: owners[100] } })).toBe('ok')
    expect(await outcomeOf({ as: { ...many, owners: owners.slice(1) }, action: 'list' })).toBe('ok')
    // Named twice, it is one.
    const twice = { ...many, owners: [...owners.slice(1), ...owners.slice(1)] }
    expect(await outcomeOf({ as: twice, action: 'list' })).toBe('ok')
  })
})

describe('the owner of a new key', () => {
  const one: Actor = {
    id: 'a',
    owners: [
      { ...USER, can: ['read'] },
      { ...ORGANIZATION, can: ['create'] },
    ],
  }

  it('is named, unless the actor can issue for one owner only', async () => {
    const { ask } = createManagement()
    const unnamed = { outcome: 'invalid_request', field: 'owner' }
    const json = { name: 'n' }
    expect(await ask({ as: ACTORS.owner, action: 'issue', json })).toMatchObject(unnamed)
    expect(await ask({ as: ACTORS.admin, action: 'issue', json })).toMatchObject(unnamed)
    const reader = await ask({ as: owning('read'), action: 'issue', json })
    expect(reader).toMatchObject({ outcome: 'not_permitted' })
    expect(reader).not.toHaveProperty('field')
    expect(await ask({ as: one, action: 'issue', json: { ...json, owner: USER } })).toMatchObject({
      outcome: 'not_permitted',
      field: 'owner',
    })
    const { body } = await ask({ as: one, action: 'issue', json })
    expect(body.apiKey).toMatchObject({ name: 'n', owner: ORGANIZATION, createdBy: 'a' })
  })

  it('is an object with a type and an id, and nothing else', async () => {
    const owners: Record<string, unknown> = {
      'a text': 'u_1',
      null: null,
      'no type': { id: 'u_1' },
      'an empty id': { type: 'user', id: '' },
      'a number as id': { type: 'user', id: 1 },
      'a further member': { ...USER, can: ['read'] },
      'a prototype': json('{"__proto__":{"type":"user","id":"u_1"}}'),
      'a prototype beside': json('{"type":"user","id":"u_1","__proto__":{"admin":true}}'),
      'a constructor': json('{"type":"user","id":"u_1","constructor":{"prototype":{"admin":true}}}'),
    }
    const questions = Object.entries(owners).map(([what, owner]): [string, Question] => [
      what,
      { as: ACTORS.owner, action: 'issue', json: { name: 'n', owner } },
    ])
    expect(await answersTo(createManagement(), questions)).toEqual({
      'a text': 'invalid_request: owner',
      null: 'invalid_request: owner',
      'no type': 'invalid_request: owner.type',
      'an empty id': 'invalid_request: owner.id',
      'a number as id': 'invalid_request: owner.id',
      'a further member': 'invalid_request: owner.can',
      'a prototype': 'invalid_request: owner.__proto__',
      'a prototype beside': 'invalid_request: owner.__proto__',
      'a constructor': 'invalid_request: owner.constructor',
    })
    expect(({} as { admin?: boolean }).admin).toBeUndefined()
  })
})

describe('what no request may name', () => {
  /** By hand: what is sent, and what comes of it whoever sends it. */
  const UNKNOWN: readonly (readonly [Action, object, string])[] = [
    ['update', { owner: SERVICE }, 'field_not_allowed: owner'],
    ['update', { createdBy: 'me' }, 'field_not_allowed: createdBy'],
    ['update', { prefix: 'acme_live' }, 'field_not_allowed: prefix'],
    ['issue', { createdBy: 'me' }, 'field_not_allowed: createdBy'],
    ['issue', { id: 'K0000000000000009' }, 'invalid_request: id'],
    ['issue', { enabled: true }, 'invalid_request: enabled'],
    ['issue', { permision: {} }, 'invalid_request: permision'],
    ['issue', json('{"__proto__":{"admin":true}}'), 'invalid_request: __proto__'],
    ['issue', { constructor: 1 }, 'invalid_request: constructor'],
    ['update', { enabled: true }, 'invalid_request: enabled'],
    ['update', { version: 7 }, 'invalid_request: version'],
    ['update', { revokedAt: null }, 'invalid_request: revokedAt'],
    ['update', { lineageId: 'x' }, 'invalid_request: lineageId'],
    ['update', json('{"__proto__":{"permissions":{"*":["*"]}}}'), 'invalid_request: __proto__'],
    ['rotate', { permissions: {} }, 'invalid_request: permissions'],
    ['rotate', { owner: SERVICE }, 'invalid_request: owner'],
    ['revoke', { by: 'somebody' }, 'invalid_request: by'],
    ['revoke_all', { all: true }, 'invalid_request: all'],
    ['enable', { force: true }, 'invalid_request: force'],
    ['disable', { reason: 'x' }, 'invalid_request: reason'],
    ['read', { fields: '*' }, 'invalid_request: fields'],
    ['list', { all: 'true' }, 'invalid_request: all'],
  ]

  /** Missing or malformed, for an admin as well. */
  const MALFORMED: readonly (readonly [Action, unknown, string])[] = [
    ['issue', {}, 'invalid_request: name'],
    ['issue', { name: '' }, 'invalid_request: name'],
    ['issue', { name: 7 }, 'invalid_request: name'],
    ['issue', { name: 'n', prefix: 'a b' }, 'invalid_request: prefix'],
    ['issue', { name: 'n', prefix: null }, 'invalid_request: prefix'],
    ['update', {}, 'invalid_request'],
    ['update', { expiresAt: 'tomorrow' }, 'invalid_request: expiresAt'],
    ['update', { expiresAt: later(0) }, 'invalid_request: expiresAt'],
    ['update', { idleExpiryMs: 59_999 }, 'invalid_request: idleExpiryMs'],
    [
      'update',
      { rateLimits: [{ name: 'm', limit: 0, windowMs: 1 }] },
      'invalid_request: rateLimits[0].limit',
    ],
    [
      'update',
      { rateLimits: [{ name: 'm', limit: 1, windowMs: 1_000, extra: 1 }] },
      'invalid_request: rateLimits[0].extra',
    ],
    ['update', { quota: { remaining: -1 } }, 'invalid_request: quota.remaining'],
    ['update', { allowedIps: ['nowhere'] }, 'invalid_request: allowedIps[0]'],
    ['update', { permissions: { 'a b': ['read'] } }, 'invalid_request: permissions'],
    ['update', { permissions: json('{"__proto__":["read"]}') }, 'invalid_request: permissions.__proto__'],
    ['update', { metadata: [] }, 'invalid_request: metadata'],
    ['rotate', { graceMs: -1 }, 'invalid_request: graceMs'],
    ['rotate', { graceMs: 366 * DAY + 1 }, 'invalid_request: graceMs'],
    ['rotate', { expiresAt: later(0) }, 'invalid_request: expiresAt'],
    ['revoke', { reason: 'x'.repeat(1_001) }, 'invalid_request: reason'],
    ...ACTIONS.filter((action) => !isRead(action)).flatMap((action) =>
      [[], 'text', 7, true, null].map((body) => [action, body, 'invalid_request: body'] as const),
    ),
  ]

  it.each(['owner', 'admin'] as const)('is refused to an %s', async (name) => {
    const management = createManagement()
    const { id } = await management.give()
    const rows = [...UNKNOWN, ...(name === 'admin' ? MALFORMED : [])].map(([action, change, expected]) => {
      const isIssue = action === 'issue' && typeof change === 'object' && change !== null
      const json = isIssue && !Array.isArray(change) ? { owner: USER, ...change } : change
      return { what: `${action}: ${JSON.stringify(change)}`, expected, action, json }
    })
    const answers = await answersTo(
      management,
      rows.map(({ what, action, json }) => [
        what,
        { as: ACTORS[name], action, id, json, clientFields: { prefix: ['acme_live'] } },
      ]),
    )
    expect(answers).toEqual(Object.fromEntries(rows.map(({ what, expected }) => [what, expected])))
  })

  it('is told by its name and what it should be, and never what it was', async () => {
    const { give, ask } = createManagement()
    const { id } = await give()
    const json = { allowedIps: ['acme_secret'] }
    const { outcome, field, accepted, body } = await ask({ as: ACTORS.admin, action: 'update', id, json })
    expect({ outcome, field, accepted }).toEqual({
      outcome: 'invalid_request',
      field: 'allowedIps[0]',
      accepted: 'an IP address or a CIDR block',
    })
    expect(JSON.stringify(body)).not.toContain('acme_secret')
  })
})

describe('what is granted for one owner', () => {
  const [strong, weak, usual] = [
    { type: 'team', id: 'strong' },
    { type: 'team', id: 'weak' },
    { type: 'team', id: 'usual' },
  ] as const
  const actor: Actor = {
    id: 'u_1',
    owners: [{ ...strong, grantable: { projects: ['read', 'write'] } }, { ...weak, grantable: {} }, usual],
    grantable: READ,
  }
  const exceeded = 'permissions_exceeded'
  const each = (text: string) => Array(5).fill(text)

  /** Of each team: to issue, to add by update, to revive, to enable and to rotate a key with these permissions. */
  async function outcomes(as: Actor, permissions: Permissions): Promise<string[][]> {
    const { give, outcomeOf } = createManagement()
    const teams: string[][] = []
    for (const owner of [strong, weak, usual]) {
      const bare = await give({ owner })
      const expired = await give({ owner, permissions, expiresAt: later(-1) })
      const full = await give({ owner, permissions })
      const json = { name: 'n', owner, permissions }
      teams.push([
        await outcomeOf({ as, action: 'issue', json }),
        await outcomeOf({ as, action: 'update', id: bare.id, json: { permissions } }),
        await outcomeOf({ as, action: 'update', id: expired.id, json: { expiresAt: null } }),
        await outcomeOf({ as, action: 'enable', id: full.id }),
        await outcomeOf({ as, action: 'rotate', id: full.id }),
      ])
    }
    return teams
  }

  it('is granted for no other', async () => {
    expect(await outcomes(actor, WRITE)).toEqual([each('ok'), each(exceeded), each(exceeded)])
    expect(await outcomes(actor, READ)).toEqual([each('ok'), each(exceeded), each('ok')])
  })

  it('adds up where an owner is named twice', async () => {
    const twice: Actor = {
      id: 'u_1',
      owners: [
        { ...strong, grantable: READ },
        { ...strong, grantable: { '*': ['write'] } },
        { ...weak, grantable: WRITE },
        weak,
        usual,
      ],
      grantable: READ,
    }
    const both = { projects: ['read', 'write'] }
    expect(await outcomes(twice, both)).toEqual([each('ok'), each('ok'), each(exceeded)])
    expect((await outcomes(twice, { reports: ['read'] }))[0]).toEqual(each(exceeded))
  })

  it('adds up for what each entry may be used for, and for nothing else', async () => {
    const entries = (...of: Omit<ActorOwner, 'type' | 'id'>[]): Actor => ({
      id: 'u_1',
      owners: of.map((entry) => ({ ...strong, ...entry })),
      grantable: READ,
    })
    const ofStrong = async (as: Actor, permissions: Permissions) => (await outcomes(as, permissions))[0]
    const forReaders = entries({ can: ['read'], grantable: WRITE }, { can: ['create', 'update'] })
    expect(await ofStrong(forReaders, WRITE)).toEqual(each(exceeded))
    const usualForReaders = entries({ can: ['read'] }, { can: ['create', 'update'], grantable: WRITE })
    expect(await ofStrong(usualForReaders, READ)).toEqual(each(exceeded))
    expect(await ofStrong(usualForReaders, WRITE)).toEqual(each('ok'))
    const creates = entries({ can: ['create'], grantable: WRITE }, { can: ['update'], grantable: READ })
    expect(await ofStrong(creates, WRITE)).toEqual(['ok', exceeded, exceeded, exceeded, exceeded])
    expect(await ofStrong(creates, READ)).toEqual([exceeded, 'ok', 'ok', 'ok', exceeded])
  })

  it('is told once where two entries say the same', async () => {
    const as: Actor = {
      id: 'u_1',
      owners: [
        { ...strong, can: ['create'], grantable: READ },
        { ...strong, can: ['create'], grantable: { projects: ['read'] } },
      ],
    }
    const json = { name: 'n', owner: strong, permissions: WRITE }
    expect(await createManagement().ask({ as, action: 'issue', json })).toMatchObject({
      accepted: 'permissions within {"projects":["read"]}',
    })
  })

  it('takes nothing from an admin, and gives one more where it is bounded', async () => {
    const owners = [
      { ...strong, grantable: WRITE },
      { ...weak, grantable: {} },
    ]
    const everywhere = Array(3).fill(each('ok'))
    expect(await outcomes({ id: 'root', admin: true, owners }, WRITE)).toEqual(everywhere)
    const bounded: Actor = { id: 'root', admin: true, owners, grantable: READ }
    expect(await outcomes(bounded, WRITE)).toEqual([each('ok'), each(exceeded), each(exceeded)])
    expect(await outcomes(bounded, READ)).toEqual(everywhere)
  })
})

describe('whatever is asked', () => {
  const SENDABLE = ['projects', 'reports', 'billing', '*']
  const RESOURCES = [...SENDABLE, '__proto__', 'constructor']
  const DEEDS = ['read', 'write', '*', '__proto__']
  const permissionsOf = (names: readonly string[]) =>
    fc
      .uniqueArray(fc.tuple(fc.constantFrom(...names), fc.subarray(DEEDS)), { selector: ([name]) => name })
      .map((entries) => Object.fromEntries(entries) as Permissions)

  /** Every single deed on every single thing, worked out one by one, by no function of the library. */
  const SINGLE = [...RESOURCES.filter((name) => name !== '*'), 'anything else'].flatMap((thing) =>
    ['read', 'write', '__proto__', 'any other'].map((deed) => [thing, deed] as const),
  )
  function allows(held: Permissions, thing: string, deed: string): boolean {
    return Object.entries(held).some(
      ([name, deeds]) => (name === thing || name === '*') && deeds.some((one) => one === deed || one === '*'),
    )
  }

  it('no key ends with more than it had and the actor may grant, under the ceiling', async () => {
    const { give, ask, keys } = createManagement()
    const property = async (
      admin: boolean,
      grantable: Permissions | undefined,
      had: Permissions | null,
      wanted: Permissions,
      top: Permissions | boolean,
    ) => {
      const as: Actor = { id: 'u_1', owners: [USER], admin, ...(grantable && { grantable }) }
      const clientFields = { permissions: top }
      const { id } = await give({ permissions: had ?? {} })
      const { outcome, body } = await ask(
        had === null
          ? { as, action: 'issue', json: { name: 'n', owner: USER, permissions: wanted }, clientFields }
          : { as, action: 'update', id, json: { permissions: wanted }, clientFields },
      )
      const ended = (outcome === 'ok' && (body.apiKey as ApiKey | undefined)) || (await keys.get(id))
      const got = (ended as ApiKey).permissions
      for (const [thing, deed] of SINGLE.filter(([thing, deed]) => allows(got, thing, deed))) {
        const isGranted = grantable ? allows(grantable, thing, deed) : admin
        const isUnder = admin || top === true || allows(top as Permissions, thing, deed)
        expect(allows(had ?? {}, thing, deed) || (isGranted && isUnder)).toBe(true)
      }
      // Nor is what may be had refused: each deed that is asked for is had, or may be granted.
      const isFine = Object.entries(wanted).every(([name, deeds]) =>
        deeds.every((deed) => {
          const held = (by: Permissions) =>
            Object.entries(by).some(
              ([other, d]) => [name, '*'].includes(other) && (d.includes(deed) || d.includes('*')),
            )
          const isUnder = admin || top === true || held(top as Permissions)
          return held(had ?? {}) || ((grantable ? held(grantable) : admin) && isUnder)
        }),
      )
      expect(outcome).toBe(isFine ? 'ok' : 'permissions_exceeded')
    }
    await fc.assert(
      fc.asyncProperty(
        fc.boolean(),
        fc.option(permissionsOf(RESOURCES), { nil: undefined }),
        fc.option(permissionsOf(RESOURCES)),
        // Names that lead to prototypes are refused before.
        permissionsOf(SENDABLE),
        fc.oneof(fc.constant(true), permissionsOf(RESOURCES)),
        property,
      ),
      { numRuns: 500 },
    )
  })

  it('it is answered, nothing breaks, and nothing is written of what is refused', async () => {
    const member = fc.constantFrom(
      ...['owner', 'name', 'permissions', 'rateLimits', 'quota', 'allowedIps', 'expiresAt', 'idleExpiryMs'],
      ...['metadata', 'prefix', 'graceMs', 'reason', 'createdBy', '__proto__', 'constructor', 'ok'],
    )
    const minute = { name: 'minute', limit: 100, windowMs: 60_000 }
    const value = fc.oneof(
      fc.jsonValue(),
      permissionsOf(RESOURCES),
      fc.constantFrom<unknown>(null, USER, 'a text', [minute], { remaining: 5 }, later(DAY), ['192.0.2.1']),
    )
    const change = fc.oneof(
      fc.jsonValue(),
      fc.array(fc.tuple(member, value), { maxLength: 5 }).map((entries) => Object.fromEntries(entries)),
    )
    const fields: ClientFields[] = [
      {},
      { permissions: READ, rateLimits: [minute], quota: { maxRemaining: 9 }, expiresAt: { maxMs: DAY } },
      { permissions: false, expiresAt: false, idleExpiryMs: false, metadata: false, allowedIps: false },
      { idleExpiryMs: { maxMs: DAY }, prefix: ['acme'], rateLimits: [minute] },
    ]
    const given: readonly (object | null)[] = [null, {}, { owner: SERVICE, expiresAt: later(-1) }]
    const management = createManagement()
    const { give, ask, keys, eventsOf } = management
    const before = Object.getOwnPropertyNames(Object.prototype).length
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...Object.values(ACTORS)),
        fc.constantFrom(...ACTIONS.filter((action) => !isRead(action))),
        fc.constantFrom(...given),
        change,
        fc.constantFrom(...fields),
        async (as, action, settings, json, clientFields) => {
          const id = settings === null ? 'unknown' : (await give({ createdBy: 'u_9', ...settings })).id
          const { status, outcome, field, accepted, body } = await ask({ as, action, id, json, clientFields })
          expect([200, 201, 400, 403, 404, 409]).toContain(status)
          // Who is told which member is wrong is told what would be right.
          if (field !== undefined) expect(accepted).toMatch(/./)
          const key = (body.apiKey ?? body) as ApiKey
          if (outcome === 'ok' && action === 'issue') expect(key.createdBy).toBe(as.id)
          if (outcome === 'ok' && action === 'update') expect(key.createdBy).toBe('u_9')
        },
      ),
      { numRuns: 500 },
    )
    expect(eventsOf('fault')).toEqual([])
    expect((await keys.list({ limit: 1 })).apiKeys).toHaveLength(1)
    expect(Object.getOwnPropertyNames(Object.prototype)).toHaveLength(before)
  })
})

describe('a decision', () => {
  /** By hand: what the schemas of HTTP refuse before, of which nothing may depend on them. */
  const REFUSED: readonly (readonly [Action, unknown, string])[] = [
    ['update', { owner: SERVICE }, 'field_not_allowed: owner'],
    ['update', { createdBy: 'me' }, 'field_not_allowed: createdBy'],
    ['update', { prefix: 'acme_live' }, 'field_not_allowed: prefix'],
    ['issue', { name: 'n', createdBy: 'me' }, 'field_not_allowed: createdBy'],
    ['issue', { name: 'n', enabled: true }, 'invalid_request: enabled'],
    ['issue', { name: 'n', owner: { ...USER, can: ['read'] } }, 'invalid_request: owner'],
    ['issue', {}, 'invalid_request: name'],
    ['issue', json('{"name":"n","__proto__":{"admin":true}}'), 'invalid_request: __proto__'],
    [
      'issue',
      { name: 'n', permissions: json('{"__proto__":["read"]}') },
      'permissions_exceeded: permissions',
    ],
    ['update', { version: 7 }, 'invalid_request: version'],
    ['update', { name: undefined }, 'invalid_request'],
    ['update', { idleExpiryMs: 59_999 }, 'invalid_request: idleExpiryMs'],
    ['rotate', { permissions: {} }, 'invalid_request: permissions'],
    ['rotate', { graceMs: -1 }, 'invalid_request: graceMs'],
    ['revoke', { by: 'somebody' }, 'invalid_request: by'],
    ['revoke', { reason: 'x'.repeat(1_001) }, 'invalid_request: reason'],
    ['revoke_all', { all: true }, 'invalid_request: all'],
    ['enable', { force: true }, 'invalid_request: force'],
    ['disable', { reason: 'x' }, 'invalid_request: reason'],
    ['read', { fields: '*' }, 'invalid_request: fields'],
    ['list', { createdBy: 'u_2' }, 'invalid_request: createdBy'],
    ...ACTIONS.filter((action) => action !== 'erase' && action !== 'explain').flatMap((action) =>
      [[], 'text', 7, new Date(NOW), new Map()].map((change) => [action, change, 'invalid_request'] as const),
    ),
  ]

  it('relies on no schema', () => {
    const actor: Actor = { id: 'u_1', owners: [USER] }
    const admin: Actor = { id: 'root', admin: true }
    const rows = [
      ...REFUSED.map((row) => [actor, ...row] as const),
      [admin, 'erase', null, 'invalid_request: owner'],
      [admin, 'erase', { knownAs: 'u_2' }, 'invalid_request: owner'],
      [admin, 'erase', { owner: USER, knownAs: '' }, 'invalid_request: knownAs'],
      [admin, 'explain', { key: 'x' }, 'invalid_request: key'],
    ] as const
    for (const [who, action, change, expected] of rows) {
      const key = ABOUT_A_KEY.includes(action) ? apiKeyAt(NOW) : null
      const decision = decide(who, action, key, change, resolvePolicy(), NOW)
      const { code, field, accepted } = decision as Extract<typeof decision, { ok: false }>
      const what = `${action} ${JSON.stringify(change)}`
      expect(field === undefined ? code : `${code}: ${field}`, what).toBe(expected)
      expect(accepted, what).toMatch(/./)
    }
  })

  it('is about a copy, which nobody changes afterwards', () => {
    const change = {
      permissions: {} as Record<string, string[]>,
      metadata: { deep: { a: 1 } },
      allowedIps: ['192.0.2.1'],
    }
    const decision = decide(ACTORS.owner, 'update', apiKeyAt(NOW), change, resolvePolicy(), NOW)
    change.permissions.projects = ['admin']
    change.metadata.deep.a = 2
    change.allowedIps.push('0.0.0.0/0')
    expect(decision).toEqual({
      ok: true,
      change: { permissions: {}, metadata: { deep: { a: 1 } }, allowedIps: ['192.0.2.1'] },
    })
  })
})

describe('a key as an actor', () => {
  it('is named in a way that no actor of an application can be', () => {
    expect(keyActorId(apiKeyAt(NOW))).toBe('key:K0000000000000001')
    const ids = ['x'.repeat(255), `${'x'.repeat(254)}y`].map((id) => keyActorId(apiKeyAt(NOW, { id })))
    expect(new Set(ids).size).toBe(2)
    for (const id of ids) expect(id.length).toBeLessThanOrEqual(255)
  })
})
