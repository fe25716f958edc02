import { isPromiseLike } from '../internal/awaitable.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import { getAuth, isNobody, readMark, showMark, writeMark } from './auth-mark.ts'
import { propertiesOf, setUser, userProperty } from './raw-request.ts'

/** Whom a session has logged in. */
export interface MarkSessionOptions<Request = object> {
  /**
   * The user whom the session has logged in; null, undefined or false if it has none. It becomes `req.user`. It has to
   * answer at once: a promise is a TypeError, and the request is refused.
   *
   * @default whom Passport has restored from the session
   */
  user?: (request: Request) => unknown
}

/**
 * Marks a request whose session has a user. A request that is marked already keeps its mark: where a key is
 * presented, it decides, and a session's user that stands beside it is taken away.
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
      // A session that was restored behind the key has put its user there: nobody is to take that for the key's.
      const { method } = getAuth(request)
      if (method === 'rejected' || method === 'conflict') setUser(request, undefined)
      return
    }
    const user = readUser ? readUser(request) : passportUser(request)
    if (isPromiseLike(user)) {
      // Its failure is nobody's to take, and would end the process.
      user.then(undefined, () => {})
      throw new TypeError('"user" of markSession must answer at once: read the session before, not in it')
    }
    if (isNobody(user)) {
      showMark(request)
      return
    }
    setUser(request, user)
    writeMark(request, { method: 'session', user })
  }
}

/** Whom Passport has put on the request, if the session says that it holds a Passport login. */
function passportUser(request: object): unknown {
  const { session } = request as { session?: { passport?: { user?: unknown } } | null }
  const login = session?.passport?.user
  return login === undefined || login === null ? undefined : propertiesOf(request)[userProperty(request)]
}
