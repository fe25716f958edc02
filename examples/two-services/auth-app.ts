import { createHash, timingSafeEqual } from 'node:crypto'
import express, { type Express } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyRouter } from 'latchkey/management/express'

export interface AuthAppOptions {
  keys: ApiKeys
  /** A client that sends this as `Authorization: Bearer <token>` manages all keys. */
  adminToken: string
}

/** The service that owns the keys. Administrators manage them here, and other services verify the keys they receive. */
export function createAuthApp({ keys, adminToken }: AuthAppOptions): Express {
  const expected = digestOf(`Bearer ${adminToken}`)
  const app = express()
  app.disable('x-powered-by')
  app.use(
    '/api-keys',
    apiKeyRouter(keys, {
      // A real application asks its login. Latchkey never calls `actor` for a key: a key may read and revoke itself, and verify others
      // if it has the permission.
      actor: (req) =>
        timingSafeEqual(digestOf(req.get('Authorization') ?? ''), expected)
          ? { id: 'admin', admin: true }
          : null,
    }),
  )
  return app
}

/** The digests have the same length whatever the client sends, as `timingSafeEqual` requires. */
function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
