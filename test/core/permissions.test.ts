import { createApiKeys, memoryRateLimiter, memoryStore, missingPermissions, type Permissions } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { checkPermissions, checkRequirement, isWithin } from '../../lib/core/permissions.ts'

/** Permissions as JSON brings them: `__proto__` is a member like any other. */
const json = (text: string) => JSON.parse(text)

describe('what a key lacks', () => {
  it.each([
    ['everything, where it has nothing', {}, { a: ['read'] }, { a: ['read'] }],
    ['the action', { a: ['read'] }, { a: ['write'] }, { a: ['write'] }],
    ['one of several actions', { a: ['read'] }, { a: ['read', 'write', 'purge'] }, { a: ['write', 'purge'] }],
    [
      'one of several resources',
      { a: ['read'] },
      { a: ['read'], b: ['read'], c: ['x'] },
      { b: ['read'], c: ['x'] },
    ],
    ['a resource without actions', { a: [] }, { a: ['read'] }, { a: ['read'] }],
    ['a resource in another case', { Projects: ['read'] }, { projects: ['read'] }, { projects: ['read'] }],
    ['an action in another case', { a: ['Read'] }, { a: ['read'] }, { a: ['read'] }],
    ['a longer name than it has', { proj: ['read'] }, { projects: ['read'] }, { projects: ['read'] }],
    [
      'what a star inside a name would cover',
      { 'proj*': ['re*'] },
      { projects: ['read'] },
      { projects: ['read'] },
    ],
    ['all actions, where it has all it ever needed', { a: ['read', 'write'] }, { a: ['*'] }, { a: ['*'] }],
    ['all resources', { a: ['*'], b: ['*'] }, { '*': ['read'] }, { '*': ['read'] }],
    ['everything, where it has one resource in full', { a: ['*'] }, { '*': ['*'] }, { '*': ['*'] }],
    ['another action on all resources', { '*': ['read'] }, { a: ['read', 'write'] }, { a: ['write'] }],
    ['what no alternative could give', { '*': ['*'] }, [], {}],
    ['a member every object has', {}, { constructor: ['name'] }, { constructor: ['name'] }],
    ['a method every object has', {}, { toString: ['length'] }, { toString: ['length'] }],
    ['the prototype', {}, json('{"__proto__":["read"]}'), json('{"__proto__":["read"]}')],
    [
      'the prototype, where that is a grant of everything',
      Object.create({ projects: ['*'], '*': ['*'] }),
      { projects: ['read'] },
      { projects: ['read'] },
    ],
  ])('is %s', (_what, granted, required, missing) => {
    expect(Object.entries(missingPermissions(granted, required) ?? 'nothing')).toEqual(
      Object.entries(missing),
    )
  })

  it.each([
    ['it has exactly that', { a: ['read'] }, { a: ['read'] }],
    ['it has more', { a: ['read', 'write'], b: ['x'] }, { a: ['write'] }],
    ['it may do everything on the resource', { a: ['*'] }, { a: ['read', 'write'] }],
    ['it may do the action on everything', { '*': ['read'] }, { a: ['read'], b: ['read'] }],
    ['both kinds of star meet', { '*': ['read'], a: ['*'] }, { a: ['write', 'read'], b: ['read'] }],
    ['it may do everything', { '*': ['*'] }, { a: ['read'], '*': ['*'], constructor: ['*'] }],
    ['the star is asked for and granted', { a: ['*'] }, { a: ['*'] }],
    ['a member of every object was granted', { constructor: ['x'] }, { constructor: ['x'] }],
    ['the prototype was granted', json('{"__proto__":["read"]}'), json('{"__proto__":["read"]}')],
    ['nothing is asked for', {}, {}],
  ])('is nothing where %s', (_what, granted, required) => {
    expect(missingPermissions(granted, required)).toBeNull()
  })

  it('is nothing where any alternative is met', () => {
    const either: Permissions[] = [{ a: ['read', 'write'] }, { b: ['read'] }]
    expect(missingPermissions({ b: ['read'] }, either)).toBeNull()
    expect(missingPermissions({ a: ['*'] }, either)).toBeNull()
  })

  it('is not pieced together from several alternatives', () => {
    const either: Permissions[] = [{ a: ['read', 'write'] }, { b: ['read', 'write'] }]
    expect(missingPermissions({ a: ['read'], b: ['write'] }, either)).toEqual({ a: ['write'] })
  })

  it('is told for the alternative that lacks least, the first of equals', () => {
    const either: Permissions[] = [{ a: ['x', 'y'] }, { b: ['z'] }, { c: ['z'] }]
    expect(missingPermissions({}, either)).toEqual({ b: ['z'] })
    expect(missingPermissions({ a: ['x'] }, either)).toEqual({ a: ['y'] })
  })
})

