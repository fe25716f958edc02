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
import { ApiKeyStrategy, HeaderAPIKeyStrategy } from 'latchkey/passport'
import { Authenticator } from 'passport'
import request from 'supertest'
import { describe, expect, it, vi } from 'vitest'
import { INVALID } from '../support/challenges.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const SESSION_USER = { id: 'u_session' }

describe('a guard of sessions', () => {
  it.each([
    ['another header', { headers: ['X-Partner-Key'] }, (key: string) => ({ 'X-Partner-Key': key })],
    ['a bearer token', { bearer: true }, (key: string) => ({ Authorization: `Bearer ${key}` })],
    ['another scheme', { scheme: 'Acme' }, (key: string) => ({ Authorization: `acme ${key}` })],
  ] as const)('sees a key that another middleware reads from %s', async (_title, options, present) => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
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
    // The programmer may not know of a middleware that reads other places than the usual ones.
    const elsewhere = [
      [expect.stringMatching(/^requireSession\(\) refused a session because .*set "headers"/)],
      [expect.stringMatching(/^requirePermissions\(\) refused a session because/)],
    ].map((text) => [...text, { code: 'LATCHKEY_READ_ELSEWHERE' }])
    const warned = warn.mock.calls.filter(([, code]) => String(Object(code).code) !== 'LATCHKEY_UNVERIFIED')
    expect(warned).toEqual('bearer' in options ? [] : elsewhere)
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
      isImportedKey: (key: string) => key.startsWith(start),
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
        `${name}() refused an API key that no middleware had verified; ` +
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

describe('what a programmer hands to a guard', () => {
  const NEEDED = { projects: ['read'] }

  it.each<[string, () => unknown]>([
    ['"options" has no option "session"', () => requireSession({ session: true } as never)],
    ['"options" must be an object, received an array', () => requireSession([] as never)],
    ['"ignorePresentedKey" must be true or false', () => requireSession({ ignorePresentedKey: 1 } as never)],
    [
      `"refuseWith" must be "problem" or "error", received the string 'x'`,
      () => requireSession({ refuseWith: 'x' } as never),
    ],
    ['did you mean "permissions"?', () => requireApiKey({ permission: NEEDED } as never)],
    ['"options" has no option "accept"', () => requireApiKey({ accept: ['session'] } as never)],
    ['"permissions"', () => requireApiKey({ permissions: 'projects' } as never)],
    ['"refuseWith" must be', () => requireApiKey({ refuseWith: null } as never)],
    ['"options" has no option "permissions"', () => requireAuth({ permissions: NEEDED } as never)],
    ['"refuseWith" must be', () => requireAuth({ refuseWith: 401 } as never)],
    ['"accept" must not be empty', () => requireAuth({ accept: [] })],
    ['"accept" must be an array', () => requireAuth({ accept: 'apikey' } as never)],
    [
      '"accept" must have at most 3 entries',
      () => requireAuth({ accept: ['apikey', 'session', 'other', 'other'] }),
    ],
    [
      `"accept" must hold some of "apikey", "session", "other", received the string 'none'`,
      () => requireAuth({ accept: ['apikey', 'none'] } as never),
    ],
    [
      `"accept" must hold some of "session", "other", received the string 'apikey'`,
      () => requirePermissions(NEEDED, { accept: ['apikey'] } as never),
    ],
    [
      '"options" has no option "ignorePresentedKey"',
      () => requirePermissions(NEEDED, { ignorePresentedKey: true } as never),
    ],
    ['"refuseWith" must be', () => requirePermissions(NEEDED, { refuseWith: 'throw' } as never)],
    ['"permissions"', () => requirePermissions(undefined as never)],
  ])('is refused, saying %s', (message, make) => {
    expect(make).toThrow(TypeError)
    expect(make).toThrow(message)
  })

  it('may be a requirement that nobody accepts beside keys', () => {
    expect(() => requirePermissions(NEEDED, { accept: [] })).not.toThrow()
  })
})

describe('the challenge of a guard', () => {
  const guards: [string, () => RequestHandler, string, string | undefined][] = [
    ['a key where none is sent', () => requireApiKey(), 'missing_key', 'Api-Key realm="Users"'],
    [
      'permissions where none is sent',
      () => requirePermissions({ a: ['b'] }),
      'missing_key',
      'Api-Key realm="Users"',
    ],
    [
      'a login where there is none',
      () => requireSession(),
      'authentication_required',
      'Session realm="Users"',
    ],
    [
      'either where there is neither',
      () => requireAuth({ accept: ['apikey', 'session'] }),
      'authentication_required',
      'Session realm="Users", Api-Key realm="Users"',
    ],
    [
      'permissions or a login where there is neither',
      () => requirePermissions({ a: ['b'] }, { accept: ['session'] }),
      'authentication_required',
      'Session realm="Users", Api-Key realm="Users"',
    ],
    [
      'a key or another proof',
      () => requireAuth({ accept: ['apikey', 'other'] }),
      'missing_key',
      'Api-Key realm="Users"',
    ],
  ]

  it.each(guards)('stands beside a 401: %s', async (_what, create, code, challenge) => {
    const app = express()
    app.get('/', create(), (_req, res) => void res.send('passed'))
    const answer = await request(app).get('/').expect(401)
    expect(answer.body.code).toBe(code)
    expect(answer.headers['www-authenticate']).toBe(challenge)
  })

  it('names the schemes and the realm of the middleware that looked for a key', async () => {
    const { keys } = createTestKeys()
    const app = express()
    app.use(apiKeyAuth(keys, { required: false, realm: 'Acme', bearer: false }))
    app.get('/', requireAuth({ accept: ['apikey', 'session'] }), (_req, res) => void res.send('passed'))
    const answer = await request(app).get('/').expect(401)
    expect(answer.headers['www-authenticate']).toBe('Session realm="Users", Api-Key realm="Acme"')
  })

  it('says of a bad key that it is one, where a key would be accepted', async () => {
    const { keys } = createTestKeys()
    const app = express()
    app.use(apiKeyAuth(keys, { refuseWith: 'error' }))
    const goOn: ErrorRequestHandler = (_error, _req, _res, next) => next()
    app.use(goOn)
    app.get('/key', requireApiKey(), (_req, res) => void res.send('passed'))
    app.get('/either', requireAuth({ accept: ['apikey', 'session'] }), (_req, res) => void res.send('passed'))
    app.get('/session', requireSession(), (_req, res) => void res.send('passed'))
    for (const path of ['/key', '/either']) {
      const answer = await request(app).get(path).set('X-Api-Key', 'junk').expect(401)
      expect(answer.headers['www-authenticate']).toBe(INVALID)
    }
    const answer = await request(app).get('/session').set('X-Api-Key', 'junk').expect(403)
    expect(answer.body.code).toBe('session_required')
    expect(answer.headers['www-authenticate']).toBeUndefined()
  })
})

describe('what is accepted besides keys', () => {
  it('is what each guard says, and what it refuses is told by what it accepts', async () => {
    const app = express()
    const login: RequestHandler = (req, _res, next) => {
      if (req.get('X-Who') !== undefined) req.user = { id: 'somebody' }
      next()
    }
    app.use('/marked', markSession({ user: () => SESSION_USER }))
    app.use('/unmarked', login)
    const guards: Record<string, RequestHandler> = {
      session: requireSession(),
      apikey: requireApiKey(),
      other: requireAuth({ accept: ['other'] }),
      either: requireAuth({ accept: ['apikey', 'other'] }),
      any: requireAuth({ accept: ['apikey', 'session', 'other'] }),
      permissions: requirePermissions({ a: ['b'] }, { accept: ['session'] }),
      others: requirePermissions({ a: ['b'] }, { accept: ['other'] }),
    }
    for (const [name, guard] of Object.entries(guards)) {
      for (const kind of ['marked', 'unmarked'])
        app.get(`/${kind}/${name}`, guard, (_req, res) => void res.send('ok'))
    }
    vi.spyOn(process, 'emitWarning').mockReturnValue()
    const told = async (kind: string) => {
      const answers = Object.keys(guards).map(async (name) => {
        const { status, body } = await request(app).get(`/${kind}/${name}`).set('X-Who', 'x')
        return [name, status === 200 ? 200 : `${status} ${body.code}`]
      })
      return Object.fromEntries(await Promise.all(answers))
    }
    expect(await told('marked')).toEqual({
      session: 200,
      apikey: '403 api_key_required',
      other: '403 auth_method_not_accepted',
      either: '403 auth_method_not_accepted',
      any: 200,
      permissions: 200,
      others: '403 auth_method_not_accepted',
    })
    expect(await told('unmarked')).toEqual({
      session: '403 session_required',
      apikey: '403 api_key_required',
      other: 200,
      either: 200,
      any: 200,
      permissions: '403 session_required',
      others: 200,
    })
  })
})

describe('a key that the application itself has verified', () => {
  const verify: ConstructorParameters<typeof HeaderAPIKeyStrategy>[2] = (key, done) =>
    done(null, key === 'good' && { id: 'u_old' })

  /** What each guard says of a request that the drop-in has let pass, or that only says who is asking. */
  function createApp() {
    const passport = new Authenticator().use(new HeaderAPIKeyStrategy(null, false, verify))
    const app = express()
    app.use('/verified', passport.authenticate('headerapikey', { session: false }))
    app.use('/unmarked', (req, _res, next) => {
      req.user = { id: 'somebody' }
      next()
    })
    const guards: Record<string, RequestHandler> = {
      other: requireAuth({ accept: ['other'] }),
      session: requireAuth({ accept: ['session'] }),
      any: requireAuth({ accept: ['apikey', 'session', 'other'] }),
      key: requireApiKey(),
    }
    for (const [name, guard] of Object.entries(guards)) {
      for (const kind of ['verified', 'unmarked'])
        app.get(`/${kind}/${name}`, guard, (_req, res) => void res.json({ code: 'passed' }))
    }
    return async (kind: string, headers: Record<string, string>) => {
      const codes = Object.keys(guards).map(async (name) => {
        const { body } = await request(app).get(`/${kind}/${name}`).set(headers)
        return [name, body.code]
      })
      return Object.fromEntries(await Promise.all(codes))
    }
  }

  it('passes where other ways are accepted, as the key that it is', async () => {
    vi.spyOn(process, 'emitWarning').mockReturnValue()
    const ask = createApp()
    expect(await ask('verified', { 'X-Api-Key': 'good' })).toEqual({
      other: 'passed',
      session: 'session_required',
      any: 'passed',
      key: 'api_key_required',
    })
  })

  it('is not any user beside a key that nobody has verified', async () => {
    vi.spyOn(process, 'emitWarning').mockReturnValue()
    const ask = createApp()
    expect(await ask('unmarked', {})).toEqual({
      other: 'passed',
      session: 'session_required',
      any: 'passed',
      key: 'api_key_required',
    })
    expect(await ask('unmarked', { 'X-Api-Key': 'junk' })).toEqual({
      other: 'auth_method_not_accepted',
      session: 'session_required',
      any: 'auth_method_not_accepted',
      key: 'api_key_required',
    })
  })
})

describe('the warning of a user whom nothing has marked', () => {
  it('is given for such a user, and for nobody else', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const exchange: RequestHandler = (req, _res, next) => {
      req.user = { id: 'somebody' }
      next()
    }
    const answer: RequestHandler = (_req, res) => void res.json({})
    const app = express()
    const others = requireAuth({ accept: ['other'] })
    app.get('/marked', markSession({ user: () => SESSION_USER }), others, answer)
    app.get('/exchanged', apiKeyAuth(keys), exchange, others, answer)
    app.get('/nobody', others, answer)
    app.get('/unmarked', exchange, requireSession(), answer)
    await request(app).get('/marked').expect(403)
    await request(app).get('/nobody').expect(401)
    expect(warn).not.toHaveBeenCalled()
    await request(app).get('/exchanged').set('X-Api-Key', key).expect(403)
    expect(warn.mock.calls.map(([, code]) => code)).toEqual([{ code: 'LATCHKEY_USER_REPLACED' }])
    warn.mockClear()
    await request(app).get('/unmarked').expect(403)
    expect(warn.mock.calls).toEqual([
      [
        'requireSession() refused a user that neither markSession() nor an API key established; ' +
          'mount markSession() after the session middleware, without Passport with its option "user", or accept "other"',
        { code: 'LATCHKEY_UNMARKED' },
      ],
    ])
  })

  it('names the guard that lets others pass besides keys', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const app = express()
    app.use((req, _res, next) => {
      req.user = { id: 'somebody' }
      next()
    })
    app.get('/', requirePermissions({ a: ['b'] }, { accept: ['session'] }), (_req, res) => void res.json({}))
    await request(app).get('/').expect(403)
    expect(warn).toHaveBeenCalledExactlyOnceWith(
      expect.stringMatching(/^requirePermissions\(\) refused a user/),
      {
        code: 'LATCHKEY_UNMARKED',
      },
    )
  })
})

describe('the warning of a user that was replaced', () => {
  const reload: RequestHandler = (req, _res, next) => {
    req.user = { ...req.user }
    next()
  }
  const pass: RequestHandler = (_req, res) => void res.json({})
  const login = markSession({ user: () => SESSION_USER })

  it.each<[string, RequestHandler]>([
    ['requireSession', requireSession()],
    ['requireAuth', requireAuth({ accept: ['session', 'apikey'] })],
    ['requireApiKey', requireApiKey()],
    ['requirePermissions', requirePermissions({ a: ['b'] })],
  ])('names %s(), once', async (name, guard) => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const app = express().get('/', login, reload, guard, pass)
    await request(app).get('/').expect(403)
    await request(app).get('/').expect(403)
    expect(warn).toHaveBeenCalledExactlyOnceWith(
      `${name}() refused a request whose user was replaced or removed after markSession() or an API key had ` +
        'established it; restore logins before keys are read, and let "user" of markSession(), or "resolveUser", ' +
        'return the final user',
      { code: 'LATCHKEY_USER_REPLACED' },
    )
  })

  it('is not given where the session ends midway, or the same user is set again', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const logOut: RequestHandler = (req, _res, next) => {
      req.user = undefined
      next()
    }
    const setAgain: RequestHandler = (req, _res, next) => {
      req.user = SESSION_USER
      next()
    }
    const app = express()
    app.get('/ended', login, logOut, requireSession(), pass)
    app.get('/same', login, setAgain, requireSession(), pass)
    await request(app).get('/ended').expect(401)
    await request(app).get('/same').expect(200)
    expect(warn).not.toHaveBeenCalled()
  })
})

