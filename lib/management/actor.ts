import { checkPermissions, type Permissions } from '../core/keys/permissions.ts'
import { checkOwner, type Owner } from '../core/keys/record.ts'
import { deepFreeze } from '../internal/deep-freeze.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkArray, checkBoolean, checkText } from '../internal/options.ts'
import { checkOwnMembers, ownMember } from './own-member.ts'

/** What an actor may do with the keys of an owner. */
export type Ability = 'read' | 'create' | 'update' | 'revoke'

/** Who manages keys: the application's answer to who is asking. */
export interface Actor {
  /**
   * The application's own identifier of the person or program, 1 to 255 characters. It is kept with keys as `createdBy` and
   * named in events as `by`. It may not begin with `key:`, which names keys.
   */
  readonly id: string
  /**
   * The owners whose keys the actor manages. Without any, an actor that is no admin may do nothing.
   *
   * @default []
   */
  readonly owners?: readonly ActorOwner[]
  /**
   * Whether the actor manages the keys of every owner. `can` and the policy of fields do not bind an admin; `grantable`
   * does, where it is given.
   *
   * @default false
   */
  readonly admin?: boolean
  /**
   * The permissions that the actor may give to a key. Whoever adds permissions needs those that are added. Whoever makes a key
   * freer needs all that the key has afterwards: for a later end or none, a longer idle time, more or other addresses, higher or
   * fewer rate limits, more quota, and to enable, revive or rotate it. Give it to owners that have keys with permissions, or they
   * can issue none and rotate none. An entry of `owners` may have its own.
   *
   * No wildcard covers the permissions of the library itself: to let an actor grant `{ 'api-keys': ['verify'] }`, name it beside
   * `{ '*': ['*'] }`.
   *
   * @default anything for an admin, nothing for everybody else
   */
  readonly grantable?: Permissions
}

/** An owner whose keys an actor manages. Named twice, the actor may do what either entry says by itself. */
export interface ActorOwner extends Owner {
  /**
   * What the actor may do with the owner's keys. `read` lists and reads; `create` issues; `update` changes, enables and disables;
   * `revoke` revokes, one or all. To rotate takes `create` and `update`: it hands out a secret and ends another.
   * A change answers the key as it is then, `read` or not.
   *
   * @default ['read', 'create', 'update', 'revoke']
   */
  readonly can?: readonly Ability[]
  /**
   * The permissions that the actor may give to keys of this owner: for somebody who may do more in one organisation than in
   * another.
   *
   * @default the `grantable` of the actor
   */
  readonly grantable?: Permissions
}

const ABILITIES: readonly Ability[] = Object.freeze(['read', 'create', 'update', 'revoke'])
const EVERYTHING: ReadonlySet<Ability> = new Set(ABILITIES)
const MAX_OWNERS = 10_000

/**
 * Requires an actor, and returns a frozen copy of it. Only the object's own members count.
 *
 * @throws TypeError naming the member: the application has answered nonsense, which is never taken for a right.
 */
export function checkActor(value: unknown): Actor {
  const given = checkOwnMembers('actor', value, ['id', 'owners', 'admin', 'grantable'])
  const id = checkText('actor.id', ownMember(given, 'id'), 255)
  if (id.startsWith('key:')) throw new OptionError('actor.id', 'not begin with "key:", which names keys')
  const owners = ownMember(given, 'owners')
  const admin = ownMember(given, 'admin')
  const grantable = ownMember(given, 'grantable')
  return Object.freeze({
    id,
    owners: Object.freeze(owners === undefined ? [] : checkOwners(owners)),
    admin: admin === undefined ? false : checkBoolean('actor.admin', admin),
    ...(grantable !== undefined && { grantable: deepFreeze(checkPermissions('actor.grantable', grantable)) }),
  })
}

/** What the actor may do with the keys of an owner; null where it is neither their owner nor an admin. */
export function abilitiesOn(actor: Actor, owner: Owner): ReadonlySet<Ability> | null {
  if (actor.admin === true) return EVERYTHING
  const entries = entriesOf(actor, owner)
  return entries.length === 0 ? null : new Set(entries.flatMap(({ can }) => can ?? ABILITIES))
}

/** The actor's own owners, each once, with whose keys it may do this. */
export function ownersWith(actor: Actor, ability: Ability): Owner[] {
  const owners = new Map<string, Owner>()
  for (const { type, id, can } of actor.owners ?? []) {
    const isAble = actor.admin === true || (can ?? ABILITIES).includes(ability)
    if (isAble) owners.set(JSON.stringify([type, id]), { type, id })
  }
  return [...owners.values()]
}

/** Whether an owner is one of the actor's own: reading the keys of all others is an event. */
export function isOwnerOf(actor: Actor, owner: Owner): boolean {
  return entriesOf(actor, owner).length > 0
}

const NOTHING: Permissions = Object.freeze({})

/**
 * What the actor may grant to keys of an owner by what needs this ability; null is anything, which no permissions can say, since a
 * wildcard does not cover those of the library itself. An entry says what may be done and granted together: one that only reads
 * grants nothing to a key that another lets issue.
 */
export function grantableBy(actor: Actor, owner: Owner, ability: Ability): Permissions | null {
  const everywhere = ownMember(actor, 'grantable') as Permissions | undefined
  if (everywhere === undefined && actor.admin === true) return null
  const usual = everywhere ?? NOTHING
  const granted = entriesOf(actor, owner)
    .filter(({ can }) => (can ?? ABILITIES).includes(ability))
    .map((entry) => (ownMember(entry, 'grantable') as Permissions | undefined) ?? usual)
  // An admin may do nowhere less than everywhere.
  return unite(actor.admin === true ? [usual, ...granted] : granted)
}

/** What any of these grants. */
function unite(granted: readonly Permissions[]): Permissions {
  const [first = NOTHING, ...others] = new Set(granted)
  if (others.length === 0) return first
  const all = [first, ...others]
  const resources = new Set(all.flatMap((permissions) => Object.keys(permissions)))
  // A resource may be called `__proto__`: this defines members, and sets nothing.
  return Object.fromEntries(
    [...resources].map((resource) => {
      const actions = all.flatMap((one) => (ownMember(one, resource) as string[] | undefined) ?? [])
      return [resource, [...new Set(actions)]]
    }),
  )
}

function entriesOf(actor: Actor, owner: Owner): ActorOwner[] {
  return (actor.owners ?? []).filter(({ type, id }) => type === owner.type && id === owner.id)
}

function checkOwners(value: unknown): ActorOwner[] {
  return checkArray('actor.owners', value, MAX_OWNERS).map((entry, i) => {
    const name = `actor.owners[${i}]`
    const given = checkOwnMembers(name, entry, ['type', 'id', 'can', 'grantable'])
    const can = ownMember(given, 'can')
    const grantable = ownMember(given, 'grantable')
    const owner = checkOwner(name, { type: ownMember(given, 'type'), id: ownMember(given, 'id') })
    return Object.freeze({
      ...owner,
      can: Object.freeze(can === undefined ? [...ABILITIES] : checkCan(name, can)),
      ...(grantable !== undefined && {
        grantable: deepFreeze(checkPermissions(`${name}.grantable`, grantable)),
      }),
    })
  })
}

function checkCan(name: string, value: unknown): Ability[] {
  return checkArray(`${name}.can`, value, ABILITIES.length).map((ability) => {
    if (ABILITIES.includes(ability as Ability)) return ability as Ability
    throw new OptionError(`${name}.can`, 'name "read", "create", "update" and "revoke" only')
  })
}
