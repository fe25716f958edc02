import type { ServerResponse } from 'node:http'
import {
  type ArgumentsHost,
  Catch,
  Controller,
  type DynamicModule,
  type ExceptionFilter,
  Get,
  HttpException,
  type MiddlewareConsumer,
  Module,
  type NestModule,
  Res,
  Scope,
  type Type,
  UseGuards,
} from '@nestjs/common'
import { ExecutionContextHost } from '@nestjs/core/helpers/execution-context-host.js'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type ApiKeys, isLatchkeyError, LatchkeyError } from 'latchkey'
import { type MarkSessionOptions, markSession } from 'latchkey/express'
import { markSession as markSessionOfFastify } from 'latchkey/fastify'
import { ApiKeyRouterModule } from 'latchkey/management/nest'
import {
  API_KEYS,
  type Auth,
  CurrentAuth,
  getAuth,
  LatchkeyExceptionFilter,
  LatchkeyGuard,
  LatchkeyModule,
  type LatchkeyModuleOptions,
  Public,
  RequireKey,
  RequireSession,
  RequireSessionOrKey,
} from 'latchkey/nest'
import { describe, expect, it, vi } from 'vitest'
import { BARE } from '../support/challenges.ts'
import { issueKey } from '../support/issue-key.ts'
import { createTestKeys } from '../support/test-keys.ts'
import { type NestSettings, PLATFORMS, type Platform, serveNest } from './serve-nest.ts'

// Nest is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const READ = { projects: ['read'] }
const MINUTE = { name: 'minute', limit: 1, windowMs: 60_000 }

/** A decorator that puts another function in the place of a method, without its metadata. */
const wrap: MethodDecorator = (_target, _name, descriptor) => {
  const inner = descriptor.value as unknown as () => unknown
  Object.assign(descriptor, { value: () => inner() })
}

@Controller()
class Site {
  @Get('unsaid')
  unsaid() {
    return 'in'
  }
  @Get('settings')
  @RequireSession()
  settings(@CurrentAuth() auth: Auth) {
    return auth
  }
  @Get('either')
  @RequireSessionOrKey()
  either(@CurrentAuth() auth: Auth) {
    return { by: auth.method }
  }
  @Get('broken')
  @Public()
  broken() {
    throw new Error('password of the database')
  }
  @Get('conflict')
  @Public()
  conflict() {
    throw new LatchkeyError('conflict')
  }
}

function appOf(...imports: (DynamicModule | Type)[]): Type {
  class AppModule {}
  Module({ imports, controllers: [Site] })(AppModule)
  return AppModule
}

async function lineOf(keys: ApiKeys): Promise<string> {
  return `X-Api-Key: ${(await issueKey(keys, { permissions: READ })).key}`
}

