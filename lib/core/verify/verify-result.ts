import type { Permissions } from '../keys/permissions.ts'
import type { ApiKey } from '../keys/record.ts'
import type { LimitState } from '../limits/rate-limit.ts'

/** Why a key is invalid. For events and logs: clients only see `invalid_key`. */
export type InvalidReason =
  /** Not the shape of a key, or its checksum is wrong. Found without any I/O. */
  | 'malformed'
  /** `verify` was restricted to another prefix. Found without any I/O. */
  | 'prefix_not_accepted'
  /** There is no such key. */
  | 'unknown'
  /** The key exists, with another secret. */
  | 'wrong_secret'
  | 'revoked'
  | 'disabled'
  | 'expired'
  /** Unused for longer than its `idleExpiryMs`. */
  | 'idle'
  | 'owner_inactive'
  /** A remote service says that the key is not valid, without a reason. */
  | 'inactive'
  /** Your application found no user for the key. */
  | 'no_user'
  /** A one-time ticket was wrong, used, expired or of another origin, or its key has changed since. */
  | 'invalid_ticket'

/** A key was verified. */
export interface VerifiedKey {
  readonly ok: true
  readonly apiKey: ApiKey
  /** The state of the key's limits and quota, including this call. */
  readonly limits: readonly LimitState[]
}

/** A key was refused. Nothing was spent. */
export type RefusedKey =
  | { readonly ok: false; readonly code: 'invalid_key'; readonly reason: InvalidReason }
  | { readonly ok: false; readonly code: 'address_not_allowed'; readonly apiKey: ApiKey }
  | {
      readonly ok: false
      readonly code: 'insufficient_permissions'
      readonly apiKey: ApiKey
      /** What the key lacks. Of several alternatives, the one that lacks least. */
      readonly missing: Permissions
    }
  | {
      readonly ok: false
      readonly code: 'rate_limited' | 'quota_exceeded'
      readonly apiKey?: ApiKey
      readonly limits: readonly LimitState[]
      /** Milliseconds until the same call may pass; null if it never will. */
      readonly retryAfterMs: number | null
    }
  | {
      /** Too many invalid keys came from the client's address. This key was not checked. */
      readonly ok: false
      readonly code: 'too_many_failures'
      /** Milliseconds until keys from this address are checked again. */
      readonly retryAfterMs: number
    }

export type VerifyResult = VerifiedKey | RefusedKey
