import type { ApiKey } from '../core/keys/record.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { RefusedKey } from '../core/verify/verify-result.ts'
import { type ErrorCode, isLatchkeyError, LatchkeyError, type LatchkeyErrorOptions } from '../errors.ts'
import type { Authentication } from './authentication.ts'
import {
  type Challenges,
  isNewestDraft,
  type RateLimitSyntax,
  rateLimitFields,
  retryAfterField,
} from './header-fields.ts'
import { QUOTA_EXCEEDED_TYPE } from './problem.ts'

/** A key that its limits or its quota refused. */
type LimitedKey = Extract<RefusedKey, { readonly limits: unknown }>

/** Each kind of refusal, as the outcome of an authentication. */
export class Refusals {
  constructor(
    private readonly challenges: Challenges,
    private readonly keys: ApiKeyVerifier,
    private readonly rateLimitHeaders: RateLimitSyntax | false,
  ) {}

  /**
   * @param hint where keys are read, if one seems to be in another place
   * @param presented whether the request has a ticket, which is not taken here: it is not one without a key
   */
  missing(hint?: string, presented = false): Authentication {
    const { bare } = this.challenges
    const details = hint === undefined ? {} : { detail: hint }
    return refusal('missing_key', bare, { headers: { 'WWW-Authenticate': bare }, details }, presented)
  }

  several(ip: string | undefined): Authentication {
    this.keys.report?.({ type: 'refused', code: 'multiple_credentials', reason: null, apiKey: null, ip })
    return refusal('multiple_credentials', this.challenges.invalid)
  }

  key(refused: RefusedKey): Authentication {
    const { invalid } = this.challenges
    switch (refused.code) {
      case 'invalid_key':
        return this.invalidKey()
      case 'address_not_allowed':
        return refusal(refused.code, invalid)
      case 'insufficient_permissions':
        return refusal(refused.code, invalid, { details: { missing: refused.missing } })
      case 'too_many_failures':
        return refusal(refused.code, invalid, { headers: retryAfterField(refused.retryAfterMs) })
      default: {
        const headers = {
          ...retryAfterField(refused.retryAfterMs),
          ...rateLimitFields(refused.limits, this.rateLimitHeaders),
        }
        return refusal(refused.code, invalid, { headers, details: this.detailsOf(refused) })
      }
    }
  }

  /** The key is valid, but has no user. */
  user(apiKey: ApiKey, ip: string | undefined): Authentication {
    this.keys.report?.({ type: 'refused', code: 'invalid_key', reason: 'no_user', apiKey, ip })
    return this.invalidKey()
  }

  /** A ticket that is not valid; or it is, but its key has changed. */
  ticket(apiKey: ApiKey | null, ip: string | undefined): Authentication {
    this.keys.report?.({ type: 'refused', code: 'invalid_key', reason: 'invalid_ticket', apiKey, ip })
    return this.invalidKey()
  }

  /** `cause` is what `verify` or the application's code threw. */
  fault(operation: 'verify' | 'resolve_user' | 'actor' | 'cost' | 'tickets', cause: unknown): Authentication {
    const { invalid } = this.challenges
    // What has failed in `verify` was reported there.
    if (operation === 'verify' && isLatchkeyError(cause) && cause.code === 'unavailable') {
      return { ok: false, presented: true, error: cause, challenge: invalid }
    }
    this.keys.report?.({ type: 'fault', operation, error: cause })
    return refusal('unavailable', invalid, { cause })
  }

  /** Names the limits that refused; for a rate limit in draft 11, with the problem type of the draft. */
  private detailsOf({ code, limits }: LimitedKey): LatchkeyErrorOptions['details'] {
    const exceeded = limits.filter((limit) => limit.exceeded)
    const names = { exceeded: exceeded.map(({ name }) => name) }
    if (code !== 'rate_limited' || !isNewestDraft(this.rateLimitHeaders)) return names
    const policies = exceeded.filter(({ limit }) => limit !== null).map(({ name }) => name)
    return { type: QUOTA_EXCEEDED_TYPE, ...names, 'violated-policies': policies }
  }

  private invalidKey(): Authentication {
    const { invalid } = this.challenges
    return refusal('invalid_key', invalid, { headers: { 'WWW-Authenticate': invalid } })
  }
}

function refusal(
  code: ErrorCode,
  challenge: string,
  options: Pick<LatchkeyErrorOptions, 'headers' | 'details' | 'cause'> = {},
  presented = true,
): Authentication {
  const error = new LatchkeyError(code, undefined, { ...options, stack: false })
  return { ok: false, presented, error, challenge }
}
