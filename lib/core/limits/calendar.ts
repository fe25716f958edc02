import { Temporal } from 'temporal-polyfill'
import { OptionError } from '../../internal/option-error.ts'
import { fail } from '../../internal/options.ts'

export type CalendarUnit = 'day' | 'month'

/** A calendar period, as instants: `startsAt` belongs to it, `endsAt` no longer does. */
export interface Period {
  readonly startsAt: number
  readonly endsAt: number
}

/** The latest period of each kind and time zone, for so many of them. */
const latest = new Map<string, Period>()
const MAX_LATEST = 1_000

/**
 * The day or month around `now` in a time zone. Days may have 23 or 25 hours, and a day whose midnight does not exist
 * begins at its first instant.
 */
export function periodAt(per: CalendarUnit, timeZone: string, now: number): Period {
  const key = `${per} ${timeZone}`
  const known = latest.get(key)
  if (known && known.startsAt <= now && now < known.endsAt) return known
  const day = Temporal.Instant.fromEpochMilliseconds(now).toZonedDateTimeISO(timeZone).startOfDay()
  const start = per === 'day' ? day : day.with({ day: 1 }).startOfDay()
  const end = start.add(per === 'day' ? { days: 1 } : { months: 1 }).startOfDay()
  const period = { startsAt: start.epochMilliseconds, endsAt: end.epochMilliseconds }
  if (latest.size >= MAX_LATEST) latest.clear()
  latest.set(key, period)
  return period
}

/** Requires an IANA time zone name, or an offset such as `+01:00`. @throws TypeError */
export function checkTimeZone(name: string, value: unknown): string {
  if (typeof value !== 'string') fail(name, 'an IANA time zone such as "Europe/Berlin"', value)
  try {
    return Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(value).timeZoneId
  } catch {
    throw new OptionError(name, 'be an IANA time zone such as "Europe/Berlin"')
  }
}
