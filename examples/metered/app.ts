import { pipeline } from 'node:stream/promises'
import express, { type Express, type Request, type Response } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler, settle } from 'latchkey/express'
import type { Model } from './model.ts'

export interface AppOptions {
  keys: ApiKeys
  model: Model
  /** Receives what goes wrong after a response has begun, and settlements that could not be made at once. */
  onError?: (error: unknown) => void
}

/** What a reply takes at first: a customer needs as many tokens to ask. */
const RESERVED_TOKENS = 20

/** An API that streams replies of a model and counts their tokens. */
export function createApp({ keys, model, onError = console.error }: AppOptions): Express {
  const app = express()
  app.disable('x-powered-by')

  app.post(
    '/chat',
    apiKeyAuth(keys, { cost: { tokens: RESERVED_TOKENS } }),
    express.text(),
    (req, res, next) => {
      reply(req, res, { model, onError }).catch((error) => {
        if (!res.headersSent) return next(error)
        // Half a reply must not look whole.
        res.destroy()
        onError(error)
      })
    },
  )
  // Asking what is left costs nothing.
  app.get('/usage', apiKeyAuth(keys, { cost: 0 }), (req, res, next) => {
    if (!req.apiKey) return
    keys.limits(req.apiKey.id).then((limits) => res.json({ limits }), next)
  })
  app.use(apiKeyErrorHandler())
  return app
}

/** Streams a reply. Its tokens are settled at its end, also if the client goes away in the middle. */
async function reply(
  req: Request,
  res: Response,
  { model, onError }: Required<Omit<AppOptions, 'keys'>>,
): Promise<void> {
  let tokens = 0
  async function* counted() {
    for await (const token of model.reply(String(req.body))) {
      tokens += 1
      yield token
    }
  }
  res.type('text/plain')
  try {
    await pipeline(counted, res, { end: false })
  } catch (error) {
    // A client that went away is no fault.
    if (!res.destroyed) throw error
  } finally {
    // Latchkey sends it again for a minute. The reply does not wait for that.
    await settle(req, { tokens }).catch(onError)
  }
  res.end()
}
