import type { Permissions } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import type { VerifyOptions } from '../core/verify/key-verifier.ts'

/** Which key to verify, and for what. */
export interface VerifyKeyRequest extends VerifyOptions {
  /** The key that was presented. */
  key: string
  /**
   * Whether the call counts against the limits of the key. Without it nothing is spent, whatever `cost` is.
   *
   * @default false
   */
  charge?: boolean
}

/** Why a good key is refused this call. */
export type VerificationRefusal =
  | { readonly code: 'address_not_allowed' }
  | {
      readonly code: 'insufficient_permissions'
      /** What the key lacks; of several alternatives, the one that lacks least. */
      readonly missing: Permissions
    }
  | {
      readonly code: 'rate_limited' | 'quota_exceeded'
      /** Milliseconds until the same call may pass; null if it never will. */
      readonly retryAfterMs: number | null
      /** The names of the limits that refuse it. */
      readonly exceeded: readonly string[]
    }

/** What the service says of a key. */
export type Verification =
  | {
      /** There is no such key, or it cannot be used: which of the two, and why, is not told. */
      readonly active: false
      /** Nothing is told of the key: its client has sent too many bad ones, or this program has. */
      readonly refused?: { readonly code: 'too_many_failures'; readonly retryAfterMs: number }
    }
  | {
      /** The key is good, and so is the call. */
      readonly active: true
      readonly apiKey: ApiKey
      /** How the key's limits and quota stand, this call included. */
      readonly limits: readonly LimitState[]
      readonly refused?: undefined
    }
  | {
      /** The key is good, the call is refused. */
      readonly active: true
      readonly apiKey?: ApiKey
      readonly limits: readonly LimitState[]
      readonly refused: VerificationRefusal
    }