describe('LatchkeyModule refuses', () => {
  const { keys } = createTestKeys()

  it.each<[string, object, string]>([
    ['no keys', {}, '"keys" must be'],
    ['an unknown option', { keys, realms: 'x' }, 'did you mean "realm"'],
    ['what belongs to a route', { keys, permissions: READ }, '"options" has no option "permissions"'],
    ['another way to refuse', { keys, refuseWith: 'fail' }, '"refuseWith" must be'],
    ['a guard that is neither', { keys, globalGuard: 'no' }, '"globalGuard" must be true or false'],
    ['an address that is not a function', { keys, ip: '::1' }, '"ip" must be a function'],
    ['a user that is not looked up', { keys, resolveUser: null }, '"resolveUser" must be a function'],
  ])('%s, at once and when a provider makes the options', async (_what, options, message) => {
    expect(() => LatchkeyModule.forRoot(options as LatchkeyModuleOptions)).toThrow(message)
    const made = LatchkeyModule.forRootAsync({ useFactory: () => options as LatchkeyModuleOptions })
    await expect(serveNest('Express', appOf(made))).rejects.toThrow(message)
  })

  it('to be imported bare, which would guard nothing', async () => {
    await expect(serveNest('Express', appOf(LatchkeyModule))).rejects.toThrow(
      'import LatchkeyModule.forRoot({ keys })',
    )
  })

  it('to be imported twice', async () => {
    const [mine, others] = [createTestKeys().keys, createTestKeys().keys]
    const modules = [mine, others].map((each) => LatchkeyModule.forRoot({ keys: each }))
    await expect(serveNest('Express', appOf(...modules))).rejects.toThrow('LatchkeyModule is imported twice')
  })

  it('to be left out where a route is decorated, so that none is open by mistake', async () => {
    @Controller()
    class Guarded {
      @Get()
      @RequireKey()
      show() {
        return 'in'
      }
    }
    @Controller()
    class Bound {
      @Get()
      @UseGuards(LatchkeyGuard)
      show() {
        return 'in'
      }
    }
    for (const controller of [Guarded, Bound]) {
      class AppModule {}
      Module({ controllers: [controller] })(AppModule)
      await expect(serveNest('Express', AppModule)).rejects.toThrow('add LatchkeyModule.forRoot({ keys })')
    }
  })

  class Wrapped {
    @Get()
    @wrap
    @RequireKey()
    show() {
      return 'in'
    }
  }
  class Bound {
    constructor() {
      this.show = this.show.bind(this)
    }
    @Get()
    @RequireKey()
    show() {
      return 'in'
    }
  }
  class BoundByName extends Bound {
    @Get()
    @UseGuards(LatchkeyGuard)
    override show() {
      return 'in'
    }
  }
  it.each([
    ['class', Wrapped],
    ['constructor', Bound],
    ['constructor of the base', BoundByName],
  ])(
    'routes that have lost their guard, where the %s puts another function in their place',
    async (_where, Base: Type) => {
      @Controller()
      class Lost extends Base {}
      @Controller()
      @RequireSession()
      class Kept extends Base {}
      const start = (controller: Type, globalGuard: boolean) => {
        class AppModule {}
        const imports = [LatchkeyModule.forRoot({ keys, globalGuard })]
        Module({ imports, controllers: [controller] })(AppModule)
        return serveNest('Express', AppModule)
      }
      await expect(start(Lost, false)).rejects.toThrow('nothing guards "show" of Lost')
      for (const ask of [await start(Kept, false), await start(Lost, true)]) {
        expect((await ask('/')).status).toBe(401)
      }
    },
  )
})

