import type { PassportRequest } from './strategy-base.ts'

/**
 * Passport's `success` logs the user into the session unless the route says `session: false`. For the one call
 * that this success makes, `req.logIn` hears that; every other call, also of the application's own, is left alone.
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
