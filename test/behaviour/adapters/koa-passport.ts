import { STATUS_CODES } from 'node:http'
import type Koa from 'koa'
import type { Context, Middleware } from 'koa'
import koaPassport from 'koa-passport'
import { isLatchkeyError } from 'latchkey'
import { apiKeyErrorHandler, getAuth, markSession } from 'latchkey/koa'
import { ApiKeyStrategy } from 'latchkey/passport'
import { partsOf, SESSION_USER } from '../pipeline.ts'
import type { App, Asked } from '../row.ts'
import type { Adapter, AdapterName } from './adapter.ts'
import { atLogin, createKoa, createKoaParts, meanwhile } from './koa-parts.ts'

type Passport = InstanceType<typeof koaPassport.KoaPassport>

// Its own copy of Passport, which is not the one of this package.
const { KoaPassport } = koaPassport

/** `app.use(passport.authenticate('apikey'))`, next to a login session that is Passport's as well. */
export function koaPassportAdapter(
  name: AdapterName,
  Framework: typeof Koa,
  refuseWith: 'fail' | 'error',
): Adapter {
  return {
    name,
    build(app, surroundings) {
      const { keys, resolveUser } = surroundings
      const passport = new KoaPassport()
      passport.serializeUser((user, done) => done(null, JSON.stringify(user)))
      passport.deserializeUser((text: string, done) => done(null, JSON.parse(text)))
      passport.use(
        new ApiKeyStrategy({ keys, ...app.reads, refuseWith, ...(resolveUser && { resolveUser }) }),
      )
      const server = createKoa(Framework, app)
      if (refuseWith === 'error' && !app.rendering) server.use(apiKeyErrorHandler())
      const shared = createKoaParts(app, server, surroundings)
      const parts = {
        ...shared,
        session: [...shared.session, passport.initialize()],
        login: [atLogin((ctx) => ctx.logIn(SESSION_USER as Parameters<Context['logIn']>[0]))],
        restore: [passport.session()],
        mark: [markSession() as Middleware],
        meanwhile: [meanwhile(app.meanwhile, logOut)],
        keys: [authenticate(passport, app, app.asks)],
        keysAgain: [authenticate(passport, app, app.asksAgain)],
      }
      for (const part of partsOf(app)) for (const middleware of parts[part]) server.use(middleware)
      return server.callback()
    },
  }
}

const logOut: Middleware = async (ctx, next) => {
  await (ctx as Context).logout()
  return next()
}

function authenticate(passport: Passport, app: App, asks: Asked = {}): Middleware {
  if (app.keys !== 'optional' && app.keys !== 'overruled') return passport.authenticate('apikey', { ...asks })
  // koa-passport keeps the callback's promise on the callback: one that two requests share leaves the first waiting.
  return async (ctx, next) => {
    let passes = true
    const done = (error: unknown, _user: unknown, challenge?: unknown, status: number = 401) => {
      if (app.keys === 'overruled' || (isLatchkeyError(error) && error.code === 'missing_key')) return
      if (error) throw error
      if (getAuth(ctx).method !== 'rejected') return
      passes = false
      ctx.status = status
      if (status === 401) ctx.set('WWW-Authenticate', String(challenge))
      ctx.body = STATUS_CODES[status]
    }
    await passport.authenticate('apikey', { ...asks }, done as never)(ctx, async () => {})
    if (passes) await next()
  }
}
