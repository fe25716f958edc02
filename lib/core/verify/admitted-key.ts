import { LatchkeyError } from '../../errors.ts'
import { OptionError } from '../../internal/option-error.ts'
import type { ApiKey } from '../keys/record.ts'
import type { KeyCost } from '../limits/cost.ts'
import type { Hold } from '../limits/held-places.ts'
import type { LimitCosts } from '../limits/limit-costs.ts'
import type { QuotaLease } from '../limits/quota-account.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import type { RateLimiter } from '../limits/rate-limiter.ts'
import type { CachedKey } from './record-cache.ts'
import type { VerifiedKey } from './verify-result.ts'

/** What an admission spent, which may be nothing. */
export interface Charge {
  readonly facts: CachedKey
  readonly cost: KeyCost
  /** When the limiter counted it, by the limiter's clock; null if it counted nothing. */
  readonly chargedAt: number | null
  /** The lease that supplied the quota units; null if there is no quota. */
  readonly lease: QuotaLease | null
  /** What has become of it; null until it is settled for the first time. */
  settlement: Settlement | null
}

/** What an admission has cost so far. */
export interface Settlement {
  /** Null if the limiter counted nothing. */
  readonly limits: LimitCosts | null
  /** What the quota was made to cost. */
  quota: number
  /**
   * What was taken of the quota and not given back, the latest last: less than that where it had less, more where some could not be
   * given back.
   */
  taken: { readonly lease: QuotaLease; units: number }[]
  /** The settlements of one admission follow each other. */
  last: Promise<unknown>
}

/** An admission that privately holds what it spent. Only its holder can settle it. */
export class Admitted implements VerifiedKey {
  readonly ok = true
  readonly apiKey: ApiKey
  readonly limits: readonly LimitState[]
  readonly #limiter: RateLimiter
  readonly #charge: Charge
  readonly #hold: Hold | null

  constructor(
    apiKey: ApiKey,
    limits: readonly LimitState[],
    limiter: RateLimiter,
    charge: Charge,
    hold: Hold | null,
  ) {
    this.apiKey = apiKey
    this.limits = limits
    this.#limiter = limiter
    this.#charge = charge
    this.#hold = hold
  }

  /**
   * Returns what was spent.
   *
   * @throws TypeError when `result` is not what a verification with this limiter has returned.
   * @throws LatchkeyError `unsupported` when the limiter would have to settle but cannot.
   */
  static chargeOf(result: VerifiedKey, limiter: RateLimiter): Charge {
    const charge = Admitted.check(result, limiter).#charge
    if (charge.chargedAt !== null && !limiter.settle) {
      throw new LatchkeyError('unsupported', '"settle" and "refund" need a limiter with "settle"')
    }
    return charge
  }

  /**
   * Returns the places that it took; null if it took none.
   *
   * @throws TypeError when `result` is not what a verification with this limiter has returned.
   */
  static holdOf(result: VerifiedKey, limiter: RateLimiter): Hold | null {
    return Admitted.check(result, limiter).#hold
  }

  /** The same, and null for anything else. */
  static peekHold(result: VerifiedKey): Hold | null {
    return #hold in result ? result.#hold : null
  }

  private static check(result: VerifiedKey, limiter: RateLimiter): Admitted {
    if (typeof result !== 'object' || result === null || !(#charge in result)) {
      throw new OptionError('result', 'be what "verify" returned when it admitted a key')
    }
    if (result.#limiter === limiter) return result
    throw new TypeError('"result" was charged to a different rate limiter than these keys use')
  }
}
