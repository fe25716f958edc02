import type { PassportRequest } from './strategy-base.ts'

/**
 * Calls `success` so that Passport does not log the user into the session, even without `session: false` on the route.
 * Only the one `req.logIn` call that `success` makes is changed; every other call works as usual.
 */
export function succeedWithoutSession(req: PassportRequest, options: object, succeed: () => void): void {
  const { logIn } = req
  if (typeof logIn !== 'function') {
    succeed()
    return
  }
  const wasOwn = Object.hasOwn(req, 'logIn')
  const restore = () => {
    if (req.logIn !== shadow) return
    if (wasOwn) req.logIn = logIn
    else delete req.logIn
  }
  function shadow(this: unknown, user: unknown, given: unknown, done: unknown) {
    restore()
    return logIn?.call(req, user, given === options ? { ...options, session: false } : given, done)
  }
  req.logIn = shadow
  try {
    succeed()
  } finally {
    restore()
  }
}
