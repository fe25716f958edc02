import { createApiKeys, memoryRateLimiter, memoryStore, secretScanningPattern } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { generateKey } from '../../lib/core/keys/key-format.ts'

const SECRET = generateKey('acme_live').key
const DAY = 86_400_000

const right = () => ({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })

/** What a factory says of options that are wrong. */
function complaintOf(make: () => unknown): string {
  try {
    make()
  } catch (error) {
    expect(error).toBeInstanceOf(TypeError)
    return (error as Error).message
  }
  throw new Error('nothing was thrown')
}

const create = (given: unknown) => createApiKeys(given as never)
const createWith = (given: object) => create({ ...right(), ...given })
const without = (method: string) => ({ ...memoryStore(), ...memoryRateLimiter(), [method]: undefined })

describe('createApiKeys', () => {
  it.each<[unknown, string]>([
    [undefined, 'undefined'],
    [null, 'null'],
    [SECRET, 'a string'],
    [42, '42'],
    [true, 'true'],
    [[], 'an array'],
    [new Date(0), 'a date'],
    [() => right(), 'a function'],
  ])('refuses options that are no object, by their kind: %s', (options, kind) => {
    expect(complaintOf(() => create(options))).toBe(`"options" must be an object, received ${kind}`)
  })

  it.each<[string, unknown, string]>([
    // Each option of another kind.
    ['prefix', undefined, '"prefix" must be 1 to 32 letters, digits and "_"'],
    ['prefix', SECRET, 'received a string'],
    ['prefix', '', 'received an empty string'],
    ['prefix', null, 'received null'],
    ['upgradeDigests', 'yes', `"upgradeDigests" must be true or false, received the string 'yes'`],
    ['upgradeDigests', SECRET, '"upgradeDigests" must be true or false, received a string'],
    ['upgradeDigests', 1, '"upgradeDigests" must be true or false, received 1'],
    [
      'rateLimits',
      {},
      '"rateLimits" must be an array, plans, or a function of the owner, received an object',
    ],
    [
      'rateLimits',
      [{ name: 'm', limit: 0, windowMs: 1 }],
      '"rateLimits[0].limit" must be a positive integer, received 0',
    ],
    ['digest', 'md5', `"digest" must be "sha256", "hmac-sha256" or "bcrypt", received the string 'md5'`],
    [
      'digest',
      { scheme: 'sha512' },
      `must be "bcrypt" where an object is given, received the string 'sha512'`,
    ],
    ['digest', Symbol(SECRET), 'received a symbol'],
    ['peppers', 'pepper', '"peppers" must be an array, received a string'],
    ['isOwnerActive', true, '"isOwnerActive" must be a function, received true'],
    ['isOwnerActive', null, '"isOwnerActive" must be a function, received null'],
    ['ownerPermissions', { a: ['read'] }, '"ownerPermissions" must be a function, received an object'],
    ['ownerPermissions', null, '"ownerPermissions" must be a function, received null'],
    ['onEvent', {}, '"onEvent" must be a function, received an object'],
    ['clock', {}, '"clock.now" must be a function, received undefined'],
    ['clock', null, '"clock.now" must be a function, received undefined'],
    ['clock', { now: Date.now }, '"clock.setTimer" must be a function, received undefined'],
    ['clock', Date, '"clock.setTimer" must be a function, received undefined'],
    ['cache', 5_000, '"cache" must be an object or false, received 5000'],
    ['cache', null, '"cache" must be an object or false, received null'],
    ['cache', 0, '"cache" must be an object or false, received 0'],
    ['cache', true, '"cache" must be an object or false, received true'],
    // 0 switches nothing off: false does.
    [
      'cache.maxAgeMs',
      0,
      '"cache.maxAgeMs" must be a positive integer, received 0; to switch it off, set "cache" to false',
    ],
    ['cache.maxAgeMs', false, '"cache.maxAgeMs" must be an integer from 1 to 86400000, received false'],
    ['cache.maxAgeMs', -1, '"cache.maxAgeMs" must be a positive integer, received -1'],
    ['cache.maxAgeMs', DAY + 1, '"cache.maxAgeMs" must be an integer from 1 to 86400000, received 86400001'],
    ...['ownerMaxAgeMs', 'cache.negativeMaxAgeMs'].flatMap((name) => {
      const range = `"${name}" must be an integer from 1 to 86400000, or false, received`
      return [
        [name, 0, `"${name}" must be a positive integer or false, received 0`],
        [name, -1, `"${name}" must be a positive integer or false, received -1`],
        [name, DAY + 1, `${range} 86400001`],
        [name, 1.5, `${range} 1.5`],
        [name, '5m', `${range} the string '5m'`],
        [name, SECRET, `${range} a string`],
        [name, null, `${range} null`],
        [name, true, `${range} true`],
      ] as [string, unknown, string][]
    }),
    ['usage', [], '"usage" must be an object, received an array'],
    // One of a few words: a short one that is wrong is shown, and no other text.
    ['revocation', 'soon', `"revocation" must be "exact" or "bounded", received the string 'soon'`],
    ['revocation', true, '"revocation" must be "exact" or "bounded", received true'],
    ['revocation', null, '"revocation" must be "exact" or "bounded", received null'],
    ['revocation', '', '"revocation" must be "exact" or "bounded", received an empty string'],
    ['revocation', SECRET, '"revocation" must be "exact" or "bounded", received a string'],
    ['revocation', 'x\n', '"revocation" must be "exact" or "bounded", received a string'],
    ['revocation', 'thirteen_long', '"revocation" must be "exact" or "bounded", received a string'],
    ['invalidation', null, '"invalidation" must have a method "publish"'],
    ['invalidation', true, '"invalidation" must have a method "publish"'],
    ['invalidation', { publish() {} }, '"invalidation" must have a method "listen"'],
    ['invalidation', { listen() {} }, '"invalidation" must have a method "publish"'],
    ['failedAttempts', 'yes', '"failedAttempts" must be true, false or an object, received a string'],
    ['failedAttempts', 100, '"failedAttempts" must be true, false or an object, received 100'],
    ['failedAttempts', [], '"failedAttempts" must be true, false or an object, received an array'],
    // What reads as no is not a no: the application would believe that it is protected.
    ['failedAttempts', null, '"failedAttempts" must be true, false or an object, received null'],
    ['failedAttempts', 0, '"failedAttempts" must be true, false or an object, received 0'],
    ['failedAttempts', '', '"failedAttempts" must be true, false or an object, received an empty string'],
    // Each number at its edges.
    ...(
      [
        ['quotaBlockSize', 0, 1_000_000_000],
        ['quotaLeaseMs', 100, 600_000],
        ['timeoutMs', 1, DAY],
        ['cache.maxEntries', 1, 10_000_000],
        ['cache.negativeMaxEntries', 1, 10_000_000],
        ['usage.flushMs', 1, 30_000],
        ['usage.maxEntries', 1, 10_000_000],
        ['failedAttempts.limit', 1, 1_000_000],
        ['failedAttempts.windowMs', 1_000, DAY],
        ['failedAttempts.maxEntries', 1, 10_000_000],
      ] as const
    ).flatMap(([name, min, max]) => {
      const range = `"${name}" must be an integer from ${min} to ${max}, received`
      const below = min === 1 ? `"${name}" must be a positive integer, received` : range
      return [
        [name, min - 1, `${below} ${min - 1}`],
        [name, max + 1, `${range} ${max + 1}`],
        [name, 1.5, `${range} 1.5`],
        [name, Number.NaN, `${range} NaN`],
        [name, Infinity, `${range} Infinity`],
        [name, '1000', `${range} the string '1000'`],
        [name, '5m', `${range} the string '5m'`],
        [name, SECRET, `${range} a string`],
        [name, null, `${range} null`],
        [name, 10n, `${range} a bigint`],
        [name, new Date(Number.NaN), `${range} an invalid date`],
      ] as [string, unknown, string][]
    }),
    // Parts that lack a method.
    ...['insert', 'find', 'update', 'replaceDigest', 'list', 'purge'].map(
      (method) =>
        ['store', without(method), `"store" must have a method "${method}"`] as [string, unknown, string],
    ),
    ...['check', 'raiseVersions'].map(
      (method) =>
        ['rateLimiter', without(method), `"rateLimiter" must have a method "${method}"`] as [
          string,
          unknown,
          string,
        ],
    ),
    ['store', undefined, '"store" must have a method "insert"'],
    ['store', null, '"store" must have a method "insert"'],
    ['store', SECRET, '"store" must have a method "insert"'],
    ['store', memoryStore, '"store" must have a method "insert"'],
    ['rateLimiter', undefined, '"rateLimiter" must have a method "check"'],
    ['rateLimiter', null, '"rateLimiter" must have a method "check"'],
    ['rateLimiter', memoryRateLimiter, '"rateLimiter" must have a method "check"'],
  ])('refuses "%s" that is wrong, by name and kind: %o', (name, value, message) => {
    expect(complaintOf(() => createWith(nest(name, value)))).toContain(message)
  })

  it.each([
    [{ rateLimiters: 1 }, '"options" has no option "rateLimiters"; did you mean "rateLimiter"?'],
    [{ ratelimits: [] }, '"options" has no option "ratelimits"; did you mean "rateLimits"?'],
    [{ Prefix: 'a' }, '"options" has no option "Prefix"; did you mean "prefix"?'],
    [{ pepper: [] }, '"options" has no option "pepper"; did you mean "peppers"?'],
    [{ timeout: 1 }, '"options" has no option "timeout"; did you mean "timeoutMs"?'],
    [{ onevent() {} }, '"options" has no option "onevent"; did you mean "onEvent"?'],
    [{ hashing: 'sha256' }, '"options" has no option "hashing"'],
    [{ toString: 1 }, '"options" has no option "toString"'],
    [JSON.parse('{"__proto__":1}'), '"options" has no option "__proto__"'],
    [{ cache: { maxAge: 1 } }, '"cache" has no option "maxAge"; did you mean "maxAgeMs"?'],
    [{ cache: { ttlMs: 1 } }, '"cache" has no option "ttlMs"'],
    [{ usage: { flushMS: 1 } }, '"usage" has no option "flushMS"; did you mean "flushMs"?'],
    [{ failedAttempt: true }, '"options" has no option "failedAttempt"; did you mean "failedAttempts"?'],
    [{ failedAttempts: { window: 1 } }, '"failedAttempts" has no option "window"; did you mean "windowMs"?'],
    [{ usage: { maxKeys: 1 } }, '"usage" has no option "maxKeys": it is called "maxEntries" now'],
    [
      { failedAttempts: { maxAddresses: 1 } },
      '"failedAttempts" has no option "maxAddresses": it is called "maxEntries" now',
    ],
    [{ usage: { constructor: 1 } }, '"usage" has no option "constructor"'],
  ])(
    'refuses an option that it does not know, with its new name or the nearest that it does: %j',
    (given, message) => {
      // A spread would make `__proto__` the prototype.
      const options = Object.defineProperties(right(), Object.getOwnPropertyDescriptors(given))
      expect(complaintOf(() => create(options))).toBe(message)
    },
  )

  const names =
    'store rateLimiter revocation invalidation failedAttempts prefix digest peppers upgradeDigests rateLimits cache isOwnerActive ownerPermissions ownerMaxAgeMs quotaBlockSize quotaLeaseMs usage timeoutMs onEvent clock'
  const wrongPlaces = names.split(' ').flatMap((name) => [
    [name, SECRET],
    [name, [SECRET]],
    [name, [[SECRET]]],
    [name, [{ name: SECRET, id: SECRET, limit: SECRET, secret: SECRET }]],
    [name, [{ name: 'm', limit: SECRET, windowMs: SECRET }]],
    [name, [{ name: 'm', limit: 1, per: 'day', timeZone: SECRET }]],
    [name, [{ name: 'm', limit: 1, per: SECRET }]],
    [name, { scheme: SECRET, maxAgeMs: SECRET, flushMs: SECRET, now: SECRET, check: SECRET, insert: SECRET }],
    [name, { maxAgeMs: SECRET }],
    [name, { flushMs: SECRET }],
    [name, { scheme: 'bcrypt', cost: SECRET }],
    [name, { toString: () => SECRET, valueOf: () => SECRET, [Symbol.toStringTag]: SECRET }],
    [name, Symbol(SECRET)],
    [name, Object.assign(() => {}, { toString: () => SECRET })],
    [name, new String(SECRET)],
    [name, Buffer.from(SECRET)],
  ]) as [string, unknown][]
  it.each(names.split(' '))('shows no secret that was put in the place of "%s"', (name) => {
    let refused = 0
    for (const [, value] of wrongPlaces.filter(([place]) => place === name)) {
      try {
        createWith({ [name]: value })
      } catch (error) {
        refused++
        expect(error).toBeInstanceOf(TypeError)
        expect(String((error as Error).stack)).not.toContain(SECRET.slice(-49))
        expect((error as Error).message).toContain(`"${name}`)
      }
    }
    expect(refused).toBeGreaterThan(10)
  })

  it('takes undefined for an option that was not given', () => {
    const options = Object.fromEntries(names.split(' ').map((name) => [name, undefined]))
    expect(() => create({ ...options, ...right(), cache: { maxAgeMs: undefined }, usage: {} })).not.toThrow()
  })

  it('takes every number at its edges', () => {
    const least = { maxEntries: 1, maxAgeMs: 1, negativeMaxEntries: 1, negativeMaxAgeMs: 1 }
    expect(() =>
      createWith({
        ownerMaxAgeMs: 1,
        quotaBlockSize: 0,
        quotaLeaseMs: 100,
        timeoutMs: 1,
        cache: least,
        usage: { flushMs: 1, maxEntries: 1 },
      }),
    ).not.toThrow()
    expect(() => createWith({ ownerMaxAgeMs: false, cache: { negativeMaxAgeMs: false } })).not.toThrow()
    expect(() => createWith({ cache: false })).not.toThrow()
    expect(() =>
      createWith({
        ownerMaxAgeMs: DAY,
        cache: { maxAgeMs: DAY, negativeMaxAgeMs: DAY },
        timeoutMs: DAY,
        usage: { flushMs: 30_000 },
      }),
    ).not.toThrow()
    expect(() => createWith({ failedAttempts: { limit: 1, windowMs: 1_000, maxEntries: 1 } })).not.toThrow()
    expect(() => createWith({ failedAttempts: { limit: 1_000_000, windowMs: DAY } })).not.toThrow()
  })

  it('leaves the options as they are, even frozen', () => {
    const options = Object.freeze({
      ...right(),
      rateLimits: Object.freeze([Object.freeze({ name: 'm', limit: 1, windowMs: 1 })]),
      peppers: Object.freeze([Object.freeze({ id: 'p', secret: 'x'.repeat(32) })]),
      cache: Object.freeze({ maxAgeMs: 1 }),
    })
    expect(create(options)).toMatchObject({ prefix: 'acme' })
  })

  it('is not changed by what happens to the options afterwards', async () => {
    const limit = { name: 'm', limit: 1, windowMs: 60_000 }
    const options = { ...right(), rateLimits: [limit] }
    const keys = create(options)
    const { key } = await keys.issue({ owner: { type: 'user', id: 'u' }, name: 'n' })
    limit.limit = 1_000
    options.rateLimits.length = 0
    options.prefix = 'other'
    expect(await keys.verify(key)).toMatchObject({ ok: true, limits: [{ limit: 1 }] })
    expect((await keys.issue({ owner: { type: 'user', id: 'u' }, name: 'n' })).key).toMatch(/^acme_/)
  })
})

