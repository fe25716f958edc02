import Router from '@koa/router'
import express, { type Request } from 'express'
import { Cluster, Redis } from 'ioredis'
import { Cluster as Cluster5, Redis as Redis5 } from 'ioredis5'
import Koa from 'koa'
import {
  type ApiKey,
  type ApiKeys,
  type ApiKeyVerifier,
  createApiKeys,
  type ErrorCode,
  type Invalidation,
  memoryRateLimiter,
  memoryStore,
  type PermissionRequirement,
  type RateLimiter,
} from 'latchkey'
import {
  type ApiKeyRequest,
  apiKeyAuth,
  apiKeyErrorHandler,
  getAuth,
  markSession,
  refund,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
  withApiKey,
} from 'latchkey/express'
import * as koa from 'latchkey/koa'
import {
  type ApiKeyAuthenticateOptions,
  ApiKeyStrategy,
  getAuth as getAuthByPassport,
  type VerifyDone,
} from 'latchkey/passport'
import { redisInvalidation, redisRateLimiter } from 'latchkey/redis'
import {
  type MigrationResult,
  migrate,
  mysqlStore,
  postgresStore,
  type SqlStore,
  sqliteStore,
} from 'latchkey/sql'
import Libsql from 'libsql'
import { createPool } from 'mysql2'
import { createPool as createPromisePool } from 'mysql2/promise'
import passport from 'passport'
import { Pool } from 'pg'
import { expectTypeOf } from 'vitest'

declare const keys: ApiKeys
declare const req: Request
declare const users: Map<string, { name: string }>

// getAuth: the method narrows the user and the key
const auth = getAuth(req)
expectTypeOf(auth.method).toEqualTypeOf<'apikey' | 'session' | 'other' | 'rejected' | 'conflict' | 'none'>()
// @ts-expect-error nobody knows yet whether there is a key
auth.apiKey
// @ts-expect-error nor whether there is a user
auth.user
switch (auth.method) {
  case 'apikey':
    expectTypeOf(auth.apiKey).toEqualTypeOf<ApiKey>()
    expectTypeOf(auth.user).toEqualTypeOf<Express.User>()
    break
  case 'session':
  case 'other':
    expectTypeOf(auth.user).toEqualTypeOf<Express.User>()
    // @ts-expect-error only a request by key has one
    auth.apiKey
    break
  case 'rejected':
    expectTypeOf(auth.code).toEqualTypeOf<ErrorCode>()
    // @ts-expect-error a refused key stands for nobody
    auth.user
    break
  case 'conflict':
  case 'none':
    expectTypeOf(auth).toEqualTypeOf<{ readonly method: 'conflict' } | { readonly method: 'none' }>()
    break
  default:
    expectTypeOf(auth).toBeNever()
}
// @ts-expect-error what was proven cannot be assigned
auth.method = 'session'

const byPassport = getAuthByPassport(req)
if (byPassport.method === 'apikey') expectTypeOf(byPassport.user).toBeUnknown()
const named = getAuthByPassport<{ name: string }>(req)
if (named.method === 'session') expectTypeOf(named.user.name).toBeString()

// the request
expectTypeOf(req.apiKey).toEqualTypeOf<ApiKey | undefined>()
expectTypeOf(req.authMethod).toEqualTypeOf<'apikey' | 'session' | 'other' | undefined>()
// @ts-expect-error there is no such method
if (req.authMethod === 'rejected') req.apiKey
// @ts-expect-error a key as everybody may see it has no digest
req.apiKey?.digest

// the strategy
passport.use(new ApiKeyStrategy({ keys }))
passport.use('machines', new ApiKeyStrategy({ keys, resolveUser: ({ owner }) => users.get(owner.id) }))
new ApiKeyStrategy({ keys, resolveUser: async () => null, realm: 'API', bearer: true, refuseWith: 'error' })
new ApiKeyStrategy({ keys }, (apiKey, done) => {
  expectTypeOf(apiKey).toEqualTypeOf<ApiKey>()
  expectTypeOf(done).toEqualTypeOf<VerifyDone>()
})
new ApiKeyStrategy({ keys, passReqToCallback: true }, (request: Request, apiKey, done) => {
  expectTypeOf(apiKey).toEqualTypeOf<ApiKey>()
  done(null, request.ip)
})
new ApiKeyStrategy({ keys }, async (...args) => args)
declare const verifier: ApiKeyVerifier
new ApiKeyStrategy({ keys: verifier })
new ApiKeyStrategy({ keys, rateLimitHeaders: 'draft-6' })
// @ts-expect-error that draft has no syntax of its own
new ApiKeyStrategy({ keys, rateLimitHeaders: 'draft-9' })
// @ts-expect-error keys are what everything needs
new ApiKeyStrategy({})
// @ts-expect-error a problem body is the middleware’s answer
new ApiKeyStrategy({ keys, refuseWith: 'problem' })

