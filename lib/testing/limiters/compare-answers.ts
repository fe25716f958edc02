import type { LimitState } from '../../core/limits/rate-limit.ts'
import type { LimitAnswer, SettleAnswer } from '../../core/limits/rate-limiter.ts'
import type { ExpectedAnswer, ExpectedSettlement, ExpectedState } from './model.ts'
import type { Range } from './model-books.ts'

/** How an answer differs from what the model expects; null if it does not. */
export function differenceOf(expected: ExpectedAnswer, answer: LimitAnswer): string | null {
  if (answer.outcome !== expected.outcome) {
    return `"outcome" is "${answer.outcome}" and should be "${expected.outcome}"`
  }
  if (answer.outcome === 'stale' || expected.outcome === 'stale') return null
  const difference = differenceOfStates(expected.limits, answer.limits)
  if (difference || answer.outcome === 'admitted' || expected.outcome === 'admitted') return difference
  return answer.retryAfterMs === expected.retryAfterMs
    ? null
    : `"retryAfterMs" is ${answer.retryAfterMs} and should be ${expected.retryAfterMs}`
}

/** The same for a settlement. */
export function differenceOfSettlements(expected: ExpectedSettlement, answer: SettleAnswer): string | null {
  for (const [i, some] of expected.made.entries()) {
    for (const [j, range] of some.entries()) {
      const units = answer.made[i]?.[j] as number
      if (!isWithin(units, range)) {
        return `"made[${i}][${j}]" is ${units} and should be ${rangeText(range)}`
      }
    }
  }
  return differenceOfStates(expected.limits, answer.limits)
}

function differenceOfStates(
  expected: readonly ExpectedState[],
  states: readonly LimitState[],
): string | null {
  for (const [i, { name, remaining, resetMs, exceeded }] of expected.entries()) {
    const state = states[i] as LimitState
    const differs = (member: keyof LimitState, value: unknown) =>
      `"${member}" of the limit "${name}" is ${state[member]} and should be ${value}`
    if (!isWithin(state.remaining, remaining)) return differs('remaining', rangeText(remaining))
    if (state.exceeded !== exceeded) return differs('exceeded', exceeded)
    if (state.resetMs !== resetMs) return differs('resetMs', resetMs)
  }
  return null
}

/** Parts of a unit are rounded: a bucket that is kept as a fraction may be off by so much. */
const ROUNDING = 1e-6

function isWithin(number: number, { least, most }: Range): boolean {
  return number >= least - ROUNDING && number <= most + ROUNDING
}

function rangeText({ least, most }: Range): string {
  return least === most ? `${least}` : `${least} to ${most}`
}