describe.each(PLATFORMS)('on %s, LatchkeyModule', (platform) => {
  it('takes options that providers of other modules make, and hands on its keys', async () => {
    const { keys } = createTestKeys()
    const KEYS = Symbol('keys')
    class KeysModule {}
    Module({ providers: [{ provide: KEYS, useFactory: async () => keys }], exports: [KEYS] })(KeysModule)
    const module = LatchkeyModule.forRootAsync({
      imports: [KeysModule],
      inject: [KEYS],
      useFactory: async (made: ApiKeys) => ({ keys: made, resolveUser: () => ({ id: 'u_1' }) }),
    })
    const handed: unknown[] = []
    const prepare = (app: Parameters<NonNullable<NestSettings['prepare']>>[0]) => {
      handed.push(app.get(API_KEYS))
    }
    const ask = await serveNest(platform, appOf(module), { prepare })
    expect(handed).toEqual([keys])
    expect((await ask('/unsaid')).json()).toMatchObject({ code: 'missing_key' })
    expect((await ask('/unsaid', [await lineOf(keys)])).body).toBe('in')
  })

  it('takes no options that are made for each request, since Nest would not run its guard', async () => {
    const TENANT = Symbol('tenant')
    class TenantModule {}
    const provider = { provide: TENANT, scope: Scope.REQUEST, useFactory: () => createTestKeys().keys }
    Module({ providers: [provider], exports: [TENANT] })(TenantModule)
    const module = LatchkeyModule.forRootAsync({
      imports: [TenantModule],
      inject: [TENANT],
      useFactory: (keys: ApiKeys) => ({ keys }),
    })
    await expect(serveNest(platform, appOf(module))).rejects.toThrow('request-scoped provider')
  })

  it('answers errors of this package from handlers, too, and leaves every other to Nest', async () => {
    const { keys } = createTestKeys()
    const logged: string[] = []
    const ask = await serveNest(platform, appOf(LatchkeyModule.forRoot({ keys })), { logged })
    const answer = await ask('/conflict')
    expect(answer.json()).toMatchObject({ status: 409, code: 'conflict' })
    expect(answer.header('Content-Type')).toBe('application/problem+json')
    expect(logged).toEqual([])
    expect((await ask('/broken')).json()).toEqual({ statusCode: 500, message: 'Internal server error' })
    expect(logged).toEqual(['Error: password of the database'])
  })

  it('breaks off an answer that fails midway, and lets nobody wait for the rest', async () => {
    @Controller('stream')
    @Public()
    class Streaming {
      @Get()
      show(@Res() response: ServerResponse | FastifyReply) {
        const sent = 'raw' in response ? response.raw : response
        sent.write('half')
        throw new LatchkeyError('unavailable')
      }
    }
    class AppModule {}
    Module({
      imports: [LatchkeyModule.forRoot({ keys: createTestKeys().keys })],
      controllers: [Streaming],
    })(AppModule)
    const ask = await serveNest(platform, AppModule)
    const { text } = await ask('/stream')
    expect(text).not.toMatch(/\r\n0\r\n|unavailable/)
  })

  describe('keeps status and header fields, whoever renders a refusal:', () => {
    /** As in Nest's own guide. */
    class Everything implements ExceptionFilter {
      catch(error: unknown, host: ArgumentsHost) {
        const status = error instanceof HttpException ? error.getStatus() : 500
        const response = host.switchToHttp().getResponse<ServerResponse | FastifyReply>()
        if ('raw' in response) response.code(status).send({ mine: status })
        else {
          response.statusCode = status
          response.end(JSON.stringify({ mine: status }))
        }
      }
    }
    Catch()(Everything)

    const renderers: [string, Partial<LatchkeyModuleOptions>, NestSettings, (status: number) => object][] = [
      ['the filter of the module', {}, {}, (status) => ({ status })],
      ['Nest itself', { refuseWith: 'error' }, {}, (status) => ({ status })],
      [
        'a filter of the application for all errors',
        {},
        { prepare: (app) => void app.useGlobalFilters(new Everything()) },
        (status) => ({ mine: status }),
      ],
    ]

    it.each(renderers)('%s', async (_who, options, settings, body) => {
      const { keys } = createTestKeys({ rateLimits: [MINUTE] })
      const logged: string[] = []
      const module = LatchkeyModule.forRoot({ keys, ...options })
      const ask = await serveNest(platform, appOf(module), { ...settings, logged })
      const missing = await ask('/unsaid')
      expect([missing.status, missing.header('WWW-Authenticate')]).toEqual([401, BARE])
      expect(missing.json()).toMatchObject(body(401))
      const line = await lineOf(keys)
      expect((await ask('/unsaid', [line])).header('RateLimit')).toBe('"minute";r=0;t=60')
      const limited = await ask('/unsaid', [line])
      expect([limited.status, limited.header('Retry-After'), limited.header('RateLimit')]).toEqual([
        429,
        '60',
        '"minute";r=0;t=60',
      ])
      expect(limited.json()).toMatchObject(body(429))
      for (const { header } of [missing, limited]) expect(header('Cache-Control')).toBe('no-store')
      const session = await ask('/settings', [line])
      expect([session.status, session.json()]).toMatchObject([403, body(403)])
      expect(logged).toEqual([])
    })
  })

  it('takes logins that markSession has marked, and lets a key that is sent decide', async () => {
    const { keys } = createTestKeys()
    const ask = await serveNest(
      platform,
      withLogin(platform, LatchkeyModule.forRoot({ keys })),
      loginOf(platform),
    )
    const login = 'Cookie: user=ada'
    expect((await ask('/settings', [login])).json()).toEqual({ method: 'session', user: { id: 'ada' } })
    expect((await ask('/settings')).json()).toMatchObject({ code: 'authentication_required' })
    expect((await ask('/either', [login])).json()).toEqual({ by: 'session' })
    for (const line of [await lineOf(keys), 'X-Api-Key: junk']) {
      expect((await ask('/settings', [login, line])).json()).toMatchObject({ code: 'session_required' })
    }
    expect((await ask('/either', [login, await lineOf(keys)])).json()).toEqual({ by: 'apikey' })
    expect((await ask('/either', [login, 'X-Api-Key: junk'])).json()).toMatchObject({ code: 'invalid_key' })
    expect((await ask('/unsaid', [login])).json()).toMatchObject({ code: 'missing_key' })
  })

  describe('beside ApiKeyRouterModule', () => {
    it.each([
      ['', undefined, '/api-keys'],
      ['v1', '/me/keys/', '/v1/me/keys'],
    ])(
      'lets whoever is logged in manage keys, with the prefix "%s" and the path %s',
      async (prefix, path, base) => {
        const { keys } = createTestKeys()
        const router = ApiKeyRouterModule.forRoot({
          ...(path !== undefined && { path }),
          actor: (req) => {
            const auth = getAuth<{ id: string }>(req)
            if (auth.method !== 'session') return null
            return { id: auth.user.id, owners: [{ type: 'user', id: auth.user.id }], grantable: READ }
          },
        })
        const settings = loginOf(platform)
        const ask = await serveNest(platform, withLogin(platform, LatchkeyModule.forRoot({ keys }), router), {
          prepare(app) {
            settings.prepare?.(app)
            if (prefix) app.setGlobalPrefix(prefix)
          },
        })
        const login = ['Cookie: user=ada']
        const post = (to: string, json: object) => ask(`${base}${to}`, login, { method: 'POST', json })
        const issued = await post('', { name: 'CI', permissions: READ })
        expect([issued.status, issued.json()]).toMatchObject([201, { apiKey: { owner: { id: 'ada' } } }])
        const { key, apiKey } = issued.json() as { key: string; apiKey: { id: string } }
        const unsaid = prefix ? `/${prefix}/unsaid` : '/unsaid'
        expect((await ask(unsaid, [`X-Api-Key: ${key}`])).body).toBe('in')
        expect((await ask(`${base}/self`, [`X-Api-Key: ${key}`])).json()).toMatchObject({ id: apiKey.id })
        expect((await ask(`${base}?limit=1`, login)).json()).toMatchObject({ apiKeys: [{ id: apiKey.id }] })
        expect((await post(`/${apiKey.id}/revoke`, {})).status).toBe(200)
        expect((await ask(unsaid, [`X-Api-Key: ${key}`])).status).toBe(401)
        expect((await ask(base)).json()).toMatchObject({ code: 'authentication_required' })
        const wide = await post('', { name: 'CI', permissions: { '*': ['*'] } })
        expect(wide.json()).toMatchObject({ code: 'permissions_exceeded' })
        expect((await ask(`${base}/nowhere/at/all`, login)).status).toBe(404)
        expect((await ask(`${base}x`, login)).status).toBe(404)
      },
    )
  })
})

