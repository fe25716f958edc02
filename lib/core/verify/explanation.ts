import type { ApiKey } from '../keys/record.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import type { InvalidReason, RefusedKey } from './verify-result.ts'

/** The key to explain: its text, or its id. */
export type ExplainedKey =
  | {
      /** The text of the key, as a client presents it. */
      readonly key: string
      readonly id?: undefined
    }
  | {
      /** The id of the key. The text and the secret count as right. */
      readonly id: string
      readonly key?: undefined
    }

/** A step of the decision. An explanation has each once, in the order in which `verify` takes them. */
export type ExplainedStepName =
  /** The shape of the text, and its checksum. */
  | 'format'
  /** The option `prefix` of the call. For an imported key, this step comes after `secret`: the record tells the prefix. */
  | 'prefix'
  /** Whether the address has sent too many invalid keys: `failedAttempts`. */
  | 'failed_attempts'
  /** Whether the store has such a key. */
  | 'record'
  | 'secret'
  | 'revocation'
  | 'enabled'
  /** `expiresAt` */
  | 'expiry'
  /** `idleExpiryMs` */
  | 'idle_expiry'
  /** `isOwnerActive` and `ownerPermissions`. */
  | 'owner'
  /** `allowedIps` */
  | 'address'
  | 'permissions'
  | 'quota'
  /** The rate limits, and those on calls under way. */
  | 'rate_limits'

/** What a step found. */
export interface ExplainedStep {
  readonly step: ExplainedStepName
  /**
   * `refused`: this step refuses the key. The first one that does decides; later ones show what else is in the way. `skipped`: the
   * step was not taken, and `message` says why. A step that asks your application or the limiter is skipped once another has refused.
   */
  readonly outcome: 'passed' | 'refused' | 'skipped'
  /** What the step found, in plain English. It holds no text of a user, and may be reworded. */
  readonly message: string
  /** What the step read, as JSON: times are ISO 8601 texts. Never a key or a digest. */
  readonly read: Readonly<Record<string, unknown>>
}

/** What `verify` would say now, and why. */
export interface Explanation {
  /** `admitted`, or the code of the refusal. */
  readonly outcome: 'admitted' | RefusedKey['code']
  /** Why the key is invalid, if the outcome is `invalid_key`; otherwise null. */
  readonly reason: InvalidReason | null
  /**
   * Milliseconds until the same call may pass, for `rate_limited`, `quota_exceeded` and `too_many_failures`. Null if it never will,
   * and for all other outcomes.
   */
  readonly retryAfterMs: number | null
  /**
   * The key that was found, with its status now and with the permissions that its owner has too. Null if there is none. It is also
   * shown where the secret is wrong: the text names its id.
   */
  readonly apiKey: ApiKey | null
  /**
   * How the limits of the call and the quota stand before it. `exceeded` marks those that refuse. Empty if another step has refused
   * already.
   */
  readonly limits: readonly LimitState[]
  readonly steps: readonly ExplainedStep[]
}
