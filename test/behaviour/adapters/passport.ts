import { STATUS_CODES } from 'node:http'
import type express from 'express'
import type { RequestHandler } from 'express'
import { isLatchkeyError } from 'latchkey'
import { apiKeyErrorHandler, getAuth, markSession } from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Authenticator } from 'passport'
import { partsOf, SESSION_USER } from '../pipeline.ts'
import type { App, Asked } from '../row.ts'
import type { Adapter, AdapterName } from './adapter.ts'
import { atLogin, createExpressParts, meanwhile } from './express-parts.ts'

/** `app.use(passport.authenticate('apikey'))`, next to a login session that is Passport's as well. */
export function passportAdapter(
  name: AdapterName,
  createApp: typeof express,
  refuseWith: 'fail' | 'error',
): Adapter {
  return {
    name,
    build(app, surroundings) {
      const { keys, resolveUser } = surroundings
      const passport = new Authenticator()
      passport.serializeUser((user, done) => done(null, JSON.stringify(user)))
      passport.deserializeUser((text: string, done) => done(null, JSON.parse(text)))
      passport.use(
        new ApiKeyStrategy({ keys, ...app.reads, refuseWith, ...(resolveUser && { resolveUser }) }),
      )
      const server = createApp()
      if (app.proxies !== undefined) server.set('trust proxy', app.proxies)
      const shared = createExpressParts(app, surroundings)
      const parts = {
        ...shared,
        session: [...shared.session, passport.initialize()],
        login: [atLogin((req) => new Promise<void>((done) => req.logIn(SESSION_USER, () => done())))],
        restore: [passport.session()],
        mark: [markSession()],
        meanwhile: [meanwhile(app.meanwhile, (req, _res, next) => req.logout(next))],
        keys: [authenticate(passport, app, app.asks)],
        keysAgain: [authenticate(passport, app, app.asksAgain)],
      }
      for (const part of partsOf(app)) server.use(...parts[part])
      if (refuseWith === 'error' && !app.rendering) server.use(apiKeyErrorHandler())
      return server
    },
  }
}

/** Without `session: false`, on purpose: forgetting it must not matter. */
function authenticate(
  passport: InstanceType<typeof Authenticator>,
  app: App,
  asks: Asked = {},
): RequestHandler {
  if (app.keys !== 'optional' && app.keys !== 'overruled') return passport.authenticate('apikey', { ...asks })
  // Passport has no way of its own to let requests without a key pass.
  return (req, res, next) => {
    if (app.keys === 'overruled') {
      passport.authenticate('apikey', { ...asks }, () => next())(req, res, next)
      return
    }
    const done = (error: unknown, _user: unknown, challenge?: string, status = 401) => {
      if (isLatchkeyError(error) && error.code === 'missing_key') next()
      else if (error) next(error)
      else if (getAuth(req).method !== 'rejected') next()
      else {
        if (status === 401 && challenge) res.setHeader('WWW-Authenticate', challenge)
        res.statusCode = status
        res.end(STATUS_CODES[status])
      }
    }
    passport.authenticate('apikey', { ...asks }, done)(req, res, next)
  }
}
