import { LRUCache } from 'lru-cache'
import type { Awaitable } from '../internal/awaitable.ts'
import type { Clock } from './clock.ts'
import type { FaultGuard } from './faults.ts'
import type { ApiKey, Owner } from './record.ts'

/** Whether the owner of a key may use keys, as the application said of this version of the key. */
export type OwnerStatus = (apiKey: ApiKey) => Awaitable<boolean>

interface Answer {
  readonly version: number
  readonly active: boolean
  readonly askedAt: number
}

/**
 * Asks the application about owners, once for all who wait, and remembers an answer for `maxAgeMs` at most. An
 * answer belongs to a version of a key: raising the versions of an owner's keys ends all that was said of him, in
 * every process, and an answer under way belongs to the old version.
 */
export function createOwnerStatus(
  ask: ((owner: Owner) => Awaitable<boolean>) | undefined,
  options: { maxAgeMs: number; maxEntries: number },
  clock: Clock,
  guard: FaultGuard,
): OwnerStatus {
  if (!ask) return () => true
  const isOwnerActive = ask
  const answers = new LRUCache<string, Answer>({ max: options.maxEntries })
  const asking = new Map<string, Promise<boolean>>()

  return function isActive(apiKey) {
    const known = answers.get(apiKey.id)
    if (known?.version === apiKey.version) {
      const age = clock.now() - known.askedAt
      // A clock that was set back makes nothing younger.
      if (age >= 0 && age < options.maxAgeMs) return known.active
    }
    return asking.get(idOf(apiKey)) ?? start(apiKey)
  }

  function start(apiKey: ApiKey): Promise<boolean> {
    const { id, version, owner } = apiKey
    const askedAt = clock.now()
    const answer = guard
      .run('owner_status', async () => {
        const active: unknown = await isOwnerActive(owner)
        if (typeof active !== 'boolean') throw new TypeError('"isOwnerActive" must answer true or false')
        return active
      })
      .then((active) => {
        const known = answers.get(id)
        if (!known || known.version <= version) answers.set(id, { version, active, askedAt })
        return active
      })
      .finally(() => asking.delete(idOf(apiKey)))
    asking.set(idOf(apiKey), answer)
    return answer
  }
}

function idOf({ id, version }: ApiKey): string {
  return `${id} ${version}`
}
