import { randomUUID } from 'node:crypto'
import { type Awaitable, isPromiseLike } from '../../internal/awaitable.ts'
import type { Clock } from '../clock.ts'
import { measureAnswer } from '../diagnostics/measure-dependency.ts'
import type { DependencyRunner } from '../faults.ts'
import { type Cost, type KeyCost, keyCostOf } from '../limits/cost.ts'
import type { HeldPlaces, Hold } from '../limits/held-places.ts'
import { oneOfEachName } from '../limits/one-of-each-name.ts'
import type { QuotaAnswer, QuotaLease } from '../limits/quota-account.ts'
import type { QuotaLeases } from '../limits/quota-leases.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import {
  checkLimitAnswer,
  isLook,
  type LimitAnswer,
  type RateLimiter,
  type WantedPlaces,
} from '../limits/rate-limiter.ts'
import type { Charge } from './admitted-key.ts'
import type { CachedKey } from './record-cache.ts'

export interface SpenderParts {
  readonly limiter: RateLimiter
  readonly quotaLeases: QuotaLeases
  readonly heldPlaces: HeldPlaces
  readonly clock: Clock
  readonly guard: DependencyRunner
  readonly retainMs: number
  /** How long after its reading a record may vouch for itself where the limiter knows no version of it. */
  readonly freshForMs: number
  /** Whether a key without limits and quota is admitted without asking the limiter for its latest version. */
  readonly isBounded: boolean
  /** The names that a cost may have besides those of the key's limits; null if any. */
  readonly limitNames: ReadonlySet<string> | null
}

/** What a call spends, and from what. */
export interface Purchase {
  readonly facts: CachedKey
  /** Whether the record was read after the call came. */
  readonly isFresh: boolean
  readonly cost: Cost
}

/** The same, with what it costs this key. */
interface Order extends Omit<Purchase, 'cost'> {
  readonly cost: KeyCost
}

/** The result of spending. */
export type Spending =
  | {
      readonly outcome: 'spent'
      readonly limits: readonly LimitState[]
      readonly charge: Charge
      readonly hold: Hold | null
    }
  /** Nothing was spent. `retryAfterMs` is null if the same call can never pass. */
  | {
      readonly outcome: 'rate_limited' | 'quota_exceeded'
      readonly limits: readonly LimitState[]
      readonly retryAfterMs: number | null
    }
  /** Nothing was spent: there is a later version of the record. */
  | { readonly outcome: 'stale' }
  /** Nothing was spent: only a freshly read record shows whether units are left. */
  | { readonly outcome: 'unknown' }

/**
 * Spends what a call costs. It takes quota units first, from memory if possible. Then one call to the limiter follows;
 * the limiter may refuse, and knows the latest version of the record. A refusal or a fault puts the units back.
 */
export class Spender {
  constructor(private readonly parts: SpenderParts) {}

  /**
   * @throws TypeError when the cost names a limit that nobody has.
   * @throws LatchkeyError `unsupported` when the limiter does not know limits of kind `concurrent`.
   */
  spend({ facts, isFresh, cost }: Purchase): Awaitable<Spending> {
    const order = { facts, isFresh, cost: keyCostOf(facts.limits, cost, this.parts.limitNames) }
    if (order.cost.places.length > 0) this.parts.heldPlaces.check()
    const units = unitsToTake(order.cost)
    if (!facts.quota || units === 0) return this.charge(order, null)
    const { quotaLeases } = this.parts
    const lease = quotaLeases.takeNow(facts, units)
    if (lease) return this.charge(order, lease)
    return quotaLeases.take(facts, units, isFresh).then((answer) => this.goOn(order, answer))
  }

  private goOn(order: Order, answer: QuotaAnswer): Awaitable<Spending> {
    switch (answer.outcome) {
      case 'taken':
        return this.charge(order, answer.lease)
      case 'unknown':
        return UNKNOWN
      case 'gone':
        return STALE
      case 'short':
        return this.refuseShort(order, answer.retryAfterMs)
    }
  }

  /** Asks the limiter only for the state of the limits, and whether the record is the latest. */
  private refuseShort(order: Order, retryAfterMs: number | null): Awaitable<Spending> {
    const { facts, isFresh, cost } = order
    const look: KeyCost = { ...cost, cost: 0, costs: undefined }
    return this.askLimiter({ facts, isFresh, cost: look }, null, null, (answer) => {
      if (answer.outcome === 'stale') return STALE
      return { outcome: 'quota_exceeded', limits: this.withQuota(answer.limits, facts, true), retryAfterMs }
    })
  }

  private charge(order: Order, lease: QuotaLease | null): Awaitable<Spending> {
    const { facts, cost } = order
    if (this.parts.isBounded && facts.limits.length === 0 && !facts.quota) {
      // Admitted without a call to the limiter.
      return { outcome: 'spent', limits: NO_LIMITS, charge: chargeOf(null, order, null), hold: null }
    }
    const hold = this.prepareHold(order)
    return this.askLimiter(order, lease, hold, (answer) => {
      if (answer.outcome === 'admitted') {
        this.putBackUnspent(lease, cost)
        const limits = lease
          ? [...answer.limits, lease.account.state(this.parts.clock.now(), false)]
          : this.withQuota(answer.limits, facts, false)
        return { outcome: 'spent', limits, charge: chargeOf(answer.chargedAt, order, lease), hold }
      }
      if (lease) this.parts.quotaLeases.putBack(lease, unitsToTake(cost))
      if (answer.outcome === 'stale') return STALE
      const { retryAfterMs } = answer
      return { outcome: 'rate_limited', limits: this.withQuota(answer.limits, facts, false), retryAfterMs }
    })
  }

