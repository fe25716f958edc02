import { createHash, timingSafeEqual } from 'node:crypto'
import express, { type Express, type RequestHandler } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler } from 'latchkey/express'

export interface AppOptions {
  keys: ApiKeys
  /** A client that sends this as `Authorization: Bearer <token>` may revoke keys. */
  adminToken: string
}

/** An API that needs keys. It has no state of its own, so any number of processes may run it. */
export function createApp({ keys, adminToken }: AppOptions): Express {
  const app = express()
  app.disable('x-powered-by')

  app.use((_req, res, next) => {
    // A cache in between does not know that responses depend on X-Api-Key.
    res.setHeader('Cache-Control', 'private')
    next()
  })

  app.get('/projects', apiKeyAuth(keys, { permissions: { projects: ['read'] } }), (_req, res) => {
    res.json({ projects: ['analytical engine'], process: process.pid })
  })

  app.post('/keys/:id/revoke', requireAdmin(adminToken), async (req, res) => {
    // Once this resolves, no process admits a request with the key.
    const { id, revokedAt } = await keys.revoke(String(req.params.id), { by: 'admin' })
    res.json({ id, revokedAt, process: process.pid })
  })

  app.use(apiKeyErrorHandler())
  return app
}

/** One token for all administrators. A real application asks its login who the caller is. */
function requireAdmin(token: string): RequestHandler {
  const expected = digestOf(`Bearer ${token}`)
  return (req, res, next) => {
    if (timingSafeEqual(digestOf(req.get('Authorization') ?? ''), expected)) next()
    else
      res.status(401).set('WWW-Authenticate', 'Bearer realm="admin"').json({ title: 'Not an administrator' })
  }
}

/** The digests have the same length whatever the client sends, as `timingSafeEqual` requires. */
function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
