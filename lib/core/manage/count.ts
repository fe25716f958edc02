import { compareCodePoints } from '../../internal/code-points.ts'
import { checkObject } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import { schemeOf } from '../digests/digest.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { KeyChanges } from './change-keys.ts'
import type { DigestCount, KeyManagement } from './key-management.ts'
import { checkSelection, SELECTION } from './list.ts'

/** How many records are read at a time. */
const PAGE = 1_000

/** Counts keys. */
export function createKeyCounts(
  { store, clock }: { readonly store: KeyStore; readonly clock: Clock },
  changes: KeyChanges,
): Pick<KeyManagement, 'count' | 'countByDigest'> {
  return {
    async count(selection = {}) {
      checkObject('selection', selection, SELECTION)
      const filter = checkSelection(selection, new Date(clock.now()))
      if (filter.owners?.length === 0) return 0
      if (store.count) return store.count(filter)
      let count = 0
      for await (const page of changes.pages(filter, PAGE)) count += page.length
      return count
    },

    async countByDigest() {
      const counts = new Map<string, { -readonly [member in keyof DigestCount]: DigestCount[member] }>()
      for await (const page of changes.pages({}, PAGE)) {
        for (const { digest } of page) {
          const made = schemeOf(digest)
          const name = `${made.scheme} ${made.pepper ?? ''}`
          const kept = counts.get(name)
          if (kept) kept.count += 1
          else counts.set(name, { ...made, count: 1 })
        }
      }
      return [...counts].sort(([a], [b]) => compareCodePoints(a, b)).map(([, count]) => count)
    },
  }
}
