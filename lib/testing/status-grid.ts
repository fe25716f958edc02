import { endOf, type KeyRecord, type KeyStatus, keyStatus } from '../core/keys/record.ts'
import { at, keyRecord } from './key-records.ts'

export const STATUSES: readonly KeyStatus[] = ['active', 'disabled', 'expired', 'revoked']

/** Moments around those at which the records of a grid end. */
export const MOMENTS: readonly Date[] = [8, 9, 10, 11, 19, 20, 21, 50, 51].map(at)

/** Every combination of what decides the status of a key but idleness. */
export function statusGrid(): KeyRecord[] {
  return gridOf([null], [null])
}

/** The same with keys that expire when they are not used. */
export function idleGrid(): KeyRecord[] {
  return gridOf([10, 15], [null, at(-5), at(0), at(5), at(6)])
}

/** The ids of the records that have this status at a moment, as the core decides it. */
export function idsWithStatus(grid: readonly KeyRecord[], status: KeyStatus, moment: Date): string[] {
  return grid.filter((record) => keyStatus(record, moment) === status).map(({ id }) => id)
}

/** The ids of the records that were revoked or had expired before a moment. */
export function idsEndedBefore(grid: readonly KeyRecord[], moment: Date): string[] {
  return grid
    .filter((record) => {
      const ends = [record.revokedAt?.getTime() ?? Infinity, endOf(record) ?? Infinity]
      return Math.min(...ends) < moment.getTime()
    })
    .map(({ id }) => id)
}

/** The ids of the records whose `expiresAt` is before a moment. */
export function idsExpiringBefore(grid: readonly KeyRecord[], moment: Date): string[] {
  return grid
    .filter(({ expiresAt }) => expiresAt !== null && expiresAt.getTime() < moment.getTime())
    .map(({ id }) => id)
}

/** In the order of a listing. */
function gridOf(idleExpiries: readonly (number | null)[], uses: readonly (Date | null)[]): KeyRecord[] {
  const records: KeyRecord[] = []
  for (const enabled of [true, false])
    for (const expiresAt of [null, at(10), at(20)])
      for (const revokedAt of [null, at(10), at(50)])
        for (const idleExpiryMs of idleExpiries)
          for (const lastUsedAt of uses) {
            const id = `g${String(records.length).padStart(4, '0')}`
            records.push(keyRecord({ id, enabled, expiresAt, revokedAt, idleExpiryMs, lastUsedAt }))
          }
  return records
}
