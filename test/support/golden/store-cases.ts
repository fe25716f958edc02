import type { KeyRecord, KeyStore, VerifyOptions } from 'latchkey'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { askKey, openGoldenKeys } from './ask-key.ts'
import { answersToday, asJson, type FrozenKeys, type FrozenRecord, toRecord } from './releases.ts'

/** A store that holds the records of a release, as a database has them after an upgrade. */
export interface GoldenStore {
  readonly store: KeyStore
  close(): Promise<void>
}

/** What has to hold for the keys of an earlier release, wherever their records are. */
export function testGoldenKeys(frozen: FrozenKeys, open: () => Promise<GoldenStore>): void {
  const { release, keys, options, madeAt } = frozen
  const records = new Map(frozen.records.map((record) => [record.id as string, record]))
  let golden: GoldenStore

  beforeAll(async () => {
    golden = await open()
  })
  afterAll(() => golden?.close())

  it('are read with every member as it was written', async () => {
    const read = await golden.store.list({}, { limit: 1_000 })
    expect(read.map(({ id }) => id)).toEqual([...records.keys()])
    for (const record of read) {
      const written = records.get(record.id) as FrozenRecord
      // A later release may have further members.
      expect(membersOf(asJson(record), written), record.name).toEqual(written)
      expect(membersOf(record, written), record.name).toEqual(toRecord(written))
      expect(await golden.store.find({ id: record.id }), record.name).toEqual(record)
      expect(await golden.store.find({ lookups: [record.lookup] }), record.name).toEqual(record)
    }
  })

  it('are shown with what everybody may see of them', async () => {
    const { keys: apiKeys } = openGoldenKeys(golden.store, options, madeAt)
    for (const { lookup: _lookup, digest: _digest, quota, ...visible } of records.values()) {
      const apiKey = await apiKeys.get(visible.id as string)
      const { epoch: _epoch, allotted: _allotted, ...units } = (quota ?? {}) as Record<string, unknown>
      expect(asJson(apiKey)).toMatchObject({ ...visible, quota: quota && units })
      expect(apiKey).not.toHaveProperty('digest')
    }
    await apiKeys.close()
  })

  it.each(keys)('are answered as they were: $title', async (given) => {
    const answers = await askKey(golden.store, options, given.key, given.answers)
    expect(answers).toEqual(answersToday(release, given))
  })

  it('are changed, rotated and revoked like any other', async () => {
    const { store, close } = await open()
    const { keys: apiKeys, clock } = openGoldenKeys(store, options, madeAt)
    for (const { id, key, title, answers } of keys) {
      const before = (await store.find({ id })) as KeyRecord
      const ask: VerifyOptions = { ...answers[0]?.ask, cost: 0 }
      if (!answers[0]?.answer.ok || before.rotatedTo) continue
      await clock.advance(1)
      await apiKeys.update(id, { name: 'renamed' })
      const changed = { name: 'renamed', updatedAt: new Date(clock.now()), version: before.version + 1 }
      expect(await store.find({ id }), title).toEqual({ ...before, ...changed })

      const successor = await apiKeys.rotate(id, { graceMs: 60_000 })
      expect(await apiKeys.verify(successor.key, ask), title).toMatchObject({ ok: true })
      expect(await apiKeys.verify(key, ask), title).toMatchObject({ ok: true })
      expect(await store.find({ id: successor.apiKey.id }), title).toMatchObject({
        lineageId: before.lineageId,
        owner: before.owner,
        permissions: before.permissions,
        metadata: before.metadata,
      })

      await apiKeys.revoke(id)
      expect(await apiKeys.verify(key, ask), title).toMatchObject({ ok: false, reason: 'revoked' })
      expect(await apiKeys.verify(successor.key, ask), title).toMatchObject({ ok: true })
    }
    await apiKeys.close()
    await close()
  })
}

/** As much of `value` as `frozen` has. */
function membersOf(value: object, frozen: object): Record<string, unknown> {
  const entries = Object.entries(value as Record<string, unknown>)
  return Object.fromEntries(entries.filter(([member]) => member in frozen))
}
