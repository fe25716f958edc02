import {
  isAlternatives,
  missingPermissions,
  OWN_RESOURCE,
  type PermissionRequirement,
  type Permissions,
} from '../keys/permissions.ts'
import { permissionCounter } from './usage-counts.ts'

/** How many grants of a key are watched: the first ones. */
export const MAX_WATCHED_GRANTS = 100

/** A key's permissions: its own, and what its owner lets it use of them. */
export interface HeldPermissions {
  readonly own: Permissions
  readonly granted: Permissions
}

/**
 * Calls `note` with the counter of every grant of a key that meets a requirement. Where several grants allow the same, the most exact
 * one counts. Of alternatives, the first that the key may use counts.
 */
export function noteExercised(
  { own, granted }: HeldPermissions,
  required: PermissionRequirement,
  note: (counter: string) => void,
): void {
  const used = isAlternatives(required)
    ? required.find((one) => missingPermissions(granted, one as Permissions) === null)
    : required
  if (!used) return
  const watched = watchedAmong(own)
  for (const resource of Object.keys(used)) {
    for (const action of used[resource] ?? []) {
      const counter = grantFor(own, resource, action)
      if (counter !== null && (!watched || watched.has(counter))) note(counter)
    }
  }
}

/** The counter of the grant that allows an action; null if none does. */
function grantFor(held: Permissions, resource: string, action: string): string | null {
  if (has(held, resource, action)) return permissionCounter(resource, action)
  if (resource === OWN_RESOURCE) return null
  if (has(held, resource, '*')) return permissionCounter(resource, '*')
  if (has(held, '*', action)) return permissionCounter('*', action)
  return has(held, '*', '*') ? permissionCounter('*', '*') : null
}

function has(held: Permissions, resource: string, action: string): boolean {
  return Object.hasOwn(held, resource) && held[resource]?.includes(action) === true
}

/** The counters of all grants, in their order. */
export function grantsOf(permissions: Permissions): string[] {
  return Object.entries(permissions).flatMap(([resource, actions]) =>
    actions.map((action) => permissionCounter(resource, action)),
  )
}

const watchedOf = new WeakMap<Permissions, ReadonlySet<string> | null>()

/** The counters of the watched grants; null if all are watched. */
function watchedAmong(permissions: Permissions): ReadonlySet<string> | null {
  let watched = watchedOf.get(permissions)
  if (watched === undefined) {
    const all = grantsOf(permissions)
    watched = all.length > MAX_WATCHED_GRANTS ? new Set(all.slice(0, MAX_WATCHED_GRANTS)) : null
    watchedOf.set(permissions, watched)
  }
  return watched
}
