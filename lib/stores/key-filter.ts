import type { KeyFilter } from '../core/keys/key-store.ts'
import { endedAt, expiresEarlier, isOwnedBy, type KeyRecord, keyStatus } from '../core/keys/record.ts'

/** Whether the record matches every member of the filter. */
export function matchesFilter(record: KeyRecord, filter: KeyFilter): boolean {
  const { owners, createdBy, name, lineageId, status, endedBefore, expiresBefore } = filter
  if (owners && !isOwnedBy(record, owners)) return false
  if (createdBy !== undefined && record.createdBy !== createdBy) return false
  if (name !== undefined && record.name !== name) return false
  if (lineageId !== undefined && record.lineageId !== lineageId) return false
  if (status && keyStatus(record, status.at) !== status.is) return false
  if (expiresBefore && !expiresEarlier(record, expiresBefore)) return false
  return !endedBefore || endedAt(record) < endedBefore.getTime()
}
