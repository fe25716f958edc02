import { compareCodePoints } from '../../internal/code-points.ts'
import type { Quota, QuotaRecord } from '../limits/quota.ts'
import type { HourlyCount, UsageBatch, UsageRemoval, UsageSelection } from '../usage/usage-counts.ts'
import type { KeyRecord, KeyStatus, Owner } from './record.ts'

/** What an administrator may change on a key. An absent member stays as it is. */
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
   * Sets the quota of the key's lineage to `startQuota(quota, existing, updatedAt)`, where `existing` is the current
   * one, in the same atomic step. Null removes the quota but keeps its epoch: `existing` of the next quota is the
   * removed one, so units that a process still holds from it are void.
   */
  readonly quota?: Quota | null
}

/** What to clear about a person on a key that stays. An absent member stays as it is. */
export interface Forgetting {
  readonly createdBy?: null
  readonly revokedBy?: null
  /** The time of the last use stays. */
  readonly lastUsedIp?: null
  readonly updatedAt: Date
}

/** Which keys to list. A key must match every given member. */
export interface KeyFilter {
  /** Only keys of these owners: 1 to 100, each named once. */
  readonly owners?: readonly Owner[]
  readonly createdBy?: string
  readonly name?: string
  readonly lineageId?: string
  /** Only keys that have this status at the moment `at`, as `keyStatus` decides it. */
  readonly status?: { readonly is: KeyStatus; readonly at: Date }
  /** Only keys that were revoked or expired before this moment. */
  readonly endedBefore?: Date
  /** Only keys with an `expiresAt` before this moment, whatever their status. `idleExpiryMs` does not count. */
  readonly expiresBefore?: Date
}

/** Which keys come first: the oldest or the newest. */
export type KeyOrder = 'oldest' | 'newest'

/** Which part of a listing to return. */
export interface ListPage {
  /** The most records to return. */
  readonly limit: number
  /** Begins right after this position, in the order of the listing. If left out, at the start. */
  readonly after?: KeyPosition
  /**
   * `newest` lists in exactly the opposite order.
   *
   * @default the keys that were created first come first
   */
  readonly order?: 'newest'
}

/** A place in the order of a listing: right after this record. */
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

/** How a key was used since the last batch. */
export interface UsageDelta {
  readonly id: string
  /** How many uses to add. */
  readonly count: number
  /** The time of the latest use. */
  readonly lastUsedAt: Date
  /** The client address of the latest use, if known. */
  readonly lastUsedIp: string | null
}

/** A move of units between a process and the quota of a lineage. */
export interface QuotaSwap {
  readonly lineageId: string
  /** The quota that the process expects in the store. */
  readonly expected: QuotaRecord
  /** The quota that replaces it. */
  readonly next: QuotaRecord
}

/** The result of a swap. `current` is what the lineage has instead; null if it has no quota. */
export type QuotaSwapResult =
  | { readonly swapped: true }
  | { readonly swapped: false; readonly current: QuotaRecord | null }

/** A value that a process proposes for an agreement. */
export interface Proposal {
  /** 1 to 255 characters. */
  readonly value: string
  /** Whether it replaces a stored value. Otherwise it is stored only if there is none. */
  readonly replace: boolean
  /** Replaces this value and no other, if it is what is stored: a compare-and-swap. `replace` is false then. */
  readonly expected?: string
}

/**
 * Stores key records: the interface that a custom adapter implements.
 *
 * The caller owns what it receives: an adapter returns copies, and stores copies of what it receives. A method that
 * cannot do its work rejects; it never reports "not there" for "could not look". Optional members are capabilities:
 * without one, Latchkey refuses whatever needs it, and names it.
 *
 * Some stores cannot keep a text unchanged, because of its encoding or length. A write of such a text fails with
 * `unsupported` and writes nothing. A search by such a text finds nothing: `find` returns null, `list` no records,
 * `update` `missing`, `replaceDigest` false. This concerns only ids, names and other texts from people: lookups and
 * digests are ASCII.
 */
export interface KeyStore {
  /**
   * Adds the records, all or none. If a record's lineage already has a quota, the record joins it and its own `quota`
   * is ignored.
   *
   * @throws LatchkeyError `duplicate_key` when an `id` or a `lookup` already exists, in the store or in the batch;
   * `unsupported` when the store cannot keep a text.
   */
  insert(records: readonly KeyRecord[]): Promise<void>

