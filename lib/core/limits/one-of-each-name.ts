import type { LimitState } from './rate-limit.ts'

/**
 * One state for each name, where a limit of a key and one of its owner have the same: the one that is nearer to refusing.
 * Both hold all the same. Header fields name limits, and clients could not tell two of one name apart.
 */
export function oneOfEachName(states: readonly LimitState[]): readonly LimitState[] {
  const byName = new Map<string, LimitState>()
  for (const state of states) {
    const other = byName.get(state.name)
    if (!other || isNearer(state, other)) byName.set(state.name, state)
  }
  return [...byName.values()]
}

/** Whether one limit is nearer to refusing than the other: it has fewer units left, or resets later. */
function isNearer(one: LimitState, other: LimitState): boolean {
  if (one.remaining !== other.remaining) return one.remaining < other.remaining
  return (one.resetMs ?? 0) > (other.resetMs ?? 0)
}
