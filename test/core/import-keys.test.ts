import { randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import {
  type ImportedKey,
  type ImportFormat,
  isLatchkeyError,
  type KeyFormat,
  type KeyRecord,
  LatchkeyError,
} from 'latchkey'
import {
  bcryptFormat,
  betterAuthFormat,
  djangoApiKeyFormat,
  plainTextFormat,
  prefixedApiKeyFormat,
  sanctumFormat,
  unkeyFormat,
} from 'latchkey/import'
import { describe, expect, it, vi } from 'vitest'
import golden from '../golden/imports.json' with { type: 'json' }
import { recordingStore, rejects } from '../support/recording-store.ts'
import { ALICE, BOB, createTestKeys, NAME } from '../support/test-keys.ts'

const pepper = { id: 'p1', secret: 'a pepper of at least thirty-two bytes' }

/** Forty characters, found by their first eight. */
const legacy: KeyFormat = {
  name: 'legacy',
  lookup: (key) => (/^[a-z0-9]{40}$/.test(key) ? key.slice(0, 8) : null),
}
const KEY = 'k3v9x2m4'.repeat(5)
const OTHER = 'zzzzzzzz'.repeat(5)
const legacyKey = (key = KEY): ImportedKey => ({ format: 'legacy', key, owner: ALICE, name: 'old' })

describe('a key that was issued elsewhere', () => {
  interface Vector {
    title: string
    key: string
    lookup: string
    row: Record<string, unknown>
    dates?: string[]
    refused: string[]
    indistinguishable?: string[]
    dead?: string
  }
  type Row = Record<string, never>
  const owner = ALICE
  const wholeBcrypt: ImportFormat<Row> = {
    name: 'whole-bcrypt',
    lookup: (key) => key.slice(0, 12),
    read: (row) => ({
      format: 'whole-bcrypt',
      lookup: row.key_start as unknown as string,
      digest: { hash: 'bcrypt', value: row.key_hash as unknown as string },
      ...NAME,
    }),
  }
  /** How the rows of the vectors are read, as an application would. */
  const formats: Record<string, (row: Row) => { format: KeyFormat; imported: ImportedKey }> = {
    'better-auth': (row) => by(betterAuthFormat(), row),
    'better-auth-plain': (row) => by(betterAuthFormat({ disableKeyHashing: true }), row),
    sanctum: (row) => by(sanctumFormat(), row),
    'prefixed-api-key': (row) =>
      by(prefixedApiKeyFormat(), {
        shortToken: row.short_token,
        hash: row.long_token_hash,
        owner,
        name: 'a key',
        revokedAt: row.revoked_at,
      }),
    'django-api-key': (row) => by(djangoApiKeyFormat({ owner: () => owner }), row),
    unkey: (row) =>
      by(unkeyFormat(), { hash: row.hash, owner, name: 'a key', enabled: Boolean(row.enabled) }),
    bcrypt: (row) =>
      'secret_hash' in row
        ? by(bcryptFormat(), { lookup: String(row.id), hash: row.secret_hash, owner, name: 'a key' })
        : { format: wholeBcrypt, imported: wholeBcrypt.read(row) },
    'plain-text': (row) =>
      by(plainTextFormat({ shape: /^[\w:/+=-]{16,}$/ }), {
        key: row.api_key,
        owner,
        name: 'a key',
        enabled: Boolean(row.active),
      }),
  }
  const by = (format: ImportFormat<never>, row: object) => ({ format, imported: format.read(row as never) })
  const all = Object.entries(golden.formats).flatMap(([name, { vectors }]) =>
    (vectors as unknown as Vector[]).map((vector) => ({ name, ...vector })),
  )

  function read({ name, row, dates = [] }: (typeof all)[0]) {
    const revived = dates.map((column) => [column, new Date(row[column] as string)])
    const reader = formats[name]
    if (!reader) throw new Error(`no test reads ${name}`)
    return reader({ ...row, ...Object.fromEntries(revived) })
  }

  it.each(all)('of $name, $title, verifies as before, and no other does', async (vector) => {
    const { format, imported } = read(vector)
    const { keys, store } = createTestKeys({ formats: [format] })
    const apiKey = await keys.import(imported)
    const lookup = `${format.name}:${vector.lookup}`
    expect(await store.find({ lookups: [lookup] })).toMatchObject({ id: apiKey.id, lookup })
    for (const refused of vector.refused) {
      expect(await keys.verify(refused), refused).toMatchObject({ ok: false, code: 'invalid_key' })
    }
    const verified = vector.dead
      ? { ok: false, reason: vector.dead }
      : { ok: true, apiKey: { id: apiKey.id } }
    expect(await keys.verify(vector.key)).toMatchObject(verified)
    expect(JSON.stringify(apiKey)).not.toContain(vector.key)
  })

  it.each(all.filter(({ dead, indistinguishable }) => !dead && !indistinguishable))(
    'of $name, $title, still verifies once its digest was upgraded, in any process',
    async (vector) => {
      const { format, imported } = read(vector)
      const options = { formats: [format], peppers: [pepper] }
      const { keys, store } = createTestKeys({ ...options, upgradeDigests: true })
      const { id } = await keys.import(imported)
      expect(await keys.verify(vector.key, { cost: 0 })).toMatchObject({ ok: true })
      await keys.close()
      const { digest } = (await store.find({ id })) as KeyRecord
      expect(digest).toMatch(/^\$hmac-sha256[:$]/)
      const elsewhere = createTestKeys({ ...options, store: recordingStore(store) })
      for (const refused of vector.refused) {
        expect(await elsewhere.keys.verify(refused), refused).toMatchObject({ code: 'invalid_key' })
      }
      expect(await elsewhere.keys.verify(vector.key, { cost: 0 })).toMatchObject({ ok: true })
    },
  )

  it('that bcrypt cannot tell from another is accepted where bcrypt accepts it', async () => {
    const vectors = all.filter(({ indistinguishable }) => indistinguishable)
    expect(vectors).toHaveLength(3)
    for (const vector of vectors) {
      for (const alike of vector.indistinguishable as string[]) {
        const { format, imported } = read(vector)
        const { keys, store } = createTestKeys({ formats: [format], peppers: [pepper], upgradeDigests: true })
        const { id } = await keys.import(imported)
        // Whichever comes first, it does not keep the other out, and no digest of its own insists on it.
        for (const key of [alike, vector.key]) expect(await keys.verify(key)).toMatchObject({ ok: true })
        await keys.close()
        expect((await store.find({ id }))?.digest).toMatch(/^\$bcrypt[:$]/)
      }
    }
  })

  it('keeps what a digest does not cover free to differ after its upgrade', async () => {
    const format = prefixedApiKeyFormat()
    const vector = golden.formats['prefixed-api-key'].vectors[0]
    if (!vector) throw new Error('no vector')
    const { keys } = createTestKeys({ formats: [format], peppers: [pepper], upgradeDigests: true })
    const { short_token: shortToken, long_token_hash: hash } = vector.row
    await keys.import(format.read({ shortToken, hash, ...NAME }))
    const renamed = vector.key.replace('mycompany', 'somebody')
    expect(await keys.verify(renamed)).toMatchObject({ ok: true })
    await vi.waitFor(async () => expect((await keys.verify(vector.key)).ok).toBe(true))
    await keys.close()
  })

  it('has its settings from its row: those of better-auth', async () => {
    const vector = golden.formats['better-auth'].vectors[1]
    const { keys } = createTestKeys({ formats: [betterAuthFormat()] })
    const format = betterAuthFormat({
      owner: ({ referenceId }) => ({ type: 'organization', id: `${referenceId}` }),
    })
    const apiKey = await keys.import(format.read(vector?.row as never))
    expect(apiKey).toMatchObject({
      id: 'we4rPhI6NoWZ45gEznj7XyFjOZN3DV1R',
      owner: { type: 'organization', id: 'C6JijD0zEDPULUyneyiZ3hTjmVhrTEnR' },
      name: 'CI',
      prefix: 'acme_live_',
      hint: 'acme_l',
      enabled: true,
      permissions: { projects: ['read', 'write'], billing: ['read'] },
      metadata: { team: 'ops', note: 'Zürich — 東京' },
      rateLimits: [{ name: 'default', limit: 120, windowMs: 60_000 }],
      quota: { remaining: 993, refill: { amount: 1000, everyMs: 86_400_000 } },
      expiresAt: new Date('2126-03-01T00:00:00.000Z'),
      createdAt: new Date('2026-03-01T09:30:00.123Z'),
      lastUsedAt: new Date('2026-03-02T11:00:00.456Z'),
    })
  })

  it('has its owner and permissions from its row: those of Sanctum', () => {
    const { vectors } = golden.formats.sanctum
    const imported = vectors.map(({ row }) => sanctumFormat().read(row as never))
    expect(imported[1]).toMatchObject({
      owner: { type: 'user', id: '3' },
      permissions: { server: ['update', 'read'] },
      hint: '42|',
    })
    expect(imported[0]).toMatchObject({ permissions: { '*': ['*'] } })
    expect(imported[4]).toMatchObject({ owner: { type: 'team', id: '3' }, permissions: {} })
  })
})

describe('a row that cannot be carried over', () => {
  const better = golden.formats['better-auth'].vectors[0]?.row
  const sanctum = golden.formats.sanctum.vectors[0]?.row
  const django = golden.formats['django-api-key'].vectors[0]?.row
  const older = golden.formats['django-api-key'].older[0]?.row
  it.each([
    [
      'a plain key where a digest belongs',
      betterAuthFormat(),
      { ...better, key: 'x'.repeat(64) },
      /disableKeyHashing/,
    ],
    ['nobody to belong to', betterAuthFormat(), { ...better, referenceId: null }, /"referenceId"/],
    ['JSON that is none', betterAuthFormat(), { ...better, permissions: '{"a' }, /"permissions"/],
    ['JSON of another kind', betterAuthFormat(), { ...better, metadata: '[1]' }, /"metadata"/],
    ['a date that is none', betterAuthFormat(), { ...better, expiresAt: 'tomorrow' }, /"expiresAt"/],
    [
      'an impossible date',
      betterAuthFormat(),
      { ...better, expiresAt: '2026-13-01 00:00:00' },
      /"expiresAt"/,
    ],
    [
      'a day that is none',
      betterAuthFormat(),
      { ...better, expiresAt: '2026-02-30 00:00:00' },
      /"expiresAt"/,
    ],
    ['a flag that is none', betterAuthFormat(), { ...better, enabled: 2 }, /"enabled"/],
    ['a number that is none', betterAuthFormat(), { ...better, remaining: 'many' }, /"remaining"/],
    ['an ability of another form', sanctumFormat(), { ...sanctum, abilities: '["a:b:c"]' }, /"permissions"/],
    ['abilities that are no list', sanctumFormat(), { ...sanctum, abilities: '"*"' }, /"abilities"/],
    ['a slow hash', djangoApiKeyFormat({ owner: () => ALICE }), older, /"hashed_key"/],
    [
      'a hash cut short',
      djangoApiKeyFormat({ owner: () => ALICE }),
      { ...django, hashed_key: 'sha512$$ab' },
      /"hashed_key"/,
    ],
  ] as [string, ImportFormat<unknown>, object, RegExp][])(
    'has %s: its column is named',
    async (_what, format, row, names) => {
      expect(() => format.read(row)).toThrow(names)
      const { keys } = createTestKeys({ formats: [format] })
      await expect(keys.importAll([row], { read: format.read })).rejects.toMatchObject({
        code: 'invalid_import',
        status: 400,
        details: { index: 0, imported: 0 },
      })
    },
  )

  it.each([
    ['2026-03-01 10:00:00', '2026-03-01T10:00:00.000Z'],
    ['2026-03-01 10:00:00.5+00', '2026-03-01T10:00:00.500Z'],
    ['2026-03-01T10:00:00+0530', '2026-03-01T04:30:00.000Z'],
    ['2026-03-01 10:00:00-03:00', '2026-03-01T13:00:00.000Z'],
    ['2024-02-29T23:59:59Z', '2024-02-29T23:59:59.000Z'],
    ['2026-03-01 10:00', '2026-03-01T10:00:00.000Z'],
  ])('is none with the date %s', (text, iso) => {
    expect(betterAuthFormat().read({ ...better, expiresAt: text } as never).expiresAt).toEqual(new Date(iso))
  })

  it.each([
    ['a short token', prefixedApiKeyFormat(), { shortToken: 'abc', hash: 'ab'.repeat(32), ...NAME }],
    ['an id', bcryptFormat(), { lookup: 'a.b', hash: `$2b$10$${'a'.repeat(53)}`, ...NAME }],
    ['an id', sanctumFormat(), { ...sanctum, id: '1|2' }],
    ['a prefix', djangoApiKeyFormat({ owner: () => ALICE }), { ...django, prefix: 'a.b' }],
  ] as [string, ImportFormat<unknown>, object][])(
    'has %s under which no key is found',
    (_what, format, row) => {
      expect(() => format.read(row)).toThrow(/^the column/)
    },
  )

  it.each([
    [() => betterAuthFormat({ disableKeyHashng: true } as never), /did you mean "disableKeyHashing"/],
    [() => betterAuthFormat({ owner: 'u_1' } as never), /"owner"/],
    [() => betterAuthFormat({ shape: 'x' as never }), /"shape"/],
    [() => djangoApiKeyFormat({} as never), /"owner"/],
    [() => bcryptFormat({ separator: '..' }), /"separator"/],
    [() => bcryptFormat({ covers: 'id' as never }), /"covers"/],
    [() => plainTextFormat({ shape: /x/g }), /"shape"/],
  ])('is not to be blamed on a wrong option of its format: %#', (make, message) => {
    expect(make).toThrow(message)
  })
})

describe('keys.import', () => {
  const digest = { hash: 'sha256', value: 'ab'.repeat(32) } as const
  it.each([
    ['no format', { format: undefined }, '"format"'],
    ['a format that is not configured', { format: 'other' }, '"formats"'],
    ['neither key nor digest', { key: undefined }, '"lookup"'],
    ['a lookup without a digest', { key: undefined, lookup: 'k3v9x2m4' }, '"digest"'],
    ['a key and a digest', { digest }, '"key"'],
    ['a key of another shape', { key: 'short' }, '"key"'],
    ['a lookup that nothing derives', { key: undefined, lookup: 'a b', digest }, '"lookup"'],
    ['a lookup that is too long', { key: undefined, lookup: 'x'.repeat(201), digest }, '"lookup"'],
    [
      'an unknown hash',
      { key: undefined, lookup: 'x', digest: { hash: 'md5', value: 'x' } },
      '"digest.hash"',
    ],
    [
      'a digest cut short',
      { key: undefined, lookup: 'x', digest: { hash: 'sha256', value: 'ab' } },
      '"digest.value"',
    ],
    [
      'a digest with stray bits',
      { key: undefined, lookup: 'x', digest: { hash: 'sha256', value: `${'A'.repeat(42)}B` } },
      '"digest.value"',
    ],
    [
      'a bcrypt that is none',
      { key: undefined, lookup: 'x', digest: { hash: 'bcrypt', value: '$2b$10$x' } },
      '"digest.value"',
    ],
    [
      'a bcrypt that would take for ever',
      { key: undefined, lookup: 'x', digest: { hash: 'bcrypt', value: `$2b$31$${'a'.repeat(53)}` } },
      '"digest.value"',
    ],
    [
      'a part of two characters',
      { key: undefined, lookup: 'x', digest: { ...digest, of: { afterFirst: '||' } } },
      '"digest.of"',
    ],
    ['no owner', { owner: undefined }, '"owner"'],
    ['no name', { name: '' }, '"name"'],
    ['a name that no database holds', { name: 'a\0b' }, '"name"'],
    ['half a character', { name: '\ud800' }, '"name"'],
    ['an id that is none', { id: 'a b' }, '"id"'],
    ['a limit that is none', { rateLimits: [{ name: 'm', limit: 0, windowMs: 1 }] }, '"rateLimits'],
    ['an unknown member', { revoked: true }, '"revoked"'],
    ['an invalid date', { createdAt: new Date(Number.NaN) }, '"createdAt"'],
  ])('refuses %s, and stores nothing', async (_what, change, names) => {
    const { keys, store } = createTestKeys({ formats: [legacy] })
    const given = { ...legacyKey(), ...change } as ImportedKey
    const error = await keys.import(given).catch((reason) => reason)
    expect(isLatchkeyError(error) && error.code).toBe('invalid_import')
    expect(error.message).toContain(names)
    expect(error.message).not.toContain(KEY)
    expect(store.calls('insert')).toBe(0)
  })

  it('refuses a lookup and an id that are taken', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    await keys.import({ ...legacyKey(), id: 'taken' })
    for (const twice of [legacyKey(), { ...legacyKey(OTHER), id: 'taken' }]) {
      await expect(keys.import(twice)).rejects.toMatchObject({ code: 'duplicate_key', status: 409 })
    }
    expect(await keys.verify(OTHER)).toMatchObject({ reason: 'unknown' })
  })

  it('refuses a limit with the name of a limit that the owner has', async () => {
    const limit = { name: 'team', limit: 5, windowMs: 60_000 } as const
    const { keys } = createTestKeys({ formats: [legacy], rateLimits: [{ ...limit, scope: 'owner' }] })
    await expect(keys.import({ ...legacyKey(), rateLimits: [limit] })).rejects.toMatchObject({
      code: 'invalid_import',
      message: expect.stringContaining('"rateLimits[0].name" must not be the name'),
    })
    expect(await keys.verify(KEY)).toMatchObject({ reason: 'unknown' })
  })

  it('refuses what the store cannot keep', async () => {
    const { recordUsage: _usage, swapQuota: _quota, ...methods } = recordingStore()
    const { keys } = createTestKeys({ formats: [legacy], store: methods as never })
    await expect(keys.import({ ...legacyKey(), quota: { remaining: 1 } })).rejects.toMatchObject({
      code: 'unsupported',
    })
    await expect(keys.import({ ...legacyKey(), idleExpiryMs: 60_000 })).rejects.toMatchObject({
      code: 'unsupported',
    })
  })

  it('keeps the state of the key, one that has ended too', async () => {
    const { keys, clock } = createTestKeys({ formats: [legacy] })
    const past = new Date(clock.now() - 1_000)
    await keys.import({ ...legacyKey(), revokedAt: past })
    await keys.import({ ...legacyKey(OTHER), expiresAt: past, createdAt: past, usageCount: 7 })
    expect(await keys.verify(KEY)).toMatchObject({ reason: 'revoked' })
    expect(await keys.verify(OTHER)).toMatchObject({ reason: 'expired' })
    expect((await keys.list()).apiKeys).toMatchObject([
      { usageCount: 7, createdAt: past },
      { revokedAt: past },
    ])
    expect(await keys.purge({ endedBefore: new Date(clock.now()) })).toBe(1)
  })

  it('takes a key in again that was purged, with its own id, in a process that knew it', async () => {
    const { keys, clock } = createTestKeys({ formats: [legacy] })
    const again = { ...legacyKey(), id: 'its-own' }
    await keys.import(again)
    await keys.verify(KEY)
    await keys.revoke('its-own')
    await clock.advance(60_000)
    expect(await keys.purge({ endedBefore: new Date(clock.now()) })).toBe(1)
    await keys.import(again)
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
  })

  it('stores the key where only the reply was lost', async () => {
    const { keys, store } = createTestKeys({ formats: [legacy] })
    store.fail('insert', async (work) => {
      await work()
      throw new Error('connection reset')
    })
    await keys.import(legacyKey())
    expect(await keys.importAll([legacyKey(OTHER)])).toMatchObject({ imported: 1 })
    for (const key of [KEY, OTHER]) expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('refuses a text that no format would ever be asked about', async () => {
    const { keys } = createTestKeys({ formats: [plainTextFormat()] })
    const { key } = await keys.issue(NAME)
    const elsewhere = key.replace('acme_test', 'other')
    const importing = keys.import({ format: 'plain-text', key: elsewhere, ...NAME })
    await expect(importing).rejects.toThrow('native key')
  })

  it('shows no key that came as a number', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    const importing = keys.import({ ...legacyKey(), key: 1234567890 as never })
    await expect(importing).rejects.toThrow('"key" must be a string')
    await expect(importing).rejects.not.toThrow('1234567890')
  })

  it('makes a key known that was looked for in vain before', async () => {
    const { keys, eventsOf } = createTestKeys({ formats: [legacy] })
    expect(await keys.verify(KEY)).toMatchObject({ reason: 'unknown' })
    const { id } = await keys.import(legacyKey(), { by: 'migration' })
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
    expect(eventsOf('key.imported')).toMatchObject([{ keyId: id, owner: ALICE, by: 'migration' }])
  })

  it('lets the key be changed, revoked, and rotated to a native one', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    const { id } = await keys.import({ ...legacyKey(), prefix: 'old-', permissions: { a: ['read'] } })
    const { key, apiKey, previous } = await keys.rotate(id)
    expect(key).toMatch(/^acme_test_/)
    expect(apiKey).toMatchObject({ lineageId: id, permissions: { a: ['read'] }, prefix: 'acme_test' })
    expect(previous).toMatchObject({ id, rotatedTo: apiKey.id })
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
    await keys.disable(id)
    expect(await keys.verify(KEY)).toMatchObject({ reason: 'disabled' })
    await keys.revoke(id)
    expect(await keys.verify(KEY)).toMatchObject({ reason: 'revoked' })
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })
})

