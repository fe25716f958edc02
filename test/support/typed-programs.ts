import { type Compiler, type Consumer, compilerOf, type PackedPackage } from './packed-package.ts'

/** A program of an application, and the packages that it has beside ours. */
export interface TypedProgram {
  readonly title: string
  /** Its files. */
  readonly sources: readonly string[]
  readonly packages: readonly string[]
  /** Compiler options beyond `STRICT`. */
  readonly options?: Readonly<Record<string, unknown>>
}

/** Strict in every way that a door could stumble over; `skipLibCheck` is off, so our declarations are checked as well. */
export const STRICT = {
  target: 'es2022',
  module: 'nodenext',
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  esModuleInterop: true,
  skipLibCheck: false,
  noEmit: true,
  types: ['node'],
}

const SERVICE = `
  import { type ApiKey, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
  const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme_live' })`

export const EXPRESS = `${SERVICE}
  import express from 'express'
  import { apiKeyAuth, type ApiKeyRequest, getAuth, markSession, requireApiKey, requireSession, withApiKey } from 'latchkey/express'
  const app = express()
  app.use(markSession(), apiKeyAuth(keys, { required: false }))
  app.get('/settings', requireSession(), (req, res) => {
    const auth = getAuth(req)
    if (auth.method === 'session') res.json(auth.user)
    // @ts-expect-error nobody has proven that there is one
    res.json(req.apiKey.id)
  })
  app.get('/projects', requireApiKey(), withApiKey((req, res) => void res.json([req.apiKey.owner.id, req.user])))
  app.route('/projects/:id').get(withApiKey((req, res) => {
    const id: string = req.params.id
    const method: 'apikey' = req.authMethod
    res.json({ id, method })
  }))
  app.get('/projects/:id/keys', withApiKey<{ id: string }>((req, res) => void res.json(req.params.id)))
  const show = (req: ApiKeyRequest, res: express.Response) => void res.json(req.apiKey.id)
  app.get('/key', withApiKey(show, { permissions: { projects: ['read'] } }))
  // @ts-expect-error it answers only requests that a key has authenticated
  app.get('/key', show)`

const KOA = `${SERVICE}
  import Koa from 'koa'
  import { apiKeyAuth, markSession, requireApiKey, withApiKey } from 'latchkey/koa'
  new Koa().use(markSession()).use(apiKeyAuth(keys)).use((ctx) => {
    const apiKey: ApiKey | undefined = ctx.state.apiKey
    ctx.body = { id: apiKey?.id, by: ctx.state.authMethod, tenant: ctx.state.tenant }
    // @ts-expect-error there is no such way of authenticating
    if (ctx.state.authMethod === 'telepathy') return
  })
  new Koa<{ tenant: string }, { log(text: string): void }>().use(apiKeyAuth(keys)).use(requireApiKey()).use((ctx) => {
    const tenant: string = ctx.state.tenant
    ctx.log(tenant)
    // @ts-expect-error nobody has put that there
    ctx.state.other
    // @ts-expect-error nor that
    ctx.other
  })
  new Koa().use(withApiKey((ctx) => {
    ctx.body = ctx.state.apiKey.id
    // @ts-expect-error a key as everybody may see it has no digest
    ctx.state.apiKey.digest
  }))`

const NEIGHBOURS = `${EXPRESS}
  import { clerkMiddleware, getAuth as getClerkAuth } from '@clerk/express'
  import { expressjwt, type Request as JwtRequest } from 'express-jwt'
  import session from 'express-session'
  import { ApiKeyStrategy, getAuth as getAuthByPassport } from 'latchkey/passport'
  import passport from 'passport'
  interface Account { id: string; admin: boolean }
  declare module 'express-session' { interface SessionData { account: Account } }
  declare global {
    namespace Express {
      interface User extends Account {}
      interface AuthInfo { scope?: string }
    }
  }
  app.use(session({ secret: 's' }), passport.initialize(), passport.session(), clerkMiddleware())
  app.use(markSession({ user: (req) => req.session.account }))
  app.use(expressjwt({ secret: 's', algorithms: ['HS256'] }))
  passport.use(new ApiKeyStrategy({ keys, resolveUser: (): Account => ({ id: 'u_1', admin: false }) }))
  app.get('/all', passport.authenticate('apikey', { permissions: { projects: ['read'] } }), withApiKey((req, res) => {
    const admin: boolean = req.user.admin
    const scope: string | undefined = req.authInfo?.scope
    const subject: string | undefined = (req as JwtRequest).auth?.sub
    const auth = getAuth(req)
    if (auth.method === 'apikey') res.json([auth.user.id, getAuthByPassport(req).method, getClerkAuth(req)])
    if (req.isAuthenticated()) res.json([admin, scope, subject, req.session.account])
    // @ts-expect-error the user's type is the application's
    req.user.telephone
  }))`

