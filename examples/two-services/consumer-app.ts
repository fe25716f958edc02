import express, { type Express } from 'express'
import { apiKeyAuth, apiKeyErrorHandler, requirePermissions } from 'latchkey/express'
import type { RemoteApiKeys } from 'latchkey/remote'

/** An API behind keys that it has never seen: it knows of them what the auth service says. */
export function createConsumerApp(keys: RemoteApiKeys): Express {
  const app = express()
  app.disable('x-powered-by')

  app.use((_req, res, next) => {
    // A cache on the way does not know that answers depend on X-Api-Key.
    res.setHeader('Cache-Control', 'private')
    next()
  })

  // What costs nothing is decided by what is remembered of a key: here, the auth service is seldom asked.
  app.use('/projects', apiKeyAuth(keys, { cost: 0 }))
  app.get('/projects', requirePermissions({ projects: ['read'] }), (_req, res) => {
    res.json({ projects: ['analytical engine'] })
  })
  app.delete('/projects/:name', requirePermissions({ projects: ['write'] }), (_req, res) => {
    res.sendStatus(204)
  })

  // What costs something is a call of the auth service, which counts for all who ask it.
  app.post('/reports', apiKeyAuth(keys, { permissions: { projects: ['read'] } }), (_req, res) => {
    res.status(201).json({ report: 'one engine, analytical' })
  })

  app.use(apiKeyErrorHandler())
  return app
}
