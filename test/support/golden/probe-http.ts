import express, { type Express, type RequestHandler } from 'express'
import { type ApiKeys, type ApiKeysOptions, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import {
  apiKeyAuth,
  apiKeyErrorHandler,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import passport from 'passport'
import request from 'supertest'
import { type FakeClock, fakeClock } from '../fake-clock.ts'
import { forgeKey } from '../test-keys.ts'
import { compareVersions } from './releases.ts'

/** The header fields that are part of a promise; null stands for one that is absent. */
const FIELDS = [
  'content-type',
  'cache-control',
  'www-authenticate',
  'retry-after',
  'ratelimit',
  'ratelimit-policy',
  'ratelimit-limit',
  'ratelimit-remaining',
  'ratelimit-reset',
  'set-cookie',
]

const OWNER = { type: 'user', id: 'u_1' }
const LOGGED_IN = { 'X-Logged-In': 'yes' }

/** What requests of every kind are answered by Express: status, body to the byte, and header fields. */
export async function probeHttp(release: string): Promise<Record<string, unknown>> {
  const clock = fakeClock()
  const { keys, issue, app } = createSite(clock, release)
  const plain = await issue({})
  const reader = await issue({ permissions: { projects: ['read'] } })
  const bound = await issue({ allowedIps: ['203.0.113.0/24'] })
  const limited = await issue({ rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }] })
  const calendar = await issue({ rateLimits: [{ name: 'day', limit: 5, per: 'day' }] })
  const ended = await issue({ quota: { remaining: 0 } })
  const metered = await issue({ quota: { remaining: 7, refill: { amount: 7, per: 'month' } } })
  const revoked = await issue({}, (id) => keys.revoke(id))
  const disabled = await issue({}, (id) => keys.disable(id))
  const expired = await issue({ expiresAt: new Date(clock.now() + 1_000) })
  const idle = await issue({ idleExpiryMs: 60_000 })
  const stranger = await createSite(fakeClock(), release).issue({})
  await clock.advance(3_600_000)
  const key = (value: string) => ({ 'X-Api-Key': value })
  // Its letters are in the alphabet, so that only the checksum tells.
  const mistyped = plain.slice(0, -1) + (plain.endsWith('0') ? '1' : '0')

  const requests: [title: string, path: string, headers: Record<string, string>, since?: string][] = [
    ['a good key', '/key', key(plain)],
    ['a good key in Authorization', '/key', { Authorization: `Api-Key ${plain}` }],
    ['the scheme in lower case', '/key', { Authorization: `api-key ${plain}` }],
    ['a key as a Bearer token', '/key', { Authorization: `Bearer ${plain}` }],
    ['a key as a Bearer token, where that is on', '/bearer', { Authorization: `Bearer ${plain}` }],
    [
      'another Bearer token, where that is on',
      '/bearer',
      { Authorization: 'Bearer eyJhbGciOiJub25lIn0.e30.' },
    ],
    ['a key in the query', `/key?api_key=${plain}&apiKey=${plain}&x-api-key=${plain}`, {}],
    ['a key in a cookie', '/key', { Cookie: `api_key=${plain}; x-api-key=${plain}` }],
    ['no key', '/key', {}],
    ['an empty header', '/key', key('')],
    ['two credentials', '/key', { ...key(plain), Authorization: `Api-Key ${plain}` }],
    ['a malformed key', '/key', key('nonsense')],
    ['a key with a wrong checksum', '/key', key(mistyped)],
    ['an unknown key', '/key', key(stranger)],
    ['a wrong secret', '/key', key(forgeKey(plain, { secret: 'a'.repeat(43) }))],
    ['a key of another prefix', '/prefix', key(plain)],
    ['a revoked key', '/key', key(revoked)],
    ['a disabled key', '/key', key(disabled)],
    ['an expired key', '/key', key(expired)],
    ['an idle key', '/key', key(idle)],
    ['an inactive owner', '/inactive', key(plain)],
    ['no user for the key', '/nobody', key(plain)],
    ['a failure to find the user', '/user-fault', key(plain)],
    ['another address', '/key', key(bound)],
    ['a permission that is held', '/read', key(reader)],
    ['a permission that is missing', '/write', key(reader)],
    ['a limit, its last call', '/key', key(limited)],
    ['a limit, exhausted', '/key', key(limited)],
    ['a calendar limit', '/key', key(calendar)],
    ['a quota that is spent', '/key', key(ended)],
    ['a quota that is refilled', '/key', key(metered)],
    ['a cost that never fits', '/costly', key(calendar)],
    ['the store is down', '/down', key(plain)],
    ['the store is down, a malformed key', '/down', key('nonsense')],
    ['a realm of its own, no key', '/realm', {}],
    ['a key is optional: none', '/optional', {}],
    ['a key is optional: a bad one', '/optional', key(stranger)],
    ['a key is optional: a bad one with a login', '/optional', { ...key(stranger), ...LOGGED_IN }],
    ['requireSession: a login', '/session', LOGGED_IN],
    ['requireSession: no login', '/session', {}],
    ['requireSession: a key', '/session', key(plain)],
    ['requireSession: a key and a login', '/session', { ...key(plain), ...LOGGED_IN }],
    ['requireSession: a bad key and a login', '/session', { ...key('nonsense'), ...LOGGED_IN }],
    [
      'requireSession alone: a key that nobody has looked at, and a login',
      '/session-alone',
      { ...key(plain), ...LOGGED_IN },
    ],
    ['requireAuth: a login', '/auth', LOGGED_IN],
    ['requireAuth: a key', '/auth', key(plain)],
    ['requireAuth: nobody', '/auth', {}],
    ['requireAuth of either: a login', '/either', LOGGED_IN],
    ['requireAuth of either: a key', '/either', key(plain)],
    ['requireAuth of keys: a login', '/only-keys', LOGGED_IN],
    ['requireApiKey: a key', '/api-key', key(plain)],
    ['requireApiKey: a login', '/api-key', LOGGED_IN],
    ['requireApiKey: nobody', '/api-key', {}],
    ['requirePermissions: a key that holds them', '/permissions', key(reader)],
    ['requirePermissions: a key that does not', '/permissions', key(plain)],
    ['requirePermissions: a login', '/permissions', LOGGED_IN],
    ['requirePermissions: a login where it is accepted', '/permissions-or-session', LOGGED_IN],
    ['too many failures: the first', '/failures', key(stranger), '0.2.0'],
    ['too many failures: one more', '/failures', key(stranger), '0.2.0'],
    ['RateLimit fields of draft 7', '/draft-7', key(calendar), '0.2.0'],
    ['RateLimit fields of draft 6', '/draft-6', key(calendar), '0.2.0'],
    ['no RateLimit fields', '/draft-none', key(calendar), '0.2.0'],
    ['Passport: a good key', '/passport', key(reader)],
    ['Passport: no key', '/passport', {}],
    ['Passport: an unknown key', '/passport', key(stranger)],
    ['Passport: two credentials', '/passport', { ...key(plain), Authorization: `Api-Key ${plain}` }],
    ['Passport: a permission that is missing', '/passport', key(plain)],
    ['Passport: a limit, exhausted', '/passport-any', key(limited)],
    ['Passport, refuseWith error: no key', '/passport-error', {}],
    ['Passport, refuseWith error: an unknown key', '/passport-error', key(stranger)],
  ]
  const rows: Record<string, unknown> = {}
  for (const [title, path, headers, since = '0.0.0'] of requests) {
    if (compareVersions(since, release) > 0) continue
    const answer = await request(app).get(path).set(headers)
    const fields = FIELDS.map((name) => [name, answer.headers[name] ?? null])
    rows[title] = { status: answer.status, body: answer.text, headers: Object.fromEntries(fields) }
  }
  return rows
}