const PASSPORT_ALONE = `${SERVICE}
  import { ApiKeyStrategy, getAuth } from 'latchkey/passport'
  export const strategy = new ApiKeyStrategy({ keys }, (apiKey, done) => done(null, apiKey.owner))
  const auth = getAuth({ headers: {} })
  if (auth.method === 'apikey') auth.apiKey.owner.id`

const REGISTERED = `${EXPRESS}
  import Koa from 'koa'
  import { type ApiKeyState, getAuth as getAuthOfKoa, withApiKey as withApiKeyOfKoa } from 'latchkey/koa'
  interface Member { id: string; admin: boolean }
  declare global {
    namespace Latchkey { interface Register { user: Member } }
  }
  app.get('/member', withApiKey((req, res) => {
    const admin: boolean = req.user.admin
    const member: Member = req.user
    res.json([admin, member])
  }))
  new Koa<ApiKeyState>().use(withApiKeyOfKoa((ctx) => {
    const admin: boolean = ctx.state.user.admin
    const auth = getAuthOfKoa(ctx)
    if (auth.method === 'session') ctx.body = [auth.user.admin, admin]
    // @ts-expect-error the user's type is the application's
    ctx.state.user.telephone
  }))`

const KOA_SESSION = `${SERVICE}
  import Koa from 'koa'
  import session from 'koa-session'
  import { markSession } from 'latchkey/koa'
  const app = new Koa()
  app.use(session(app)).use(markSession({ user: (ctx) => {
    // @ts-expect-error a session may have ended
    ctx.session.user
    return ctx.session?.user
  } }))`

const ISSUE = `${SERVICE}
  export async function issueKey(): Promise<ApiKey> {
    const issued = await keys.issue({
      owner: { type: 'user', id: 'u_1' },
      name: 'CI',
      permissions: { projects: ['read'] },
    })
    const result = await keys.verify(issued.key, { permissions: { projects: ['read'] } })
    if (!result.ok) throw new Error(result.code)
    // @ts-expect-error a key has no secret to show
    result.apiKey.digest
    return result.apiKey
  }
  // @ts-expect-error a prefix is text
  createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 1 })`

const PASSPORT = `${SERVICE}
  import express from 'express'
  import { ApiKeyStrategy } from 'latchkey/passport'
  import passport from 'passport'
  const users = new Map([['u_1', { name: 'Ada' }]])
  passport.use(new ApiKeyStrategy({ keys, resolveUser: (apiKey: ApiKey) => users.get(apiKey.owner.id) ?? null }))
  const app = express()
  app.get('/projects', passport.authenticate('apikey', { permissions: { projects: ['read'] } }))
  // @ts-expect-error a strategy needs its keys
  new ApiKeyStrategy({})`

const REDIS = `${SERVICE}
  import { type RedisClient, redisRateLimiter } from 'latchkey/redis'
  declare const client: RedisClient
  createApiKeys({ store: memoryStore(), rateLimiter: redisRateLimiter(client), prefix: 'acme' })`

const redisWith = (name: string) => `${REDIS}
  import { Cluster, Redis } from '${name}'
  import { redisInvalidation } from 'latchkey/redis'
  redisInvalidation(new Redis())
  createApiKeys({ store: memoryStore(), rateLimiter: redisRateLimiter(new Cluster([])), prefix: 'acme' })
  // @ts-expect-error an address is no client
  redisRateLimiter('redis://localhost')`

