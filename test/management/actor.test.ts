import { describe, expect, it } from 'vitest'
import { checkActor } from '../../lib/management/actor.ts'

const json = (text: string) => JSON.parse(text)

describe('an actor as the application answers it', () => {
  it.each([
    ['undefined', undefined, '"actor" must be an object, received undefined'],
    ['null', null, '"actor" must be an object, received null'],
    ['true', true, '"actor" must be an object, received true'],
    ['a text', 'root', '"actor" must be an object, received a string'],
    ['a list', [], '"actor" must be an object, received an array'],
    ['a promise', Promise.resolve({ id: 'a' }), '"actor" must be an object'],
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
    [
      'an owner without type',
      { id: 'a', owners: [{ id: 'x' }] },
      '"actor.owners[0].type" must be a non-empty',
    ],
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
  ])('is refused as %s', (_what, value, message) => {
    expect(() => checkActor(value)).toThrow(TypeError)
    expect(() => checkActor(value)).toThrow(message)
  })

  it('is no admin by what somebody has put on the prototype of all objects', () => {
    const everything = { admin: true, grantable: { '*': ['*'] }, can: ['revoke'] }
    Object.assign(Object.prototype, everything)
    try {
      const actor = checkActor({ id: 'a', owners: [{ type: 'user', id: 'x' }] })
      expect(Object.entries(actor)).toEqual([
        ['id', 'a'],
        ['owners', [{ type: 'user', id: 'x', can: ['read', 'create', 'update', 'revoke'] }]],
        ['admin', false],
      ])
    } finally {
      for (const name of Object.keys(everything)) Reflect.deleteProperty(Object.prototype, name)
    }
  })

  it('is copied and frozen: what the application changes afterwards changes nothing', () => {
    const given = {
      id: 'a',
      owners: [{ type: 'user', id: 'x', can: ['read'], grantable: { reports: ['read'] } }],
      grantable: { projects: ['read'] },
    }
    const actor = checkActor(given)
    given.owners[0]?.can.push('revoke')
    given.owners[0]?.grantable.reports.push('*')
    given.grantable.projects.push('*')
    const expected = {
      id: 'a',
      admin: false,
      owners: [{ type: 'user', id: 'x', can: ['read'], grantable: { reports: ['read'] } }],
      grantable: { projects: ['read'] },
    }
    expect(actor).toEqual(expected)
    for (const part of [actor, actor.owners, actor.owners?.[0], actor.owners?.[0]?.can, actor.grantable]) {
      expect(Object.isFrozen(part)).toBe(true)
    }
    expect(Object.isFrozen(actor.grantable?.projects)).toBe(true)
  })

  it('may be checked again', () => {
    const actor = checkActor({ id: 'a', owners: [{ type: 'user', id: 'x' }], admin: true, grantable: {} })
    expect(checkActor(actor)).toEqual(actor)
  })
})
