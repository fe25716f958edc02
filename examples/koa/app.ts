import { randomBytes } from 'node:crypto'
import Router from '@koa/router'
import Koa, { type Middleware } from 'koa'
import session from 'koa-session'
import type { ApiKeys } from 'latchkey'
import {
  apiKeyAuth,
  apiKeyErrorHandler,
  getAuth,
  markSession,
  requireAuth,
  requireSession,
} from 'latchkey/koa'
import { ownerFinder, type User, type Users } from '../express/users.ts'
import { readJson } from './read-json.ts'

export interface AppOptions {
  keys: ApiKeys
  users: Users
}

/** An application with a login, and an API for the keys of its users. */
export function createApp({ keys, users }: AppOptions): Koa {
  const app = new Koa()
  // Signs the session cookie: a random key ends every session with the process.
  app.keys = [randomBytes(32).toString('hex')]

  const resolveUser = ownerFinder(users)
  const withKey = (permissions: Record<string, string[]>, cost = 1): Middleware =>
    apiKeyAuth(keys, { resolveUser, permissions, cost })

  const router = new Router()
  router.get('/', (ctx) => {
    ctx.body = { hello: 'world' }
  })
  router.post('/login', async (ctx) => {
    const { username, password } = await readJson(ctx)
    const user = await users.checkPassword(String(username), String(password))
    if (!user) {
      const headers = { 'WWW-Authenticate': 'Session realm="Users"' }
      return ctx.throw(401, 'Wrong name or password', { headers })
    }
    ctx.session = { userId: user.id }
    ctx.body = { user: user.username }
  })

  // Keys only.
  router.get('/projects', withKey({ projects: ['read'] }), (ctx) => {
    ctx.body = { projects: ['analytical engine'] }
  })
  router.delete('/projects/:name', withKey({ projects: ['write'] }), (ctx) => {
    ctx.status = 204
  })
  router.post('/reports', withKey({ projects: ['read'] }, 3), (ctx) => {
    ctx.status = 201
    ctx.body = { report: 'one engine, analytical' }
  })

  // Sessions only.
  router.get('/settings', requireSession(), (ctx) => {
    ctx.body = { user: ctx.state.user.username, theme: 'dark' }
  })

  // Either. If the request has a key, the key decides: a bad one is refused, whatever cookie comes with it.
  router.get(
    '/me',
    apiKeyAuth(keys, { required: false, resolveUser }),
    requireAuth({ accept: ['session', 'apikey'] }),
    (ctx) => {
      const auth = getAuth<User>(ctx)
      if (auth.method === 'session') ctx.body = { user: auth.user.username, by: auth.method }
      if (auth.method === 'apikey') {
        ctx.body = { user: auth.user.username, by: auth.method, key: auth.apiKey.name }
      }
    },
  )

  app.use(apiKeyErrorHandler())
  app.use(keepPrivate)
  // Against request forgery: with SameSite=Lax no other site's form or script sends the cookie along with a POST. In
  // production also `secure: true`: this demo speaks plain HTTP, to the loopback address only.
  app.use(session({ key: 'session', httpOnly: true, sameSite: 'lax', maxAge: 3_600_000 }, app))
  app.use(markSession({ user: (ctx) => users.find(String(ctx.session?.userId)) }))
  app.use(router.routes()).use(router.allowedMethods())
  return app
}

/** A cache in between does not know that responses depend on X-Api-Key. */
const keepPrivate: Middleware = (ctx, next) => {
  ctx.set('Cache-Control', 'private')
  return next()
}