const nodeRedisWith = (name: string) => `${REDIS}
  import { createClient, createCluster, createSentinel } from '${name}'
  import { redisInvalidation, redisStore } from 'latchkey/redis'
  redisInvalidation(createClient())
  redisRateLimiter(createSentinel({ name: 'main', sentinelRootNodes: [] }))
  const redis = createCluster({ rootNodes: [] })
  createApiKeys({ store: redisStore(redis), rateLimiter: redisRateLimiter(redis), prefix: 'acme' })
  // @ts-expect-error the client itself
  redisRateLimiter(createClient().legacy())`

const SQL = `
  import { migrate, type PostgresPool, postgresStore, type SqlStore, sqliteStore } from 'latchkey/sql'
  declare const pool: PostgresPool
  const stores: SqlStore[] = [postgresStore(pool), sqliteStore('keys.db')]
  stores.map(migrate)`

const SQL_POOLS = `${SQL}
  import Libsql from 'libsql'
  import { createPool } from 'mysql2'
  import { createPool as createPromisePool } from 'mysql2/promise'
  import { Pool } from 'pg'
  import { mysqlStore } from 'latchkey/sql'
  stores.push(postgresStore(new Pool(), { schema: 'auth' }), sqliteStore(new Libsql('keys.db')))
  stores.push(mysqlStore(createPool('')), mysqlStore(createPromisePool(''), { table: 'api_keys' }))
  // @ts-expect-error an address is no pool
  postgresStore('postgres://localhost')
  // @ts-expect-error SQLite has no schemas
  sqliteStore('keys.db', { schema: 'auth' })`

const MANAGEMENT = `${SERVICE}
  import { type Actor, createKeyManagementApi } from 'latchkey/management'
  const api = createKeyManagementApi<{ user: string }>(keys, {
    actor: ({ user }): Actor => ({ id: user, owners: [{ type: 'user', id: user, can: ['read'] }] }),
    clientFields: { rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }] },
  })
  // @ts-expect-error nobody says who asks
  createKeyManagementApi(keys, {})`

const EXPRESS_ROUTER = `${SERVICE}
  import express from 'express'
  import { apiKeyRouter } from 'latchkey/management/express'
  express().use('/api-keys', apiKeyRouter(keys, {
    actor: (req) => (req.get('x') ? { id: 'u_1', admin: true } : null),
    // @ts-expect-error nothing opens the management of keys to keys
    keyActions: { issue: { projects: ['read'] } },
  }))`

const KOA_ROUTER = `${SERVICE}
  import Koa from 'koa'
  import { apiKeyRouter } from 'latchkey/management/koa'
  new Koa().use(apiKeyRouter(keys, {
    path: '/keys',
    actor: async (ctx) => ctx.state.user && { id: ctx.state.user.id, admin: true },
  }))`

const FASTIFY = `${SERVICE}
  import createFastify from 'fastify'
  import { apiKeyAuth, apiKeyErrorHandler, apiKeyPlugin, getAuth, markSession, requireSession } from 'latchkey/fastify'
  const app = createFastify()
  app.setErrorHandler(apiKeyErrorHandler())
  app.addHook('onRequest', markSession({ user: (request) => request.headers.cookie }))
  app.register(apiKeyPlugin, { keys, ip: (request) => request.ip })
  app.get<{ Params: { id: string } }>('/p/:id', { config: { apiKey: { cost: 2 } }, onRequest: requireSession() }, (request) => {
    const name: string | undefined = request.apiKey?.name
    const { auth } = request
    // @ts-expect-error nobody may be calling
    auth.user
    return auth.method === 'apikey' ? auth.apiKey.id : [name, request.params.id, getAuth(request).method]
  })
  app.get('/r', { onRequest: [apiKeyAuth(keys, { cost: (request) => Number(request.url.length) })] }, () => 1)
  const http2 = createFastify({ http2: true })
  http2.setErrorHandler(apiKeyErrorHandler())
  http2.addHook('onRequest', apiKeyAuth(keys))
  http2.register(apiKeyPlugin, { keys })
  http2.get('/', { config: { apiKey: true }, onRequest: requireSession() }, (request) => [getAuth(request).method, request.auth])`

