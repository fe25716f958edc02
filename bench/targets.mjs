import { hash, randomBytes } from 'node:crypto'
import express from 'express'
import Koa from 'koa'
import passport from 'passport'
import headerApiKey from 'passport-headerapikey'
import { Strategy } from 'passport-strategy'

/** Of the part `doors`, where each guards the same route on a framework of its own. */
const door = { door: true, guarded: true, limited: true, library: true }

/**
 * The servers under comparison. Each differs from the bare one only in what stands before the same route.
 *
 * `against`: the target whose cost is taken off. `guarded`: must answer 401 to a bad key. `limited`: must send
 * the RateLimit fields. `library`: needs the built library. `door`: belongs to the part `doors`. `redis`: belongs to the part of that
 * name, and `create` receives the address of a Redis server. `create` gives the application and a key it admits.
 */
export const targets = {
  bare: {
    label: 'bare Express 5 route',
    create: createBare,
  },
  'bare-again': {
    label: 'the same again (A/A control)',
    against: 'bare',
    create: createBare,
  },
  noop: {
    label: 'do-nothing Passport strategy',
    against: 'bare',
    create: createNoop,
  },
  'noop-again': {
    label: 'the same again (A/A control)',
    against: 'noop',
    create: createNoop,
  },
  headerapikey: {
    label: 'passport-headerapikey, Map of digests',
    against: 'noop',
    guarded: true,
    create: createHeaderApiKey,
  },
  empty: {
    label: 'do-nothing app.use that sets req.user',
    against: 'bare',
    create: createEmpty,
  },
  hand: {
    label: 'guard written by hand: SHA-256, a Map, one window, two fields',
    against: 'bare',
    guarded: true,
    limited: true,
    create: () => createByHand({ isShown: true }),
  },
  'hand-unshown': {
    label: 'the same without the fields',
    against: 'bare',
    guarded: true,
    create: () => createByHand({ isShown: false }),
  },
  'headerapikey-limited': {
    label: 'passport-headerapikey, express-rate-limit in memory',
    against: 'bare',
    guarded: true,
    limited: true,
    create: createLimitedHeaderApiKey,
  },
  'better-auth': {
    label: 'better-auth, verifyApiKey in memory',
    against: 'bare',
    guarded: true,
    create: createBetterAuth,
  },
  middleware: {
    label: 'latchkey app.use(apiKeyAuth(keys))',
    against: 'bare',
    guarded: true,
    limited: true,
    library: true,
    create: () => createMiddleware({ rateLimits: oneLimit }),
  },
  'middleware-unlimited': {
    label: 'the same without a rate limit',
    against: 'bare',
    guarded: true,
    library: true,
    create: () => createMiddleware({ rateLimits: [] }),
  },
  strategy: {
    label: 'latchkey ApiKeyStrategy',
    against: 'noop',
    guarded: true,
    limited: true,
    library: true,
    create: () => createStrategy({ rateLimits: oneLimit }),
  },
  'strategy-unlimited': {
    label: 'the same without a rate limit',
    against: 'noop',
    guarded: true,
    library: true,
    create: () => createStrategy({ rateLimits: [] }),
  },
  'koa-bare': {
    label: 'bare Koa 3 route',
    create: createKoaBare,
  },
  'koa-bare-again': {
    label: 'the same again (A/A control)',
    against: 'koa-bare',
    create: createKoaBare,
  },
  'koa-empty': {
    label: 'do-nothing app.use that sets ctx.state.user',
    against: 'koa-bare',
    create: createKoaEmpty,
  },
  'koa-hand': {
    label: 'guard written by hand, on Koa',
    against: 'koa-bare',
    guarded: true,
    limited: true,
    create: () => createKoaByHand({ isShown: true }),
  },
  'koa-hand-unshown': {
    label: 'the same without the fields',
    against: 'koa-bare',
    guarded: true,
    create: () => createKoaByHand({ isShown: false }),
  },
  'koa-middleware': {
    label: 'latchkey app.use(apiKeyAuth(keys)) on Koa',
    against: 'koa-bare',
    guarded: true,
    limited: true,
    library: true,
    create: () => createKoaMiddleware({ rateLimits: oneLimit }),
  },
  'koa-middleware-unlimited': {
    label: 'the same without a rate limit',
    against: 'koa-bare',
    guarded: true,
    library: true,
    create: () => createKoaMiddleware({ rateLimits: [] }),
  },
  'fastify-bare': {
    label: 'bare Fastify 5 route',
    door: true,
    create: async () => (await import('./doors.mjs')).createFastifyBare(),
  },
  'fastify-door': {
    label: 'latchkey/fastify, apiKeyAuth(keys)',
    against: 'fastify-bare',
    ...door,
    create: async () => (await import('./doors.mjs')).createFastify(),
  },
  'nest-express-bare': {
    label: 'bare Nest 12 route on Express',
    door: true,
    create: async () => (await import('./doors.mjs')).createNestBare('express'),
  },
  'nest-express-door': {
    label: 'latchkey/nest on Express, LatchkeyModule',
    against: 'nest-express-bare',
    ...door,
    create: async () => (await import('./doors.mjs')).createNest('express'),
  },
  'nest-fastify-bare': {
    label: 'bare Nest 12 route on Fastify',
    door: true,
    create: async () => (await import('./doors.mjs')).createNestBare('fastify'),
  },
  'nest-fastify-door': {
    label: 'latchkey/nest on Fastify, LatchkeyModule',
    against: 'nest-fastify-bare',
    ...door,
    create: async () => (await import('./doors.mjs')).createNest('fastify'),
  },
  'fetch-bare': {
    label: 'bare handler of a web Request on node:http',
    door: true,
    create: async () => (await import('./doors.mjs')).createFetchBare(),
  },
  'fetch-door': {
    label: 'latchkey/fetch, withApiKey(keys)',
    against: 'fetch-bare',
    ...door,
    create: async () => (await import('./doors.mjs')).createFetch(),
  },
  'redis-bare': {
    label: 'Express 5 route that awaits one EVALSHA',
    redis: true,
    create: createRedisBare,
  },
  'redis-bare-again': {
    label: 'the same again (A/A control)',
    against: 'redis-bare',
    redis: true,
    create: createRedisBare,
  },
  'redis-hand': {
    label: 'guard written by hand, with the same EVALSHA',
    against: 'redis-bare',
    guarded: true,
    limited: true,
    redis: true,
    create: createRedisByHand,
  },
  'redis-headerapikey': {
    label: 'passport-headerapikey, express-rate-limit, rate-limit-redis',
    against: 'redis-bare',
    guarded: true,
    limited: true,
    redis: true,
    create: createRedisHeaderApiKey,
  },
  'redis-latchkey': {
    label: 'latchkey app.use(apiKeyAuth(keys)), redisRateLimiter',
    against: 'redis-bare',
    guarded: true,
    limited: true,
    library: true,
    redis: true,
    create: (redisUrl) => createRedisMiddleware(redisUrl, { rateLimits: oneLimit }),
  },
  'redis-latchkey-three': {
    label: 'the same with three limits and a quota',
    against: 'redis-bare',
    guarded: true,
    limited: true,
    library: true,
    redis: true,
    create: (redisUrl) => createRedisMiddleware(redisUrl, { rateLimits: threeLimits, quota: neverSpent }),
  },
}