/** A site with a route for each way of asking. */
function createSite(clock: FakeClock, release: string) {
  const store = memoryStore()
  const open = (options: Partial<ApiKeysOptions> = {}) =>
    createApiKeys({ store, clock, rateLimiter: memoryRateLimiter({ clock }), prefix: 'acme', ...options })
  const keys = open()
  const app = express()
  app.use(markSession({ user: (req: express.Request) => (req.get('X-Logged-In') ? { id: 'u_1' } : null) }))
  addKeyRoutes(app, keys, open)
  if (compareVersions(release, '0.2.0') >= 0) addNewerRoutes(app, keys, open)
  addGuardedRoutes(app, keys)
  addPassportRoutes(app, keys)
  app.use(apiKeyErrorHandler())

  async function issue(
    settings: Omit<Parameters<ApiKeys['issue']>[0], 'owner' | 'name'>,
    then?: (id: string) => Promise<unknown>,
  ): Promise<string> {
    const { key, apiKey } = await keys.issue({ owner: OWNER, name: 'CI', ...settings })
    await then?.(apiKey.id)
    return key
  }

  return { app, keys, issue }
}

function addKeyRoutes(
  app: Express,
  keys: ApiKeys,
  open: (options: Partial<ApiKeysOptions>) => ApiKeys,
): void {
  const down = { ...memoryStore(), find: () => Promise.reject(new Error('down')) }
  const fails = () => {
    throw new Error('no users today')
  }
  app.get('/key', apiKeyAuth(keys), answer)
  app.get('/bearer', apiKeyAuth(keys, { bearer: true }), answer)
  app.get('/prefix', apiKeyAuth(keys, { prefix: 'other' }), answer)
  app.get('/inactive', apiKeyAuth(open({ isOwnerActive: () => false })), answer)
  app.get('/nobody', apiKeyAuth(keys, { resolveUser: () => null }), answer)
  app.get('/user-fault', apiKeyAuth(keys, { resolveUser: fails }), answer)
  app.get('/read', apiKeyAuth(keys, { permissions: { projects: ['read'] } }), answer)
  app.get('/write', apiKeyAuth(keys, { permissions: { projects: ['read', 'write'] } }), answer)
  app.get('/costly', apiKeyAuth(keys, { cost: 6 }), answer)
  app.get('/down', apiKeyAuth(open({ store: down })), answer)
  app.get('/realm', apiKeyAuth(keys, { realm: 'the "loom"' }), answer)
  app.get('/optional', apiKeyAuth(keys, { required: false }), answer)
}