const NEST = `${SERVICE}
  import { Controller, Get, Module } from '@nestjs/common'
  import type { FastifyRequest } from 'fastify'
  import { ApiKeyRouterModule } from 'latchkey/management/nest'
  import { type Auth, CurrentApiKey, CurrentAuth, getAuth, LatchkeyModule, Public, RequireKey, RequireSessionOrKey } from 'latchkey/nest'
  @Controller('p')
  @RequireKey({ permissions: { projects: ['read'] } })
  export class Projects {
    @Get(':id')
    @RequireKey({ permissions: (req) => ({ [\`project:\${req.params.id}\`]: ['read'] }), cost: async ({ query }) => Number(query.cost) })
    show(@CurrentApiKey() apiKey: ApiKey) {
      return apiKey.name
    }
    @Get('fastify')
    @RequireSessionOrKey({ cost: (req: FastifyRequest) => req.hostname.length })
    either(@CurrentAuth() auth: Auth<{ id: number }>) {
      return auth.method === 'session' ? auth.user.id.toFixed() : auth.method
    }
  }
  @Module({
    imports: [
      LatchkeyModule.forRootAsync({
        inject: ['KEYS'],
        useFactory: async (made: typeof keys) => ({ keys: made, ip: (req) => req.ip, resolveUser: ({ owner }) => ({ id: owner.id }) }),
      }),
      ApiKeyRouterModule.forRoot({
        actor: (req: FastifyRequest) => {
          const auth = getAuth<{ id: string }>(req)
          return auth.method === 'session' ? { id: auth.user.id } : null
        },
      }),
    ],
    controllers: [Projects],
  })
  export class App {}
  LatchkeyModule.forRoot({ keys, globalGuard: false, ip: (req: FastifyRequest) => req.ip })
  // @ts-expect-error a misspelt requirement would require nothing
  RequireKey({ permission: {} })
  // @ts-expect-error the permissions are a member
  RequireKey({ projects: ['read'] })
  // @ts-expect-error nobody decides who may do what
  ApiKeyRouterModule.forRoot({})
  Public()(App)`

const FETCH = `${SERVICE}
  import { apiKeyAuth, getAuth, markSession, requireSession, withApiKey } from 'latchkey/fetch'
  import { apiKeyRouter } from 'latchkey/management/fetch'
  const manage = apiKeyRouter(keys, { path: '/keys', actor: async (request) => (request.url ? { id: 'u_1' } : null) })
  const mark = markSession({ user: async (request) => request.headers.get('Cookie') })
  export async function handle(request: Request): Promise<Response> {
    await mark(request)
    const caller = await apiKeyAuth(keys)(request, { ip: '192.0.2.1' })
    if (!caller.ok) return caller.error.status === 401 ? manage(request) : caller.response
    const name: string = caller.auth.apiKey.name
    const open = await apiKeyAuth(keys, { required: false })(request)
    // @ts-expect-error nobody may be calling
    if (open.ok) open.auth.apiKey
    // @ts-expect-error every refusal is a response
    apiKeyAuth(keys, { refuseWith: 'error' })
    const auth = getAuth<{ id: number }>(request)
    if (auth.method === 'session') auth.user.id.toFixed()
    return requireSession()(request) ?? caller.finish(new Response(name))
  }
  export const GET = withApiKey(keys, (_request, { apiKey }, { params }: { params: { id: string } }) =>
    Response.json([apiKey.owner, params.id]))`