// what one route asks for
declare const requirement: PermissionRequirement
passport.authenticate('apikey', { permissions: { projects: ['read'] }, cost: 5, session: false })
passport.authenticate(['apikey', 'local'], { permissions: [{ projects: ['read'] }, { reports: ['read'] }] })
passport.authenticate('apikey', { permissions: requirement }, () => {})
passport.authenticate(['local', 'apikey'], { permissions: { projects: ['read'] }, session: false })
// @ts-expect-error the strategy of passwords would let everybody in
passport.authenticate('local', { permissions: { projects: ['read'] } })
// @ts-expect-error so would these
passport.authenticate(['jwt', 'local'], { permissions: { projects: ['read'] } })
// @ts-expect-error nobody knows which strategy has this name
passport.authenticate('machines', { permissions: { projects: ['read'] } })
const ofMachines: ApiKeyAuthenticateOptions = {
  permissions: { projects: ['read'] },
  session: false,
}
passport.authenticate('machines', ofMachines)
passport.authenticate('apikey', { cost: { tokens: 5 } })
passport.authenticate('apikey', { cost: (req: Request) => Number(req.query.rows) })
passport.authenticate('apikey', {
  permissions: (req: Request) => ({ [`project:${req.params.id}`]: ['read'] }),
})
passport.authenticate('apikey', {
  // @ts-expect-error permissions are told at once
  permissions: async (req: Request) => ({ [`project:${req.params.id}`]: ['read'] }),
})
// @ts-expect-error a cost is numbers
passport.authenticate('apikey', { cost: '5' })
// @ts-expect-error actions are a list
passport.authenticate('apikey', { permissions: { projects: 'read' } })
// @ts-expect-error the option is called permissions
passport.authenticate('apikey', { permission: { projects: ['read'] } })

// middleware and guards
const app = express()
app.use(markSession(), markSession({ user: (request) => request.user }), apiKeyErrorHandler())
app.use('/api', apiKeyAuth(keys), apiKeyAuth(verifier, { required: false, ip: (request) => request.ip }))
app.use(apiKeyAuth(keys, { resolveUser: (apiKey) => users.get(apiKey.owner.id) ?? null }))
app.use(requireSession(), requireApiKey({ keys }), requireAuth({ accept: ['session', 'apikey', 'other'] }))
app.get('/', requirePermissions({ projects: ['read'] }, { accept: ['session'] }), (request, res) => {
  res.json({ owner: request.apiKey?.owner.id, by: request.authMethod })
})
app.get(
  '/projects/:id',
  apiKeyAuth(keys, {
    permissions: (request) => {
      expectTypeOf(request).toEqualTypeOf<Request>()
      return { [`project:${request.params.id}`]: ['read'] }
    },
  }),
  requirePermissions((request) => [{ [`project:${request.params.id}`]: ['read'] }, { projects: ['read'] }]),
  requireApiKey({ permissions: ({ query }) => ({ reports: [String(query.action)] }) }),
)
// @ts-expect-error permissions are told at once
apiKeyAuth(keys, { permissions: async () => ({ projects: ['read'] }) })
// @ts-expect-error permissions are told
requirePermissions(() => undefined)
app.use(apiKeyAuth(keys, { rateLimitHeaders: 'draft-7' }), apiKeyAuth(keys, { rateLimitHeaders: false }))
// @ts-expect-error true says not which
apiKeyAuth(keys, { rateLimitHeaders: true })
// @ts-expect-error the option is called required
apiKeyAuth(keys, { optional: true })
// @ts-expect-error that is no way of authenticating
requireAuth({ accept: ['telepathy'] })
// @ts-expect-error only keys hold permissions
requirePermissions({ projects: ['read'] }, { accept: ['apikey'] })
// @ts-expect-error the keys are the first argument
apiKeyAuth({ keys })

