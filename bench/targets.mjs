import { hash, randomBytes } from 'node:crypto'
import express from 'express'
import passport from 'passport'
import headerApiKey from 'passport-headerapikey'
import { Strategy } from 'passport-strategy'

/**
 * The servers under comparison. Each differs from the bare one only in what stands before the same route.
 *
 * `against`: the target whose cost is taken off. `guarded`: must answer 401 to a bad key. `limited`: must send
 * the RateLimit fields. `library`: needs the built library. `create` gives the application and a key it admits.
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
  middleware: {
    label: 'latchkey app.use(apiKeyAuth(keys))',
    against: 'bare',
    guarded: true,
    limited: true,
    library: true,
    create: () => createMiddleware({ limited: true }),
  },
  'middleware-unlimited': {
    label: 'the same without a rate limit',
    against: 'bare',
    guarded: true,
    library: true,
    create: () => createMiddleware({ limited: false }),
  },
  strategy: {
    label: 'latchkey ApiKeyStrategy',
    against: 'noop',
    guarded: true,
    limited: true,
    library: true,
    create: () => createStrategy({ limited: true }),
  },
  'strategy-unlimited': {
    label: 'the same without a rate limit',
    against: 'noop',
    guarded: true,
    library: true,
    create: () => createStrategy({ limited: false }),
  },
}

export const routePath = '/hello'
export const routeBody = '{"hello":"world"}'

/** One key and the service that admits it, configured alike wherever the library is measured. */
export async function createKeys({ limited }) {
  const { createApiKeys, memoryRateLimiter, memoryStore } = await import('../dist/index.mjs')
  const keys = createApiKeys({
    store: memoryStore(),
    rateLimiter: memoryRateLimiter(),
    prefix: 'bench',
    rateLimits: limited ? [{ name: 'minute', limit: 1_000_000_000, windowMs: 60_000 }] : [],
    cache: { maxEntries: 100_000, maxAgeMs: 3_600_000 },
  })
  const { key } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'bench' })
  return { keys, key }
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
  const key = createLookalikeKey()
  const users = new Map([[sha256(key), Object.freeze({ type: 'user', id: 'u_1' })]])
  passport.use(
    new headerApiKey.HeaderAPIKeyStrategy({ header: 'X-Api-Key', prefix: '' }, false, (presented, done) =>
      done(null, users.get(sha256(presented)) ?? false),
    ),
  )
  const app = express()
  app.get(routePath, passport.authenticate('headerapikey', { session: false }), answer)
  return { app, key }
}

async function createMiddleware({ limited }) {
  const { apiKeyAuth } = await import('../dist/express.mjs')
  const { keys, key } = await createKeys({ limited })
  const app = express()
  app.use(apiKeyAuth(keys))
  app.get(routePath, answer)
  return { app, key }
}

async function createStrategy({ limited }) {
  const { ApiKeyStrategy } = await import('../dist/passport.mjs')
  const { keys, key } = await createKeys({ limited })
  passport.use(new ApiKeyStrategy({ keys }))
  const app = express()
  app.get(routePath, passport.authenticate('apikey'), answer)
  return { app, key }
}

function answer(_req, res) {
  res.json({ hello: 'world' })
}

/** As long as a real key, so that every target receives as many header bytes. */
function createLookalikeKey() {
  const secret = randomBytes(65).toString('base64url').replaceAll(/[-_]/g, '0')
  return `bench_${secret.slice(0, 16)}_${secret.slice(16, 65)}`
}

function sha256(text) {
  return hash('sha256', text)
}
