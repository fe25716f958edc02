import { deepFreeze } from '../../internal/deep-freeze.ts'
import { memberPath } from '../../internal/key-text.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkArray, describe, fail, isPlainObject } from '../../internal/options.ts'
import { copyData } from '../../internal/plain-data.ts'
import { BOUNDS } from './bounds.ts'

/**
 * What a key may do: for each resource, the actions allowed on it.
 *
 * `*` as an action stands for every action on that resource, `*` as a resource for every resource: `{ projects: ['*']
 * }`, `{ '*': ['read'] }`, `{ '*': ['*'] }`. There are no other wildcards: `proj*` is a name.
 *
 * The resource `api-keys` belongs to Latchkey, and no wildcard covers it: name `{ 'api-keys': ['verify'] }` explicitly.
 */
export type Permissions = Readonly<Record<string, readonly string[]>>

/**
 * What a route requires. An object requires everything it names; an array lists alternatives, and any one is enough.
 *
 * @example
 * { projects: ['read', 'write'] }                     // both
 * [{ projects: ['read'] }, { reports: ['read'] }]     // either
 */
export type PermissionRequirement =
  | Permissions
  // Where TypeScript infers the type of an array, members of one alternative are optional in the others.
  | readonly Alternative[]

type Alternative = Readonly<Record<string, readonly string[] | undefined>>

/** Latchkey's own resource. It needs its literal name: a customer's `*` covers the customer's resources only. */
export const OWN_RESOURCE = 'api-keys'

/** The allowed names of resources and actions. */
export const PERMISSION_NAME = /^(?:\*|[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,63})$/
const MAX_NAMES = BOUNDS.permissions.max

/**
 * Returns what `granted` lacks of `required`, or null if it lacks nothing. Of several alternatives, it returns the one
 * that lacks least. Only a granted `*` satisfies a required `*`.
 */
export function missingPermissions(
  granted: Permissions,
  required: PermissionRequirement,
): Permissions | null {
  if (!isAlternatives(required)) return missingOfAll(granted, required)
  let least: Permissions | null = null
  for (const alternative of required) {
    const missing = missingOfAll(granted, alternative)
    if (!missing) return null
    if (!least || countActions(missing) < countActions(least)) least = missing
  }
  // No alternative at all is met by nothing.
  return least ?? {}
}

/**
 * What both grant, and nothing else. It satisfies a requirement of one action exactly when `a` and `b` both do, with
 * wildcards on either side. Each name appears once: resources do not repeat what `*` already grants.
 */
export function intersectPermissions(a: Permissions, b: Permissions): Permissions {
  const everywhere = commonActions(actionsOn(a, '*'), actionsOn(b, '*'))
  const common: [string, string[]][] = everywhere.length === 0 ? [] : [['*', everywhere]]
  const own = actionsNamed(a, OWN_RESOURCE).filter((action) => actionsNamed(b, OWN_RESOURCE).includes(action))
  if (own.length > 0) common.push([OWN_RESOURCE, [...new Set(own)]])
  for (const resource of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (resource === OWN_RESOURCE) continue
    const actions = commonActions(actionsOn(a, resource), actionsOn(b, resource))
    const further = everywhere.includes('*') ? [] : actions.filter((action) => !everywhere.includes(action))
    if (further.length > 0) common.push([resource, further])
  }
  // A resource may be called `__proto__`: this defines members, and sets nothing.
  return Object.fromEntries(common)
}

/** What is left of permissions without some of them, name by name. */
export function withoutPermissions(permissions: Permissions, removed: Permissions): Permissions {
  const rest = Object.entries(permissions).map(
    ([resource, actions]) =>
      [resource, actions.filter((action) => !actionsNamed(removed, resource).includes(action))] as const,
  )
  return Object.fromEntries(rest.filter(([, actions]) => actions.length > 0))
}

/** Whether `ceiling` grants everything that `permissions` grant. Only a `*` covers a `*`. */
export function isWithin(permissions: Permissions, ceiling: Permissions): boolean {
  return missingOfAll(ceiling, permissions) === null
}

/** Requires permissions as a key holds them, and returns a copy without repetitions. @throws TypeError */
export function checkPermissions(name: string, value: unknown): Permissions {
  if (!isPlainObject(value)) fail(name, 'an object of resource → actions', value)
  const resources = Object.entries(value)
  if (resources.length > MAX_NAMES) throw new OptionError(name, `name at most ${MAX_NAMES} resources`)
  return Object.fromEntries(
    resources.map(([resource, actions]) => {
      checkName(`${name}`, resource)
      const path = memberPath(name, resource)
      const names = checkArray(path, actions, MAX_NAMES)
      for (const action of names) checkName(path, action)
      return [resource, [...new Set(names as readonly string[])]]
    }),
  )
}

const resolved = new WeakSet<object>()

