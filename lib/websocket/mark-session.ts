import type { IncomingMessage } from 'node:http'
import { createSessionMarker, type MarkSessionOptions as MarkerOptions } from '../http/mark-session.ts'

/** How to find the user of a session. */
export interface MarkSessionOptions extends MarkerOptions<IncomingMessage> {}

/**
 * Returns a function that marks an upgrade request of a logged-in session. Call it once your session middleware has read the session,
 * and before `apiKeyUpgrade` with `required: false`. Browsers send cookies with WebSockets of every site: compare the `Origin` of the
 * request with yours before you let a session in.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const mark = markSession({ user: (request) => sessionOf(request)?.user })
 */
export function markSession(options: MarkSessionOptions = {}): (request: IncomingMessage) => void {
  return createSessionMarker<IncomingMessage>(options)
}
