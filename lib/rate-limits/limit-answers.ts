import { limitState, type Meter, type MeterReading } from '../core/limits/meter.ts'
import { PLACE_RETRY_MS } from '../core/limits/places.ts'
import type { CompiledLimit, LimitState } from '../core/limits/rate-limit.ts'
import type { LimitAnswer } from '../core/limits/rate-limiter.ts'

/** The answer to a call that passed; `meters` are those after it was charged, and `places` how those limits stand. */
export function admittedAnswer(
  limits: readonly CompiledLimit[],
  meters: readonly Meter[],
  chargedAt: number | null,
  now: number,
  places: readonly LimitState[] = [],
): LimitAnswer {
  const states: LimitState[] = []
  for (let i = 0; i < limits.length; i++) {
    states.push(limitState(limits[i] as CompiledLimit, meters[i] as Meter, false, now))
  }
  for (const place of places) states.push(place)
  return { outcome: 'admitted', limits: states, chargedAt }
}

/** The answer to a call that a limit refused. */
export function refusedAnswer(
  limits: readonly CompiledLimit[],
  readings: readonly MeterReading[],
  now: number,
  places: readonly LimitState[] = [],
): LimitAnswer {
  const states = limits.map((limit, i) => {
    const { meter, fits } = readings[i] as MeterReading
    return limitState(limit, meter, !fits, now)
  })
  const atLeast = places.some(({ exceeded }) => exceeded) ? PLACE_RETRY_MS : 0
  return { outcome: 'limited', limits: [...states, ...places], retryAfterMs: longestWait(readings, atLeast) }
}

function longestWait(readings: readonly MeterReading[], atLeast: number): number | null {
  let longest = atLeast
  for (const { retryAfterMs } of readings) {
    if (retryAfterMs === null) return null
    longest = Math.max(longest, retryAfterMs)
  }
  return longest
}
