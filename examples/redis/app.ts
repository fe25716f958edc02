import { createHash, timingSafeEqual } from 'node:crypto'
import express, { type Express, type RequestHandler } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler } from 'latchkey/express'

export interface AppOptions {
  keys: ApiKeys
  /** Who sends this as `Authorization: Bearer <token>` may revoke keys. */
  adminToken: string
}

/** An API behind keys. It keeps nothing of its own, so that any number of processes may run it. */
export function createApp({ keys, adminToken }: AppOptions): Express {
  const app = express()
  app.disable('x-powered-by')

  app.use((_req, res, next) => {
    // A cache on the way does not know that answers depend on X-Api-Key.
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

/** One token for whoever may do everything: a real application asks its login who that is. */
function requireAdmin(token: string): RequestHandler {
  const expected = digestOf(`Bearer ${token}`)
  return (req, res, next) => {
    if (timingSafeEqual(digestOf(req.get('Authorization') ?? ''), expected)) next()
    else
      res.status(401).set('WWW-Authenticate', 'Bearer realm="admin"').json({ title: 'Not an administrator' })
  }
}

/** Of one length whatever is sent, as `timingSafeEqual` asks. */
function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
