import type { KeyFilter } from '../core/keys/key-store.ts'
import { endedAt, type KeyRecord, keyStatus } from '../core/keys/record.ts'

/** Whether everything that the filter asks for holds. */
export function matchesFilter(record: KeyRecord, filter: KeyFilter): boolean {
  const { owner, createdBy, name, lineageId, status, endedBefore } = filter
  if (owner && (record.owner.type !== owner.type || record.owner.id !== owner.id)) return false
  if (createdBy !== undefined && record.createdBy !== createdBy) return false
  if (name !== undefined && record.name !== name) return false
  if (lineageId !== undefined && record.lineageId !== lineageId) return false
  if (status && keyStatus(record, status.at) !== status.is) return false
  return !endedBefore || endedAt(record) < endedBefore.getTime()
}
