import type { RequestListener } from 'node:http'
import { createRequire } from 'node:module'
import type { ErrorRequestHandler, RequestHandler } from 'express'
import { expressjwt } from 'express-jwt'
import session from 'express-session'
import jwt from 'jsonwebtoken'
import type Koa from 'koa'
import type { Context, Middleware } from 'koa'
import { KoaPassport } from 'koa-passport'
import koaSession from 'koa-session'
import { type ApiKey, type ApiKeys, isLatchkeyError } from 'latchkey'
import * as onExpress from 'latchkey/express'
import * as onKoa from 'latchkey/koa'
import { ApiKeyStrategy, type VerifyDone } from 'latchkey/passport'
import { Authenticator, type Strategy } from 'passport'
import { ExtractJwt, Strategy as JwtStrategy } from 'passport-jwt'
import { EXPRESSES } from './expresses.ts'
import { KOAS } from './koas.ts'

/** What differs between applications that take sessions, keys and tokens of another kind. */
export interface SessionParts {
  keys: ApiKeys
  /** Whom `POST /login` logs in. */
  member?: unknown
  /** Whom keys stand for. */
  keyUser?: (apiKey: ApiKey) => unknown
  /** Keys are read before the login is restored, not behind it. */
  keysFirst?: boolean
  /** Nothing says that the login is a session's. */
  isUnmarked?: boolean
}

/**
 * An application with a session, a token middleware and a reader of keys. A refused key is not the end: what guards make
 * of it is what is tested. `/show` tells who is asking, the other paths are guards. `X-Log-Out` ends the session midway.
 */
export interface SessionDoor {
  readonly name: string
  /** Who restores the login: the application, or `passport.session()`, which fails for 0 and an empty string. */
  readonly login: 'own' | 'passport'
  createListener(parts: SessionParts): RequestListener
}

/** Signs the tokens that are no keys. */
export const JWT_SECRET = 'a secret of at least thirty-two bytes'
export const TOKEN_USER = { name: 'Token' }
export const TOKEN_LINE = `Authorization: Bearer ${jwt.sign(TOKEN_USER, JWT_SECRET, { noTimestamp: true })}`

const ALICE = { name: 'Alice' }
const SESSION = { secret: 'test', resave: false, saveUninitialized: false }
const passport06: typeof import('passport') = createRequire(import.meta.url)('passport06')

export const SESSION_DOORS: readonly SessionDoor[] = [
  ...EXPRESSES.map(([name, createApp]) => expressDoor(name, createApp)),
  ...EXPRESSES.map(([name, createApp], i) =>
    i === 0
      ? passportDoor(`${name} with Passport 0.7`, createApp, Authenticator)
      : passportDoor(`${name} with Passport 0.6`, createApp, passport06.Authenticator),
  ),
  ...KOAS.map(([name, App]) => koaDoor(name, App)),
  ...KOAS.map(([name, App]) => koaPassportDoor(`${name} with koa-passport`, App)),
]

function expressDoor(name: string, createApp: (typeof EXPRESSES)[0][1]): SessionDoor {
  return {
    name,
    login: 'own',
    createListener({ keys, member = ALICE, keyUser, keysFirst = false, isUnmarked = false }) {
      const app = createApp()
      const memberOf = (req: unknown) => (req as { session: { member?: unknown } }).session.member
      const restore: RequestHandler = (req, _res, next) => {
        req.user = memberOf(req) as Express.User
        next()
      }
      const readKeys = onExpress.apiKeyAuth(keys, {
        required: false,
        refuseWith: 'error',
        ...(keyUser && { resolveUser: keyUser }),
      })
      app.set('env', 'test')
      app.use(session(SESSION))
      app.post('/login', (req, res) => {
        Object.assign(req.session, { member })
        res.end()
      })
      if (keysFirst) app.use(readKeys, carryOn)
      app.use(isUnmarked ? restore : onExpress.markSession({ user: memberOf }))
      app.use(
        expressjwt({
          secret: JWT_SECRET,
          algorithms: ['HS256'],
          credentialsRequired: false,
          requestProperty: 'user',
          getToken: (req) => /^Bearer (.+)$/.exec(req.headers.authorization ?? '')?.[1],
        }) as RequestHandler,
      )
      if (!keysFirst) app.use(readKeys, carryOn)
      app.use((req, _res, next) => {
        if (req.get('X-Log-Out')) {
          Object.assign(req.session, { member: undefined })
          Object.assign(req, { user: undefined })
        }
        next()
      })
      addExpressRoutes(app)
      return app
    },
  }
}

