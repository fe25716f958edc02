import type { KeySettings } from '../core/keys/key-settings.ts'
import type { Owner } from '../core/keys/record.ts'
import type { IssueOptions, ListOptions, RotateOptions } from '../core/manage/key-management.ts'
import type { UsageOptions } from '../core/usage/usage-report.ts'

/** Options of every call. */
export interface CallOptions {
  /** Cancels the call. It then rejects with the reason of the signal. */
  signal?: AbortSignal
}

/** Options of a call that changes one key. */
export interface ChangeCallOptions extends CallOptions {
  /** Changes the key only if it still has this version, and fails with `precondition_failed` otherwise. */
  expectedVersion?: number
}

/** Options of a call that creates a key. */
export interface MakeCallOptions extends CallOptions {
  /**
   * Makes retries safe: however often you send the same request with this value, the service creates one key. The second request
   * fails with `already_done`, whose `details.apiKey` is the created key. 1 to 255 characters of visible ASCII.
   *
   * @default a random one for each call, so that the client's own retries create one key
   */
  idempotencyKey?: string
}

/** Options of a call that revokes one key. */
export interface RevokeCallOptions extends ChangeCallOptions {
  /** Stored with the key, at most 1,000 characters. */
  reason?: string
}

/** A new key: its owner and its settings, as far as the service lets clients set them. */
export interface IssueKeyRequest extends KeySettings, Pick<IssueOptions, 'prefix'> {
  /** The owner of the key. @default the owner that the caller acts for, if there is only one */
  owner?: Owner
}

/** The settings to change. Omitted settings stay as they are. */
export type UpdateKeyRequest = Partial<KeySettings>

/** How to rotate a key. */
export type RotateKeyRequest = Pick<RotateOptions, 'graceMs' | 'expiresAt' | 'onlyUsed'>

/** Of when to report use. */
export type UsageRequest = Pick<UsageOptions, 'from' | 'to' | 'by' | 'timeZone'>

/** Which keys to list. A key must match every given member. */
export interface ListKeysRequest
  extends Pick<
    ListOptions,
    'owner' | 'createdBy' | 'name' | 'status' | 'expiresBefore' | 'order' | 'cursor'
  > {
  /**
   * The maximum number of keys to return, 1 to 100.
   *
   * @default 20
   */
  limit?: number
}
