import { checkFunction, checkObject } from '../internal/options.ts'
import { readMark, showMark, writeMark } from './auth-mark.ts'
import { setUser, userProperty } from './raw-request.ts'

export interface MarkSessionOptions<Request = object> {
  /**
   * The user whom the session has logged in; null or undefined if it has none. It becomes `req.user`.
   *
   * @default whom Passport has restored from the session
   */
  user?: (request: Request) => unknown
}

/**
 * Marks a request whose session has a user. A request that is marked already keeps its mark: where a key is
 * presented, it decides.
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
    const method = readMark(request)?.method
    if (method === 'apikey' || method === 'rejected') return
    const user = readUser ? readUser(request) : passportUser(request)
    if (user === undefined || user === null) {
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
  return login === undefined || login === null
    ? undefined
    : (request as Record<string, unknown>)[userProperty(request)]
}