export const routePath = '/hello'
export const routeBody = '{"hello":"world"}'

/** A limit that never denies. */
export const oneLimit = [{ name: 'minute', limit: 1_000_000_000, windowMs: 60_000 }]

/** One of each kind. The bucket leaks too slowly to be empty again: as in real life, it holds a fraction. */
export const threeLimits = [
  ...oneLimit,
  { name: 'hour', limit: 1_000, windowMs: 3_600_000, burst: 1_000_000_000 },
  { name: 'day', limit: 1_000_000_000, per: 'day' },
]

const neverSpent = { remaining: 1_000_000_000_000 }

/** One key and the service that admits it, configured alike wherever the library is measured. */
export async function createKeys({ rateLimits, quota = null, rateLimiter }) {
  const { createApiKeys, memoryRateLimiter, memoryStore } = await import('../dist/index.mjs')
  const keys = createApiKeys({
    store: memoryStore(),
    rateLimiter: rateLimiter ?? memoryRateLimiter(),
    prefix: 'bench',
    rateLimits,
    cache: { maxEntries: 100_000, maxAgeMs: 3_600_000 },
    quotaBlockSize: 1_000_000_000,
    quotaLeaseMs: 600_000,
  })
  const { key } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'bench', quota })
  return { keys, key }
}

/** What Redis does not answer is to end the run: counted by this process instead, the call would look cheap. */
export async function createRedisRateLimiter(redis) {
  const { redisRateLimiter } = await import('../dist/redis.mjs')
  return redisRateLimiter(redis, { onUnavailable: 'closed', timeoutMs: 1_000 })
}

/** A client as ioredis makes it by default. */
export async function connectRedis(redisUrl) {
  const { Redis } = await import('ioredis')
  const redis = new Redis(redisUrl)
  await redis.ping()
  return redis
}

/** What Express itself charges for a middleware that leaves a user behind. */
function createEmpty() {
  const app = express()
  const user = { type: 'user', id: 'u_1' }
  app.use((req, _res, next) => {
    req.user = user
    next()
  })
  app.get(routePath, answer)
  return { app, key: createLookalikeKey() }
}

