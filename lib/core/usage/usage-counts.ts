import type { Owner } from '../keys/record.ts'

export const HOUR_MS = 3_600_000
export const DAY_MS = 24 * HOUR_MS

/** Under this name the store keeps since when calls are counted. */
export const COUNTED_SINCE = 'usage counted since'

/** How much was counted of a key in one hour. */
export interface UsageCount {
  readonly keyId: string
  /** The hour in which it was counted, as a number of hours since 1970-01-01T00:00Z. */
  readonly hour: number
  /**
   * What was counted: at most 160 characters of ASCII. `admitted`; `refused:` and the reason; `units:` and the name of the limit;
   * `permission:` with a resource, a space and an action.
   */
  readonly counter: string
  /** What to add: an integer, negative where units were given back. */
  readonly amount: number
}

/**
 * Counts that a store adds once, however often it receives them. A writer numbers its batches from 1, and sends a batch until the
 * store has answered before it sends the next.
 */
export interface UsageBatch {
  /** Identifies the process that counted: 1 to 64 letters and digits. */
  readonly writer: string
  readonly number: number
  /** How many days to keep these counts, for stores whose entries expire by themselves. */
  readonly keepDays: number
  /** At most one for each key, hour and counter. */
  readonly counts: readonly UsageCount[]
}

/** Which counts to read: of one key, or of all keys of an owner together. */
export interface UsageSelection {
  readonly of: { readonly keyId: string } | { readonly owner: Owner }
  /** The first hour, as in {@link UsageCount}. */
  readonly fromHour: number
  /** The hour after the last. */
  readonly toHour: number
  /** Counts of calls, or of the permissions that a key has used. Those of permissions are counted by key alone. */
  readonly kind: 'calls' | 'permissions'
}

/** What was counted in one hour. */
export type HourlyCount = Omit<UsageCount, 'keyId'>

/** Counts to remove: those of an owner, or all from before an hour. */
export type UsageRemoval = { readonly owner: Owner } | { readonly beforeHour: number }

const PERMISSION = 'permission:'

/** The counter of a grant. */
export function permissionCounter(resource: string, action: string): string {
  return `${PERMISSION}${resource} ${action}`
}

/** The grant that a counter stands for. */
export function grantOf(counter: string): { readonly resource: string; readonly action: string } {
  const [resource = '', action = ''] = counter.slice(PERMISSION.length).split(' ')
  return { resource, action }
}

export function isPermissionCounter(counter: string): boolean {
  return counter.startsWith(PERMISSION)
}

/** A text for each key and each owner, under which a store may keep their counts: at most 340 characters. */
export function usageSubject(of: UsageSelection['of']): string {
  return 'keyId' in of ? `k:${of.keyId}` : `o:${of.owner.type.length}:${of.owner.type}:${of.owner.id}`
}
