import type { ApiKeys } from '../core/api-keys.ts'
import type { KeySettings } from '../core/keys/key-settings.ts'
import type { ApiKey, KeyStatus, Owner } from '../core/keys/record.ts'
import type { IssuedKey } from '../core/manage/key-management.ts'
import type { LatchkeyError } from '../errors.ts'
import type { HandlerParts } from './handler-parts.ts'
import { refusal } from './refusal.ts'

const PAGE = 1_000
const NO_ROOM = 'The owner has as many API keys as are allowed'
const UNCOUNTED = 'The API keys of the owner could not be counted'
/** A key revived over the limit expires this much later: `expiresAt` cannot be in the past. */
const SOON_MS = 1_000

/** Keeps every owner within the allowed number of keys, even with concurrent requests. */
export class KeyCountLimit {
  private readonly keys: ApiKeys
  /** Null if there is no limit. */
  private readonly max: number | null
  private readonly now: () => number
  /** The last queued request of each owner. */
  private readonly queue = new Map<string, Promise<unknown>>()

  constructor({ keys, policy, now }: Omit<HandlerParts, 'limits'>) {
    this.keys = keys
    this.max = policy.maxKeysPerOwner
    this.now = now
  }

  /**
   * Makes a new key, if there is room for it.
   *
   * @throws LatchkeyError `too_many_keys`: then the new key is revoked. It is also revoked if counting fails.
   */
  issue(owner: Owner, act: () => Promise<IssuedKey>): Promise<IssuedKey> {
    return this.fill(owner, null, act, ({ apiKey }, reason) => this.revokeLine(apiKey.id, reason))
  }

  /**
   * Lets an expired key work again, if there is room for it.
   *
   * @throws LatchkeyError `too_many_keys`: then the key expires again within a second; `conflict`: a rotated key cannot be revived.
   */
  async revive(apiKey: ApiKey, change: Partial<KeySettings>, act: () => Promise<ApiKey>): Promise<ApiKey> {
    if (apiKey.rotatedTo !== null) throw refusal('conflict')
    return this.fill(apiKey.owner, apiKey.lineageId, act, (_revived, reason) =>
      this.expireAgain(apiKey, change, reason),
    )
  }

  /** Enables a key. A disabled key counts too, but the change must not happen during a count, which might miss the key. */
  enable(owner: Owner, act: () => Promise<ApiKey>): Promise<ApiKey> {
    return this.max === null ? act() : this.inTurn(owner, act)
  }

  /**
   * During its grace period, a rotated key and its successor count as one. So that nobody collects keys in their grace periods, a key
   * cannot be rotated until the grace period of the previous one is over.
   *
   * @throws LatchkeyError `too_many_keys`
   */
  async requireForRotation({ rotatedFrom }: ApiKey): Promise<void> {
    if (this.max === null || rotatedFrom === null) return
    const previous = await this.keys.get(rotatedFrom)
    if (previous && !this.hasEnded(previous)) {
      throw refusal('too_many_keys', {
        accepted: 'to rotate once the previous key has ended or is revoked',
      })
    }
  }

  /** Runs requests of one owner one after another, so that only one of two gets the last place. */
  private inTurn<Done>({ type, id }: Owner, act: () => Promise<Done>): Promise<Done> {
    const name = JSON.stringify([type, id])
    const turn = (this.queue.get(name) ?? Promise.resolve()).then(act)
    const forget = () => {
      if (this.queue.get(name) === settled) this.queue.delete(name)
    }
    const settled: Promise<unknown> = turn.then(forget, forget)
    this.queue.set(name, settled)
    return turn
  }

