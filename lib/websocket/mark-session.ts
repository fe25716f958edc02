import type { IncomingMessage } from 'node:http'
import { createLateSessionMarker } from '../http/mark-session.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { ignoreErrors } from './ignore-errors.ts'

/** How to find the user of a session. */
export interface MarkSessionOptions {
  /** Returns the logged-in user of the session, or a promise of it; null, undefined or false if there is none. */
  user: (request: IncomingMessage) => Awaitable<unknown>
}

/**
 * Returns a function that marks an upgrade request of a logged-in session. Wait for it before `apiKeyUpgrade` with `required: false`.
 * It rejects with what `user` throws: catch that, and end the socket.
 *
 * Browsers send cookies with the WebSockets of every site: let in a session only if the `Origin` of the request is yours.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const mark = markSession({ user: (request) => sessions.userOf(request.headers.cookie) })
 *
 * if (request.headers.origin === 'https://app.example.com') await mark(request)
 */
export function markSession(options: MarkSessionOptions): (request: IncomingMessage) => Promise<void> {
  const mark = createLateSessionMarker(options)
  return (request) => {
    ignoreErrors(request.socket)
    return mark(request)
  }
}
