import type { ServerResponse } from 'node:http'
import onHeaders from 'on-headers'

/**
 * Sees to it that a failure is not stored by a cache, where whether there will be one is known only when
 * the response begins: another way of authenticating may still succeed.
 */
export function keepFailureUncached(res: ServerResponse | undefined): void {
  if (typeof res?.writeHead !== 'function') return
  onHeaders(res, function (this: ServerResponse) {
    if (this.statusCode >= 400) this.setHeader('Cache-Control', 'no-store')
  })
}
