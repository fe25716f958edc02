import type { EraseOptions, IssueOptions, RotateOptions } from '../core/key-management.ts'
import { type KeySettings, SETTINGS } from '../core/key-settings.ts'
import {
  isWithin,
  type PermissionRequirement,
  type Permissions,
  resolveRequirement,
} from '../core/permissions.ts'
import { type ApiKey, keyStatus, type Owner } from '../core/record.ts'
import { checkInteger, checkObject } from '../internal/options.ts'
import { type Ability, type Actor, abilitiesOn, grantableBy, type KeyActor, ownersWith } from './actor.ts'
import {
  type Accepted,
  boundAllowedIps,
  boundExpiry,
  boundIdleExpiry,
  boundPermissions,
  boundQuota,
  boundRateLimits,
  boundSuccessor,
  boundSuccessorExpiry,
  type Measure,
  refuseIssueByQuota,
  refusePermissions,
} from './ceilings.ts'
import { type ClientFields, type ResolvedClientFields, resolveClientFields } from './client-fields.ts'
import { type Refusal, refuse } from './decision.ts'
import { ownMember } from './own-member.ts'
import { checkValues, type Given, isRefusal, type KnownMembers, readMembers } from './requested-change.ts'

/** What may be done with keys over HTTP. `revoke_all` revokes those of an owner, or those that somebody has issued. */
export type Action = keyof Changes

/** For each action what a decision for it says to do: to be handed to `keys` as it is. */
export interface Changes {
  /** Whose keys to list; null lists everybody's. Never empty. */
  list: { readonly owners: readonly Owner[] | null }
  issue: Omit<IssueOptions, 'createdBy'>
  read: Readonly<Record<never, never>>
  update: Partial<KeySettings>
  enable: Readonly<Record<never, never>>
  disable: Readonly<Record<never, never>>
  rotate: Pick<RotateOptions, 'graceMs' | 'expiresAt'>
  revoke: { readonly reason?: string }
  /** The keys of an owner, or those that somebody has issued; with both, those of the owner that somebody has issued. */
  revoke_all: (
    | { readonly owner: Owner; readonly createdBy?: string }
    | { readonly owner?: undefined; readonly createdBy: string }
  ) & { readonly reason?: string }
  /** Everything of an owner, for administrators alone. */
  erase: { readonly owner: Owner } & Pick<EraseOptions, 'knownAs'>
}

export type Decision<A extends Action = Action> = { readonly ok: true; readonly change: Changes[A] } | Refusal

export interface PolicyOptions {
  /** What actors that are no admins may set. */
  clientFields?: ClientFields
  /**
   * How many keys an owner may have that are active or disabled, at least 1.
   *
   * @default null (any number)
   */
  maxKeysPerOwner?: number | null
  /**
   * The actions that are open to requests that present a key, each with the permissions that the key needs for it. What a key
   * issues is bounded by its own permissions, end, idle time, addresses and rate limits, and has those where the request names
   * none. Each new key counts its limits for itself: `maxKeysPerOwner` bounds how many there are. A key with a quota issues none,
   * and no key changes rate limits or a quota, be they its own.
   *
   * @default {} (none)
   */
  keyActions?: { readonly [action in Action]?: PermissionRequirement }
}

/** The policy of one interface: {@link PolicyOptions}, checked and complete. */
export interface Policy {
  readonly clientFields: ResolvedClientFields
  readonly maxKeysPerOwner: number | null
  readonly keyActions: { readonly [action in Action]?: PermissionRequirement }
}

/** Checks the policy once and for all. @throws TypeError naming the option. */
export function resolvePolicy(options: PolicyOptions = {}): Policy {
  const given = checkObject('options', options, ['clientFields', 'maxKeysPerOwner', 'keyActions'])
  const max = ownMember(given, 'maxKeysPerOwner') ?? null
  return Object.freeze({
    clientFields: resolveClientFields(ownMember(given, 'clientFields')),
    maxKeysPerOwner: max === null ? null : checkInteger('maxKeysPerOwner', max, 1, MAX_KEYS),
    keyActions: resolveKeyActions(ownMember(given, 'keyActions')),
  })
}

