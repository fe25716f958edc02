import { runInNewContext } from 'node:vm'
import { type KeyStore, memoryStore } from 'latchkey'
import { betterAuthFormat, type PlainTextRow, plainTextFormat, sanctumFormat } from 'latchkey/import'
import { expect, it } from 'vitest'
import { recordingStore } from '../support/recording-store.ts'
import { ALICE, createTestKeys, NAME } from '../support/test-keys.ts'

/** What a program makes in a realm of its own, as code does under Jest and in `node:vm`. */
const foreign = <T>(program: string, globals: Record<string, unknown> = {}): T =>
  runInNewContext(program, globals)

/** As `structuredClone` copies under Jest: into the classes of another realm. */
const cloneAbroad = foreign<<T>(value: T) => T>(`
  const clone = (value) => {
    if (typeof value !== 'object' || value === null) return value
    if (typeof value.getTime === 'function') return new Date(value.getTime())
    if (Array.isArray(value)) return Array.from(value, clone)
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, clone(member)]))
  }
  clone`)

/** A store that keeps and hands out the objects of another realm. */
function storeAbroad(): KeyStore {
  const inner = memoryStore() as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>
  const methods = Object.entries(inner).map(([name, method]) => [
    name,
    async (...args: unknown[]) => cloneAbroad(await method(...args)),
  ])
  return Object.fromEntries(methods)
}

it('issues, verifies and changes keys with what another realm has made', async () => {
  const { keys, clock } = createTestKeys()
  const settings = foreign<object>(`({
    permissions: { projects: ['read'] },
    rateLimits: [{ name: 'minute', limit: 5, windowMs: 60_000 }],
    allowedIps: ['192.0.2.1'],
    metadata: { team: ['blue'] },
    expiresAt: new Date(${clock.now() + 1_000}),
  })`)
  const { key, apiKey } = await keys.issue({ ...NAME, ...settings })
  expect(await keys.verify(key, { ip: '192.0.2.1', permissions: { projects: ['read'] } })).toMatchObject({
    ok: true,
  })
  // What comes back is of this realm, whoever made it.
  expect(apiKey.expiresAt).toBeInstanceOf(Date)
  expect([Object.getPrototypeOf(apiKey.permissions), Object.getPrototypeOf(apiKey.rateLimits)]).toEqual([
    Object.prototype,
    Array.prototype,
  ])
  await keys.update(apiKey.id, { expiresAt: foreign(`new Date(${clock.now() + 500})`) })
  await clock.advance(500)
  expect(await keys.verify(key, { ip: '192.0.2.1' })).toMatchObject({ ok: false, reason: 'expired' })
})

it('refuses an invalid date of another realm, by name', async () => {
  const { keys } = createTestKeys()
  await expect(keys.issue({ ...NAME, expiresAt: foreign('new Date(NaN)') })).rejects.toThrow(
    '"expiresAt" must be a valid Date, received an invalid date',
  )
})

it('works on a store that keeps the objects of another realm', async () => {
  const { keys } = createTestKeys({ store: recordingStore(storeAbroad()) })
  const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 5 }, metadata: { a: [1] } })
  expect(await keys.verify(key)).toMatchObject({ ok: true })
  const { apiKey: next } = await keys.rotate(apiKey.id)
  await keys.revoke(next.id)
  expect((await keys.list()).apiKeys).toHaveLength(2)
})

it('finds its own change where the reply of such a store is lost', async () => {
  const { keys, store, eventsOf } = createTestKeys({ store: recordingStore(storeAbroad()) })
  const { apiKey } = await keys.issue(NAME)
  store.fail('update', async (work) => {
    await work()
    throw new Error('the connection was lost')
  })
  const change = { permissions: { projects: ['read'] }, metadata: { a: [{ b: null }] } }
  expect(await keys.update(apiKey.id, change)).toMatchObject(change)
  expect(eventsOf('key.updated')).toHaveLength(1)
})

it('takes a pepper as the bytes of another realm', async () => {
  const secret = foreign<Uint8Array>('new Uint8Array(32).fill(7)')
  const { keys, store } = createTestKeys({ peppers: [{ id: 'p1', secret }] })
  const { key } = await keys.issue(NAME)
  const local = [{ id: 'p1', secret: new Uint8Array(32).fill(7) }]
  expect(await createTestKeys({ peppers: local, store }).keys.verify(key)).toMatchObject({ ok: true })
  const short = [{ id: 'p1', secret: foreign<Uint8Array>('new Uint8Array(31)') }]
  expect(() => createTestKeys({ peppers: short })).toThrow('at least 32 bytes')
})

it('takes the shape of imported keys as an expression of another realm', async () => {
  const plain = plainTextFormat({ shape: foreign('/^old_[a-z]{20}$/') })
  betterAuthFormat({ shape: foreign('/^x+$/') })
  expect(() => plainTextFormat({ shape: foreign('/^old_/g') })).toThrow('without the flags "g" and "y"')
  const { keys } = createTestKeys({ formats: [plain] })
  const key = `old_${'a'.repeat(20)}`
  await keys.import({ format: 'plain-text', key, owner: ALICE, name: 'old' })
  expect(await keys.verify(key)).toMatchObject({ ok: true })
})

it('reads the rows of a driver that runs in another realm, and says what is wrong with one', async () => {
  const format = sanctumFormat()
  const { keys, clock } = createTestKeys({ formats: [format] })
  const row = (program: string) => ({
    ...foreign<PlainTextRow>(
      `({ id: 7, tokenable_type: 'User', tokenable_id: 1, name: 'old', abilities: '["*"]' })`,
    ),
    token: 'ab'.repeat(32),
    expires_at: foreign<Date>(program),
  })
  const good = format.read(row(`new Date(${clock.now() + 1_000})`) as never)
  const { expiresAt } = await keys.import(good)
  expect(expiresAt).toEqual(new Date(clock.now() + 1_000))
  expect(() => format.read(row('new Date(NaN)') as never)).toThrow('"expires_at"')
  const failing = foreign<KeyFormatLike>(
    `({ name: 'failing', lookup() { throw new TypeError('"key" is too old') } })`,
  )
  const others = createTestKeys({ formats: [failing as never] })
  await expect(
    others.keys.import({ format: 'failing', key: 'x'.repeat(20), owner: ALICE, name: 'old' }),
  ).rejects.toMatchObject({ code: 'invalid_import', message: '"key" is too old' })
})

interface KeyFormatLike {
  name: string
  lookup(key: string): string | null
}
