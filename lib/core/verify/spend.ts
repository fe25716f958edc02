import { type Awaitable, isPromiseLike } from '../../internal/awaitable.ts'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import type { QuotaAnswer, QuotaLease } from '../limits/quota-account.ts'
import type { QuotaLeases } from '../limits/quota-leases.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import { checkLimitAnswer, type LimitAnswer, type RateLimiter } from '../limits/rate-limiter.ts'
import type { Charge } from './admitted-key.ts'
import type { CachedKey } from './record-cache.ts'

export interface SpenderParts {
  readonly limiter: RateLimiter
  readonly quotaLeases: QuotaLeases
  readonly clock: Clock
  readonly guard: DependencyRunner
  readonly retainMs: number
  /** Whether a key without limits and quota is admitted without asking the limiter for its latest version. */
  readonly isBounded: boolean
}

/** What a call spends, and from what. */
export interface Purchase {
  readonly facts: CachedKey
  /** Whether the record was read after the call came. */
  readonly isFresh: boolean
  readonly cost: number
}

/** The result of spending. */
export type Spending =
  | { readonly outcome: 'spent'; readonly limits: readonly LimitState[]; readonly charge: Charge | null }
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

  spend(purchase: Purchase): Awaitable<Spending> {
    const { facts, isFresh, cost } = purchase
    if (!facts.quota || cost === 0) return this.charge(purchase, null)
    const { quotaLeases } = this.parts
    const lease = quotaLeases.takeNow(facts, cost)
    if (lease) return this.charge(purchase, lease)
    return quotaLeases.take(facts, cost, isFresh).then((answer) => this.goOn(purchase, answer))
  }

  private goOn(purchase: Purchase, answer: QuotaAnswer): Awaitable<Spending> {
    switch (answer.outcome) {
      case 'taken':
        return this.charge(purchase, answer.lease)
      case 'unknown':
        return UNKNOWN
      case 'gone':
        return STALE
      case 'short':
        return this.refuseShort(purchase, answer.retryAfterMs)
    }
  }

  /** Asks the limiter only for the state of the limits, and whether the record is the latest. */
  private refuseShort({ facts, isFresh }: Purchase, retryAfterMs: number | null): Awaitable<Spending> {
    return this.askLimiter(facts, isFresh, 0, null, (answer) => {
      if (answer.outcome === 'stale') return STALE
      return { outcome: 'quota_exceeded', limits: this.withQuota(answer.limits, facts, true), retryAfterMs }
    })
  }

  private charge({ facts, isFresh, cost }: Purchase, lease: QuotaLease | null): Awaitable<Spending> {
    if (this.parts.isBounded && facts.limits.length === 0 && !facts.quota) return SPENT_NOTHING
    return this.askLimiter(facts, isFresh, cost, lease, (answer) => {
      if (answer.outcome === 'admitted') {
        const limits = lease
          ? [...answer.limits, lease.account.state(this.parts.clock.now(), false)]
          : this.withQuota(answer.limits, facts, false)
        return { outcome: 'spent', limits, charge: chargeOf(answer.chargedAt, cost, facts, lease) }
      }
      if (lease) this.parts.quotaLeases.putBack(lease, cost)
      if (answer.outcome === 'stale') return STALE
      const { retryAfterMs } = answer
      return { outcome: 'rate_limited', limits: this.withQuota(answer.limits, facts, false), retryAfterMs }
    })
  }

  /**
   * Asks the limiter and continues with its answer, synchronously if the answer is. If there is no answer, the units go
   * back first.
   */
  private askLimiter(
    { apiKey, limits }: CachedKey,
    fresh: boolean,
    cost: number,
    lease: QuotaLease | null,
    proceed: (answer: LimitAnswer) => Spending,
  ): Awaitable<Spending> {
    const { limiter, guard, retainMs } = this.parts
    const giveUp = (error: unknown): never => {
      if (lease) this.parts.quotaLeases.putBack(lease, cost)
      throw error
    }
    const fail = (error: unknown) => giveUp(guard.toError('rate_limiter', error))
    const receive = (given: LimitAnswer) => {
      try {
        checkLimitAnswer(given)
      } catch (error) {
        return fail(error)
      }
      return proceed(given)
    }
    let answer: Awaitable<LimitAnswer>
    try {
      const { lineageId, id: keyId, version } = apiKey
      answer = limiter.check({ lineageId, keyId, version, fresh, cost, limits, retainMs })
    } catch (error) {
      return fail(error)
    }
    if (!isPromiseLike(answer)) return receive(answer)
    // One with a deadline of its own needs no second timer, which would cost more than the rest of the call.
    if (limiter.timeoutMs !== undefined) return answer.then(receive, fail)
    return guard.run('rate_limiter', () => answer).then(receive, giveUp)
  }

  private withQuota(
    limits: readonly LimitState[],
    facts: CachedKey,
    exceeded: boolean,
  ): readonly LimitState[] {
    return facts.quota ? [...limits, this.parts.quotaLeases.stateOf(facts, exceeded)] : limits
  }
}

const STALE: Spending = Object.freeze({ outcome: 'stale' })
const UNKNOWN: Spending = Object.freeze({ outcome: 'unknown' })
/** The result for a key without limits and quota, without a call to the limiter. */
const SPENT_NOTHING: Spending = Object.freeze({ outcome: 'spent', limits: Object.freeze([]), charge: null })

function chargeOf(
  chargedAt: number | null,
  cost: number,
  { apiKey: { lineageId }, limits }: CachedKey,
  lease: QuotaLease | null,
): Charge | null {
  const isCounted = chargedAt !== null && cost > 0 && limits.length > 0
  if (!isCounted && !lease) return null
  return { limits: isCounted ? { lineageId, cost, chargedAt, limits } : null, lease, cost }
}