describe('a presented foreign key', () => {
  it('is no JWT, whatever the format', async () => {
    const part = () => randomBytes(48).toString('base64url')
    const header = Buffer.from('{"alg":"ES256"}').toString('base64url')
    const formats = [
      betterAuthFormat(),
      sanctumFormat(),
      prefixedApiKeyFormat(),
      djangoApiKeyFormat({ owner: () => ALICE }),
      unkeyFormat(),
      plainTextFormat({ shape: /./ }),
      ...['.', '_', '-'].map((separator, i) => ({ ...bcryptFormat({ separator }), name: `bcrypt${i}` })),
    ]
    const { keys } = createTestKeys({ formats })
    for (let i = 0; i < 500; i++) {
      expect(keys.isImportedKey?.(`${header}.${part()}.${part()}`)).toBe(false)
      expect(keys.isImportedKey?.(`${header}.${part()}.${part()}.${part()}.${part()}`)).toBe(false)
    }
  })

  it('is found among several formats by one read, and then by none', async () => {
    const formats = [betterAuthFormat(), legacy, sanctumFormat()]
    const { keys, store } = createTestKeys({ formats })
    await keys.import(legacyKey())
    store.forgetCalls()
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
    expect(store.calls('find')).toBe(1)
    expect(await keys.verify(OTHER)).toMatchObject({ reason: 'unknown' })
    expect(await keys.verify(OTHER)).toMatchObject({ reason: 'unknown' })
    expect(store.calls('find')).toBe(2)
  })

  it('costs no read where it has the shape of none, is native with a wrong checksum, or too long', async () => {
    const { keys, store } = createTestKeys({
      formats: [betterAuthFormat(), { name: 'any', lookup: () => 'x' }],
    })
    const { key } = await keys.issue(NAME)
    store.forgetCalls()
    const last = key.endsWith('0') ? '1' : '0'
    for (const text of [`${key.slice(0, -1)}${last}`, 'x'.repeat(513), `${KEY}\n`, `${KEY}é`, '']) {
      expect(await keys.verify(text)).toMatchObject({ reason: 'malformed' })
    }
    expect(store.calls()).toBe(0)
  })

  it('of which only the lookup is right is refused, and counted as any bad key', async () => {
    const { keys } = createTestKeys({ formats: [legacy], failedAttempts: { limit: 2 } })
    await keys.import(legacyKey())
    const forged = KEY.slice(0, 8) + OTHER.slice(8)
    const codes: unknown[] = []
    for (let i = 0; i < 4; i++) {
      const refused = await keys.verify(forged, { ip: '192.0.2.1' })
      codes.push(!refused.ok && refused.code)
      // Failures are counted behind the answer.
      await setImmediate()
    }
    expect(codes).toEqual(['invalid_key', 'invalid_key', 'too_many_failures', 'too_many_failures'])
    expect(await keys.verify(KEY, { ip: '192.0.2.2' })).toMatchObject({ ok: true })
    expect(await keys.verify(KEY, { ip: '192.0.2.1' })).toMatchObject({ ok: true })
  })

  it('is held to the prefix that its record has', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    await keys.import({ ...legacyKey(), prefix: 'old' })
    expect(await keys.verify(KEY, { prefix: 'acme_test' })).toMatchObject({ reason: 'prefix_not_accepted' })
    expect(await keys.verify(KEY, { prefix: ['acme_test', 'old'] })).toMatchObject({ ok: true })
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('broken')
      },
    ],
    ['answers no text', () => 7 as never],
  ])('of a format that %s is a fault, not a bad key', async (_what, lookup) => {
    const { keys, eventsOf } = createTestKeys({ formats: [{ name: 'broken', lookup }] })
    await expect(keys.verify(KEY)).rejects.toMatchObject({ code: 'unavailable' })
    expect(eventsOf('fault')).toMatchObject([{ operation: 'format' }])
    const { key } = await keys.issue(NAME)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it.each([
    ['no name', [{ lookup: () => null }]],
    ['a name with a colon', [{ name: 'a:b', lookup: () => null }]],
    ['no lookup', [{ name: 'a' }]],
    ['a name twice', [legacy, legacy]],
    ['no object', ['better-auth']],
  ])('is of no format with %s', (_what, formats) => {
    expect(() => createTestKeys({ formats: formats as never })).toThrow(/^"formats\[\d\]/)
  })
})

describe('keys.importAll', () => {
  const keyOf = (i: number) => `${i}`.padStart(8, '0').repeat(5)
  const rows = (count: number, from = 0) =>
    Array.from({ length: count }, (_, i) => legacyKey(keyOf(from + i)))
  async function* stream(all: ImportedKey[]) {
    yield* all
  }

  it('ends at the first bad row, and says what was stored before', async () => {
    const { keys, store, eventsOf } = createTestKeys({ formats: [legacy] })
    const all = [...rows(5), { ...legacyKey(keyOf(9)), owner: null as never }, ...rows(1, 5)]
    const importing = keys.importAll(all, { batchSize: 2 })
    await expect(importing).rejects.toMatchObject({
      code: 'invalid_import',
      details: { index: 5, imported: 4 },
    })
    await expect(importing).rejects.toThrow('"owner"')
    expect((await keys.list()).apiKeys).toHaveLength(4)
    expect(store.argumentsOf('insert').map(([batch]) => (batch as unknown[]).length)).toEqual([2, 2])
    expect(eventsOf('keys.imported')).toMatchObject([{ count: 4 }])
  })

  it('goes on without bad rows where somebody takes them', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    const all = [legacyKey('bad'), ...rows(3), legacyKey('worse')]
    const told: [number, string][] = []
    const report = await keys.importAll(all, {
      onInvalid: ({ index, error }) => told.push([index, error.code]),
    })
    expect(report).toEqual({ imported: 3, duplicates: 0, invalid: 2 })
    expect(told).toEqual([
      [0, 'invalid_import'],
      [4, 'invalid_import'],
    ])
  })

  it('may be run again, and loses none of what is new', async () => {
    const { keys } = createTestKeys({ formats: [legacy], peppers: [pepper] })
    await keys.importAll(rows(5), { batchSize: 2 })
    await expect(keys.importAll(rows(6))).rejects.toMatchObject({
      code: 'duplicate_key',
      details: { index: 0, imported: 0 },
    })
    expect((await keys.list()).apiKeys).toHaveLength(5)
    const report = await keys.importAll(stream(rows(7)), { batchSize: 3, onDuplicate: 'skip' })
    expect(report).toEqual({ imported: 2, duplicates: 5, invalid: 0 })
    for (let i = 0; i < 7; i++) expect(await keys.verify(keyOf(i))).toMatchObject({ ok: true })
  })

  it('passes by a key whose digest was upgraded since, and no key of somebody else', async () => {
    const format = unkeyFormat()
    const { key, row } = golden.formats.unkey.vectors[0] as { key: string; row: { hash: string } }
    const { keys, store } = createTestKeys({ formats: [format], peppers: [pepper], upgradeDigests: true })
    const { id } = await keys.import(format.read({ ...NAME, hash: row.hash }))
    await keys.verify(key)
    await vi.waitFor(async () => expect((await store.find({ id }))?.digest).toMatch(/^\$hmac-sha256\$/))
    const again = { read: format.read, onDuplicate: 'skip' } as const
    expect(await keys.importAll([{ ...NAME, hash: row.hash }], again)).toMatchObject({ duplicates: 1 })
    const others = keys.importAll([{ ...NAME, owner: BOB, hash: row.hash }], again)
    await expect(others).rejects.toMatchObject({ code: 'duplicate_key' })
  })

  it.each(['fail', 'skip'] as const)(
    'never takes one key for another under the same lookup (%s)',
    async (onDuplicate) => {
      const { keys } = createTestKeys({ formats: [legacy] })
      await keys.import(legacyKey())
      const other = legacyKey(KEY.slice(0, 8) + OTHER.slice(8))
      for (const all of [[other], [legacyKey(OTHER), { ...other, key: OTHER.slice(0, 8) + KEY.slice(8) }]]) {
        await expect(keys.importAll(all, { onDuplicate })).rejects.toMatchObject({ code: 'duplicate_key' })
      }
      expect((await keys.list()).apiKeys).toHaveLength(1)
    },
  )

  it('does not leave a key out for a twin that was refused itself', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    await keys.import({ ...legacyKey(OTHER), id: 'taken' })
    const all = [{ ...legacyKey(), id: 'taken' }, legacyKey(), legacyKey()]
    const report = await keys.importAll(all, { onDuplicate: 'skip', onInvalid: () => {} })
    expect(report).toEqual({ imported: 1, duplicates: 1, invalid: 1 })
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
  })

  it('says which row asks for what the store cannot keep', async () => {
    const { recordUsage: _usage, swapQuota: _quota, ...methods } = recordingStore()
    const { keys } = createTestKeys({ formats: [legacy], store: methods as never })
    const all = [...rows(1), { ...legacyKey(keyOf(2)), quota: { remaining: 1 } }]
    await expect(keys.importAll(all)).rejects.toMatchObject({ code: 'unsupported', details: { index: 1 } })
  })

  it('passes by the rows whose texts the store cannot keep, and stores the others', async () => {
    const store = recordingStore()
    store.fail('insert', async (work, records) => {
      const isKept = (records as KeyRecord[]).every(({ name }) => !name.includes('\u{1f511}'))
      if (!isKept) throw new LatchkeyError('unsupported', 'a text cannot be kept')
      return work()
    })
    const { keys, eventsOf } = createTestKeys({ store, formats: [legacy] })
    const all = Array.from({ length: 40 }, (_, i) => ({
      ...legacyKey(String(i).padStart(8, 'a').padEnd(40, 'b')),
      name: i % 13 === 5 ? 'Prod \u{1f511}' : 'Prod',
    }))
    const stored = all.slice(20, 30).filter(({ name }) => name === 'Prod')
    await keys.importAll(stored)
    const told: [number, string][] = []
    const report = await keys.importAll(all, {
      onDuplicate: 'skip',
      onInvalid: ({ index, error }) => told.push([index, error.code]),
    })
    expect(report).toEqual({ imported: 37 - stored.length, duplicates: stored.length, invalid: 3 })
    expect(told.sort(([a], [b]) => a - b)).toEqual([5, 18, 31].map((index) => [index, 'unsupported']))
    expect((await keys.list({ limit: 1_000 })).apiKeys).toHaveLength(37)
    expect(eventsOf('fault')).toEqual([])
    const other = createTestKeys({ store: recordingStore(), formats: [legacy] })
    other.store.fail('insert', rejects(new LatchkeyError('unsupported')))
    await expect(other.keys.importAll(all)).rejects.toMatchObject({
      code: 'unsupported',
      details: { imported: 0 },
    })
  })

  it('takes a key once that stands in the table twice', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    const twice = [...rows(2), ...rows(2)]
    await expect(keys.importAll(twice)).rejects.toMatchObject({
      code: 'duplicate_key',
      details: { index: 2 },
    })
    expect(await keys.importAll(twice, { onDuplicate: 'skip' })).toEqual({
      imported: 2,
      duplicates: 2,
      invalid: 0,
    })
  })

  it('stores every key once, whoever imports the same at the same time', async () => {
    const store = recordingStore()
    const processes = Array.from({ length: 4 }, () => createTestKeys({ formats: [legacy], store }))
    const reports = await Promise.all(
      processes.map(({ keys }) => keys.importAll(stream(rows(50)), { batchSize: 7, onDuplicate: 'skip' })),
    )
    expect(reports.reduce((sum, { imported }) => sum + imported, 0)).toBe(50)
    for (const { imported, duplicates } of reports) expect(imported + duplicates).toBe(50)
  })

  it('tells how far it is, after every batch', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    const seen: number[] = []
    await keys.importAll(rows(5), { batchSize: 2, onProgress: ({ imported }) => seen.push(imported) })
    expect(seen).toEqual([2, 4, 5])
  })

  it('reads no further than it stores: a long table does not fill the memory', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    let read = 0
    let ahead = 0
    function* table() {
      for (const row of rows(100)) {
        read += 1
        yield row
      }
    }
    let stored = 0
    await keys.importAll(table(), {
      batchSize: 10,
      onProgress({ imported }) {
        ahead = Math.max(ahead, read - imported, imported - stored)
        stored = imported
      },
    })
    expect(ahead).toBeLessThanOrEqual(10)
  })

  it('fails with what the store fails with, and says what was stored', async () => {
    const { keys, store } = createTestKeys({ formats: [legacy] })
    let calls = 0
    store.fail('insert', (work) => {
      calls += 1
      if (calls === 2) throw new Error('the disk is full')
      return work()
    })
    const failing = keys.importAll(rows(6), { batchSize: 2 })
    await expect(failing).rejects.toMatchObject({ code: 'unavailable', details: { imported: 2 } })
    expect((await keys.list()).apiKeys).toHaveLength(2)
  })

  it('hands on what the table itself fails with', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    async function* broken() {
      yield* rows(1)
      throw new RangeError('the cursor was closed')
    }
    await expect(keys.importAll(broken())).rejects.toThrow(RangeError)
  })

  it.each([
    [{ batchSize: 0 }, '"batchSize"'],
    [{ onDuplicate: 'ignore' }, '"onDuplicate"'],
    [{ onProgress: true }, '"onProgress"'],
    [{ read: 'better-auth' }, '"read"'],
    [{ onDuplicates: 'skip' }, 'did you mean "onDuplicate"'],
  ])('refuses the option %j', async (options, names) => {
    const { keys } = createTestKeys({ formats: [legacy] })
    const importing = keys.importAll([], options as never)
    await expect(importing).rejects.toThrow(TypeError)
    await expect(importing).rejects.toThrow(names)
  })

  it('refuses rows that are none', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    await expect(keys.importAll({ rows: [] } as never)).rejects.toThrow(/"rows"/)
  })

  it('brings keys of another owner to that owner only', async () => {
    const { keys } = createTestKeys({ formats: [legacy] })
    await keys.importAll([legacyKey(), { ...legacyKey(OTHER), owner: BOB }])
    await keys.revokeOwner(BOB)
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
    expect(await keys.verify(OTHER)).toMatchObject({ reason: 'revoked' })
  })
})
