import { memoryRateLimiter } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { recordingStore } from '../support/recording-store.ts'
import { another, describeSameIdAgain, IMPORTED, KEY, legacy } from '../support/same-id-again.ts'
import { createTestKeys } from '../support/test-keys.ts'

describeSameIdAgain((clock) => memoryRateLimiter({ clock }))

describe('a key that is imported in place of a purged one, under another id', () => {
  it('works at once in the process that remembers the other, and is held by its cache', async () => {
    const store = recordingStore()
    const { keys, clock } = createTestKeys({ store, formats: [legacy] })
    const { id } = await keys.import(IMPORTED)
    for (let i = 0; i < 5; i++) await keys.update(id, { name: `${i}` })
    await keys.revoke(id)
    await keys.verify(KEY)
    await clock.advance(10)
    await keys.purge({ endedBefore: new Date(clock.now()) })
    await keys.import(IMPORTED)
    store.forgetCalls()
    for (let i = 0; i < 5; i++) expect(await keys.verify(KEY)).toMatchObject({ ok: true })
    expect(store.calls('find')).toBe(1)
  })

  it('works at once where a read of several lookups is under way that knows nothing of it', async () => {
    const { keys, store } = createTestKeys({ formats: [legacy, another] })
    const reading = store.hold('find')
    const before = keys.verify(KEY)
    await reading.reached
    await keys.import(IMPORTED)
    const after = keys.verify(KEY)
    reading.release()
    expect(await before).toMatchObject({ reason: 'unknown' })
    expect(await after).toMatchObject({ ok: true })
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
  })

  it('works where a read is under way that still knows the other', async () => {
    const { keys, store, clock } = createTestKeys({ formats: [legacy] })
    const { id } = await keys.import({ ...IMPORTED, idleExpiryMs: 60_000 })
    await keys.revoke(id)
    await clock.advance(10_000)
    const reading = store.hold('find')
    const before = keys.verify(KEY)
    await reading.reached
    expect(await keys.purge({ endedBefore: new Date(clock.now()) })).toBe(1)
    await keys.import(IMPORTED)
    reading.release()
    expect(await before).toMatchObject({ reason: 'revoked' })
    expect(await keys.verify(KEY)).toMatchObject({ ok: true })
  })
})
