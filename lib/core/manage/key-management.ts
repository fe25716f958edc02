import type { LatchkeyError } from '../../errors.ts'
import type { ImportedKey } from '../keys/imported-key.ts'
import type { KeySettings } from '../keys/key-settings.ts'
import type { KeyOrder } from '../keys/key-store.ts'
import type { ApiKey, KeyStatus, Owner } from '../keys/record.ts'
import type { UnusedPermissions, UnusedPermissionsOptions } from '../usage/unused-permissions.ts'
import type { UsageOptions, UsageReport } from '../usage/usage-report.ts'

/** A new key. You can read its text only now. */
export interface IssuedKey {
  /** The key to hand out. Latchkey does not store it. */
  readonly key: string
  readonly apiKey: ApiKey
}

export interface IssueOptions extends KeySettings {
  /** Who owns the key: a user, an organisation, a service. */
  owner: Owner
  /**
   * Who issues the key: your identifier of the person or program, 1 to 255 characters. The key keeps it as `createdBy`, and
   * the event `key.issued` names it.
   *
   * @default null: nobody in particular
   */
  by?: string | null
  /**
   * The old name of `by`.
   *
   * @deprecated
   * @default null
   */
  createdBy?: string | null
  /**
   * The prefix of this key.
   *
   * @default the prefix given to `createApiKeys`
   */
  prefix?: string
  /**
   * The id of the new key, 16 letters and digits. Derive it from a request to detect repetitions: they fail with
   * `duplicate_key`. An id is not secret. You may reuse the id of a purged key; a process that still remembers the old
   * key then refuses the new one for up to `cache.maxAgeMs`.
   *
   * @default a random one
   */
  id?: string
}

/** Who makes a change. */
export interface ChangeOptions {
  /** Your application's identifier of the person or program that makes the change, for the events. */
  by?: string
}

/** Who changes a key, and which version of it. */
export interface UpdateOptions extends ChangeOptions {
  /**
   * Makes the change only if the key still has this version; otherwise fails with `precondition_failed`, as
   * `If-Match` does over HTTP. A decision about one version may not hold for the next. If left out, the change applies
   * to any version.
   */
  expectedVersion?: number
}

/** Who revokes many keys, and why. */
export interface RevokeAllOptions extends ChangeOptions {
  /** Stored with each key, at most 1,000 characters. */
  reason?: string
}

/** Which of an issuer's keys to revoke. */
export interface RevokeCreatedByOptions extends RevokeAllOptions {
  /**
   * Only keys of this owner, for example the one organisation that a person leaves.
   *
   * @default those of every owner
   */
  owner?: Owner
}

/** Who revokes one key, and why. */
export interface RevokeOptions extends UpdateOptions, RevokeAllOptions {}

export interface RotateOptions extends UpdateOptions {
  /**
   * How long the previous key keeps working, in milliseconds, at most 366 days. It never works longer than it would
   * have without rotation. Set 0 to cut over at once.
   *
   * @default 86_400_000 (24 hours)
   */
  graceMs?: number
  /**
   * When the new key expires.
   *
   * @default when the previous key would have
   */
  expiresAt?: Date | null
  /**
   * The id of the new key, as for `issue`. A repetition fails with `duplicate_key`, even if the keys have changed
   * since.
   *
   * @default a random one
   */
  successorId?: string
  /**
   * Gives the new key only those permissions that calls needed in the last `days` (30 by default), as `unusedPermissions` tells
   * them. What your application checks by itself, without a guard, and what remote services require counts as unused. Fails with `conflict` if uses are known for a
   * shorter time, and the key is older than that.
   *
   * @default the new key has all permissions of the previous one
   */
  onlyUsed?: UnusedPermissionsOptions
}

export interface RotatedKey extends IssuedKey {
  /** The key that was replaced. It works until `expiresAt`, the end of the grace period. */
  readonly previous: ApiKey & { readonly expiresAt: Date }
}

