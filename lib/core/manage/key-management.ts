import type { LatchkeyError } from '../../errors.ts'
import type { ImportedKey } from '../keys/imported-key.ts'
import type { KeySettings } from '../keys/key-settings.ts'
import type { KeyOrder } from '../keys/key-store.ts'
import type { ApiKey, KeyStatus, Owner } from '../keys/record.ts'

/** A new key, the only time its text can be read. */
export interface IssuedKey {
  /** The key to hand out. It is stored nowhere. */
  readonly key: string
  readonly apiKey: ApiKey
}

export interface IssueOptions extends KeySettings {
  /** Whom the key belongs to: a user, an organisation, a service. */
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
   * The id of the new key, 16 letters and digits: one that is derived from a request makes a repetition of that request
   * recognisable, since it fails with `duplicate_key`. An id is no secret. One whose key was purged may be given again;
   * a process that still remembers that key then refuses the new one for up to `cache.maxAgeMs`.
   *
   * @default a random one
   */
  id?: string
}

/** Who makes a change. */
export interface ChangeOptions {
  /** The application's identifier of the person or program that makes the change, for the events. */
  by?: string
}

/** Who makes a change of one key, and of which version of it. */
export interface UpdateOptions extends ChangeOptions {
  /**
   * Makes the change only if the key still has this version, and fails with `conflict` otherwise: what was decided for one
   * version may not hold for the next. Without it, whatever version there is.
   */
  expectedVersion?: number
}

/** Who revokes many keys, and why. */
export interface RevokeAllOptions extends ChangeOptions {
  /** Kept with the key, at most 1,000 characters. */
  reason?: string
}

/** Which of the keys to revoke that somebody has issued. */
export interface RevokeCreatedByOptions extends RevokeAllOptions {
  /**
   * Only keys of this owner: of an organisation that somebody leaves who stays with others.
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
   * The id of the new key, as for `issue`. A repetition fails with `duplicate_key`, whatever has become of the keys since.
   *
   * @default a random one
   */
  successorId?: string
}

export interface RotatedKey extends IssuedKey {
  /** The key that was replaced, with the time it ends. */
  readonly previous: ApiKey
}

/** Which keys to list or to count; every member given must hold. Without any, all keys. */
export interface KeySelection {
  /** Only keys of this owner. */
  owner?: Owner
  /**
   * Only keys of any of these owners, at most 100; of none where it is empty. A list shows the keys of all of them in one
   * order. Not together with `owner`.
   */
  owners?: readonly Owner[]
  /** Only keys that this person or program issued. */
  createdBy?: string
  /** Only keys of exactly this name. */
  name?: string
  /** Only keys that have this status now. */
  status?: KeyStatus
  /**
   * Only keys whose `expiresAt` is before this moment. It says nothing of their status: add `status: 'active'` to leave out
   * those that have expired already, or were revoked. Expiry for lack of use (`idleExpiryMs`) does not count.
   */
  expiresBefore?: Date
}

/** Which keys to list, and in which order. */
export interface ListOptions extends KeySelection {
  /**
   * Which keys come first: those that were created first, or those that were created last.
   *
   * @default 'oldest'
   */
  order?: KeyOrder
  /**
   * How many keys to return at most, 1 to 1,000.
   *
   * @default 50
   */
  limit?: number
  /** The `nextCursor` of the page before, with the same filter and the same `order`. */
  cursor?: string
}

/** How many keys have a digest of one kind. */
export interface DigestCount {
  /** The scheme that the digest names: `sha256`, `hmac-sha256`, `bcrypt-sha256`, or that of an imported one. */
  readonly scheme: string
  /** The id of the pepper it was made under; null for schemes without one. */
  readonly pepper: string | null
  /** How many keys have such a digest. */
  readonly count: number
}

/** Keys in the order of their creation, the oldest or the newest first. */
export interface ApiKeyPage {
  /** At most `limit` keys. */
  readonly apiKeys: readonly ApiKey[]
  /** Gets the next page; absent on the last one. */
  readonly nextCursor?: string
}