function createBare() {
  const app = express()
  app.get(routePath, answer)
  return { app, key: createLookalikeKey() }
}

function createNoop() {
  const user = Object.freeze({ type: 'user', id: 'u_1' })
  class NoopStrategy extends Strategy {
    name = 'noop'
    authenticate() {
      this.success(user)
    }
  }
  passport.use(new NoopStrategy())
  const app = express()
  app.get(routePath, passport.authenticate('noop', { session: false }), answer)
  return { app, key: createLookalikeKey() }
}

function createHeaderApiKey() {
  const key = registerHeaderApiKey()
  const app = express()
  app.get(routePath, passport.authenticate('headerapikey', { session: false }), answer)
  return { app, key }
}

/** Returns a key that the strategy admits. */
function registerHeaderApiKey() {
  const key = createLookalikeKey()
  const users = new Map([[sha256(key), Object.freeze({ type: 'user', id: 'u_1' })]])
  passport.use(
    new headerApiKey.HeaderAPIKeyStrategy({ header: 'X-Api-Key', prefix: '' }, false, (presented, done) =>
      done(null, users.get(sha256(presented)) ?? false),
    ),
  )
  return key
}

async function createLimitedHeaderApiKey() {
  const { rateLimit } = await import('express-rate-limit')
  const key = registerHeaderApiKey()
  const limiter = rateLimit(expressRateLimit)
  const app = express()
  app.get(routePath, passport.authenticate('headerapikey', { session: false }), limiter, answer)
  return { app, key }
}

/** What a team writes that has no library: who the key belongs to, and a window for each owner. */
function createHandGuard() {
  const key = createLookalikeKey()
  const users = new Map([[sha256(key), { type: 'user', id: 'u_1' }]])
  const windows = new Map()
  const { limit, windowMs } = oneLimit[0]
  return {
    key,
    findUser: (presented) => (presented === undefined ? undefined : users.get(sha256(presented))),
    /** What is left of the window, and when it ends. */
    count(user) {
      const now = Date.now()
      let window = windows.get(user.id)
      if (!window || window.endsAt <= now) {
        window = { used: 0, endsAt: now + windowMs }
        windows.set(user.id, window)
      }
      window.used += 1
      return { left: limit - window.used, seconds: Math.ceil((window.endsAt - now) / 1_000) }
    },
  }
}

const policyField = `"minute";q=${oneLimit[0].limit};w=60`

function createByHand({ isShown }) {
  const { key, findUser, count } = createHandGuard()
  const app = express()
  app.use((req, res, next) => {
    const user = findUser(req.headers['x-api-key'])
    if (!user) return res.status(401).json({ error: 'invalid key' })
    const { left, seconds } = count(user)
    if (isShown) {
      res.setHeader('RateLimit-Policy', policyField)
      res.setHeader('RateLimit', `"minute";r=${left};t=${seconds}`)
    }
    if (left < 0) return res.status(429).json({ error: 'too many requests' })
    req.user = user
    next()
  })
  app.get(routePath, answer)
  return { app, key }
}

function createKoaByHand({ isShown }) {
  const { key, findUser, count } = createHandGuard()
  const app = new Koa()
  app.use((ctx, next) => {
    const user = findUser(ctx.req.headers['x-api-key'])
    if (!user) ctx.throw(401)
    const { left, seconds } = count(user)
    if (isShown) {
      ctx.set('RateLimit-Policy', policyField)
      ctx.set('RateLimit', `"minute";r=${left};t=${seconds}`)
    }
    if (left < 0) ctx.throw(429)
    ctx.state.user = user
    return next()
  })
  app.use(answerOnKoa)
  return { app: app.callback(), key }
}

/** In the memory of this process, which is the least that its store can cost. */
async function createBetterAuth() {
  const { apiKey } = await import('@better-auth/api-key')
  const { betterAuth } = await import('better-auth')
  const { memoryAdapter } = await import('better-auth/adapters/memory')
  const tables = { user: [], session: [], account: [], verification: [], apikey: [] }
  const auth = betterAuth({
    baseURL: 'http://localhost:3000',
    secret: 'a secret of the benchmark, long enough to be taken for one',
    database: memoryAdapter(tables),
    emailAndPassword: { enabled: true },
    plugins: [apiKey({ rateLimit: { maxRequests: oneLimit[0].limit } })],
    logger: { disabled: true }, // it would print the bad key of the probe
  })
  const owner = { name: 'owner', email: 'owner@example.com', password: 'of no consequence' }
  const { user } = await auth.api.signUpEmail({ body: owner })
  const { key } = await auth.api.createApiKey({ body: { userId: user.id } })
  const app = express()
  app.use(async (req, res, next) => {
    const { valid, key: found } = await auth.api.verifyApiKey({ body: { key: req.headers['x-api-key'] } })
    if (!valid) return res.status(401).json({ error: 'invalid key' })
    req.user = found
    next()
  })
  app.get(routePath, answer)
  return { app, key }
}

