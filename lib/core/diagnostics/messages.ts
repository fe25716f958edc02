import type { ErrorCode } from '../../errors.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { InvalidReason, RefusedKey } from '../verify/verify-result.ts'

/**
 * The channels of `node:diagnostics_channel` on which Latchkey publishes, and the message of each. No message holds a key, the id of
 * a key, an owner or an address.
 *
 * While nobody subscribes, Latchkey measures nothing. As on every channel of Node, an error that a subscriber throws becomes an
 * uncaught exception of the process. Until 1.0, a minor release may add members and values.
 *
 * @example
 * import { subscribe } from 'node:diagnostics_channel'
 *
 * subscribe('latchkey:verify', (message) => {
 *   const { outcome, durationMs } = message as LatchkeyChannels['latchkey:verify']
 *   console.log(outcome, durationMs)
 * })
 */
export interface LatchkeyChannels {
  /** A verification begins. Published only if `latchkey:verify` has subscribers too. */
  'latchkey:verify:start': VerifyStartMessage
  /** A verification has ended. */
  'latchkey:verify': VerifyMessage
  /** The store, the limiter or another part has answered or failed. */
  'latchkey:dependency': DependencyMessage
  /** The memory of this process was asked for the record of a key. */
  'latchkey:cache': CacheMessage
  /** Gathered uses were written to the store, or could not be. */
  'latchkey:usage': UsageMessage
  /** A `fault` event. */
  'latchkey:fault': FaultMessage
  /** The rate limiter stopped asking a server that keeps failing, or asks it again. */
  'latchkey:limiter': LimiterMessage
}

/** A verification begins. Its {@link VerifyMessage} names this object as `start`. */
export interface VerifyStartMessage {
  /**
   * Has the verification run inside `run`, which calls the function that it is given: once, at once. For what follows a call through
   * its asynchronous steps, as the active context of a tracer. Call it while the message is being published.
   */
  runInside(run: (verify: () => void) => void): void
}

/** How a verification ended. */
export interface VerifyMessage {
  readonly outcome: VerifyOutcome
  /** The step that refused the key or failed; null if the key was admitted, or if no step is to blame. */
  readonly step: VerifyStep | null
  /** Why an invalid key is invalid; null for every other outcome. */
  readonly reason: InvalidReason | null
  /** How long the verification took, in milliseconds. */
  readonly durationMs: number
  /** The message of its beginning, if anybody subscribed to `latchkey:verify:start`. */
  readonly start: VerifyStartMessage | null
}

/**
 * - `admitted`: the key may do what was asked
 * - the code of a refusal
 * - `unavailable`: a part that is needed has failed
 * - `failed`: `verify` was called wrongly, or threw another error
 */
export type VerifyOutcome = 'admitted' | RefusedKey['code'] | 'unavailable' | 'failed'

/** A step of a verification, in their order. */
export type VerifyStep =
  /** The shape of the key, its checksum and its prefix. */
  | 'parse'
  /** The block of addresses that sent too many invalid keys. */
  | 'failed_attempts'
  /** The record: in memory, or in the store. With `remoteApiKeys`, the answer of the service. */
  | 'record'
  /** Whether the secret is right. */
  | 'digest'
  /** Whether the key is revoked, disabled, expired or idle. */
  | 'status'
  /** `isOwnerActive` and `ownerPermissions`. */
  | 'owner'
  /** `allowedIps`. */
  | 'address'
  | 'permissions'
  | 'quota'
  /** The rate limiter: the latest version of the key, and its limits. */
  | 'rate_limits'

/** A part that Latchkey waited for has answered or failed. */
export interface DependencyMessage {
  /** Which part, as in a `fault` event. */
  readonly operation: DependencyOperation
  /** The method of the store or the limiter that was called; null for other parts. */
  readonly method: string | null
  /**
   * - `ok`: it answered. A refusal is an answer, and so is what a limiter decides by its policy while its server is away
   * - `failed`: it threw, or its answer was wrong
   * - `timed_out`: it did not answer within `timeoutMs`
   */
  readonly outcome: 'ok' | 'failed' | 'timed_out'
  /** How long it took, in milliseconds. */
  readonly durationMs: number
}

export type DependencyOperation = Extract<ApiKeyEvent, { type: 'fault' }>['operation']

/** What the memory of this process knew about a key. */
export interface CacheMessage {
  /**
   * - `hit`: its record
   * - `absent`: that there is no such key
   * - `miss`: nothing, so the store is asked
   * - `outdated`: a record that has changed meanwhile, so the store is asked again
   */
  readonly result: 'hit' | 'absent' | 'miss' | 'outdated'
}

/** A write of the uses that this process has gathered. */
export interface UsageMessage {
  /** `last_use`: when keys were last used, and how often. `counts`: what `keys.usage()` reports. Each is written by itself. */
  readonly kind: 'last_use' | 'counts'
  /** `failed` if some of them could not be written. They are kept for the next write. */
  readonly outcome: 'written' | 'failed'
  /** How long the oldest of these uses had waited when the write ended, in milliseconds. */
  readonly lagMs: number
}

/** A part failed, even if Latchkey recovered. */
export interface FaultMessage {
  readonly operation: DependencyOperation
  /** The code of the error, if it is one of Latchkey's. */
  readonly code: ErrorCode | null
}

/** The state of the rate limiter. */
export interface LimiterMessage {
  /** While `suspended`, it follows its `onUnavailable` policy. */
  readonly state: 'suspended' | 'resumed'
}
