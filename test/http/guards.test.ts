import express, { type ErrorRequestHandler, type RequestHandler } from 'express'
import {
  apiKeyAuth,
  getAuth,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Authenticator } from 'passport'
import request from 'supertest'
import { describe, expect, it, vi } from 'vitest'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const SESSION_USER = { id: 'u_session' }

describe('a guard of sessions', () => {
  it.each([
    ['another header', { headers: ['X-Partner-Key'] }, (key: string) => ({ 'X-Partner-Key': key })],
    ['a bearer token', { bearer: true }, (key: string) => ({ Authorization: `Bearer ${key}` })],
    ['another scheme', { scheme: 'Acme' }, (key: string) => ({ Authorization: `acme ${key}` })],
  ] as const)('sees a key that another middleware reads from %s', async (_title, options, present) => {
    vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const app = express()
    app.use(markSession({ user: () => SESSION_USER }))
    app.use('/api', apiKeyAuth(keys, options))
    app.get('/settings', requireSession(), (_req, res) => void res.json({}))
    app.get(
      '/write',
      requirePermissions({ a: ['b'] }, { accept: ['session'] }),
      (_req, res) => void res.json({}),
    )
    app.get('/told', requireSession({ headers: ['X-Api-Key'] }), (_req, res) => void res.json({}))
    await request(app).get('/settings').expect(200)
    for (const path of ['/settings', '/write']) {
      const answer = await request(app).get(path).set(present(key)).expect(403)
      expect(answer.body).toMatchObject({ code: 'session_required' })
    }
    // A guard that is told where to look looks nowhere else.
    await request(app).get('/told').set(present(key)).expect(200)
  })
})

describe('a guard of sessions that is told nothing', () => {
  it.each<[string, object]>([
    ['by options that are undefined', { headers: undefined, scheme: undefined, bearer: undefined }],
    ['by another copy of the package', {}],
  ])('looks wherever a middleware of this process reads keys: %s', async (_how, options) => {
    const { keys } = createTestKeys()
    const guard = requireSession(options)
    vi.resetModules()
    const copy = await import('latchkey/express')
    copy.apiKeyAuth(keys, { headers: ['X-Other-Key'] })
    const app = express()
    app.get('/', markSession({ user: () => SESSION_USER }), guard, (_req, res) => void res.json({}))
    await request(app).get('/').expect(200)
    await request(app).get('/').set('X-Other-Key', 'junk').expect(403)
  })

  it('tells keys of two formats apart, whichever copies read them', async () => {
    const formats = (start: string) => ({
      prefix: 'acme',
      isForeignKey: (key: string) => key.startsWith(start),
    })
    const verifier = (start: string) => ({ ...createTestKeys().keys, ...formats(start) })
    const guard = requireSession()
    for (const start of ['one', 'two']) {
      vi.resetModules()
      const copy = await import('latchkey/express')
      copy.apiKeyAuth(verifier(start), { bearer: true })
    }
    const app = express()
    app.get('/', markSession({ user: () => SESSION_USER }), guard, (_req, res) => void res.json({}))
    for (const start of ['one', 'two']) {
      await request(app).get('/').set('Authorization', `Bearer ${start}-key`).expect(403)
    }
    await request(app).get('/').set('Authorization', 'Bearer three-key').expect(200)
  })
})

