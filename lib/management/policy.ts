import { type KeySettings, SETTINGS } from '../core/keys/key-settings.ts'
import { isWithin, type Permissions } from '../core/keys/permissions.ts'
import type { ApiKey, Owner } from '../core/keys/record.ts'
import type { CompiledLimit } from '../core/limits/rate-limit.ts'
import type { EraseOptions, IssueOptions, RotateOptions } from '../core/manage/key-management.ts'
import { MAX_LISTED_OWNERS } from '../core/manage/list.ts'
import { checkIntegerOrFalse } from '../internal/options.ts'
import { type Ability, type Actor, abilitiesOn, grantableBy, ownersWith } from './actor.ts'
import {
  type Accepted,
  boundExpiry,
  boundIdleExpiry,
  boundPermissions,
  boundQuota,
  boundRateLimits,
  boundSuccessorExpiry,
  type Measure,
  refusePermissions,
} from './ceilings.ts'
import { type ClientFields, type ResolvedClientFields, resolveClientFields } from './client-fields.ts'
import { type Refusal, refuse } from './decision.ts'
import { findLoosening, type KeyAction } from './loosening.ts'
import { checkOwnMembers, ownMember } from './own-member.ts'
import { checkValues, type Given, isRefusal, type KnownMembers, readMembers } from './requested-change.ts'

/** An action on keys over HTTP. `revoke_all` revokes the keys of an owner, or the keys that one user or program issued. */
export type Action = keyof Changes

/** The permitted change for each action, to pass to `keys` unchanged. */
export interface Changes {
  /** The owners whose keys to list, at least one; null lists the keys of all owners. */
  list: { readonly owners: readonly Owner[] | null }
  issue: Omit<IssueOptions, 'by' | 'createdBy'>
  read: Readonly<Record<never, never>>
  update: Partial<KeySettings>
  enable: Readonly<Record<never, never>>
  disable: Readonly<Record<never, never>>
  rotate: Pick<RotateOptions, 'graceMs' | 'expiresAt' | 'onlyUsed'>
  revoke: { readonly reason?: string }
  /** The keys of an owner, or the keys that `createdBy` issued; with both, the keys of the owner that `createdBy` issued. */
  revoke_all: (
    | { readonly owner: Owner; readonly createdBy?: string }
    | { readonly owner?: undefined; readonly createdBy: string }
  ) & { readonly reason?: string }
  /** Everything about an owner. Only administrators may erase. */
  erase: { readonly owner: Owner } & Pick<EraseOptions, 'knownAs'>
  /** Any key, and any text that may be one. Only administrators may have decisions explained. */
  explain: Readonly<Record<never, never>>
}

export type Decision<A extends Action = Action> = { readonly ok: true; readonly change: Changes[A] } | Refusal

export interface PolicyOptions {
  /** What actors who are not admins may set. */
  clientFields?: ClientFields
  /**
   * How many active and disabled keys an owner may have, at least 1. `false` sets no bound.
   *
   * @default false
   */
  maxKeysPerOwner?: number | false
}

/** The policy of one interface: {@link PolicyOptions}, checked and complete. */
export interface Policy {
  readonly clientFields: ResolvedClientFields
  readonly maxKeysPerOwner: number | null
  /** The rate limits of keys without their own; null if they depend on the owner. */
  readonly defaultLimits: readonly CompiledLimit[] | null
}

/** Checks the policy once. @throws TypeError naming the option. */
export function resolvePolicy(
  options: PolicyOptions = {},
  defaultLimits: readonly CompiledLimit[] | null = [],
): Policy {
  const given = checkOwnMembers('options', options, ['clientFields', 'maxKeysPerOwner'])
  const max = ownMember(given, 'maxKeysPerOwner')
  return Object.freeze({
    clientFields: resolveClientFields(ownMember(given, 'clientFields')),
    maxKeysPerOwner: max === undefined ? null : checkIntegerOrFalse('maxKeysPerOwner', max, MAX_KEYS) || null,
    defaultLimits,
  })
}

/**
 * Decides whether an actor may do this, and returns the permitted change. Pure: it reads no clock and makes no call.
 *
 * The decision holds for the key as passed in. Pass on its version (`expectedVersion`), since the key may change in between. `keys`
 * checks the state of the key when it makes the change: it never changes a revoked key and never extends a rotated one, both
 * `conflict`.
 *
 * The first refusal wins. The order is: `not_found` for another owner's key, as for one that does not exist; `not_permitted` for a
 * missing ability; then names of fields, values of fields, permissions and ceilings.
 *
 * @param key the key to act on; null if it does not exist, or if the action is not about one key
 * @param change the change as the client sent it, with dates as `Date`
 * @param now milliseconds since the epoch
 */
