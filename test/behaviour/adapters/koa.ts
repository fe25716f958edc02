import type Koa from 'koa'
import type { Middleware } from 'koa'
import { apiKeyAuth } from 'latchkey/koa'
import { partsOf, type Surroundings } from '../pipeline.ts'
import type { App, Asked } from '../row.ts'
import type { Adapter, AdapterName } from './adapter.ts'
import { createKoa, createKoaParts } from './koa-parts.ts'

/** `app.use(apiKeyAuth(keys))`. */
export function koaAdapter(name: AdapterName, Framework: typeof Koa): Adapter {
  return {
    name,
    build(app, surroundings) {
      const server = createKoa(Framework, app)
      const parts = {
        ...createKoaParts(app, server, surroundings),
        keys: [readKeys(app, surroundings, app.asks)],
        keysAgain: [readKeys(app, surroundings, app.asksAgain)],
      }
      for (const part of partsOf(app)) for (const middleware of parts[part]) server.use(middleware)
      return server.callback()
    },
  }
}

function readKeys(
  { keys: when, reads, rendering }: App,
  { keys, resolveUser }: Surroundings,
  asks: Asked = {},
): Middleware {
  const refuseWith = rendering ? 'error' : 'problem'
  const options = { ...reads, ...asks, refuseWith, ...(resolveUser && { resolveUser }) } as const
  if (when !== 'overruled')
    return apiKeyAuth(keys, { ...options, required: when !== 'optional' }) as Middleware
  const authenticate = apiKeyAuth(keys, { ...options, refuseWith: 'error' }) as Middleware
  return async (ctx, next) => {
    try {
      await authenticate(ctx, async () => {})
    } catch {
      // What guards make of it is what counts.
    }
    await next()
  }
}
