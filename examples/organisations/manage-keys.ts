import type { Context, Middleware } from 'koa'
import type { ApiKeys, Permissions } from 'latchkey'
import { getAuth } from 'latchkey/koa'
import { type Ability, type Actor, type ActorOwner, apiKeyRouter } from 'latchkey/management/koa'
import { type Organisation, type Organisations, ownerOf, type Role } from './organisations.ts'
import type { People, Person } from './people.ts'

const DAY_MS = 86_400_000

/** What the members of an organisation may do with its keys. */
const ABILITIES: Readonly<Record<Role, readonly Ability[]>> = {
  owner: ['read', 'create', 'update', 'revoke'],
  admin: ['read', 'create', 'update', 'revoke'],
  member: ['read', 'create'],
  viewer: ['read'],
}

/** What keys are for here. The plan of the organisation decides, at each use, how much of it a key may do. */
const KEY_PERMISSIONS: Permissions = { reports: ['read', 'write'] }

/** Members manage the keys of their organisations here, and the staff of the service manages everybody's. */
export function manageKeys(keys: ApiKeys, people: People, organisations: Organisations): Middleware {
  return apiKeyRouter(keys, {
    path: '/api-keys',
    actor: (ctx) => readActor(ctx, people, organisations),
    clientFields: { expiresAt: { maxMs: 365 * DAY_MS } },
    maxKeysPerOwner: 20,
  })
}

/** The caller, with their current roles: a former member manages nothing. */
function readActor(ctx: Context, people: People, organisations: Organisations): Actor | null {
  const auth = getAuth<Person>(ctx)
  const person = auth.method === 'session' ? people.find(auth.user.id) : null
  return (
    person && {
      // Each key that the person issues keeps this as `createdBy`.
      id: person.id,
      owners: organisations.of(person.id).map((organisation) => readOwner(organisation, person)),
      admin: person.isStaff,
      // The staff can grant nothing, so it never sees the text of a key that may do something.
      grantable: person.isStaff ? {} : KEY_PERMISSIONS,
    }
  )
}

function readOwner(organisation: Organisation, { id }: Person): ActorOwner {
  const role = organisation.roles.get(id)
  const abilities = role === undefined ? [] : ABILITIES[role]
  // While it is suspended, keys can only be read and revoked.
  const can = organisation.isSuspended
    ? abilities.filter((ability) => ability === 'read' || ability === 'revoke')
    : abilities
  return { ...ownerOf(organisation), can }
}
