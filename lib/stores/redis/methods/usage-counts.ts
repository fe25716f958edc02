import {
  type HourlyCount,
  isPermissionCounter,
  type UsageBatch,
  type UsageCount,
  type UsageRemoval,
  type UsageSelection,
  usageSubject,
} from '../../../core/usage/usage-counts.ts'
import { LatchkeyError } from '../../../errors.ts'
import {
  ADD_USAGE,
  KEEP_USAGE_SINCE,
  LIST_USAGE_DAYS,
  READ_USAGE,
  READ_USAGE_SINCE,
  REMOVE_USAGE,
} from '../scripts.ts'
import type { RedisStoreParts } from './parts.ts'

/** How many records to read at once, and how many days. */
const READS_AT_ONCE = 50
const DAYS_AT_ONCE = 400
const DAY_SECONDS = 86_400
/** A batch is sent again for a day. */
const KEEP_WRITERS_SECONDS = 3 * DAY_SECONDS

/** What to add to one day of a subject, by hour and counter. */
interface DayOfSubject {
  readonly subject: string
  readonly day: number
  readonly amounts: Map<string, number>
}

/**
 * Adds a batch place by place: if one fails, the batch comes again, and each place knows whether it has it. A key that is purged at
 * this moment may leave counts behind, which expire.
 */
export async function addUsage(parts: RedisStoreParts, batch: UsageBatch): Promise<void> {
  const { calls, layout } = parts
  const { writer, number, keepDays } = batch
  const days = addUp(batch.counts, await ownersOf(parts, batch.counts))
  const places = calls.byPlace(days, ({ subject }) => layout.usageDays(subject))
  await Promise.all(
    places.map((place) => {
      const keys = place.flatMap(({ subject, day }) => [
        layout.usage(subject, day),
        layout.usageWriters(subject, day),
        layout.usageDays(subject),
      ])
      const words = place.flatMap(({ day, amounts }) => [day, amounts.size, ...[...amounts].flat()])
      const keepSeconds = (keepDays + 1) * DAY_SECONDS
      return calls.run(ADD_USAGE, keys, [writer, number, keepSeconds, KEEP_WRITERS_SECONDS, ...words])
    }),
  )
}

/** The subjects of the owners of those keys that exist. */
async function ownersOf(
  { lookups }: RedisStoreParts,
  counts: readonly UsageCount[],
): Promise<ReadonlyMap<string, string>> {
  const ids = [...new Set(counts.map(({ keyId }) => keyId))]
  const owners = new Map<string, string>()
  for (let from = 0; from < ids.length; from += READS_AT_ONCE) {
    const some = ids.slice(from, from + READS_AT_ONCE)
    const found = await Promise.all(some.map((id) => lookups.byId(id)))
    for (const one of found) {
      if (one) owners.set(one.stored.record.id, usageSubject({ owner: one.stored.record.owner }))
    }
  }
  return owners
}

function addUp(counts: readonly UsageCount[], owners: ReadonlyMap<string, string>): readonly DayOfSubject[] {
  const days = new Map<string, DayOfSubject>()
  const add = (subject: string, { hour, counter, amount }: UsageCount) => {
    const day = Math.floor(hour / 24)
    const key = `${day} ${subject}`
    const known = days.get(key) ?? { subject, day, amounts: new Map() }
    const field = `${hour % 24} ${counter}`
    known.amounts.set(field, (known.amounts.get(field) ?? 0) + amount)
    days.set(key, known)
  }
  for (const count of counts) {
    const owner = owners.get(count.keyId)
    if (owner === undefined) continue
    add(usageSubject(count), count)
    if (!isPermissionCounter(count.counter)) add(owner, count)
  }
  return [...days.values()]
}

export async function readUsage(
  { calls, layout }: RedisStoreParts,
  { of, fromHour, toHour, kind }: UsageSelection,
): Promise<readonly HourlyCount[]> {
  const [since] = await calls.run(READ_USAGE_SINCE, [layout.usageSince])
  const first = Math.max(fromHour, Number(since ?? 0))
  const subject = usageSubject(of)
  const counts: HourlyCount[] = []
  for (let day = Math.floor(first / 24); day * 24 < toHour; day += DAYS_AT_ONCE) {
    const days = Array.from({ length: DAYS_AT_ONCE }, (_, i) => day + i).filter((one) => one * 24 < toHour)
    const keys = days.map((one) => layout.usage(subject, one))
    const [found] = (await calls.run(READ_USAGE, keys)) as [unknown[]]
    counts.push(...days.flatMap((one, i) => countsOf(one, found[i])))
  }
  return counts.filter(
    ({ hour, counter }) =>
      hour >= first && hour < toHour && isPermissionCounter(counter) === (kind === 'permissions'),
  )
}

/** The amounts in a hash that are not 0. @throws LatchkeyError `malformed_record` */
function countsOf(day: number, fields: unknown): HourlyCount[] {
  const counts: HourlyCount[] = []
  const list = Array.isArray(fields) ? fields.map(String) : []
  for (let i = 0; i < list.length; i += 2) {
    const [, hour, counter] = /^(\d+) (.*)$/.exec(list[i] as string) ?? []
    if (hour === undefined || counter === undefined) continue
    const amount = Math.min(Number(list[i + 1]), Number.MAX_SAFE_INTEGER)
    if (!Number.isInteger(amount)) {
      throw new LatchkeyError('malformed_record', 'A count of use is not an integer')
    }
    if (amount !== 0) counts.push({ hour: day * 24 + Number(hour), counter, amount })
  }
  return counts
}

/** Redis removes days by itself when they expire. Until then, a note of the hour keeps reads from showing them. */
export async function removeUsage(parts: RedisStoreParts, removal: UsageRemoval): Promise<void> {
  const { calls, layout } = parts
  if ('owner' in removal) await removeUsageOf(parts, removal)
  else await calls.run(KEEP_USAGE_SINCE, [layout.usageSince], [removal.beforeHour])
}

/** Removes everything that was counted of a key or an owner. */
export async function removeUsageOf(
  { calls, layout }: RedisStoreParts,
  of: UsageSelection['of'],
): Promise<void> {
  const subject = usageSubject(of)
  const [found] = (await calls.run(LIST_USAGE_DAYS, [layout.usageDays(subject)])) as [unknown[]]
  const days = found.map(Number)
  for (let from = 0; from < days.length; from += DAYS_AT_ONCE) {
    const some = days
      .slice(from, from + DAYS_AT_ONCE)
      .flatMap((day) => [layout.usage(subject, day), layout.usageWriters(subject, day)])
    await calls.run(REMOVE_USAGE, some)
  }
  if (days.length > 0) await calls.run(REMOVE_USAGE, [layout.usageDays(subject)])
}