/** Which of the keys that have ended to remove. Every member given must hold, and one must be given. */
export interface PurgeOptions extends ChangeOptions {
  /** Only keys that were revoked or expired before this moment; left out, every one that has ended by now. */
  endedBefore?: Date
  /** Only keys of this owner. */
  owner?: Owner
  /** Only keys with these ids, at most 10,000. An id that no key has is passed over. */
  ids?: readonly string[]
}

export interface EraseOptions extends ChangeOptions {
  /**
   * The identifier that the application has given as `createdBy` and `by` for this owner. It is forgotten on the keys of
   * others. Null forgets nothing there: for an organisation that acts through its members, whose identifiers are not its own.
   *
   * @default the id of the owner
   */
  knownAs?: string | null
}

/** What was erased. */
export interface ErasedOwner {
  /** How many keys of the owner were removed. */
  readonly removed: number
  /** On how many keys of others the owner was forgotten. */
  readonly forgotten: number
}

/** What an operator says is right, as this process is configured; one thing at a time. */
export type AcceptedConfiguration =
  /** The secret of the pepper with this id. */
  | { readonly pepper: string }
  /** Where limits are counted: the `keyPrefix` of `redisRateLimiter`. */
  | { readonly rateLimiter: true }
  /** Where changes are published: the `channel` of `redisInvalidation`. */
  | { readonly invalidation: true }

/** How far a bulk import has come. */
export interface ImportProgress {
  /** Keys that were stored. */
  readonly imported: number
  /** Keys that were there already, by an earlier run or twice in the table. */
  readonly duplicates: number
  /** Rows that are no keys, and were passed to `onInvalid`. */
  readonly invalid: number
}

/** A row that cannot be imported. */
export interface InvalidImport {
  /** Which row it is, counted from 0. */
  readonly index: number
  /**
   * What is wrong with it: `invalid_import`, `duplicate_key`, or `unsupported` where the store cannot keep one of its texts. Its
   * message names a member or a column and holds no value.
   */
  readonly error: LatchkeyError
}

export interface ImportAllOptions<Row> extends ChangeOptions {
  /**
   * Turns a row into a key: the `read` of a format. What it throws makes the row an invalid one.
   *
   * @default the rows are imported keys already
   */
  read?: (row: Row) => ImportedKey
  /**
   * How many keys are stored at once, all or none of them; 1 to 10,000. A SQLite database holds up the process for as long
   * as it writes them, some 50 ms for 1,000.
   *
   * @default 5_000
   */
  batchSize?: number
  /**
   * What to do with a key that is stored already with the same proof: `'skip'` makes an import that may be run again. A
   * different key under the same lookup is an invalid row; but where the digest of the stored one was upgraded since, and the
   * row has a digest only, a new secret of the same owner cannot be told from the old one, and is skipped.
   *
   * @default 'fail'
   */
  onDuplicate?: 'fail' | 'skip'
  /**
   * Receives rows that cannot be imported, and the import goes on without them.
   *
   * @default none: the first one ends the import with its error
   */
  onInvalid?: (invalid: InvalidImport) => unknown
  /** Called after every batch. */
  onProgress?: (progress: ImportProgress) => unknown
}