/** Which keys to list or count. A key must match every member you give; without any, all keys match. */
export interface KeySelection {
  /** Only keys of this owner. */
  owner?: Owner
  /**
   * Only keys of these owners, at most 100. An empty array matches no keys. `list` shows the keys of all of them in one
   * order. Cannot be combined with `owner`.
   */
  owners?: readonly Owner[]
  /** Only keys that this person or program issued. */
  createdBy?: string
  /** Only keys with exactly this name. */
  name?: string
  /** Only keys that have this status now. */
  status?: KeyStatus
  /**
   * Only keys whose `expiresAt` is before this moment, whatever their status. Add `status: 'active'` to leave out keys
   * that have already expired or were revoked. Idle expiry (`idleExpiryMs`) does not count.
   */
  expiresBefore?: Date
}

/** Which keys to list, and in which order. */
export interface ListOptions extends KeySelection {
  /**
   * Which keys come first: the oldest or the newest.
   *
   * @default 'oldest'
   */
  order?: KeyOrder
  /**
   * The most keys to return, 1 to 1,000.
   *
   * @default 50
   */
  limit?: number
  /** The `nextCursor` of the previous page. Keep the filter and `order` the same. */
  cursor?: string
}

/** How many keys have one scheme and pepper. */
export interface DigestCount {
  /** The scheme that the digest names: `sha256`, `hmac-sha256`, `bcrypt-sha256`, or the scheme of an imported digest. */
  readonly scheme: string
  /** The id of the digest's pepper; null for schemes without one. */
  readonly pepper: string | null
  /** How many keys have this scheme and pepper. */
  readonly count: number
}

/** Keys in order of creation, oldest or newest first. */
export interface ApiKeyPage {
  /** At most `limit` keys. */
  readonly apiKeys: readonly ApiKey[]
  /** Pass it as `cursor` to get the next page; absent on the last one. */
  readonly nextCursor?: string
}

/** Which revoked or expired keys to remove. A key must match every member you give; give at least one. */
export interface PurgeOptions extends ChangeOptions {
  /** Only keys that were revoked or expired before this moment. If left out, any key that has ended by now. */
  endedBefore?: Date
  /** Only keys of this owner. */
  owner?: Owner
  /** Only keys with these ids, at most 10,000. Unknown ids are skipped. */
  ids?: readonly string[]
}

export interface EraseOptions extends ChangeOptions {
  /**
   * The identifier that your application uses for this owner in `createdBy` and `by`. `erase` clears it from other
   * owners' keys. Null clears nothing there: use it for an organisation that acts through its members under their own
   * identifiers.
   *
   * @default the id of the owner
   */
  knownAs?: string | null
}

/** What `erase` did. */
export interface ErasedOwner {
  /** How many keys of the owner were removed. */
  readonly removed: number
  /** On how many keys of other owners the identifier was cleared. */
  readonly forgotten: number
}

/** What an operator accepts as configured in this process, one thing at a time. */
export type AcceptedConfiguration =
  /** The secret of the pepper with this id. */
  | { readonly pepper: string }
  /** Where limits are counted: the `keyPrefix` of `redisRateLimiter`. */
  | { readonly rateLimiter: true }
  /** Where changes are published: the `channel` of `redisInvalidation`. */
  | { readonly invalidation: true }

/** The progress of a bulk import. */
export interface ImportProgress {
  /** Keys stored. */
  readonly imported: number
  /** Keys that already existed, from an earlier run or a repeated row. */
  readonly duplicates: number
  /** Rows that could not be imported and were passed to `onInvalid`. */
  readonly invalid: number
}

/** A row that cannot be imported. */
export interface InvalidImport {
  /** The row's position, counted from 0. */
  readonly index: number
  /**
   * What is wrong with it: `invalid_import`, `duplicate_key`, or `unsupported` if the store cannot keep one of its
   * texts. The message names a member or column, never a value.
   */
  readonly error: LatchkeyError
}

