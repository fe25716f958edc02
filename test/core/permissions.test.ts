import fc from 'fast-check'
import { createApiKeys, memoryRateLimiter, memoryStore, missingPermissions, type Permissions } from 'latchkey'
import { describe, expect, it } from 'vitest'
import {
  checkPermissions,
  checkRequirement,
  intersectPermissions,
  isWithin,
} from '../../lib/core/keys/permissions.ts'

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

describe('the permissions of the library itself', () => {
  const NEVER: readonly Permissions[] = [
    { '*': ['*'] },
    { 'api-keys': ['*'] },
    { '*': ['verify'] },
    { '*': ['*', 'verify'], 'api-keys': ['*'] },
    { 'api-keys': ['manage'], '*': ['*'] },
    { 'API-keys': ['verify'] },
  ]
  const VERIFY = { 'api-keys': ['verify'] }

  it.each(NEVER.map((granted) => [granted]))('are not held by %j', (granted) => {
    expect(missingPermissions(granted, VERIFY)).toEqual(VERIFY)
    expect(missingPermissions(granted, [VERIFY, { 'api-keys': ['audit'] }])).toEqual(VERIFY)
    expect(isWithin(VERIFY, granted)).toBe(false)
    expect(intersectPermissions(VERIFY, granted)).toEqual({})
    expect(intersectPermissions(granted, VERIFY)).toEqual({})
  })

  it('are held by naming them, beside any wildcard', () => {
    for (const granted of [VERIFY, { ...VERIFY, '*': ['*'] }, { 'api-keys': ['*', 'verify'] }]) {
      expect(missingPermissions(granted, VERIFY)).toBeNull()
      expect(isWithin(VERIFY, granted)).toBe(true)
      expect(intersectPermissions(VERIFY, granted)).toEqual(VERIFY)
    }
    expect(missingPermissions(VERIFY, { 'api-keys': ['verify', 'audit'] })).toEqual({ 'api-keys': ['audit'] })
    const both = { '*': ['*'], 'api-keys': ['verify'] }
    expect(intersectPermissions(both, both)).toEqual(both)
  })

  it('keep no wildcard from the resources of the application', () => {
    expect(missingPermissions({ '*': ['verify'] }, { 'api-key': ['verify'], keys: ['verify'] })).toBeNull()
    expect(isWithin({ '*': ['*'] }, { '*': ['*'] })).toBe(true)
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

describe('what two permissions have in common', () => {
  it.each([
    ['nothing, where one is empty', {}, { a: ['read'], '*': ['*'] }, {}],
    ['nothing, where no resource is shared', { a: ['read'] }, { b: ['read'] }, {}],
    ['nothing, where no action is shared', { a: ['read'] }, { a: ['write'] }, {}],
    ['nothing, where names differ by case', { a: ['Read'], B: ['x'] }, { a: ['read'], b: ['x'] }, {}],
    ['nothing of what only a prototype has', { a: ['read'] }, Object.create({ a: ['read'], '*': ['*'] }), {}],
    ['nothing of a member of every object', { constructor: ['name'] }, { a: ['*'] }, {}],
    ['the actions that both list', { a: ['x', 'y', 'z'] }, { a: ['z', 'y', 'w'] }, { a: ['y', 'z'] }],
    ['the listed, where the other has all actions', { a: ['x', 'y'] }, { a: ['*'] }, { a: ['x', 'y'] }],
    ['the listed, where the other has it everywhere', { a: ['x', 'y'] }, { '*': ['x'] }, { a: ['x'] }],
    [
      'the lesser, where the other is everything',
      { a: ['x'], '*': ['y'] },
      { '*': ['*'] },
      { a: ['x'], '*': ['y'] },
    ],
    ['a star that both have', { a: ['*'] }, { a: ['*', 'x'] }, { a: ['*'] }],
    [
      'a square of both kinds of star',
      { '*': ['read'] },
      { a: ['*'], b: ['*'] },
      { a: ['read'], b: ['read'] },
    ],
    ['all, where both are everything', { '*': ['*'] }, { '*': ['*'], a: ['x'] }, { '*': ['*'] }],
    [
      'the prototype, where both name it',
      json('{"__proto__":["x"]}'),
      json('{"__proto__":["*"]}'),
      json('{"__proto__":["x"]}'),
    ],
  ])('is %s, whichever is asked first', (_what, a, b, common) => {
    for (const [one, other] of [
      [a, b],
      [b, a],
    ] as const) {
      expect(new Set(Object.keys(intersectPermissions(one, other)))).toEqual(new Set(Object.keys(common)))
      expect(sortedActions(intersectPermissions(one, other))).toEqual(sortedActions(common))
    }
  })

  it('changes neither of them', () => {
    const [a, b] = [Object.freeze({ a: Object.freeze(['x']) }), Object.freeze({ '*': Object.freeze(['*']) })]
    const common = intersectPermissions(a, b)
    expect(common).toEqual({ a: ['x'] })
    expect(common.a).not.toBe(a.a)
  })

  it('grants what both grant and nothing else, and lies within both, for any permissions', () => {
    fc.assert(
      fc.property(permissions, permissions, (a, b) => {
        const common = intersectPermissions(a, b)
        const wrong = CASES.filter(([resource, action]) => {
          const both = grants(a, resource, action) && grants(b, resource, action)
          // The second is what routes ask by.
          const asked = missingPermissions(common, { [resource]: [action] } as Permissions) === null
          return grants(common, resource, action) !== both || asked !== both
        })
        expect(wrong).toEqual([])
        expect([isWithin(common, a), isWithin(common, b)]).toEqual([true, true])
        expect(() => checkPermissions('common', common)).not.toThrow()
        for (const actions of Object.values(common)) expect(new Set(actions).size).toBe(actions.length)
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('permissions within a ceiling', () => {
  it('are those of which the ceiling grants every single one, for any permissions', () => {
    let within = 0
    fc.assert(
      fc.property(permissions, permissions, (given, ceiling) => {
        const isCovered = CASES.every(
          ([resource, action]) => !grants(given, resource, action) || grants(ceiling, resource, action),
        )
        if (isCovered) within += 1
        expect(isWithin(given, ceiling)).toBe(isCovered)
      }),
      { numRuns: 2_000 },
    )
    expect(within).toBeGreaterThan(50)
  })
})

const NAMES = ['a', 'b', '__proto__', 'api-keys', '*']
/** Everything that the names in use can be asked for, and names that stand for all others. */
const CASES = [...NAMES, 'other'].flatMap((resource) =>
  [...NAMES, 'another'].map((action) => [resource, action] as const),
)

const permissions: fc.Arbitrary<Permissions> = fc
  .array(fc.tuple(fc.constantFrom(...NAMES), fc.array(fc.constantFrom(...NAMES), { maxLength: 3 })), {
    maxLength: 3,
  })
  .map((entries) => Object.fromEntries(entries))

/** What the documentation of `Permissions` says, word by word. */
function grants(granted: Permissions, resource: string, action: string): boolean {
  return Object.entries(granted).some(
    ([name, actions]) =>
      (name === resource || (name === '*' && resource !== 'api-keys')) &&
      actions.some((one) => one === action || (one === '*' && resource !== 'api-keys')),
  )
}

function sortedActions(granted: Permissions): [string, string[]][] {
  const rows = Object.entries(granted).map(([name, actions]): [string, string[]] => [
    name,
    [...actions].sort(),
  ])
  return rows.sort(([a], [b]) => (a < b ? -1 : 1))
}
