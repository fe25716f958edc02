import { LRUCache } from 'lru-cache'
import type { Awaitable } from '../../internal/awaitable.ts'
import { deepFreeze } from '../../internal/deep-freeze.ts'
import { OptionError } from '../../internal/option-error.ts'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import { checkPermissions, intersectPermissions, type Permissions } from '../keys/permissions.ts'
import type { ApiKey, Owner } from '../keys/record.ts'

/**
 * The key as its owner may use it now, with the permissions that both have; null if the owner may use no keys. Based on
 * the application's answer for this version of the key.
 */
export type OwnerState = (apiKey: ApiKey) => Awaitable<ApiKey | null>

/** What the application says about an owner. */
export interface OwnerHooks {
  readonly isOwnerActive: ((owner: Owner) => Awaitable<boolean>) | undefined
  readonly ownerPermissions: ((owner: Owner) => Awaitable<Permissions | null>) | undefined
}

interface Standing {
  readonly isActive: boolean
  /** The owner's permissions; null restricts nothing. */
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
 * Asks the application about owners, once for all waiting calls, and remembers an answer for `maxAgeMs` at most. An
 * answer belongs to a version of a key: raising the versions of an owner's keys ends all earlier answers about that
 * owner, in every process, and an answer under way belongs to the old version.
 *
 * Null if the application has no such hooks.
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
        // One that is late and old is asked about again: it belongs to its version.
        answers.set(id, answer)
        return answer
      })
      .finally(() => asking.delete(idOf(apiKey)))
    asking.set(idOf(apiKey), asked)
    return asked
  }

  /** If the owner may use no keys, `ownerPermissions` is not called. */
  async function ask(owner: Owner): Promise<Standing> {
    const isActive: unknown = isOwnerActive ? await isOwnerActive(owner) : true
    if (typeof isActive !== 'boolean') throw new OptionError('isOwnerActive', 'return true or false')
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
  const shown = deepFreeze({ ...apiKey, permissions: intersectPermissions(apiKey.permissions, permissions) })
  ownPermissions.set(shown, apiKey.permissions)
  return shown
}

const ownPermissions = new WeakMap<ApiKey, Permissions>()

/** The permissions that are stored with a key which was admitted, perhaps with fewer. */
export function ownPermissionsOf(apiKey: ApiKey): Permissions {
  return ownPermissions.get(apiKey) ?? apiKey.permissions
}

function idOf({ id, version }: ApiKey): string {
  return `${id} ${version}`
}
