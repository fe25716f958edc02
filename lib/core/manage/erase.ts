import { LatchkeyError } from '../../errors.ts'
import { checkObject, checkText } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { Forgetting, KeyFilter, KeyStore } from '../keys/key-store.ts'
import { lacks } from '../keys/lacks.ts'
import { checkOwner, type KeyRecord, type Owner } from '../keys/record.ts'
import { checkBy, conflict, type KeyChanges } from './change-keys.ts'
import type { ErasedOwner, EraseOptions } from './key-management.ts'
import type { ChangedKey, PublishChange } from './publish-change.ts'

export interface ErasureParts {
  readonly store: KeyStore
  readonly publish: PublishChange
  readonly clock: Clock
  emit(event: ApiKeyEvent): void
  /** Writes the uses that are still in memory; false where some could not be written. */
  flushUsage(): Promise<boolean>
  /** Revokes every key of the owner and makes that known, without telling of each key. */
  revokeSilently(owner: Owner, by: string | null): Promise<void>
}

/** How often new keys of the owner may appear, or others may change a record, before it is an error. */
const MAX_ROUNDS = 20

/**
 * Erases owners. It revokes before it removes: a key that is only removed would keep working in processes that hold it.
 * Events of single keys would preserve what is erased, so it emits one event for the owner.
 */
export function createOwnerErasure(
  parts: ErasureParts,
  changes: KeyChanges,
): (owner: Owner, options?: EraseOptions) => Promise<ErasedOwner> {
  const { store, clock, emit } = parts

  return async function erase(owner, options = {}) {
    const checked = checkOwner('owner', owner)
    const { knownAs, by } = checkOptions(checked, options)
    if (knownAs !== null && !store.forget) throw lacks('erase', 'forget')
    const erased = { removed: 0, forgotten: 0 }
    let complete = false
    try {
      const isWritten = await parts.flushUsage()
      await removeAll(parts, changes, checked, by, erased)
      // Uses that this process has gathered would bring addresses back.
      if (knownAs !== null && !isWritten) throw unwritten()
      // What processes have counted of keys that are gone, stores leave out.
      await store.removeUsage?.({ owner: checked })
      if (knownAs !== null) await forgetEverywhere(parts, changes, knownAs, erased)
      complete = true
      return { ...erased }
    } finally {
      emit({ type: 'owner.erased', at: new Date(clock.now()), owner: checked, ...erased, complete, by })
    }
  }
}

async function removeAll(
  { store, clock, revokeSilently }: ErasureParts,
  changes: KeyChanges,
  owner: Owner,
  by: string | null,
  erased: { removed: number },
): Promise<void> {
  for (let round = 0; round < MAX_ROUNDS; round++) {
    await revokeSilently(owner, by)
    for await (const records of changes.pages({ owners: [owner] })) {
      // One that was issued meanwhile is left to the next round: it has to be revoked first.
      const ids = records.filter(({ revokedAt }) => revokedAt).map(({ id }) => id)
      if (ids.length > 0) erased.removed += await store.purge(ids, new Date(clock.now()))
    }
    if ((await store.list({ owners: [owner] }, { limit: 1 })).length === 0) return
  }
  throw conflict('New keys of the owner keep appearing')
}

/** No listing filters by `revokedBy`, so it reads all revoked keys. */
async function forgetEverywhere(
  parts: ErasureParts,
  changes: KeyChanges,
  knownAs: string,
  erased: { forgotten: number },
): Promise<void> {
  const filters: KeyFilter[] = [
    { createdBy: knownAs },
    { status: { is: 'revoked', at: new Date(parts.clock.now()) } },
  ]
  for (const filter of filters) {
    for await (const records of changes.pages(filter)) {
      const changed: ChangedKey[] = []
      try {
        for (const record of records) {
          const next = await forgetOn(parts, changes, record, knownAs)
          if (next) changed.push(next)
        }
      } finally {
        erased.forgotten += changed.length
        await parts.publish(changed)
      }
    }
  }
}

/** The record as it is afterwards; null where nothing was to be forgotten. */
async function forgetOn(
  { store, clock }: ErasureParts,
  changes: KeyChanges,
  listed: KeyRecord,
  knownAs: string,
): Promise<ChangedKey | null> {
  let record: KeyRecord | null = listed
  for (let attempt = 0; attempt < MAX_ROUNDS; attempt++) {
    const forgetting = record && traceOf(record, knownAs)
    if (!record || !forgetting) return null
    const { id, lineageId, owner, version } = record
    const outcome = await store.forget?.(id, version, { ...forgetting, updatedAt: new Date(clock.now()) })
    if (outcome === 'updated') return { id, lineageId, owner, version: version + 1 }
    record = await changes.findById(id)
  }
  throw conflict('Other callers keep changing the key')
}

function unwritten(): LatchkeyError {
  return new LatchkeyError('unavailable', 'Uses of keys could not be written', { stack: false })
}

/** What a key holds of a person; null if nothing. */
function traceOf({ createdBy, revokedBy }: KeyRecord, knownAs: string): Omit<Forgetting, 'updatedAt'> | null {
  const isCreator = createdBy === knownAs
  const isRevoker = revokedBy === knownAs
  if (!isCreator && !isRevoker) return null
  return { ...(isCreator && { createdBy: null, lastUsedIp: null }), ...(isRevoker && { revokedBy: null }) }
}

function checkOptions(owner: Owner, options: EraseOptions): { knownAs: string | null; by: string | null } {
  checkObject('options', options, ['by', 'knownAs'])
  const { knownAs = owner.id } = options
  return { knownAs: knownAs === null ? null : checkText('knownAs', knownAs, 255), by: checkBy(options) }
}
