import type { LimitState } from './rate-limit.ts'
import type { RateLimiter, RefundRequest } from './rate-limiter.ts'
import type { ApiKey } from './record.ts'
import type { VerifiedKey } from './verify-result.ts'

/** An admission, with what it has spent out of sight: it can be given back once, and by nobody who lacks it. */
export class Admitted implements VerifiedKey {
  readonly ok = true
  readonly apiKey: ApiKey
  readonly limits: readonly LimitState[]
  readonly #limiter: RateLimiter
  #charge: RefundRequest | null

  constructor(
    apiKey: ApiKey,
    limits: readonly LimitState[],
    limiter: RateLimiter,
    charge: RefundRequest | null,
  ) {
    this.apiKey = apiKey
    this.limits = limits
    this.#limiter = limiter
    this.#charge = charge
  }

  /** @throws TypeError when `result` is not what a verification with this limiter has returned. */
  static takeCharge(result: VerifiedKey, limiter: RateLimiter): RefundRequest | null {
    if (typeof result !== 'object' || result === null || !(#charge in result)) {
      throw new TypeError('"result" must be what "verify" returned when it admitted a key')
    }
    if (result.#limiter !== limiter) {
      throw new TypeError('"result" was charged to another rate limiter than that of these keys')
    }
    const charge = result.#charge
    result.#charge = null
    return charge
  }
}
