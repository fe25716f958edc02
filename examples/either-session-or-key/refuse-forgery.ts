import type { Request, RequestHandler } from 'express'
import { getAuth } from 'latchkey/express'
import { sendProblem } from '../express/problem.ts'

const SAFE_METHODS: readonly string[] = ['GET', 'HEAD', 'OPTIONS']

/**
 * Refuses changes that a page of another site may have made a browser send. A browser adds the cookie to such a request by
 * itself, but never a key, so a request that a key has authenticated is not forged.
 *
 * Only a verified key counts. If the mere presence of a key did, junk would skip the check, and the cookie would
 * authenticate. Mount this after the middleware that verifies keys.
 */
export function refuseForgery(origin: string): RequestHandler {
  return (req, res, next) => {
    const isProvenKey = getAuth(req).method === 'apikey'
    if (isProvenKey || SAFE_METHODS.includes(req.method) || isFromOwnPage(req, origin)) next()
    else sendProblem(res, 403, 'Only our own pages may ask for this')
  }
}

/**
 * Reads header fields that the browser writes and no page can change: `Sec-Fetch-Site` or, from older browsers and without
 * HTTPS, `Origin`. A request with neither is refused.
 */
function isFromOwnPage(req: Request, origin: string): boolean {
  const site = req.get('Sec-Fetch-Site')
  return site === undefined ? req.get('Origin') === origin : site === 'same-origin'
}