  /**
   * Returns the record with this id, or with one of these lookups; null if there is none. Of several, it returns the
   * one whose lookup comes first in `lookups`. The answer must include every write that has resolved. Never answer from
   * a cache or a lagging replica: that brings revoked keys back.
   */
  find(by: { readonly id: string } | { readonly lookups: readonly string[] }): Promise<KeyRecord | null>

  /**
   * Applies the change if the stored version is `expectedVersion`, and raises the version by one: one compare-and-swap.
   * A change with only `updatedAt` raises the version too. Never clears `revokedAt`.
   *
   * @throws LatchkeyError `unsupported` when the store cannot keep a text.
   */
  update(id: string, expectedVersion: number, change: KeyChange): Promise<'updated' | 'conflict' | 'missing'>

  /** Replaces the digest if it still is `expected`: one compare-and-swap that does not change the version. */
  replaceDigest(id: string, expected: string, next: string): Promise<boolean>

  /**
   * Returns the first `limit` records after `after`, in order of `(createdAt, id)`, ids compared by code point; `order:
   * 'newest'` reverses both. Keys of several owners are mixed in this order. Inserting keys does not change the order
   * of the others. A listing that begins after a write has resolved includes it: revoking all keys of an owner relies
   * on that.
   */
  list(filter: KeyFilter, page: ListPage): Promise<KeyRecord[]>

  /**
   * Counts the records that `list` returns for this filter. Without this method, Latchkey lists and counts them, 1,000
   * at a time.
   */
  count?(filter: KeyFilter): Promise<number>

  /**
   * Removes those of the records that are still revoked or expired at `at`, and what `addUsage` counted of these keys; returns how
   * many. The counts of their owners stay.
   */
  purge(ids: readonly string[], at: Date): Promise<number>

  /**
   * Clears members of a record if the stored version is `expectedVersion`, and raises the version by one: the
   * compare-and-swap of `update`, for members that only `erase` changes. A listing by `createdBy` no longer includes
   * the record.
   */
  forget?(
    id: string,
    expectedVersion: number,
    forgetting: Forgetting,
  ): Promise<'updated' | 'conflict' | 'missing'>

  /**
   * Adds the counts, and keeps the later `lastUsedAt` with its address. Latchkey calls it at least once per batch.
   *
   * @throws LatchkeyError `unsupported` when the store cannot keep an address. Then nothing of the batch may be
   * counted: Latchkey sends the rest again, without that address.
   */
  recordUsage?(batch: readonly UsageDelta[]): Promise<void>

  /**
   * Replaces the quota of the lineage by `next` if its `epoch`, `allotted` and `remaining` still equal those of
   * `expected`: one compare-and-swap. Otherwise it returns what the lineage has now, including every write that has
   * resolved, never from a cache or a replica. `current` is null if the lineage has no quota, or it was removed.
   *
   * "Not swapped" must be certain. If the store cannot know, because a reply was lost or its driver may have sent the
   * command twice, it rejects, and Latchkey sends the same swap again.
   */
  swapQuota?(lineageId: string, expected: QuotaRecord, next: QuotaRecord): Promise<QuotaSwapResult>

  /**
   * The same for several lineages, each at most once, for stores that swap many faster together. Each swap succeeds or
   * fails independently; the results are in the order of the swaps. It rejects if it does not know the result of any
   * one of them.
   */
  swapQuotas?(swaps: readonly QuotaSwap[]): Promise<readonly QuotaSwapResult[]>

  /**
   * Stores what the processes that share the keys agree on, under a name of 1 to 255 characters. It stores the proposal
   * and returns the stored value, in one atomic step. If several processes propose at once, the first wins, and all
   * receive its value. A proposal with `expected` also replaces exactly that value. Without a proposal it only reads, and returns null if nothing is stored. Changes to keys never
   * remove an agreement.
   */
  agree?(name: string, proposal: Proposal | null): Promise<string | null>

  /**
   * Adds counts to those of each key, hour and counter, and to those of the key's owner, all or none. Counts of permissions are not
   * added to owners. Keys that are not in the store are left out, and their owners' counts too. A store that has added a batch of this
   * writer with this number or a higher one adds nothing. It may forget a writer that has sent nothing for three days.
   *
   * A store has all of `addUsage`, `readUsage` and `removeUsage`, or none.
   */
  addUsage?(batch: UsageBatch): Promise<void>

  /** Returns the counts of a key or an owner: one for each hour and counter, in any order, without those that add up to 0. */
  readUsage?(selection: UsageSelection): Promise<readonly HourlyCount[]>

  /** Removes the counts of an owner; or those of all keys and owners from before an hour, which may be rounded down to a day of UTC. */
  removeUsage?(removal: UsageRemoval): Promise<void>
}
