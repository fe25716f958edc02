import { type ApiKey, keyStatus, type Owner } from '../core/record.ts'
import type { HandlerParts } from './handlers.ts'
import { refusal } from './refusal.ts'

/** Sees to it that no owner has more keys than are allowed, whoever asks at the same time. */
export interface KeyRoom {
  /**
   * Makes a key count that did not, if there is room for it.
   *
   * @throws LatchkeyError `too_many_keys`: then the key that was made is revoked.
   */
  fill<Done>(owner: Owner, act: () => Promise<Done>, keyOf: (done: Done) => ApiKey): Promise<Done>
  /**
   * A key that was rotated does not count while its grace lasts: its successor does in its place. So that nobody piles up
   * keys in their grace, a key is not rotated while the one before it still works.
   *
   * @throws LatchkeyError `too_many_keys`
   */
  requireForRotation(apiKey: ApiKey): Promise<void>
}

const PAGE = 1_000
const REASON = 'The owner has as many API keys as are allowed'

export function createKeyRoom({ keys, policy, now }: Omit<HandlerParts, 'limits'>): KeyRoom {
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

  async function fillNow<Done>(
    owner: Owner,
    most: number,
    act: () => Promise<Done>,
    keyOf: (done: Done) => ApiKey,
  ): Promise<Done> {
    if ((await count(owner, most)) >= most) throw tooMany(most)
    const done = await act()
    const { id } = keyOf(done)
    try {
      // Another process may have been as quick. Whoever comes last sees all of them.
      if ((await count(owner, most + 1)) <= most) return done
    } catch (error) {
      // Uncounted, it is not let through; and its text goes to nobody.
      await keys.revoke(id, { reason: REASON }).catch(() => {})
      throw error
    }
    await keys.revoke(id, { reason: REASON })
    throw tooMany(most)
  }

  /**
   * Counts up to `enough`. It looks at each key once, in an order that no change moves: what is disabled or enabled in
   * between is counted all the same.
   */
  async function count(owner: Owner, enough: number): Promise<number> {
    let counted = 0
    let cursor: string | undefined
    do {
      const page = await keys.list({ owner, limit: PAGE, ...(cursor !== undefined && { cursor }) })
      counted += page.apiKeys.filter((apiKey) => isAlive(apiKey) && apiKey.rotatedTo === null).length
      cursor = page.nextCursor
    } while (cursor !== undefined && counted < enough)
    return counted
  }

  function isAlive(apiKey: ApiKey): boolean {
    const status = keyStatus(apiKey, new Date(now()))
    return status === 'active' || status === 'disabled'
  }

  return {
    fill: (owner, act, keyOf) => {
      return max === null ? act() : inTurn(owner, () => fillNow(owner, max, act, keyOf))
    },
    async requireForRotation({ rotatedFrom }) {
      if (max === null || rotatedFrom === null) return
      const previous = await keys.get(rotatedFrom)
      if (previous && isAlive(previous)) {
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
