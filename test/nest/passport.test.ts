import {
  Controller,
  Get,
  Inject,
  Injectable,
  Module,
  type Provider,
  Req,
  Scope,
  type Type,
  UseGuards,
} from '@nestjs/common'
import { APP_FILTER, ContextIdFactory, ModuleRef } from '@nestjs/core'
import { AuthGuard, PassportStrategy } from '@nestjs/passport'
import type { Request } from 'express'
import session from 'express-session'
import type { ApiKey, ApiKeys } from 'latchkey'
import { API_KEYS, type Auth, CurrentAuth, LatchkeyExceptionFilter, LatchkeyModule } from 'latchkey/nest'
import { Strategy } from 'latchkey/passport'
import { describe, expect, it, vi } from 'vitest'
import { BARE } from '../support/challenges.ts'
import { issueKey } from '../support/issue-key.ts'
import type { Ask } from '../support/raw-http.ts'
import { ALICE, createTestKeys, forgeKey } from '../support/test-keys.ts'
import { type NestSettings, PLATFORMS, type Platform, serveNest } from './serve-nest.ts'

// Nest is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const KEYS = Symbol('keys')

/** An application with a strategy, and without our module. */
function serveStrategy(
  platform: Platform,
  keys: ApiKeys,
  strategy: Type,
  parts: NestSettings & { providers?: Provider[]; controllers?: Type[] } = {},
): Promise<Ask> {
  class AppModule {}
  Module({
    controllers: parts.controllers ?? [Routes],
    providers: [{ provide: KEYS, useValue: keys }, strategy, ...(parts.providers ?? [])],
  })(AppModule)
  return serveNest(platform, AppModule, parts)
}

const FILTER: Provider = { provide: APP_FILTER, useClass: LatchkeyExceptionFilter }

@Controller()
class Routes {
  @Get('by-key')
  @UseGuards(AuthGuard('apikey'))
  byKey(@Req() req: { user: unknown }) {
    return { user: req.user }
  }
  @Get('either')
  @UseGuards(AuthGuard(['session', 'apikey']))
  either() {
    return { let: 'in' }
  }
}

@Injectable()
class ApiKeyStrategy extends PassportStrategy(Strategy, 'apikey') {
  constructor(@Inject(KEYS) keys: ApiKeys) {
    super({ keys, refuseWith: 'error' })
  }
  async validate({ owner }: ApiKey): Promise<unknown> {
    await Promise.resolve()
    if (owner.id === 'u_down') throw new Error('password of the user table')
    return owner.id === 'u_gone' ? null : { id: owner.id }
  }
}

async function lineOf(keys: ApiKeys, options: Parameters<typeof issueKey>[1] = {}): Promise<string> {
  return `X-Api-Key: ${(await issueKey(keys, options)).key}`
}

describe.each(PLATFORMS)("on %s, AuthGuard('apikey') of @nestjs/passport", (platform) => {
  it('lets in whom validate() finds, and keeps its errors to itself', async () => {
    const { keys } = createTestKeys()
    const ask = await serveStrategy(platform, keys, ApiKeyStrategy, { providers: [FILTER] })
    const askAs = async (id: string) => ask('/by-key', [await lineOf(keys, { owner: { type: 'user', id } })])
    expect((await askAs(ALICE.id)).json()).toEqual({ user: { id: ALICE.id } })
    expect((await askAs('u_gone')).json()).toMatchObject({ status: 401, code: 'invalid_key' })
    const down = await askAs('u_down')
    expect(down.json()).toMatchObject({ status: 503, code: 'unavailable' })
    expect(down.text).not.toContain('password')
  })

  it('answers with problem bodies and all header fields of a refusal where our filter is', async () => {
    const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }] })
    const ask = await serveStrategy(platform, keys, ApiKeyStrategy, { providers: [FILTER] })
    const missing = await ask('/by-key')
    expect([missing.status, missing.header('WWW-Authenticate')]).toEqual([401, BARE])
    const line = await lineOf(keys)
    expect((await ask('/by-key', [line])).status).toBe(200)
    const limited = await ask('/by-key', [line])
    expect([limited.status, limited.header('Retry-After')]).toEqual([429, '60'])
    expect(limited.json()).toMatchObject({ code: 'rate_limited' })
  })

  it('works beside our module with its guard off', async () => {
    const { keys } = createTestKeys()
    @Injectable()
    class OfModule extends PassportStrategy(Strategy, 'apikey') {
      constructor(@Inject(API_KEYS) made: ApiKeys) {
        super({ keys: made, refuseWith: 'error' })
      }
      validate({ owner }: ApiKey) {
        return owner
      }
    }
    class AppModule {}
    Module({
      imports: [LatchkeyModule.forRoot({ keys, globalGuard: false })],
      controllers: [Routes],
      providers: [OfModule],
    })(AppModule)
    const ask = await serveNest(platform, AppModule)
    expect((await ask('/by-key', [await lineOf(keys)])).json()).toEqual({ user: ALICE })
    expect((await ask('/by-key')).json()).toMatchObject({ status: 401, code: 'missing_key' })
  })

  it('keeps fifty requests at once apart, good ones and bad ones in turn', async () => {
    const { keys } = createTestKeys()
    const ask = await serveStrategy(platform, keys, ApiKeyStrategy, { providers: [FILTER] })
    const owners = Array.from({ length: 25 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
    const good = await Promise.all(owners.map(async (owner) => (await issueKey(keys, { owner })).key))
    const all = good.flatMap((key) => [key, forgeKey(key, { secret: 'x'.repeat(43) })])
    const answers = await Promise.all(all.map((key) => ask('/by-key', [`X-Api-Key: ${key}`])))
    const told = answers.map(({ status, json }) => [status, (json().user as { id: string } | undefined)?.id])
    expect(told).toEqual(
      owners.flatMap(({ id }) => [
        [200, id],
        [401, undefined],
      ]),
    )
  })
})

