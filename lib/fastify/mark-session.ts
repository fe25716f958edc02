import type { FastifyRequest } from 'fastify'
import { createSessionMarker } from '../http/mark-session.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import type { RequestHook } from './request-hook.ts'
import { noteRequest, ofFastify } from './request-parts.ts'

/** How to find the user of a session. */
export interface MarkSessionOptions {
  /**
   * Returns the logged-in user of the session; null, undefined or false if there is none. It must be synchronous: load the session
   * in a hook before.
   */
  user: (request: FastifyRequest) => unknown
}

/**
 * Hook that marks requests of a logged-in session. Add it after the plugin that loads the session. A request that is already marked
 * keeps its mark: if a key is presented, it decides.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * app.addHook('onRequest', markSession({ user: (request) => request.session.user }))
 */
export function markSession(options: MarkSessionOptions): RequestHook {
  checkObject('options', options, ['user'])
  const { user: readUser } = options
  checkFunction('user', readUser)
  const mark = createSessionMarker<object>({ user: ofFastify(readUser) as (raw: object) => unknown })
  return function markSessionOfRequest(request, _reply, done) {
    noteRequest(request)
    mark(request.raw)
    done()
  }
}