/**
 * Whether an actor may do this, and with what. Pure: it reads no clock and asks nobody.
 *
 * The decision holds for the key as it was handed in. Pass its version on (`expectedVersion`), or the key may have become another
 * one in between. What a key's state forbids is left to `keys`, which sees it at the moment of the change: a revoked key is never changed and
 * a rotated one never prolonged, both `conflict`.
 *
 * The refusal that comes first: a key of somebody else is `not_found`, as one that does not exist; an ability that is lacking
 * `not_permitted`; then the names of fields, then their values, then permissions and ceilings.
 *
 * @param key what the action is about; null where there is none, or where the action is about no key
 * @param change what is asked for, as a client has sent it, with dates as `Date`
 * @param now milliseconds since the epoch
 */
export function decide<A extends Action>(
  actor: Actor | KeyActor,
  action: A,
  key: ApiKey | null,
  change: unknown,
  policy: Policy,
  now: number,
): Decision<A> {
  const presented = (ownMember(actor, 'presented') as ApiKey | undefined) ?? null
  // The table holds for each action what decides it: TypeScript does not see the two agree.
  return DECISIONS[action]({ actor, presented, key, change, policy, now }) as Decision<A>
}

interface Asked {
  readonly actor: Actor
  readonly presented: ApiKey | null
  readonly key: ApiKey | null
  readonly change: unknown
  readonly policy: Policy
  readonly now: number
}

const MAX_KEYS = 1_000_000
const MAX_LISTED_OWNERS = 100

const DECISIONS: { readonly [A in Action]: (asked: Asked) => Decision<A> } = {
  list: decideList,
  issue: decideIssue,
  read: onKey(['read'], { known: [] }, () => permit({})),
  update: onKey(['update'], { known: SETTINGS, fixed: ['owner', 'createdBy', 'prefix'] }, decideUpdate),
  enable: onKey(['update'], { known: [] }, ({ key, actor }) => {
    // What works again is as good as new.
    const grantable = grantableBy(actor, key.owner, 'update')
    return isWithin(key.permissions, grantable) ? permit({}) : refusePermissions(grantable)
  }),
  disable: onKey(['update'], { known: [] }, () => permit({})),
  rotate: onKey(['create', 'update'], { known: ['graceMs', 'expiresAt'] }, decideRotate),
  revoke: onKey(['revoke'], { known: ['reason'] }, (_asked, given) => permit(given)),
  revoke_all: decideRevokeAll,
  erase: decideErase,
}

function decideList(asked: Asked): Decision<'list'> {
  const { actor } = asked
  const readable = ownersWith(actor, 'read')
  if (actor.admin !== true && readable.length === 0) return refuse('not_permitted')
  const given = readGiven(asked, { known: ['owner'] })
  if (isRefusal(given)) return given
  const owner = given.owner as Owner | undefined
  if (owner) {
    return abilitiesOn(actor, owner)?.has('read')
      ? permit({ owners: [owner] })
      : refuse('not_permitted', 'owner', ownerWith('read'))
  }
  if (actor.admin === true) return permit({ owners: null })
  if (readable.length <= MAX_LISTED_OWNERS) return permit({ owners: readable })
  return refuse('invalid_request', 'owner', `one owner, where you have more than ${MAX_LISTED_OWNERS}`)
}

