import { OptionError } from '../../internal/option-error.ts'
import { checkDate, checkObject, checkOneOf, checkText } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { checkOwner } from '../keys/record.ts'
import { checkTimeZone, periodAt } from '../limits/calendar.ts'
import { requireCounts } from './require-counts.ts'
import { DAY_MS, HOUR_MS, type HourlyCount, type UsageSelection } from './usage-counts.ts'
import type { UsageOptions, UsageReport, UsageTotals } from './usage-report.ts'

export interface ReportParts {
  readonly store: KeyStore
  readonly clock: Clock
  /** How many days counts are kept; 0 if nothing is counted. */
  readonly keepDays: number
  /** Writes the counts that are still in memory. */
  flushCounts(): Promise<boolean>
}

const DEFAULT_SPAN_MS = { hour: DAY_MS, day: 30 * DAY_MS }
const MAX_BUCKETS = { hour: 8_784, day: 1_830 }

/** Reports the use of a key or an owner, by hour or by day. */
export function createUsageReport({
  store,
  clock,
  keepDays,
  flushCounts,
}: ReportParts): (options: UsageOptions) => Promise<UsageReport> {
  return async function usage(options) {
    const { of, by, timeZone, spans } = checkUsageOptions(options, clock.now())
    const readUsage = requireCounts('usage', store, keepDays)
    await flushCounts()
    const startsAt = spans[0] as number
    const endsAt = spans.at(-1) as number
    const counts = await readUsage({
      of,
      fromHour: Math.floor(startsAt / HOUR_MS),
      toHour: Math.ceil(endsAt / HOUR_MS),
      kind: 'calls',
    })
    return {
      startsAt: new Date(startsAt),
      endsAt: new Date(endsAt),
      by,
      timeZone,
      ...addUp(spans, counts),
    }
  }
}

interface CheckedOptions {
  readonly of: UsageSelection['of']
  readonly by: 'hour' | 'day'
  readonly timeZone: string
  /** Where buckets begin, and where the last one ends. */
  readonly spans: readonly number[]
}

function checkUsageOptions(options: UsageOptions, now: number): CheckedOptions {
  checkObject('options', options, ['key', 'owner', 'from', 'to', 'by', 'timeZone'])
  const { by = 'day', timeZone = 'UTC' } = options
  checkOneOf('by', by, ['hour', 'day'])
  const zone = checkTimeZone('timeZone', timeZone)
  // The hour that begins at this very moment counts too.
  const to = options.to === undefined ? now + 1 : checkDate('to', options.to).getTime()
  const from =
    options.from === undefined ? to - DEFAULT_SPAN_MS[by] : checkDate('from', options.from).getTime()
  if (from >= to) throw new OptionError('from', 'be before "to"')
  if ((to - from) / (by === 'hour' ? HOUR_MS : DAY_MS) > MAX_BUCKETS[by]) {
    throw new OptionError('from', `be at most ${MAX_BUCKETS[by]} ${by}s before "to"`)
  }
  const spans = by === 'hour' ? hoursAround(from, to) : daysAround(zone, from, to)
  return { of: checkSubject(options), by, timeZone: zone, spans }
}

function checkSubject({ key, owner }: UsageOptions): UsageSelection['of'] {
  if ((key === undefined) === (owner === undefined)) {
    throw new OptionError('options', 'have either "key" or "owner"')
  }
  return key === undefined ? { owner: checkOwner('owner', owner) } : { keyId: checkText('key', key, 255) }
}

function hoursAround(from: number, to: number): number[] {
  const first = Math.floor(from / HOUR_MS)
  return Array.from({ length: Math.ceil(to / HOUR_MS) - first + 1 }, (_, i) => (first + i) * HOUR_MS)
}

function daysAround(timeZone: string, from: number, to: number): number[] {
  const spans = [periodAt('day', timeZone, from).startsAt]
  for (let last = spans[0] as number; last < to; spans.push(last))
    last = periodAt('day', timeZone, last).endsAt
  return spans
}

/** Sums that grow. */
interface Sums {
  admitted: number
  refused: number
  readonly refusedBy: Map<string, number>
  readonly units: Map<string, number>
}

function addUp(
  spans: readonly number[],
  counts: readonly HourlyCount[],
): Pick<UsageReport, 'buckets' | 'total'> {
  const total = noSums()
  const buckets = spans.slice(0, -1).map((startsAt, i) => ({
    startsAt: new Date(startsAt),
    endsAt: new Date(spans[i + 1] as number),
    ...noSums(),
  }))
  for (const { hour, counter, amount } of counts) {
    const bucket = bucketAt(buckets, spans, hour * HOUR_MS)
    if (!bucket) continue
    addTo(bucket, counter, amount)
    addTo(total, counter, amount)
  }
  return { buckets: buckets.map((bucket) => ({ ...bucket, ...totalsOf(bucket) })), total: totalsOf(total) }
}

/** The bucket that an hour belongs to; null if it began before the first. */
function bucketAt<T>(buckets: readonly T[], spans: readonly number[], at: number): T | null {
  let [low, high] = [0, spans.length - 1]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if ((spans[middle] as number) <= at) low = middle
    else high = middle
  }
  return at >= (spans[low] as number) && at < (spans[high] as number) ? (buckets[low] as T) : null
}

function addTo(sums: Sums, counter: string, amount: number): void {
  const [kind, name = ''] = split(counter)
  if (kind === 'admitted') sums.admitted += amount
  if (kind === 'units') sums.units.set(name, (sums.units.get(name) ?? 0) + amount)
  if (kind !== 'refused') return
  sums.refused += amount
  sums.refusedBy.set(name, (sums.refusedBy.get(name) ?? 0) + amount)
}

function split(counter: string): [kind: string, name?: string] {
  const colon = counter.indexOf(':')
  return colon < 0 ? [counter] : [counter.slice(0, colon), counter.slice(colon + 1)]
}

function noSums(): Sums {
  return { admitted: 0, refused: 0, refusedBy: new Map(), units: new Map() }
}

/** A limit may be called `constructor` or `__proto__`: this defines members, and sets nothing. */
function totalsOf({ admitted, refused, refusedBy, units }: Sums): UsageTotals {
  return { admitted, refused, refusedBy: Object.fromEntries(refusedBy), units: Object.fromEntries(units) }
}
