import type { Permissions } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import type { ExplainedKey } from '../core/verify/explanation.ts'
import type { VerifyOptions } from '../core/verify/key-verifier.ts'

/** The key to verify, and what it is needed for. */
export interface VerifyKeyRequest extends VerifyOptions {
  /** The presented key. */
  key: string
  /**
   * Whether the call counts against the limits and the quota of the key. Without it the call spends nothing, whatever `cost` is.
   *
   * @default false
   */
  charge?: boolean
}

/** The key to explain, and what it is needed for. */
export type ExplainKeyRequest = ExplainedKey & VerifyOptions

/** Why the service refuses this call although the key is valid. */
export type VerificationRefusal =
  | { readonly code: 'address_not_allowed' }
  | {
      readonly code: 'insufficient_permissions'
      /** The permissions that the key lacks; with several alternatives, those of the alternative with the fewest missing. */
      readonly missing: Permissions
    }
  | {
      readonly code: 'rate_limited' | 'quota_exceeded'
      /** Milliseconds until the same call can succeed; null if it never can. */
      readonly retryAfterMs: number | null
      /** The names of the exceeded limits. */
      readonly exceeded: readonly string[]
    }

/** The service's answer about a key. */
export type Verification =
  | {
      /** The key does not exist or is not valid. The service does not say which, or why. */
      readonly active: false
      /** The service says nothing about the key: the client or this program has sent too many invalid keys. */
      readonly refused?: { readonly code: 'too_many_failures'; readonly retryAfterMs: number }
    }
  | {
      /** The key is valid, and the service allows the call. */
      readonly active: true
      readonly apiKey: ApiKey
      /** The state of the key's limits and quota, including this call. */
      readonly limits: readonly LimitState[]
      readonly refused?: undefined
    }
  | {
      /** The key is valid, but the service refuses the call. */
      readonly active: true
      readonly apiKey?: ApiKey
      readonly limits: readonly LimitState[]
      readonly refused: VerificationRefusal
    }