/** The trusted server interface: it asks no questions about who calls. */
export interface KeyManagement {
  /**
   * Issues a key and stores its digest. Where it rejects, nothing is stored; but a store that was silent until `timeoutMs` may
   * still keep what it was told, a key that nobody has the text of.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError `duplicate_key` when there is a key with the `id` given; `unsupported` when the store cannot keep
   * a quota, idle expiry or one of the texts; `unavailable` on a fault.
   * @example
   * const { key, apiKey } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'CI' })
   */
  issue(options: IssueOptions): Promise<IssuedKey>
  /**
   * Takes over a key that was issued elsewhere. It keeps its text, and is verified, limited, changed and revoked like any
   * other; its successor, when it is rotated, is a native key.
   *
   * @throws LatchkeyError `invalid_import` when a member is wrong or missing; `duplicate_key` when its `lookup` or `id` is
   * taken; `unsupported` when the store cannot keep a quota, idle expiry or one of the texts; `unavailable` on a fault.
   * @example
   * await keys.import({ format: 'legacy', key: 'k3v9…', owner: { type: 'user', id: 'u_1' }, name: 'CI' })
   */
  import(imported: ImportedKey, options?: ChangeOptions): Promise<ApiKey>
  /**
   * Imports rows as they come, batch by batch, in a memory that does not grow with the table.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError as `import` does. Batches before the one that failed stay stored: `details` of the error tells
   * how many keys that are (`imported`), and of an error that one row has caused which it is (`index`).
   * @example
   * const format = betterAuthFormat()
   * const report = await keys.importAll(rows, { read: format.read, onDuplicate: 'skip', onProgress: console.log })
   */
  importAll<Row = ImportedKey>(
    rows: Iterable<Row> | AsyncIterable<Row>,
    options?: ImportAllOptions<Row>,
  ): Promise<ImportProgress>
  /** The key with this id; null when there is none. @throws LatchkeyError `unavailable` */
  get(id: string): Promise<ApiKey | null>
  /**
   * Keys in the order of their creation, the oldest first unless `order` says otherwise, page by page. Their permissions are
   * those stored with them, whatever `ownerPermissions` answers.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError `invalid_cursor` when `cursor` is not the `nextCursor` of a page in this order; `unavailable` on a fault.
   * @example
   * const inAWeek = new Date(Date.now() + 7 * 86_400_000)
   * const { apiKeys } = await keys.list({ status: 'active', expiresBefore: inAWeek })
   */
  list(options?: ListOptions): Promise<ApiKeyPage>
  /**
   * How many keys there are; with a selection, how many `list` would show on all its pages. PostgreSQL, MySQL, MariaDB and
   * SQLite count for themselves; from Redis, and from a store of your own without `count`, the keys are read, 1,000 at a time.
   *
   * @throws TypeError when a member of the selection is wrong.
   * @throws LatchkeyError `unavailable` on a fault.
   * @example
   * await keys.count({ owner: { type: 'user', id: 'u_1' }, status: 'active' }) // 3
   */
  count(selection?: KeySelection): Promise<number>
  /**
   * How many keys have a digest of each scheme and pepper, in the order of their names. A pepper that is not in it may go. It
   * counts every key that is stored, also those that are revoked or have expired: a key without its pepper cannot be
   * verified, and the answer is 503 rather than 401.
   *
   * It reads every key, 1,000 at a time. A key that is issued meanwhile may be missed: take a pepper out only once every process
   * makes its digests under another one.
   *
   * @throws LatchkeyError `unavailable` on a fault.
   * @example
   * await keys.countByDigest()
   * // [{ scheme: 'hmac-sha256', pepper: '2025', count: 12 }, { scheme: 'sha256', pepper: null, count: 3 }]
   */
  countByDigest(): Promise<readonly DigestCount[]>
  /**
   * Changes settings of a key; what is not given stays. Once it resolves, no request is decided by the old ones.
   *
   * @throws TypeError when a setting is wrong.
   * @throws LatchkeyError `not_found`; `conflict` when the key is revoked, when it was rotated and would last longer, when
   * `expectedVersion` is not its version, or when others keep changing it; `unsupported` when the store cannot keep a
   * quota, idle expiry or one of the texts; `unavailable` on a fault.
   */
  update(id: string, settings: Partial<KeySettings>, options?: UpdateOptions): Promise<ApiKey>
  /**
   * Lets a disabled key work again.
   *
   * @throws LatchkeyError `not_found`; `conflict` when it is revoked, when `expectedVersion` is not its version, or when
   * others keep changing it; `unavailable` on a fault.
   */
  enable(id: string, options?: UpdateOptions): Promise<ApiKey>
  /**
   * Stops a key until it is enabled again.
   *
   * @throws LatchkeyError `not_found`; `conflict` when it is revoked, when `expectedVersion` is not its version, or when
   * others keep changing it; `unavailable` on a fault.
   */
  disable(id: string, options?: UpdateOptions): Promise<ApiKey>
  /**
   * Stops a key for good. Once it resolves, the next request is refused. Revoking a revoked key changes nothing.
   *
   * @throws LatchkeyError `not_found`; `conflict` when `expectedVersion` is not its version or others keep changing it;
   * `unavailable` on a fault.
   */
  revoke(id: string, options?: RevokeOptions): Promise<ApiKey>
  /**
   * Issues a successor with the same settings, and lets the previous key end after a grace. Rate limits and quota
   * carry over: both keys draw on the same ones.
   *
   * The successor's permissions are those stored with the key, whatever `ownerPermissions` answers.
   *
   * @throws TypeError when an option is wrong.
   * @throws LatchkeyError `not_found`; `conflict` when the key is revoked, expired, rotated already, or was changed meanwhile, or
   * when `expectedVersion` is not its version;
   * `duplicate_key` when there is a key with the `successorId` given; `unavailable` on a fault.
   */
  rotate(id: string, options?: RotateOptions): Promise<RotatedKey>
  /**
   * Removes keys that were revoked or have expired, for good; returns how many. A key that works is never removed. One that has
   * expired within the last seconds stays, since uses of it may not be written yet.
   *
   * @throws TypeError when an option is wrong, or none says which keys.
   * @throws LatchkeyError `unavailable` on a fault.
   * @example
   * await keys.purge({ endedBefore: new Date(Date.now() - 90 * 86_400_000) })
   * await keys.purge({ owner: { type: 'user', id: 'u_1' } })
   * await keys.purge({ ids: ['XbC3f8K2mPq9TzRw'] })
   */
  purge(options: PurgeOptions): Promise<number>
  /**
   * Erases an owner: revokes all its keys, so that none is accepted anywhere, and then removes them, whatever their state. On
   * keys of others that the owner has issued or revoked, it clears `createdBy` and `revokedBy`, and with `createdBy` the
   * address of the last use. What the application has written there itself stays: `name`, `metadata`, `revokedReason`.
   *
   * Let the application refuse the owner first (its login, `isOwnerActive`): a key that is issued after the last look stays. Where
   * it fails, call it again; what was done stays done.
   *
   * @throws TypeError when an argument is wrong.
   * @throws LatchkeyError `unsupported` when the store has no `forget`: nothing was changed, and `knownAs: null` works with any
   * store; `conflict` when keys of the owner keep appearing; `unavailable` on a fault.
   * @example
   * await keys.erase({ type: 'user', id: 'u_1' }, { by: 'u_admin' }) // { removed: 3, forgotten: 1 }
   */
  erase(owner: Owner, options?: EraseOptions): Promise<ErasedOwner>
  /**
   * Revokes every key of an owner; returns how many it revoked. Once it resolves, none of them is accepted.
   *
   * @throws LatchkeyError `unavailable` on a fault: some keys may be revoked already, and it may be called again.
   */
  revokeOwner(owner: Owner, options?: RevokeAllOptions): Promise<number>
  /**
   * Revokes every key that a person or program has issued, whoever owns it unless that is said; returns how many it revoked. Once
   * it resolves, none of them is accepted. A successor was issued by whoever rotated the key, if that was said.
   *
   * @throws TypeError when an argument is wrong.
   * @throws LatchkeyError `unavailable` on a fault: some keys may be revoked already, and it may be called again.
   * @example
   * await keys.revokeCreatedBy('u_1', { by: 'u_admin', reason: 'left the company' })
   */
  revokeCreatedBy(createdBy: string, options?: RevokeCreatedByOptions): Promise<number>
  /**
   * Says that what `isOwnerActive` or `ownerPermissions` answers for this owner has changed. Once it resolves, every request with
   * one of the owner's keys is decided by a new answer. Returns how many keys that concerns: all that are not revoked.
   *
   * @throws LatchkeyError `unavailable` on a fault: it may be called again.
   */
  invalidateOwner(owner: Owner, options?: ChangeOptions): Promise<number>
  /**
   * Says that what this process is configured with is right, where others that share its store are configured differently: the fault
   * `configuration_drift` names what. The first process that used a pepper, a key prefix or a channel has said it for
   * all, and this alone says otherwise. Restart the others with the same configuration then. Call it after a key prefix or a
   * channel was changed for good; for a pepper only where the secret that was used first is the wrong one: keys that
   * were issued under that do not verify any more. To change a secret, give it a new id.
   *
   * @throws TypeError when not exactly one thing is named, or one that is not configured here.
   * @throws LatchkeyError `unsupported` when the store cannot keep agreements; `unavailable` on a fault.
   * @example
   * await keys.acceptConfiguration({ pepper: '2026' }, { by: 'u_admin' })
   */
  acceptConfiguration(accepted: AcceptedConfiguration, options?: ChangeOptions): Promise<void>
}