describe('permissions of another shape', () => {
  const wrong: [string, unknown, string][] = [
    ['null', null, '"permissions" must be an object of resource → actions, received null'],
    ['text', 'projects:read', '"permissions" must be an object of resource → actions, received a string'],
    ['an array', ['read'], '"permissions'],
    ['a Map', new Map([['a', ['read']]]), '"permissions" must be an object of resource → actions'],
    ['a promise', Promise.resolve({ a: ['read'] }), '"permissions" must be an object of resource → actions'],
    ['a date', new Date(0), '"permissions" must be an object of resource → actions'],
    [
      'an action that is not in an array',
      { a: 'read' },
      '"permissions.a" must be an array, received a string',
    ],
    ['an action that is no text', { a: [7] }, '"permissions.a" must use names'],
    ['an empty action', { a: [''] }, '"permissions.a" must use names'],
    ['a star inside an action', { a: ['re*'] }, '"permissions.a" must use names'],
    ['a star inside a resource', { 'a*': ['read'] }, '"permissions" must use names'],
    ['an empty resource', { '': ['read'] }, '"permissions" must use names'],
    ['a space', { 'a b': ['read'] }, '"permissions" must use names'],
    ['a newline', { a: ['read\n'] }, '"permissions.a" must use names'],
    ['a letter beyond ASCII', { é: ['read'] }, '"permissions" must use names'],
    ['a name of 65 characters', { ['a'.repeat(65)]: ['read'] }, '"permissions" must use names'],
    ['a hole', { a: Array(1) }, '"permissions.a" must use names'],
    ['too many actions', { a: Array(257).fill('x') }, '"permissions.a" must have at most 256 entries'],
    [
      'too many resources',
      Object.fromEntries(Array.from({ length: 257 }, (_, i) => [`r${i}`, []])),
      '"permissions" must name at most 256 resources',
    ],
    ['a prototype that is no list', json('{"__proto__":{"a":["read"]}}'), '"permissions.__proto__" must be'],
  ]

  it.each(wrong)('are refused on a key: %s', async (_what, permissions, message) => {
    expect(() => checkPermissions('permissions', permissions)).toThrow(TypeError)
    expect(() => checkPermissions('permissions', permissions)).toThrow(message)
  })

  it.each([
    ...wrong,
    ['no alternative', [], '"permissions" must be permissions, or a non-empty array'],
    ['a resource without actions', { a: [] }, '"permissions.a" must name at least one action'],
    ['an alternative without actions', [{ a: ['x'] }, { b: [] }], '"permissions.b" must name at least one'],
    ['a wrong alternative', [{ a: ['x'] }, { b: 'y' }], '"permissions.b" must be an array'],
    ['alternatives of alternatives', [[{ a: ['x'] }]], '"permissions" must be an object'],
  ] as [string, unknown, string][])('are refused on a route: %s', async (_what, permissions, message) => {
    const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
    const check = () => keys.verify('x', { permissions: permissions as never })
    await expect(check()).rejects.toThrow(TypeError)
    // The check is remembered for an object; a refusal must not be.
    await expect(check()).rejects.toThrow(message)
  })

  it('are copied without repetitions where they are right, whatever the names', () => {
    const given = json('{"a":["read","read","*"],"__proto__":["x"],"constructor":["y"],"r:1/v.2-b_":[]}')
    const copy = checkPermissions('permissions', given)
    expect(Object.entries(copy)).toEqual([
      ['a', ['read', '*']],
      ['__proto__', ['x']],
      ['constructor', ['y']],
      ['r:1/v.2-b_', []],
    ])
    given.a.push('write')
    expect(copy.a).toEqual(['read', '*'])
    expect(Object.getPrototypeOf(copy)).toBe(Object.prototype)
  })

  it('are not refused for coming without a prototype', () => {
    const bare = Object.assign(Object.create(null), { a: ['read'] })
    expect(checkPermissions('permissions', bare)).toEqual({ a: ['read'] })
    expect(() => checkRequirement('permissions', bare)).not.toThrow()
  })

  it('keep the names of every object from issue to verification', async () => {
    const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
    const permissions = json('{"__proto__":["read"],"constructor":["read"]}')
    const { key } = await keys.issue({ owner: { type: 'user', id: 'u' }, name: 'n', permissions })
    const asked = json('{"__proto__":["read","write"],"constructor":["read"],"hasOwnProperty":["x"]}')
    const result = await keys.verify(key, { permissions: asked })
    expect(result).toMatchObject({ ok: false, code: 'insufficient_permissions' })
    const missing = 'missing' in result ? result.missing : null
    expect(JSON.stringify(missing)).toBe('{"__proto__":["write"],"hasOwnProperty":["x"]}')
    expect(await keys.verify(key, { permissions })).toMatchObject({ ok: true })
  })
})

describe('permissions under a ceiling', () => {
  it.each([
    ['another action', { a: ['write'] }, { a: ['read'] }],
    ['another resource', { b: ['read'] }, { a: ['*'] }],
    ['every action, under one that names them all', { a: ['*'] }, { a: ['read', 'write'] }],
    ['every resource, under one that names some', { '*': ['read'] }, { a: ['*'], b: ['*'] }],
    ['the prototype, under nothing', json('{"__proto__":["read"]}'), {}],
    ['a member of every object, under nothing', { constructor: ['name'] }, {}],
    ['anything, under what only a prototype grants', { a: ['read'] }, Object.create({ a: ['*'] })],
  ])('exceed it: %s', (_what, permissions, ceiling) => {
    expect(isWithin(permissions, ceiling)).toBe(false)
  })

  it.each([
    ['nothing, under nothing', {}, {}],
    ['a resource without actions, under nothing', { a: [] }, {}],
    ['the same', { a: ['read'] }, { a: ['read'] }],
    ['less', { a: ['read'] }, { a: ['read', 'write'], b: ['*'] }],
    ['every action on one resource, under everything', { a: ['*'] }, { '*': ['*'] }],
    ['everything, under everything', { '*': ['*'] }, { '*': ['*'] }],
    ['an action on one resource, under it on all', { a: ['read'] }, { '*': ['read'] }],
    ['the prototype, under the same', json('{"__proto__":["read"]}'), json('{"__proto__":["read"]}')],
  ])('lie within it: %s', (_what, permissions, ceiling) => {
    expect(isWithin(permissions, ceiling)).toBe(true)
  })
})
