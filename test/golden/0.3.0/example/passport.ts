import type { ApiKeys } from 'latchkey'
import { ApiKeyStrategy } from 'latchkey/passport'
import passport from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { ownerFinder, type Users } from './users.ts'

/** Passport with two ways of authenticating: a password, which begins a login session, and an API key, which never does. */
export function createPassport(keys: ApiKeys, users: Users) {
  const instance = new passport.Passport()
  instance.serializeUser<string>((user, done) => done(null, user.id))
  instance.deserializeUser<string>((id, done) => done(null, users.find(id) ?? false))
  instance.use(
    new LocalStrategy((username, password, done) => {
      users.checkPassword(username, password).then((user) => done(null, user ?? false), done)
    }),
  )
  // "error" hands every refusal to the error handlers, which answer with problem bodies.
  instance.use(new ApiKeyStrategy({ keys, resolveUser: ownerFinder(users), refuseWith: 'error' }))
  return instance
}