// handlers that run only with a key: there it is, and nowhere else
app.get('/export', apiKeyAuth(keys), (request) => {
  expectTypeOf(request.apiKey).toEqualTypeOf<ApiKey | undefined>()
})
app.get('/export', (request, _res, next) => {
  expectTypeOf(request.apiKey).toEqualTypeOf<ApiKey | undefined>()
  // @ts-expect-error nobody has proven that there is one
  request.apiKey.id
  next()
})
app.get(
  '/projects/:id',
  withApiKey((request, res) => {
    expectTypeOf(request.apiKey).toEqualTypeOf<ApiKey>()
    expectTypeOf(request.user).toEqualTypeOf<Express.User>()
    expectTypeOf(request.authMethod).toEqualTypeOf<'apikey'>()
    expectTypeOf(request.params).toEqualTypeOf<Request['params']>()
    expectTypeOf(request.query).toEqualTypeOf<Request['query']>()
    expectTypeOf(getAuth(request).method).toEqualTypeOf<ReturnType<typeof getAuth>['method']>()
    res.json({ owner: request.apiKey.owner })
  }),
)
app.route('/projects/:id').get(
  withApiKey(({ params }) => expectTypeOf(params).toEqualTypeOf<{ id: string }>(), {
    permissions: { projects: ['read'] },
    refuseWith: 'error',
    keys,
  }),
)
app.get<{ id: string }, { done: boolean }, { text: string }, { page?: string }>(
  '/projects/:id',
  requireApiKey(),
  withApiKey(async ({ params, body, query }, res) => {
    expectTypeOf(params).toEqualTypeOf<{ id: string }>()
    expectTypeOf(body).toEqualTypeOf<{ text: string }>()
    expectTypeOf(query).toEqualTypeOf<{ page?: string }>()
    res.json({ done: true })
    // @ts-expect-error that is not what the route answers
    res.json({ done: 'yes' })
  }),
)
app.get(
  '/projects/:id',
  withApiKey<{ id: string }>(({ params }) => expectTypeOf(params).toEqualTypeOf<{ id: string }>()),
)
app.get('/export', withApiKey(sendExport))
function sendExport(request: ApiKeyRequest, res: express.Response) {
  res.json({ keyId: request.apiKey.id })
}
// @ts-expect-error it answers only requests that a key has authenticated
app.get('/export', sendExport)
// @ts-expect-error the option is called permissions
withApiKey(sendExport, { permission: { projects: ['read'] } })
// @ts-expect-error a guard answers with a problem or an error
withApiKey(sendExport, { refuseWith: 'fail' })

// Koa: whatever state and context an application has, they keep their types
interface Member {
  id: string
}
interface AppState {
  tenant: string
}
interface AppContext {
  log(text: string): void
}
new Koa()
  .use(koa.apiKeyErrorHandler())
  .use(koa.markSession())
  .use(koa.apiKeyAuth(keys))
  .use(koa.requireAuth())
  .use((ctx) => {
    expectTypeOf(ctx.state.apiKey).toEqualTypeOf<ApiKey | undefined>()
    expectTypeOf(ctx.state.authMethod).toEqualTypeOf<'apikey' | 'session' | 'other' | undefined>()
    expectTypeOf(ctx.state.user).toBeUnknown()
    expectTypeOf(ctx.state.anything).toBeAny()
    // @ts-expect-error there is no such way of authenticating
    if (ctx.state.authMethod === 'telepathy') return
  })
new Koa<AppState, AppContext>()
  .use(koa.apiKeyErrorHandler())
  .use(koa.markSession({ user: (ctx) => ctx.get('X-User') }))
  .use(koa.apiKeyAuth<Member>(keys, { ip: (ctx) => ctx.ip }))
  .use(koa.requireSession({ ignorePresentedKey: true }))
  .use(koa.requirePermissions({ projects: ['read'] }, { accept: ['session'] }))
  .use((ctx) => {
    expectTypeOf(ctx.state.tenant).toBeString()
    expectTypeOf(ctx.log).toEqualTypeOf<AppContext['log']>()
    // @ts-expect-error nobody has put that there
    ctx.state.anything
    // @ts-expect-error nor that
    ctx.anything
    // @ts-expect-error nobody has proven that there is one
    ctx.state.apiKey.id
  })
