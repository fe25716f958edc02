import { checkPermissions, type Permissions } from '../core/keys/permissions.ts'
import { checkOwner, type Owner } from '../core/keys/record.ts'
import { deepFreeze } from '../internal/deep-freeze.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkArray, checkBoolean, checkText, describePlain } from '../internal/options.ts'
import { checkOwnMembers, ownMember } from './own-member.ts'

/** What an actor may do with an owner's keys. */
export type Ability = 'read' | 'create' | 'update' | 'revoke'

/** The person or program that manages keys, as the application identifies it. */
export interface Actor {
  /**
   * The application's own identifier of the person or program, 1 to 255 characters. Keys store it as `createdBy`, and events name
   * it as `by`. It must not begin with `key:`, which is reserved for keys.
   */
  readonly id: string
  /**
   * The owners whose keys the actor manages. An actor without owners can do nothing, unless it is an admin.
   *
   * @default []
   */
  readonly owners?: readonly ActorOwner[]
  /**
   * Whether the actor manages the keys of every owner. `can` and `clientFields` do not restrict an admin; `grantable`
   * does, if you set it.
   *
   * @default false
   */
  readonly admin?: boolean
  /**
   * The permissions that the actor may give to a key. To add permissions, the actor needs the added ones. To loosen a key, it needs
   * all permissions that the key has afterwards. These loosen a key: a later or no expiry, a longer idle time, more or other
   * addresses, higher or fewer rate limits, more quota, and enabling, reviving or rotating it. Set `grantable` for actors whose keys
   * have permissions; otherwise they can neither issue nor rotate such keys. Each entry of `owners` may have its own `grantable`.
   *
   * No wildcard covers Latchkey's own permissions: to let an actor grant `{ 'api-keys': ['verify'] }`, name it next to
   * `{ '*': ['*'] }`.
   *
   * @default anything for an admin, nothing for everybody else
   */
  readonly grantable?: Permissions
}

/** An owner whose keys an actor manages. If an owner is listed twice, the actor may do what either entry allows on its own. */
export interface ActorOwner extends Owner {
  /**
   * What the actor may do with the owner's keys. `read` lists and reads keys. `create` issues them. `update` changes, enables and
   * disables them. `revoke` revokes one or all. Rotation needs `create` and `update`: it issues a secret and ends another.
   * The response to a change contains the changed key, even without `read`.
   *
   * @default ['read', 'create', 'update', 'revoke']
   */
  readonly can?: readonly Ability[]
  /**
   * The permissions that the actor may give to keys of this owner. Use it for a user who may do more in one organisation than in
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
 * @throws TypeError naming the member. An invalid actor never grants anything.
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

/** What the actor may do with an owner's keys; null if the actor does not manage this owner and is not an admin. */
export function abilitiesOn(actor: Actor, owner: Owner): ReadonlySet<Ability> | null {
  if (actor.admin === true) return EVERYTHING
  const entries = entriesOf(actor, owner)
  return entries.length === 0 ? null : new Set(entries.flatMap(({ can }) => can ?? ABILITIES))
}

/** The actor's own owners, each once, that allow it this ability. */
export function ownersWith(actor: Actor, ability: Ability): Owner[] {
  const owners = new Map<string, Owner>()
  for (const { type, id, can } of actor.owners ?? []) {
    const isAble = actor.admin === true || (can ?? ABILITIES).includes(ability)
    if (isAble) owners.set(JSON.stringify([type, id]), { type, id })
  }
  return [...owners.values()]
}

/** Whether the actor manages this owner. Reading the keys of any other owner is an event. */
export function isOwnerOf(actor: Actor, owner: Owner): boolean {
  return entriesOf(actor, owner).length > 0
}

const NOTHING: Permissions = Object.freeze({})

/**
 * The permissions that the actor may grant to keys of an owner in an operation that needs this ability. Null means any permission:
 * no wildcard can say that, since none covers the library's own permissions. Only entries that allow the ability count: an entry
 * that only allows reading grants nothing to a key that another entry lets the actor issue.
 */
export function grantableBy(actor: Actor, owner: Owner, ability: Ability): Permissions | null {
  const everywhere = ownMember(actor, 'grantable') as Permissions | undefined
  if (everywhere === undefined && actor.admin === true) return null
  const usual = everywhere ?? NOTHING
  const granted = entriesOf(actor, owner)
    .filter(({ can }) => (can ?? ABILITIES).includes(ability))
    .map((entry) => (ownMember(entry, 'grantable') as Permissions | undefined) ?? usual)
  // An entry never gives an admin less than the admin has everywhere.
  return unite(actor.admin === true ? [usual, ...granted] : granted)
}

/** The union of these permissions. */
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
    const must = 'name "read", "create", "update" and "revoke" only'
    const message = `"${name}.can" must ${must}, received ${describePlain(ability)}`
    throw new OptionError(`${name}.can`, must, message)
  })
}