const MCP = `${SERVICE}
  import type { IncomingMessage, ServerResponse } from 'node:http'
  import { NodeStreamableHTTPServerTransport } from '@modelcontextprotocol/node'
  import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
  import { McpServer as McpServer1 } from '@modelcontextprotocol/sdk/server/mcp.js'
  import { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js'
  import { createMcpHandler, McpServer } from '@modelcontextprotocol/server'
  import express from 'express'
  import { getAuth, mcpGuard, mcpWebGuard, type McpRules } from 'latchkey/mcp'
  const rules: McpRules = {
    tools: { search: { permissions: ({ arguments: { id } }) => ({ ['doc:' + id]: ['read'] }), cost: { tokens: 1 } } },
    // @ts-expect-error a misspelt rule would be none
    prompts: { greet: { permission: {} } },
  }
  const guard = mcpGuard<{ id: string }>(keys, { ...rules, resolveUser: ({ owner }) => ({ id: owner.id }) })
  express().all('/mcp', guard, async (req, res) => {
    const sessionIdGenerator = guard.sessionIdGenerator(req)
    await new NodeStreamableHTTPServerTransport({ sessionIdGenerator }).handleRequest(req, res, req.body)
    await new StreamableHTTPServerTransport({ sessionIdGenerator }).handleRequest(req, res, req.body)
  })
  export const onNode = (req: IncomingMessage & { body?: unknown }, res: ServerResponse) =>
    guard(req, res, () => new StreamableHTTPServerTransport().handleRequest(req, res, req.body))
  const webGuard = mcpWebGuard(keys, rules)
  export async function handle(request: Request): Promise<Response> {
    const caller = await webGuard(request, { ip: '192.0.2.1' })
    if (!caller.ok) return caller.response
    const handler = createMcpHandler(({ authInfo }) => new McpServer({ name: getAuth(authInfo).apiKey.name, version: '1' }))
    if (request.method === 'GET') return caller.finish(await handler.fetch(request, caller))
    const { authInfo, parsedBody, sessionIdGenerator } = caller
    const transport = new WebStandardStreamableHTTPServerTransport({ sessionIdGenerator })
    return caller.finish(await transport.handleRequest(request, { authInfo, parsedBody }))
  }
  new McpServer({ name: 'x', version: '1' }).registerTool('a', {}, (ctx) => {
    const id: string = getAuth<{ id: string }>(ctx.http?.authInfo).user.id
    return { content: [{ type: 'text', text: id }] }
  })
  new McpServer1({ name: 'x', version: '1' }).registerTool('a', {}, (extra) => ({
    content: [{ type: 'text', text: getAuth(extra.authInfo).apiKey.name }],
  }))`

const WEBSOCKET = `${SERVICE}
  import { createServer } from 'node:http'
  import { createTickets, memoryTicketStore, type KeyEndReason } from 'latchkey'
  import { apiKeyUpgrade, getAuth, markSession } from 'latchkey/websocket'
  const tickets = createTickets({ store: memoryTicketStore() })
  const authenticate = apiKeyUpgrade(keys, { tickets, permissions: (request) => ({ [String(request.url)]: ['read'] }) })
  const optional = apiKeyUpgrade(keys, { required: false })
  const mark = markSession({ user: async ({ headers }) => headers.cookie })
  createServer().on('upgrade', async (request, socket, head) => {
    await mark(request)
    const open = await optional(request, socket, head)
    // @ts-expect-error nobody may be calling
    open?.apiKey
    const auth = await authenticate(request, socket, head)
    // @ts-expect-error it may have been refused
    auth.apiKey
    if (!auth) return
    const stop: () => void = keys.onEnd(auth.apiKey, (reason: KeyEndReason) => socket.destroy(), { ip: '192.0.2.1' })
    socket.once('close', stop)
    const name: string = auth.apiKey.name
    const { ticket, expiresAt } = await tickets.issue(request, { origin: null })
    console.log(getAuth(request).method, name, ticket.length, expiresAt.getTime())
  })
  // @ts-expect-error every refusal is an answer on the socket
  apiKeyUpgrade(keys, { refuseWith: 'error' })
  export {}`

const OPENTELEMETRY = `${SERVICE}
  import { subscribe } from 'node:diagnostics_channel'
  import { metrics, trace } from '@opentelemetry/api'
  import type { LatchkeyChannels, VerifyOutcome } from 'latchkey'
  import { LatchkeyInstrumentation } from 'latchkey/opentelemetry'
  const instrumentation = new LatchkeyInstrumentation({ meterProvider: metrics.getMeterProvider(), spans: false })
  instrumentation.setTracerProvider(trace.getTracerProvider())
  instrumentation.disable()
  subscribe('latchkey:verify', (message) => {
    const { outcome, step, durationMs } = message as LatchkeyChannels['latchkey:verify']
    const shown: VerifyOutcome = outcome
    console.log(shown, step, durationMs.toFixed(3))
  })
  // @ts-expect-error there is no such option
  new LatchkeyInstrumentation({ traces: true })
  console.log(keys.prefix)`

