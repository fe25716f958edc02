import {
  type CompiledLimit,
  type LimitState,
  limitState,
  type Meter,
  type MeterReading,
} from '../core/limits/rate-limit.ts'
import type { LimitAnswer } from '../core/limits/rate-limiter.ts'

/** The answer to a call that passed; `meters` are those after it was charged. */
export function admittedAnswer(
  limits: readonly CompiledLimit[],
  meters: readonly Meter[],
  chargedAt: number | null,
  now: number,
): LimitAnswer {
  const states: LimitState[] = []
  for (let i = 0; i < limits.length; i++) {
    states.push(limitState(limits[i] as CompiledLimit, meters[i] as Meter, false, now))
  }
  return { outcome: 'admitted', limits: states, chargedAt }
}

/** The answer to a call that a limit refused. */
export function refusedAnswer(
  limits: readonly CompiledLimit[],
  readings: readonly MeterReading[],
  now: number,
): LimitAnswer {
  const states = limits.map((limit, i) => {
    const { meter, fits } = readings[i] as MeterReading
    return limitState(limit, meter, !fits, now)
  })
  return { outcome: 'limited', limits: states, retryAfterMs: longestWait(readings) }
}

function longestWait(readings: readonly MeterReading[]): number | null {
  let longest = 0
  for (const { retryAfterMs } of readings) {
    if (retryAfterMs === null) return null
    longest = Math.max(longest, retryAfterMs)
  }
  return longest
}
