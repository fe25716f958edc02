import type { CompiledLimit } from '../../core/limits/rate-limit.ts'

/** A window or calendar period: from `startsAt` until just before `endsAt`. */
export interface Period {
  readonly startsAt: number
  readonly endsAt: number
}

/** The period that a limit counts if it begins to count now. */
export function newPeriod(limit: CompiledLimit, now: number): Period {
  if (limit.kind === 'calendar') return calendarPeriod(limit, now)
  return { startsAt: now, endsAt: now + limit.windowMs }
}

const HOUR_MS = 3_600_000

/** More than any day or month, and less than two. */
const MORE_THAN_ONE = { day: 26 * HOUR_MS, month: 32 * 24 * HOUR_MS }

const known = new Map<string, Period>()

/** The day or month around a moment, as the calendar on the wall of that time zone names it. */
export function calendarPeriod({ per, timeZone }: CompiledLimit, now: number): Period {
  const key = `${per} ${timeZone}`
  const last = known.get(key)
  if (last && last.startsAt <= now && now < last.endsAt) return last
  const nameAt = naming(per, timeZone)
  const isOther = (moment: number) => nameAt(moment) !== nameAt(now)
  const period = {
    startsAt: firstWhere((moment) => !isOther(moment), now - MORE_THAN_ONE[per], now),
    endsAt: firstWhere(isOther, now, now + MORE_THAN_ONE[per]),
  }
  known.set(key, period)
  return period
}

function naming(per: CompiledLimit['per'], timeZone: string): (moment: number) => string {
  const day = per === 'day' ? ({ day: 'numeric' } as const) : {}
  // Before Node 22, Intl knows no offsets.
  const offset = /^([+-])(\d\d):(\d\d)$/.exec(timeZone)
  const [, sign = '+', hours = 0, minutes = 0] = offset ?? []
  const aheadMs = Number(`${sign}1`) * (Number(hours) * HOUR_MS + Number(minutes) * 60_000)
  const zone = offset ? 'UTC' : timeZone
  const format = new Intl.DateTimeFormat('en', { timeZone: zone, year: 'numeric', month: 'numeric', ...day })
  return (moment) => format.format(moment + aheadMs)
}

/** The first moment in this stretch at which something holds, which goes on to hold until its end. */
function firstWhere(holds: (moment: number) => boolean, from: number, to: number): number {
  let [before, after] = [from, to]
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2)
    if (holds(middle)) after = middle
    else before = middle
  }
  return after
}