function addNewerRoutes(
  app: Express,
  keys: ApiKeys,
  open: (options: Partial<ApiKeysOptions>) => ApiKeys,
): void {
  app.get('/failures', apiKeyAuth(open({ failedAttempts: { limit: 1 } })), answer)
  app.get('/draft-7', apiKeyAuth(keys, { rateLimitHeaders: 'draft-7' }), answer)
  app.get('/draft-6', apiKeyAuth(keys, { rateLimitHeaders: 'draft-6' }), answer)
  app.get('/draft-none', apiKeyAuth(keys, { rateLimitHeaders: false }), answer)
}

function addGuardedRoutes(app: Express, keys: ApiKeys): void {
  const guards: Record<string, RequestHandler> = {
    '/session': requireSession(),
    '/auth': requireAuth(),
    '/either': requireAuth({ accept: ['session', 'apikey'] }),
    '/only-keys': requireAuth({ accept: ['apikey'] }),
    '/api-key': requireApiKey(),
    '/permissions': requirePermissions({ projects: ['read'] }),
    '/permissions-or-session': requirePermissions({ projects: ['read'] }, { accept: ['session'] }),
  }
  app.get('/session-alone', requireSession(), answer)
  for (const [path, guard] of Object.entries(guards)) {
    app.get(path, apiKeyAuth(keys, { required: false }), guard, answer)
  }
}

function addPassportRoutes(app: Express, keys: ApiKeys): void {
  const instance = new passport.Passport()
  instance.use(new ApiKeyStrategy({ keys }))
  instance.use('halting', new ApiKeyStrategy({ keys, refuseWith: 'error' }))
  app.get('/passport', instance.authenticate('apikey', { permissions: { projects: ['read'] } }), answer)
  app.get('/passport-any', instance.authenticate('apikey'), answer)
  app.get('/passport-error', instance.authenticate('halting'), answer)
}

const answer: RequestHandler = ({ authMethod, user, apiKey }, res) => {
  res.json({ authMethod, user, hasApiKey: apiKey !== undefined })
}
