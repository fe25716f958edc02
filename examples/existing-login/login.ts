import { randomBytes } from 'node:crypto'
import express, { type Router } from 'express'
import session from 'express-session'
import passport from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import type { Users } from './users.ts'

/** The login that this application has had before there were keys: Passport with names and passwords. */
export function login(users: Users): Router {
  const instance = new passport.Passport()
  instance.serializeUser<string>((user, done) => done(null, user.id))
  instance.deserializeUser<string>((id, done) => done(null, users.find(id) ?? false))
  instance.use(
    new LocalStrategy((username, password, done) => {
      users.checkPassword(username, password).then((user) => done(null, user ?? false), done)
    }),
  )

  const router = express.Router()
  router.use(
    session({
      name: 'session',
      secret: randomBytes(32).toString('hex'),
      resave: false,
      saveUninitialized: false,
      // In production also `secure: true`: this demo speaks plain HTTP, to the loopback address only.
      cookie: { httpOnly: true, sameSite: 'lax', maxAge: 3_600_000 },
    }),
    instance.session(),
  )
  // JSON only, which no form of another site can send.
  router.post(
    '/login',
    express.json({ limit: '10kb' }),
    instance.authenticate('local', { failWithError: true }),
    (req, res) => {
      res.json({ user: req.user?.username })
    },
  )
  router.post('/logout', (req, res, next) => {
    req.logout((error) => (error ? next(error) : res.status(204).end()))
  })
  return router
}
