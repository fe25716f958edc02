import { randomBytes } from 'node:crypto'
import express, { type Express } from 'express'
import session from 'express-session'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler, markSession, requireAuth, requireSession } from 'latchkey/express'
import { getAuth } from 'latchkey/passport'
import { ownKeys } from './own-keys.ts'
import { createPassport } from './passport.ts'
import { answerError, sendProblem } from './problem.ts'
import { ownerFinder, type Users, userOf } from './users.ts'

export interface AppOptions {
  keys: ApiKeys
  users: Users
  /**
   * Signs the session cookie.
   *
   * @default a random one: sessions end with the process, where express-session keeps them anyway
   */
  sessionSecret?: string
}

/** An application with a login, and an API for the keys of its users. */
export function createApp({
  keys,
  users,
  sessionSecret = randomBytes(32).toString('hex'),
}: AppOptions): Express {
  const passport = createPassport(keys, users)
  const resolveUser = ownerFinder(users)
  const projects = [{ name: 'analytical engine', addedBy: 'u_1' }]
  const app = express()
  app.disable('x-powered-by')

  app.use((_req, res, next) => {
    // A cache in between does not know that responses depend on X-Api-Key.
    res.setHeader('Cache-Control', 'private')
    next()
  })
  // Against request forgery: with SameSite=Lax no other site's form or script sends the cookie along with a POST
  // or DELETE, and bodies are read as JSON only, which no form can send.
  app.use(express.json({ limit: '10kb' }))
  app.use(
    session({
      name: 'session',
      secret: sessionSecret,
      resave: false,
      saveUninitialized: false,
      // In production also `secure: true`: this demo speaks plain HTTP, to the loopback address only.
      cookie: { httpOnly: true, sameSite: 'lax', maxAge: 3_600_000 },
    }),
    passport.session(),
    markSession(),
  )

  app.post('/login', passport.authenticate('local', { failWithError: true }), (req, res) => {
    res.json({ user: req.user?.username })
  })
  app.post('/logout', requireSession(), (req, res, next) => {
    req.logout((error) => (error ? next(error) : res.status(204).end()))
  })

  // Sessions only.
  app.use('/keys', ownKeys(keys))
  app.get('/settings', requireSession(), (req, res) => {
    res.json({ user: userOf(req).username, theme: 'dark' })
  })

  // Keys only.
  app.get(
    '/projects',
    passport.authenticate('apikey', { permissions: { projects: ['read'] } }),
    (_req, res) => {
      res.json({ projects })
    },
  )
  app.post(
    '/projects',
    passport.authenticate('apikey', { permissions: { projects: ['write'] } }),
    (req, res) => {
      const name: unknown = req.body?.name
      if (typeof name !== 'string' || name.trim() === '' || name.length > 100) {
        sendProblem(res, 400, 'Expected JSON like {"name":"difference engine"}')
        return
      }
      const project = { name: name.trim(), addedBy: userOf(req).id }
      projects.push(project)
      res.status(201).json(project)
    },
  )

  // Either. If the request has a key, the key decides: a bad one is refused, whatever cookie comes with it.
  app.get(
    '/me',
    apiKeyAuth(keys, { required: false, resolveUser }),
    requireAuth({ accept: ['session', 'apikey'] }),
    (req, res) => {
      const auth = getAuth(req)
      const user = userOf(req).username
      res.json(
        auth.method === 'apikey' ? { user, by: 'apikey', key: auth.apiKey.name } : { user, by: 'session' },
      )
    },
  )

  app.use((_req, res) => sendProblem(res, 404, 'Not found'))
  app.use(apiKeyErrorHandler(), answerError)
  return app
}
