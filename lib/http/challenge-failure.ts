import type { ServerResponse } from 'node:http'
import onHeaders from 'on-headers'

/**
 * Sees to it that a 401 carries this challenge beside any others (RFC 9110 §15.5.2), where whoever answers the request
 * has none to send.
 */
export function challengeFailure(res: ServerResponse | undefined, challenge: string): void {
  if (typeof res?.writeHead !== 'function') return
  onHeaders(res, function (this: ServerResponse) {
    if (this.statusCode !== 401) return
    const others = this.getHeader('WWW-Authenticate') ?? []
    const lines = Array.isArray(others) ? others : [String(others)]
    if (!lines.includes(challenge)) this.setHeader('WWW-Authenticate', [...lines, challenge])
  })
}
