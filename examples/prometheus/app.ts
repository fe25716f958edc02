import express, { type Express } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler, withApiKey } from 'latchkey/express'

/** An API with one route, `GET /projects`, which needs a key. */
export function createApp(keys: ApiKeys): Express {
  const app = express()
  app.use(apiKeyAuth(keys))
  app.get(
    '/projects',
    withApiKey((req, res) => void res.json({ owner: req.apiKey.owner.id })),
  )
  return app.use(apiKeyErrorHandler())
}
