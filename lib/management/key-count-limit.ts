import type { KeySettings } from '../core/keys/key-settings.ts'
import type { ApiKey, KeyStatus, Owner } from '../core/keys/record.ts'
import type { IssuedKey } from '../core/manage/key-management.ts'
import type { LatchkeyError } from '../errors.ts'
import type { HandlerParts } from './handler-parts.ts'
import { refusal } from './refusal.ts'

/** Sees to it that no owner has more keys than are allowed, whoever asks at the same time. */
export interface KeyCountLimit {
  /**
   * Makes a new key, if there is room for it.
   *
   * @throws LatchkeyError `too_many_keys`: then the key that was made is revoked. So it is where it cannot be counted.
   */
  issue(owner: Owner, act: () => Promise<IssuedKey>): Promise<IssuedKey>
  /**
   * Lets an expired key work again, if there is room for it.
   *
   * @throws LatchkeyError `too_many_keys`: then the key expires again, a second later at most; `conflict`: one that was rotated
   * has ended for good.
   */
  revive(apiKey: ApiKey, change: Partial<KeySettings>, act: () => Promise<ApiKey>): Promise<ApiKey>
  /** Enables a key, which takes its place before and after, but not amid a count that might miss it. */
  enable(owner: Owner, act: () => Promise<ApiKey>): Promise<ApiKey>
  /**
   * A key that was rotated shares one place with its successor while its grace lasts. So that nobody piles up keys in their
   * grace, a key is not rotated before the grace of the one before it is over.
   *
   * @throws LatchkeyError `too_many_keys`
   */
  requireForRotation(apiKey: ApiKey): Promise<void>
}

const PAGE = 1_000
const NO_ROOM = 'The owner has as many API keys as are allowed'
const UNCOUNTED = 'The API keys of the owner could not be counted'
/** A key that was brought back over the limit ends so much later: no moment that has passed can be set. */
const SOON_MS = 1_000

export function createKeyCountLimit({ keys, policy, now }: Omit<HandlerParts, 'limits'>): KeyCountLimit {
  const max = policy.maxKeysPerOwner
  /** By owner, what was asked for last. */
  const queue = new Map<string, Promise<unknown>>()

  /** One after another, so that of two that ask here for the last place one gets it. */
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

  /** `lineageId` is that of a key which is there already, `takeBack` undoes what `act` has done. */
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
        // Another process may have been as quick. Whoever comes last sees all of them.
        const own = lineageId ?? (done as IssuedKey).apiKey.lineageId
        others = await countOthers(owner, own, ['active', 'disabled', 'active'])
      } catch (error) {
        // Uncounted, it is not let through.
        await takeBack(done, UNCOUNTED).catch(() => {})
        throw error
      }
      if (others < max) return done
      await takeBack(done, NO_ROOM)
      throw tooMany(max)
    })
  }

  /**
   * How many places keys of other lineages take, at least as far as the limit. Keys that have ended are not read, however
   * many there are. One that another process enables behind the first reading is found by a second one of the active.
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

  /** Nobody has the text of a key that is not answered; but it may have been rotated meanwhile. */
  async function revokeLine(id: string | null, reason: string): Promise<void> {
    for (let next = id; next !== null; ) next = (await keys.revoke(next, { reason })).rotatedTo
  }

  /** A key that was there before is never revoked: it gets back what it had, or ends as soon as can be. */
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

  /** Idleness is no end of a key in its grace: a use of it that is not written down yet may still come to light. */
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

/** What a repetition is told that finds a key which the room has taken back; null where it is any other. */
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
