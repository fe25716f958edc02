import type { Awaitable } from '../internal/awaitable.ts'
import { checkDate, checkInteger, fail, isObject } from '../internal/options.ts'
import type { Clock } from './clock.ts'
import type { FaultGuard } from './faults.ts'
import type { KeyStore } from './key-store.ts'
import type { QuotaReservation } from './quota.ts'
import type { LimitState } from './rate-limit.ts'
import type { LimitAnswer } from './rate-limiter.ts'
import type { CachedKey } from './record-cache.ts'

export interface QuotaBlocks {
  /** Whether the quota must be refilled before anything more is spent of it. */
  isRefillDue(cached: CachedKey): boolean
  /** Whether the store is known to have `units` left. */
  canReserve(cached: CachedKey, units: number): boolean
  /**
   * Moves a block of at least `units` from the store to the limiter, which `tell` tells of it. Answers what
   * `tell` answered, or null where another call for this lineage was under way and has been waited for.
   */
  reserve(
    cached: CachedKey,
    units: number,
    tell: (granted: number) => Awaitable<LimitAnswer>,
  ): Promise<LimitAnswer | null>
  /** Milliseconds until `cost` units may be there; null if they never will. */
  retryAfterMs(cached: CachedKey, cost: number): number | null
  /** How the quota stands. */
  stateOf(cached: CachedKey, unspent: number, exceeded: boolean): LimitState
}

/** Brings units of quota from the store to the limiter, a block at a time and once for all who wait. */
export function createQuotaBlocks(
  store: KeyStore,
  blockSize: number,
  clock: Clock,
  guard: FaultGuard,
): QuotaBlocks {
  const reserving = new Map<string, Promise<QuotaReservation | null>>()

  async function reserve(
    cached: CachedKey,
    units: number,
    tell: (granted: number) => Awaitable<LimitAnswer>,
  ): Promise<LimitAnswer | null> {
    const { lineageId } = cached.apiKey
    const running = reserving.get(lineageId)
    if (running) {
      learn(cached, await running)
      return null
    }
    let answer: LimitAnswer | null = null
    const work = (async () => {
      const reservation = await reserveNow(lineageId, Math.max(blockSize, units))
      learn(cached, reservation)
      // Units of an epoch that is over are worth nothing in the next one.
      const granted = reservation?.epoch === cached.quota?.epoch ? (reservation?.granted ?? 0) : 0
      // Those who wait must not look before the limiter has heard of the units.
      answer = await tell(granted)
      return reservation
    })()
    reserving.set(lineageId, work)
    try {
      await work
      return answer
    } finally {
      reserving.delete(lineageId)
    }
  }

  async function reserveNow(lineageId: string, amount: number): Promise<QuotaReservation | null> {
    const reservation = await store.reserveQuota?.(lineageId, amount, new Date(clock.now()))
    if (reservation === null) return null
    try {
      return checkReservation(reservation, amount)
    } catch (error) {
      throw guard.toError('store', error)
    }
  }

  return {
    isRefillDue({ quota }) {
      return quota !== null && quota.nextRefillAt !== null && quota.nextRefillAt.getTime() <= clock.now()
    },
    canReserve({ quota }, units) {
      return quota !== null && quota.remaining >= units
    },
    reserve,
    retryAfterMs({ quota, apiKey }, cost) {
      const refill = apiKey.quota?.refill
      if (!refill || !quota?.nextRefillAt || cost > refill.amount) return null
      return Math.max(1, quota.nextRefillAt.getTime() - clock.now())
    },
    stateOf({ quota, apiKey }, unspent, exceeded) {
      const resetMs = quota?.nextRefillAt ? Math.max(1, quota.nextRefillAt.getTime() - clock.now()) : null
      return {
        type: 'quota',
        name: 'quota',
        limit: apiKey.quota?.refill?.amount ?? null,
        remaining: (quota?.remaining ?? 0) + unspent,
        windowMs: null,
        resetMs,
        exceeded,
      }
    },
  }
}

/** Takes over what a reservation tells, unless the record was read after something newer. */
function learn(cached: CachedKey, reservation: QuotaReservation | null): void {
  if (!reservation) {
    cached.quota = cached.quota && { ...cached.quota, remaining: 0, nextRefillAt: null }
    return
  }
  const { epoch, allotted, remaining, nextRefillAt } = reservation
  const known = cached.quota
  if (known && (known.epoch > epoch || (known.epoch === epoch && known.allotted > allotted))) return
  cached.quota = { epoch, allotted, remaining, nextRefillAt }
}

function checkReservation(value: unknown, amount: number): QuotaReservation {
  if (!isObject(value)) fail('reservation', 'an object', value)
  for (const member of ['epoch', 'allotted', 'remaining']) {
    checkInteger(`reservation.${member}`, value[member], 0, Number.MAX_SAFE_INTEGER)
  }
  checkInteger('reservation.granted', value.granted, 0, amount)
  if (value.nextRefillAt !== null) checkDate('reservation.nextRefillAt', value.nextRefillAt)
  // Every member has just been checked.
  return value as unknown as QuotaReservation
}
