import cors from 'cors'
import type { Request, RequestHandler } from 'express'
import session from 'express-session'
import {
  getAuth,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/express'
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
import { describeWho } from '../who.ts'

const GUARDS = { requireSession, requireAuth, requireApiKey, requirePermissions }

/** Every part but the reading of keys, for whatever is made of Express's middlewares. */
export function createExpressParts(
  app: App,
  surroundings: Surroundings,
  refuseWith: 'problem' | 'error' = app.rendering ? 'error' : 'problem',
): Record<Exclude<Part, 'keys' | 'keysAgain'>, RequestHandler[]> {
  return {
    observe: [observe(surroundings)],
    cors: [cors({ origin: CORS_ORIGIN })],
    session: [session({ secret: 'test', resave: false, saveUninitialized: false })],
    login: [atLogin((req) => Object.assign(req.session, { user: SESSION_USER }))],
    restore: [restore],
    rewrite: [
      (req, _res, next) => {
        rewriteHeaders(req.headers, app, surroundings)
        next()
      },
    ],
    mark: [markSession({ user: loggedIn })],
    meanwhile: [meanwhile(app.meanwhile, logOut)],
    guard: app.guard ? [createGuard<RequestHandler>(GUARDS, app.guard, surroundings, refuseWith)] : [],
    route: [showWho],
  }
}

function observe({ note }: Surroundings): RequestHandler {
  return (req, res, next) => {
    res.on('finish', () => note(req.headers, describeWho(getAuth(req), req)))
    next()
  }
}

/** What the route answers: who is asking. */
const showWho: RequestHandler = (req, res) => {
  res.json(describeWho(getAuth(req), req))
}

/** Answers `POST /login` once `logIn` has been called. */
export function atLogin(logIn: (req: Request) => unknown): RequestHandler {
  return async (req, res, next) => {
    if (req.path !== '/login') return next()
    await logIn(req)
    res.end()
  }
}

function loggedIn(req: Request): unknown {
  return (req.session as { user?: unknown }).user
}

const restore: RequestHandler = (req, _res, next) => {
  const user = loggedIn(req)
  if (user) req.user = user as Express.User
  next()
}

const logOut: RequestHandler = (req, _res, next) => {
  Object.assign(req.session, { user: null })
  req.user = undefined
  next()
}

export function meanwhile(what: App['meanwhile'], logOut: RequestHandler): RequestHandler {
  if (what === 'logs out') return logOut
  return (req, _res, next) => {
    if (what === 'claims a session') Object.assign(req, { authMethod: 'session', apiKey: { id: 'claimed' } })
    else if (what === 'exchanges the user' || what === 'sets a user') req.user = OTHER_USER as Express.User
    next()
  }
}