function decideIssue(asked: Asked): Decision<'issue'> {
  const { actor, presented } = asked
  const own = ownersWith(actor, 'create')
  if (actor.admin !== true && own.length === 0) return refuse('not_permitted')
  const known = ['owner', 'prefix', ...SETTINGS]
  const given = readGiven(asked, { known, fixed: ['createdBy'] })
  if (isRefusal(given)) return given
  if (given.name === undefined) return refuse('invalid_request', 'name', 'a non-empty string')
  const tooFree = presented && refuseIssueByQuota(presented)
  if (tooFree) return tooFree
  const owner = (given.owner as Owner | undefined) ?? (own.length === 1 ? own[0] : undefined)
  if (!owner) return refuse('invalid_request', 'owner', 'the { type, id } of the owner')
  if (!abilitiesOn(actor, owner)?.has('create')) return refuse('not_permitted', 'owner', ownerWith('create'))
  const bounded = boundFields(
    given as Partial<IssueOptions>,
    { ...asked, key: null },
    grantableBy(actor, owner, 'create'),
  )
  return bounded.ok ? permit({ ...(bounded.change as KeySettings), owner }) : bounded
}

function decideUpdate(asked: AskedOfKey, given: Given): Decision<'update'> {
  const { actor, key, now } = asked
  const settings = given as Partial<KeySettings>
  if (Object.keys(settings).length === 0) {
    return refuse('invalid_request', undefined, `at least one of ${SETTINGS.join(', ')}`)
  }
  const isRevived =
    (settings.expiresAt !== undefined || settings.idleExpiryMs !== undefined) &&
    keyStatus(key, new Date(now)) === 'expired'
  const permissions = settings.permissions ?? key.permissions
  const grantable = grantableBy(actor, key.owner, 'update')
  // What works again is as good as new.
  if (isRevived && !isWithin(permissions, grantable)) return refusePermissions(grantable)
  return boundFields(settings, asked, grantable)
}

function decideRotate(asked: AskedOfKey, given: Given): Decision<'rotate'> {
  const { actor, presented, key, policy } = asked
  const options = given as Changes['rotate']
  // The secret of the successor is shown to whoever rotates.
  for (const ability of ['create', 'update'] as const) {
    const grantable = grantableBy(actor, key.owner, ability)
    if (!isWithin(key.permissions, grantable)) return refusePermissions(grantable)
  }
  if (actor.admin === true) return permit(options)
  const tooFree = presented && boundSuccessor(key, presented)
  if (tooFree) return tooFree
  const expiry = boundSuccessorExpiry(options.expiresAt, policy.clientFields.expiresAt, key, asked)
  return expiry.ok ? permit(withMember(options, 'expiresAt', expiry.value)) : expiry
}

function decideRevokeAll(asked: Asked): Decision<'revoke_all'> {
  const { actor } = asked
  if (actor.admin !== true && ownersWith(actor, 'revoke').length === 0) return refuse('not_permitted')
  const given = readGiven(asked, { known: ['owner', 'createdBy', 'reason'] })
  if (isRefusal(given)) return given
  const { owner, createdBy, ...reason } = given as { owner?: Owner; createdBy?: string; reason?: string }
  if (owner) {
    if (!abilitiesOn(actor, owner)?.has('revoke'))
      return refuse('not_permitted', 'owner', ownerWith('revoke'))
    return permit({ owner, ...(createdBy !== undefined && { createdBy }), ...reason })
  }
  if (createdBy === undefined) return refuse('invalid_request', 'owner', 'an "owner", a "createdBy", or both')
  // What somebody has issued may belong to any owner.
  return actor.admin === true
    ? permit({ createdBy, ...reason })
    : refuse('not_permitted', 'createdBy', 'it together with an "owner"')
}

/** What is removed cannot be looked into any more, so nobody does it to keys of their own. */
function decideErase(asked: Asked): Decision<'erase'> {
  if (asked.actor.admin !== true) return refuse('not_permitted')
  const given = readGiven(asked, { known: ['owner', 'knownAs'] })
  if (isRefusal(given)) return given
  const { owner, ...rest } = given as Partial<Changes['erase']>
  return owner
    ? permit({ owner, ...rest })
    : refuse('invalid_request', 'owner', 'the { type, id } of the owner')
}

function ownerWith(ability: Ability): string {
  return `an owner with whose keys you may "${ability}"`
}

type AskedOfKey = Asked & { readonly key: ApiKey }

