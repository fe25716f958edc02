import type { ServerResponse } from 'node:http'
import onHeaders from 'on-headers'
import type { LatchkeyError } from '../errors.ts'

/**
 * Keeps caches from storing a failure. Whether the request fails is known only when the response begins, since another
 * way of authenticating may still succeed.
 */
export function keepFailureUncached(res: ServerResponse | undefined): void {
  beforeFailure(res, setNoStore)
}

/**
 * The same, and adds the header fields of `error` to a response with its status, whoever renders it: Koa and Nest drop
 * fields set earlier, and those of an error. A response with another status gets none of them.
 */
export function keepFailureFields(res: ServerResponse | undefined, error: LatchkeyError): void {
  beforeFailure(res, (failed) => {
    setNoStore(failed)
    if (failed.statusCode !== error.status) return
    for (const [name, value] of Object.entries(error.headers)) {
      // Whoever renders the error may challenge for more than this package knows of.
      if (name !== 'WWW-Authenticate' || !failed.hasHeader(name)) failed.setHeader(name, value)
    }
  })
}

/** Adds this challenge to a 401, beside any others (RFC 9110 §15.5.2), for code that answers without one. */
export function challengeFailure(res: ServerResponse | undefined, challenge: string): void {
  beforeFailure(res, (failed) => {
    if (failed.statusCode !== 401) return
    const others = failed.getHeader('WWW-Authenticate') ?? []
    const lines = Array.isArray(others) ? others : [String(others)]
    if (!lines.includes(challenge)) failed.setHeader('WWW-Authenticate', [...lines, challenge])
  })
}

function setNoStore(failed: ServerResponse): void {
  failed.setHeader('Cache-Control', 'no-store')
}

function beforeFailure(res: ServerResponse | undefined, act: (failed: ServerResponse) => void): void {
  if (typeof res?.writeHead !== 'function') return
  onHeaders(res, function (this: ServerResponse) {
    if (this.statusCode >= 400) act(this)
  })
}
