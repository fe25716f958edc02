import type { Awaitable } from '../../internal/awaitable.ts'
import { checkObject, checkText, fail } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import { checkRequirement, type PermissionRequirement } from '../keys/permissions.ts'
import type { ApiKey } from '../keys/record.ts'
import { isOfRequest } from '../keys/requirement-of-request.ts'
import { type Cost, checkCost } from '../limits/cost.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import type { Explanation } from './explanation.ts'
import type { InvalidReason, VerifiedKey, VerifyResult } from './verify-result.ts'

export interface VerifyOptions {
  /** The permissions that the key needs. An object requires everything it names; an array, any one of its entries. */
  permissions?: PermissionRequirement
  /**
   * How many units the call spends: a number, of the quota and every limit without `only: 'named'`; or numbers by the
   * name of a limit, or `quota`: `{ tokens: 500 }`. What such a cost does not name costs one unit. 0 checks the key,
   * spends nothing and shows all limits.
   *
   * @default 1
   */
  cost?: Cost
  /**
   * The client's address. Without it, a key with `allowedIps` is refused. Take it from the framework's own
   * trusted-proxy setting, never from a header.
   */
  ip?: string
  /** Accepts only keys with this prefix, or one of these. */
  prefix?: string | readonly string[]
}

/** What a middleware needs to verify keys: `createApiKeys()`, or a client of another service. */
export interface ApiKeyVerifier {
  /** The prefix of new keys. A bearer token that begins with it counts as a key. */
  readonly prefix?: string
  /** The clock of deadlines; by default, that of the machine. */
  readonly clock?: Clock
  /** How long a route's `cost` function may take, in milliseconds; 5,000 by default. */
  readonly timeoutMs?: number
  /** Whether a text has the shape of one of the configured `formats`. Such a bearer token counts as a key too. */
  isImportedKey?(text: string): boolean
  /**
   * Verifies a key and spends its cost. A refusal is a value; only a fault rejects.
   *
   * @throws LatchkeyError `unavailable` when the store or another part cannot answer.
   */
  verify(key: string, options?: VerifyOptions): Promise<VerifyResult>
  /** Like `verify`, but returns or throws synchronously if there is nothing to wait for. */
  verifyEager?(key: string, options?: VerifyOptions): Awaitable<VerifyResult>
  /**
   * Replaces what an admitted call has cost, once the work is done and as often as you like. A number or names, as for
   * `cost`; what a cost does not name keeps what it cost, and 0 gives back everything. Returns how the limits that the
   * call counted on, and the quota, stand then.
   *
   * Less is given back: to windows and periods that have not ended, to buckets as far as they have not leaked since, and
   * to the quota unless it was set or refilled. More is charged to the current window or period, even beyond the limit:
   * the key is then refused until it is within its limit again. A quota never falls below 0.
   *
   * @throws TypeError when `result` is not what `verify` returned when it admitted a key, or when `cost` names a limit
   * that the call did not count on.
   * @throws LatchkeyError `unavailable` when the limiter cannot be reached. The change is sent again for a minute, and
   * made once.
   * @throws LatchkeyError `unsupported` when the limiter cannot settle.
   */
  settle?(result: VerifiedKey, cost: Cost): Promise<readonly LimitState[]>
  /**
   * Gives back everything that a verification spent: `settle` with 0. Returns false if there is nothing to give back.
   *
   * @throws TypeError when `result` is not what `verify` returned when it admitted a key.
   * @throws LatchkeyError `unavailable` when the limiter cannot be reached. The refund is sent again for a minute, and
   * made once.
   * @throws LatchkeyError `unsupported` when the limiter cannot give back.
   */
  refund?(result: VerifiedKey): Promise<boolean>
  /**
   * Gives back the places that a call took in limits with `concurrent`. The middlewares do it when the response ends. Call it
   * yourself after `verify`, in a `finally`: otherwise the places come free after `maxHeldMs`. Returns false if the call
   * holds none, or has given them back. If the limiter cannot be reached, it is sent again in the background.
   *
   * @throws TypeError when `result` is not what `verify` returned when it admitted a key.
   * @example
   * const result = await keys.verify(key)
   * if (!result.ok) return refuse(result)
   * try {
   *   await work()
   * } finally {
   *   await keys.release(result)
   * }
   */
  release?(result: VerifiedKey): Promise<boolean>
  /**
   * Keeps the places of a call beyond `maxHeldMs`, until you release them: this process renews them. The middlewares call
   * it. Returns false if the call holds no places.
   */
  keep?(result: VerifiedKey): boolean
  /**
   * Turns what happened outside `verify` into an event: a refusal, a fault, a key shown or a decision explained to an actor; or counts
   * it.
   */
  report?(happening: ReportedEvent): void
}

/** What happened in a middleware or the management API, where `verify` could not see it. */
export type ReportedEvent =
  | {
      readonly type: 'refused'
      readonly code: 'missing_key' | 'multiple_credentials' | 'invalid_key' | 'insufficient_permissions'
      readonly reason: InvalidReason | 'bearer_not_read' | null
      readonly apiKey: ApiKey | null
      readonly ip: string | undefined
    }
  | {
      readonly type: 'fault'
      /** Where it happened. */
      readonly operation:
        | 'resolve_user'
        | 'cost'
        | 'permissions'
        | 'actor'
        | 'management'
        | 'verify'
        | 'tickets'
      readonly error: unknown
    }
  /** A guard found that a key has the permissions that the rest of a request needs. */
  | {
      readonly type: 'exercised'
      readonly apiKey: ApiKey
      readonly permissions: PermissionRequirement
    }
  /** The management API showed a key to an actor who does not own it. */
  | { readonly type: 'read'; readonly apiKey: ApiKey; readonly by: string | null }
  /** The management API explained a decision to an administrator. */
  | { readonly type: 'explained'; readonly explanation: Explanation; readonly by: string | null }

/** Whether a key with `prefix` is accepted where only `accepted` ones are. */
export function isAcceptedPrefix(prefix: string, accepted: string | readonly string[] | undefined): boolean {
  if (accepted === undefined) return true
  return typeof accepted === 'string' ? prefix === accepted : accepted.includes(prefix)
}

const VERIFY_OPTIONS = ['permissions', 'cost', 'ip', 'prefix']

/** Requires options of `verify`; returns a copy, which nobody changes meanwhile. @throws TypeError naming the option. */
export function checkVerifyOptions(options: VerifyOptions): VerifyOptions {
  if (typeof options !== 'object' || options === null) fail('options', 'an object', options)
  const { permissions, ip, prefix } = options
  let { cost } = options
  for (const name in options) {
    const value = options[name as keyof VerifyOptions]
    if (!VERIFY_OPTIONS.includes(name)) checkObject('options', options, VERIFY_OPTIONS)
    if (value === undefined) continue
    if (name === 'permissions') checkRequired(value)
    else if (name === 'cost') cost = checkCost(name, value)
    else if (name === 'ip') checkText(name, value, 255)
    else if (name === 'prefix') checkPrefixes(name, value)
  }
  return { permissions, cost, ip, prefix }
}

function checkRequired(value: unknown): void {
  // It is checked when it is asked.
  if (!isOfRequest(value)) checkRequirement('permissions', value)
}

function checkPrefixes(name: string, value: unknown): void {
  const list = Array.isArray(value) ? value : [value]
  if (list.length > 0 && list.every((prefix) => typeof prefix === 'string' && prefix !== '')) return
  fail(name, 'a prefix or a non-empty array of prefixes', value)
}
