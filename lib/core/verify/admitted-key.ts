import { LatchkeyError } from '../../errors.ts'
import { OptionError } from '../../internal/option-error.ts'
import type { ApiKey } from '../keys/record.ts'
import type { QuotaLease } from '../limits/quota-account.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import type { RateLimiter, RefundRequest } from '../limits/rate-limiter.ts'
import type { VerifiedKey } from './verify-result.ts'

/** What an admission has spent. */
export interface Charge {
  /** What the limiter is to give back; null where it has charged nothing. */
  readonly limits: RefundRequest | null
  /** The lease that units of quota were taken of; null where there is no quota. */
  readonly lease: QuotaLease | null
  readonly cost: number
}

/** An admission, with what it has spent out of sight: it can be given back once, and by nobody who lacks it. */
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
   * Hands out what was spent, once.
   *
   * @throws TypeError when `result` is not what a verification with this limiter has returned.
   * @throws LatchkeyError `unsupported` when the limiter would have to give back, and cannot.
   */
  static takeCharge(result: VerifiedKey, limiter: RateLimiter): Charge | null {
    if (typeof result !== 'object' || result === null || !(#charge in result)) {
      throw new OptionError('result', 'be what "verify" returned when it admitted a key')
    }
    if (result.#limiter !== limiter) {
      throw new TypeError('"result" was charged to another rate limiter than that of these keys')
    }
    const charge = result.#charge
    if (charge?.limits && !limiter.refund) {
      throw new LatchkeyError('unsupported', '"refund" needs a limiter with "refund", which this one lacks')
    }
    result.#charge = null
    return charge
  }
}
