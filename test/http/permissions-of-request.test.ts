import Router from '@koa/router'
import type express from 'express'
import type { Request } from 'express'
import type { Context, Middleware } from 'koa'
import { KoaPassport } from 'koa-passport'
import type { ApiKeyVerifier, PermissionRequirement, Permissions } from 'latchkey'
import * as onExpress from 'latchkey/express'
import * as onKoa from 'latchkey/koa'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Authenticator } from 'passport'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { KOAS } from '../support/koas.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { createTestKeys, forgeKey } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

/** What a request names: the last part of its path, which a client chooses. */
type Named = (name: string) => unknown

/** Serves `/projects/:id`, whose permissions are a function of that id. */
type Door = (keys: ApiKeyVerifier, permissions: Named, cost?: () => number) => Promise<Ask>

const WORKED = 'worked'

function expressDoor(
  createApp: typeof express,
  guard: (
    keys: ApiKeyVerifier,
    permissions: (req: Request) => PermissionRequirement,
    cost: (() => number) | undefined,
  ) => express.RequestHandler[],
): Door {
  return (keys, permissions, cost) => {
    const app = createApp()
    const ofRequest = (req: Request) => permissions(String(req.params.id)) as PermissionRequirement
    app.get('/projects/:id', ...guard(keys, ofRequest, cost), (_req, res) => void res.send(WORKED))
    app.use(onExpress.apiKeyErrorHandler())
    return serve(app)
  }
}

function koaDoor(
  Koa: (typeof KOAS)[0][1],
  guard: (
    keys: ApiKeyVerifier,
    permissions: (ctx: Context) => PermissionRequirement,
    cost: (() => number) | undefined,
  ) => Middleware[],
): Door {
  return (keys, permissions, cost) => {
    const app = new Koa()
    const router = new Router()
    const ofRequest = (ctx: Context) => permissions(ctx.params.id) as PermissionRequirement
    const work: Middleware = (ctx) => {
      ctx.body = WORKED
    }
    router.get('/projects/:id', ...([...guard(keys, ofRequest, cost), work] as never[]))
    app.use(onKoa.apiKeyErrorHandler() as Middleware).use(router.routes() as Middleware)
    return serve(app.callback())
  }
}

/** Doors that prove the key themselves. */
const DOORS: [string, Door][] = [
  ...EXPRESSES.flatMap(([name, createApp]): [string, Door][] => [
    [
      `apiKeyAuth on ${name}`,
      expressDoor(createApp, (keys, permissions, cost) => [
        onExpress.apiKeyAuth(keys, { permissions, ...(cost && { cost }) }),
      ]),
    ],
    [
      `Passport on ${name}`,
      expressDoor(createApp, (keys, permissions, cost) => {
        const passport = new Authenticator()
        passport.use(new ApiKeyStrategy({ keys }))
        return [passport.authenticate('apikey', { permissions, session: false, ...(cost && { cost }) })]
      }),
    ],
  ]),
  ...KOAS.flatMap(([name, Koa]): [string, Door][] => [
    [
      `apiKeyAuth on ${name}`,
      koaDoor(Koa, (keys, permissions, cost) => [
        onKoa.apiKeyAuth(keys, { permissions, ...(cost && { cost }) }) as Middleware,
      ]),
    ],
    [
      `koa-passport on ${name}`,
      koaDoor(Koa, (keys, permissions, cost) => {
        const passport = new KoaPassport()
        passport.use(new ApiKeyStrategy({ keys, refuseWith: 'error' }))
        // koa-passport hands strategies a request of its own, which knows the context.
        const ofRequest = (req: { ctx: Context }) => permissions(req.ctx)
        return [
          passport.authenticate('apikey', { permissions: ofRequest, session: false, ...(cost && { cost }) }),
        ]
      }),
    ],
  ]),
]