export function decide<A extends Action>(
  actor: Actor,
  action: A,
  key: ApiKey | null,
  change: unknown,
  policy: Policy,
  now: number,
): Decision<A> {
  // The table has the right function for each action, but TypeScript cannot see that.
  return DECISIONS[action]({ actor, key, change, policy, now }) as Decision<A>
}

interface PolicyQuestion {
  readonly actor: Actor
  readonly key: ApiKey | null
  readonly change: unknown
  readonly policy: Policy
  readonly now: number
}

/** Members of a key that no request may set, by action. */
export const FIXED_FIELDS = Object.freeze({
  issue: ['createdBy'],
  update: ['owner', 'createdBy', 'prefix'],
})

const MAX_KEYS = 1_000_000

const DECISIONS: { readonly [A in Action]: (asked: PolicyQuestion) => Decision<A> } = {
  list: decideList,
  issue: decideIssue,
  read: onKey('read', ['read'], { known: [] }, () => permit({})),
  update: onKey('update', ['update'], { known: SETTINGS, fixed: FIXED_FIELDS.update }, decideUpdate),
  enable: onKey('enable', ['update'], { known: [] }, () => permit({})),
  disable: onKey('disable', ['update'], { known: [] }, () => permit({})),
  rotate: onKey(
    'rotate',
    ['create', 'update'],
    { known: ['graceMs', 'expiresAt', 'onlyUsed'] },
    decideRotate,
  ),
  revoke: onKey('revoke', ['revoke'], { known: ['reason'] }, (_asked, given) => permit(given)),
  revoke_all: decideRevokeAll,
  erase: decideErase,
  explain: decideExplain,
}

function decideList(asked: PolicyQuestion): Decision<'list'> {
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
  return refuse('invalid_request', 'owner', `one owner, because you manage more than ${MAX_LISTED_OWNERS}`)
}

function decideIssue(asked: PolicyQuestion): Decision<'issue'> {
  const { actor } = asked
  const own = ownersWith(actor, 'create')
  if (actor.admin !== true && own.length === 0) return refuse('not_permitted')
  const known = ['owner', 'prefix', ...SETTINGS]
  const given = readGiven(asked, { known, fixed: FIXED_FIELDS.issue })
  if (isRefusal(given)) return given
  if (given.name === undefined) return refuse('invalid_request', 'name', 'a non-empty string')
  const owner = (given.owner as Owner | undefined) ?? (own.length === 1 ? own[0] : undefined)
  if (!owner) return refuse('invalid_request', 'owner', 'the { type, id } of the owner')
  if (!abilitiesOn(actor, owner)?.has('create')) return refuse('not_permitted', 'owner', ownerWith('create'))
  const bounded = boundFields(
    given as Partial<IssueOptions>,
    { ...asked, key: null },
    permissionCeilings(asked, owner, 'create'),
  )
  return bounded.ok ? permit({ ...(bounded.change as KeySettings), owner }) : bounded
}

function decideUpdate(asked: KeyQuestion, given: Given): Decision<'update'> {
  const settings = given as Partial<KeySettings>
  if (Object.keys(settings).length === 0) {
    return refuse('invalid_request', undefined, `at least one of ${SETTINGS.join(', ')}`)
  }
  return boundFields(settings, asked, permissionCeilings(asked, asked.key.owner, 'update'))
}

function decideRotate(asked: KeyQuestion, given: Given): Decision<'rotate'> {
  const { actor, key, policy } = asked
  const options = given as Changes['rotate']
  if (actor.admin === true) return permit(options)
  const expiry = boundSuccessorExpiry(options.expiresAt, policy.clientFields.expiresAt, key, asked)
  return expiry.ok ? permit(withMember(options, 'expiresAt', expiry.value)) : expiry
}

function decideRevokeAll(asked: PolicyQuestion): Decision<'revoke_all'> {
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
  // An issuer's keys may belong to any owner.
  return actor.admin === true
    ? permit({ createdBy, ...reason })
    : refuse('not_permitted', 'createdBy', 'a value together with an "owner"')
}

