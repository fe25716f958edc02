import { inspect } from 'node:util'
import { plainTextFormat, sanctumFormat } from 'latchkey/import'
import { describe, expect, it } from 'vitest'
import { ALICE, createTestKeys, forgeKey, NAME, type TestKeys } from '../support/test-keys.ts'

/** Everything that stores and listeners have seen. */
function seenIn({ store, events }: TestKeys): string {
  const methods = ['insert', 'find', 'update', 'replaceDigest', 'list', 'purge', 'recordUsage'] as const
  return inspect([methods.map((method) => store.argumentsOf(method)), events], { depth: 9 })
}

async function outcomeOf(call: () => Promise<unknown>): Promise<unknown> {
  try {
    return await call()
  } catch (error) {
    return error
  }
}

const cursorOf = (...position: unknown[]) => Buffer.from(JSON.stringify(position)).toString('base64url')

describe('the text of a key', () => {
  /** What somebody may have pasted. */
  const PASTED: readonly (readonly [string, (key: string) => string])[] = [
    ['as it is', (key) => key],
    ['with a wrong checksum', (key) => `${key.slice(0, -6)}000000`],
    ['cut off', (key) => key.slice(0, -5)],
    ['with a line end', (key) => `${key}\n`],
    ['behind a scheme', (key) => `Bearer ${key}`],
    ['between quotes', (key) => `"${key}"`],
  ]

  it.each(PASTED)('is the id of no key, and goes nowhere: %s', async (_how, paste) => {
    const world = createTestKeys()
    const { keys, store } = world
    const text = paste((await keys.issue(NAME)).key)
    store.forgetCalls()
    world.events.length = 0
    expect(await keys.get(text)).toBeNull()
    const calls: readonly (() => Promise<unknown>)[] = [
      () => keys.revoke(text),
      () => keys.enable(text),
      () => keys.disable(text),
      () => keys.rotate(text),
      () => keys.update(text, { name: 'x' }),
    ]
    for (const call of calls) {
      const error = await outcomeOf(call)
      expect(error).toMatchObject({ code: 'not_found' })
      expect(inspect(error, { depth: 9 })).not.toContain(text)
    }
    for (const cursor of [text, cursorOf(0, text)]) {
      const error = await outcomeOf(() => keys.list({ cursor }))
      expect(error).toMatchObject({ code: 'invalid_cursor' })
      expect(inspect(error, { depth: 9 })).not.toContain(cursor)
    }
    expect(store.calls()).toBe(0)
    expect(seenIn(world)).not.toContain(text)
  })

  it('is no other text that is kept or shown', async () => {
    const world = createTestKeys({ formats: [plainTextFormat()] })
    const { keys, store } = world
    const { key, apiKey } = await keys.issue(NAME)
    store.forgetCalls()
    world.events.length = 0
    const text = `my key: ${key}.`
    const owner = { type: 'user', id: key }
    const legacy = { format: 'plain-text', key: 'k'.repeat(32), owner: ALICE, name: 'CI' }
    const calls: readonly (() => Promise<unknown>)[] = [
      () => keys.issue({ ...NAME, name: text }),
      () => keys.issue({ ...NAME, owner }),
      () => keys.issue({ ...NAME, owner: { type: key.slice(-64), id: text } }),
      () => keys.issue({ ...NAME, createdBy: key }),
      () => keys.issue({ ...NAME, id: key }),
      () => keys.issue({ ...NAME, [key]: 1 }),
      () => keys.issue({ ...NAME, permissions: { [key]: ['read'] } }),
      () => keys.issue({ ...NAME, permissions: { [key.slice(0, 64)]: 'read' as never } }),
      () => keys.rotate(apiKey.id, { successorId: key }),
      () => keys.rotate(apiKey.id, { by: key }),
      () => keys.update(apiKey.id, { name: text }),
      () => keys.update(apiKey.id, { [key]: 1 } as never),
      () => keys.revoke(apiKey.id, { reason: text }),
      () => keys.revoke(apiKey.id, { by: key }),
      () => keys.list({ name: key }),
      () => keys.list({ owner }),
      () => keys.list({ owners: [ALICE, owner] }),
      () => keys.list({ createdBy: key }),
      () => keys.list({ [key]: 1 } as never),
      () => keys.revokeOwner(owner),
      () => keys.invalidateOwner(owner),
      () => keys.revokeCreatedBy(key),
      () => keys.import({ ...legacy, id: key }),
      () => keys.import({ ...legacy, name: key }),
      () => keys.import({ ...legacy, createdBy: key }),
      () => keys.import({ ...legacy, owner }),
      () => keys.verify(key, { [key]: 1 } as never),
    ]
    for (const call of calls) {
      const error = await outcomeOf(call)
      const isRefused = error instanceof TypeError || (error as { code?: string }).code === 'invalid_import'
      expect(isRefused, `${call}: ${inspect(error)}`).toBe(true)
      expect(inspect(error, { depth: 9 })).not.toContain(key.slice(20, 60))
    }
    expect(seenIn(world)).not.toContain(key.slice(20, 60))
    expect(store.calls('insert') + store.calls('update') + store.calls('list')).toBe(0)
  })

  it('is not taken for one where only its shape is like it', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const wrong = `${key.slice(0, -6)}000000`
    const handles = [wrong, `u_${'a1B2'.repeat(4)}_${'c3D4'.repeat(12)}e`, forgeKey(key, {}).slice(1, -1)]
    for (const id of handles) {
      const owner = { type: 'user', id }
      const { apiKey } = await keys.issue({ owner, name: id, createdBy: id })
      expect((await keys.list({ owner, name: id, createdBy: id })).apiKeys).toEqual([apiKey])
      expect(await keys.revokeOwner(owner)).toBe(1)
    }
  })
})