function passportDoor(
  name: string,
  createApp: (typeof EXPRESSES)[0][1],
  Passport: typeof Authenticator,
): SessionDoor {
  return {
    name,
    login: 'passport',
    createListener({ keys, member = ALICE, keyUser, keysFirst = false, isUnmarked = false }) {
      const passport = new Passport()
      setUpPassport(passport, keys, keyUser)
      const readKeys: RequestHandler = passport.authenticate('apikey')
      const readToken: RequestHandler = (req, res, next) =>
        req.get('Authorization') ? passport.authenticate('jwt', { session: false })(req, res, next) : next()
      const app = createApp()
      app.set('env', 'test')
      app.use(passport.initialize(), session(SESSION))
      if (keysFirst) app.use(readKeys, carryOn)
      app.use(passport.session())
      if (!isUnmarked) app.use(onExpress.markSession())
      app.post('/login', (req, res, next) => {
        req.logIn(member as Express.User, (error) => (error ? next(error) : res.end()))
      })
      app.use(readToken)
      if (!keysFirst) app.use(readKeys, carryOn)
      app.use((req, _res, next) => (req.get('X-Log-Out') ? req.logout(next) : next()))
      addExpressRoutes(app)
      return app
    },
  }
}

function koaDoor(name: string, App: (typeof KOAS)[0][1]): SessionDoor {
  return {
    name,
    login: 'own',
    createListener({ keys, member = ALICE, keyUser, keysFirst = false, isUnmarked = false }) {
      const app = silentKoa(App)
      const restore: Middleware = (ctx, next) => {
        ctx.state.user = ctx.session?.member
        return next()
      }
      const readKeys = carryingOn(
        onKoa.apiKeyAuth(keys, {
          required: false,
          refuseWith: 'error',
          ...(keyUser && { resolveUser: keyUser }),
        }),
      )
      app.use(koaSession(app))
      app.use((ctx, next) => {
        if (ctx.path !== '/login') return next()
        Object.assign(ctx.session as object, { member })
        ctx.body = ''
        return undefined
      })
      if (keysFirst) app.use(readKeys)
      app.use(isUnmarked ? restore : onKoa.markSession({ user: (ctx) => ctx.session?.member }))
      app.use((ctx, next) => {
        const [, token] = /^Bearer (.+)$/.exec(ctx.get('Authorization')) ?? []
        if (token !== undefined) ctx.state.user = jwt.verify(token, JWT_SECRET, { algorithms: ['HS256'] })
        return next()
      })
      if (!keysFirst) app.use(readKeys)
      app.use((ctx, next) => {
        if (ctx.get('X-Log-Out')) {
          ctx.session = null
          ctx.state.user = undefined
        }
        return next()
      })
      addKoaRoutes(app)
      return app.callback()
    },
  }
}