/**
 * A frozen copy of what a route requires. Later changes to the original have no effect.
 *
 * @throws TypeError as {@link checkRequirement} does
 */
export function resolveRequirement(name: string, value: PermissionRequirement): PermissionRequirement {
  if (typeof value === 'object' && value !== null && resolved.has(value)) return value
  checkRequirement(name, value)
  const copy = deepFreeze(copyData(value))
  resolved.add(copy)
  return copy
}

/**
 * Checks what a route requires: as {@link checkPermissions}, but refuses a requirement without a resource, action or
 * alternative. It looks like a demand and would demand nothing.
 *
 * @throws TypeError
 */
export function checkRequirement(name: string, value: unknown): asserts value is PermissionRequirement {
  if (typeof value === 'object' && value !== null && resolved.has(value)) return
  const alternatives = Array.isArray(value) ? checkArray(name, value, MAX_NAMES) : [value]
  if (alternatives.length === 0) fail(name, 'permissions, or a non-empty array of alternatives', value)
  for (const alternative of alternatives) {
    const asked = Object.entries(checkPermissions(name, alternative))
    if (asked.length === 0) throw new OptionError(name, 'name at least one resource')
    for (const [resource, actions] of asked) {
      if (actions.length === 0) throw new OptionError(memberPath(name, resource), 'name at least one action')
    }
  }
}

/**
 * The alternatives of a requirement that was made of a request; null for one with a name that no key can hold.
 *
 * @throws TypeError when it is not a requirement, or requires nothing.
 */
export function readAlternatives(name: string, value: unknown): readonly (Permissions | null)[] {
  const alternatives = Array.isArray(value) ? checkArray(name, value, MAX_NAMES) : [value]
  if (alternatives.length === 0) fail(name, 'permissions, or a non-empty array of alternatives', value)
  return alternatives.map((alternative) => readAlternative(name, alternative))
}

function readAlternative(name: string, value: unknown): Permissions | null {
  if (!isPlainObject(value)) fail(name, 'an object of resource → actions', value)
  const resources = Object.entries(value)
  if (resources.length === 0) throw new OptionError(name, 'name at least one resource')
  if (resources.length > MAX_NAMES) throw new OptionError(name, `name at most ${MAX_NAMES} resources`)
  const copy = resources.map(([resource, actions]) => {
    const names = checkArray(memberPath(name, resource), actions, MAX_NAMES)
    if (names.length === 0) throw new OptionError(memberPath(name, resource), 'name at least one action')
    return [resource, [...names]] as const
  })
  const canBeHeld = copy.every(([resource, names]) => [resource, ...names].every(isName))
  return canBeHeld ? (Object.fromEntries(copy) as Permissions) : null
}

export function isAlternatives(required: PermissionRequirement): required is readonly Alternative[] {
  return Array.isArray(required)
}

function missingOfAll(granted: Permissions, required: Alternative): Permissions | null {
  let missing: [string, string[]][] | null = null
  for (const resource of Object.keys(required)) {
    const lacking = (required[resource] ?? []).filter((action) => !isGranted(granted, resource, action))
    if (lacking.length === 0) continue
    missing ??= []
    missing.push([resource, lacking])
  }
  return missing && Object.fromEntries(missing)
}

function isGranted(granted: Permissions, resource: string, action: string): boolean {
  if (resource === OWN_RESOURCE) return actionsNamed(granted, resource).includes(action)
  return allows(granted, resource, action) || allows(granted, '*', action)
}

function allows(granted: Permissions, resource: string, action: string): boolean {
  const actions = actionsNamed(granted, resource)
  return actions.includes(action) || actions.includes('*')
}

/** Every action granted on a resource, by its own name and by `*`. */
function actionsOn(granted: Permissions, resource: string): ReadonlySet<string> {
  return new Set([...actionsNamed(granted, resource), ...actionsNamed(granted, '*')])
}

function actionsNamed(granted: Permissions, resource: string): readonly string[] {
  return (Object.hasOwn(granted, resource) && granted[resource]) || []
}

function commonActions(a: ReadonlySet<string>, b: ReadonlySet<string>): string[] {
  if (a.has('*')) return b.has('*') ? ['*'] : [...b]
  return b.has('*') ? [...a] : [...a].filter((action) => b.has(action))
}

function countActions(permissions: Permissions): number {
  return Object.values(permissions).reduce((sum, actions) => sum + actions.length, 0)
}

function isName(value: unknown): boolean {
  return typeof value === 'string' && PERMISSION_NAME.test(value)
}

function checkName(name: string, value: unknown): void {
  if (isName(value)) return
  throw new OptionError(
    name,
    `use names of 1 to 64 letters, digits and "_ . : / -", or "*"`,
    `"${name}" must use names of 1 to 64 letters, digits and "_ . : / -", or "*", received ${describe(value)}`,
  )
}
