import express, { type Express } from 'express'
import { apiKeyAuth, apiKeyErrorHandler, requirePermissions } from 'latchkey/express'
import type { RemoteApiKeys } from 'latchkey/remote'

/** An API for keys that it does not store: it knows only what the auth service says about them. */
export function createConsumerApp(keys: RemoteApiKeys): Express {
  const app = express()
  app.disable('x-powered-by')

  app.use((_req, res, next) => {
    // A cache in between does not know that responses depend on X-Api-Key.
    res.setHeader('Cache-Control', 'private')
    next()
  })

  // Calls without a cost use cached answers: they seldom ask the auth service.
  app.use('/projects', apiKeyAuth(keys, { cost: 0 }))
  app.get('/projects', requirePermissions({ projects: ['read'] }), (_req, res) => {
    res.json({ projects: ['analytical engine'] })
  })
  app.delete('/projects/:name', requirePermissions({ projects: ['write'] }), (_req, res) => {
    res.sendStatus(204)
  })

  // A call with a cost asks the auth service, which counts for all services.
  app.post('/reports', apiKeyAuth(keys, { permissions: { projects: ['read'] } }), (_req, res) => {
    res.status(201).json({ report: 'one engine, analytical' })
  })

  app.use(apiKeyErrorHandler())
  return app
}
