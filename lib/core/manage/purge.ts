import { OptionError } from '../../internal/option-error.ts'
import { checkArray, checkDate, checkObject, fail } from '../../internal/options.ts'
import type { KeyFilter } from '../keys/key-store.ts'
import { checkOwner, endedAt, isOwnedBy, type KeyRecord } from '../keys/record.ts'
import { checkBy, type KeyChanges } from './change-keys.ts'
import type { KeyManagement, PurgeOptions } from './key-management.ts'
import type { ManagementParts } from './management-parts.ts'

const MAX_PURGED_IDS = 10_000
/** How many keys are looked up at once. */
const LOOK_UPS = 50

/** What of the keys that have ended is to be purged. */
type EndedFilter = Pick<KeyFilter, 'owners'> & { readonly endedBefore: Date }

export function createPurge(parts: ManagementParts, changes: KeyChanges): KeyManagement['purge'] {
  const { store, clock, emit } = parts

  async function purge(options: PurgeOptions): Promise<number> {
    checkObject('options', options, ['by', 'endedBefore', 'owner', 'ids'])
    const by = checkBy(options)
    const at = new Date(clock.now())
    const { ids, filter } = checkPurge(options, at)
    // A key that is in use here is not idle, however late its uses are written.
    await parts.flushUsage()
    const idleAt = new Date(at.getTime() - parts.idleSlackMs)
    let count = 0
    for await (const records of ids === null ? changes.pages(filter) : endedAmong(ids, filter)) {
      // What is not written yet, since that failed, is a use all the same.
      const ended = records.filter(({ id, revokedAt }) => revokedAt !== null || !parts.isInUse(id))
      const endedIds = ended.map(({ id }) => id)
      if (endedIds.length > 0) count += await store.purge(endedIds, idleAt)
    }
    emit({ type: 'keys.purged', at, count, by })
    return count
  }

  /** The records with these ids, some at a time, for which the filter holds. */
  async function* endedAmong(
    ids: readonly string[],
    { owners, endedBefore }: EndedFilter,
  ): AsyncGenerator<KeyRecord[]> {
    for (let from = 0; from < ids.length; from += LOOK_UPS) {
      const found = await Promise.all(ids.slice(from, from + LOOK_UPS).map((id) => changes.findById(id)))
      yield found.filter((record) => {
        if (!record || endedAt(record) >= endedBefore.getTime()) return false
        return !owners || isOwnedBy(record, owners)
      }) as KeyRecord[]
    }
  }

  return purge
}

/** Only keys that have ended by now may go, whatever the options say. */
function checkPurge(
  { endedBefore, owner, ids }: PurgeOptions,
  at: Date,
): { readonly ids: readonly string[] | null; readonly filter: EndedFilter } {
  if (endedBefore === undefined && owner === undefined && ids === undefined) {
    throw new OptionError('options', 'have "endedBefore", "owner" or "ids"')
  }
  const asked = endedBefore === undefined ? Infinity : checkDate('endedBefore', endedBefore).getTime()
  return {
    ids: ids === undefined ? null : [...new Set(checkArray('ids', ids, MAX_PURGED_IDS).map(checkId))],
    filter: {
      endedBefore: new Date(Math.min(asked, at.getTime() + 1)),
      ...(owner !== undefined && { owners: [checkOwner('owner', owner)] }),
    },
  }
}

function checkId(value: unknown): string {
  return typeof value === 'string' ? value : fail('ids', 'an array of strings', value)
}
