import { createHash, timingSafeEqual } from 'node:crypto'
import express, { type Express } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyRouter } from 'latchkey/management/express'

export interface AuthAppOptions {
  keys: ApiKeys
  /** Who sends this as `Authorization: Bearer <token>` manages all keys. */
  adminToken: string
}

/** The service that owns the keys: administrators manage them here, and other services ask it about those they are sent. */
export function createAuthApp({ keys, adminToken }: AuthAppOptions): Express {
  const expected = digestOf(`Bearer ${adminToken}`)
  const app = express()
  app.disable('x-powered-by')
  app.use(
    '/api-keys',
    apiKeyRouter(keys, {
      // A real application asks its login. It is never asked about a key: that may show and revoke itself, and, where it
      // is permitted to, verify others.
      actor: (req) =>
        timingSafeEqual(digestOf(req.get('Authorization') ?? ''), expected)
          ? { id: 'admin', admin: true }
          : null,
    }),
  )
  return app
}

/** Of one length whatever is sent, as `timingSafeEqual` asks. */
function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
