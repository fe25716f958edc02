import { tzOffset } from '@date-fns/tz/tzOffset'
import { OptionError } from '../../internal/option-error.ts'
import { fail } from '../../internal/options.ts'

/** A calendar unit, as `per` names it. */
export type CalendarUnit = 'day' | 'month'
export const CALENDAR_UNITS: readonly CalendarUnit[] = Object.freeze(['day', 'month'])

/** A calendar period, as instants: `startsAt` belongs to it, `endsAt` no longer does. */
export interface Period {
  readonly startsAt: number
  readonly endsAt: number
}

const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE

/** `+01:00`, `+0100` or `+01`. */
const OFFSET = /^([+-])([01]\d|2[0-3])(?::?([0-5]\d))?$/

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
  const offsetAt = offsetsOf(timeZone)
  const local = new Date(now + offsetAt(now))
  const [year, month, day] = [local.getUTCFullYear(), local.getUTCMonth(), local.getUTCDate()]
  const [start, end] =
    per === 'day'
      ? [Date.UTC(year, month, day), Date.UTC(year, month, day + 1)]
      : [Date.UTC(year, month), Date.UTC(year, month + 1)]
  const period = { startsAt: startOfDay(start, offsetAt), endsAt: startOfDay(end, offsetAt) }
  if (latest.size >= MAX_LATEST) latest.clear()
  latest.set(key, period)
  return period
}

/** The first instant of the day whose midnight, were it in UTC, would be `midnight`. */
function startOfDay(midnight: number, offsetAt: OffsetAt): number {
  const before = midnight - offsetAt(midnight - DAY)
  const after = midnight - offsetAt(midnight + DAY)
  // A midnight that comes twice, as clocks go back, begins with the first; one that clocks leap over, at the leap.
  return [before, after].find((at) => at + offsetAt(at) === midnight) ?? before
}

/** How many milliseconds a zone is ahead of UTC at an instant. */
type OffsetAt = (instant: number) => number

export function offsetsOf(timeZone: string): OffsetAt {
  const known = zones.get(timeZone)
  if (known) return known
  const offsetAt = resolveOffsets(timeZone)
  if (zones.size >= MAX_LATEST) zones.clear()
  zones.set(timeZone, offsetAt)
  return offsetAt
}

/** Finding a name costs as much as a hundred offsets. */
const zones = new Map<string, OffsetAt>()

function resolveOffsets(timeZone: string): OffsetAt {
  const offset = OFFSET.exec(timeZone)
  if (offset) {
    const [, sign, hours, minutes] = offset
    const fixed = Number(`${sign}1`) * (Number(hours) * 60 + Number(minutes ?? 0)) * MINUTE
    return () => fixed
  }
  // tzOffset keeps every name it has seen: aliases and other spellings come to it as one.
  const name = canonicalName(timeZone)
  return (instant) => tzOffset(name, new Date(instant)) * MINUTE
}

function canonicalName(timeZone: string): string {
  return new Intl.DateTimeFormat('en-US', { timeZone }).resolvedOptions().timeZone
}

/** Requires an IANA time zone name, or an offset such as `+01:00`. @throws TypeError */
export function checkTimeZone(name: string, value: unknown): string {
  if (typeof value !== 'string') fail(name, 'an IANA time zone such as "Europe/Berlin"', value)
  const offset = OFFSET.exec(value)
  if (offset) return `${offset[1]}${offset[2]}:${offset[3] ?? '00'}`
  try {
    const canonical = canonicalName(value)
    // An alias stays: limits count under the name that was given.
    return canonical.toLowerCase() === value.toLowerCase() ? canonical : value
  } catch {
    throw new OptionError(name, 'be an IANA time zone such as "Europe/Berlin"')
  }
}