  /** A unit that only had to be there. */
  private putBackUnspent(lease: QuotaLease | null, cost: KeyCost): void {
    const unspent = unitsToTake(cost) - cost.quota
    if (lease && unspent > 0) this.parts.quotaLeases.putBack(lease, unspent)
  }

  /**
   * Asks the limiter and continues with its answer, synchronously if the answer is. If there is no answer, the units go
   * back first.
   */
  private askLimiter(
    { facts, isFresh, cost: keyCost }: Order,
    lease: QuotaLease | null,
    hold: Hold | null,
    proceed: (answer: LimitAnswer) => Spending,
  ): Awaitable<Spending> {
    const { limiter, guard, retainMs } = this.parts
    const putBack = (error: unknown): never => {
      if (lease) this.parts.quotaLeases.putBack(lease, unitsToTake(keyCost))
      throw error
    }
    const giveUp = (error: unknown): never => {
      // The limiter may have taken the places all the same.
      if (hold) this.abandon(hold)
      return putBack(error)
    }
    const fail = (error: unknown) => giveUp(guard.toError('rate_limiter', error))
    const receive = (given: LimitAnswer) => {
      try {
        checkLimitAnswer(given)
      } catch (error) {
        return fail(error)
      }
      if (hold && given.outcome !== 'stale') this.noteWhere(hold, given)
      return proceed(shown(given, facts))
    }
    let answer: Awaitable<LimitAnswer>
    try {
      const { lineageId, id: keyId, version } = facts.apiKey
      const { limits, cost, costs } = keyCost
      const { owner } = facts
      const fresh = isFresh && isYoung(facts, this.parts)
      const places = hold?.request ?? placesToSee(keyCost)
      answer = limiter.check({
        lineageId,
        owner,
        keyId,
        version,
        fresh,
        cost,
        costs,
        limits,
        places,
        retainMs,
      })
    } catch (error) {
      return putBack(guard.toError('rate_limiter', error))
    }
    if (!isPromiseLike(answer)) return receive(answer)
    // One with a deadline of its own needs no second timer, which would cost more than the rest of the call.
    if (limiter.timeoutMs !== undefined) return measureAnswer(CHECK, answer).then(receive, fail)
    return guard.run('rate_limiter', () => answer, [], 'check').then(receive, giveUp)
  }

  private prepareHold({ facts, cost }: Order): Hold | null {
    if (cost.places.length === 0 || isLook(cost)) return null
    const { lineageId } = facts.apiKey
    const request = { lineageId, owner: facts.owner, id: randomUUID(), limits: cost.places }
    return this.parts.heldPlaces.prepare(request)
  }

  /** Notes where places are taken, as far as that is known. */
  private noteWhere(hold: Hold, answer: Exclude<LimitAnswer, { outcome: 'stale' }>): void {
    if (answer.outcome === 'limited') {
      if (answer.isUnsure) this.abandon(hold)
      return
    }
    hold.isLocal = answer.isLocal ?? false
    if (answer.isUnsure) this.parts.heldPlaces.doubt(hold)
  }

  /** Gives back places that the limiter may take, or may have taken, though the call was not admitted. */
  private abandon(hold: Hold): void {
    const { heldPlaces } = this.parts
    heldPlaces.doubt(hold)
    void heldPlaces.release(hold)
  }

  private withQuota(
    limits: readonly LimitState[],
    facts: CachedKey,
    exceeded: boolean,
  ): readonly LimitState[] {
    return facts.quota ? [...limits, this.parts.quotaLeases.stateOf(facts, exceeded)] : limits
  }
}

/** By the time that the hooks have answered, the limiter may have forgotten a change that came after the reading. */
export function isYoung(
  { readAt }: Pick<CachedKey, 'readAt'>,
  { clock, freshForMs }: Pick<SpenderParts, 'clock' | 'freshForMs'>,
): boolean {
  const age = clock.now() - readAt
  return age >= 0 && age <= freshForMs
}

/** The answer, with one state for each name. */
function shown(answer: LimitAnswer, { hasNamesakes }: CachedKey): LimitAnswer {
  if (!hasNamesakes || answer.outcome === 'stale') return answer
  return { ...answer, limits: oneOfEachName(answer.limits) }
}

const CHECK = Object.freeze({ operation: 'rate_limiter', method: 'check' })
const STALE: Spending = Object.freeze({ outcome: 'stale' })
const NO_LIMITS: readonly LimitState[] = Object.freeze([])
const UNKNOWN: Spending = Object.freeze({ outcome: 'unknown' })

function chargeOf(chargedAt: number | null, { facts, cost }: Order, lease: QuotaLease | null): Charge {
  const isCounted = chargedAt !== null && cost.limits.length > 0
  return { facts, cost, chargedAt: isCounted ? chargedAt : null, lease, settlement: null }
}

/** How many units of the quota must be there. */
export function unitsToTake({ quota, needsQuota }: KeyCost): number {
  return needsQuota ? Math.max(1, quota) : quota
}

/** A call that takes no place sees how the limits stand. */
export function placesToSee({ places }: KeyCost): WantedPlaces | undefined {
  return places.length === 0 ? undefined : { id: '-', limits: places }
}
