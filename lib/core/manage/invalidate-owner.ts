import { checkObject } from '../../internal/options.ts'
import { checkOwner, type Owner } from '../keys/record.ts'
import { checkBy, type KeyChanges } from './change-keys.ts'
import type { ChangeOptions, KeyManagement } from './key-management.ts'
import type { ManagementParts } from './management-parts.ts'

export function createOwnerInvalidation(
  { clock, emit }: ManagementParts,
  changes: KeyChanges,
): KeyManagement['invalidateOwner'] {
  return async function invalidateOwner(owner: Owner, options: ChangeOptions = {}): Promise<number> {
    const checked = checkOwner('owner', owner)
    checkObject('options', options, ['by'])
    const by = checkBy(options)
    const count = await changes.changeAll({ owners: [checked] }, options, () => ({ change: {}, event: null }))
    emit({ type: 'owner.invalidated', at: new Date(clock.now()), owner, count, by })
    return count
  }
}
