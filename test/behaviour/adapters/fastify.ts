import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import createFastify from 'fastify'
import {
  type AnyReply,
  type AnyRequest,
  apiKeyAuth,
  getAuth,
  markSession,
  type RequestHook,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/fastify'
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

/** Hooks of Fastify. */
export function fastifyAdapter(): Adapter {
  return {
    name: 'Fastify 5',
    writesLowerCase: true,
    async build(app, surroundings) {
      const { proxies = 0 } = app
      const server = createFastify({ trustProxy: proxies > 0 && ((_address, hop) => hop < proxies) })
      const parts = createFastifyParts(app, surroundings)
      for (const part of partsOf(app)) for (const hook of parts[part]) server.addHook('onRequest', hook)
      server.all('/*', async (request) => describeRequest(request))
      await server.ready()
      return (req, res) => server.routing(req, res)
    },
  }
}

/** Every part as hooks, for whatever runs on Fastify. */
export function createFastifyParts(
  app: App,
  surroundings: Surroundings,
  refuseWith: 'problem' | 'error' = app.rendering ? 'error' : 'problem',
): Record<Part, readonly RequestHook[]> {
  const sessions = new Map<string, { user: unknown }>()
  const sessionOf = ({ headers }: AnyRequest) => sessions.get(headers.cookie ?? '')
  return {
    observe: [observe(surroundings)],
    cors: [allowOrigin],
    session: [],
    login: [logIn(sessions)],
    restore: [
      always((request) => {
        const user = sessionOf(request)?.user
        if (user) Object.assign(request.raw, { user })
      }),
    ],
    rewrite: [always(({ headers }) => rewriteHeaders(headers, app, surroundings))],
    mark: [markSession({ user: (request) => sessionOf(request)?.user })],
    keys: [readKeys(app, surroundings, app.asks, refuseWith)],
    keysAgain: [readKeys(app, surroundings, app.asksAgain, refuseWith)],
    meanwhile: [
      always((request) => {
        const session = app.meanwhile === 'logs out' && sessionOf(request)
        if (session) session.user = null
        intervene(app.meanwhile, request.raw as IncomingMessage)
      }),
    ],
    guard: app.guard ? [createGuard<RequestHook>(GUARDS, app.guard, surroundings, refuseWith)] : [],
    route: [],
  }
}

/** Plugins that run Express's middlewares hand them the request of Node, on which everything is kept. */
function intervene(what: App['meanwhile'], raw: IncomingMessage): void {
  if (what === 'logs out') Object.assign(raw, { user: undefined })
  else if (what === 'claims a session')
    Object.assign(raw, { authMethod: 'session', apiKey: { id: 'claimed' } })
  else if (what === 'exchanges the user' || what === 'sets a user') Object.assign(raw, { user: OTHER_USER })
}

function describeRequest(request: AnyRequest) {
  return describeWho(getAuth(request), request.raw as Parameters<typeof describeWho>[1])
}

function always(act: (request: AnyRequest, reply: AnyReply) => unknown): RequestHook {
  return (request, reply, done) => {
    act(request, reply)
    done()
  }
}

function observe({ note }: Surroundings): RequestHook {
  return always((request, reply) => {
    reply.raw.on('finish', () => note(request.headers, describeRequest(request)))
  })
}

const allowOrigin: RequestHook = (request, reply, done) => {
  reply.header('Access-Control-Allow-Origin', CORS_ORIGIN)
  if (request.method === 'OPTIONS') reply.code(204).send()
  else done()
}

function logIn(sessions: Map<string, { user: unknown }>): RequestHook {
  return (request, reply, done) => {
    if (request.url !== '/login') {
      done()
      return
    }
    const cookie = `id=${randomUUID()}`
    sessions.set(cookie, { user: SESSION_USER })
    reply.header('Set-Cookie', cookie).send('')
  }
}

function readKeys(
  { keys: when, reads }: App,
  { keys, resolveUser }: Surroundings,
  asks: Asked = {},
  refuse: 'problem' | 'error',
): RequestHook {
  const refuseWith = when === 'overruled' ? 'error' : refuse
  const options = { ...reads, ...asks, refuseWith, ...(resolveUser && { resolveUser }) } as const
  const authenticate = apiKeyAuth(keys, { ...options, required: when !== 'optional' })
  if (when !== 'overruled') return authenticate
  return (request, reply, done) => authenticate(request, reply, () => done())
}
