import type { Actor } from 'latchkey/management'
import { describe, expect, it } from 'vitest'
import { checkActor } from '../../lib/management/actor.ts'
import { createManagement, USER } from '../support/ask-management.ts'

const json = (text: string) => JSON.parse(text)

/** By hand: what an application answers, and what its fault is said to be. */
const REFUSED: readonly (readonly [what: string, actor: unknown, message: string])[] = [
  ['true', true, '"actor" must be an object, received true'],
  ['a text', 'root', '"actor" must be an object, received a string'],
  ['a list', [], '"actor" must be an object, received an array'],
  ['no id', {}, '"actor.id" must be a non-empty string, received undefined'],
  ['an empty id', { id: '' }, '"actor.id" must be a non-empty string'],
  ['a number as id', { id: 7 }, '"actor.id" must be a non-empty string, received 7'],
  ['an id that is too long', { id: 'x'.repeat(256) }, '"actor.id" must be at most 255'],
  ['the id of a key', { id: 'key:abc' }, '"actor.id" must not begin with "key:"'],
  ['a member misspelt', { id: 'a', owner: [] }, '"actor" has no option "owner"; did you mean "owners"?'],
  ['a presented key', { id: 'a', presented: {} }, '"actor" has no option "presented"'],
  ['a prototype', json('{"id":"a","__proto__":{"admin":true}}'), '"actor" has no option "__proto__"'],
  [
    'a bound of its class',
    new (class {
      id = 'a'
      admin = true
      get grantable() {
        return {}
      }
    })(),
    '"actor.grantable" must be a member of the object itself, and not of its class',
  ],
  [
    'abilities that are inherited',
    { id: 'a', owners: [Object.assign(Object.create({ can: ['read'] }), { type: 'user', id: 'x' })] },
    '"actor.owners[0].can" must be a member of the object itself',
  ],
  ['an admin of text', { id: 'a', admin: 'no' }, '"actor.admin" must be true or false'],
  ['an admin of 1', { id: 'a', admin: 1 }, '"actor.admin" must be true or false, received 1'],
  ['an admin of null', { id: 'a', admin: null }, '"actor.admin" must be true or false, received null'],
  ['owners of null', { id: 'a', owners: null }, '"actor.owners" must be an array, received null'],
  ['one owner', { id: 'a', owners: { type: 'user', id: 'a' } }, '"actor.owners" must be an array'],
  ['owners of text', { id: 'a', owners: ['u_1'] }, '"actor.owners[0]" must be an object'],
  ['a hole in owners', { id: 'a', owners: Array(1) }, '"actor.owners[0]" must be an object'],
  ['an owner without type', { id: 'a', owners: [{ id: 'x' }] }, '"actor.owners[0].type" must be a non-empty'],
  ['an owner by number', { id: 'a', owners: [{ type: 'user', id: 1 }] }, '"actor.owners[0].id" must be'],
  [
    'an ability nobody has',
    { id: 'a', owners: [{ type: 'user', id: 'x', can: ['admin'] }] },
    '"actor.owners[0].can" must name "read", "create", "update" and "revoke" only',
  ],
  [
    'abilities as a text',
    { id: 'a', owners: [{ type: 'user', id: 'x', can: 'read' }] },
    '"actor.owners[0].can" must be an array',
  ],
  [
    'an owner of nobody knows what',
    { id: 'a', owners: [{ type: 'user', id: 'x', cna: [] }] },
    '"actor.owners[0]" has no option "cna"; did you mean "can"?',
  ],
  ['grants of text', { id: 'a', grantable: '*' }, '"actor.grantable" must be an object'],
  [
    'grants of null',
    { id: 'a', grantable: null },
    '"actor.grantable" must be an object of resource → actions, received null',
  ],
  [
    'grants for an owner that are no names',
    { id: 'a', owners: [{ type: 'user', id: 'x', grantable: { 'a b': [] } }] },
    '"actor.owners[0].grantable" must use names',
  ],
  [
    'grants for an owner that are none',
    { id: 'a', owners: [{ type: 'user', id: 'x', grantable: null }] },
    '"actor.owners[0].grantable" must be an object of resource → actions, received null',
  ],
  ['grants that are no names', { id: 'a', grantable: { 'a b': [] } }, '"actor.grantable" must use names'],
]

describe('an actor as the application answers it', () => {
  it('is a fault where it is none, and stands for nobody’s rights', async () => {
    const { ask, eventsOf } = createManagement()
    const told: Record<string, unknown> = {}
    for (const [what, actor] of REFUSED) {
      const { status } = await ask({ as: actor as Actor, action: 'issue', json: { name: 'n', owner: USER } })
      const { error, operation } = eventsOf('fault').at(-1) ?? {}
      told[what] = { status, operation, error }
    }
    expect(told).toEqual(
      Object.fromEntries(
        REFUSED.map(([what, , message]) => [
          what,
          {
            status: 503,
            operation: 'actor',
            error: expect.objectContaining({ name: 'TypeError', message: expect.stringContaining(message) }),
          },
        ]),
      ),
    )
    expect(eventsOf('fault')).toHaveLength(REFUSED.length)
  })

  it('is no admin by what somebody has put on the prototype of all objects', async () => {
    const { give, ask } = createManagement()
    const [own, stranger] = [await give(), await give({ owner: { type: 'user', id: 'u_2' } })]
    const as: Actor = { id: 'a', owners: [{ ...USER }] }
    const everything = { admin: true, grantable: { '*': ['*'] }, can: ['revoke'] }
    // What can be enumerated, the schemas would already refuse.
    for (const [name, value] of Object.entries(everything)) {
      Object.defineProperty(Object.prototype, name, { value, configurable: true })
    }
    try {
      const permissions = { projects: ['read'] }
      const answers = [
        await ask({ as, action: 'read', id: own.id }),
        await ask({ as, action: 'read', id: stranger.id }),
        await ask({ as, action: 'update', id: own.id, json: { permissions } }),
      ]
      expect(answers.map(({ outcome }) => outcome)).toEqual(['ok', 'not_found', 'permissions_exceeded'])
    } finally {
      for (const name of Object.keys(everything)) Reflect.deleteProperty(Object.prototype, name)
    }
  })

  it('keeps the rights that it came with, whatever the application does with it afterwards', async () => {
    const { give, outcomeOf, store } = createManagement()
    const { id } = await give()
    const given = {
      id: 'a',
      owners: [{ ...USER, can: ['read', 'update'], grantable: { reports: ['read'] } }],
    }
    // By then it is known who asks.
    store.fail('find', (work) => {
      for (const { grantable } of given.owners) grantable.reports = ['*']
      return work()
    })
    const update = { id, json: { permissions: { reports: ['write'] } } }
    const as = given as Actor
    expect(await outcomeOf({ as, action: 'update', ...update })).toBe('permissions_exceeded')
    expect(await outcomeOf({ as, action: 'update', ...update })).toBe('ok')
  })

  it('is frozen, all of it', () => {
    const actor = checkActor({
      id: 'a',
      owners: [{ ...USER, can: ['read'], grantable: { reports: ['read'] } }],
      grantable: { projects: ['read'] },
    })
    const [owner] = actor.owners ?? []
    const parts = [
      actor,
      actor.owners,
      owner,
      owner?.can,
      owner?.grantable?.reports,
      actor.grantable?.projects,
    ]
    expect(parts.map((part) => Object.isFrozen(part))).toEqual(parts.map(() => true))
  })
})