describe('what a programmer asks of keys', () => {
  const owner = { type: 'user', id: 'u' }
  const issuing = { owner, name: 'n' }
  const keys = () => createWith({}) as ReturnType<typeof createApiKeys>

  it.each<[string, object]>([
    ['"options" must be an object, received a string', SECRET as never],
    ['"options" has no option "permission"; did you mean "permissions"?', { ...issuing, permission: {} }],
    ['"owner" must be an object, received a string', { ...issuing, owner: SECRET }],
    ['"owner" must be an object, received undefined', { name: 'n' }],
    ['"owner" has no option "ID"; did you mean "id"?', { ...issuing, owner: { type: 'user', ID: 'u' } }],
    ['"owner.id" must be a non-empty string, received 7', { ...issuing, owner: { type: 'user', id: 7 } }],
    [
      '"owner.id" must be a non-empty string, received an empty string',
      { ...issuing, owner: { type: 'user', id: '' } },
    ],
    ['"owner.type" must be at most 64 characters', { ...issuing, owner: { type: SECRET, id: 'u' } }],
    ['"name" must be a non-empty string, received undefined', { owner }],
    ['"name" must be at most 255 characters', { ...issuing, name: SECRET.repeat(4) }],
    ['"createdBy" must be a non-empty string, received an object', { ...issuing, createdBy: {} }],
    ['"prefix" must be 1 to 32 letters', { ...issuing, prefix: SECRET }],
    ['"expiresAt" must be a valid Date, received a string', { ...issuing, expiresAt: SECRET }],
    ['"expiresAt" must be a valid Date, received an invalid date', { ...issuing, expiresAt: new Date('x') }],
    ['"expiresAt" must be in the future', { ...issuing, expiresAt: new Date(0) }],
    ['"idleExpiryMs" must be an integer from 60000', { ...issuing, idleExpiryMs: 59_999 }],
    [
      '"allowedIps[0]" must be an IP address or a CIDR block, received a string',
      { ...issuing, allowedIps: [SECRET] },
    ],
    ['"permissions.projects" must use names', { ...issuing, permissions: { projects: [SECRET] } }],
    [
      '"rateLimits[0].name" must be 1 to 32',
      { ...issuing, rateLimits: [{ name: SECRET, limit: 1, windowMs: 1 }] },
    ],
    ['"quota.remaining" must be an integer', { ...issuing, quota: { remaining: SECRET } }],
    ['"metadata" must be a plain object, received a string', { ...issuing, metadata: SECRET }],
    ['"metadata" must be representable as JSON', { ...issuing, metadata: { big: 1n, SECRET } }],
  ])('is refused by issue: %s', async (message, options) => {
    const complaint = await keys()
      .issue(options as never)
      .then(() => '', String)
    expect(complaint).toContain('TypeError')
    expect(complaint).toContain(message)
    expect(complaint).not.toContain(SECRET.slice(-49))
  })

  it.each<[string, object]>([
    ['"options" has no option "permision"; did you mean "permissions"?', { permision: {} }],
    ['"options" has no option "scopes"', { scopes: [] }],
    ['"cost" must be an integer from 0', { cost: -1 }],
    ['"cost" must be an integer from 0', { cost: 0.5 }],
    ['"cost" must be an integer, or integers by the name of a limit, received a string', { cost: '1' }],
    ['"ip" must be a non-empty string, received an array', { ip: ['192.0.2.1'] }],
    ['"ip" must be at most 255 characters', { ip: SECRET.repeat(4) }],
    ['"prefix" must be a prefix or a non-empty array of prefixes, received an array', { prefix: [] }],
    ['"prefix" must be a prefix or a non-empty array of prefixes, received an object', { prefix: {} }],
  ])('is refused by verify: %s', async (message, options) => {
    const complaint = await keys()
      .verify(SECRET, options as never)
      .then(() => '', String)
    expect(complaint).toContain('TypeError')
    expect(complaint).toContain(message)
    expect(complaint).not.toContain(SECRET.slice(-49))
  })

  it('is refused by the scanning pattern, without the key that was given for a prefix', () => {
    const complaint = complaintOf(() => secretScanningPattern(SECRET))
    expect(complaint).toMatch(/^"prefix" must be .* received a string$/)
  })
})

/** `a.b` and a value as `{ a: { b: value } }`. */
function nest(name: string, value: unknown): object {
  const [outer, inner] = name.split('.') as [string, string?]
  return { [outer]: inner === undefined ? value : { [inner]: value } }
}