/** Erasing removes evidence, so an actor cannot erase its own keys. */
function decideErase(asked: PolicyQuestion): Decision<'erase'> {
  if (asked.actor.admin !== true) return refuse('not_permitted')
  const given = readGiven(asked, { known: ['owner', 'knownAs'] })
  if (isRefusal(given)) return given
  const { owner, ...rest } = given as Partial<Changes['erase']>
  return owner
    ? permit({ owner, ...rest })
    : refuse('invalid_request', 'owner', 'the { type, id } of the owner')
}

/** An explanation says whether a text is a key, of whatever owner, and what is wrong with it. */
function decideExplain(asked: PolicyQuestion): Decision<'explain'> {
  if (asked.actor.admin !== true) return refuse('not_permitted')
  const given = readGiven(asked, { known: [] })
  return isRefusal(given) ? given : permit({})
}

function ownerWith(ability: Ability): string {
  return `an owner for which you may "${ability}" keys`
}

type KeyQuestion = PolicyQuestion & { readonly key: ApiKey }

/** Decides an action on one key: first whether the actor manages it, then whether the actor may loosen it that far. */
function onKey<A extends KeyAction>(
  action: A,
  needed: readonly Ability[],
  members: KnownMembers,
  next: (asked: KeyQuestion, given: Given) => Decision<A>,
): (asked: PolicyQuestion) => Decision<A> {
  return (asked) => {
    const { actor, key } = asked
    const abilities = key && abilitiesOn(actor, key.owner)
    if (!key || !abilities) return refuse('not_found')
    if (!needed.every((ability) => abilities.has(ability))) return refuse('not_permitted')
    const given = readGiven(asked, members)
    if (isRefusal(given)) return given
    return refuseLoosening(action, needed, { ...asked, key }, given) ?? next({ ...asked, key }, given)
  }
}

/** To loosen a key, an actor must be able to grant all permissions that it has afterwards, by each ability that the action needs. */
function refuseLoosening(
  action: KeyAction,
  needed: readonly Ability[],
  asked: KeyQuestion,
  given: Given,
): Refusal | null {
  const { key, policy } = asked
  const settings: Partial<KeySettings> = action === 'update' ? given : {}
  const loosened = findLoosening(action, key, settings, policy.defaultLimits)
  if (loosened === null) return null
  const permissions = settings.permissions ?? key.permissions
  const ceilings = needed.flatMap((ability) => permissionCeilings(asked, key.owner, ability))
  const exceeded = ceilings.find((ceiling) => !isWithin(permissions, ceiling))
  return exceeded ? refusePermissions(exceeded, action === 'update' ? `, to loosen "${loosened}"` : '') : null
}

/** The members of the change: each is known, open to this actor, and valid. */
function readGiven({ actor, change, policy, now }: PolicyQuestion, members: KnownMembers): Given | Refusal {
  const given = readMembers(change, members)
  if (isRefusal(given)) return given
  const closed = Object.keys(given).find((name) => ownMember(policy.clientFields, name) === false)
  if (closed !== undefined && actor.admin !== true) {
    return refuse('field_not_allowed', closed, 'nothing: only administrators may set it')
  }
  return checkValues(given, now)
}

/** Checks the settings of a new or changed key against what the actor may grant and against the ceilings. */
function boundFields(
  given: Partial<IssueOptions>,
  asked: PolicyQuestion,
  ceilings: readonly Permissions[],
): { readonly ok: true; readonly change: Partial<IssueOptions> } | Refusal {
  const { actor, key } = asked
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
  { key, policy, now }: PolicyQuestion,
): Generator<readonly [string, Accepted<unknown> | Refusal]> {
  const { rateLimits, quota, expiresAt, idleExpiryMs } = policy.clientFields
  const measure: Measure = { key, now }
  yield ['rateLimits', boundRateLimits(given.rateLimits, rateLimits || [], measure)]
  if (quota) yield ['quota', boundQuota(given.quota, quota, measure)]
  yield ['expiresAt', boundExpiry(given.expiresAt, expiresAt, measure)]
  yield ['idleExpiryMs', boundIdleExpiry(given.idleExpiryMs, idleExpiryMs, measure)]
}

/** The ceilings for everything that the actor grants to a key of this owner. */
function permissionCeilings(
  { actor, policy }: PolicyQuestion,
  owner: Owner,
  ability: Ability,
): Permissions[] {
  const { permissions } = policy.clientFields
  const grantable = grantableBy(actor, owner, ability)
  const isBounded = actor.admin !== true && typeof permissions !== 'boolean'
  return [...(grantable ? [grantable] : []), ...(isBounded ? [permissions] : [])]
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