async function createMiddleware(settings) {
  const { apiKeyAuth } = await import('../dist/express.mjs')
  const { keys, key } = await createKeys(settings)
  const app = express()
  app.use(apiKeyAuth(keys))
  app.get(routePath, answer)
  return { app, key }
}

async function createStrategy(settings) {
  const { ApiKeyStrategy } = await import('../dist/passport.mjs')
  const { keys, key } = await createKeys(settings)
  passport.use(new ApiKeyStrategy({ keys }))
  const app = express()
  app.get(routePath, passport.authenticate('apikey'), answer)
  return { app, key }
}

function createKoaBare() {
  const app = new Koa()
  app.use(answerOnKoa)
  return { app: app.callback(), key: createLookalikeKey() }
}

/** What Koa itself charges for a middleware that leaves a user behind. */
function createKoaEmpty() {
  const app = new Koa()
  const user = { type: 'user', id: 'u_1' }
  app.use((ctx, next) => {
    ctx.state.user = user
    return next()
  })
  app.use(answerOnKoa)
  return { app: app.callback(), key: createLookalikeKey() }
}

async function createKoaMiddleware(settings) {
  const { apiKeyAuth } = await import('../dist/koa.mjs')
  const { keys, key } = await createKeys(settings)
  const app = new Koa()
  app.use(apiKeyAuth(keys))
  app.use(answerOnKoa)
  return { app: app.callback(), key }
}

/** The least that a limit shared by several processes can cost. */
async function createRedisBare(redisUrl) {
  const count = await createBareCount(redisUrl)
  const app = express()
  app.get(routePath, async (req, res) => {
    await count('u_1')
    answer(req, res)
  })
  return { app, key: createLookalikeKey() }
}

async function createBareCount(redisUrl) {
  const redis = await connectRedis(redisUrl)
  const sha = await redis.script(
    'LOAD',
    "local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end return n",
  )
  return (id) => redis.evalsha(sha, 1, `bare:${id}`, oneLimit[0].windowMs)
}

/** It does not ask when the window ends: the field names its whole length. */
async function createRedisByHand(redisUrl) {
  const { key, findUser } = createHandGuard()
  const count = await createBareCount(redisUrl)
  const app = express()
  app.use(async (req, res, next) => {
    const user = findUser(req.headers['x-api-key'])
    if (!user) return res.status(401).json({ error: 'invalid key' })
    const left = oneLimit[0].limit - (await count(user.id))
    res.setHeader('RateLimit-Policy', policyField)
    res.setHeader('RateLimit', `"minute";r=${left};t=60`)
    if (left < 0) return res.status(429).json({ error: 'too many requests' })
    req.user = user
    next()
  })
  app.get(routePath, answer)
  return { app, key }
}

const expressRateLimit = {
  windowMs: oneLimit[0].windowMs,
  limit: oneLimit[0].limit,
  keyGenerator: (req) => req.user.id,
  // Both fields, as latchkey sends them, for less than under draft-8, which hashes the id for every request.
  standardHeaders: 'draft-7',
  legacyHeaders: false,
}

async function createRedisHeaderApiKey(redisUrl) {
  const { rateLimit } = await import('express-rate-limit')
  const { RedisStore } = await import('rate-limit-redis')
  const redis = await connectRedis(redisUrl)
  const key = registerHeaderApiKey()
  const store = new RedisStore({ sendCommand: (...command) => redis.call(...command) })
  const limiter = rateLimit({ ...expressRateLimit, store })
  const app = express()
  app.get(routePath, passport.authenticate('headerapikey', { session: false }), limiter, answer)
  return { app, key }
}

async function createRedisMiddleware(redisUrl, settings) {
  const rateLimiter = await createRedisRateLimiter(await connectRedis(redisUrl))
  return createMiddleware({ ...settings, rateLimiter })
}

function answer(_req, res) {
  res.json({ hello: 'world' })
}

/** Koa has no router of its own: the least that a route can be. */
function answerOnKoa(ctx, next) {
  if (ctx.method !== 'GET' || ctx.path !== routePath) return next()
  ctx.body = { hello: 'world' }
}

/** As long as a real key, so that every target receives as many header bytes. */
export function createLookalikeKey() {
  const secret = randomBytes(65).toString('base64url').replaceAll(/[-_]/g, '0')
  return `bench_${secret.slice(0, 16)}_${secret.slice(16, 65)}`
}

function sha256(text) {
  return hash('sha256', text)
}