describe('a key in a header that another middleware reads', () => {
  it('is warned of where nothing has looked at it', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { keys } = createTestKeys()
    apiKeyAuth(keys, { headers: ['X-Partner-Key'] })
    const app = express()
    app.get('/', requireApiKey(), (_req, res) => void res.json({}))
    await request(app).get('/').set('X-Partner-Key', 'junk').expect(401)
    expect(warn).toHaveBeenCalledTimes(1)
  })
})

describe('markSession a second time', () => {
  it('takes whom the later one names', async () => {
    const app = express()
    app.use(markSession({ user: () => SESSION_USER }), markSession({ user: () => ({ id: 'u_later' }) }))
    app.get('/', requireSession(), (req, res) => void res.json(req.user))
    expect((await request(app).get('/').expect(200)).body).toEqual({ id: 'u_later' })
  })

  it('says what is wrong with a promise', async () => {
    const app = express()
    app.use(markSession({ user: () => Promise.resolve(SESSION_USER) }))
    const show: ErrorRequestHandler = (error, _req, res, _next) => void res.json(error.message)
    app.use(show)
    expect((await request(app).get('/')).body).toBe(
      '"user" of markSession must be synchronous: load the session before it runs',
    )
  })

  it('outlives a promise that fails', async () => {
    const unhandled = watchUnhandled()
    const app = express()
    app.use(markSession({ user: () => Promise.reject(new Error('no database')) }))
    const show: ErrorRequestHandler = (error, _req, res, _next) => void res.json(error.message)
    app.use(show)
    expect((await request(app).get('/')).body).toContain('must be synchronous')
    expect(await unhandled()).toEqual([])
  })

  it.each([[{ passport: { user: null } }], [{ passport: {} }], [{}], [null], [undefined]])(
    'takes nobody for logged in by a session that holds no login: %j',
    async (session) => {
      vi.spyOn(process, 'emitWarning').mockReturnValue()
      const app = express()
      app.use((req, _res, next) => {
        Object.assign(req, { session, user: SESSION_USER })
        next()
      })
      app.get('/', markSession(), requireSession(), (_req, res) => void res.json({}))
      expect((await request(app).get('/').expect(403)).body).toMatchObject({ code: 'session_required' })
    },
  )
})