export interface ImportAllOptions<Row> extends ChangeOptions {
  /**
   * Turns a row into a key: the `read` of a format. If it throws, the row is invalid.
   *
   * @default the rows are imported keys already
   */
  read?: (row: Row) => ImportedKey
  /**
   * How many keys to store at once, all or none; 1 to 10,000. SQLite blocks the process while it writes them, about 50
   * ms for 1,000.
   *
   * @default 5_000
   */
  batchSize?: number
  /**
   * What to do with a key that is already stored with the same proof. With `'skip'` you can run an import again. A
   * different key under the same lookup is an invalid row. One exception: if the stored digest was upgraded since and
   * the row has only a digest, a new secret of the same owner looks like the old one and is skipped.
   *
   * @default 'fail'
   */
  onDuplicate?: 'fail' | 'skip'
  /**
   * Receives rows that cannot be imported. The import continues without them.
   *
   * @default none: the first one ends the import with its error
   */
  onInvalid?: (invalid: InvalidImport) => unknown
  /** Called after every batch. */
  onProgress?: (progress: ImportProgress) => unknown
}

/** The trusted server interface. It does not check who calls it. */
export interface KeyManagement {
  /**
   * Issues a key and stores its digest. If it rejects, no key is stored, with one exception: a store that stayed silent
   * until `timeoutMs` may still store a key whose text is lost.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError `duplicate_key` when a key with this `id` exists; `unsupported` when the store cannot keep a
   * quota, idle expiry or one of the texts; `unavailable` on a fault.
   * @example
   * const { key, apiKey } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'CI' })
   */
  issue(options: IssueOptions): Promise<IssuedKey>
  /**
   * Imports a key that was issued elsewhere. It keeps its text, and is verified, limited, changed and revoked like any
   * other key. Rotating it issues a native key.
   *
   * @throws LatchkeyError `invalid_import` when a member is wrong or missing; `duplicate_key` when its `lookup` or `id`
   * is taken; `unsupported` when the store cannot keep a quota, idle expiry or one of the texts; `unavailable` on a
   * fault.
   * @example
   * await keys.import({ format: 'legacy', key: 'k3v9…', owner: { type: 'user', id: 'u_1' }, name: 'CI' })
   */
  import(imported: ImportedKey, options?: ChangeOptions): Promise<ApiKey>
  /**
   * Imports rows as they arrive, in batches. Memory use does not grow with the table.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError as `import` does. Batches before the failed one stay stored: the error's `details` hold their
   * number of keys (`imported`) and, if one row caused the error, its position (`index`).
   * @example
   * const format = betterAuthFormat()
   * const report = await keys.importAll(rows, { read: format.read, onDuplicate: 'skip', onProgress: console.log })
   */
  importAll<Row = ImportedKey>(
    rows: Iterable<Row> | AsyncIterable<Row>,
    options?: ImportAllOptions<Row>,
  ): Promise<ImportProgress>
  /** Returns the key with this id; null when there is none. @throws LatchkeyError `unavailable` */
  get(id: string): Promise<ApiKey | null>
  /**
   * Lists keys in order of creation, page by page, oldest first unless `order` says otherwise. Each key shows the
   * permissions stored with it; `ownerPermissions` does not reduce them here.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError `invalid_cursor` when `cursor` is not the `nextCursor` of a page in this order; `unavailable`
   * on a fault.
   * @example
   * const inAWeek = new Date(Date.now() + 7 * 86_400_000)
   * const { apiKeys } = await keys.list({ status: 'active', expiresBefore: inAWeek })
   */
  list(options?: ListOptions): Promise<ApiKeyPage>
  /**
   * Counts keys; with a selection, the keys that `list` would show on all its pages. PostgreSQL, MySQL, MariaDB and
   * SQLite count in the database. With Redis, or your own store without `count`, Latchkey reads the keys, 1,000 at a
   * time.
   *
   * @throws TypeError when a member of the selection is wrong.
   * @throws LatchkeyError `unavailable` on a fault.
   * @example
   * await keys.count({ owner: { type: 'user', id: 'u_1' }, status: 'active' }) // 3
   */
  count(selection?: KeySelection): Promise<number>
  /**
   * Counts keys by the scheme and pepper of their digests, sorted by name. You may remove a pepper that is not listed.
   * The count includes revoked and expired keys: a key whose pepper is missing cannot be verified, and the answer is
   * 503 rather than 401.
   *
   * It reads every key, 1,000 at a time, and may miss a key issued in the meantime. Remove a pepper only once every
   * process makes new digests under another one.
   *
   * @throws LatchkeyError `unavailable` on a fault.
   * @example
   * await keys.countByDigest()
   * // [{ scheme: 'hmac-sha256', pepper: '2025', count: 12 }, { scheme: 'sha256', pepper: null, count: 3 }]
   */
  countByDigest(): Promise<readonly DigestCount[]>
  /**
   * Changes settings of a key; settings you leave out stay. Once it resolves, every request sees the new settings.
   *
   * @throws TypeError when a setting is wrong.
   * @throws LatchkeyError `not_found`; `precondition_failed` when `expectedVersion` is not its version; `conflict` when the
   * key is revoked, when it was rotated and would last longer, or when others keep changing it; `unsupported` when the store cannot
   * keep a quota, idle expiry or one of the texts; `unavailable` on a fault.
   */
  update(id: string, settings: Partial<KeySettings>, options?: UpdateOptions): Promise<ApiKey>
  /**
   * Lets a disabled key work again.
   *
   * @throws LatchkeyError `not_found`; `precondition_failed` when `expectedVersion` is not its version; `conflict` when it
   * is revoked, or when others keep changing it; `unavailable` on a fault.
   */
  enable(id: string, options?: UpdateOptions): Promise<ApiKey>
  /**
   * Stops a key until it is enabled again.
   *
   * @throws LatchkeyError `not_found`; `precondition_failed` when `expectedVersion` is not its version; `conflict` when it
   * is revoked, or when others keep changing it; `unavailable` on a fault.
   */
  disable(id: string, options?: UpdateOptions): Promise<ApiKey>
  /**
   * Stops a key for good. Once it resolves, the next request is refused. Revoking a revoked key changes nothing.
   *
   * @throws LatchkeyError `not_found`; `precondition_failed` when `expectedVersion` is not its version; `conflict` when
   * others keep changing it; `unavailable` on a fault.
   */
  revoke(id: string, options?: RevokeOptions): Promise<ApiKey>
  /**
   * Issues a successor with the same settings. The previous key works until `previous.expiresAt`: for `graceMs`, 24
   * hours by default, but never longer than it would have otherwise. Both keys share their rate limits and quota.
   *
   * The successor gets the permissions stored with the key; `ownerPermissions` does not reduce them.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError `not_found`; `precondition_failed` when `expectedVersion` is not its version; `conflict` when the
   * key is revoked, expired or already rotated, or was changed in the meantime; `duplicate_key` when a key with this
   * `successorId` exists; `unavailable` on a fault.
   */
  rotate(id: string, options?: RotateOptions): Promise<RotatedKey>
  /**
   * Permanently removes revoked or expired keys; returns how many. It never removes a working key. A key that expired a
   * few seconds ago stays, because some of its uses may not be written yet.
   *
   * @throws TypeError when an option is wrong, or no option selects keys.
   * @throws LatchkeyError `unavailable` on a fault.
   * @example
   * await keys.purge({ endedBefore: new Date(Date.now() - 90 * 86_400_000) })
   * await keys.purge({ owner: { type: 'user', id: 'u_1' } })
   * await keys.purge({ ids: ['XbC3f8K2mPq9TzRw'] })
   */
  purge(options: PurgeOptions): Promise<number>
  /**
   * Erases an owner: revokes all its keys, so that no process accepts them, and then removes them, whatever their
   * state. On other owners' keys that this owner issued or revoked, it clears `createdBy` and `revokedBy`, and along
   * with `createdBy` the address of the last use. What your application stored there stays: `name`, `metadata`,
   * `revokedReason`.
   *
   * Make your application refuse the owner first (its login, `isOwnerActive`): a key issued after the last check stays.
   * If it fails, call it again; finished work stays done.
   *
   * @throws TypeError when an argument is wrong.
   * @throws LatchkeyError `unsupported` when the store has no `forget`; nothing has changed then, and `knownAs: null`
   * works with any store; `conflict` when keys of the owner keep appearing; `unavailable` on a fault.
   * @example
   * await keys.erase({ type: 'user', id: 'u_1' }, { by: 'u_admin' }) // { removed: 3, forgotten: 1 }
   */
  erase(owner: Owner, options?: EraseOptions): Promise<ErasedOwner>
  /**
   * Revokes every key of an owner; returns how many. Once it resolves, none of them is accepted.
   *
   * @throws LatchkeyError `unavailable` on a fault; some keys may already be revoked, and you can call it again.
   */
  revokeOwner(owner: Owner, options?: RevokeAllOptions): Promise<number>
  /**
   * Revokes every key that a person or program issued, for any owner unless you name one; returns how many. Once it
   * resolves, none of them is accepted. A successor counts as issued by the person or program that rotated the key, if
   * `rotate` received `by`.
   *
   * @throws TypeError when an argument is wrong.
   * @throws LatchkeyError `unavailable` on a fault; some keys may already be revoked, and you can call it again.
   * @example
   * await keys.revokeCreatedBy('u_1', { by: 'u_admin', reason: 'left the company' })
   */
  revokeCreatedBy(createdBy: string, options?: RevokeCreatedByOptions): Promise<number>
  /**
   * Call it when the answer of `isOwnerActive` or `ownerPermissions` for this owner changes. Once it resolves, every
   * request with one of the owner's keys uses a new answer. Returns how many keys it affects: all that are not revoked.
   *
   * @throws LatchkeyError `unavailable` on a fault; you can call it again.
   */
  invalidateOwner(owner: Owner, options?: ChangeOptions): Promise<number>
  /**
   * Reports the use of a key, or of all keys of an owner: admitted and refused calls and units charged, by hour or by day. It is
   * counted in memory and written every `usage.flushMs`, so the latest calls of other processes may be missing; a crash loses what is
   * not written. Counts are kept for `usage.keepDays`. For an unknown key everything is 0.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError `unsupported` when the store cannot count, or `usage.keepDays` is 0; `unavailable` on a fault.
   * @example
   * const { buckets, total } = await keys.usage({ key: apiKey.id, by: 'hour', from: yesterday })
   */
  usage(options: UsageOptions): Promise<UsageReport>
  /**
   * Tells which permissions of a key its calls needed lately, and which none did: those may go. It knows what `verify` and the
   * guards of Latchkey required, not what your application checks by itself. Uses of the keys that it replaced by rotation count as
   * its own. Null if there is no such key.
   *
   * @throws TypeError when an argument is wrong.
   * @throws LatchkeyError `unsupported` when the store cannot count, or `usage.keepDays` is 0; `unavailable` on a fault.
   * @example
   * const found = await keys.unusedPermissions(apiKey.id, { days: 60 })
   */
  unusedPermissions(id: string, options?: UnusedPermissionsOptions): Promise<UnusedPermissions | null>
  /**
   * Declares that this process is configured correctly when other processes that share its store differ from it. The
   * fault `configuration_drift` names the difference. By default, the first process to use a pepper, a key prefix or a
   * channel decides for all; only this call overrides that. Call it after you change a key prefix or channel for good,
   * then restart the other processes with the same configuration. Call it for a pepper only if the first secret was the
   * wrong one: keys issued under that secret stop working. To change a secret, give it a new id.
   *
   * @throws TypeError unless you name exactly one thing, and this process has it configured.
   * @throws LatchkeyError `unsupported` when the store cannot keep agreements; `unavailable` on a fault.
   * @example
   * await keys.acceptConfiguration({ pepper: '2026' }, { by: 'u_admin' })
   */
  acceptConfiguration(accepted: AcceptedConfiguration, options?: ChangeOptions): Promise<void>
}
