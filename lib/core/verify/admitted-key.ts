import { LatchkeyError } from '../../errors.ts'
import { OptionError } from '../../internal/option-error.ts'
import type { ApiKey } from '../keys/record.ts'
import type { QuotaLease } from '../limits/quota-account.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import type { RateLimiter, RefundRequest } from '../limits/rate-limiter.ts'
import type { VerifiedKey } from './verify-result.ts'

/** What an admission spent. */
export interface Charge {
  /** What the limiter can give back; null if it charged nothing. */
  readonly limits: RefundRequest | null
  /** The lease that supplied the quota units; null if there is no quota. */
  readonly lease: QuotaLease | null
  readonly cost: number
}

/** An admission that privately holds what it spent. Only its holder can refund it, and only once. */
export class Admitted implements VerifiedKey {
  readonly ok = true
  readonly apiKey: ApiKey
  readonly limits: readonly LimitState[]
  readonly #limiter: RateLimiter
  #charge: Charge | null

  constructor(apiKey: ApiKey, limits: readonly LimitState[], limiter: RateLimiter, charge: Charge | null) {
    this.apiKey = apiKey
    this.limits = limits
    this.#limiter = limiter
    this.#charge = charge
  }

  /**
   * Returns what was spent, once.
   *
   * @throws TypeError when `result` is not what a verification with this limiter has returned.
   * @throws LatchkeyError `unsupported` when the limiter would have to give back but cannot.
   */
  static takeCharge(result: VerifiedKey, limiter: RateLimiter): Charge | null {
    if (typeof result !== 'object' || result === null || !(#charge in result)) {
      throw new OptionError('result', 'be what "verify" returned when it admitted a key')
    }
    if (result.#limiter !== limiter) {
      throw new TypeError('"result" was charged to a different rate limiter than these keys use')
    }
    const charge = result.#charge
    if (charge?.limits && !limiter.refund) {
      throw new LatchkeyError('unsupported', '"refund" needs a limiter with "refund", which this one lacks')
    }
    result.#charge = null
    return charge
  }
}
