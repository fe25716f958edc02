import { LRUCache } from 'lru-cache'
import type { Clock } from '../core/clock.ts'
import type { CompiledLimit, Meter } from '../core/rate-limit.ts'
import { readMeter } from '../core/rate-limit.ts'
import type { LimitAnswer, LimitRequest } from '../core/rate-limiter.ts'
import { refusedAnswer } from './limit-answers.ts'

/** Refusals that are still true, so that a flood on an exhausted key does not reach the server. */
export interface Denials {
  /** The answer to this call, where it is known to be refused; null where the server has to be asked. */
  recall(request: LimitRequest): LimitAnswer | null
  /** Keeps the meters and units by which a call was refused, at `serverTime`. */
  remember(request: LimitRequest, meters: readonly Meter[], unspentQuota: number, serverTime: number): void
  /** Forgets what is known of a lineage: something was changed or given back. */
  forget(lineageId: string): void
}

interface Denial {
  readonly keyId: string
  readonly version: number
  readonly limits: readonly CompiledLimit[]
  readonly meters: readonly Meter[]
  readonly epoch: number | null
  readonly allotted: number
  readonly unspentQuota: number
  readonly at: number
  readonly serverTime: number
}

/** Holds refusals in memory for a bounded time. It never admits: where it cannot refuse, it says nothing. */
export function createDenials(
  options: { readonly maxEntries: number; readonly maxAgeMs: number },
  clock: Clock,
): Denials {
  const held = new LRUCache<string, Denial>({ max: options.maxEntries })

  return {
    recall(request) {
      if (request.cost === 0 || held.size === 0) return null
      const denial = held.get(request.lineageId)
      if (!denial) return null
      const age = clock.now() - denial.at
      if (age >= options.maxAgeMs) {
        held.delete(request.lineageId)
        return null
      }
      if (!isSameQuestion(denial, request)) return null
      const { limits, cost, quota } = request
      const now = denial.serverTime + Math.ceil(age)
      const readings = limits.map((limit, i) => readMeter(limit, denial.meters[i], cost, now))
      const isShort = quota !== null && denial.unspentQuota < cost
      if (!isShort && readings.every(({ fits }) => fits)) return null
      return refusedAnswer(limits, readings, denial.unspentQuota, now)
    },

    remember({ lineageId, keyId, version, limits, quota, cost }, meters, unspentQuota, serverTime) {
      if (options.maxAgeMs === 0 || cost === 0) return
      const { epoch, allotted } = quota ?? { epoch: null, allotted: 0 }
      const at = clock.now()
      held.set(lineageId, {
        keyId,
        version,
        limits,
        meters,
        epoch,
        allotted,
        unspentQuota,
        at,
        serverTime,
      })
    },

    forget: (lineageId) => void held.delete(lineageId),
  }
}

/** Whether the refusal was of the same key in the same state, and no units have come since. */
function isSameQuestion(denial: Denial, { keyId, version, limits, quota }: LimitRequest): boolean {
  if (denial.keyId !== keyId || denial.version !== version || denial.limits !== limits) return false
  if (!quota) return denial.epoch === null
  return quota.epoch === denial.epoch && quota.allotted <= denial.allotted && quota.granted === 0
}
