import type { KeySettings } from '../core/keys/key-settings.ts'
import type { ApiKey, KeyStatus, Owner } from '../core/keys/record.ts'
import type { IssuedKey } from '../core/manage/key-management.ts'
import type { LatchkeyError } from '../errors.ts'
import type { HandlerParts } from './handler-parts.ts'
import { refusal } from './refusal.ts'

/** Keeps every owner within the allowed number of keys, even with concurrent requests. */
export interface KeyCountLimit {
  /**
   * Makes a new key, if there is room for it.
   *
   * @throws LatchkeyError `too_many_keys`: then the new key is revoked. It is also revoked if counting fails.
   */
  issue(owner: Owner, act: () => Promise<IssuedKey>): Promise<IssuedKey>
  /**
   * Lets an expired key work again, if there is room for it.
   *
   * @throws LatchkeyError `too_many_keys`: then the key expires again within a second; `conflict`: a rotated key cannot be revived.
   */
  revive(apiKey: ApiKey, change: Partial<KeySettings>, act: () => Promise<ApiKey>): Promise<ApiKey>
  /** Enables a key. A disabled key counts too, but the change must not happen during a count, which might miss the key. */
  enable(owner: Owner, act: () => Promise<ApiKey>): Promise<ApiKey>
  /**
   * During its grace period, a rotated key and its successor count as one. So that nobody collects keys in their grace periods, a key
   * cannot be rotated until the grace period of the previous one is over.
   *
   * @throws LatchkeyError `too_many_keys`
   */
  requireForRotation(apiKey: ApiKey): Promise<void>
}

const PAGE = 1_000
const NO_ROOM = 'The owner has as many API keys as are allowed'
const UNCOUNTED = 'The API keys of the owner could not be counted'
/** A key revived over the limit expires this much later: `expiresAt` cannot be in the past. */
const SOON_MS = 1_000

export function createKeyCountLimit({ keys, policy, now }: Omit<HandlerParts, 'limits'>): KeyCountLimit {
  const max = policy.maxKeysPerOwner
  /** The last queued request of each owner. */
  const queue = new Map<string, Promise<unknown>>()

  /** Runs requests of one owner one after another, so that only one of two gets the last place. */
  function inTurn<Done>({ type, id }: Owner, act: () => Promise<Done>): Promise<Done> {
    const name = JSON.stringify([type, id])
    const turn = (queue.get(name) ?? Promise.resolve()).then(act)
    const settled: Promise<unknown> = turn.then(forget, forget)
    queue.set(name, settled)
    return turn

    function forget(): void {
      if (queue.get(name) === settled) queue.delete(name)
    }
  }

  /** `lineageId` is the lineage of an existing key, or null. `takeBack` undoes `act`. */
  async function fill<Done>(
    owner: Owner,
    lineageId: string | null,
    act: () => Promise<Done>,
    takeBack: (done: Done, reason: string) => Promise<void>,
  ): Promise<Done> {
    if (max === null) return act()
    return inTurn(owner, async () => {
      if ((await countOthers(owner, lineageId, ['active', 'disabled'])) >= max) throw tooMany(max)
      const done = await act()
      let others: number
      try {
        // Another process may have acted at the same time. The last one sees all keys.
        const own = lineageId ?? (done as IssuedKey).apiKey.lineageId
        others = await countOthers(owner, own, ['active', 'disabled', 'active'])
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
  async function countOthers(
    owner: Owner,
    lineageId: string | null,
    statuses: readonly KeyStatus[],
  ): Promise<number> {
    const others = new Set<string>()
    for (const status of statuses) {
      let cursor: string | undefined
      do {
        if (max !== null && others.size >= max) return others.size
        const page = await keys.list({ owner, status, limit: PAGE, ...(cursor !== undefined && { cursor }) })
        for (const apiKey of page.apiKeys) others.add(apiKey.lineageId)
        if (lineageId !== null) others.delete(lineageId)
        cursor = page.nextCursor
      } while (cursor !== undefined)
    }
    return others.size
  }

  /** Revokes a key whose secret was never returned, and its successors, in case it was rotated meanwhile. */
  async function revokeLine(id: string | null, reason: string): Promise<void> {
    for (let next = id; next !== null; ) next = (await keys.revoke(next, { reason })).rotatedTo
  }

  /** Never revokes an existing key: restores its settings, or lets it expire as soon as possible. */
  async function expireAgain(old: ApiKey, change: Partial<KeySettings>, reason: string): Promise<void> {
    const before = Object.entries(settingsOf(old)).filter(
      ([member]) => change[member as keyof KeySettings] !== undefined,
    )
    const settings: Partial<KeySettings> = Object.fromEntries(before)
    const soon = new Date(now() + SOON_MS)
    if (settings.expiresAt && settings.expiresAt < soon) settings.expiresAt = soon
    try {
      await keys.update(old.id, settings)
    } catch (error) {
      const apiKey = await keys.get(old.id)
      // Revoked meanwhile, or rotated to end even sooner.
      if (apiKey && apiKey.revokedAt === null && apiKey.rotatedTo === null) throw error
    }
    await revokeLine((await keys.get(old.id))?.rotatedTo ?? null, reason)
  }

  /** An idle key in its grace period has not ended: a use may not be recorded yet. */
  function hasEnded({ revokedAt, expiresAt }: ApiKey): boolean {
    return revokedAt !== null || (expiresAt !== null && expiresAt.getTime() <= now())
  }

  return {
    issue: (owner, act) => fill(owner, null, act, ({ apiKey }, reason) => revokeLine(apiKey.id, reason)),
    async revive(apiKey, change, act) {
      if (apiKey.rotatedTo !== null) throw refusal('conflict')
      return fill(apiKey.owner, apiKey.lineageId, act, (_revived, reason) =>
        expireAgain(apiKey, change, reason),
      )
    },
    enable: (owner, act) => (max === null ? act() : inTurn(owner, act)),
    async requireForRotation({ rotatedFrom }) {
      if (max === null || rotatedFrom === null) return
      const previous = await keys.get(rotatedFrom)
      if (previous && !hasEnded(previous)) {
        throw refusal('too_many_keys', {
          accepted: 'to rotate once the previous key has ended or is revoked',
        })
      }
    },
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