describe('ApiKeyRouterModule refuses', () => {
  const latchkey = () => LatchkeyModule.forRoot({ keys: createTestKeys().keys })
  const actor = () => null

  it.each<[string, object, string]>([
    ['no actor', {}, '"actor" must be a function'],
    ['an address that is not a function', { actor, ip: '::1' }, '"ip" must be a function'],
  ])('%s', async (_what, options, message) => {
    const made = ApiKeyRouterModule.forRootAsync({ useFactory: () => options as never })
    for (const router of [ApiKeyRouterModule.forRoot(options as never), made]) {
      await expect(serveNest('Express', appOf(latchkey(), router))).rejects.toThrow(message)
    }
  })

  it('a path that is none', () => {
    expect(() => ApiKeyRouterModule.forRoot({ actor, path: 'api-keys' })).toThrow(
      '"path" must begin with "/"',
    )
  })

  it('to be imported bare, or without LatchkeyModule', async () => {
    const starting = serveNest('Express', appOf(latchkey(), ApiKeyRouterModule))
    await expect(starting).rejects.toThrow('import ApiKeyRouterModule.forRoot')
    class Alone {}
    Module({ imports: [ApiKeyRouterModule.forRoot({ actor })] })(Alone)
    const alone = serveNest('Express', Alone)
    await expect(alone).rejects.toThrow('needs LatchkeyModule.forRoot({ keys })')
  })
})

