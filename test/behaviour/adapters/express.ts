import type express from 'express'
import type { ErrorRequestHandler, RequestHandler } from 'express'
import { apiKeyAuth } from 'latchkey/express'
import { partsOf, type Surroundings } from '../pipeline.ts'
import type { App, Asked } from '../row.ts'
import type { Adapter, AdapterName } from './adapter.ts'
import { createExpressParts } from './express-parts.ts'

/** `app.use(apiKeyAuth(keys))`. */
export function expressAdapter(name: AdapterName, createApp: typeof express): Adapter {
  return {
    name,
    build(app, surroundings) {
      const server = createApp()
      if (app.proxies !== undefined) server.set('trust proxy', app.proxies)
      const parts = {
        ...createExpressParts(app, surroundings),
        keys: readKeys(app, surroundings, app.asks),
        keysAgain: readKeys(app, surroundings, app.asksAgain),
      }
      for (const part of partsOf(app)) server.use(...(parts[part] as RequestHandler[]))
      return server
    },
  }
}

/** The middlewares that read keys. */
export function readKeys(
  { keys: when, reads, rendering }: App,
  { keys, resolveUser }: Surroundings,
  asks: Asked = {},
  refuseWith: 'problem' | 'error' = rendering ? 'error' : 'problem',
) {
  const options = { ...reads, ...asks, refuseWith, ...(resolveUser && { resolveUser }) } as const
  if (when !== 'overruled') return [apiKeyAuth(keys, { ...options, required: when !== 'optional' })]
  const carryOn: ErrorRequestHandler = (_error, _req, _res, next) => next()
  return [apiKeyAuth(keys, { ...options, refuseWith: 'error' }), carryOn]
}
