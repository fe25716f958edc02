import { type Cost, type KeyCost, keyCostOf } from '../limits/cost.ts'
import { oneOfEachName } from '../limits/one-of-each-name.ts'
import { PLACE_RETRY_MS } from '../limits/places.ts'
import type { QuotaForesight } from '../limits/quota-account.ts'
import type { CompiledLimit, LimitState } from '../limits/rate-limit.ts'
import { isLook, neededAt } from '../limits/rate-limiter.ts'
import { lookAtCost } from './look-at-limits.ts'
import type { CachedKey } from './record-cache.ts'
import { isYoung, type SpenderParts, unitsToTake } from './spend.ts'

/** What spending would come to. */
export interface Foresight {
  /** Null if the key has no quota. */
  readonly quota: (QuotaForesight & { readonly needed: number; readonly state: LimitState }) | null
  /** The limits on which the call counts, and those in which it takes a place. */
  readonly limits: readonly ForeseenLimit[]
  /** Of `limits`, one for each name, and then the quota. */
  readonly states: readonly LimitState[]
}

/** Whether a call fits a limit. */
export interface ForeseenLimit {
  readonly state: LimitState
  /** Units, or places, that must be free. */
  readonly needed: number
  readonly fits: boolean
  /** Milliseconds until it fits, which nobody knows of places; 0 if it fits, null if it never will. */
  readonly retryAfterMs: number | null
}

/**
 * Decides as the `Spender` would, from how limits and quota stand, and spends nothing. Null if the limiter knows a later version of the
 * record.
 *
 * @throws TypeError when the cost names a limit that nobody has.
 * @throws LatchkeyError `unavailable`; `unsupported` when the limiter does not know limits of kind `concurrent`.
 */
export async function foreseeSpending(
  parts: SpenderParts,
  cached: CachedKey,
  cost: Cost,
): Promise<Foresight | null> {
  const keyCost = keyCostOf(cached.limits, cost, parts.limitNames)
  if (keyCost.places.length > 0) parts.heldPlaces.check()
  const states = await lookAt(parts, cached, keyCost)
  if (!states) return null
  const quota = foreseeQuota(parts, cached, unitsToTake(keyCost))
  const limits = foreseeLimits(keyCost, states)
  const shown = limits.map(({ state }) => state)
  return {
    quota,
    limits,
    states: [...(cached.hasNamesakes ? oneOfEachName(shown) : shown), ...(quota ? [quota.state] : [])],
  }
}

async function lookAt(
  parts: SpenderParts,
  cached: CachedKey,
  cost: KeyCost,
): Promise<readonly LimitState[] | null> {
  // As the `Spender` does, which does not ask the limiter either.
  if (parts.isBounded && cached.limits.length === 0 && !cached.quota) return []
  return lookAtCost(parts, cached, cost, { fresh: isYoung(cached, parts), isExact: false })
}

function foreseeQuota({ quotaLeases }: SpenderParts, cached: CachedKey, needed: number): Foresight['quota'] {
  if (!cached.quota) return null
  const foresight = needed === 0 ? ENOUGH : quotaLeases.foresee(cached, needed)
  return { ...foresight, needed, state: quotaLeases.stateOf(cached, !foresight.suffices) }
}

const ENOUGH: QuotaForesight = Object.freeze({ suffices: true, retryAfterMs: 0 })

/** Limits that the limiter did not count, as its policy for outages may say, refuse nothing and are left out. */
function foreseeLimits(cost: KeyCost, states: readonly LimitState[]): ForeseenLimit[] {
  const rest = [...states]
  const foresee = (limit: CompiledLimit, needed: number): ForeseenLimit[] => {
    if (rest[0]?.name !== limit.name) return []
    const state = rest.shift() as LimitState
    const fits = needed <= state.remaining
    const retryAfterMs = fits ? 0 : waitFor(limit, state, needed)
    return [{ state: { ...state, exceeded: !fits }, needed, fits, retryAfterMs }]
  }
  return [
    ...cost.limits.flatMap((limit, i) => foresee(limit, neededAt(cost, i))),
    ...cost.places.flatMap((limit) => foresee(limit, isLook(cost) ? 0 : 1)),
  ]
}

/** From the state, which says when one more unit is there. */
function waitFor({ kind, limit, windowMs, capacity }: CompiledLimit, state: LimitState, needed: number) {
  if (needed > capacity) return null
  if (kind === 'concurrent') return PLACE_RETRY_MS
  const untilNextMs = state.resetMs ?? 1
  if (kind !== 'bucket') return untilNextMs
  return untilNextMs + Math.ceil(((needed - state.remaining - 1) * windowMs) / limit)
}

/** Milliseconds until a call fits all limits; null if it never will. */
export function longestWait(limits: readonly ForeseenLimit[]): number | null {
  let longest = 0
  for (const { retryAfterMs } of limits) {
    if (retryAfterMs === null) return null
    longest = Math.max(longest, retryAfterMs)
  }
  return longest
}