/** Guards after a middleware that has proven the key and charged the request. */
const GUARDS: [string, Door][] = [
  ...EXPRESSES.flatMap(([name, createApp]): [string, Door][] => [
    [
      `requirePermissions on ${name}`,
      expressDoor(createApp, (keys, permissions) => [
        onExpress.apiKeyAuth(keys),
        onExpress.requirePermissions(permissions),
      ]),
    ],
    [
      `withApiKey on ${name}`,
      expressDoor(createApp, (keys, permissions) => [
        onExpress.apiKeyAuth(keys),
        onExpress.withApiKey((_req, _res, next) => next(), { permissions }) as express.RequestHandler,
      ]),
    ],
    [
      `a second apiKeyAuth on ${name}`,
      expressDoor(createApp, (keys, permissions) => [
        onExpress.apiKeyAuth(keys),
        onExpress.apiKeyAuth(keys, { permissions }),
      ]),
    ],
  ]),
  ...KOAS.flatMap(([name, Koa]): [string, Door][] => [
    [
      `requirePermissions on ${name}`,
      koaDoor(Koa, (keys, permissions) => [
        onKoa.apiKeyAuth(keys) as Middleware,
        onKoa.requirePermissions(permissions) as Middleware,
      ]),
    ],
    [
      `requireApiKey on ${name}`,
      koaDoor(Koa, (keys, permissions) => [
        onKoa.apiKeyAuth(keys) as Middleware,
        onKoa.requireApiKey({ permissions }) as Middleware,
      ]),
    ],
  ]),
]

const MINUTE = { name: 'minute', limit: 10, windowMs: 60_000 } as const
const PROJECT: Named = (id) => ({ [`project:${id}`]: ['read'] })

async function start(door: Door, permissions: Named, held: Permissions = { 'project:1': ['read'] }) {
  const test = createTestKeys({ rateLimits: [MINUTE] })
  const { key, apiKey } = await issueKey(test.keys, { permissions: held })
  const asked = vi.fn(permissions)
  const ask = await door(test.keys, asked)
  const left = async () => (await test.keys.limits(apiKey.id))?.[0]?.remaining
  const read = (id: string, text = key) => ask(`/projects/${encodeURIComponent(id)}`, [`X-Api-Key: ${text}`])
  return { ...test, key, id: apiKey.id, asked, ask, read, left }
}

