import { LRUCache } from 'lru-cache'
import type { Clock } from '../../core/clock.ts'
import type { CompiledLimit, Meter } from '../../core/limits/rate-limit.ts'
import { readMeter } from '../../core/limits/rate-limit.ts'
import type { LimitAnswer, LimitRequest } from '../../core/limits/rate-limiter.ts'
import { refusedAnswer } from '../limit-answers.ts'

/** Refusals that are still true, so that a flood on an exhausted key does not reach the server. */
export interface Denials {
  /** The answer to this call, where it is known to be refused; null where the server has to be asked. */
  peekStale(request: LimitRequest): LimitAnswer | null
  /** Keeps the meters by which a call was refused, at `serverTime`. */
  remember(request: LimitRequest, meters: readonly Meter[], serverTime: number): void
  /** Forgets what is known of a lineage: something was changed or given back. */
  forget(lineageId: string): void
}

interface Denial {
  readonly keyId: string
  readonly version: number
  readonly limits: readonly CompiledLimit[]
  readonly meters: readonly Meter[]
  readonly at: number
  readonly serverTime: number
}

const NO_DENIALS: Denials = Object.freeze({ peekStale: () => null, remember: () => {}, forget: () => {} })

/** Holds refusals in memory for a bounded time. It never admits: where it cannot refuse, it says nothing. */
export function createDenials(
  options: { readonly maxEntries: number; readonly maxAgeMs: number } | false,
  clock: Clock,
): Denials {
  if (options === false) return NO_DENIALS
  const held = new LRUCache<string, Denial>({ max: options.maxEntries })

  return {
    peekStale(request) {
      if (request.cost === 0 || held.size === 0) return null
      const denial = held.get(request.lineageId)
      if (!denial) return null
      const age = clock.now() - denial.at
      if (age >= options.maxAgeMs) {
        held.delete(request.lineageId)
        return null
      }
      if (!isSameQuestion(denial, request)) return null
      const { limits, cost } = request
      const now = denial.serverTime + Math.ceil(age)
      const readings = limits.map((limit, i) => readMeter(limit, denial.meters[i], cost, now))
      if (readings.every(({ fits }) => fits)) return null
      return refusedAnswer(limits, readings, now)
    },

    remember({ lineageId, keyId, version, limits, cost }, meters, serverTime) {
      if (cost === 0) return
      held.set(lineageId, { keyId, version, limits, meters, at: clock.now(), serverTime })
    },

    forget: (lineageId) => void held.delete(lineageId),
  }
}

/** Whether the refusal was of the same key in the same state. */
function isSameQuestion(denial: Denial, { keyId, version, limits }: LimitRequest): boolean {
  return denial.keyId === keyId && denial.version === version && denial.limits === limits
}