describe('the filter', () => {
  const error = new LatchkeyError('unavailable')
  const hostOf = (type: string, ...args: unknown[]) => {
    const host = new ExecutionContextHost(args)
    host.setType(type)
    return host
  }

  it('tells the client of a WebSocket no more than the title', () => {
    const sent: unknown[] = []
    const client = { emit: (...event: unknown[]) => sent.push(event) }
    new LatchkeyExceptionFilter().catch(error, hostOf('ws', client, {}))
    expect(sent).toEqual([
      ['exception', { status: 'error', message: 'API keys cannot be verified right now' }],
    ])
  })

  it('leaves other messages to Nest', () => {
    expect(new LatchkeyExceptionFilter().catch(error, hostOf('rpc', {}, {}))).toBeUndefined()
  })

  it('knows what the guard throws as an error of this package and as one of Nest', async () => {
    const { keys } = createTestKeys()
    const caught: unknown[] = []
    class Noting implements ExceptionFilter {
      catch(thrown: unknown, host: ArgumentsHost) {
        caught.push(thrown)
        host.switchToHttp().getResponse<ServerResponse>().end()
      }
    }
    Catch()(Noting)
    const prepare: NestSettings['prepare'] = (app) => void app.useGlobalFilters(new Noting())
    const ask = await serveNest('Express', appOf(LatchkeyModule.forRoot({ keys })), { prepare })
    await ask('/unsaid')
    const [thrown] = caught as [HttpException]
    expect(isLatchkeyError(thrown)).toBe(true)
    expect(thrown).toBeInstanceOf(HttpException)
    expect(thrown.message).toBe('An API key is required')
    expect(thrown).toMatchObject({
      code: 'missing_key',
      statusCode: 401,
      expose: true,
      name: 'LatchkeyException',
    })
    expect(thrown.getResponse()).toMatchObject({ status: 401, code: 'missing_key' })
  })
})

const userOf = (cookie = '') => /user=(\w+)/.exec(cookie)?.[1]
const sessionOf = ({ headers }: { headers: { cookie?: string } }) => {
  const id = userOf(headers.cookie)
  return id === undefined ? null : { id }
}

/** The application whose users log in with a cookie: on Express, by a middleware. */
function withLogin(platform: Platform, ...imports: DynamicModule[]): Type {
  class AppModule implements NestModule {
    configure(consumer: MiddlewareConsumer) {
      const options: MarkSessionOptions = { user: sessionOf as (request: object) => unknown }
      if (platform === 'Express') consumer.apply(markSession(options)).forRoutes('{*path}')
    }
  }
  Module({ imports, controllers: [Site] })(AppModule)
  return AppModule
}

/** The same on Fastify, by a hook. */
function loginOf(platform: Platform): NestSettings {
  if (platform === 'Express') return {}
  return {
    prepare(app) {
      const fastify: FastifyInstance = app.getHttpAdapter().getInstance()
      fastify.addHook(
        'onRequest',
        markSessionOfFastify({ user: (request: FastifyRequest) => sessionOf(request) }),
      )
    },
  }
}