new Koa().use(koa.apiKeyAuth(keys, { resolveUser: async (): Promise<Member | null> => null })).use((ctx) => {
  expectTypeOf(ctx.state.user).toEqualTypeOf<Member | undefined>()
})
const router = new Router<AppState, AppContext>()
router.use(koa.apiKeyAuth(keys)).get('/projects/:id', koa.requireApiKey({ keys }), (ctx) => {
  expectTypeOf(ctx.state.tenant).toBeString()
  expectTypeOf(ctx.log).toEqualTypeOf<AppContext['log']>()
  expectTypeOf(ctx.params).toEqualTypeOf<Record<string, string>>()
  // @ts-expect-error nobody has put that there
  ctx.anything
})
router.get(
  '/projects/:id',
  koa.withApiKey((ctx) => {
    expectTypeOf(ctx.state.apiKey).toEqualTypeOf<ApiKey>()
    expectTypeOf(ctx.state.authMethod).toEqualTypeOf<'apikey'>()
    const auth = koa.getAuth(ctx)
    if (auth.method === 'apikey') expectTypeOf(auth.apiKey).toEqualTypeOf<ApiKey>()
    // @ts-expect-error a key as everybody may see it has no digest
    ctx.state.apiKey.digest
  }),
)
router.get(
  '/projects/:id',
  koa.apiKeyAuth(keys, {
    permissions: (ctx) => {
      expectTypeOf(ctx).toEqualTypeOf<Koa.Context>()
      return { [`project:${ctx.params.id}`]: ['read'] }
    },
  }),
  koa.requirePermissions((ctx) => ({ [`project:${ctx.params.id}`]: ['write'] })),
  koa.withApiKey(() => {}, { permissions: (ctx) => ({ [`project:${ctx.params.id}`]: ['write'] }) }),
)
// @ts-expect-error permissions are told at once
koa.requirePermissions(async () => ({ projects: ['write'] }))
router.get(
  '/projects/:id',
  koa.requireApiKey(),
  koa.withApiKey((ctx) => {
    expectTypeOf(ctx.state.tenant).toBeString()
    expectTypeOf(ctx.log).toEqualTypeOf<AppContext['log']>()
    expectTypeOf(ctx.params).toEqualTypeOf<Record<string, string>>()
  }),
)
new Koa<AppState, AppContext>().use(
  koa.withApiKey<AppState & koa.ApiKeyState<Member>, AppContext>(
    async (ctx, next) => {
      expectTypeOf(ctx.state.tenant).toBeString()
      expectTypeOf(ctx.state.user).toEqualTypeOf<Member>()
      // @ts-expect-error nobody has put that there
      ctx.state.anything
      await next()
    },
    { permissions: [{ projects: ['read'] }, { reports: ['read'] }], refuseWith: 'error', keys },
  ),
)
new Koa().use(koa.withApiKey(showKey))
function showKey(ctx: koa.ApiKeyContext) {
  ctx.body = { keyId: ctx.state.apiKey.id }
}
const plain: Koa.Middleware[] = [koa.apiKeyAuth(keys), koa.requireApiKey(), koa.withApiKey(showKey)]
void plain
// @ts-expect-error it answers only requests that a key has authenticated
const unwrapped: Koa.Middleware<AppState & koa.ApiKeyState, Koa.DefaultContext> = showKey
void unwrapped
// @ts-expect-error the option is called permissions
koa.withApiKey(showKey, { permission: { projects: ['read'] } })
// @ts-expect-error that is no way of authenticating
koa.requireAuth({ accept: ['telepathy'] })
// @ts-expect-error the keys are the first argument
koa.apiKeyAuth({ keys })

// Redis, by whichever client
const clients = [new Redis(), new Redis({ protocol: 2, stringNumbers: true }), new Cluster([])] as const
const clients5 = [new Redis5(), new Cluster5([])] as const
for (const client of [...clients, ...clients5]) {
  expectTypeOf(redisRateLimiter(client)).toEqualTypeOf<RateLimiter>()
  expectTypeOf(redisInvalidation(client)).toEqualTypeOf<Invalidation>()
}
createApiKeys({
  store: memoryStore(),
  rateLimiter: redisRateLimiter(new Redis(), {
    onUnavailable: { default: 'open', limits: { day: 'closed' } },
  }),
  invalidation: redisInvalidation(new Cluster([])),
  revocation: 'bounded',
  failedAttempts: { limit: 10, windowMs: 60_000 },
  prefix: 'acme',
})
// @ts-expect-error an address is no client
redisRateLimiter('redis://localhost')
// @ts-expect-error there is no such policy
redisRateLimiter(new Redis(), { onUnavailable: 'retry' })
createApiKeys({
  store: memoryStore(),
  rateLimiter: memoryRateLimiter(),
  prefix: 'a',
  // @ts-expect-error the window says for how long
  failedAttempts: { blockMs: 1 },
})
async function giveBack(request: Request) {
  const result = await keys.verify('key')
  if (result.ok) expectTypeOf(await keys.refund(result)).toEqualTypeOf<boolean>()
  // @ts-expect-error a refusal has spent nothing
  else await keys.refund(result)
  expectTypeOf(await refund(request)).toEqualTypeOf<boolean>()
}
void giveBack

// SQL, by whichever pool or driver
const sqlStores = [
  postgresStore(new Pool(), { table: 'api_keys', schema: 'auth' }),
  mysqlStore(createPool('')),
  mysqlStore(createPromisePool(''), { schema: 'auth' }),
  sqliteStore('keys.db', { table: 'api_keys' }),
  sqliteStore(new Libsql('')),
]
expectTypeOf(sqlStores).toEqualTypeOf<SqlStore[]>()
createApiKeys({ store: postgresStore(new Pool()), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
expectTypeOf(migrate(sqliteStore('keys.db'))).toEqualTypeOf<Promise<MigrationResult>>()
// @ts-expect-error an address is no pool
postgresStore('postgres://localhost')
// @ts-expect-error that is the pool of another database
mysqlStore(new Pool())
// @ts-expect-error SQLite has no schemas
sqliteStore('keys.db', { schema: 'auth' })
// @ts-expect-error nothing but a SQL store has tables
migrate(memoryStore())
