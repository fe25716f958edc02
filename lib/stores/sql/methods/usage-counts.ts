import {
  DAY_MS,
  type HourlyCount,
  isPermissionCounter,
  type UsageBatch,
  type UsageCount,
  type UsageRemoval,
  type UsageSelection,
  usageSubject,
} from '../../../core/usage/usage-counts.ts'
import { isLatchkeyError } from '../../../errors.ts'
import { compareCodePoints } from '../../../internal/code-points.ts'
import { isStorable } from '../../../internal/options.ts'
import { affectedBy, type Plan, rowsOf } from '../plan.ts'
import { ROWS_PER_REMOVAL, type UsageAmount } from '../statements/usage-counts.ts'
import type { Statements } from '../statements.ts'
import { fromUsageRow } from '../usage-row.ts'
import { IDS_PER_STATEMENT, inChunks, type SqlStoreParts } from './parts.ts'

/** How long a writer that sends nothing is remembered. */
const KEEP_WRITERS_MS = 7 * DAY_MS

export async function addUsage(
  { database, statements }: SqlStoreParts,
  { writer, number, counts }: UsageBatch,
): Promise<void> {
  const now = Date.now()
  await database.transact(function* () {
    const [known] = yield* rowsOf(statements.lockWriter(writer))
    if (known && Number(known.number) >= number) return
    yield known ? statements.updateWriter(writer, number, now) : statements.insertWriter(writer, number, now)
    const amounts = yield* amountsOf(statements, counts)
    for (const [hour, rows] of byHourOfDay(amounts)) {
      for (const statement of statements.addUsage(hour, rows)) yield statement
    }
  })
}

/** What to add to each key that exists, and to its owner. */
function* amountsOf(statements: Statements, counts: readonly UsageCount[]): Plan<HourOfSubject[]> {
  const ids = [...new Set(counts.map(({ keyId }) => keyId))].filter(isStorable).sort(compareCodePoints)
  const ownerOf = new Map<string, string>()
  for (const some of inChunks(ids, IDS_PER_STATEMENT)) {
    for (const { id, owner_type, owner_id } of yield* rowsOf(statements.holdOwners(some))) {
      const owner = { type: String(owner_type), id: String(owner_id) }
      ownerOf.set(String(id), usageSubject({ owner }))
    }
  }
  const sums = new Map<string, HourOfSubject>()
  for (const { keyId, hour, counter, amount } of counts) {
    const owner = ownerOf.get(keyId)
    if (owner === undefined) continue
    addTo(sums, { subject: usageSubject({ keyId }), hour, counter, amount })
    if (!isPermissionCounter(counter)) addTo(sums, { subject: owner, hour, counter, amount })
  }
  return [...sums.values()]
}

interface HourOfSubject {
  readonly subject: string
  readonly hour: number
  readonly counter: string
  amount: number
}

function addTo(sums: Map<string, HourOfSubject>, one: HourOfSubject): void {
  const key = JSON.stringify([one.subject, one.hour, one.counter])
  const sum = sums.get(key)
  if (sum) sum.amount += one.amount
  else sums.set(key, one)
}

/** The rows of each hour of the day, in the order of their keys. */
function byHourOfDay(amounts: readonly HourOfSubject[]): ReadonlyMap<number, UsageAmount[]> {
  const rows = new Map<number, UsageAmount[]>()
  for (const { subject, hour, counter, amount } of amounts) {
    const ofHour = rows.get(hour % 24) ?? []
    ofHour.push({ subject, day: Math.floor(hour / 24), counter, amount })
    rows.set(hour % 24, ofHour)
  }
  for (const some of rows.values()) some.sort(compareRows)
  return new Map([...rows].sort(([a], [b]) => a - b))
}

function compareRows(a: UsageAmount, b: UsageAmount): number {
  return compareCodePoints(a.subject, b.subject) || a.day - b.day || compareCodePoints(a.counter, b.counter)
}

export async function readUsage(
  { database, statements }: SqlStoreParts,
  { of, fromHour, toHour, kind }: UsageSelection,
): Promise<readonly HourlyCount[]> {
  const subject = usageSubject(of)
  // Nothing is counted of a key or an owner that cannot be stored.
  if (!isStorable(subject) || fromHour >= toHour) return []
  const [fromDay, toDay] = [Math.floor(fromHour / 24), Math.floor((toHour - 1) / 24)]
  const rows = await database.read(() => rowsOf(statements.readUsage(subject, fromDay, toDay, kind)))
  return rows.flatMap(fromUsageRow).filter(({ hour }) => hour >= fromHour && hour < toHour)
}

export async function removeUsage(
  { database, statements }: SqlStoreParts,
  removal: UsageRemoval,
): Promise<void> {
  if ('owner' in removal) {
    const subject = usageSubject(removal)
    if (!isStorable(subject)) return
    try {
      await database.write(() => affectedBy(statements.removeUsageOf([subject])))
    } catch (error) {
      // Before `migrate` has created the tables, nothing is counted in them.
      if (!isLatchkeyError(error) || error.code !== 'not_migrated') throw error
    }
    return
  }
  const day = Math.floor(removal.beforeHour / 24)
  let removed: number
  do {
    removed = await database.write(() => affectedBy(statements.removeUsageBefore(day)))
  } while (removed === ROWS_PER_REMOVAL)
  await database.write(() => affectedBy(statements.removeWriters(Date.now() - KEEP_WRITERS_MS)))
}