/** Decides what is about a key: first whether it is the actor's at all. */
function onKey<A extends Action>(
  needed: readonly Ability[],
  members: KnownMembers,
  next: (asked: AskedOfKey, given: Given) => Decision<A>,
): (asked: Asked) => Decision<A> {
  return (asked) => {
    const { actor, key } = asked
    const abilities = key && abilitiesOn(actor, key.owner)
    if (!key || !abilities) return refuse('not_found')
    if (!needed.every((ability) => abilities.has(ability))) return refuse('not_permitted')
    const given = readGiven(asked, members)
    return isRefusal(given) ? given : next({ ...asked, key }, given)
  }
}

/** The members of the change, each known, open to this actor, and right in itself. */
function readGiven({ actor, change, policy, now }: Asked, members: KnownMembers): Given | Refusal {
  const given = readMembers(change, members)
  if (isRefusal(given)) return given
  const closed = Object.keys(given).find((name) => ownMember(policy.clientFields, name) === false)
  if (closed !== undefined && actor.admin !== true) {
    return refuse('field_not_allowed', closed, 'nothing: it is for administrators')
  }
  return checkValues(given, now)
}

/** Holds the settings of a new or a changed key to what the actor may grant, and to the ceilings. */
function boundFields(
  given: Partial<IssueOptions>,
  asked: Asked,
  grantable: Permissions,
): { readonly ok: true; readonly change: Partial<IssueOptions> } | Refusal {
  const { actor, key } = asked
  const ceilings = permissionCeilings(asked, grantable)
  const permissions = boundPermissions(given.permissions, key?.permissions ?? {}, ceilings)
  if (!permissions.ok || actor.admin === true) return permissions.ok ? permit(given) : permissions
  if (!isPrefixOpen(given.prefix, asked.policy)) {
    const prefixes = asked.policy.clientFields.prefix || []
    return refuse('ceiling_exceeded', 'prefix', prefixes.join(', '))
  }
  let change = given
  for (const [field, bounded] of boundedFields(given, asked)) {
    if (!bounded.ok) return bounded
    change = withMember(change, field, bounded.value)
  }
  return permit(change)
}

function* boundedFields(
  given: Partial<IssueOptions>,
  { key, presented, policy, now }: Asked,
): Generator<readonly [string, Accepted<unknown> | Refusal]> {
  const { rateLimits, quota, expiresAt, idleExpiryMs } = policy.clientFields
  const measure: Measure = { key, presented, now }
  yield ['rateLimits', boundRateLimits(given.rateLimits, rateLimits || [], measure)]
  if (quota) yield ['quota', boundQuota(given.quota, quota, measure)]
  yield ['expiresAt', boundExpiry(given.expiresAt, expiresAt, measure)]
  yield ['idleExpiryMs', boundIdleExpiry(given.idleExpiryMs, idleExpiryMs, measure)]
  yield ['allowedIps', boundAllowedIps(given.allowedIps, measure)]
}

function permissionCeilings({ actor, policy }: Asked, grantable: Permissions): Permissions[] {
  const { permissions } = policy.clientFields
  return actor.admin === true || typeof permissions === 'boolean' ? [grantable] : [grantable, permissions]
}

function isPrefixOpen(prefix: string | undefined, { clientFields }: Policy): boolean {
  return prefix === undefined || (clientFields.prefix !== false && clientFields.prefix.includes(prefix))
}

function withMember<T extends object>(object: T, name: string, value: unknown): T {
  return value === undefined ? object : { ...object, [name]: value }
}

function permit<T>(change: T): { readonly ok: true; readonly change: T } {
  return { ok: true, change }
}

function resolveKeyActions(value: unknown = {}): Policy['keyActions'] {
  const given = checkObject('keyActions', value, Object.keys(DECISIONS))
  return Object.freeze(
    Object.fromEntries(
      Object.entries(given)
        .filter(([, requirement]) => requirement !== undefined)
        .map(([action, requirement]) => [
          action,
          resolveRequirement(`keyActions.${action}`, requirement as PermissionRequirement),
        ]),
    ),
  )
}
