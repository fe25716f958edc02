import { compareCodePoints } from '../../internal/code-points.ts'
import type { Quota, QuotaRecord } from '../limits/quota.ts'
import type { KeyRecord, KeyStatus, Owner } from './record.ts'

/** What an administrator may change on a key. A member that is absent stays as it is. */
export type KeyChange = Partial<
  Pick<
    KeyRecord,
    | 'name'
    | 'permissions'
    | 'metadata'
    | 'enabled'
    | 'rateLimits'
    | 'allowedIps'
    | 'expiresAt'
    | 'idleExpiryMs'
    | 'revokedAt'
    | 'revokedBy'
    | 'revokedReason'
    | 'rotatedTo'
  >
> & {
  readonly updatedAt: Date
  /**
   * Sets the quota of the key's lineage: what the lineage has becomes `startQuota(quota, existing, updatedAt)`,
   * in the same atomic step. Null removes it, and keeps its epoch: `existing` of the next quota is the one that was
   * removed, so that units which a process still holds of it are worth nothing.
   */
  readonly quota?: Quota | null
}

/** What is left of a person on a key that stays, and is to be cleared. A member that is absent stays as it is. */
export interface Forgetting {
  readonly createdBy?: null
  readonly revokedBy?: null
  /** The time of the last use stays. */
  readonly lastUsedIp?: null
  readonly updatedAt: Date
}

/** Which keys to list. Every member given must hold. */
export interface KeyFilter {
  /** Only keys of these owners: 1 to 100, each named once. */
  readonly owners?: readonly Owner[]
  readonly createdBy?: string
  readonly name?: string
  readonly lineageId?: string
  /** The status, as `keyStatus` decides it, at the moment `at`. */
  readonly status?: { readonly is: KeyStatus; readonly at: Date }
  /** Only keys that were revoked or had expired before this moment. */
  readonly endedBefore?: Date
  /** Only keys with an `expiresAt` before this moment, whatever their status. `idleExpiryMs` does not count. */
  readonly expiresBefore?: Date
}

/** Which keys come first: those that were created first, or those that were created last. */
export type KeyOrder = 'oldest' | 'newest'

/** Which part of a listing to answer. */
export interface ListPage {
  /** How many records to answer at most. */
  readonly limit: number
  /** Begins right behind this position, in the order of the listing; left out, at the start. */
  readonly after?: KeyPosition
  /**
   * `newest` lists in exactly the opposite order.
   *
   * @default the keys that were created first come first
   */
  readonly order?: 'newest'
}

/** A place in the order of a listing: right behind this record. */
export interface KeyPosition {
  readonly createdAt: Date
  readonly id: string
}

/** The order of every listing: negative where `a` comes first. */
export function comparePositions(a: KeyPosition, b: KeyPosition): number {
  return a.createdAt.getTime() - b.createdAt.getTime() || compareCodePoints(a.id, b.id)
}

/** The same for a listing in this order. */
export function comparisonOf(order: ListPage['order']): typeof comparePositions {
  return order === 'newest' ? (a, b) => comparePositions(b, a) : comparePositions
}

/** What a key was used since the last batch. */
export interface UsageDelta {
  readonly id: string
  /** How many uses to add. */
  readonly count: number
  /** The latest of them. */
  readonly lastUsedAt: Date
  /** The address of the latest of them, where it is known. */
  readonly lastUsedIp: string | null
}

/** Units that move between a process and the quota of a lineage. */
export interface QuotaSwap {
  readonly lineageId: string
  /** The quota as the process believes it to be. */
  readonly expected: QuotaRecord
  /** The quota that is to take its place. */
  readonly next: QuotaRecord
}

/** What became of a swap; `current` is what the lineage has instead, null where it has no quota. */
export type QuotaSwapResult =
  | { readonly swapped: true }
  | { readonly swapped: false; readonly current: QuotaRecord | null }

/** What a process holds to be agreed on. */
export interface Proposal {
  /** 1 to 255 characters. */
  readonly value: string
  /** Whether it takes the place of what is kept; otherwise it is kept only where nothing is. */
  readonly replace: boolean
}

/**
 * Where key records live: the port that a custom adapter implements.
 *
 * What is returned is the caller's: an adapter hands out copies, and keeps copies of what it is handed. A method
 * that cannot do its work rejects; it never answers "not there" for "could not look". Optional members are
 * capabilities: a store without one is refused, by name, for what needs it.
 *
 * A text that the store cannot keep as it is, for its encoding or its length, is refused where it is to be kept, with
 * `unsupported`, and nothing is written. Where records are looked for by it there are none: `find` answers null, `list` nothing,
 * `update` `missing`, `replaceDigest` false. Only ids, names and other texts of people can be such: lookups and digests are ASCII.
 */
