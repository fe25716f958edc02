import { randomBytes } from 'node:crypto'
import express, { type Express } from 'express'
import session from 'express-session'
import type { ApiKeys } from 'latchkey'
import {
  apiKeyAuth,
  apiKeyErrorHandler,
  getAuth,
  markSession,
  requirePermissions,
  requireSession,
} from 'latchkey/express'
import { ownKeys } from '../express/own-keys.ts'
import { answerError, sendProblem } from '../express/problem.ts'
import { ownerFinder, type Users, userOf } from '../express/users.ts'
import { refuseForgery } from './refuse-forgery.ts'

declare module 'express-session' {
  interface SessionData {
    userId: string
  }
}

export interface AppOptions {
  keys: ApiKeys
  users: Users
  /** The origin of its own pages, as browsers write it: `https://app.example`. */
  origin: string
}

/** An application with its own login, whose routes take a login session or a key. */
export function createApp({ keys, users, origin }: AppOptions): Express {
  const projects = [{ name: 'analytical engine', by: 'ada' }]
  const themes = new Map<string, string>()
  const app = express()
  app.disable('x-powered-by')

  app.use((_req, res, next) => {
    // A cache in between does not know that responses depend on X-Api-Key.
    res.setHeader('Cache-Control', 'private')
    next()
  })
  app.use(express.json({ limit: '10kb' }))
  app.use(
    session({
      name: 'session',
      secret: randomBytes(32).toString('hex'),
      resave: false,
      saveUninitialized: false,
      // In production also `secure: true`: this demo speaks plain HTTP, to the loopback address only.
      cookie: { httpOnly: true, sameSite: 'lax', maxAge: 3_600_000 },
    }),
  )
  app.use(markSession({ user: ({ session }) => (session.userId ? users.find(session.userId) : null) }))
  // If the request has a key, the key decides: a bad one is refused here, whatever cookie comes with it.
  app.use(apiKeyAuth(keys, { required: false, resolveUser: ownerFinder(users) }))
  // After the middleware that verifies keys: only a verified key skips the check.
  app.use(refuseForgery(origin))

  app.post('/login', async (req, res, next) => {
    const { username, password } = (req.body ?? {}) as Record<string, unknown>
    const user = await users.checkPassword(String(username), String(password))
    if (!user) {
      sendProblem(res, 401, 'Wrong name or password')
      return
    }
    // A new session, so that nobody who knew the old id knows the new one.
    req.session.regenerate((error) => {
      if (error) {
        next(error)
        return
      }
      req.session.userId = user.id
      res.json({ user: user.username })
    })
  })
  app.post('/logout', requireSession(), (req, res, next) => {
    req.session.destroy((error) => (error ? next(error) : res.status(204).end()))
  })

  // Sessions only: a key cannot change settings or make keys.
  app.use('/keys', ownKeys(keys))
  app
    .route('/settings')
    .all(requireSession())
    .get((req, res) => {
      res.json({ user: userOf(req).username, theme: themes.get(userOf(req).id) ?? 'light' })
    })
    .put((req, res) => {
      const theme = req.body?.theme === 'dark' ? 'dark' : 'light'
      themes.set(userOf(req).id, theme)
      res.json({ user: userOf(req).username, theme })
    })

  // Either. What a person may do depends on who they are; what a key may do, on its permissions.
  app.get('/me', requirePermissions({ projects: ['read'] }, { accept: ['session'] }), (req, res) => {
    res.json({ user: userOf(req).username, by: getAuth(req).method })
  })
  app.get('/projects', requirePermissions({ projects: ['read'] }, { accept: ['session'] }), (_req, res) => {
    res.json({ projects })
  })
  app.post('/projects', requirePermissions({ projects: ['write'] }, { accept: ['session'] }), (req, res) => {
    const name: unknown = req.body?.name
    if (typeof name !== 'string' || name === '' || name.length > 100) {
      sendProblem(res, 400, 'Expected JSON like {"name":"loom"}')
      return
    }
    const project = { name, by: userOf(req).username }
    projects.push(project)
    res.status(201).json(project)
  })

  app.use((_req, res) => sendProblem(res, 404, 'Not found'))
  app.use(apiKeyErrorHandler(), answerError)
  return app
}
