import type { KeyManagementApiOptions } from 'latchkey/management'
import { createKeyManagementApi } from 'latchkey/management'
import { describe, expect, it } from 'vitest'
import { resolvePolicy } from '../../lib/management/policy.ts'
import { createManagement, USER } from '../support/ask-management.ts'
import { createTestKeys } from '../support/test-keys.ts'

const MINUTE = { name: 'minute', limit: 100, windowMs: 60_000 }

const OPTIONS: readonly (readonly [what: string, options: object, message: string])[] = [
  ['an option misspelt', { clientField: {} }, 'has no option "clientField"; did you mean "clientFields"?'],
  [
    'no keys at all',
    { maxKeysPerOwner: 0 },
    '"maxKeysPerOwner" must be a positive integer or false, received 0',
  ],
  ['null for no bound', { maxKeysPerOwner: null }, '"maxKeysPerOwner" must be an integer'],
  ['half a key', { maxKeysPerOwner: 1.5 }, '"maxKeysPerOwner" must be an integer'],
  ['too many keys', { maxKeysPerOwner: 1_000_001 }, '"maxKeysPerOwner" must be an integer'],
]

const FIELDS: readonly (readonly [what: string, clientFields: unknown, message: string])[] = [
  ['null', null, '"clientFields" must be an object, received null'],
  ['a field misspelt', { permisions: false }, 'has no option "permisions"; did you mean "permissions"?'],
  ['the name, which is always open', { name: false }, '"clientFields" has no option "name"'],
  ['permissions of text', { permissions: '*' }, '"clientFields.permissions" must be an object'],
  ['permissions of null', { permissions: null }, '"clientFields.permissions" must be an object'],
  ['limits that are open', { rateLimits: true }, '"clientFields.rateLimits" must be an array, received true'],
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
  ['too short an idleness', { idleExpiryMs: { maxMs: 59_999 } }, '"clientFields.idleExpiryMs.maxMs" must be'],
  ['addresses of null', { allowedIps: null }, '"clientFields.allowedIps" must be true or false'],
  ['metadata of text', { metadata: 'yes' }, '"clientFields.metadata" must be true or false'],
  ['prefixes that are open', { prefix: true }, '"clientFields.prefix" must be an array, received true'],
  ['no prefixes', { prefix: [] }, '"clientFields.prefix" must name at least one prefix, or be false'],
  ['a wrong prefix', { prefix: ['acme', 'a-b'] }, '"clientFields.prefix[1]" must be 1 to 32 letters'],
  [
    'a class, whose members would not count',
    Object.create({ permissions: false }),
    '"clientFields.permissions" must be a member of the object itself, and not of its class',
  ],
]

describe('the policy of an interface', () => {
  /** What is said of these options, which have to be refused. */
  function refusalOf(options: object): unknown {
    const { keys } = createTestKeys()
    try {
      return createKeyManagementApi(keys, {
        actor: () => null,
        ...options,
      } as KeyManagementApiOptions<object>)
    } catch (error) {
      return error
    }
  }
  const typeError = (message: string) =>
    expect.objectContaining({ name: 'TypeError', message: expect.stringContaining(message) })

  it('is refused by the name of what is wrong', () => {
    const rows = [
      ...OPTIONS,
      ...FIELDS.map(([what, clientFields, message]) => [what, { clientFields }, message] as const),
    ]
    const said = rows.map(([what, options]) => [what, refusalOf(options)])
    expect(said).toEqual(rows.map(([what, , message]) => [what, typeError(message)]))
  })

  it('stays what it was, whatever the application does with its options afterwards', async () => {
    const { give, outcomeOf, store } = createManagement()
    const { id } = await give()
    const permissions = { projects: ['read'] }
    // By then the interface has been made.
    store.fail('find', (work) => {
      permissions.projects = ['*']
      return work()
    })
    const as = { id: 'a', owners: [USER], grantable: { '*': ['*'] } }
    const json = { permissions: { projects: ['write'] } }
    const question = { as, action: 'update', id, json, clientFields: { permissions } } as const
    expect(await outcomeOf(question)).toBe('permissions_exceeded')
    expect(await outcomeOf(question)).toBe('ok')
  })

  it('is frozen, all of it', () => {
    const policy = resolvePolicy({ clientFields: { permissions: { projects: ['read'] } } })
    const parts = [policy, policy.clientFields, policy.clientFields.permissions]
    expect(parts.map((part) => Object.isFrozen(part))).toEqual([true, true, true])
  })
})
