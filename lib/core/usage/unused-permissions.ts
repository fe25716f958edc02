import { LatchkeyError } from '../../errors.ts'
import { checkInteger, checkObject } from '../../internal/options.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { Permissions } from '../keys/permissions.ts'
import type { KeyRecord } from '../keys/record.ts'
import { grantsOf, MAX_WATCHED_GRANTS } from './exercised-grants.ts'
import { requireCounts } from './require-counts.ts'
import { COUNTED_SINCE, DAY_MS, grantOf, HOUR_MS } from './usage-counts.ts'

export interface UnusedPermissionsOptions {
  /** How many days back to look; 1 to 3,650, and no further than `usage.keepDays`. @default 30 */
  days?: number
}

/** Which permissions of a key its calls needed, and which they did not. */
export interface UnusedPermissions {
  /** Permissions that some call needed. A wildcard counts where it allowed what no exact name did. */
  readonly used: Permissions
  /** Permissions that no call needed. */
  readonly unused: Permissions
  /** Permissions that are not watched: all but the first 100 of a key. */
  readonly unwatched: Permissions
  /** Since when uses are known: later than `days` ago if counting began later, or if the key is younger. */
  readonly since: Date
}

export interface UnusedPermissionsParts {
  readonly store: KeyStore
  readonly keepDays: number
  flushCounts(): Promise<boolean>
  findById(id: string): Promise<KeyRecord | null>
}

/** How many days back to look, unless an option says otherwise. */
export const DEFAULT_DAYS = 30
/** How many predecessors count as the same key. */
const MAX_PREDECESSORS = 20

/** Tells which permissions of a key and its predecessors were used. Null if there is no such key. */
export function createUnusedPermissions(
  parts: UnusedPermissionsParts,
): (id: string, options: UnusedPermissionsOptions, now: number) => Promise<UnusedPermissions | null> {
  const { store } = parts

  return async function unusedPermissions(id, options, now) {
    const { days = DEFAULT_DAYS } = checkUnusedOptions('options', options)
    const readUsage = requireCounts('unusedPermissions', store, parts.keepDays)
    if (!(await parts.flushCounts())) throw unwritten()
    const record = await parts.findById(id)
    if (!record) return null
    const from = now - Math.min(days, parts.keepDays) * DAY_MS
    const lineage = await lineageOf(parts, record, from)
    const hours = { fromHour: Math.floor(from / HOUR_MS), toHour: Math.floor(now / HOUR_MS) + 1 }
    const used = new Set<string>()
    for (const { id: keyId } of lineage) {
      const counts = await readUsage({ of: { keyId }, ...hours, kind: 'permissions' })
      for (const { counter, amount } of counts) if (amount > 0) used.add(counter)
    }
    const since = Math.max(from, await countedSince(store, now), lineage.at(-1)?.createdAt.getTime() ?? from)
    return { ...sortOut(record.permissions, used), since: new Date(since) }
  }
}

/** What waits in memory may be the use of a permission. */
function unwritten(): LatchkeyError {
  return new LatchkeyError('unavailable', 'Counts of use could not be written', { stack: false })
}

/** @throws TypeError naming the option. */
export function checkUnusedOptions(
  name: string,
  options: UnusedPermissionsOptions,
): UnusedPermissionsOptions {
  checkObject(name, options, ['days'])
  if (options.days !== undefined) checkInteger('days', options.days, 1, 3_650)
  return options
}

/** The key, and the keys that it succeeded since. */
async function lineageOf(
  { findById }: UnusedPermissionsParts,
  record: KeyRecord,
  from: number,
): Promise<KeyRecord[]> {
  const lineage = [record]
  for (let last = record; last.rotatedFrom && last.createdAt.getTime() > from; lineage.push(last)) {
    const before: KeyRecord | null =
      lineage.length > MAX_PREDECESSORS ? null : await findById(last.rotatedFrom)
    if (!before) break
    last = before
  }
  return lineage
}

/** Since when some process counts; now, if none has. */
async function countedSince({ agree }: KeyStore, now: number): Promise<number> {
  const since = (await agree?.(COUNTED_SINCE, null)) ?? null
  return since === null ? now : Date.parse(since)
}

function sortOut(permissions: Permissions, used: ReadonlySet<string>): Omit<UnusedPermissions, 'since'> {
  const all = grantsOf(permissions)
  const watched = all.slice(0, MAX_WATCHED_GRANTS)
  return {
    used: permissionsOf(watched.filter((counter) => used.has(counter))),
    unused: permissionsOf(watched.filter((counter) => !used.has(counter))),
    unwatched: permissionsOf(all.slice(MAX_WATCHED_GRANTS)),
  }
}

function permissionsOf(counters: readonly string[]): Permissions {
  const permissions = new Map<string, string[]>()
  for (const { resource, action } of counters.map(grantOf)) {
    permissions.set(resource, [...(permissions.get(resource) ?? []), action])
  }
  return Object.fromEntries(permissions)
}