  /** `lineageId` is the lineage of an existing key, or null. `takeBack` undoes `act`. */
  private async fill<Done>(
    owner: Owner,
    lineageId: string | null,
    act: () => Promise<Done>,
    takeBack: (done: Done, reason: string) => Promise<void>,
  ): Promise<Done> {
    const { max } = this
    if (max === null) return act()
    return this.inTurn(owner, async () => {
      if ((await this.countOthers(owner, lineageId, ['active', 'disabled'])) >= max) throw tooMany(max)
      const done = await act()
      let others: number
      try {
        // Another process may have acted at the same time. The last one sees all keys.
        const own = lineageId ?? (done as IssuedKey).apiKey.lineageId
        others = await this.countOthers(owner, own, ['active', 'disabled', 'active'])
      } catch (error) {
        // A key that could not be counted does not stay.
        await takeBack(done, UNCOUNTED).catch(() => {})
        throw error
      }
      if (others < max) return done
      await takeBack(done, NO_ROOM)
      throw tooMany(max)
    })
  }

  /**
   * Counts the other lineages with active or disabled keys, up to the limit. It does not read ended keys, however many there are.
   * Another process may enable a key after the first reading of the active ones: a second reading finds it.
   */
  private async countOthers(
    owner: Owner,
    lineageId: string | null,
    statuses: readonly KeyStatus[],
  ): Promise<number> {
    const { max } = this
    const others = new Set<string>()
    for (const status of statuses) {
      let cursor: string | undefined
      do {
        if (max !== null && others.size >= max) return others.size
        const page = await this.keys.list({
          owner,
          status,
          limit: PAGE,
          ...(cursor !== undefined && { cursor }),
        })
        for (const apiKey of page.apiKeys) others.add(apiKey.lineageId)
        if (lineageId !== null) others.delete(lineageId)
        cursor = page.nextCursor
      } while (cursor !== undefined)
    }
    return others.size
  }

  /** Revokes a key whose secret was never returned, and its successors, in case it was rotated meanwhile. */
  private async revokeLine(id: string | null, reason: string): Promise<void> {
    for (let next = id; next !== null; ) next = (await this.keys.revoke(next, { reason })).rotatedTo
  }

  /** Never revokes an existing key: restores its settings, or lets it expire as soon as possible. */
  private async expireAgain(old: ApiKey, change: Partial<KeySettings>, reason: string): Promise<void> {
    const before = Object.entries(settingsOf(old)).filter(
      ([member]) => change[member as keyof KeySettings] !== undefined,
    )
    const settings: Partial<KeySettings> = Object.fromEntries(before)
    const soon = new Date(this.now() + SOON_MS)
    if (settings.expiresAt && settings.expiresAt < soon) settings.expiresAt = soon
    try {
      await this.keys.update(old.id, settings)
    } catch (error) {
      const apiKey = await this.keys.get(old.id)
      // Revoked meanwhile, or rotated to end even sooner.
      if (apiKey && apiKey.revokedAt === null && apiKey.rotatedTo === null) throw error
    }
    await this.revokeLine((await this.keys.get(old.id))?.rotatedTo ?? null, reason)
  }

  /** An idle key in its grace period has not ended: a use may not be recorded yet. */
  private hasEnded({ revokedAt, expiresAt }: ApiKey): boolean {
    return revokedAt !== null || (expiresAt !== null && expiresAt.getTime() <= this.now())
  }
}

function tooMany(max: number) {
  return refusal('too_many_keys', { accepted: `at most ${max} keys of one owner` })
}

/** The refusal of a repetition that finds a key revoked for lack of room; null for any other key. */
export function refusalOfTaken({ revokedBy, revokedReason }: ApiKey): LatchkeyError | null {
  if (revokedBy !== null) return null
  if (revokedReason === NO_ROOM) {
    return refusal('too_many_keys', { accepted: 'another Idempotency-Key, once there is room' })
  }
  return revokedReason === UNCOUNTED ? refusal('conflict', { accepted: 'another Idempotency-Key' }) : null
}

/** All settings of a key, as `keys.update` takes them. */
function settingsOf({ quota, ...apiKey }: ApiKey): Partial<KeySettings> {
  return { ...apiKey, quota: quota && { remaining: quota.remaining, refill: quota.refill } }
}
