import { LRUCache } from 'lru-cache'
import type { Awaitable } from '../internal/awaitable.ts'
import type { Clock } from './clock.ts'
import type { FaultGuard } from './faults.ts'
import type { Owner } from './record.ts'

export interface OwnerStatus {
  /** Whether the owner may use keys, as the application said at most `maxAgeMs` ago. */
  isActive(owner: Owner): Awaitable<boolean>
  /** Forgets what was said of the owner; an answer under way will not be remembered. */
  forget(owner: Owner): void
}

interface Answer {
  readonly active: boolean
  readonly askedAt: number
}

/** Asks the application about owners, once for all who wait, and remembers the answers. */
export function createOwnerStatus(
  ask: ((owner: Owner) => Awaitable<boolean>) | undefined,
  options: { maxAgeMs: number; maxEntries: number },
  clock: Clock,
  guard: FaultGuard,
): OwnerStatus {
  if (!ask) return { isActive: () => true, forget() {} }
  const isOwnerActive = ask
  const answers = new LRUCache<string, Answer>({ max: options.maxEntries })
  const asking = new Map<string, Promise<boolean>>()

  function isActive(owner: Owner): Awaitable<boolean> {
    const id = idOf(owner)
    const known = answers.get(id)
    if (known && clock.now() - known.askedAt < options.maxAgeMs) return known.active
    return asking.get(id) ?? start(owner, id)
  }

  function start(owner: Owner, id: string): Promise<boolean> {
    const askedAt = clock.now()
    const answer: Promise<boolean> = guard
      .run('owner_status', async () => {
        const active: unknown = await isOwnerActive(owner)
        if (typeof active !== 'boolean') throw new TypeError('"isOwnerActive" must answer true or false')
        return active
      })
      .then((active) => {
        if (asking.get(id) === answer) answers.set(id, { active, askedAt })
        return active
      })
      .finally(() => {
        if (asking.get(id) === answer) asking.delete(id)
      })
    asking.set(id, answer)
    return answer
  }

  function forget(owner: Owner): void {
    answers.delete(idOf(owner))
    asking.delete(idOf(owner))
  }

  return { isActive, forget }
}

function idOf(owner: Owner): string {
  return `${owner.type.length} ${owner.type} ${owner.id}`
}