describe('@nestjs/passport by itself', () => {
  it('answers every failure with a bare 401 where the strategy fails: without challenge, status and code', async () => {
    const { keys } = createTestKeys()
    @Injectable()
    class FailingStrategy extends PassportStrategy(Strategy, 'apikey') {
      constructor(@Inject(KEYS) made: ApiKeys) {
        super({ keys: made, refuseWith: 'fail' })
      }
      validate(apiKey: ApiKey) {
        return apiKey.owner
      }
    }
    const ask = await serveStrategy('Express', keys, FailingStrategy)
    const line = await lineOf(keys)
    for (const lines of [[], ['X-Api-Key: junk'], [line, line]]) {
      const answer = await ask('/by-key', lines)
      expect([answer.status, answer.all('WWW-Authenticate')]).toEqual([401, []])
      expect(answer.json()).toEqual({ statusCode: 401, message: 'Unauthorized' })
    }
  })

  it('keeps status and challenge with "refuseWith", and renders a body of its own and logs an error', async () => {
    const { keys } = createTestKeys()
    const logged: string[] = []
    const ask = await serveStrategy('Express', keys, ApiKeyStrategy, { logged })
    const answer = await ask('/by-key')
    expect(logged).toEqual(['LatchkeyError: An API key is required'])
    expect([answer.status, answer.header('WWW-Authenticate')]).toEqual([401, BARE])
    expect(answer.json()).toEqual({ statusCode: 401, message: 'An API key is required' })
  })

  it('lets everybody in with session before apikey', async () => {
    const { keys } = createTestKeys()
    const ask = await serveStrategy('Express', keys, ApiKeyStrategy, {
      prepare: (app) => void app.use(session({ secret: 'test', resave: false, saveUninitialized: false })),
    })
    for (const lines of [[], ['X-Api-Key: junk']])
      expect((await ask('/either', lines)).json()).toEqual({ let: 'in' })
  })

  it('makes no strategy with both validate() and "resolveUser"', async () => {
    const { keys } = createTestKeys()
    @Injectable()
    class DoubleStrategy extends PassportStrategy(Strategy, 'apikey') {
      constructor(@Inject(KEYS) made: ApiKeys) {
        super({ keys: made, resolveUser: () => ALICE })
      }
      validate() {
        return ALICE
      }
    }
    await expect(serveStrategy('Express', keys, DoubleStrategy)).rejects.toThrow(TypeError)
  })

  it('hands over the request with passReqToCallback, by which request-scoped providers are found', async () => {
    const { keys } = createTestKeys()
    let made = 0
    @Injectable({ scope: Scope.REQUEST })
    class Tenant {
      readonly number = ++made
    }
    @Injectable()
    class TenantStrategy extends PassportStrategy(Strategy, 'apikey') {
      constructor(
        @Inject(KEYS) given: ApiKeys,
        @Inject(ModuleRef) private readonly moduleRef: ModuleRef,
      ) {
        super({ keys: given, refuseWith: 'error', passReqToCallback: true })
      }
      async validate(req: Request, apiKey: ApiKey) {
        const context = ContextIdFactory.getByRequest(req)
        const tenant = await this.moduleRef.resolve(Tenant, context, { strict: false })
        return { owner: apiKey.owner.id, path: req.path, tenant: tenant.number }
      }
    }
    @Controller({ path: 'tenant', scope: Scope.REQUEST })
    @UseGuards(AuthGuard('apikey'))
    class Tenants {
      constructor(@Inject(Tenant) private readonly tenant: Tenant) {}
      @Get()
      show(@CurrentAuth() auth: Auth) {
        return { user: 'user' in auth && auth.user, tenant: this.tenant.number }
      }
    }
    const ask = await serveStrategy('Express', keys, TenantStrategy, {
      controllers: [Tenants],
      providers: [Tenant, FILTER],
    })
    const line = await lineOf(keys)
    for (const tenant of [1, 2]) {
      const user = { owner: ALICE.id, path: '/tenant', tenant }
      expect((await ask('/tenant', [line])).json()).toEqual({ user, tenant })
    }
  })
})
