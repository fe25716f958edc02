import { LRUCache } from 'lru-cache'
import type { Awaitable } from '../../internal/awaitable.ts'
import { deepFreeze } from '../../internal/deep-freeze.ts'
import { OptionError } from '../../internal/option-error.ts'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import { checkPermissions, intersectPermissions, type Permissions } from '../keys/permissions.ts'
import type { ApiKey, Owner } from '../keys/record.ts'

/**
 * The key as its owner may use it now, with the permissions that both hold; null while the owner may use no keys. As the
 * application said of this version of the key.
 */
export type OwnerState = (apiKey: ApiKey) => Awaitable<ApiKey | null>

/** What an application says of an owner. */
export interface OwnerHooks {
  readonly isOwnerActive: ((owner: Owner) => Awaitable<boolean>) | undefined
  readonly ownerPermissions: ((owner: Owner) => Awaitable<Permissions | null>) | undefined
}

interface Standing {
  readonly isActive: boolean
  /** What the owner holds; null restricts nothing. */
  readonly permissions: Permissions | null
}

interface Answer {
  readonly version: number
  readonly askedAt: number
  readonly standing: Standing
  /** The copy of the key that `shown` was made of: a copy that is read again may show later uses. */
  apiKey: ApiKey
  shown: ApiKey | null
}

/**
 * Asks the application about owners, once for all who wait, and remembers an answer for `maxAgeMs` at most. An
 * answer belongs to a version of a key: raising the versions of an owner's keys ends all that was said of him, in
 * every process, and an answer under way belongs to the old version.
 *
 * Null where there is nothing to ask.
 */
export function createOwnerState(
  { isOwnerActive, ownerPermissions }: OwnerHooks,
  options: { maxAgeMs: number; maxEntries: number },
  clock: Clock,
  guard: DependencyRunner,
): OwnerState | null {
  if (!isOwnerActive && !ownerPermissions) return null
  const answers = new LRUCache<string, Answer>({ max: options.maxEntries })
  const asking = new Map<string, Promise<Answer>>()

  return function standingOf(apiKey) {
    const known = answers.get(apiKey.id)
    if (known?.version === apiKey.version) {
      const age = clock.now() - known.askedAt
      // A clock that was set back makes nothing younger.
      if (age >= 0 && age < options.maxAgeMs) return shownBy(known, apiKey)
    }
    const underWay = asking.get(idOf(apiKey)) ?? start(apiKey)
    return underWay.then((answer) => shownBy(answer, apiKey))
  }

  function start(apiKey: ApiKey): Promise<Answer> {
    const { id, version, owner } = apiKey
    const askedAt = clock.now()
    const asked = guard
      .run('owner_status', () => ask(owner))
      .then((standing) => {
        const answer = { version, askedAt, standing, apiKey, shown: show(standing, apiKey) }
        const known = answers.get(id)
        if (!known || known.version <= version) answers.set(id, answer)
        return answer
      })
      .finally(() => asking.delete(idOf(apiKey)))
    asking.set(idOf(apiKey), asked)
    return asked
  }

  /** Nobody has to know what an owner holds who may use no keys. */
  async function ask(owner: Owner): Promise<Standing> {
    const isActive: unknown = isOwnerActive ? await isOwnerActive(owner) : true
    if (typeof isActive !== 'boolean') throw new OptionError('isOwnerActive', 'answer true or false')
    if (!isActive || !ownerPermissions) return { isActive, permissions: null }
    const permissions: unknown = await ownerPermissions(owner)
    // Only null says that nothing is restricted: undefined is what comes of a look-up that found nobody.
    return {
      isActive,
      permissions: permissions === null ? null : checkPermissions('ownerPermissions', permissions),
    }
  }
}

/** What an answer makes of a copy of the key; worked out once for each copy. */
function shownBy(answer: Answer, apiKey: ApiKey): ApiKey | null {
  if (answer.apiKey !== apiKey) {
    answer.shown = show(answer.standing, apiKey)
    answer.apiKey = apiKey
  }
  return answer.shown
}

function show({ isActive, permissions }: Standing, apiKey: ApiKey): ApiKey | null {
  if (!isActive) return null
  if (permissions === null) return apiKey
  return deepFreeze({ ...apiKey, permissions: intersectPermissions(apiKey.permissions, permissions) })
}

function idOf({ id, version }: ApiKey): string {
  return `${id} ${version}`
}