describe('a guard that sees a key which nothing has looked at', () => {
  const GUARDS: [string, () => RequestHandler, number][] = [
    ['requireApiKey', () => requireApiKey(), 401],
    ['requireAuth', () => requireAuth({ accept: ['apikey'] }), 403],
    ['requireAuth', () => requireAuth({ accept: ['session', 'apikey'] }), 403],
    ['requirePermissions', () => requirePermissions({ a: ['b'] }), 401],
    ['requirePermissions', () => requirePermissions({ a: ['b'] }, { accept: ['session'] }), 403],
  ]
  const answer: RequestHandler = (_req, res) => void res.json({})

  it.each(GUARDS)('refuses and warns once: %s', async (name, create, status) => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { keys } = createTestKeys()
    const { key } = await keys.issue({ ...NAME, permissions: { a: ['b'] } })
    const app = express()
    app.get('/', create(), apiKeyAuth(keys), answer)
    await request(app).get('/')
    expect(warn).not.toHaveBeenCalled()
    for (const text of ['junk', key, key, 'more junk']) {
      await request(app).get('/').set('X-Api-Key', text).expect(status)
    }
    expect(warn.mock.calls).toEqual([
      [
        `${name}() refused an API key that nothing had verified; ` +
          "mount apiKeyAuth(keys), or passport.authenticate('apikey'), before it",
        { code: 'LATCHKEY_UNVERIFIED' },
      ],
    ])
  })

  it('warns once also where a guard is made for every request', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const app = express()
    app.get('/', (req, res, next) => requirePermissions({ a: ['b'] })(req, res, next), answer)
    for (let i = 0; i < 3; i++) await request(app).get('/').set('X-Api-Key', 'junk').expect(401)
    expect(warn).toHaveBeenCalledTimes(1)
  })

  it('warns of one that another login brings along', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const app = express()
    app.get('/', markSession({ user: () => SESSION_USER }), requireApiKey(), answer)
    await request(app).get('/').expect(403)
    expect(warn).not.toHaveBeenCalled()
    await request(app).get('/').set('X-Api-Key', 'junk').expect(403)
    expect(warn).toHaveBeenCalledTimes(1)
  })

  it.each<[string, () => RequestHandler]>([
    ['takes sessions only', () => requireSession()],
    ['takes sessions by default', () => requireAuth()],
    ['takes something else', () => requireAuth({ accept: ['session', 'other'] })],
    ['ignores presented keys', () => requireAuth({ accept: ['apikey'], ignorePresentedKey: true })],
  ])('warns of nothing where it %s', async (_what, create) => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const app = express()
    app.get('/', create(), answer)
    for (let i = 0; i < 2; i++) {
      const { status } = await request(app).get('/').set('X-Api-Key', 'junk')
      expect(status).toBeGreaterThanOrEqual(401)
    }
    expect(warn).not.toHaveBeenCalled()
  })

  it('warns of nothing where an authenticator has looked, and let the request pass', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { keys } = createTestKeys()
    const passport = new Authenticator().use(new ApiKeyStrategy({ keys }))
    // It reads keys elsewhere; what it leaves alone is junk to this route, and anybody can send some.
    const elsewhere = apiKeyAuth(keys, { headers: ['X-Partner-Key'], required: false })
    const carryOn: RequestHandler = (req, res, next) => {
      passport.authenticate('apikey', { assignProperty: 'service' }, () => next())(req, res, next)
    }
    const app = express()
    app.get('/elsewhere', elsewhere, requireApiKey(), answer)
    app.get('/aside', carryOn, requireApiKey(), answer)
    for (const path of ['/elsewhere', '/aside']) {
      await request(app).get(path).set('X-Api-Key', 'junk').expect(401)
    }
    expect(warn).not.toHaveBeenCalled()
  })
})

describe('a user that is false', () => {
  it('is nobody, whoever has put it there', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const app = express()
    app.use((req, _res, next) => {
      req.user = false as never
      next()
    })
    app.get('/', requireAuth({ accept: ['other'] }), (_req, res) => void res.json({}))
    await request(app).get('/').expect(401)
    expect(warn).not.toHaveBeenCalled()
  })
})

describe('markSession', () => {
  it.each([
    ['false', false, 401],
    ['null', null, 401],
    ['undefined', undefined, 401],
    ['a promise', Promise.resolve(SESSION_USER), 500],
    ['0, which is a user like any other', 0, 200],
  ])('takes %s for what it is', async (_title, user, status) => {
    const app = express()
    app.set('env', 'test')
    app.use(markSession({ user: () => user }))
    app.get('/', requireAuth(), (_req, res) => void res.json({}))
    await request(app).get('/').expect(status)
  })
})

describe('the user of a session that is restored behind a key', () => {
  it.each([
    ['was refused', 'junk', 'rejected'],
    ['names somebody else', null, 'conflict'],
  ])('is taken away where the key %s', async (_what, junk, method) => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const app = express()
    app.use(apiKeyAuth(keys, { refuseWith: 'error' }), ((_error, _req, _res, next) =>
      next()) as ErrorRequestHandler)
    app.use((req, _res, next) => {
      req.user = SESSION_USER
      next()
    })
    app.use(markSession({ user: () => SESSION_USER }))
    app.get('/', (req, res) => void res.json({ method: getAuth(req).method, user: req.user ?? null }))
    const { body } = await request(app)
      .get('/')
      .set('X-Api-Key', junk ?? key)
    expect(body).toEqual({ method, user: null })
  })
})

describe('a requirement', () => {
  it('stays what it was when the route was made', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const permissions = { projects: ['write'] }
    const app = express()
    app.get('/', apiKeyAuth(keys, { permissions }), (_req, res) => void res.json({}))
    permissions.projects.pop()
    await request(app).get('/').set('X-Api-Key', key).expect(403)
  })
})

describe('two verifications of one request at once', () => {
  it('charge it once, though neither has the record at hand', async () => {
    const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }] })
    const { key } = await keys.issue(NAME)
    const authenticate = apiKeyAuth(keys)
    const app = express()
    app.get('/', (req, res) => {
      const run = () => new Promise((resolve) => authenticate(req, res, resolve))
      void Promise.all([run(), run()]).then(() => res.json({}))
    })
    await request(app).get('/').set('X-Api-Key', key).expect(200)
    expect(await keys.verify(key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 9 }] })
  })
})
