import type { CompiledLimit, LimitState } from '../../core/limits/rate-limit.ts'
import type {
  LimitAnswer,
  LimitRequest,
  SettleAnswer,
  SettleRequest,
} from '../../core/limits/rate-limiter.ts'
import { describePlain } from '../../internal/options.ts'
import { newPeriod } from './model-periods.ts'

/** What is wrong with the form of an answer, whatever it says; null if nothing is. */
export function problemOfAnswer(request: LimitRequest, answer: LimitAnswer, now: number): string | null {
  const { limits, places, cost, costs } = request
  const outcome: unknown = answer?.outcome
  if (outcome !== 'admitted' && outcome !== 'limited' && outcome !== 'stale') {
    return `"outcome" must be "admitted", "limited" or "stale", received ${describePlain(outcome)}`
  }
  if (answer.outcome === 'stale') return null
  const problem = problemOfStates([...limits, ...(places?.limits ?? [])], answer.limits, now)
  if (problem) return problem
  const isExceeded = answer.limits.some(({ exceeded }) => exceeded)
  if (answer.outcome === 'limited') {
    if (!isExceeded) return 'a limit that refuses is "exceeded"'
    const { retryAfterMs } = answer
    return retryAfterMs === null || isWait(retryAfterMs)
      ? null
      : `"retryAfterMs" must be null or a positive integer, received ${describePlain(retryAfterMs)}`
  }
  if (isExceeded) return 'no limit is "exceeded" if the call is admitted'
  const isCharged = limits.some((_limit, i) => (costs ? (costs[i] ?? 0) : cost) > 0)
  return problemOfTime('chargedAt', answer.chargedAt, isCharged, now)
}

/** The same for the answer to a settlement. One that was made before answers an earlier time. */
export function problemOfSettlement(
  { limits, changes }: SettleRequest,
  answer: SettleAnswer,
  now: number,
  isRepeated: boolean,
): string | null {
  const problem = problemOfStates(limits, answer?.limits, now)
  if (problem) return problem
  for (const [i, some] of changes.entries()) {
    const made: readonly unknown[] | undefined = answer.made?.[i]
    const isNumber = (units: unknown) => typeof units === 'number' && units >= 0 && Number.isFinite(units)
    if (made?.length !== some.length || !made.every(isNumber)) {
      return '"made" must have a number from 0 for each change'
    }
  }
  if (isRepeated) return null
  return problemOfTime('settledAt', answer.settledAt, true, now)
}

function problemOfStates(
  limits: readonly CompiledLimit[],
  states: readonly LimitState[] | undefined,
  now: number,
): string | null {
  if (!Array.isArray(states) || states.length !== limits.length) {
    return '"limits" must have one state for each limit, those of "places" last'
  }
  for (const [i, limit] of limits.entries()) {
    const wrong = wrongMember(limit, states[i] as LimitState, now)
    if (!wrong) continue
    const value = describePlain((states[i] as LimitState | undefined)?.[wrong])
    return `"${wrong}" of the limit "${limit.name}" is wrong: ${value}`
  }
  return null
}

/** The first member of a state that cannot be right. */
function wrongMember(limit: CompiledLimit, state: LimitState, now: number): keyof LimitState | null {
  const isConcurrent = limit.kind === 'concurrent'
  const { startsAt, endsAt } = newPeriod(limit, now)
  const windowMs = limit.kind === 'bucket' ? limit.windowMs : endsAt - startsAt
  if (state?.name !== limit.name) return 'name'
  if (state.type !== (isConcurrent ? 'concurrent' : 'rate_limit')) return 'type'
  if (state.limit !== limit.limit) return 'limit'
  if (state.windowMs !== (isConcurrent ? null : windowMs)) return 'windowMs'
  const { remaining, resetMs, exceeded } = state
  if (!Number.isInteger(remaining) || remaining < 0 || remaining > limit.capacity) return 'remaining'
  if (resetMs !== null && (isConcurrent || !isWait(resetMs))) return 'resetMs'
  return typeof exceeded === 'boolean' ? null : 'exceeded'
}

function isWait(ms: unknown): boolean {
  return Number.isInteger(ms) && (ms as number) >= 1
}

/** Requires the time of the limiter's clock, or null if that is allowed. */
function problemOfTime(name: string, at: unknown, isRequired: boolean, now: number): string | null {
  if (at === null && !isRequired) return null
  if (typeof at === 'number' && Math.abs(at - now) < 1) return null
  return `"${name}" must be the time of the limiter's clock, ${now}, received ${describePlain(at)}`
}