describe('the text of a key from elsewhere', () => {
  const format = sanctumFormat({ owner: () => ALICE })
  const key = `7|${'a'.repeat(40)}`

  it('is the id of no key where no id can look like it', async () => {
    const world = createTestKeys({ formats: [format] })
    expect(await world.keys.get(key)).toBeNull()
    await expect(world.keys.revoke(key)).rejects.toMatchObject({ code: 'not_found' })
    await expect(world.keys.list({ cursor: cursorOf(0, key) })).rejects.toMatchObject({
      code: 'invalid_cursor',
    })
    expect(world.store.calls()).toBe(0)
  })

  it('leaves ids alone that look like such a key', async () => {
    const { keys } = createTestKeys({ formats: [plainTextFormat()] })
    const ids = ['k'.repeat(64), '0123456789abcdef_0123456789abcdef0123456789abcdef', 'a-b_c']
    for (const [i, id] of ids.entries()) {
      const apiKey = await keys.import({ ...NAME, format: 'plain-text', key: `legacy_key_number_${i}`, id })
      expect(await keys.get(id)).toEqual(apiKey)
      expect(await keys.revoke(id)).toMatchObject({ id, revokedAt: expect.any(Date) })
    }
  })

  it('ends with its owner even where a store has it under an id that nobody may ask for', async () => {
    const { keys, store } = createTestKeys({ formats: [format] })
    const { apiKey } = await keys.issue(NAME)
    const record = await store.find({ id: apiKey.id })
    if (!record) throw new Error('the key is not there')
    const { key: text } = await keys.issue(NAME)
    await store.insert([
      { ...record, id: key, lookup: 'x' },
      { ...record, id: text, lookup: 'y' },
    ])
    expect(await keys.revokeOwner(ALICE)).toBe(4)
    expect((await keys.list({ status: 'active' })).apiKeys).toEqual([])
  })
})

describe('a cursor', () => {
  it.each<[string, ...unknown[]]>([
    ['a NUL', 0, 'a\0b'],
    ['half of a surrogate pair', 0, 'a\ud83d'],
    ['no id', 0, ''],
    ['an id that is too long', 0, 'a'.repeat(256)],
    ['a time between two milliseconds', 0.5, 'a'],
    ['a time that is none', 9e15, 'a'],
    ['a time that is a text', '0', 'a'],
    ['an object', 0, { id: 'a' }],
  ])('with %s is refused, and no store is asked', async (_what, ...position) => {
    const { keys, store, eventsOf } = createTestKeys()
    for (const filter of [{}, { owner: ALICE }, { owners: [ALICE, { type: 'user', id: 'b' }] }]) {
      const listed = keys.list({ ...filter, cursor: cursorOf(...position) })
      await expect(listed).rejects.toMatchObject({ code: 'invalid_cursor', status: 400 })
    }
    expect(store.calls()).toBe(0)
    expect(eventsOf('fault')).toEqual([])
  })
})
