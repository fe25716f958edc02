import { describe, expect, it } from 'vitest'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const CHANGES = {
  update: (keys, id, options) => keys.update(id, { name: 'new' }, options),
  disable: (keys, id, options) => keys.disable(id, options),
  enable: (keys, id, options) => keys.enable(id, options),
  revoke: (keys, id, options) => keys.revoke(id, options),
  rotate: (keys, id, options) => keys.rotate(id, options),
} satisfies Record<
  string,
  (
    keys: ReturnType<typeof createTestKeys>['keys'],
    id: string,
    options: { expectedVersion?: number },
  ) => Promise<unknown>
>

describe.each(Object.keys(CHANGES) as (keyof typeof CHANGES)[])('%s', (name) => {
  it('refuses another version than the one that was decided upon, and changes nothing', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const widened = await keys.update(apiKey.id, { permissions: { projects: ['delete'] } })
    await expect(CHANGES[name](keys, apiKey.id, { expectedVersion: apiKey.version })).rejects.toMatchObject({
      code: 'precondition_failed',
      status: 412,
    })
    expect(await keys.get(apiKey.id)).toEqual(widened)
    expect((await keys.list()).apiKeys).toHaveLength(1)
  })

  it('tells by the same code that another change came between its read and its write', async () => {
    const { keys, store } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const before = name === 'enable' ? await keys.disable(apiKey.id) : apiKey
    const held = store.hold('find')
    const changing = CHANGES[name](keys, apiKey.id, { expectedVersion: before.version })
    await held.reached
    await keys.update(apiKey.id, { name: 'came first' })
    held.release()
    await expect(changing).rejects.toMatchObject({ code: 'precondition_failed' })
    expect(await keys.get(apiKey.id)).toMatchObject({ name: 'came first', revokedAt: null, rotatedTo: null })
  })

  it('refuses a version that is none', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    for (const expectedVersion of [0, 1.5, '1', null] as number[]) {
      await expect(CHANGES[name](keys, apiKey.id, { expectedVersion })).rejects.toThrow(
        /"expectedVersion" must/,
      )
    }
  })

  it('goes through for the version that is there', async () => {
    const { keys } = createTestKeys()
    const { apiKey } = await keys.issue(NAME)
    const before = name === 'enable' ? await keys.disable(apiKey.id) : apiKey
    await CHANGES[name](keys, apiKey.id, { expectedVersion: before.version })
    expect((await keys.get(apiKey.id))?.version).toBe(before.version + 1)
  })
})
