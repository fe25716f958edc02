import { randomBytes } from 'node:crypto'
import Router from '@koa/router'
import Koa, { type Context, type Middleware } from 'koa'
import session from 'koa-session'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler, getAuth, markSession, requireSession } from 'latchkey/koa'
import { readJson } from '../koa/read-json.ts'
import { manageKeys } from './manage-keys.ts'
import { type Organisation, type Organisations, ownerOf, PLANS, type Plan } from './organisations.ts'
import type { People, Person } from './people.ts'

export interface AppOptions {
  keys: ApiKeys
  people: People
  organisations: Organisations
}

/** An application whose keys belong to organisations, and whose members manage them according to their roles. */
export function createApp({ keys, people, organisations }: AppOptions): Koa {
  const reports = new Map([['acme', ['anvils, first quarter']]])
  const app = new Koa()
  // Signs the session cookie: a random key ends every session with the process.
  app.keys = [randomBytes(32).toString('hex')]

  const router = new Router()
  router.post('/login', async (ctx) => {
    const { username, password } = await readJson(ctx)
    const person = await people.checkPassword(String(username), String(password))
    if (!person) {
      const headers = { 'WWW-Authenticate': 'Session realm="Users"' }
      return ctx.throw(401, 'Wrong name or password', { headers })
    }
    ctx.session = { personId: person.id }
    ctx.body = { user: person.username }
  })

  // Keys only. A key belongs to no person: the data is the organisation's.
  router.get('/reports', apiKeyAuth(keys, { permissions: { reports: ['read'] } }), (ctx) => {
    ctx.body = { reports: reports.get(owningOrganisation(ctx)) ?? [] }
  })
  router.post('/reports', apiKeyAuth(keys, { permissions: { reports: ['write'] } }), async (ctx) => {
    const { title } = await readJson(ctx)
    if (typeof title !== 'string' || title === '' || title.length > 100) {
      return ctx.throw(400, 'Expected JSON like {"title":"anvils, second quarter"}')
    }
    const id = owningOrganisation(ctx)
    reports.set(id, [...(reports.get(id) ?? []), title])
    ctx.status = 201
    ctx.body = { title }
  })

  // Sessions only. A change of what an organisation may do takes effect at once: invalidateOwner.
  router.put('/organisations/:id/plan', requireSession(), async (ctx) => {
    const { plan } = await readJson(ctx)
    const organisation = organisations.find(ctx.params.id ?? '')
    // Do not reveal that somebody else's organisation exists.
    const role = organisation?.roles.get(personOf(ctx).id)
    if (!organisation || !role) return ctx.throw(404, 'There is no such organisation')
    if (role !== 'owner') return ctx.throw(403, 'That is for owners')
    if (!isPlan(plan)) return ctx.throw(400, 'Expected JSON like {"plan":"team"}')
    await change({ ...organisation, plan })
    ctx.body = { plan }
  })
  router.put('/organisations/:id/suspension', requireSession(), requireStaff, async (ctx) => {
    const { suspended } = await readJson(ctx)
    const organisation = organisations.find(ctx.params.id ?? '')
    if (!organisation) return ctx.throw(404, 'There is no such organisation')
    if (typeof suspended !== 'boolean') return ctx.throw(400, 'Expected JSON like {"suspended":true}')
    await change({ ...organisation, isSuspended: suspended })
    ctx.body = { suspended }
  })
  // The keys that the person issued stay: they belong to the organisations. `POST /api-keys/revoke` with `createdBy` ends them.
  router.delete('/people/:id', requireSession(), requireStaff, (ctx) => {
    const id = ctx.params.id ?? ''
    organisations.removePerson(id)
    people.remove(id)
    ctx.status = 204
  })

  async function change(organisation: Organisation): Promise<void> {
    organisations.save(organisation)
    await keys.invalidateOwner(ownerOf(organisation))
  }

  app.use(apiKeyErrorHandler())
  app.use(keepPrivate)
  // Against request forgery: with SameSite=Lax no other site's form or script sends the cookie along with what changes
  // something. In production also `secure: true`: this demo speaks plain HTTP, to the loopback address only.
  app.use(session({ key: 'session', httpOnly: true, sameSite: 'lax', maxAge: 3_600_000 }, app))
  app.use(markSession({ user: (ctx) => people.find(String(ctx.session?.personId)) }))
  app.use(manageKeys(keys, people, organisations))
  app.use(router.routes()).use(router.allowedMethods())
  return app
}

/** A cache in between does not know that responses depend on X-Api-Key. */
const keepPrivate: Middleware = (ctx, next) => {
  ctx.set('Cache-Control', 'private')
  return next()
}

const requireStaff: Middleware = (ctx, next) => {
  if (!personOf(ctx).isStaff) return ctx.throw(403, 'That is for the staff')
  return next()
}

/** The logged-in person, on a route that `requireSession` guards. */
function personOf(ctx: Context): Person {
  const auth = getAuth<Person>(ctx)
  if (auth.method !== 'session') throw new Error('This route needs a guard')
  return auth.user
}

/** The owner of the key, on a route that takes keys. It is an organisation: `isOwnerActive` refuses every other owner. */
function owningOrganisation(ctx: Context): string {
  const auth = getAuth(ctx)
  if (auth.method !== 'apikey') throw new Error('This route needs a guard')
  return auth.apiKey.owner.id
}

function isPlan(value: unknown): value is Plan {
  return typeof value === 'string' && Object.hasOwn(PLANS, value)
}