describe.each([...DOORS, ...GUARDS])('permissions from the request, by %s', (_name, door) => {
  it('admit a key that has those of this request, and no other key', async () => {
    const { read, asked, eventsOf } = await start(door, PROJECT)
    expect((await read('1')).body).toBe(WORKED)
    expect(asked.mock.calls).toEqual([['1']])
    const refused = await read('2')
    expect(refused.status).toBe(403)
    expect(refused.json()).toMatchObject({
      code: 'insufficient_permissions',
      missing: { 'project:2': ['read'] },
    })
    expect(eventsOf('fault')).toEqual([])
  })

  it.each<[string, Named]>([
    [
      'throws',
      () => {
        throw new Error('no such tenant')
      },
    ],
    [
      'throws nothing',
      () => {
        throw undefined
      },
    ],
    ['answers nothing', () => undefined],
    ['answers null', () => null],
    ['answers true', () => true],
    ['answers a text', () => 'project:1'],
    ['answers no resource', () => ({})],
    ['answers no action', () => ({ 'project:1': [] })],
    ['answers a text for actions', () => ({ 'project:1': 'read' })],
    ['answers no alternative', () => []],
    ['answers an empty alternative', () => [{ 'project:1': ['read'] }, {}]],
    ['answers a function', () => PROJECT],
    ['answers a promise', async () => ({ 'project:1': ['read'] })],
    ['answers a promise that fails', () => Promise.reject(new Error('no such tenant'))],
    [
      'names what sets the prototype',
      () => {
        const required: Record<string, unknown> = {}
        required[['__proto__'].join('')] = ['read']
        return required
      },
    ],
    [
      'answers too many resources',
      () => Object.fromEntries(Array.from({ length: 257 }, (_, i) => [`p${i}`, ['read']])),
    ],
  ])('are a fault, never a pass, if the function %s', async (_what, permissions) => {
    const { read, eventsOf } = await start(door, permissions, { '*': ['*'] })
    const answer = await read('1')
    expect(answer.status).toBe(503)
    expect(answer.json()).toMatchObject({ code: 'unavailable' })
    expect(answer.body).not.toMatch(/tenant|permissions\(/)
    expect(eventsOf('fault')).toMatchObject([{ operation: 'permissions' }])
  })

  it('end no process if the function answers a promise that fails', async () => {
    const unhandled = watchUnhandled()
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    // Not a mock, which would take the rejection.
    const ask = await door(keys, () => Promise.reject(new Error('no such tenant')))
    expect((await ask('/projects/1', [`X-Api-Key: ${key}`])).status).toBe(503)
    expect(await unhandled()).toEqual([])
  })

  it.each(['*', 'a,b', 'a b', 'ü', 'a\nb', 'a\u0000b', '"', '../1?', 'x'.repeat(57), 'x'.repeat(5_000)])(
    'are held by no key, not even one that may do everything, if a client sends %j',
    async (id) => {
      const { read, asked, eventsOf } = await start(door, PROJECT, { '*': ['*'] })
      const answer = await read(id)
      expect(answer.status).toBe(403)
      expect(answer.json()).toMatchObject({ code: 'insufficient_permissions', missing: {} })
      expect(asked).toHaveBeenCalledWith(id)
      expect(eventsOf('fault')).toEqual([])
      expect((await read('1')).body).toBe(WORKED)
    },
  )

  it.each<[string, Permissions, boolean]>([
    ['1', { '1': ['read'] }, true],
    ['*', { '1': ['read'] }, false],
    ['*', { '1': ['*'] }, false],
    ['*', { '*': ['read'] }, true],
    ['api-keys', { '*': ['*'] }, false],
    ['__proto__', { '1': ['read'] }, false],
    ['constructor', { '1': ['read'] }, false],
    ['toString', {}, false],
    ['__proto__', { '*': ['read'] }, true],
    ['a:b', { a: ['read'] }, false],
    ['a:b', { 'a:b': ['read'] }, true],
    ['a/b', { a: ['read'] }, false],
  ])('let a client that names %j gain nothing with %j', async (resource, held, isAdmitted) => {
    const { read } = await start(door, (name) => ({ [name]: ['read'] }), held)
    expect((await read(resource)).status).toBe(isAdmitted ? 200 : 403)
  })

  it.each<[string, unknown]>([
    ['a wildcard', '*'],
    ['nothing', undefined],
    ['a list', ['read']],
    ['a number', 5],
    ['an empty text', ''],
  ])('are not met by less than a client names as the action: %s', async (_what, action) => {
    const { read, eventsOf } = await start(door, () => ({ 'project:1': [action] }))
    expect((await read('1')).json()).toMatchObject({ code: 'insufficient_permissions' })
    expect(eventsOf('fault')).toEqual([])
  })

  it('may have alternatives, one of which no key can hold', async () => {
    const either: Named = (id) => [{ [`project:${id}`]: ['read'] }, { projects: ['admin'] }]
    const { read } = await start(door, either, { projects: ['admin'] })
    expect((await read('a,b')).body).toBe(WORKED)
    const { read: readOther } = await start(door, either, { 'project:1': ['read'] })
    expect((await readOther('1')).body).toBe(WORKED)
    expect((await readOther('a,b')).json()).toMatchObject({ missing: { projects: ['admin'] } })
  })

  it('are never asked for a key that is refused anyway', async () => {
    const { keys, key, id, ask, read, asked, eventsOf } = await start(door, () => undefined)
    const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
    const { key: foreign } = await issueKey(keys, { allowedIps: ['203.0.113.1'] })
    for (const bad of [wrong, `${key}x`, 'junk']) expect((await read('1', bad)).status).toBe(401)
    expect((await read('1', foreign)).json()).toMatchObject({ code: 'address_not_allowed' })
    expect((await ask('/projects/1')).status).toBe(401)
    expect((await ask('/projects/1', [`X-Api-Key: ${key}`, `X-Api-Key: ${key}`])).status).toBe(400)
    await keys.disable(id)
    expect((await read('1')).status).toBe(401)
    await keys.revoke(id)
    expect((await read('1')).status).toBe(401)
    expect(asked).not.toHaveBeenCalled()
    expect(eventsOf('fault')).toEqual([])
  })
})

describe.each(DOORS)('permissions from the request, by %s', (_name, door) => {
  it('cost nothing if the key lacks them or nobody can tell them, and otherwise once', async () => {
    const { read, left, limiter } = await start(door, (id) => (id === 'x' ? undefined : PROJECT(id)))
    for (const id of ['2', 'a,b', 'x']) await read(id)
    expect(await left()).toBe(10)
    const check = vi.spyOn(limiter, 'check')
    await read('1')
    // Decided and charged by one question.
    expect(check).toHaveBeenCalledTimes(1)
    expect(await left()).toBe(9)
  })

  it('are asked before the cost, which is not asked for a key that lacks them', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const { key, apiKey } = await issueKey(keys, { permissions: { 'project:1': ['read'] } })
    const asked = vi.fn(PROJECT)
    const cost = vi.fn(() => 4)
    const ask = await door(keys, asked, cost)
    expect((await ask('/projects/2', [`X-Api-Key: ${key}`])).status).toBe(403)
    expect(cost).not.toHaveBeenCalled()
    expect((await ask('/projects/1', [`X-Api-Key: ${key}`])).status).toBe(200)
    expect([asked, cost].map(({ mock }) => mock.calls.length)).toEqual([2, 1])
    expect(await keys.limits(apiKey.id)).toMatchObject([{ remaining: 6 }])
  })

  it('admit no key that another process has revoked, whatever this one holds of it', async () => {
    const { keys, key, id, read, asked, store, limiter } = await start(door, PROJECT)
    expect((await read('1')).status).toBe(200)
    const other = createTestKeys({ store, rateLimiter: limiter, rateLimits: [MINUTE] })
    await other.keys.revoke(id)
    const answer = await read('1')
    expect(answer.json()).toMatchObject({ code: 'invalid_key' })
    expect(asked).toHaveBeenCalledTimes(2)
    expect(await keys.verify(key, { cost: 0 })).toMatchObject({ reason: 'revoked' })
  })

  it('are checked even if a verifier of the application’s own does not know of them', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys, { permissions: { 'project:1': ['read'] } })
    const careless: ApiKeyVerifier = {
      prefix: keys.prefix,
      verify: (text, { permissions: _ignored, ...others } = {}) => keys.verify(text, others),
    }
    const ask = await door(careless, (id) => (id === 'x' ? undefined : PROJECT(id)))
    const statusOf = async (id: string) => (await ask(`/projects/${id}`, [`X-Api-Key: ${key}`])).status
    expect([await statusOf('1'), await statusOf('2'), await statusOf('x')]).toEqual([200, 403, 503])

    const overTheWire: ApiKeyVerifier = {
      prefix: keys.prefix,
      verify: (text, options) => keys.verify(text, JSON.parse(JSON.stringify(options))),
    }
    const askOverTheWire = await door(overTheWire, PROJECT)
    expect((await askOverTheWire('/projects/1', [`X-Api-Key: ${key}`])).status).toBe(503)
  })
})

describe('a guard whose permissions are a function of the request', () => {
  it('does not ask for them if the caller has a session that it accepts', async () => {
    const { keys } = createTestKeys()
    const permissions = vi.fn(() => ({ 'project:1': ['read'] }))
    const [, createApp] = EXPRESSES[0] as (typeof EXPRESSES)[0]
    const app = createApp()
    app.use(
      onExpress.markSession({ user: () => ({ id: 'u_1' }) }),
      onExpress.apiKeyAuth(keys, { required: false }),
      onExpress.requirePermissions(permissions, { accept: ['session'] }),
      (_req, res) => void res.send(WORKED),
    )
    const ask = await serve(app)
    expect((await ask('/')).body).toBe(WORKED)
    expect(permissions).not.toHaveBeenCalled()
  })

  it('must be given some', () => {
    for (const requirePermissions of [onExpress.requirePermissions, onKoa.requirePermissions]) {
      for (const wrong of [undefined, null, {}, []]) {
        expect(() => requirePermissions(wrong as never)).toThrow(TypeError)
      }
    }
  })
})

afterEach(() => void vi.restoreAllMocks())
