import type { UsageDelta } from '../../../core/keys/key-store.ts'
import { fromPointer } from '../record.ts'
import { USE } from '../scripts.ts'
import type { RedisStoreParts } from './parts.ts'

/** A use to count, by id or, if the stamp is known, by lookup. */
interface Use {
  readonly text: string
  readonly stamp: string
  readonly words: readonly [count: number, lastUsedAt: number, lastUsedIp: string]
}

export async function recordUsage(parts: RedisStoreParts, batch: readonly UsageDelta[]): Promise<void> {
  const uses = batch.map(({ id, count, lastUsedAt, lastUsedIp }) => ({
    text: id,
    stamp: '',
    words: [count, lastUsedAt.getTime(), JSON.stringify(lastUsedIp)] as const,
  }))
  const further = await use(parts, uses)
  await use(parts, further)
}

/** Counts uses. Returns those whose id leads through a pointer to another key, to count there. */
async function use({ calls, layout }: RedisStoreParts, uses: readonly Use[]): Promise<Use[]> {
  const places = calls.byPlace(uses, ({ text }) => layout.record(text))
  const further = await Promise.all(
    places.map(async (place) => {
      const keys = place.flatMap(({ text }) => [layout.record(text), layout.pointer(text)])
      const args = place.flatMap(({ stamp, words }) => [stamp, ...words])
      const [pointers] = (await calls.run(USE, keys, args)) as [unknown[]]
      return place.flatMap((one, i) => {
        const pointer = pointers[i]
        if (!Array.isArray(pointer)) return []
        const { lookup, stamp } = fromPointer(['l', pointer[0], 's', pointer[1]])
        return [{ ...one, text: lookup, stamp }]
      })
    }),
  )
  return further.flat()
}