const DROP_IN = `
  import Default, { BadRequestError, HeaderAPIKeyStrategy } from 'latchkey/passport'
  import passport from 'passport'
  for (const Strategy of [Default, HeaderAPIKeyStrategy]) {
    passport.use(new Strategy({ header: 'Authorization', prefix: 'Api-Key ' }, true, (apiKey, done, req) => {
      if (apiKey === '') return done(new BadRequestError('no key'))
      done(null, { apiKey, path: req?.path }, { message: 'welcome' })
    }))
  }
  export class Own extends HeaderAPIKeyStrategy {
    constructor(private readonly settings: { key: string }) {
      super({ header: 'X-Key' }, false, (apiKey, done) => done(null, apiKey === this.settings.key))
    }
  }
  // @ts-expect-error options of another strategy
  new HeaderAPIKeyStrategy({ keys: {} }, false, () => {})
  // @ts-expect-error there has to be somebody who verifies
  new HeaderAPIKeyStrategy({}, false)`

/** Programs that say nothing of the types of all others, so that one compilation may hold them together. */
const TOGETHER: readonly TypedProgram[] = [
  { title: 'uses the main door without the types of any peer', sources: [ISSUE], packages: [] },
  { title: 'uses the Express door', sources: [EXPRESS], packages: ['@types/express'] },
  { title: 'uses the Koa door', sources: [KOA], packages: ['@types/koa'] },
  { title: 'uses the Passport door', sources: [PASSPORT], packages: ['@types/express', '@types/passport'] },
  { title: 'uses the Passport door without the types of Passport', sources: [PASSPORT_ALONE], packages: [] },
  {
    title: 'used passport-headerapikey',
    sources: [DROP_IN],
    packages: ['@types/express', '@types/passport'],
  },
  { title: 'uses the Redis door without ioredis', sources: [REDIS], packages: [] },
  { title: 'uses the Redis door with ioredis', sources: [redisWith('ioredis')], packages: ['ioredis'] },
  { title: 'uses the Redis door with ioredis 5', sources: [redisWith('ioredis5')], packages: ['ioredis5'] },
  { title: 'uses the Redis door with node-redis', sources: [nodeRedisWith('redis')], packages: ['redis'] },
  {
    title: 'uses the Redis door with node-redis 5',
    sources: [nodeRedisWith('redis5')],
    packages: ['redis5'],
  },
  { title: 'uses the SQL door without a driver', sources: [SQL], packages: [] },
  {
    title: 'uses the SQL door with any pool',
    sources: [SQL_POOLS],
    packages: ['@types/pg', 'pg', 'mysql2', 'libsql'],
  },
  { title: 'manages keys', sources: [MANAGEMENT], packages: [] },
  { title: 'has the router of Express', sources: [EXPRESS_ROUTER], packages: ['@types/express'] },
  { title: 'has the router of Koa', sources: [KOA_ROUTER], packages: ['@types/koa'] },
  { title: 'uses the fetch doors', sources: [FETCH], packages: [] },
  { title: 'uses the WebSocket door', sources: [WEBSOCKET], packages: [] },
  { title: 'uses the Fastify door', sources: [FASTIFY], packages: ['fastify'] },
  { title: 'uses the OpenTelemetry door', sources: [OPENTELEMETRY], packages: ['@opentelemetry/api'] },
]

const KOA_TYPES = ['@types/koa', '@types/koa-session']
const BOTH_TYPES = ['@types/express', '@types/koa']

