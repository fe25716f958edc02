import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { cors } from 'hono/cors'
import {
  apiKeyAuth,
  getAuth,
  markSession,
  type RequestGuard,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/fetch'
import {
  CORS_ORIGIN,
  createGuard,
  OTHER_USER,
  type Part,
  partsOf,
  rewriteHeaders,
  SESSION_USER,
  type Surroundings,
} from '../pipeline.ts'
import type { App, Asked } from '../row.ts'
import { describeWho } from '../who.ts'
import type { Adapter } from './adapter.ts'

const GUARDS = { requireSession, requireAuth, requireApiKey, requirePermissions }

/** What comes before and after the handler of a `Request`. */
type Layer = (request: Request, ip: string | undefined, next: () => Promise<Response>) => Promise<Response>

interface ServerEnv {
  readonly incoming: IncomingMessage
}

/** Functions of a `Request`, one around the other, under `node:http`. */
export function fetchAdapter(): Adapter {
  return {
    name: 'fetch, node:http',
    writesLowerCase: true,
    build(app, surroundings) {
      const layers = layersOf(app, surroundings)
      return getRequestListener((request, env) => {
        const ip = addressOf(app, request, env as ServerEnv)
        const run = (i: number): Promise<Response> => (layers[i] as Layer)(request, ip, () => run(i + 1))
        return run(0)
      })
    },
  }
}

/** The same functions as middlewares of Hono, next to a middleware of its own. */
export function honoAdapter(): Adapter {
  return {
    name: 'fetch, Hono',
    writesLowerCase: true,
    build(app, surroundings) {
      const hono = new Hono<{ Bindings: ServerEnv }>()
      const layers = layersOf(app, surroundings, { isCorsApart: true })
      const route = layers.pop() as Layer
      for (const [i, layer] of layers.entries()) {
        if (app.cors && i === 1) hono.use(cors({ origin: CORS_ORIGIN }))
        hono.use((c, next) =>
          layer(c.req.raw, addressOf(app, c.req.raw, c.env), async () => {
            await next()
            return c.res
          }),
        )
      }
      hono.all('*', (c) => route(c.req.raw, undefined, () => Promise.reject(new Error('nobody is next'))))
      return getRequestListener(hono.fetch)
    },
  }
}

function layersOf(app: App, surroundings: Surroundings, { isCorsApart = false } = {}): Layer[] {
  const sessions = new Map<string, { user: unknown }>()
  const sessionOf = (request: Request) => sessions.get(request.headers.get('Cookie') ?? '')
  const parts: Record<Part, readonly Layer[]> = {
    observe: [observe(surroundings)],
    cors: isCorsApart ? [] : [allowOrigin],
    session: [],
    login: [logIn(sessions)],
    restore: [restore(sessionOf)],
    rewrite: [
      (request, _ip, next) => {
        rewrite(request, app, surroundings)
        return next()
      },
    ],
    mark: [mark(sessionOf)],
    keys: [readKeys(app, surroundings, app.asks)],
    keysAgain: [readKeys(app, surroundings, app.asksAgain)],
    meanwhile: [meanwhile(app.meanwhile, sessionOf)],
    guard: app.guard ? [toLayer(createGuard<RequestGuard>(GUARDS, app.guard, surroundings, null))] : [],
    route: [async (request) => Response.json(describeRequest(request), JSON_TYPE)],
  }
  return partsOf(app).flatMap((part) => parts[part])
}

type Shown = Parameters<typeof describeWho>[1]

const JSON_TYPE = { headers: { 'Content-Type': 'application/json; charset=utf-8' } }

function describeRequest(request: Request) {
  return describeWho(getAuth(request), request as Shown)
}

function observe({ note }: Surroundings): Layer {
  return async (request, _ip, next) => {
    const headers = Object.fromEntries(request.headers)
    const response = await next()
    note(headers, describeRequest(request))
    return response
  }
}

const allowOrigin: Layer = async (request, _ip, next) => {
  const response = request.method === 'OPTIONS' ? new Response(null, { status: 204 }) : await next()
  response.headers.set('Access-Control-Allow-Origin', CORS_ORIGIN)
  return response
}

function logIn(sessions: Map<string, { user: unknown }>): Layer {
  return async (request, _ip, next) => {
    if (new URL(request.url).pathname !== '/login') return next()
    const cookie = `id=${randomUUID()}`
    sessions.set(cookie, { user: SESSION_USER })
    return new Response('', { headers: { 'Set-Cookie': cookie } })
  }
}

type SessionOf = (request: Request) => { user: unknown } | undefined

function restore(sessionOf: SessionOf): Layer {
  return (request, _ip, next) => {
    const user = sessionOf(request)?.user
    if (user) Object.assign(request, { user })
    return next()
  }
}

function mark(sessionOf: SessionOf): Layer {
  const markRequest = markSession({ user: async (request) => sessionOf(request)?.user })
  return async (request, _ip, next) => {
    await markRequest(request)
    return next()
  }
}

function rewrite(request: Request, app: App, surroundings: Surroundings): void {
  const made: Record<string, string | string[] | undefined> = {}
  rewriteHeaders(made, app, surroundings)
  for (const name of Object.keys(app.rewrites ?? {})) {
    request.headers.delete(name)
    for (const line of [made[name] ?? []].flat()) request.headers.append(name, line)
  }
}

function readKeys({ keys: when, reads }: App, { keys, resolveUser }: Surroundings, asks: Asked = {}): Layer {
  const options = { ...reads, ...asks, ...(resolveUser && { resolveUser }) }
  const authenticate = apiKeyAuth(keys, { ...options, required: when !== 'optional' } as { required: true })
  return async (request, ip, next) => {
    const caller = await authenticate(request, { ip })
    if (caller.ok) return caller.finish(await next())
    return when === 'overruled' ? next() : caller.response
  }
}

function meanwhile(what: App['meanwhile'], sessionOf: SessionOf): Layer {
  return (request, _ip, next) => {
    if (what === 'logs out') Object.assign(request, { user: undefined })
    else if (what === 'claims a session')
      Object.assign(request, { authMethod: 'session', apiKey: { id: 'claimed' } })
    else if (what === 'exchanges the user' || what === 'sets a user')
      Object.assign(request, { user: OTHER_USER })
    const session = what === 'logs out' && sessionOf(request)
    if (session) session.user = null
    return next()
  }
}

function toLayer(guard: RequestGuard): Layer {
  return async (request, _ip, next) => guard(request) ?? next()
}

/** As a server behind so many proxies reads it. */
function addressOf({ proxies = 0 }: App, request: Request, { incoming }: ServerEnv): string | undefined {
  const forwarded = request.headers.get('X-Forwarded-For')?.split(',') ?? []
  const hops = [...forwarded.map((hop) => hop.trim()), incoming.socket.remoteAddress]
  return hops.at(Math.max(-hops.length, -1 - proxies))
}
