import { describe, expect, it } from 'vitest'
import { resolvePolicy } from '../../lib/management/policy.ts'

const MINUTE = { name: 'minute', limit: 100, windowMs: 60_000 }

describe('the policy of an interface', () => {
  it.each([
    ['an option misspelt', { clientField: {} }, 'has no option "clientField"; did you mean "clientFields"?'],
    ['no keys at all', { maxKeysPerOwner: 0 }, '"maxKeysPerOwner" must be a positive integer, received 0'],
    ['half a key', { maxKeysPerOwner: 1.5 }, '"maxKeysPerOwner" must be an integer'],
    ['too many keys', { maxKeysPerOwner: 1_000_001 }, '"maxKeysPerOwner" must be an integer'],
  ])('is refused with %s', (_what, options, message) => {
    expect(() => resolvePolicy(options as never)).toThrow(TypeError)
    expect(() => resolvePolicy(options as never)).toThrow(message)
  })

  it.each([
    ['null', null, '"clientFields" must be an object, received null'],
    ['a field misspelt', { permisions: false }, 'has no option "permisions"; did you mean "permissions"?'],
    ['the name, which is always open', { name: false }, '"clientFields" has no option "name"'],
    ['permissions of text', { permissions: '*' }, '"clientFields.permissions" must be an object'],
    ['permissions of null', { permissions: null }, '"clientFields.permissions" must be an object'],
    [
      'limits that are open',
      { rateLimits: true },
      '"clientFields.rateLimits" must be an array, received true',
    ],
    ['no limits', { rateLimits: [] }, '"clientFields.rateLimits" must name at least one limit, or be false'],
    [
      'a wrong limit',
      { rateLimits: [{ ...MINUTE, limit: 0 }] },
      '"clientFields.rateLimits[0].limit" must be a positive integer, received 0',
    ],
    ['a limit twice', { rateLimits: [MINUTE, MINUTE] }, '"clientFields.rateLimits[1].name" must be unique'],
    ['a quota that is open', { quota: true }, '"clientFields.quota" must be an object, received true'],
    ['a quota without a number', { quota: {} }, '"clientFields.quota.maxRemaining" must be an integer'],
    [
      'a refill of null',
      { quota: { maxRemaining: 1, maxRefillAmount: null } },
      '"clientFields.quota.maxRefillAmount" must be an integer',
    ],
    [
      'refills all the time',
      { quota: { maxRemaining: 1, minRefillMs: 999 } },
      '"clientFields.quota.minRefillMs" must be an integer from 1000',
    ],
    ['an end by number', { expiresAt: 1_000 }, '"clientFields.expiresAt" must be an object, received 1000'],
    ['an end at once', { expiresAt: { maxMs: 0 } }, '"clientFields.expiresAt.maxMs" must be an integer'],
    ['an end misspelt', { expiresAt: { maxMS: 9 } }, 'has no option "maxMS"; did you mean "maxMs"?'],
    ['an end that never comes', { expiresAt: { maxMs: Infinity } }, '"clientFields.expiresAt.maxMs" must be'],
    [
      'too short an idleness',
      { idleExpiryMs: { maxMs: 59_999 } },
      '"clientFields.idleExpiryMs.maxMs" must be',
    ],
    ['addresses of null', { allowedIps: null }, '"clientFields.allowedIps" must be true or false'],
    ['metadata of text', { metadata: 'yes' }, '"clientFields.metadata" must be true or false'],
    ['prefixes that are open', { prefix: true }, '"clientFields.prefix" must be an array, received true'],
    ['no prefixes', { prefix: [] }, '"clientFields.prefix" must name at least one prefix, or be false'],
    ['a wrong prefix', { prefix: ['acme', 'a-b'] }, '"clientFields.prefix[1]" must be 1 to 32 letters'],
  ])('is refused with fields of %s', (_what, clientFields, message) => {
    expect(() => resolvePolicy({ clientFields } as never)).toThrow(TypeError)
    expect(() => resolvePolicy({ clientFields } as never)).toThrow(message)
  })

  it('has these defaults', () => {
    const policy = resolvePolicy()
    expect(policy).toEqual({
      clientFields: {
        permissions: true,
        rateLimits: false,
        quota: false,
        expiresAt: true,
        idleExpiryMs: true,
        allowedIps: true,
        metadata: true,
        prefix: false,
      },
      maxKeysPerOwner: null,
      defaultLimits: [],
    })
    expect(resolvePolicy({ clientFields: {} })).toEqual(policy)
  })

  it('is refused where a class closes a field, which would not count', () => {
    const clientFields = Object.create({ permissions: false })
    expect(() => resolvePolicy({ clientFields })).toThrow(
      '"clientFields.permissions" must be a member of the object itself, and not of its class',
    )
  })

  it('is copied and frozen: what the application changes afterwards changes nothing', () => {
    const permissions = { projects: ['read'] }
    const policy = resolvePolicy({ clientFields: { permissions } })
    permissions.projects.push('*')
    expect(policy.clientFields.permissions).toEqual({ projects: ['read'] })
    const parts = [policy, policy.clientFields, policy.clientFields.permissions]
    for (const part of parts) expect(Object.isFrozen(part)).toBe(true)
  })
})