function koaPassportDoor(name: string, App: (typeof KOAS)[0][1]): SessionDoor {
  return {
    name,
    login: 'passport',
    createListener({ keys, member = ALICE, keyUser, keysFirst = false, isUnmarked = false }) {
      const passport = new KoaPassport()
      setUpPassport(passport, keys, keyUser)
      const readToken = passport.authenticate('jwt', { session: false })
      const readKeys = carryingOn(passport.authenticate('apikey', {}))
      const app = silentKoa(App)
      app.use(koaSession(app)).use(passport.initialize())
      if (keysFirst) app.use(readKeys)
      app.use(passport.session())
      if (!isUnmarked) app.use(onKoa.markSession())
      app.use(async (ctx, next) => {
        if (ctx.path !== '/login') return next()
        await ctx.login(member)
        ctx.body = ''
      })
      app.use((ctx, next) => (ctx.get('Authorization') ? readToken(ctx, next) : next()))
      if (!keysFirst) app.use(readKeys)
      app.use(async (ctx, next) => {
        if (ctx.get('X-Log-Out')) await ctx.logout()
        return next()
      })
      addKoaRoutes(app)
      return app.callback()
    },
  }
}

function setUpPassport(
  passport: Pick<Authenticator, 'serializeUser' | 'deserializeUser'> & { use(strategy: Strategy): unknown },
  keys: ApiKeys,
  keyUser: SessionParts['keyUser'],
): void {
  // Where users have numbers, Passport keeps the number, be it 0.
  passport.serializeUser((user, done) => done(null, (user as { id?: number }).id ?? JSON.stringify(user)))
  passport.deserializeUser((kept: number | string, done) =>
    done(null, typeof kept === 'number' ? { id: kept } : JSON.parse(kept)),
  )
  const verify = (apiKey: ApiKey, done: VerifyDone) => done(null, keyUser?.(apiKey))
  passport.use(new ApiKeyStrategy({ keys, refuseWith: 'error' }, keyUser && verify))
  const jwtFromRequest = ExtractJwt.fromAuthHeaderAsBearerToken()
  passport.use(
    new JwtStrategy({ secretOrKey: JWT_SECRET, jwtFromRequest }, (payload, done) => done(null, payload)),
  )
}

/** The guards, by their path. */
function guardsOf<Handler>(door: {
  requireSession(): Handler
  requireApiKey(): Handler
  requireAuth(options: { accept: ('session' | 'apikey' | 'other')[] }): Handler
}): Record<string, Handler> {
  return {
    '/session': door.requireSession(),
    '/key': door.requireApiKey(),
    '/either': door.requireAuth({ accept: ['session', 'apikey'] }),
    '/other': door.requireAuth({ accept: ['other'] }),
  }
}

function addExpressRoutes(app: ReturnType<(typeof EXPRESSES)[0][1]>): void {
  const show: RequestHandler = (req, res) => {
    res.json({ ...onExpress.getAuth(req), apiKey: undefined, view: req.authMethod, keyId: req.apiKey?.id })
  }
  for (const [path, guard] of Object.entries(guardsOf(onExpress))) app.get(path, guard, show)
  app.get('/show', show)
}

function addKoaRoutes(app: Koa): void {
  const guards = guardsOf<Middleware>(onKoa)
  const show = (ctx: Context) => {
    const { authMethod, apiKey } = ctx.state as onKoa.ApiKeyState
    ctx.body = { ...onKoa.getAuth(ctx), apiKey: undefined, view: authMethod, keyId: apiKey?.id }
  }
  app.use((ctx, next) => {
    const guard = guards[ctx.path]
    return guard ? guard(ctx, next) : next()
  })
  app.use((ctx) => show(ctx as Context))
}

const carryOn: ErrorRequestHandler = (error, _req, _res, next) => next(isLatchkeyError(error) ? null : error)

function carryingOn(middleware: Middleware): Middleware {
  return async (ctx, next) => {
    try {
      await middleware(ctx, async () => {})
    } catch (error) {
      if (!isLatchkeyError(error)) throw error
    }
    return next()
  }
}

/** Answers unforeseen errors with a 500, and says nothing more. */
function silentKoa(App: (typeof KOAS)[0][1]): Koa {
  const app = new App()
  app.keys = ['test']
  app.silent = true
  return app
}
