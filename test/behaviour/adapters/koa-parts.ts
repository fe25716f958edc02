import cors from '@koa/cors'
import type Koa from 'koa'
import type { Context, Middleware } from 'koa'
import session from 'koa-session'
import {
  getAuth,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/koa'
import {
  CORS_ORIGIN,
  createGuard,
  OTHER_USER,
  type Part,
  rewriteHeaders,
  SESSION_USER,
  type Surroundings,
} from '../pipeline.ts'
import type { App } from '../row.ts'
import { describeWho, methodOf } from '../who.ts'

const GUARDS = { requireSession, requireAuth, requireApiKey, requirePermissions }

/** An application of Koa that trusts as many proxies as it is told to. */
export function createKoa(Framework: typeof Koa, { proxies }: App): Koa {
  const server = new Framework(proxies === undefined ? {} : { proxy: true, maxIpsCount: proxies })
  server.keys = ['test']
  // The errors of a row are in its answer.
  server.silent = true
  return server
}

/** Every part but the reading of keys. */
export function createKoaParts(
  app: App,
  server: Koa,
  surroundings: Surroundings,
): Record<Exclude<Part, 'keys' | 'keysAgain'>, Middleware[]> {
  return {
    observe: [observe(surroundings)],
    cors: [cors({ origin: CORS_ORIGIN })],
    session: [session(server) as unknown as Middleware],
    login: [
      atLogin((ctx) => {
        sessionOf(ctx).user = SESSION_USER
      }),
    ],
    restore: [restore],
    rewrite: [
      (ctx, next) => {
        rewriteHeaders(ctx.request.headers, app, surroundings)
        return next()
      },
    ],
    mark: [markSession({ user: (ctx) => sessionOf(ctx).user })],
    meanwhile: [meanwhile(app.meanwhile, logOut)],
    guard: app.guard
      ? [createGuard<Middleware>(GUARDS, app.guard, surroundings, app.rendering ? 'error' : 'problem')]
      : [],
    route: [showWho],
  }
}

function observe({ note }: Surroundings): Middleware {
  return (ctx, next) => {
    ctx.res.on('finish', () => note(ctx.headers, describeContext(ctx)))
    return next()
  }
}

/** `ctx.state.authMethod` is a plain value: what it holds is a matter of `test/koa`. */
function describeContext(ctx: Pick<Context, 'req' | 'state'>) {
  const auth = getAuth(ctx)
  return describeWho(auth, { ...ctx.state, authMethod: methodOf(auth) })
}

/** What the route answers: who is asking. */
const showWho: Middleware = (ctx) => {
  ctx.body = describeContext(ctx)
}

/** Answers `POST /login` once `logIn` has been called. */
export function atLogin(logIn: (ctx: Context) => unknown): Middleware {
  return async (ctx, next) => {
    if (ctx.path !== '/login') return next()
    await logIn(ctx as Context)
    ctx.body = ''
  }
}

function sessionOf(ctx: object): { user?: unknown } {
  return (ctx as { session: { user?: unknown } }).session
}

const restore: Middleware = (ctx, next) => {
  const { user } = sessionOf(ctx)
  if (user) ctx.state.user = user
  return next()
}

const logOut: Middleware = (ctx, next) => {
  sessionOf(ctx).user = null
  ctx.state.user = undefined
  return next()
}

export function meanwhile(what: App['meanwhile'], logOut: Middleware): Middleware {
  if (what === 'logs out') return logOut
  return (ctx, next) => {
    if (what === 'claims a session')
      Object.assign(ctx.state, { authMethod: 'session', apiKey: { id: 'claimed' } })
    else if (what === 'exchanges the user' || what === 'sets a user') ctx.state.user = OTHER_USER
    return next()
  }
}