export interface KeyStore {
  /**
   * Adds the records, all or none. A record whose lineage has a quota already joins it: its own `quota`
   * is then ignored.
   *
   * @throws LatchkeyError `duplicate_key` when an `id` or a `lookup` exists already, in the store or in the batch;
   * `unsupported` when a text cannot be kept.
   */
  insert(records: readonly KeyRecord[]): Promise<void>

  /**
   * The record with this id, or with one of these lookups; null when there is none. Of several the one whose lookup
   * comes first. The answer includes every write that has resolved, so it never comes from a cache or a replica that may
   * lag: one that does brings revoked keys back.
   */
  find(by: { readonly id: string } | { readonly lookups: readonly string[] }): Promise<KeyRecord | null>

  /**
   * Applies the change if the stored version is `expectedVersion`, which then becomes `expectedVersion + 1`: one
   * compare-and-swap. A change without members but `updatedAt` still raises the version. Never clears `revokedAt`.
   *
   * @throws LatchkeyError `unsupported` when a text cannot be kept.
   */
  update(id: string, expectedVersion: number, change: KeyChange): Promise<'updated' | 'conflict' | 'missing'>

  /** Replaces the digest if it still is `expected`: one compare-and-swap that leaves the version alone. */
  replaceDigest(id: string, expected: string, next: string): Promise<boolean>

  /**
   * The first `limit` records behind `after`, in the order of `(createdAt, id)`, ids compared by code point; with `order: 'newest'`
   * in the opposite order, of both. The keys of several owners are mixed in this order. It stays as it is while keys are
   * inserted. A listing that begins after a write has resolved includes it: whoever revokes all keys of an owner finds them here.
   */
  list(filter: KeyFilter, page: ListPage): Promise<KeyRecord[]>

  /** How many records `list` has for this filter. Without this method, they are counted by listing them, 1,000 at a time. */
  count?(filter: KeyFilter): Promise<number>

  /** Removes those of the records that at `at` still are revoked or expired; returns how many. */
  purge(ids: readonly string[], at: Date): Promise<number>

  /**
   * Clears members of a record if the stored version is `expectedVersion`, which then becomes `expectedVersion + 1`: the
   * compare-and-swap of `update`, for what only `erase` changes. A listing by `createdBy` no longer includes the record.
   */
  forget?(
    id: string,
    expectedVersion: number,
    forgetting: Forgetting,
  ): Promise<'updated' | 'conflict' | 'missing'>

  /**
   * Counts add, `lastUsedAt` takes the later of both and brings its address along. Called at least once per batch.
   *
   * @throws LatchkeyError `unsupported` when an address cannot be kept: then nothing of the batch was counted, and the rest of it
   * comes again without that address.
   */
  recordUsage?(batch: readonly UsageDelta[]): Promise<void>

  /**
   * Replaces the quota of the lineage by `next` if its `epoch`, `allotted` and `remaining` still are those of `expected`: one
   * compare-and-swap. Otherwise it answers what the lineage has now, as of a write that has resolved, never from a cache
   * or a replica; `current` is null where the lineage has no quota, or it was removed.
   *
   * "Not swapped" has to be certain. Where the store cannot know, because a reply was lost or its driver may have sent
   * the command twice, it rejects, and the same swap comes again.
   */
  swapQuota?(lineageId: string, expected: QuotaRecord, next: QuotaRecord): Promise<QuotaSwapResult>

  /**
   * The same for several lineages, each at most once, for stores that do that sooner together than one by one. Each swap is
   * made or refused by itself; the results are in the order of the swaps. It rejects where it does not know of any one of them.
   */
  swapQuotas?(swaps: readonly QuotaSwap[]): Promise<readonly QuotaSwapResult[]>

  /**
   * What the processes that share the keys have agreed on under a name of 1 to 255 characters: keeps the proposal, and answers
   * what is kept then, in one atomic step. Of many that propose at once the first wins, and all are answered its value.
   * Without a proposal it only looks, and answers null where nothing is kept. What is kept stays, whatever becomes of keys.
   */
  agree?(name: string, proposal: Proposal | null): Promise<string | null>
}