/** Each changes types for the whole program, or is compiled with options of its own. */
export const SINGLE_PROGRAMS: readonly TypedProgram[] = [
  {
    title: 'guards MCP servers of both SDKs',
    sources: [MCP],
    packages: [
      '@modelcontextprotocol/node',
      '@modelcontextprotocol/sdk',
      '@modelcontextprotocol/server',
      '@types/express',
      'express',
    ],
    // The SDKs do not compile strictly by themselves.
    options: { skipLibCheck: true },
  },
  { title: 'has its own user type at every door', sources: [REGISTERED], packages: BOTH_TYPES },
  {
    title: 'reads the session that the types of koa-session know of',
    sources: [KOA_SESSION],
    packages: KOA_TYPES,
  },
  {
    title: 'has Passport, express-session, express-jwt and Clerk beside it',
    sources: [NEIGHBOURS],
    packages: [
      '@types/express',
      '@types/express-session',
      '@types/passport',
      'express-jwt',
      '@clerk/express',
    ],
  },
  {
    title: 'uses the Nest doors',
    sources: [NEST],
    packages: ['@nestjs/common', '@nestjs/core', 'fastify', 'reflect-metadata', 'rxjs'],
    options: { experimentalDecorators: true, emitDecoratorMetadata: true },
  },
  {
    title: 'is resolved as by a bundler',
    sources: [EXPRESS, KOA],
    packages: BOTH_TYPES,
    options: { module: 'esnext', moduleResolution: 'bundler' },
  },
  {
    title: 'is resolved as by Node 16',
    sources: [EXPRESS, KOA],
    packages: BOTH_TYPES,
    options: { module: 'node16', moduleResolution: 'node16' },
  },
  {
    title: 'imports verbatim',
    sources: [EXPRESS, KOA],
    packages: BOTH_TYPES,
    options: { verbatimModuleSyntax: true, isolatedModules: true },
  },
]

export const TYPED_PROGRAMS = [...TOGETHER, ...SINGLE_PROGRAMS]

/** What a compiler says of one program, in a folder that has its packages and no others. */
export function compileAlone(
  packed: PackedPackage,
  compiler: Compiler,
  program: TypedProgram,
): Promise<string[]> {
  return compile(packed, compiler, [program])
}

/** What a compiler says of all programs that get on with each other, compiled as one. */
export function compileTogether(packed: PackedPackage, compiler: Compiler): Promise<string[]> {
  return compile(packed, compiler, TOGETHER)
}

/** Each program as ESM and as CommonJS; each complaint is a line that begins with its file. */
async function compile(
  packed: PackedPackage,
  compiler: Compiler,
  programs: readonly TypedProgram[],
): Promise<string[]> {
  const packages = new Set(['@types/node', ...programs.flatMap((program) => program.packages)])
  const options = programs[0]?.options
  const consumer = packed.createConsumer([...packages])
  // With these, a CommonJS file may not use `import`, or there is no telling the two apart.
  const isEsmOnly = options?.verbatimModuleSyntax === true || options?.moduleResolution === 'bundler'
  const files = programs
    .flatMap(({ sources }) => sources)
    .flatMap((source, i) => {
      const names = isEsmOnly ? [`esm${i}.mts`] : [`esm${i}.mts`, `cjs${i}.cts`]
      for (const name of names) consumer.write(name, source)
      return names
    })
  consumer.write('tsconfig.json', JSON.stringify({ compilerOptions: { ...STRICT, ...options }, files }))
  return complaintsOf(compiler, consumer)
}

/** What a compiler says of the project in a folder. */
export async function complaintsOf(compiler: Compiler, consumer: Consumer): Promise<string[]> {
  const result = await consumer.run(compilerOf(compiler), '--project', 'tsconfig.json', '--pretty', 'false')
  // A complaint goes on in lines that are indented.
  const complaints = (result.stdout + result.stderr).split(/\n(?! )/)
  return complaints.filter((complaint) => complaint !== '' && !isAboutOthers(complaint))
}

/**
 * Whether a complaint is about a file of a package that does not compile strictly by itself, which is the package's to
 * mend: `@types/koa` 3.0.3 takes a type from `@types/content-disposition` that newer versions of `content-disposition`,
 * with types of their own, call otherwise; `@clerk/shared` declares index signatures twice.
 */
function isAboutOthers(complaint: string): boolean {
  const [file = ''] = complaint.split('(')
  return ['@types/koa', '@clerk/shared', '@clerk/backend', '@clerk/express'].some((name) =>
    file.includes(`/node_modules/${name}/`),
  )
}
