import { isPromiseLike } from '../internal/awaitable.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import { getAuth, isNobody, readMark, showMark, writeMark } from './auth-mark.ts'
import { partsOf, propertiesOf, setUser, userProperty } from './raw-request.ts'

/** How to find the user of a session. */
export interface MarkSessionOptions<Request = object> {
  /**
   * Returns the logged-in user of the session; null, undefined or false if there is none. It becomes `req.user`. It
   * must be synchronous: a promise is a TypeError, and the request is refused.
   *
   * @default whom Passport has restored from the session
   */
  user?: (request: Request) => unknown
}

/**
 * Marks a request whose session has a user. A request that is already marked keeps its mark: if a key is presented, it
 * decides, and the session's user is removed.
 *
 * @throws TypeError naming the option.
 */
export function createSessionMarker<Request extends object>(
  options: MarkSessionOptions<Request>,
): (request: Request) => void {
  checkObject('options', options, ['user'])
  const { user: readUser } = options
  if (readUser !== undefined) checkFunction('user', readUser)
  return (request) => {
    const mark = readMark(request)
    if (mark !== undefined && mark.method !== 'session') {
      // A session that was restored after the key check has set its user: do not let that pass for the key's user.
      const { method } = getAuth(request)
      if (method === 'rejected' || method === 'conflict') setUser(partsOf(request), undefined)
      return
    }
    const user = readUser ? readUser(request) : passportUser(request)
    if (isPromiseLike(user)) {
      // Without a handler, its rejection would end the process.
      user.then(undefined, () => {})
      throw new TypeError('"user" of markSession must be synchronous: load the session before it runs')
    }
    const parts = partsOf(request)
    if (isNobody(user)) {
      showMark(parts)
      return
    }
    setUser(parts, user)
    writeMark(parts, { method: 'session', user })
  }
}

/** The same where `user` may take its time, and no middleware has read the session before. @throws TypeError naming the option. */
export function createLateSessionMarker<Request extends object>(options: {
  user: (request: Request) => unknown
}): (request: Request) => Promise<void> {
  checkObject('options', options, ['user'])
  checkFunction('user', options.user)
  const users = new WeakMap<Request, unknown>()
  const mark = createSessionMarker<Request>({ user: (request) => users.get(request) })
  return async function markSessionOfRequest(request) {
    users.set(request, await options.user(request))
    mark(request)
  }
}

/** The user that Passport has set on the request, if the session holds a Passport login. */
function passportUser(request: object): unknown {
  const { session } = request as { session?: { passport?: { user?: unknown } } | null }
  const login = session?.passport?.user
  return login === undefined || login === null ? undefined : propertiesOf(request)[userProperty(request)]
}
