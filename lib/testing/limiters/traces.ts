import type { CompiledLimit } from '../../core/limits/rate-limit.ts'
import type { ServiceRateLimit } from '../../core/limits/service-limits.ts'
import type { Random } from '../random.ts'
import { DAY, HOUR, limitsOf, MINUTE, SECOND } from './limiter-test.ts'

/** One step of a trace. `by` is who makes it: processes may have other numbers for the same limits. */
export type Step =
  | {
      readonly do: 'call'
      readonly by: number
      readonly lineage: number
      readonly key: number
      readonly version: number
      readonly fresh: boolean
      readonly cost: number
      /** By the name of a limit, in place of `cost`. */
      readonly costs: Readonly<Record<string, number>> | null
      /** The names of its limits. */
      readonly of: readonly string[]
    }
  | { readonly do: 'raise'; readonly lineage: number; readonly key: number; readonly version: number }
  /** Changes the cost of one of the latest calls; a number of units for each limit. */
  | { readonly do: 'settle'; readonly by: number; readonly which: number; readonly to: readonly number[] }
  /** Makes the latest change again. */
  | { readonly do: 'settle again'; readonly by: number }
  /** Of one of the latest calls. */
  | { readonly do: 'release' | 'renew'; readonly by: number; readonly which: number }
  | { readonly do: 'wait'; readonly ms: number }

/** What traces are about. */
export interface Subject {
  /** The limits as two processes read them, by name. */
  readonly readers: readonly ReadonlyMap<string, CompiledLimit>[]
  /** Waits that matter, besides any. */
  readonly waits: readonly number[]
}

const MINUTES: readonly Pair[] = [
  [{ name: 'minute', limit: 8, windowMs: MINUTE }, { limit: 5 }],
  [{ name: 'tokens', limit: 40, windowMs: 90 * SECOND, only: 'named' }, { limit: 25 }],
  // To one reader the limit has another length: it counts by itself.
  [{ name: 'moved', limit: 6, windowMs: MINUTE }, { windowMs: 61 * SECOND }],
]
const BUCKETS: readonly Pair[] = [
  // A tenth of a unit leaks in a second, which is no exact number in binary.
  [{ name: 'slow', limit: 6, windowMs: MINUTE, burst: 9 }, { burst: 4 }],
  [{ name: 'fast', limit: 90, windowMs: MINUTE, burst: 30 }, { burst: 12 }],
]
const PERIODS: readonly Pair[] = [
  [{ name: 'day', limit: 12, per: 'day', timeZone: 'Europe/Berlin' }, { limit: 9 }],
  [{ name: 'month', limit: 30, per: 'month' }, { limit: 20 }],
]
const OWNERS: readonly Pair[] = [
  [{ name: 'team', limit: 15, windowMs: 2 * MINUTE, scope: 'owner' }, { limit: 11 }],
  [{ name: 'pool', limit: 6, windowMs: MINUTE, burst: 14, scope: 'owner' }, { burst: 8 }],
]
const PLACES: readonly Pair[] = [
  [
    { name: 'parallel', concurrent: 3, maxHeldMs: 5 * SECOND },
    { concurrent: 2, maxHeldMs: 9 * SECOND },
  ],
  [{ name: 'seats', concurrent: 4, maxHeldMs: 7 * SECOND, scope: 'owner' }, { concurrent: 3 }],
]
const MINUTE_WAITS = [30 * SECOND, MINUTE - 1, MINUTE, MINUTE + 1, 90 * SECOND, 2 * MINUTE]

/** Subjects of traces, by name. */
export const SUBJECTS: Readonly<Record<string, Subject>> = {
  windows: subject(MINUTE_WAITS, MINUTES),
  buckets: subject([SECOND, 3 * SECOND, 7 * SECOND, MINUTE], BUCKETS),
  'calendar limits': subject([HOUR, 11 * HOUR, DAY - HOUR, DAY, DAY + HOUR, 9 * DAY], PERIODS),
  'limits of owners': subject(MINUTE_WAITS, OWNERS, MINUTES),
}

/** The same with places. */
export const PLACE_SUBJECTS: Readonly<Record<string, Subject>> = {
  places: subject([1, SECOND, 5 * SECOND - 1, 5 * SECOND, 9 * SECOND], PLACES, MINUTES.slice(0, 1)),
  'limits of every kind': subject(
    [...MINUTE_WAITS, SECOND, 3 * SECOND, DAY],
    MINUTES,
    BUCKETS,
    PERIODS,
    OWNERS,
    PLACES,
  ),
}

/** A limit, and what of it is different for another process. */
type Pair = readonly [ServiceRateLimit, object]

function subject(waits: readonly number[], ...groups: readonly (readonly Pair[])[]): Subject {
  const pairs = groups.flat()
  const one = limitsOf(...pairs.map(([limit]) => limit))
  const other = limitsOf(...pairs.map(([limit, more]) => ({ ...limit, ...more }) as ServiceRateLimit))
  return { waits, readers: [one, other].map((limits) => new Map(limits.map((limit) => [limit.name, limit]))) }
}

/** Optional steps, if the limiter can take them. */
export interface StepKinds {
  readonly settle: boolean
  readonly places: boolean
}

export function randomTrace(random: Random, subject: Subject, kinds: StepKinds): Step[] {
  return Array.from({ length: 5 + random.below(46) }, () => randomStep(random, subject, kinds))
}

function randomStep(random: Random, { readers, waits }: Subject, kinds: StepKinds): Step {
  const by = random.below(readers.length)
  const chance = random.below(24)
  if (chance === 0) {
    return { do: 'raise', lineage: random.below(3), key: 0, version: 1 + random.below(3) }
  }
  if (chance < 5) return { do: 'wait', ms: random.chance(0.5) ? random.of(waits) : 1 + random.below(90_000) }
  if (chance < 8 && kinds.settle) {
    const to = Array.from({ length: 3 }, () => random.below(random.chance(0.2) ? 40 : 8))
    return { do: 'settle', by, which: random.below(5), to }
  }
  if (chance === 8 && kinds.settle) return { do: 'settle again', by }
  if (chance < 12 && kinds.places) {
    return { do: random.chance(0.6) ? 'release' : 'renew', by, which: random.below(5) }
  }
  return randomCall(random, [...(readers[by] as Subject['readers'][number]).keys()], by)
}

/** Mostly a small cost and a good record, so that a trace gets somewhere. */
function randomCall(random: Random, names: readonly string[], by: number): Step {
  const some = names.filter(() => random.chance(0.6))
  const of = some.length > 0 ? some : [random.of(names)]
  const costs = Object.fromEntries(of.map((name) => [name, random.below(6)]))
  return {
    do: 'call',
    by,
    lineage: random.below(3),
    key: random.chance(0.9) ? 0 : 1,
    version: random.chance(0.96) ? 3 : 1 + random.below(4),
    fresh: random.chance(0.9),
    cost: random.chance(0.05) ? 50 : random.of([0, 1, 1, 1, 1, 2, 3, 4]),
    costs: random.chance(0.25) ? costs : null,
    of,
  }
}
