import type { ServerResponse } from 'node:http'
import onHeaders from 'on-headers'
import type { LatchkeyError } from '../errors.ts'

/**
 * Sees to it that a failure is not stored by a cache, where whether there will be one is known only when
 * the response begins: another way of authenticating may still succeed.
 */
export function keepFailureUncached(res: ServerResponse | undefined): void {
  beforeFailure(res, (failed) => failed.setHeader('Cache-Control', 'no-store'))
}

/**
 * The same, and a response with the status of `error` has its header fields, whoever renders it: Koa and Nest drop
 * what was set before, or what an error carries. What is answered otherwise in the end has none of them.
 */
export function keepFailureFields(res: ServerResponse | undefined, error: LatchkeyError): void {
  keepFailureUncached(res)
  beforeFailure(res, (failed) => {
    if (failed.statusCode !== error.status) return
    for (const [name, value] of Object.entries(error.headers)) {
      if (!failed.hasHeader(name)) failed.setHeader(name, value)
    }
  })
}

function beforeFailure(res: ServerResponse | undefined, act: (failed: ServerResponse) => void): void {
  if (typeof res?.writeHead !== 'function') return
  onHeaders(res, function (this: ServerResponse) {
    if (this.statusCode >= 400) act(this)
  })
}
