import { checkObject, checkShownText } from '../../internal/options.ts'
import { BOUNDS } from '../keys/bounds.ts'
import type { KeyFilter } from '../keys/key-store.ts'
import { type ApiKey, checkOwner, type Owner } from '../keys/record.ts'
import { checkBy, type DecidedChange, type KeyChanges } from './change-keys.ts'
import type {
  KeyManagement,
  RevokeAllOptions,
  RevokeCreatedByOptions,
  RevokeOptions,
} from './key-management.ts'
import type { ManagementParts } from './management-parts.ts'

export interface Revocation extends Pick<KeyManagement, 'revoke' | 'revokeOwner' | 'revokeCreatedBy'> {
  /** Revokes the keys of an owner without an event for each. */
  revokeSilently(owner: Owner, by: string | null): Promise<void>
}

export function createRevocation({ clock, emit }: ManagementParts, changes: KeyChanges): Revocation {
  async function revoke(id: string, options: RevokeOptions = {}): Promise<ApiKey> {
    checkObject('options', options, ['by', 'reason', 'expectedVersion'])
    const revokedReason = checkReason(options)
    return changes.change(id, options, (record, at, by) => {
      if (record.revokedAt) return null
      return { change: { revokedAt: at, revokedBy: by, revokedReason }, event: { type: 'key.revoked' } }
    })
  }

  async function revokeOwner(owner: Owner, options: RevokeAllOptions = {}): Promise<number> {
    const checked = checkOwner('owner', owner)
    const { count, by } = await revokeAll({ owners: [checked] }, options)
    emit({ type: 'owner.revoked', at: new Date(clock.now()), owner, count, by })
    return count
  }

  async function revokeCreatedBy(createdBy: string, options: RevokeCreatedByOptions = {}): Promise<number> {
    checkShownText('createdBy', createdBy, BOUNDS.createdBy.max)
    checkObject('options', options, ['owner', 'by', 'reason'])
    const { owner: given, ...rest } = options
    const owner = given === undefined ? null : checkOwner('owner', given)
    const { count, by } = await revokeAll({ createdBy, ...(owner && { owners: [owner] }) }, rest)
    emit({ type: 'creator.revoked', at: new Date(clock.now()), createdBy, owner, count, by })
    return count
  }

  async function revokeAll(
    filter: KeyFilter,
    options: RevokeAllOptions,
    event: DecidedChange['event'] = { type: 'key.revoked' },
  ): Promise<{ readonly count: number; readonly by: string | null }> {
    checkObject('options', options, ['by', 'reason'])
    const revokedReason = checkReason(options)
    const by = checkBy(options)
    const decide = (at: Date): DecidedChange => ({
      change: { revokedAt: at, revokedBy: by, revokedReason },
      event,
    })
    const done = new Set<string>()
    let count = 0
    let before: number
    // Again until there is no other key: a rotation under way may have added a successor behind our back.
    do {
      before = done.size
      count += await changes.changeAll(filter, options, decide, done)
    } while (done.size > before)
    return { count, by }
  }

  async function revokeSilently(owner: Owner, by: string | null): Promise<void> {
    await revokeAll({ owners: [owner] }, by === null ? {} : { by }, null)
  }

  return { revoke, revokeOwner, revokeCreatedBy, revokeSilently }
}

function checkReason(options: RevokeAllOptions): string | null {
  return options.reason === undefined ? null : checkShownText('reason', options.reason, BOUNDS.reason.max)
}
