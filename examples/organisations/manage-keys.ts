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

/** What keys are for here. How much of it one may do is for the plan of its organisation to say, whenever it is used. */
const KEY_PERMISSIONS: Permissions = { reports: ['read', 'write'] }

/** Where members look after the keys of their organisations, and the staff of the service after everybody's. */
export function manageKeys(keys: ApiKeys, people: People, organisations: Organisations): Middleware {
  return apiKeyRouter(keys, {
    path: '/api-keys',
    actor: (ctx) => readActor(ctx, people, organisations),
    clientFields: { expiresAt: { maxMs: 365 * DAY_MS } },
    maxKeysPerOwner: 20,
  })
}

/** Who is asking, with the roles of this moment: whoever is no member any more manages nothing. */
function readActor(ctx: Context, people: People, organisations: Organisations): Actor | null {
  const auth = getAuth<Person>(ctx)
  const person = auth.method === 'session' ? people.find(auth.user.id) : null
  return (
    person && {
      // Kept with each key that the person issues as `createdBy`.
      id: person.id,
      owners: organisations.of(person.id).map((organisation) => readOwner(organisation, person)),
      admin: person.isStaff,
      // The staff hands out nothing, and so is never shown the text of a key that may do something.
      grantable: person.isStaff ? {} : KEY_PERMISSIONS,
    }
  )
}

function readOwner(organisation: Organisation, { id }: Person): ActorOwner {
  const role = organisation.roles.get(id)
  const abilities = role === undefined ? [] : ABILITIES[role]
  // While it is suspended, keys may be looked at and given up.
  const can = organisation.isSuspended
    ? abilities.filter((ability) => ability === 'read' || ability === 'revoke')
    : abilities
  return { ...ownerOf(organisation), can }
}
