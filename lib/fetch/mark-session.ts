import { createLateSessionMarker } from '../http/mark-session.ts'
import type { Awaitable } from '../internal/awaitable.ts'

/** How to find the user of a session. */
export interface MarkSessionOptions {
  /** Returns the logged-in user of the request's session; null, undefined or false if there is none. */
  user: (request: Request) => Awaitable<unknown>
}

/**
 * Returns a function that marks requests of a logged-in session. A request that is already marked keeps its mark: if a key is
 * presented, it decides. The function rejects with what `user` throws.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const mark = markSession({ user: (request) => sessions.userOf(request.headers.get('Cookie')) })
 *
 * await mark(request)
 * const refused = requireSession()(request)
 */
export function markSession(options: MarkSessionOptions): (request: Request) => Promise<void> {
  return createLateSessionMarker(options)
}
