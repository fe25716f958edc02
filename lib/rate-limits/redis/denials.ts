import { LRUCache } from 'lru-cache'
import type { Clock } from '../../core/clock.ts'
import type { Meter } from '../../core/limits/meter.ts'
import { readMeter } from '../../core/limits/meter.ts'
import type { CompiledLimit } from '../../core/limits/rate-limit.ts'
import { isLook, type LimitAnswer, type LimitRequest, neededAt } from '../../core/limits/rate-limiter.ts'
import { refusedAnswer } from '../limit-answers.ts'

/** Refusals that still hold, so that a flood of calls with an exhausted key does not reach Redis. */
export interface Denials {
  /** The refusal of this call, if it is known; null if Redis has to decide. */
  peekStale(request: LimitRequest): LimitAnswer | null
  /** Keeps the meters that refused a call at `serverTime`. */
  remember(request: LimitRequest, meters: readonly Meter[], serverTime: number): void
  /** Forgets the refusal of a lineage after a change or a settlement; if that was also the owner's, those of all its keys. */
  forget(lineageId: string, owner?: string): void
}

interface Denial {
  readonly keyId: string
  readonly version: number
  readonly limits: readonly CompiledLimit[]
  readonly meters: readonly Meter[]
  readonly at: number
  readonly serverTime: number
  /** How often the refusals of the owner had been forgotten. */
  readonly round: number
}

const NO_DENIALS: Denials = Object.freeze({ peekStale: () => null, remember: () => {}, forget: () => {} })

/** Keeps refusals in memory for a bounded time. It never admits a call. */
export function createDenials(
  options: { readonly maxEntries: number; readonly maxAgeMs: number } | false,
  clock: Clock,
): Denials {
  if (options === false) return NO_DENIALS
  const held = new LRUCache<string, Denial>({ max: options.maxEntries })
  const rounds = new LRUCache<string, number>({ max: options.maxEntries })
  const roundOf = (owner: string | undefined) => (owner === undefined ? 0 : (rounds.get(owner) ?? 0))

  return {
    peekStale(request) {
      if (held.size === 0 || isLook(request)) return null
      const denial = held.get(request.lineageId)
      if (!denial) return null
      const age = clock.now() - denial.at
      if (age >= options.maxAgeMs) {
        held.delete(request.lineageId)
        return null
      }
      if (!isSameQuestion(denial, request) || denial.round !== roundOf(request.owner)) return null
      const { limits } = request
      const now = denial.serverTime + Math.ceil(age)
      const readings = limits.map((limit, i) => readMeter(limit, denial.meters[i], neededAt(request, i), now))
      if (readings.every(({ fits }) => fits)) return null
      return refusedAnswer(limits, readings, now)
    },

    remember(request, meters, serverTime) {
      if (isLook(request)) return
      const { lineageId, keyId, version, limits } = request
      const round = roundOf(request.owner)
      held.set(lineageId, { keyId, version, limits, meters, at: clock.now(), serverTime, round })
    },

    forget(lineageId, owner) {
      held.delete(lineageId)
      if (owner !== undefined) rounds.set(owner, roundOf(owner) + 1)
    },
  }
}

/** Whether the refusal was of the same key in the same state. */
function isSameQuestion(denial: Denial, { keyId, version, limits }: LimitRequest): boolean {
  return denial.keyId === keyId && denial.version === version && denial.limits === limits
}
